//! The two promises of this crate: [`Disk`], the one writer, and [`Reader`], for reading beside it.
//!
//! Every implementation passes the same contract tests. Deliberately absent: several writers, queries,
//! watches. Calls block; a caller on an async runtime gives them a thread.

use crate::{Error, Fence, Kind, Limits, Op};

/// Is shown records: kind, key, value.
pub type Visit<'a> = dyn FnMut(Kind, &[u8], &[u8]) + 'a;

/// Keys and values, in ascending order of key.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Durable records with one writer.
///
/// After an error for which [`Error::needs_reopen`] is true, every call but [`reopen`](Disk::reopen) is
/// refused with [`Error::NeedsReopen`], for the disk no longer knows what the medium holds.
pub trait Disk: Send {
    /// Shows every record to `each`, ordered by kind and key, but for the kinds in `skip`, and returns the
    /// fence of the last commit. All of it is of one moment.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::NeedsReopen`]; then what `each` has seen is worthless.
    fn load(&mut self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error>;

    /// Applies all of `ops` in order, or none, durable before `Ok`; `new` becomes the fence with them.
    ///
    /// # Errors
    /// Refusals, after which the disk works on and nothing has changed: [`Error::Fenced`] when the stored
    /// fence is not `expected`, [`Error::TooLarge`] beyond [`limits`](Disk::limits).
    /// Failures ([`Error::Full`], [`Error::OutcomeUnknown`], [`Error::Io`]): reopen and read; the commit
    /// took effect, wholly, exactly if the stored fence is `new`.
    fn commit(&mut self, ops: &[Op], expected: Fence, new: Fence) -> Result<(), Error>;

    /// How much one commit may hold. Does not change.
    fn limits(&self) -> Limits;

    /// Opens again from the medium, after an error. May be called again when it fails, and at any time.
    ///
    /// # Errors
    /// Those of opening: [`Error::Corrupt`], [`Error::Locked`], [`Error::Full`], [`Error::TooNew`],
    /// [`Error::Io`].
    fn reopen(&mut self) -> Result<(), Error>;

    /// A handle for reading beside the writer; it outlives a reopen, and refuses while one is due.
    fn reader(&self) -> Box<dyn Reader>;
}

/// Reads what is committed, beside the writer and without holding it up.
pub trait Reader: Send + Sync {
    /// At most `limit` records of `kind` with keys not below `from_key`, in ascending order of key.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::NeedsReopen`].
    fn scan(&self, kind: Kind, from_key: &[u8], limit: usize) -> Result<Pairs, Error>;

    /// What [`Disk::load`] shows, of one moment, beside the writer: for backups.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`], [`Error::NeedsReopen`].
    fn snapshot(&self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error>;
}
