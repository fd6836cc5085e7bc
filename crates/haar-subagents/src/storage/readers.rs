//! Who reads which snapshot: what is being read is not deleted, and neither is its disk.
//!
//! Promised: a reading ends with whoever reads, however that ends. Deliberately absent: anything on the disk; a
//! restart ends every reading.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who reads which snapshot just now.
#[derive(Debug, Default)]
pub(super) struct Readers {
    counts: Mutex<BTreeMap<String, usize>>,
}

/// A snapshot that is being read, until dropped.
#[derive(Debug)]
pub(super) struct Reading {
    readers: Arc<Readers>,
    id: String,
}

impl Readers {
    /// Begins to read; the caller has the guest's turn.
    pub(super) fn begin(self: &Arc<Self>, id: String) -> Reading {
        *self.counts().entry(id.clone()).or_default() += 1;
        Reading { readers: Arc::clone(self), id }
    }

    /// Whether anybody reads a snapshot of this volume.
    pub(super) fn is_read(&self, volume: &str) -> bool {
        let is_its = |id: &String| id.strip_prefix(volume).is_some_and(|rest| rest.starts_with('@'));
        self.counts().keys().any(is_its)
    }

    /// Whether anybody reads this snapshot.
    pub(super) fn is_reading(&self, id: &str) -> bool {
        self.counts().contains_key(id)
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        // One number is changed at a time.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut counts = self.readers.counts();
        let left = counts.get(&self.id).map_or(0, |count| count - 1);
        if left == 0 {
            counts.remove(&self.id);
        } else {
            counts.insert(self.id.clone(), left);
        }
    }
}
