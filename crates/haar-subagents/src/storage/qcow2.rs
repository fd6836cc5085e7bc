//! The `qcow2` back end: a disk is an overlay on a read-only base image, made in constant time on any file
//! system.
//!
//! Formats are always named and never probed. What stands on the disk is read from our own headers, so that a
//! disk in use by QEMU is not touched. A damaged disk is found like any other and says so: it concerns its own
//! guest and nobody else.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use haar_api::image_check::{Unreadable, read_qcow2_header};
use haar_api::rpc::{Fault, FaultCode};

use super::disks::MOST_BYTES;
use super::folders::{Folders, io_fault, is_passing};
use super::names::{Dataset, parse_dataset, volume_name};
use super::space::held_bytes;
use super::{names, qemu_img};

/// A base image to clone from.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) path: PathBuf,
    pub(super) format: String,
}

/// A disk as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) guest: String,
    pub(super) index: usize,
    pub(super) path: PathBuf,
    /// Bytes the guest sees; 0 for a damaged one.
    pub(super) size_bytes: u64,
    /// Bytes held on the host's file system.
    pub(super) used_bytes: u64,
    /// The base image's file, for a sound clone.
    pub(super) base: Option<String>,
    /// Why it cannot be used, for a damaged one.
    pub(super) damage: Option<String>,
}

/// Makes a disk file: a clone of the base, or an empty one. The file must not exist.
pub(super) fn make(path: &Path, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault> {
    let size = size_bytes.to_string();
    let mut arguments = vec!["create".as_ref(), "-q".as_ref(), "-f".as_ref(), "qcow2".as_ref()];
    if let Some(base) = base {
        arguments.extend(["-F".as_ref(), base.format.as_ref(), "-b".as_ref(), base.path.as_os_str()]);
    }
    arguments.extend([path.as_os_str(), size.as_ref()]);
    qemu_img::run(&arguments)?;
    finish(path).map_err(|error| io_fault("make durable", path, &error))
}

/// Only root may read a disk until libvirt hands it to QEMU's user.
fn finish(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    File::open(path)?.sync_all()
}

/// Reads a guest's disk; none when there is no such file.
pub(super) fn find(folders: &Folders, guest: &str, index: usize) -> Result<Option<Found>, Fault> {
    let path = folders.disk(guest, index);
    let mut found = Found {
        guest: guest.to_owned(),
        index,
        path,
        size_bytes: 0,
        used_bytes: 0,
        base: None,
        damage: None,
    };
    match fill(&mut found) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is_passing(&error) => return Err(io_fault("read", &found.path, &error)),
        Err(error) => {
            let text = format!("{} is no sound qcow2 disk: {error}", found.path.display());
            found.damage = Some(text);
        }
    }
    Ok(Some(found))
}

/// What the file says of itself.
fn fill(found: &mut Found) -> io::Result<()> {
    let damaged = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let metadata = fs::metadata(&found.path)?;
    found.used_bytes = held_bytes(&metadata);
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err(damaged("it is not a regular file".to_owned()));
    }
    let file = File::open(&found.path)?;
    let header = read_qcow2_header(&file).map_err(|unreadable| match unreadable {
        Unreadable::Io(error) => error,
        flaw => damaged(flaw.to_string()),
    })?;
    if !(1..=MOST_BYTES).contains(&header.size_bytes()) {
        return Err(damaged(format!("its size of {} bytes cannot be", header.size_bytes())));
    }
    found.base = header.backing_file(&file)?;
    found.size_bytes = header.size_bytes();
    Ok(())
}

/// Every disk of every guest, by name.
pub(super) fn list(folders: &Folders) -> Result<Vec<Found>, Fault> {
    let mut found = Vec::new();
    for guest in names_in(&folders.disks())? {
        // Strangers in the folder are left alone.
        if names::check_id("guest", &guest).is_ok() {
            found.extend(list_guest(folders, &guest)?);
        }
    }
    Ok(found)
}

/// Every disk of a guest, by index; none when the guest has no folder.
pub(super) fn list_guest(folders: &Folders, guest: &str) -> Result<Vec<Found>, Fault> {
    let mut found = Vec::new();
    for name in names_in(&folders.guest(guest))? {
        let Some(disk) = name.strip_suffix(".qcow2") else { continue };
        if let Ok(Dataset::Disk(_, index)) = parse_dataset(&format!("guests/{guest}/{disk}")) {
            // A disk may be deleted between the listing and the look.
            found.extend(find(folders, guest, index)?);
        }
    }
    found.sort_by_key(|disk| disk.index);
    Ok(found)
}

impl Found {
    /// The back end's name.
    pub(super) fn volume(&self) -> String {
        volume_name(&self.guest, self.index)
    }

    /// The file name of the base image. Image ids are unique, so it stands for the image wherever the root
    /// folder has been moved since the clone was made.
    pub(super) fn base_name(&self) -> Option<&OsStr> {
        Path::new(self.base.as_deref()?).file_name()
    }

    /// Refuses a damaged disk; `provisioned` tells whether it ever held data.
    pub(super) fn check_sound(&self, provisioned: bool) -> Result<(), Fault> {
        let Some(damage) = &self.damage else { return Ok(()) };
        let code = if provisioned { FaultCode::Lost } else { FaultCode::Failed };
        Err(Fault::new(code, format!("{damage}; restore it from a backup, or recreate the guest")))
    }
}

/// The names in a folder, sorted; none when it does not exist or is a file.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, Fault> {
    let failed = |error| io_fault("list", folder, &error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
