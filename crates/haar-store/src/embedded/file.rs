//! The store's file: made aside and named when whole, private to its owner.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::layout;
use crate::Error;

/// Opens an existing file for redb.
pub(super) fn backend(path: &Path) -> io::Result<Box<dyn StorageBackend>> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.len() == 0 {
        // A store is never empty; see `create_if_absent`. redb would make a new one of it.
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
    }
    let backend = FileBackend::new(file).map_err(io::Error::other)?;
    Ok(Box::new(backend))
}

/// Makes an empty store at `path` unless something is there. Whoever loses a race uses the winner's.
pub(super) fn create_if_absent(path: &Path) -> Result<(), Error> {
    let failed = |error| Error::from_io(path, "create", error);
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    let draft = Draft::new(path);
    let file = draft.open().map_err(failed)?;
    let database = Database::builder()
        .create_file(file.try_clone().map_err(failed)?)
        .map_err(|error| Error::from_redb(path, "create", error))?;
    layout::initialise_if_empty(&database, path)?;
    drop(database);
    file.sync_all().map_err(failed)?;
    // Unlike a rename, a link never takes the place of a store that came to be meanwhile.
    match fs::hard_link(&draft.path, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    drop(draft);
    File::open(folder_of(path)).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Takes the rights of group and others away.
pub(super) fn make_private(path: &Path) -> Result<(), Error> {
    let failed = |error| Error::from_io(path, "protect", error);
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file beside the store's, removed again when dropped.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn new(path: &Path) -> Self {
        static DRAFTS: AtomicU64 = AtomicU64::new(0);
        let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
        let mut name = OsString::from(path);
        name.push(format!(".new-{}-{number}", std::process::id()));
        Self { path: name.into() }
    }

    fn open(&self) -> io::Result<File> {
        // What is there was left by a process of the same number that died here.
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already, or left behind: neither harms the store.
        drop(fs::remove_file(&self.path));
    }
}
