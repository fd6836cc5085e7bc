//! Files on a server: copied there and back, written, and its lists of files to copy over.
//!
//! Paths are names and no shell's text. Only directories that need root are made by a command. What is
//! copied by a list can be read by its owner alone, and keeps its time.

use std::io;
use std::path::{Path, PathBuf};

use haar_ssh::FileFault;
use jiff::tz::Offset;

use super::means::Files;
use super::{Server, here};
use crate::copy_list::CopyList;
use crate::{Error, Result};

impl Server {
    /// Copies a file of this machine to the server, with its permissions. Directories that are missing on
    /// the way are made.
    ///
    /// # Errors
    /// [`Error::Ssh`], or [`Error::Local`] on this machine; [`Error::Cancelled`] when the server is destroyed
    /// meanwhile.
    pub async fn upload(&self, local: &Path, remote: &str) -> Result<()> {
        let _in_use = self.in_use()?;
        let files = self.files().await?;
        self.unless_destroyed(files.upload(local, remote, None)).await
    }

    /// Copies a file of the server to this machine, where only its owner may read it.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub async fn download(&self, remote: &str, local: &Path) -> Result<()> {
        let _in_use = self.in_use()?;
        let files = self.files().await?;
        self.unless_destroyed(files.download(remote, local)).await
    }

    /// Writes a file that only its owner may read. Directories that are missing on the way are made.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub async fn create_file(&self, remote: &str, content: &[u8]) -> Result<()> {
        let _in_use = self.in_use()?;
        let files = self.files().await?;
        self.unless_destroyed(files.write(remote, content, 0o600)).await
    }

    /// Makes a directory and those above it that are missing; where the user may not, as root for the user.
    ///
    /// # Errors
    /// As [`Self::upload`], and [`Error::RemoteExit`] when root may not either.
    pub async fn make_dir(&self, remote: &str) -> Result<()> {
        let _in_use = self.in_use()?;
        let files = self.files().await?;
        let made = tokio::select! {
            biased;
            () = self.inner.end.cancelled() => return Err(self.cut_off()),
            made = files.make_dir_all(remote) => made,
        };
        match made {
            Err(error) if is_denied(&error) => self.run_to_success(&make_dir_as_root(remote)).await.map(drop),
            made => made.map_err(|error| self.ssh_error(&error)),
        }
    }

    /// The home of who logs in.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub async fn home_dir(&self) -> Result<PathBuf> {
        let _in_use = self.in_use()?;
        let files = self.files().await?;
        self.unless_destroyed(files.home_dir()).await.map(PathBuf::from)
    }

    /// How far its clock is from the world's.
    ///
    /// # Errors
    /// As [`Self::run`], and [`Error::Ssh`] for an answer that is no offset.
    pub async fn time_zone(&self) -> Result<Offset> {
        let output = self.run_to_success("date +%z").await?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let message = || format!("`date +%z` says `{text}`, which is no offset like +0530");
        offset(&text).ok_or_else(|| Error::Ssh { server: self.name().to_owned(), message: message() })
    }

    /// Copies the files of a list, each readable by its owner alone and with its time. A local file that is
    /// missing is left out.
    ///
    /// # Errors
    /// As [`Self::upload`]; the first failure ends it.
    pub async fn copy_over(&self, list: &CopyList) -> Result<()> {
        if list.items().is_empty() {
            return Ok(());
        }
        let _in_use = self.in_use()?;
        let here = here::home();
        let files = self.files().await?;
        let there = PathBuf::from(self.unless_destroyed(files.home_dir()).await?);
        for item in list.items() {
            let local = item.local.resolve(&here);
            let remote = item.remote.resolve(&there);
            // Who may not look at a file is told so by the upload.
            let Ok(modified) = std::fs::metadata(&local).and_then(|metadata| metadata.modified()) else {
                if local.try_exists().unwrap_or(true) {
                    self.unless_destroyed(files.upload(&local, &text(&remote), None)).await?;
                }
                continue;
            };
            let remote = text(&remote);
            self.unless_destroyed(files.upload(&local, &remote, Some(0o600))).await?;
            self.unless_destroyed(files.set_modified(&remote, modified)).await?;
        }
        Ok(())
    }

    pub(super) async fn files(&self) -> Result<Files> {
        let open = self.work(|means| async move { means.files().await });
        self.inner.end.run_until_cancelled(open).await.unwrap_or_else(|| Err(self.cut_off()))
    }

    pub(super) async fn unless_destroyed<T>(
        &self,
        work: impl Future<Output = haar_ssh::Result<T>>,
    ) -> Result<T> {
        match self.inner.end.run_until_cancelled(work).await {
            Some(answer) => answer.map_err(|error| self.ssh_error(&error)),
            None => Err(self.cut_off()),
        }
    }

    fn cut_off(&self) -> Error {
        Error::Cancelled { what: format!("files of {}, which is destroyed", self.name()) }
    }
}

fn is_denied(error: &haar_ssh::Error) -> bool {
    match error {
        haar_ssh::Error::File { fault, .. } => *fault == FileFault::PermissionDenied,
        haar_ssh::Error::Local { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
        _ => false,
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Makes a directory where only root may, and gives all that was made to who logs in.
fn make_dir_as_root(path: &str) -> String {
    let script = "top=$1; while up=$(dirname -- \"$top\"); [ ! -e \"$up\" ] && [ \"$up\" != \"$top\" ]; do top=$up; done; \
        sudo -n mkdir -p -- \"$1\" && sudo -n chown -R -- \"$(id -u):$(id -g)\" \"$top\"";
    haar_ssh::script(script, &[path])
}

/// An offset as `date +%z` writes it.
fn offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    if digits.len() != 4 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    (minutes < 60).then(|| Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_read_as_date_writes_it() {
        let seconds = |text: &str| offset(text).map(Offset::seconds);
        assert_eq!(seconds("+0530"), Some(19_800));
        assert_eq!(seconds("-0800"), Some(-28_800));
        for bad in ["", "+", "UTC", "+530", "+05:30", "+0560", "+٠٥٣٠"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn defect_23_a_directory_made_by_root_quotes_whatever_its_name_is() {
        let folder = tempfile::tempdir().unwrap();
        // A sudo that only does what it is told, for whoever runs this test.
        let sudo = folder.path().join("sudo");
        std::fs::write(&sudo, "#!/bin/sh\nshift\nexec \"$@\"\n").unwrap();
        std::fs::set_permissions(&sudo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let wanted = folder.path().join("it's a/b c/$(touch d)");
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let status = std::process::Command::new("sh")
            .arg("-c")
            .arg(make_dir_as_root(wanted.to_str().unwrap()))
            .env("PATH", path)
            .current_dir(folder.path())
            .status()
            .unwrap();
        assert!(status.success() && wanted.is_dir());
        assert!(!folder.path().join("d").exists());
    }
}
