//! Quantities with their units, and the three that are counted for every guest.

use serde::{Deserialize, Serialize};

/// Mebibytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MiB(pub u64);

impl MiB {
    /// In bytes; saturates.
    pub fn bytes(self) -> u64 {
        self.0.saturating_mul(1 << 20)
    }

    /// Whole mebibytes in so many bytes, rounded down.
    pub fn from_bytes_floor(bytes: u64) -> MiB {
        MiB(bytes >> 20)
    }

    /// Whole mebibytes that hold so many bytes, rounded up.
    pub fn from_bytes_ceil(bytes: u64) -> MiB {
        MiB(bytes.div_ceil(1 << 20))
    }
}

impl std::fmt::Display for MiB {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const TIB: u64 = 1 << 20;
        if self.0 >= TIB && self.0.is_multiple_of(TIB) {
            write!(f, "{} TiB", self.0 / TIB)
        } else if self.0 >= TIB {
            // A tenth of a TiB is 102 GiB: too coarse by itself.
            write!(f, "{}.{:02} TiB", self.0 / TIB, self.0 % TIB * 100 / TIB)
        } else if self.0 >= 1024 && self.0.is_multiple_of(1024) {
            write!(f, "{} GiB", self.0 / 1024)
        } else if self.0 >= 10 * 1024 {
            write!(f, "{}.{} GiB", self.0 / 1024, self.0 % 1024 * 10 / 1024)
        } else {
            write!(f, "{} MiB", self.0)
        }
    }
}

/// What a guest takes and a hypervisor has (`mistify-wire` §1.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// Virtual CPUs.
    pub cpu: u32,
    /// Memory.
    pub memory: MiB,
    /// Disk.
    pub disk: MiB,
}

impl std::fmt::Display for Resources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cpu, {} memory, {} disk", self.cpu, self.memory, self.disk)
    }
}

/// How much more may be promised than is there, in hundredths: 100 promises what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Overcommit {
    /// Hundredths of virtual CPUs per CPU.
    pub cpu: u32,
    /// Hundredths of memory.
    pub memory: u32,
    /// Hundredths of disk.
    pub disk: u32,
}

impl Default for Overcommit {
    fn default() -> Self {
        Overcommit { cpu: 400, memory: 100, disk: 100 }
    }
}

impl Overcommit {
    /// What may be promised in all; saturates.
    pub fn of(self, total: Resources) -> Resources {
        let scale = |value: u64, hundredths: u32| value.saturating_mul(u64::from(hundredths)) / 100;
        Resources {
            cpu: u32::try_from(scale(u64::from(total.cpu), self.cpu)).unwrap_or(u32::MAX),
            memory: MiB(scale(total.memory.0, self.memory)),
            disk: MiB(scale(total.disk.0, self.disk)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_size_can_be_shown() {
        assert_eq!(MiB(512).to_string(), "512 MiB");
        assert_eq!(MiB(2048).to_string(), "2 GiB");
        assert_eq!(MiB(10 * 1024 + 512).to_string(), "10.5 GiB");
        assert_eq!(MiB(1023 * 1024).to_string(), "1023 GiB");
        assert_eq!(MiB(2 << 20).to_string(), "2 TiB");
        assert_eq!(MiB(1100 * 1024).to_string(), "1.07 TiB");
        assert_eq!(MiB(u64::MAX).to_string(), "17592186044415.99 TiB");
    }
}
