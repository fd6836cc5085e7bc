//! The data folder: `store.redb`, `images/`, `LOCK` and `VERSION`.
//!
//! One process has a folder at a time: an exclusive lock on `LOCK` lasts as long as [`Folder`]. `VERSION`
//! holds the number of the layout; a newer one is refused untouched. Parents are passable (0755) for
//! QEMU's user; the folder itself and the store are the owner's alone. Deliberately absent: what is in
//! the store.

use std::fs::{File, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The layout this release writes and reads.
const LAYOUT: u32 = 1;

/// A data folder that is ours until dropped.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error(
        "the data folder {0} is in use by another controller; stop that one (`haar down`), or name another folder"
    )]
    InUse(PathBuf),
    /// A newer release has written it.
    #[error(
        "the data folder {root} has layout {found}, this release knows {LAYOUT}; run the newer release that wrote it"
    )]
    TooNew {
        /// The folder.
        root: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// `VERSION` is no number.
    #[error("{0} holds no layout number; restore it from a backup, or write `1` if this folder is Haar's")]
    Unreadable(PathBuf),
    /// The operating system says no.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Folder {
    /// Makes the folder if need be and takes it.
    ///
    /// # Errors
    /// [`Error`] says who has it or what is wrong with it.
    pub fn open(root: &Path) -> Result<Folder, Error> {
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            make_folder(parent, 0o755)?;
        }
        make_folder(root, 0o700)?;
        let lock = take_lock(root)?;
        check_version(root)?;
        make_folder(&root.join("images"), 0o700)?;
        Ok(Folder { root: root.to_path_buf(), lock })
    }

    /// The file of the books.
    pub fn store(&self) -> PathBuf {
        self.root.join("store.redb")
    }

    /// Where uploaded images lie.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
}

impl Drop for Folder {
    /// Closing alone leaves it locked for as long as a child of this process that is just being started, which
    /// shares the file until it runs its program.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|source| Error::Io {
        doing: "make the folder",
        path: path.to_path_buf(),
        source,
    })
}

fn take_lock(root: &Path) -> Result<File, Error> {
    let path = root.join("LOCK");
    let io = |doing| {
        let path = path.clone();
        move |source| Error::Io { doing, path, source }
    };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io("open"))?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(io("protect"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(root.to_path_buf())),
        Err(TryLockError::Error(source)) => Err(io("lock")(source)),
    }
}

fn check_version(root: &Path) -> Result<(), Error> {
    let path = root.join("VERSION");
    let io = |doing| {
        let path = path.clone();
        move |source| Error::Io { doing, path, source }
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return write_whole(&path, &format!("{LAYOUT}\n")).map_err(io("write"));
        }
        Err(source) => return Err(io("read")(source)),
    };
    match text.trim().parse::<u32>() {
        Ok(found) if found > LAYOUT => Err(Error::TooNew { root: root.to_path_buf(), found }),
        Ok(_) => Ok(()),
        Err(_) => Err(Error::Unreadable(path)),
    }
}

/// Written aside and named when whole, so that a crash leaves no half of it.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = File::create(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("a/controller");
        let first = Folder::open(&root).unwrap();
        let message = Folder::open(&root).unwrap_err().to_string();
        assert!(message.contains("in use by another controller"), "{message}");
        drop(first);
        assert!(Folder::open(&root).is_ok());
    }

    #[test]
    fn a_newer_layout_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("VERSION"), "7\n").unwrap();
        let error = Folder::open(root.path()).unwrap_err();
        assert!(matches!(error, Error::TooNew { found: 7, .. }), "{error}");
        assert!(!root.path().join("images").exists());
        std::fs::write(root.path().join("VERSION"), "seven").unwrap();
        assert!(matches!(Folder::open(root.path()), Err(Error::Unreadable(_))));
    }
}
