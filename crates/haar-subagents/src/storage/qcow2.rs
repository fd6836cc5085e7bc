//! The `qcow2` back end: a disk is an overlay on a read-only base image, made in constant time on any file
//! system.
//!
//! Formats are always named and never probed. What stands on the disk is read from our own headers, so that a
//! disk in use by QEMU is not touched.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use haar_api::image_check::{Unreadable, read_qcow2_header};
use haar_api::rpc::{Fault, FaultCode};

use super::folders::{Folders, io_fault};
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
    /// Bytes the guest sees.
    pub(super) size_bytes: u64,
    /// Bytes held on the host's file system.
    pub(super) used_bytes: u64,
    /// The base image's file, for a clone.
    pub(super) base: Option<String>,
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
    let failed = |error| io_fault("read", &path, &error);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let header = read_qcow2_header(&file).map_err(|unreadable| match unreadable {
        Unreadable::Io(error) => failed(error),
        Unreadable::Short | Unreadable::Magic | Unreadable::Version(_) => {
            let text = format!("{} is no qcow2 disk any more; restore it from a backup", path.display());
            Fault::new(FaultCode::Failed, text)
        }
    })?;
    let base = header.backing_file(&file).map_err(failed)?;
    let used_bytes = held_bytes(&file.metadata().map_err(failed)?);
    Ok(Some(Found {
        guest: guest.to_owned(),
        index,
        size_bytes: header.size_bytes(),
        used_bytes,
        base,
        path: path.clone(),
    }))
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
}

/// The names in a folder, sorted; none when it does not exist.
pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, Fault> {
    let failed = |error| io_fault("list", folder, &error);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
