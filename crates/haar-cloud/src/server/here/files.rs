//! Files of this machine, as sftp has those of others.
//!
//! Promises: a path that does not begin with `/` begins at home; what has a file's name is the old file or the
//! whole new one; missing directories on the way to a file are made. Each is done by a thread for such work.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use haar_ssh::{Error, Part, Result};
use tokio::task::spawn_blocking;

/// Files of this machine.
#[derive(Debug)]
pub(in crate::server) struct Files {
    home: Arc<Path>,
}

impl Files {
    pub(super) fn new(home: &Arc<Path>) -> Self {
        Self { home: Arc::clone(home) }
    }

    pub(in crate::server) fn home_dir(&self) -> &Path {
        &self.home
    }

    /// Copies a file, with other permissions than its own if `mode` tells some.
    pub(in crate::server) async fn upload(
        &self,
        local: &Path,
        remote: &str,
        mode: Option<u32>,
    ) -> Result<()> {
        let (from, to) = (local.to_owned(), self.home.join(remote));
        off_thread(move || {
            let (file, own_mode) = open(&from)?;
            make_way(&to)?;
            place(&from, file, &to, mode.unwrap_or(own_mode))
        })
        .await
    }

    /// Copies a file to where only its owner may read it. The directory must be there.
    pub(in crate::server) async fn download(&self, remote: &str, local: &Path) -> Result<()> {
        let (from, to) = (self.home.join(remote), local.to_owned());
        off_thread(move || place(&from, open(&from)?.0, &to, 0o600)).await
    }

    /// Writes a file with these permissions.
    pub(in crate::server) async fn write(&self, remote: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let (to, bytes) = (self.home.join(remote), bytes.to_vec());
        off_thread(move || {
            make_way(&to)?;
            place(&to, &*bytes, &to, mode)
        })
        .await
    }

    /// Makes a directory and those above it that are missing.
    pub(in crate::server) async fn make_dir_all(&self, remote: &str) -> Result<()> {
        let path = self.home.join(remote);
        off_thread(move || make_dir(&path)).await
    }

    /// Whether there is anything of that name.
    pub(in crate::server) async fn exists(&self, remote: &str) -> Result<bool> {
        let path = self.home.join(remote);
        off_thread(move || path.try_exists().map_err(|error| Error::local("look at", &path, error))).await
    }

    /// Sets when a file was modified.
    pub(in crate::server) async fn set_modified(&self, remote: &str, time: SystemTime) -> Result<()> {
        let path = self.home.join(remote);
        let set = move || {
            let set = File::open(&path).and_then(|file| file.set_modified(time));
            set.map_err(|error| Error::local("set the time of", &path, error))
        };
        off_thread(set).await
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.expect("work with a file does not panic, and nobody aborts it")
}

/// Opens a file that can be copied, and tells its permissions.
fn open(path: &Path) -> Result<(File, u32)> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = opened.map_err(|error| Error::local("read", path, error))?;
    if metadata.is_dir() {
        return Err(is_directory(path));
    }
    Ok((file, metadata.permissions().mode()))
}

/// Puts what is read in a file's place, with the permissions it is to have.
fn place(from: &Path, mut source: impl Read, to: &Path, mode: u32) -> Result<()> {
    if to.is_dir() {
        return Err(is_directory(to));
    }
    let not_written = |error| Error::local("write", to, error);
    let (part, mut file) = Part::begin(to).map_err(not_written)?;
    io::copy(&mut source, &mut file).map_err(|error| Error::local("copy", from, error))?;
    // A device keeps the permissions that it has.
    if file.metadata().map_err(not_written)?.is_file() {
        file.set_permissions(Permissions::from_mode(mode & 0o7777)).map_err(not_written)?;
    }
    part.finish().map_err(not_written)
}

fn make_way(to: &Path) -> Result<()> {
    to.parent().map_or(Ok(()), make_dir)
}

fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| Error::local("make the directory", path, error))
}

fn is_directory(path: &Path) -> Error {
    Error::IsDirectory { path: path.display().to_string() }
}
