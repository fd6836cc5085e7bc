//! One file that is always whole: a lock across processes, replacement in one step, and its version.
//!
//! Written is a file beside it, synced, closed to others, renamed over it, and the folder synced. The lock
//! is advisory and goes with the process that holds it, also when it is killed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Error, VERSION};

/// Changes take milliseconds; whoever holds the lock for longer hangs.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
/// The pause before the lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(2);
const MODE: u32 = 0o600;

/// The lock; open as long as this value lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Removes the lock file while holding it. Who waits for it notices, and takes a new one.
    pub(super) fn remove(self) -> Result<(), Error> {
        remove(&self.path)
    }
}

impl Drop for Lock {
    /// Closing alone leaves it locked for as long as a child of this process that is just being started, which
    /// shares the file until it runs its program.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Takes the lock, waiting for it; makes the folder, for its owner alone, if there is none.
pub(super) fn lock(folder: &Path, path: &Path) -> Result<Lock, Error> {
    let started = Instant::now();
    loop {
        if let Some(lock) = try_lock(folder, path)? {
            return Ok(lock);
        }
        if started.elapsed() >= LOCK_LIMIT {
            return Err(Error::Locked { path: path.to_owned(), seconds: LOCK_LIMIT.as_secs() });
        }
        thread::sleep(LOCK_PAUSE);
    }
}

/// Takes the lock, if nobody has it.
pub(super) fn try_lock(folder: &Path, path: &Path) -> Result<Option<Lock>, Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed("make the folder", folder))?;
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(MODE);
        let file = options.open(path).map_err(failed("open", path))?;
        match attempt(file, path)? {
            Attempt::Taken(lock) => return Ok(Some(lock)),
            Attempt::Busy => return Ok(None),
            Attempt::Removed => {}
        }
    }
}

#[derive(Debug)]
enum Attempt {
    Taken(Lock),
    /// Another process has it.
    Busy,
    /// Whoever had it removed it since this file was opened: nobody else will open it any more.
    Removed,
}

fn attempt(file: File, path: &Path) -> Result<Attempt, Error> {
    match file.try_lock() {
        Ok(()) if is_at(&file, path) => Ok(Attempt::Taken(Lock { file, path: path.to_owned() })),
        Ok(()) => Ok(Attempt::Removed),
        Err(TryLockError::WouldBlock) => Ok(Attempt::Busy),
        Err(TryLockError::Error(source)) => Err(failed("lock", path)(source)),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => inode(ours) == inode(there),
        _ => false,
    }
}

/// Reads a file, and closes it to others if it is open to them.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("look at", path))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(MODE)).map_err(failed("close to others", path))?;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed("read", path))?;
    parse(path, &bytes).map(Some)
}

/// The version is looked at first: a newer file may differ in everything else.
fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, Error> {
    let damaged = |why: String| Error::Damaged { path: path.to_owned(), why };
    if bytes.is_empty() {
        return Err(damaged("it is empty".to_owned()));
    }
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        None | Some(0) => Err(damaged("it has no version".to_owned())),
        Some(found) if found > u64::from(VERSION) => {
            Err(Error::Newer { path: path.to_owned(), found, known: VERSION })
        }
        Some(_) => serde_json::from_value(value).map_err(|error| damaged(error.to_string())),
    }
}

/// Replaces a file in one step. Only for who holds the lock: the file beside it has a fixed name, so that
/// one left by a killed process is overwritten and not kept.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|error| failed("write", path)(io::Error::other(error)))?;
    bytes.push(b'\n');
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // A new file: an old one might be looser, or a link to elsewhere.
    remove(&beside)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&beside)
        .map_err(failed("create", &beside))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed("write", &beside))?;
    fs::rename(&beside, path).map_err(failed("replace", path))?;
    sync_folder(path)
}

/// Removes a file; none is no fault.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
    }
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of", path))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { doing, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_was_removed_after_one_opened_it_is_not_taken_for_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let held = lock(folder.path(), &path).unwrap();
        let (early, late) = (File::open(&path).unwrap(), File::open(&path).unwrap());
        assert!(matches!(attempt(early, &path).unwrap(), Attempt::Busy));
        held.remove().unwrap();
        assert!(matches!(attempt(late, &path).unwrap(), Attempt::Removed));
        assert!(lock(folder.path(), &path).is_ok());
    }

    #[test]
    fn a_lock_goes_also_while_a_child_still_shares_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let held = lock(folder.path(), &path).unwrap();
        let shared = held.file.try_clone().unwrap();
        drop(held);
        assert!(try_lock(folder.path(), &path).unwrap().is_some());
        drop(shared);
    }

    #[test]
    fn what_a_killed_process_left_beside_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(folder.path().join("a.json.new"), "{\"half").unwrap();
        write(&path, &serde_json::json!({"version": 1})).unwrap();
        assert_eq!(read::<serde_json::Value>(&path).unwrap().unwrap()["version"], 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn json_of_anything_else_is_no_record() {
        for text in ["null", "[]", "{}", "{\"version\": 0}", "{\"version\": \"1\"}"] {
            let error = parse::<serde_json::Value>(Path::new("x"), text.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{text}: {error}");
        }
    }
}
