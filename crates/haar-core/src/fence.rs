//! Revisions, fences and times: the numbers that order what was asked.

use serde::{Deserialize, Serialize};

/// The fleet's counter; every decision that changes something takes the next one.
pub type Revision = u64;

/// (epoch, revision): what was asked under a smaller fence is of the past. A restore begins a new epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// Counts restores.
    pub epoch: u64,
    /// The fleet's revision that made the order.
    pub revision: Revision,
}

impl Fence {
    /// A fence of this epoch and revision.
    pub const fn new(epoch: u64, revision: Revision) -> Self {
        Fence { epoch, revision }
    }
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.revision)
    }
}

/// A text that is not `epoch.revision`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a fence; write it as `epoch.revision`, two numbers and a dot")]
pub struct BadFence(String);

impl std::str::FromStr for Fence {
    type Err = BadFence;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadFence(text.to_owned());
        let (epoch, revision) = text.split_once('.').ok_or_else(bad)?;
        Ok(Fence { epoch: epoch.parse().map_err(|_| bad())?, revision: revision.parse().map_err(|_| bad())? })
    }
}

/// Milliseconds since the Unix epoch. A label for people; nothing is decided by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallMs(pub i64);

/// Milliseconds since the engine's start: what deadlines count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonoMs(pub u64);

impl MonoMs {
    /// This many milliseconds later.
    pub fn after(self, ms: u64) -> MonoMs {
        MonoMs(self.0.saturating_add(ms))
    }
}
