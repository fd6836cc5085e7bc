//! A storage backend around another one that counts, and that can make each flush slower.
//!
//! Promises to pass everything else on unchanged, locks included.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redb::{BackendError, StorageBackend};

/// Counts what a store asked of its medium since it was first opened.
#[derive(Default, Debug)]
pub struct Meter {
    flushes: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
}

impl Meter {
    /// Flushes.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    /// Writes.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Written bytes.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(super) struct MeteredBackend {
    backend: Box<dyn StorageBackend>,
    meter: Arc<Meter>,
    flush_delay: Duration,
}

impl MeteredBackend {
    pub(super) fn new(backend: Box<dyn StorageBackend>, meter: Arc<Meter>, flush_delay: Duration) -> Self {
        Self { backend, meter, flush_delay }
    }
}

impl StorageBackend for MeteredBackend {
    fn len(&self) -> Result<u64, io::Error> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if !self.flush_delay.is_zero() {
            std::thread::sleep(self.flush_delay);
        }
        self.meter.flushes.fetch_add(1, Ordering::Relaxed);
        self.backend.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.meter.writes.fetch_add(1, Ordering::Relaxed);
        self.meter.bytes_written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.backend.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
