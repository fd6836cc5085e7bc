//! Files on a server, over sftp.
//!
//! Promises: paths are names and never a shell's text, so that spaces and quotes are nothing special; a file is
//! never readable by more people than it should be in the end, not even while it is being written; what has a
//! file's name is the old file or the whole new one, however a transfer ends; many requests are on their way at a
//! time. Deliberately absent: whole directories, and links.

mod draft;
mod part;
mod sftp;
mod start;
mod transfer;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use russh_sftp::protocol::FileAttributes;
use tokio::sync::Mutex;

use crate::pool::Pool;
use crate::{Error, FileFault, Result};
pub use part::Part;
use sftp::Sftp;

/// Files on a server. Takes one session when first used, and gives it back when dropped.
///
/// A path that does not begin with `/` begins at the user's home. Every method may be dropped at any await; what
/// a transfer had written is then removed by a task of its own, see [`Pool::settled`].
#[derive(Debug)]
pub struct Files {
    pool: Pool,
    /// Held while the session is being opened, as all who share these files need just that one.
    sftp: Mutex<Option<Arc<Sftp>>>,
}

impl Files {
    pub(crate) fn new(pool: Pool) -> Self {
        Self { pool, sftp: Mutex::new(None) }
    }

    /// Takes its session now, so that what keeps it from that is told before anything is begun.
    ///
    /// # Errors
    /// [`Error::NoSftp`], and whatever keeps a connection from being made.
    pub async fn open(&self) -> Result<()> {
        self.sftp().await.map(drop)
    }

    /// Copies a file of this machine to the server, with its permissions. Directories that are missing on the
    /// way are made. It is written beside its place and moved there when it is complete; a file that was there
    /// keeps its owner. What is no plain file is written to as it is, and so is a file in a directory where
    /// nothing may be made.
    ///
    /// # Errors
    /// [`Error::IsDirectory`] for a directory at either end, [`Error::Local`], [`Error::File`],
    /// [`Error::NoSftp`], and whatever keeps a connection from being made or breaks it.
    pub async fn upload(&self, local: &Path, remote: &str) -> Result<()> {
        transfer::upload(&self.sftp().await?, local, remote, None).await
    }

    /// As [`Self::upload`], with these permissions from its first moment on, such as `0o600`.
    ///
    /// # Errors
    /// As for [`Self::upload`].
    pub async fn upload_as(&self, local: &Path, remote: &str, mode: u32) -> Result<()> {
        transfer::upload(&self.sftp().await?, local, remote, Some(mode)).await
    }

    /// Copies a file of the server to this machine, where only its owner may read it. The directory must be
    /// there; the file appears under its name when it is complete. What is no plain file is written to as it is.
    ///
    /// # Errors
    /// As for [`Self::upload`].
    pub async fn download(&self, remote: &str, local: &Path) -> Result<()> {
        transfer::download(&*self.sftp().await?, remote, local).await
    }

    /// Writes a file with these permissions, such as `0o600`, in the way of [`Self::upload`].
    ///
    /// # Errors
    /// As for [`Self::upload`].
    pub async fn write(&self, remote: &str, bytes: &[u8], mode: u32) -> Result<()> {
        transfer::write(&self.sftp().await?, remote, bytes, mode).await
    }

    /// Makes a directory and those above it that are missing.
    ///
    /// # Errors
    /// [`Error::File`], with [`FileFault::NotADirectory`] when something else is in the way.
    pub async fn make_dir_all(&self, remote: &str) -> Result<()> {
        self.sftp().await?.make_dir_all(remote).await
    }

    /// Whether there is anything of that name.
    ///
    /// # Errors
    /// [`Error::File`] when that cannot be seen.
    pub async fn exists(&self, remote: &str) -> Result<bool> {
        Ok(self.sftp().await?.look_at(remote).await?.is_some())
    }

    /// Sets a file's permissions, such as `0o600`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn set_mode(&self, remote: &str, mode: u32) -> Result<()> {
        let attributes = FileAttributes { permissions: Some(mode & 0o7777), ..FileAttributes::default() };
        self.sftp().await?.set("set the permissions of", remote, attributes).await
    }

    /// Sets when a file was modified, to the second.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::BadInput`] for a time before 1970 or after 2106, which sftp cannot tell.
    pub async fn set_modified(&self, remote: &str, time: SystemTime) -> Result<()> {
        let seconds = time.duration_since(UNIX_EPOCH).ok().and_then(|age| u32::try_from(age.as_secs()).ok());
        let Some(seconds) = seconds else {
            let why = "sftp tells times from 1970 to 2106 only".to_owned();
            return Err(Error::BadInput { what: "time of modification", value: format!("{time:?}"), why });
        };
        let attributes =
            FileAttributes { atime: Some(seconds), mtime: Some(seconds), ..FileAttributes::default() };
        self.sftp().await?.set("set the time of", remote, attributes).await
    }

    /// The user's home directory.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn home_dir(&self) -> Result<String> {
        self.sftp().await?.home_dir().await
    }

    /// Removes a file. One that is not there is no error; a directory is.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn remove(&self, remote: &str) -> Result<()> {
        match self.sftp().await?.remove(remote).await {
            Err(Error::File { fault: FileFault::NotFound, .. }) => Ok(()),
            outcome => outcome,
        }
    }

    async fn sftp(&self) -> Result<Arc<Sftp>> {
        let mut open = self.sftp.lock().await;
        if let Some(sftp) = open.as_ref().filter(|sftp| sftp.is_alive()) {
            return Ok(Arc::clone(sftp));
        }
        // The old one's place goes back first: it may be the last.
        *open = None;
        let sftp = Arc::new(Sftp::open(&self.pool).await?);
        *open = Some(Arc::clone(&sftp));
        Ok(sftp)
    }
}
