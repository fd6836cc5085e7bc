//! Room on a server: what fits, taken and given back in cores, memory and disk.
//!
//! Cores are counted in thousandths, so that 0.1 and 0.2 make 0.3 and ten tenths make one. Work that asks
//! for no core has a budget of its own: twice the cores, or four on a server that has none. What is given
//! back never makes less than nothing used. Deliberately absent: when a server may go, which is
//! [`crate::life`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Items without cores that a server takes per core.
const ZERO_CORE_FACTOR: u64 = 2;
/// Items without cores that a server without cores takes.
const ZERO_CORE_ALONE: u64 = 4;
/// More than any machine has; keeps every sum far from the end of the type.
const CORES_MAX: f64 = 1e9;

/// Cores in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cores(u64);

impl Cores {
    /// No core.
    pub const ZERO: Self = Self(0);

    /// Whole cores.
    #[must_use]
    pub fn whole(cores: u32) -> Self {
        Self(u64::from(cores) * 1000)
    }

    /// Parts of a core, to the nearest thousandth. A tiny amount counts as one thousandth, as it must not
    /// turn into an item without cores.
    ///
    /// # Errors
    /// [`Error::BadInput`] for less than nothing, for no number, and beyond all reason.
    pub fn from_f64(cores: f64) -> Result<Self, Error> {
        if !(0.0..=CORES_MAX).contains(&cores) {
            return Err(Error::BadInput {
                what: "the number of cores",
                value: cores.to_string(),
                why: "it must be a number from 0 up".to_owned(),
            });
        }
        let thousandths = (cores * 1000.0).round() as u64;
        Ok(Self(if cores > 0.0 { thousandths.max(1) } else { 0 }))
    }

    /// The number of cores in thousandths.
    #[must_use]
    pub fn thousandths(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1000, self.0 % 1000);
        if part == 0 {
            return write!(formatter, "{whole}");
        }
        let digits = format!("{part:03}");
        write!(formatter, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// What an item of work asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Request {
    /// Cores; none is allowed.
    pub cores: Cores,
    /// Memory in MB.
    pub ram_mb: u64,
    /// Disk in GB.
    pub disk_gb: u64,
}

/// No room: what ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Too few cores are free.
    #[error("it has too few free cores")]
    Cores,
    /// As many items without cores as it takes.
    #[error("it has no room for another item without cores")]
    ZeroCoreItems,
    /// Too little memory is free.
    #[error("it has too little free memory")]
    Ram,
    /// Too little disk is free.
    #[error("it has too little free disk")]
    Disk,
    /// It is being destroyed.
    #[error("it is being destroyed, or is gone")]
    Destroyed,
}

/// The room of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    cores: u32,
    ram_mb: u64,
    disk_gb: u64,
    used: Request,
    zero_core_items: u64,
}

impl Space {
    /// An empty server.
    #[must_use]
    pub fn new(cores: u32, ram_mb: u64, disk_gb: u64) -> Self {
        Self { cores, ram_mb, disk_gb, used: Request::default(), zero_core_items: 0 }
    }

    /// What is used.
    #[must_use]
    pub fn used(&self) -> Request {
        self.used
    }

    /// Items without cores in it.
    #[must_use]
    pub fn zero_core_items(&self) -> u64 {
        self.zero_core_items
    }

