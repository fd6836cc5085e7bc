//! Why the record of a deployment cannot be used, and what to do.

use std::io;
use std::path::PathBuf;

/// A failure of the state file. Nothing of the file was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none.
    #[error("`{name}` is not deployed from here (there is no {}): deploy it first", path.display())]
    Absent {
        /// Where it would be.
        path: PathBuf,
        /// The resource name.
        name: String,
    },
    /// It is not whole.
    #[error(
        "{} is damaged ({why}) and was left as it is: put a backup in its place, or move it away and deploy under the same name, then look in the cloud for what carries a `haar-deployment` of before",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer version wrote it.
    #[error(
        "{} has version {found}, newer than the {known} this program knows, and was left as it is: use the newer program",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version known here.
        known: u32,
    },
    /// It belongs to another deployment.
    #[error("{} is the record of {found}, copied or renamed: give it its own name back", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is: provider and resource name.
        found: String,
    },
    /// It is of another cloud, region or project than the one that is spoken to.
    #[error(
        "{} is the record of {of}, and this login leads to {here}: use the login it was made with, or another folder for each",
        path.display()
    )]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// Where everything on it is.
        of: String,
        /// What the login leads to.
        here: String,
    },
    /// It does not say which cloud it is of, and this one has nothing of what is on it.
    #[error(
        "{} is of a program that did not note which cloud it made things in, and {here} has nothing of it: use the login it was made with; if all of it is gone, move the file away",
        path.display()
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What the login leads to.
        here: String,
    },
    /// Something of the deployment is still on record.
    #[error("{} still names {}: tear that down first", path.display(), left.join(", "))]
    NotEmpty {
        /// The file.
        path: PathBuf,
        /// What is left.
        left: Vec<String>,
    },
    /// The deployment is being torn down.
    #[error("`{name}` is being torn down: wait until that is done, then deploy anew")]
    TearingDown {
        /// The resource name.
        name: String,
    },
    /// Another deploy or tear-down of it is running.
    #[error("`{name}` is being deployed or torn down by another process: wait until that is done")]
    Busy {
        /// The resource name.
        name: String,
    },
    /// An entry was forgotten meanwhile.
    #[error(
        "the record has no entry {id} any more: another process took it for gone; look for it in the cloud by its name"
    )]
    NoEntry {
        /// The entry's number.
        id: u64,
    },
    /// Another process holds the lock for too long.
    #[error("{} has been locked by another process for {seconds} s: see who has it open, and end what hangs", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The disk says no.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
