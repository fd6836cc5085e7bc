//! The pace of spawning: how long a server may take to come up, and how long to wait after a failure.
//!
//! The limit follows what was seen: four times a moving average, never less than three minutes. After a
//! failure the next spawn waits, each time longer, per flavor and image: one flavor without hardware holds
//! up no other, and spawns that fail together count as one. Lots and times come in as numbers. Deliberately absent: clocks and sleeping; who waits can be
//! cancelled.

use std::collections::BTreeMap;
use std::time::Duration;

/// The limit before anything was seen.
const FIRST_LIMIT: Duration = Duration::from_secs(20 * 60);
/// The least limit.
const LEAST_LIMIT: Duration = Duration::from_secs(180);
/// How many times the average a spawn may take.
const PATIENCE: u32 = 4;
/// The weight of the newest time: an average over the last thirty or so.
const DECAY: f64 = 2.0 / 31.0;
/// The first wait after a failure, in seconds.
const FIRST_WAIT: f64 = 1.0;
/// How much longer each further one may be.
const WAIT_FACTOR: f64 = 1.5;
/// The longest wait, in seconds.
const LONGEST_WAIT: f64 = 60.0;

/// What a server boots from: a volume has to be filled first, which takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// The flavor's own disk.
    Plain,
    /// A volume.
    Volume,
}

/// A moving average of times; the first one counts in full.
#[derive(Debug, Clone, Copy, Default)]
struct Average(Option<f64>);

impl Average {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.0 = Some(match self.0 {
            None => seconds,
            Some(average) => average * (1.0 - DECAY) + seconds * DECAY,
        });
    }

    fn get(self) -> Option<Duration> {
        self.0.map(Duration::from_secs_f64)
    }
}

/// The pace of spawning in one cloud.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    plain: Average,
    volume: Average,
    /// Failures in a row, by flavor and image; one that works is not in it.
    failures: BTreeMap<(String, String), Failures>,
}

/// Failures in a row.
#[derive(Debug, Clone, Copy)]
struct Failures {
    number: u32,
    /// When the last one that counts was told.
    last: Duration,
}

impl Pace {
    /// How long a server may take to come up.
    #[must_use]
    pub fn limit(&self, boot: Boot) -> Duration {
        self.typical(boot).map_or(FIRST_LIMIT, |typical| (typical * PATIENCE).max(LEAST_LIMIT))
    }

    /// How long it takes on average, once anything was seen.
    #[must_use]
    pub fn typical(&self, boot: Boot) -> Option<Duration> {
        match boot {
            Boot::Plain => self.plain.get(),
            Boot::Volume => self.volume.get(),
        }
    }

    /// How long the next spawn has to wait. `lot` is a random number from 0 up to 1: the first wait is one
    /// second, the further ones lie between that and the longest for so many failures.
    #[must_use]
    pub fn wait(&self, flavor: &str, image: &str, lot: f64) -> Duration {
        let key = (flavor.to_owned(), image.to_owned());
        let Some(failures) = self.failures.get(&key).copied() else { return Duration::ZERO };
        let longest = longest_wait(failures.number);
        Duration::from_secs_f64(FIRST_WAIT + lot.clamp(0.0, 1.0) * (longest - FIRST_WAIT))
    }

    /// A server came up.
    pub fn succeeded(&mut self, flavor: &str, image: &str, boot: Boot, took: Duration) {
        match boot {
            Boot::Plain => self.plain.add(took),
            Boot::Volume => self.volume.add(took),
        }
        self.failures.remove(&(flavor.to_owned(), image.to_owned()));
    }

    /// A spawn failed that began at `began`, both times since any fixed start. One that began before the last
    /// failure was known is no further one: many at once fail for one reason. Not for one that was cancelled or
    /// never asked of the cloud.
    pub fn failed(&mut self, flavor: &str, image: &str, began: Duration, now: Duration) {
        let key = (flavor.to_owned(), image.to_owned());
        let Some(failures) = self.failures.get_mut(&key) else {
            self.failures.insert(key, Failures { number: 1, last: now });
            return;
        };
        if began >= failures.last {
            *failures = Failures { number: failures.number.saturating_add(1), last: now };
        }
    }
}

/// The longest wait after so many failures in a row, in seconds.
fn longest_wait(failures: u32) -> f64 {
    let steps = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    (FIRST_WAIT * WAIT_FACTOR.powi(steps)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_average_follows_slowly_and_begins_with_the_first() {
        let mut average = Average::default();
        average.add(seconds(31));
        assert_eq!(average.get(), Some(seconds(31)));
        average.add(seconds(62));
        assert_eq!(average.get(), Some(seconds(33)), "31 and two thirty-firsts of the other 31");
    }

    #[test]
    fn slow_volumes_do_not_make_us_patient_with_plain_servers() {
        let mut pace = Pace::default();
        pace.succeeded("f", "i", Boot::Volume, seconds(500));
        pace.succeeded("f", "i", Boot::Plain, seconds(5));
        assert_eq!(pace.limit(Boot::Volume), seconds(2000));
        assert_eq!(pace.limit(Boot::Plain), seconds(180));
    }

    #[test]
    fn a_failing_flavor_holds_up_no_other() {
        let mut pace = Pace::default();
        pace.failed("big", "i", seconds(0), seconds(1));
        assert_eq!(pace.wait("big", "i", 0.5), seconds(1));
        assert_eq!(pace.wait("small", "i", 0.5), Duration::ZERO);
        assert_eq!(pace.wait("big", "other", 0.5), Duration::ZERO);
    }

    #[test]
    fn spawns_that_began_together_and_fail_together_are_one_failure() {
        let mut pace = Pace::default();
        (0..10).for_each(|number| pace.failed("f", "i", seconds(0), seconds(10 + number)));
        assert_eq!(pace.wait("f", "i", 1.0), seconds(1));
        (0..10).for_each(|number| pace.failed("f", "i", seconds(30), seconds(40 + number)));
        assert_eq!(pace.wait("f", "i", 1.0), Duration::from_millis(1500));
    }

    #[test]
    fn no_number_of_failures_and_no_lot_leads_beyond_a_minute() {
        let mut pace = Pace::default();
        let many = Failures { number: u32::MAX, last: seconds(1) };
        pace.failures.insert(("f".to_owned(), "i".to_owned()), many);
        pace.failed("f", "i", seconds(2), seconds(3));
        assert_eq!(pace.wait("f", "i", 1.0), seconds(60));
        assert_eq!(pace.wait("f", "i", 7.0), seconds(60));
        assert_eq!(pace.wait("f", "i", -1.0), seconds(1));
    }
}