    /// Whether nothing of it is used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == Request::default() && self.zero_core_items == 0
    }

    /// How many such items still fit; 0 is none.
    #[must_use]
    pub fn room_for(&self, request: &Request) -> u64 {
        if self.fits(request).is_err() {
            return 0;
        }
        let free = self.free();
        let by_cores = match free.cores.0.checked_div(request.cores.0) {
            Some(items) => items,
            None => self.zero_core_budget().saturating_sub(self.zero_core_items),
        };
        let by_ram = free.ram_mb.checked_div(request.ram_mb).unwrap_or(u64::MAX);
        let by_disk = free.disk_gb.checked_div(request.disk_gb).unwrap_or(u64::MAX);
        by_cores.min(by_ram).min(by_disk)
    }

    /// Takes room for one item, or changes nothing.
    ///
    /// # Errors
    /// [`NoRoom`] says what ran out.
    pub fn allocate(&mut self, request: &Request) -> Result<(), NoRoom> {
        self.fits(request)?;
        if request.cores == Cores::ZERO {
            self.zero_core_items += 1;
        }
        self.used.cores.0 += request.cores.0;
        self.used.ram_mb += request.ram_mb;
        self.used.disk_gb += request.disk_gb;
        Ok(())
    }

    /// Gives room back; never to less than nothing used.
    pub fn release(&mut self, request: &Request) {
        if request.cores == Cores::ZERO {
            self.zero_core_items = self.zero_core_items.saturating_sub(1);
        }
        self.used.cores.0 = self.used.cores.0.saturating_sub(request.cores.0);
        self.used.ram_mb = self.used.ram_mb.saturating_sub(request.ram_mb);
        self.used.disk_gb = self.used.disk_gb.saturating_sub(request.disk_gb);
    }

    /// Gives everything back.
    pub fn clear(&mut self) {
        self.used = Request::default();
        self.zero_core_items = 0;
    }

    fn fits(&self, request: &Request) -> Result<(), NoRoom> {
        let free = self.free();
        let zero_cores = request.cores == Cores::ZERO;
        if zero_cores && self.zero_core_items >= self.zero_core_budget() {
            Err(NoRoom::ZeroCoreItems)
        } else if request.cores > free.cores {
            Err(NoRoom::Cores)
        } else if request.ram_mb > free.ram_mb {
            Err(NoRoom::Ram)
        } else if request.disk_gb > free.disk_gb {
            Err(NoRoom::Disk)
        } else {
            Ok(())
        }
    }

    fn free(&self) -> Request {
        Request {
            cores: Cores(Cores::whole(self.cores).0.saturating_sub(self.used.cores.0)),
            ram_mb: self.ram_mb.saturating_sub(self.used.ram_mb),
            disk_gb: self.disk_gb.saturating_sub(self.used.disk_gb),
        }
    }

    fn zero_core_budget(&self) -> u64 {
        if self.cores == 0 { ZERO_CORE_ALONE } else { ZERO_CORE_FACTOR * u64::from(self.cores) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cores(number: f64) -> Cores {
        Cores::from_f64(number).unwrap()
    }

    #[test]
    fn cores_are_exact_to_a_thousandth() {
        assert_eq!(cores(0.1).0 + cores(0.2).0, cores(0.3).0);
        assert_eq!(cores(0.000_01), cores(0.001), "a tiny amount is not none");
        for (number, text) in [(0.0, "0"), (4.0, "4"), (0.25, "0.25"), (1.5, "1.5"), (0.1001, "0.1")] {
            assert_eq!(cores(number).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_number_of_cores_is_refused() {
        for bad in [-0.1, f64::NAN, f64::INFINITY, 1e18] {
            assert!(matches!(Cores::from_f64(bad), Err(Error::BadInput { .. })), "{bad}");
        }
    }

    #[test]
    fn a_refusal_says_what_ran_out_and_takes_nothing() {
        let mut space = Space::new(1, 100, 10);
        let ask = |number, ram_mb, disk_gb| Request { cores: cores(number), ram_mb, disk_gb };
        assert_eq!(space.allocate(&ask(1.001, 1, 1)), Err(NoRoom::Cores));
        assert_eq!(space.allocate(&ask(1.0, 101, 1)), Err(NoRoom::Ram));
        assert_eq!(space.allocate(&ask(1.0, 100, 11)), Err(NoRoom::Disk));
        assert!(space.is_empty());
    }

    #[test]
    fn giving_back_too_much_leaves_an_empty_server_and_no_larger_one() {
        let mut space = Space::new(2, 100, 10);
        space.release(&Request { cores: cores(5.0), ram_mb: 500, disk_gb: 50 });
        space.release(&Request::default());
        assert!(space.is_empty());
        assert_eq!(space.room_for(&Request { cores: cores(1.0), ..Request::default() }), 2);
    }

    #[test]
    fn a_server_without_cores_takes_four_items_without_cores() {
        let mut space = Space::new(0, 100, 10);
        for left in (0..4).rev() {
            space.allocate(&Request::default()).unwrap();
            assert_eq!(space.room_for(&Request::default()), left);
        }
        assert_eq!(space.allocate(&Request::default()), Err(NoRoom::ZeroCoreItems));
    }

    proptest! {
        #[test]
        fn as_many_fit_as_were_promised_and_all_can_be_given_back(
            size in (0_u32..6, 0_u64..50, 0_u64..50),
            thousandths in 0_u64..3000, ram_mb in 0_u64..20, disk_gb in 0_u64..20,
        ) {
            let mut space = Space::new(size.0, size.1, size.2);
            let request = Request { cores: Cores(thousandths), ram_mb, disk_gb };
            let promised = space.room_for(&request);
            for _ in 0..promised {
                prop_assert!(space.allocate(&request).is_ok());
            }
            prop_assert!(space.allocate(&request).is_err());
            for _ in 0..promised {
                space.release(&request);
            }
            prop_assert!(space.is_empty());
        }
    }
}
