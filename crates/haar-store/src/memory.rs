//! A store in memory, for tests.
//!
//! The medium outlives the disk: drop the disk ("crash"), open another on the same medium, and what was
//! committed is there. Deliberately absent: locking; a deposed writer on the same medium is how tests
//! show that the fence holds.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::record::total_size;
use crate::{Disk, Error, Fence, Kind, Limits, Op, Pairs, Reader, Visit};

/// What a [`MemoryDisk`] writes on. Clones share the content; [`copy`](MemoryMedium::copy) does not.
#[derive(Clone, Default, Debug)]
pub struct MemoryMedium(Arc<Mutex<Content>>);

#[derive(Clone, Default, Debug)]
struct Content {
    fence: Fence,
    records: BTreeMap<(Kind, Vec<u8>), Vec<u8>>,
}

impl MemoryMedium {
    /// A medium with the same content that shares nothing from now on: a backup.
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.content().clone())))
    }

    /// The fence of the last commit, without opening a disk.
    pub fn fence(&self) -> Fence {
        self.content().fence
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // No code that can panic runs while a half-done change is in the content.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A [`Disk`] on a [`MemoryMedium`].
#[derive(Debug)]
pub struct MemoryDisk {
    medium: MemoryMedium,
    limits: Limits,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    /// An empty disk on a medium of its own, with no limits in practice.
    pub fn new() -> Self {
        Self::on(MemoryMedium::default(), Limits::NONE)
    }

    /// A disk on a medium that may hold something already.
    pub fn on(medium: MemoryMedium, limits: Limits) -> Self {
        Self { medium, limits }
    }

    /// The medium, to keep beyond this disk's end.
    pub fn medium(&self) -> MemoryMedium {
        self.medium.clone()
    }
}

impl Disk for MemoryDisk {
    fn load(&mut self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error> {
        self.medium.snapshot(skip, each)
    }

    fn commit(&mut self, ops: &[Op], expected: Fence, new: Fence) -> Result<(), Error> {
        if !self.limits.allow(ops) {
            return Err(Error::TooLarge { ops: ops.len(), bytes: total_size(ops), limits: self.limits });
        }
        let mut content = self.medium.content();
        if content.fence != expected {
            return Err(Error::Fenced { expected, found: content.fence });
        }
        for op in ops {
            match op {
                Op::Put { kind, key, value } => {
                    content.records.insert((*kind, key.clone()), value.clone());
                }
                Op::Delete { kind, key } => {
                    content.records.remove(&(*kind, key.clone()));
                }
            }
        }
        content.fence = new;
        Ok(())
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn reopen(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(self.medium.clone())
    }
}

impl Reader for MemoryMedium {
    fn scan(&self, kind: Kind, from_key: &[u8], limit: usize) -> Result<Pairs, Error> {
        let content = self.content();
        let start = Bound::Included((kind, from_key.to_vec()));
        let found = content
            .records
            .range((start, Bound::Unbounded))
            .take_while(|((found, _), _)| *found == kind)
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        Ok(found)
    }

    fn snapshot(&self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error> {
        // A clone, so that `each` may use this medium.
        let content = self.content().clone();
        for ((kind, key), value) in &content.records {
            if !skip.contains(kind) {
                each(*kind, key, value);
            }
        }
        Ok(content.fence)
    }
}

/// What stands for a path in the messages of stores without a file.
pub(crate) fn no_path() -> PathBuf {
    PathBuf::from("(memory)")
}
