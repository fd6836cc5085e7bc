//! What is stored: kinds, operations on records, the fence of the last commit, and how much fits one commit.
//!
//! Plain values. No encoding of values and no names of kinds: both belong to the caller.

use std::fmt;

/// The number of a table; names are the caller's business.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Kind(pub u8);

/// One stored record, owned.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Record {
    /// Its table.
    pub kind: Kind,
    /// Its key, unique in its kind; ordered as bytes.
    pub key: Vec<u8>,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// One change of one record. The operations of a commit apply in their order; the last one of a key wins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Make the record so, whether or not it was there.
    Put {
        /// Its table.
        kind: Kind,
        /// Its key, unique in its kind.
        key: Vec<u8>,
        /// Its new bytes.
        value: Vec<u8>,
    },
    /// Remove the record; that it is not there is no error.
    Delete {
        /// Its table.
        kind: Kind,
        /// Its key, unique in its kind.
        key: Vec<u8>,
    },
}

impl Op {
    /// What this operation counts for against [`Limits::bytes`]: kind, key and value, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => 1 + key.len() + value.len(),
            Self::Delete { key, .. } => 1 + key.len(),
        }
    }
}

/// Says which commit was the last: a restore begins a new epoch, each decision has its own revision.
/// An empty store has the default, (0, 0).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Fence {
    /// Grows by one with each restore.
    pub epoch: u64,
    /// The fleet's counter within the epoch.
    pub revision: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.epoch, self.revision)
    }
}

/// How much one commit may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Operations.
    pub ops: usize,
    /// The sum of [`Op::size`], in bytes.
    pub bytes: usize,
}

impl Limits {
    /// What etcd takes in one transaction unless configured otherwise.
    pub const ETCD: Self = Self { ops: 128, bytes: 1_536 * 1024 };
    /// No limit in practice.
    pub const NONE: Self = Self { ops: usize::MAX, bytes: usize::MAX };

    /// Whether a commit of these operations fits.
    pub fn allow(&self, ops: &[Op]) -> bool {
        ops.len() <= self.ops && total_size(ops) <= self.bytes
    }
}

/// The sum of [`Op::size`] over `ops`, in bytes.
pub(crate) fn total_size(ops: &[Op]) -> usize {
    ops.iter().map(Op::size).sum()
}
