//! One sftp session, and its small requests.
//!
//! Promises: what goes wrong says which file on which server it was about. Deliberately absent: transfers.

use std::sync::atomic::{AtomicBool, Ordering};

use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::rawsession::Limits as ServerLimits;
use russh_sftp::extensions;
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode};
use tokio_util::task::TaskTracker;

use super::start::{End, start};
use crate::options::Target;
use crate::pool::Pool;
use crate::{Error, FileFault, Result};

/// What every server takes in one request.
const USUAL_LENGTH: u64 = 32 << 10;
/// The most to be asked for at a time, whatever a server offers: what OpenSSH takes, less the request's head.
const LONGEST: u64 = (256 << 10) - 1024;

/// OpenSSH's name for renaming as POSIX has it: what has the name already is replaced.
const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// An open sftp session.
pub(crate) struct Sftp {
    pub(crate) raw: RawSftpSession,
    pub(crate) target: Target,
    /// The most bytes of one write request.
    pub(crate) write_length: usize,
    /// The most bytes of one read request.
    pub(crate) read_length: u32,
    /// Whether it can put a file in the place of another in one step.
    can_replace: bool,
    background: TaskTracker,
    has_failed: AtomicBool,
    end: End,
}

impl std::fmt::Debug for Sftp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sftp").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Sftp {
    /// Starts the server's sftp in a session of its own.
    pub(crate) async fn open(pool: &Pool) -> Result<Self> {
        let target = pool.target().clone();
        let (mut raw, end, version) = start(pool).await?;
        let can_replace = version.extensions.get(POSIX_RENAME).is_some_and(|version| version == "1");
        let mut limits = ServerLimits::default();
        if version.extensions.get(extensions::LIMITS).is_some_and(|version| version == "1")
            && let Ok(told) = raw.limits().await
        {
            limits = told.into();
            raw.set_limits(limits);
        }
        let length = |told: Option<u64>| told.map_or(USUAL_LENGTH, |told| told.clamp(1, LONGEST));
        Ok(Self {
            raw,
            target,
            write_length: usize::try_from(length(limits.write_len)).unwrap_or(USUAL_LENGTH as usize),
            read_length: u32::try_from(length(limits.read_len)).unwrap_or(USUAL_LENGTH as u32),
            can_replace,
            background: pool.tasks().clone(),
            has_failed: AtomicBool::new(false),
            end,
        })
    }

    /// Whether it can still be used, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        !self.has_failed.load(Ordering::SeqCst) && !self.end.has_come()
    }

    /// Makes an error of the library's one of ours.
    pub(crate) fn fault(&self, action: &'static str, path: &str, error: SftpError) -> Error {
        let target = self.target.clone();
        let status = match error {
            SftpError::Status(status) => status,
            error => {
                // What comes next on this session cannot be trusted.
                self.has_failed.store(true, Ordering::SeqCst);
                return self.end.during(target, format!("the attempt to {action} {path}"), &error);
            }
        };
        let fault = match status.status_code {
            StatusCode::NoSuchFile => FileFault::NotFound,
            StatusCode::PermissionDenied => FileFault::PermissionDenied,
            code if status.error_message.is_empty() => FileFault::Other(code.to_string()),
            _ => FileFault::Other(status.error_message),
        };
        Error::File { target, action, path: path.to_owned(), fault }
    }

    /// What a path leads to, if anything.
    pub(crate) async fn look_at(&self, path: &str) -> Result<Option<FileAttributes>> {
        match self.raw.stat(path).await {
            Ok(found) => Ok(Some(found.attrs)),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => Ok(None),
            Err(error) => Err(self.fault("look at", path, error)),
        }
    }

    pub(crate) async fn set(
        &self,
        action: &'static str,
        path: &str,
        attributes: FileAttributes,
    ) -> Result<()> {
        let set = self.raw.setstat(path, attributes).await;
        set.map(drop).map_err(|error| self.fault(action, path, error))
    }

    pub(crate) async fn remove(&self, path: &str) -> Result<()> {
        self.raw.remove(path).await.map(drop).map_err(|error| self.fault("remove", path, error))
    }

    pub(crate) async fn home_dir(&self) -> Result<String> {
        let found = self.raw.realpath(".").await.map_err(|error| self.fault("look at", ".", error))?;
        let first = found.files.into_iter().next();
        Ok(first.map_or_else(|| ".".to_owned(), |file| file.filename))
    }

    pub(crate) async fn make_dir_all(&self, path: &str) -> Result<()> {
        let mut missing = Vec::new();
        let mut above = Some(path);
        while let Some(path) = above {
            match self.look_at(path).await? {
                Some(found) if found.is_dir() => break,
                Some(_) => {
                    let (target, path) = (self.target.clone(), path.to_owned());
                    let fault = FileFault::NotADirectory;
                    return Err(Error::File { target, action: "make the directory", path, fault });
                }
                None => missing.push(path),
            }
            above = parent(path);
        }
        for path in missing.into_iter().rev() {
            let Err(error) = self.raw.mkdir(path, FileAttributes::default()).await else { continue };
            // Somebody else may have made it meanwhile.
            if !self.look_at(path).await?.is_some_and(|found| found.is_dir()) {
                return Err(self.fault("make the directory", path, error));
            }
        }
        Ok(())
    }

    /// Opens a file to be written, with the permissions it is to have; makes the directories above it. `told` is
    /// its name in messages.
    pub(crate) async fn open_new(
        &self,
        path: &str,
        told: &str,
        flags: OpenFlags,
        mode: u32,
    ) -> Result<String> {
        let attributes = || FileAttributes { permissions: Some(mode & 0o7777), ..FileAttributes::default() };
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | flags;
        let mut opened = self.raw.open(path, flags, attributes()).await;
        if let (Err(SftpError::Status(status)), Some(above)) = (&opened, parent(path))
            && status.status_code == StatusCode::NoSuchFile
        {
            self.make_dir_all(above).await?;
            opened = self.raw.open(path, flags, attributes()).await;
        }
        opened.map(|opened| opened.handle).map_err(|error| self.fault("write", told, error))
    }

    /// Gives a file another name, in the place of whatever plain file has that name.
    pub(crate) async fn replace(&self, from: &str, to: &str) -> Result<(), SftpError> {
        if self.can_replace {
            let mut names = Vec::new();
            for name in [from, to] {
                names.extend(u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
                names.extend(name.as_bytes());
            }
            return match self.raw.extended(POSIX_RENAME, names).await? {
                Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
                Packet::Status(status) => Err(SftpError::Status(status)),
                _ => Err(SftpError::UnexpectedPacket),
            };
        }
        // The protocol itself refuses a name that is there.
        let Err(error) = self.raw.rename(from, to).await else { return Ok(()) };
        self.raw.remove(to).await.map_err(|_| error)?;
        self.raw.rename(from, to).await.map(drop)
    }

    /// The path without links and without what depends on where one is.
    pub(crate) async fn real_path(&self, path: &str) -> Option<String> {
        self.raw.realpath(path).await.ok()?.files.into_iter().next().map(|file| file.filename)
    }

    /// Where what outlives its caller runs.
    pub(crate) fn background(&self) -> &TaskTracker {
        &self.background
    }

    /// Closes a file after a failure, which is the one to be told.
    pub(crate) async fn close(&self, handle: &str) {
        let _ = self.raw.close(handle).await;
    }
}

/// The path of the directory that a path lies in; `None` for a name at home and for the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    let path = path.trim_end_matches('/');
    let (above, _) = path.rsplit_once('/')?;
    let above = above.trim_end_matches('/');
    Some(if above.is_empty() { "/" } else { above })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_path_is_found_as_a_shell_would() {
        for (path, above) in [
            ("a", None),
            ("a/", None),
            ("/", None),
            ("/a", Some("/")),
            ("a/b", Some("a")),
            ("/a//b/", Some("/a")),
        ] {
            assert_eq!(parent(path), above, "{path}");
        }
    }
}
