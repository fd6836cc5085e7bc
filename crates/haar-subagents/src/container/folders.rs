//! The root folder: where things lie, who may pass, and what is swept away at start.
//!
//! ```text
//! <root>/lock                            held by the one sub-agent that owns the root
//! <root>/work                            held by it and by every program that it runs
//! <root>/images/<id>/image.json          what is known of an image
//! <root>/images/<id>/rootfs/             its layers, laid over each other; never changed
//! <root>/images/.part-<id>/              an image in progress
//! <root>/containers/<id>/                a container; see `record`
//! <root>/containers/.new-… */.gone-…     half made, half removed
//! ```
//!
//! The root is for its owner only (0700): what an image brings is nobody's business on this host, least of all its
//! setuid programs. Names beginning with a dot are nobody's after a restart and are removed.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use haar_api::rpc::Fault;

use super::{Error, mounts, removal};
use crate::storage::folders::io_fault;
use crate::storage::names::check_id;

/// A child that was forked and has not begun its program yet still has every file of its parent.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// As long as a program itself may take, and what it takes to be gone.
const WORK_LIMIT: Duration = Duration::from_secs(65);

/// The folders below the root, and the locks on them.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    run: PathBuf,
    work: File,
    _lock: File,
}

impl Folders {
    /// Makes what is absent, takes the locks, removes what an earlier run left half done.
    pub(super) fn open(root: &Path, run: &Path) -> Result<Self, Error> {
        for folder in [root.to_owned(), root.join("images"), root.join("containers"), run.to_owned()] {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed(&folder))?;
        }
        // Whatever the umask said, and whoever made it.
        fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(failed(root))?;
        let root = root.canonicalize().map_err(failed(root))?;
        let run = run.canonicalize().map_err(failed(run))?;
        // A mount's options have no way to write these; the runtime's files are JSON.
        if root.to_str().is_none() || !mounts::is_plain(&root) {
            return Err(Error::RootName(root));
        }
        let lock = take_lock(&root.join("lock"), LOCK_LIMIT)?.ok_or_else(|| Error::InUse(root.clone()))?;
        // What a program of an earlier run does not finish before this begins might finish in the middle of it.
        let work = take_lock(&root.join("work"), WORK_LIMIT)?.ok_or_else(|| Error::AtWork(root.clone()))?;
        let folders = Folders { root, run, work, _lock: lock };
        for folder in [folders.images(), folders.containers()] {
            sweep(&folder).map_err(failed(&folder))?;
        }
        Ok(folders)
    }

    /// What a program has as its standard input, so that the next start waits for its end.
    pub(super) fn work(&self) -> Stdio {
        self.work.try_clone().map_or_else(|_| Stdio::null(), Stdio::from)
    }

    /// Where the runtime keeps what does not outlive the host's running.
    pub(super) fn run(&self) -> &Path {
        &self.run
    }

    pub(super) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(super) fn image(&self, id: &str) -> PathBuf {
        self.images().join(id)
    }

    pub(super) fn image_part(&self, id: &str) -> PathBuf {
        self.images().join(format!(".part-{id}"))
    }

    pub(super) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(super) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Folder { path, source }
}

/// Opens the file and locks it; none when another process still holds it after `patience`.
fn take_lock(path: &Path, patience: Duration) -> Result<Option<File>, Error> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed(path))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(source)) => return Err(failed(path)(source)),
        }
    }
}

/// Removes what begins with a dot. What cannot be removed is said and stays: it is in nobody's way.
fn sweep(folder: &Path) -> io::Result<()> {
    sweep_with(folder, remove)
}

fn sweep_with(folder: &Path, remove: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        match remove(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what an earlier run left unfinished"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "what an earlier run left stays"),
        }
    }
    Ok(())
}

/// Removes a file or a folder with all that is in it, but nothing that is mounted there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    mounts::unmount_below(path)?;
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => removal::remove_folder(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Moves what has this id out of sight, to be removed; none when it is not there.
pub(super) fn put_away(folder: &Path, id: &str) -> io::Result<Option<PathBuf>> {
    let mut number = 0;
    loop {
        let gone = folder.join(format!(".gone-{id}-{number}"));
        match fs::rename(folder.join(id), &gone) {
            Ok(()) => {
                crate::storage::folders::sync_folder(folder)?;
                return Ok(Some(gone));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // Another one is still being removed, or could not be.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The ids in a folder, sorted; a stranger's names are left alone.
pub(super) fn ids_in(folder: &Path) -> Result<Vec<String>, Fault> {
    let failed = |error| io_fault("list", folder, &error);
    let mut ids = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().into_string();
        ids.extend(name.ok().filter(|name| check_id("", name).is_ok()));
    }
    ids.sort();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_swept_keeps_nobody_from_starting() {
        let temp = tempfile::tempdir().unwrap();
        let gone = temp.path().join(".gone-a");
        fs::create_dir(&gone).unwrap();
        fs::create_dir(temp.path().join(".gone-b")).unwrap();
        fs::write(temp.path().join("kept"), "").unwrap();
        // The kernel removes nothing that somebody else has mounted on; a plain user cannot mount.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let flags = nix::mount::MsFlags::empty();
        fs::create_dir(gone.join("inner")).unwrap();
        nix::mount::mount(Some("none"), &gone.join("inner"), Some("tmpfs"), flags, None::<&str>).unwrap();
        let swept = sweep_with(temp.path(), removal::remove_folder);
        nix::mount::umount2(&gone.join("inner"), nix::mount::MntFlags::MNT_DETACH).unwrap();
        swept.unwrap();
        assert!(gone.exists() && temp.path().join("kept").exists() && !temp.path().join(".gone-b").exists());
        sweep(temp.path()).unwrap();
        assert!(!gone.exists());
    }
}
