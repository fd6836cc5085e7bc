//! The root folder: where things lie, who may pass, and what is swept away at start.
//!
//! ```text
//! <root>/lock                          held by the one sub-agent that owns the root
//! <root>/work                          held by it and by every program that changes a disk for it
//! <root>/conversions                   what programs that make images raw have as their standard input
//! <root>/streams/                      sockets of running downloads, 0700
//! <root>/images/<id>.<format>          a base image, 0444, never changed
//! <root>/images/<id>.json              what is known of it; an image counts only with both files
//! <root>/images/.part-<id>             a fetch in progress; with a note beside it, one that may be gone on with
//! <root>/disks/<guest id>/             a guest's disks, made and removed as a whole by rename
//! <root>/disks/<guest id>/owner.json   whose they are
//! <root>/disks/<guest id>/pending.json an act on the guest's snapshots that has not ended
//! <root>/disks/<guest id>/disk-<i>.…    what the back end makes of a disk
//! <root>/zfs/                          where the zfs back end mounts its datasets, and links to volumes
//! <root>/disks/.new-…  .gone-…         half made, half removed
//! ```
//!
//! Names beginning with a dot are nobody's after a restart and are removed, but fetches that may be gone on with. Folders can be passed by QEMU's
//! user (0711); what nobody but root needs is 0600.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use haar_api::rpc::storage::Backend;
use haar_api::rpc::{Fault, FaultCode};
use serde::Serialize;

use super::backend::{Backends, Spot};
use super::names::check_id;
use super::owner::{self, Standing};
use super::readers::Readers;
use super::space::Books;
use super::{Error, nbd, part, qemu_img};

/// A child that was forked and has not begun its program yet still has every file of its parent.
const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// As long as `qemu-img` itself may take, and what it takes to be gone.
const WORK_LIMIT: Duration = Duration::from_secs(65);

const CONVERSIONS: &str = "conversions";

/// The folders below the root, the lock on them, and the books of their room.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    books: Books,
    backends: Backends,
    readers: Arc<Readers>,
    /// Folders of deleted guests whose disks could not be removed yet, with their guests.
    left: Mutex<BTreeMap<PathBuf, String>>,
    _lock: File,
}

impl Folders {
    /// Makes what is absent, takes the lock, removes what an earlier run left half done.
    pub(super) fn open(root: &Path, backend: Backend, cloud: &str) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Folder { path, source }
        };
        for folder in [root.to_owned(), root.join("images"), root.join("disks")] {
            DirBuilder::new().recursive(true).mode(0o711).create(&folder).map_err(failed(&folder))?;
        }
        // QEMU opens disks and their bases by absolute path.
        let root = root.canonicalize().map_err(failed(root))?;
        if root.to_str().is_none() {
            return Err(Error::RootName(root));
        }
        let lock = take_lock(&root.join("lock"), LOCK_LIMIT)?.ok_or_else(|| Error::InUse(root.clone()))?;
        // What an earlier run's qemu-img does not finish before this begins might finish in the middle of it.
        let work = take_lock(&root.join("work"), WORK_LIMIT)?.ok_or_else(|| Error::AtWork(root.clone()))?;
        let backends = Backends::new(backend, &root, &work).map_err(failed(&root))?;
        let (books, readers, left) = (Books::default(), Arc::default(), Mutex::default());
        let folders = Folders { root, books, backends, readers, left, _lock: lock };
        // What an earlier run made raw is swept away, and would keep its room or its dataset for hours.
        let conversions = folders.root.join(CONVERSIONS);
        qemu_img::end_strays(&conversions).map_err(failed(&conversions))?;
        let images = folders.images();
        folders.sweep(&images, |name| part::may_go_on(&images, name)).map_err(failed(&images))?;
        let streams = folders.streams();
        DirBuilder::new().recursive(true).mode(0o700).create(&streams).map_err(failed(&streams))?;
        nbd::end_strays(&streams).map_err(failed(&streams))?;
        let disks = folders.disks();
        folders.backends.probe(backend, &folders.root, &disks)?;
        folders
            .sweep(&disks, |_| false)
            .and_then(|()| folders.sweep_guests(cloud))
            .map_err(failed(&disks))?;
        folders.warn_when_impassable();
        Ok(folders)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What disks are made by.
    pub(super) fn backends(&self) -> &Backends {
        &self.backends
    }

    /// Who downloads what just now.
    pub(super) fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// What is left of deleted guests.
    pub(super) fn left(&self) -> MutexGuard<'_, BTreeMap<PathBuf, String>> {
        // One entry is set or removed at a time.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who may promise the room here.
    pub(super) fn books(&self) -> &Books {
        &self.books
    }

    pub(super) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(super) fn disks(&self) -> PathBuf {
        self.root.join("disks")
    }

    pub(super) fn image(&self, id: &str, format: &str) -> PathBuf {
        self.images().join(format!("{id}.{format}"))
    }

    pub(super) fn image_facts(&self, id: &str) -> PathBuf {
        self.images().join(format!("{id}.json"))
    }

    pub(super) fn image_part(&self, id: &str) -> PathBuf {
        self.images().join(format!(".part-{id}"))
    }

    pub(super) fn guest(&self, guest: &str) -> PathBuf {
        self.disks().join(guest)
    }

    /// Where a guest's disk belongs.
    pub(super) fn spot(&self, guest: &str, index: usize) -> Spot {
        Spot { folder: self.guest(guest), guest: guest.to_owned(), index }
    }

    pub(super) fn streams(&self) -> PathBuf {
        self.root.join("streams")
    }

    /// The standard input of a program that makes an image raw: by it the next start finds one that outlives us.
    pub(super) fn conversions(&self) -> Result<File, Fault> {
        let path = self.root.join(CONVERSIONS);
        let opened = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&path);
        opened.map_err(|error| io_fault("open", &path, &error))
    }

    /// Removes what begins with a dot, but what is kept.
    fn sweep(&self, folder: &Path, kept: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            if !name.as_encoded_bytes().starts_with(b".") || name.to_str().is_some_and(&kept) {
                continue;
            }
            let is_folder = entry.file_type()?.is_dir();
            if let Err(fault) = self.backends.discard(&path) {
                tracing::warn!(path = %path.display(), %fault, "half of a disk stays until the next start");
                continue;
            }
            tracing::info!(path = %path.display(), "removed what an earlier run left unfinished");
            let removed = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The same inside every folder of a guest of this cloud.
    fn sweep_guests(&self, cloud: &str) -> io::Result<()> {
        for entry in fs::read_dir(self.disks())? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| self.is_ours(name, cloud)) {
                self.sweep(&entry.path(), |_| false)?;
            }
        }
        Ok(())
    }

    /// Whether a name among the disks is that of a guest of this cloud.
    pub(super) fn is_ours(&self, name: &str, cloud: &str) -> bool {
        check_id("guest", name).is_ok()
            && matches!(owner::look(self, name), Ok(Standing::Owned(owner)) if owner.cloud == cloud)
    }

    fn warn_when_impassable(&self) {
        for folder in self.root.ancestors() {
            let mode = fs::metadata(folder).map_or(0, |metadata| metadata.permissions().mode());
            if mode & 0o001 == 0 {
                tracing::warn!(
                    folder = %folder.display(),
                    "QEMU's user cannot pass this folder, guests will not find their disks; chmod o+x it"
                );
            }
        }
    }
}

