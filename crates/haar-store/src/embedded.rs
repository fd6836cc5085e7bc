//! The default store: one redb file, one process.
//!
//! Every commit is flushed twice (first the data, then the switch to it), and its allocator state is
//! saved with it, so that opening after a power cut needs no long repair. Before a file is opened for
//! writing, every page is checked against its checksum without writing a byte; a damaged file is
//! refused and stays as it is. A new file is made aside and named when it is whole, so that an empty
//! file under the store's name is always damage.
//!
//! Deliberately absent: compaction, savepoints, sharing a file between processes. One limit is the
//! operating system's: when a flush fails, what is read again may be what is in memory and not what is
//! on the medium; after a failing medium, trust a backup.

mod check;
mod file;
mod layout;
mod meter;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use redb::{Database, StorageBackend};

pub use self::meter::Meter;
use self::meter::MeteredBackend;
use crate::record::total_size;
use crate::{Disk, Error, Fence, Kind, Limits, Op, Pairs, Reader, Visit};

/// How a [`RedbDisk`] works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Memory for cached pages, in bytes.
    pub cache_bytes: usize,
    /// Added to each flush, to show what a slow medium does; zero adds nothing.
    pub flush_delay: Duration,
    /// How much one commit may hold.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            flush_delay: Duration::ZERO,
            limits: Limits { ops: 8_192, bytes: 16 << 20 },
        }
    }
}

/// A [`Disk`] in one redb file.
#[derive(Debug)]
pub struct RedbDisk {
    shared: Arc<Shared>,
}

type Source = dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync;

/// What the disk and its readers have in common. `database` is `None` after an error.
struct Shared {
    path: PathBuf,
    source: Box<Source>,
    options: Options,
    meter: Arc<Meter>,
    database: RwLock<Option<Database>>,
}

impl RedbDisk {
    /// Opens the store at `path`, making an empty one with mode 0600 if there is none; its folder must
    /// exist.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::TooNew`] (the file is untouched), [`Error::Locked`],
    /// [`Error::Full`], [`Error::Io`].
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref().to_path_buf();
        file::create_if_absent(&path)?;
        let source_path = path.clone();
        let disk = Self::open_with(&path, move || file::backend(&source_path), options)?;
        file::make_private(&path)?;
        Ok(disk)
    }

    /// Opens a store on another backend; an empty one becomes an empty store. `source` gives the backend
    /// again whenever the store is opened (twice each time: once to check, once to use), `path` names it
    /// in messages.
    ///
    /// # Errors
    /// Those of [`open`](RedbDisk::open).
    pub fn open_with(
        path: impl AsRef<Path>,
        source: impl Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync + 'static,
        options: Options,
    ) -> Result<Self, Error> {
        let shared = Shared {
            path: path.as_ref().to_path_buf(),
            source: Box::new(source),
            options,
            meter: Arc::default(),
            database: RwLock::new(None),
        };
        *shared.write() = Some(shared.open_database()?);
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Flushes since the store was first opened.
    pub fn flushes(&self) -> u64 {
        self.shared.meter.flushes()
    }

    /// Counts flushes and writes; stays valid when the disk is given away.
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.shared.meter)
    }
}

impl Shared {
    fn open_database(&self) -> Result<Database, Error> {
        let backend =
            || (self.source)().map_err(|error| Error::from_redb(&self.path, "open", redb::Error::Io(error)));
        let candidate = backend()?;
        let length = candidate.len().map_err(|error| Error::from_io(&self.path, "open", error))?;
        if length > 0 {
            check::check(candidate, &self.path, self.options.cache_bytes)?;
        }
        let metered = MeteredBackend::new(backend()?, Arc::clone(&self.meter), self.options.flush_delay);
        let database = Database::builder()
            .set_cache_size(self.options.cache_bytes)
            .create_with_backend(metered)
            .map_err(|error| Error::from_redb(&self.path, "open", error))?;
        layout::initialise_if_empty(&database, &self.path)?;
        Ok(database)
    }

    fn with_database<T>(&self, work: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, Error> {
        match self.read().as_ref() {
            Some(database) => work(database),
            None => Err(Error::NeedsReopen { path: self.path.clone() }),
        }
    }

    /// Ends the use of a database that failed. Readers in the middle of a scan finish it first.
    fn close(&self) {
        *self.write() = None;
    }

    // A thread that panicked with the lock has at worst left a database that redb guards itself.
    fn read(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Database>> {
        self.database.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Disk for RedbDisk {
    fn load(&mut self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error> {
        let result =
            self.shared.with_database(|database| layout::read_all(database, &self.shared.path, skip, each));
        if result.is_err() {
            self.shared.close();
        }
        result
    }

    fn commit(&mut self, ops: &[Op], expected: Fence, new: Fence) -> Result<(), Error> {
        let limits = self.limits();
        if !limits.allow(ops) {
            return Err(Error::TooLarge { ops: ops.len(), bytes: total_size(ops), limits });
        }
        let path = &self.shared.path;
        let result = self.shared.with_database(|database| layout::commit(database, path, ops, expected, new));
        if result.as_ref().is_err_and(Error::needs_reopen) {
            self.shared.close();
        }
        result
    }

    fn limits(&self) -> Limits {
        self.shared.options.limits
    }

    fn reopen(&mut self) -> Result<(), Error> {
        let mut database = self.shared.write();
        // Closed first: the file's lock admits one.
        *database = None;
        *database = Some(self.shared.open_database()?);
        Ok(())
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(RedbReader(Arc::clone(&self.shared)))
    }
}

struct RedbReader(Arc<Shared>);

impl Reader for RedbReader {
    fn scan(&self, kind: Kind, from_key: &[u8], limit: usize) -> Result<Pairs, Error> {
        self.0.with_database(|database| layout::scan(database, &self.0.path, kind, from_key, limit))
    }

    fn snapshot(&self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error> {
        self.0.with_database(|database| layout::read_all(database, &self.0.path, skip, each))
    }
}
