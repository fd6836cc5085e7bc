//! The disks that stand, whichever back end made them, found by looking.
//!
//! A damaged disk is found like any other and says so: it concerns its own guest and nobody else.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use haar_api::rpc::{Fault, FaultCode};

use super::backend::{Looks, Spot, Volumes};
use super::folders::{Folders, io_fault, is_passing, is_unreachable};
use super::names::{self, Dataset, parse_dataset, volume_name};

const RESTORE: &str = "restore it from a backup, or recreate the guest";

/// A disk as it stands.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) spot: Spot,
    pub(super) volumes: Arc<dyn Volumes>,
    pub(super) path: PathBuf,
    /// Sizes are 0 for a damaged one.
    pub(super) looks: Looks,
    /// Why it cannot be used.
    pub(super) damage: Option<Damage>,
}

/// Why a disk cannot be used, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Damage {
    /// What stands there is no disk.
    Broken(String),
    /// What it lies on cannot be read just now; it may be whole.
    Unreachable(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Damage::Broken(words) | Damage::Unreachable(words)) = self;
        f.write_str(words)
    }
}

/// Reads a guest's disk; none when there is no such disk.
pub(super) fn find(folders: &Folders, guest: &str, index: usize) -> Result<Option<Found>, Fault> {
    let spot = folders.spot(guest, index);
    for volumes in folders.backends().all() {
        let path = volumes.path(&spot);
        let (looks, damage) = match volumes.look(&spot) {
            Ok(looks) => (looks, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) if is_passing(&error) => return Err(io_fault("read", &path, &error)),
            Err(error) => {
                let used_bytes =
                    fs::metadata(&path).map_or(0, |metadata| super::space::held_bytes(&metadata));
                let looks = Looks { used_bytes, own_bytes: used_bytes, ..Looks::default() };
                let (path, format) = (path.display(), volumes.format());
                (
                    looks,
                    Some(if is_unreachable(&error) {
                        Damage::Unreachable(format!("{path} cannot be read just now: {error}"))
                    } else {
                        Damage::Broken(format!("{path} is no sound {format} disk: {error}"))
                    }),
                )
            }
        };
        return Ok(Some(Found { spot, volumes: Arc::clone(volumes), path, looks, damage }));
    }
    Ok(None)
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
    let mut indices = Vec::new();
    for name in names_in(&folders.guest(guest))? {
        let disk =
            folders.backends().all().iter().find_map(|volumes| {
                name.strip_suffix(volumes.ending()).and_then(|disk| disk.strip_suffix('.'))
            });
        let Some(disk) = disk else { continue };
        if let Ok(Dataset::Disk(_, index)) = parse_dataset(&format!("guests/{guest}/{disk}")) {
            indices.push(index);
        }
    }
    indices.sort_unstable();
    indices.dedup();
    let mut found = Vec::new();
    for index in indices {
        // A disk may be deleted between the listing and the look.
        found.extend(find(folders, guest, index)?);
    }
    Ok(found)
}

impl Found {
    /// The back end's name.
    pub(super) fn volume(&self) -> String {
        volume_name(&self.spot.guest, self.spot.index)
    }

    /// The file name of the base image. Image ids are unique, so it stands for the image wherever the root
    /// folder has been moved since the clone was made.
    pub(super) fn base_name(&self) -> Option<&OsStr> {
        Path::new(self.looks.base.as_deref()?).file_name()
    }

    /// Refuses a damaged disk; `provisioned` tells whether it ever held data.
    pub(super) fn check_sound(&self, provisioned: bool) -> Result<(), Fault> {
        let (code, remedy) = match &self.damage {
            None => return Ok(()),
            Some(Damage::Unreachable(_)) => (FaultCode::Unavailable, "see to that and ask again"),
            Some(Damage::Broken(_)) if provisioned => (FaultCode::Lost, RESTORE),
            Some(Damage::Broken(_)) => (FaultCode::Failed, RESTORE),
        };
        let damage = self.damage.as_ref().map(ToString::to_string).unwrap_or_default();
        Err(Fault::new(code, format!("{damage}; {remedy}")))
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
