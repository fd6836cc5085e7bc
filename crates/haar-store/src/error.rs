//! Everything that can go wrong with a store, in the words of who must act.
//!
//! Each message says what is wrong and what to do, and never repeats its source: print the chain.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Fence, Limits};

/// The error below one of ours.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a store refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stored fence is not the expected one. Nothing has changed.
    #[error(
        "the store is at commit {found}, not at {expected}: another writer was here; read the store again before writing"
    )]
    Fenced {
        /// What the caller took for the last commit.
        expected: Fence,
        /// The last commit.
        found: Fence,
    },
    /// The commit exceeds the limits. Nothing has changed.
    #[error(
        "a commit of {ops} operations and {bytes} bytes is more than the store takes at once ({} and {}): split it",
        limits.ops, limits.bytes
    )]
    TooLarge {
        /// Operations in the commit.
        ops: usize,
        /// Bytes in the commit.
        bytes: usize,
        /// What would fit.
        limits: Limits,
    },
    /// The file is damaged, or none of ours. It was left as it is.
    #[error(
        "{path} is damaged or not a store ({why}); it was left untouched: move it away and restore a backup in its place"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        why: String,
    },
    /// Another process, or another handle in this one, has the file.
    #[error("{path} is in use: stop the process that has it open, or ask that process instead")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file system is full, or a quota is.
    #[error("no space left for {path}: free some on its file system, then open the store again")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of the product wrote this file. It was left as it is.
    #[error(
        "{path} has format {version}, this program reads up to {known}: run the newer version that wrote it"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        version: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// A commit failed so late that it may have taken effect.
    #[error(
        "a commit to {path} failed and may have taken effect or not: open the store again and read its fence"
    )]
    OutcomeUnknown {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: Cause,
    },
    /// An earlier call failed; the disk does not know what the medium holds.
    #[error("the store {path} failed earlier: open it again")]
    NeedsReopen {
        /// The file.
        path: PathBuf,
    },
    /// The medium failed otherwise.
    #[error("cannot {doing} {path}: look at the cause, then open the store again")]
    Io {
        /// A verb: what was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What failed.
        source: Cause,
    },
}

impl Error {
    /// Whether the disk is unusable until [`Disk::reopen`](crate::Disk::reopen) succeeded: false for the
    /// refusals (`Fenced`, `TooLarge`), true for the rest.
    pub fn needs_reopen(&self) -> bool {
        !matches!(self, Self::Fenced { .. } | Self::TooLarge { .. })
    }

    /// Sorts an operating system's error by who must act.
    pub(crate) fn from_io(path: &Path, doing: &'static str, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        if is_full(&source) { Self::Full { path } } else { Self::Io { doing, path, source: source.into() } }
    }

    /// Sorts redb's errors by who must act.
    pub(crate) fn from_redb(path: &Path, doing: &'static str, error: impl Into<redb::Error>) -> Self {
        let corrupt = |why: String| Self::Corrupt { path: path.to_path_buf(), why };
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::Locked { path: path.to_path_buf() },
            redb::Error::Io(source) if source.kind() == ErrorKind::UnexpectedEof => {
                corrupt("the file ends too early".into())
            }
            // So redb answers to a file that does not begin as its files do.
            redb::Error::Io(source) if source.kind() == ErrorKind::InvalidData => corrupt(source.to_string()),
            redb::Error::Io(source) => Self::from_io(path, doing, source),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
                Self::NeedsReopen { path: path.to_path_buf() }
            }
            redb::Error::Corrupted(why) => corrupt(why),
            error @ (redb::Error::UpgradeRequired(_)
            | redb::Error::RepairAborted
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableDoesNotExist(_)) => corrupt(error.to_string()),
            other => Self::Io { doing, path: path.to_path_buf(), source: other.to_string().into() },
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}