/// Opens the file and locks it; none when another process still holds it after `patience`.
fn take_lock(path: &Path, patience: Duration) -> Result<Option<File>, Error> {
    let failed = |source| Error::Folder { path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

/// Makes a folder that QEMU's user can pass.
pub(super) fn make_passable(folder: &Path) -> io::Result<()> {
    fs::create_dir(folder)?;
    fs::set_permissions(folder, Permissions::from_mode(0o711))
}

/// Writes JSON so that after a crash either the old or the new text stands there, never a part of it.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let temporary = folder.join(format!(".{name}"));
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_folder(folder)
}

/// Makes renames and removals inside the folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether the system refused because this process or the machine is short of something just now: that says
/// nothing about the file.
pub(super) fn is_passing(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EINTR))
}

/// Whether the error says nothing about what is in the file: what it lies on cannot be reached or read just now.
/// What says that something else stands there is not among them.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    use nix::errno::Errno::{EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, ENXIO};
    let told = [ENOENT, ENOTDIR, EISDIR, ELOOP, EINVAL, ENXIO, ENAMETOOLONG];
    match error.raw_os_error() {
        Some(code) => !told.contains(&nix::errno::Errno::from_raw(code)),
        None => error.kind() == io::ErrorKind::NotConnected,
    }
}

/// The fault for a file operation that the system refused.
pub(crate) fn io_fault(what: &str, path: &Path, error: &io::Error) -> Fault {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let code = if full { FaultCode::NoSpace } else { FaultCode::Failed };
    Fault::new(code, format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOUD: &str = "cloud-a";

    #[test]
    fn half_done_things_of_an_earlier_run_are_swept_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("storage");
        drop(Folders::open(&root, Backend::Auto, CLOUD).unwrap());
        fs::write(root.join("images/.part-x"), "half").unwrap();
        fs::create_dir(root.join("disks/.new-x")).unwrap();
        fs::write(root.join("disks/.new-x/disk-0.qcow2"), "half").unwrap();
        fs::write(root.join("images/stranger"), "kept").unwrap();
        let guest = root.join("disks/0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11");
        fs::create_dir(&guest).unwrap();
        fs::write(guest.join(".disk-1.qcow2"), "half").unwrap();
        fs::write(guest.join("disk-0.qcow2"), "kept").unwrap();
        let owner = |cloud: &str| {
            let name = guest.file_name().unwrap().to_str().unwrap();
            let text = r#"{"v":1,"guest":"GUEST","cloud":"CLOUD","life":"","order":"","provisioned":false}"#;
            let text = text.replace("GUEST", name).replace("CLOUD", cloud);
            fs::write(guest.join("owner.json"), text).unwrap();
        };
        owner("cloud-b");
        drop(Folders::open(&root, Backend::Auto, CLOUD).unwrap());
        assert!(guest.join(".disk-1.qcow2").exists(), "another cloud's guest is not looked into");
        fs::write(root.join("images/.part-x"), "half").unwrap();
        owner(CLOUD);
        drop(Folders::open(&root, Backend::Auto, CLOUD).unwrap());
        assert!(!root.join("images/.part-x").exists());
        assert!(!root.join("disks/.new-x").exists());
        assert!(root.join("images/stranger").exists() && guest.join("disk-0.qcow2").exists());
        assert!(!guest.join(".disk-1.qcow2").exists());
    }

    #[test]
    fn two_sub_agents_do_not_share_a_root() {
        let temp = tempfile::tempdir().unwrap();
        let _first = Folders::open(temp.path(), Backend::Auto, CLOUD).unwrap();
        assert!(matches!(Folders::open(temp.path(), Backend::Auto, CLOUD), Err(Error::InUse(_))));
    }

    #[test]
    fn folders_can_be_passed_by_qemus_user() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("storage");
        let folders = Folders::open(&root, Backend::Auto, CLOUD).unwrap();
        for folder in [folders.root().to_owned(), folders.images(), folders.disks()] {
            assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o011, 0o011);
        }
    }
}
