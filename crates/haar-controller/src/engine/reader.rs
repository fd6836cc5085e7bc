//! A reader beside the writer that can be closed, so that at the end nobody holds the store open.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use haar_store::{Error, Fence, Kind, Pairs, Reader, Visit};

/// A reader until it is closed; clones are the same one.
#[derive(Clone)]
pub(crate) struct ClosableReader(Arc<RwLock<Option<Box<dyn Reader>>>>);

impl ClosableReader {
    /// Opened.
    pub(crate) fn new(reader: Box<dyn Reader>) -> ClosableReader {
        ClosableReader(Arc::new(RwLock::new(Some(reader))))
    }

    /// Waits for who is reading, then lets go of the store.
    pub(crate) fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn with<T>(&self, read: impl FnOnce(&dyn Reader) -> Result<T, Error>) -> Result<T, Error> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(reader) => read(&**reader),
            None => Err(Error::NeedsReopen { path: PathBuf::from("(closed)") }),
        }
    }
}

impl Reader for ClosableReader {
    fn scan(&self, kind: Kind, from_key: &[u8], limit: usize) -> Result<Pairs, Error> {
        self.with(|reader| reader.scan(kind, from_key, limit))
    }

    fn snapshot(&self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error> {
        self.with(|reader| reader.snapshot(skip, each))
    }
}
