//! Base images that are complete: kept read-only, with their facts beside them, never changed.
//!
//! An image counts only when both its facts and its file are there. The facts are written first and the file
//! is renamed last, so that a crash leaves facts without a file, which the next fetch overwrites. Damaged facts are
//! overwritten likewise: an id stands for one content, so the disks cloned from it find the same bytes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use haar_api::image_check::{self, Flaw};
use haar_api::rpc::{Fault, FaultCode, Image, ImageExtra, PruneRequest};
use serde::{Deserialize, Serialize};

use super::backend::Base;
use super::folders::{Folders, io_fault, sync_folder, write_json};
use super::found::{self, Found, names_in};
use super::names::check_id;
use super::part;
use super::reflink::EXPANDED;
use super::space::mib_rounded_up;

/// How long an image without a disk stays when nothing is said: a guest may be about to be made of it.
const KEEP_NEWER_S: u64 = 60 * 60;

/// What stands in `<id>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Version of this record.
    pub(super) v: u32,
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) format: String,
    pub(super) sha256: String,
    pub(super) file_bytes: u64,
    pub(super) virtual_bytes: u64,
}

impl Facts {
    /// The file that disks are cloned from.
    ///
    /// # Errors
    /// When the image was stored before the back end was chosen that needs it as a raw file.
    pub(super) fn base(&self, folders: &Folders) -> Result<Base, Fault> {
        let Some(path) = self.raw_base(folders) else {
            return Ok(Base { path: folders.image(&self.id, &self.format), format: self.format.clone() });
        };
        if folders.backends().of_new().has_raw_base(&path) {
            return Ok(Base { path, format: "raw".to_owned() });
        }
        let text = format!("image {} is not stored as a raw file yet; request it first", self.id);
        Err(Fault::new(FaultCode::NotFound, text))
    }

    /// The raw file that disks are cloned from, when it is not the image as it came.
    pub(super) fn raw_base(&self, folders: &Folders) -> Option<PathBuf> {
        folders.backends().of_new().raw_base(&folders.images(), &self.id, &self.format)
    }

    /// As it goes over the wire.
    pub(super) fn to_wire(&self) -> Image {
        Image {
            id: self.id.clone(),
            kind: self.kind.clone(),
            volume: format!("images/{}", self.id),
            snapshot: String::new(),
            size: mib_rounded_up(self.virtual_bytes),
            status: "complete".to_owned(),
            haar: Some(ImageExtra {
                format: self.format.clone(),
                sha256: self.sha256.clone(),
                file_bytes: self.file_bytes,
                virtual_bytes: self.virtual_bytes,
                done_bytes: self.file_bytes,
                error: String::new(),
            }),
        }
    }
}

/// Reads a complete image; none when it is not there. The id must have been checked.
pub(super) fn find(folders: &Folders, id: &str) -> Result<Option<Facts>, Fault> {
    let path = folders.image_facts(id);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_fault("read", &path, &error)),
    };
    let facts: Facts = match serde_json::from_slice(&text) {
        Ok(facts) => facts,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "an image's facts are damaged; it counts as absent");
            return Ok(None);
        }
    };
    // The format becomes a part of a path.
    let sound = facts.id == id && matches!(facts.format.as_str(), "qcow2" | "raw");
    Ok(Some(facts).filter(|facts| sound && folders.image(id, &facts.format).is_file()))
}

/// Reads a complete image or says that it must be requested first.
pub(super) fn require(folders: &Folders, id: &str) -> Result<Facts, Fault> {
    check_id("image", id)?;
    find(folders, id)?.ok_or_else(|| {
        Fault::new(FaultCode::NotFound, format!("image {id} is not stored here; request it first"))
    })
}

/// Every complete image, by id.
pub(super) fn list(folders: &Folders) -> Result<Vec<Facts>, Fault> {
    let mut found = Vec::new();
    for name in names_in(&folders.images())? {
        if let Some(id) = name.strip_suffix(".json")
            && check_id("image", id).is_ok()
        {
            found.extend(find(folders, id)?);
        }
    }
    Ok(found)
}

/// Checks a file that claims to be of `format`, before QEMU opens it; answers the bytes a clone of it has.
pub(super) fn check(path: &Path, format: &str) -> Result<u64, Fault> {
    let file = File::open(path).map_err(|error| io_fault("open", path, &error))?;
    let checked = match format {
        "raw" => image_check::check_raw(&file),
        _ => image_check::check_qcow2(&file),
    };
    checked.map_err(|flaw| match flaw {
        Flaw::Io(error) => io_fault("read", path, &error),
        flaw => Fault::new(FaultCode::BadImage, flaw.to_string()),
    })
}

/// Makes a checked and hashed file the image's file.
pub(super) fn keep(folders: &Folders, part: &Path, facts: &Facts) -> Result<(), Fault> {
    let facts_path = folders.image_facts(&facts.id);
    let path = folders.image(&facts.id, &facts.format);
    let failed = |error| io_fault("keep", &path, &error);
    fs::set_permissions(part, Permissions::from_mode(0o444)).map_err(failed)?;
    File::open(part).and_then(|file| file.sync_all()).map_err(failed)?;
    write_json(&facts_path, facts).map_err(|error| io_fault("write", &facts_path, &error))?;
    fs::rename(part, &path).map_err(failed)?;
    sync_folder(&folders.images()).map_err(failed)
}

/// Removes an image that no disk is cloned from; an absent one is fine. Answers what was removed.
pub(super) fn delete(folders: &Folders, id: &str) -> Result<Option<Facts>, Fault> {
    check_unused(folders, id, Use::Leaning)?;
    let facts = find(folders, id).unwrap_or_default();
    part::forget(folders, id);
    for volumes in folders.backends().all() {
        for (_, path) in volumes.raw_bases(&folders.images())?.iter().filter(|(of, _)| of == id) {
            volumes.forget_raw_base(path)?;
        }
    }
    for path in [folders.image(id, "qcow2"), folders.image(id, "raw"), folders.image_facts(id)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_fault("remove", &path, &error));
            }
            _ => {}
        }
    }
    sync_folder(&folders.images()).map_err(|error| io_fault("sync", &folders.images(), &error))?;
    Ok(facts)
}

/// Notes that somebody was told that the image is here, and may be about to clone it.
pub(super) fn touch(folders: &Folders, id: &str) {
    let touched = File::open(folders.image_facts(id)).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::warn!(image = id, %error, "it cannot be noted that the image was asked for; it may be pruned early");
    }
}

/// Images that no disk was cloned from, and that were neither stored nor asked for just now.
pub(super) fn list_unused(folders: &Folders, request: &PruneRequest) -> Result<Vec<String>, Fault> {
    let mut ids: Vec<String> = list(folders)?.into_iter().map(|facts| facts.id).collect();
    ids.retain(|id| is_old(folders, id, request) && check_unused(folders, id, Use::Cloned).is_ok());
    Ok(ids)
}

/// Removes such an image; none when it was asked for meanwhile. The caller has its turn and the books.
pub(super) fn prune(folders: &Folders, id: &str, request: &PruneRequest) -> Result<Option<Facts>, Fault> {
    if !is_old(folders, id, request) {
        return Ok(None);
    }
    check_unused(folders, id, Use::Cloned)?;
    delete(folders, id)
}

fn is_old(folders: &Folders, id: &str, request: &PruneRequest) -> bool {
    let keep_newer = Duration::from_secs(request.keep_newer_s.unwrap_or(KEEP_NEWER_S));
    let noted = fs::metadata(folders.image_facts(id)).and_then(|metadata| metadata.modified());
    // A time in the future is one of a clock that was set back: just now, for all that is known.
    noted.ok().and_then(|noted| noted.elapsed().ok()).unwrap_or_default() >= keep_newer
}

/// What counts as a disk's use of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It cannot be read without it.
    Leaning,
    /// It came from it, and the next one may as well.
    Cloned,
}

/// Refuses while a disk leans on the image, or may: a damaged one no longer says what it leans on.
fn check_unused(folders: &Folders, id: &str, which: Use) -> Result<(), Fault> {
    let disks = found::list(folders)?;
    let names = ["qcow2", "raw", EXPANDED].map(|format| folders.image(id, format));
    let is_user = |disk: &&Found| {
        (which == Use::Cloned || disk.volumes.leans_on_base())
            && disk.base_name().is_some_and(|base| names.iter().any(|name| name.file_name() == Some(base)))
    };
    let users: Vec<_> = disks.iter().filter(is_user).collect();
    if let Some(first) = users.first() {
        let text = format!(
            "image {id} is the base of {} disks, {} among them; delete those guests first",
            users.len(),
            first.volume()
        );
        return Err(Fault::new(FaultCode::Conflict, text));
    }
    let leaning = disks.iter().filter(|disk| disk.volumes.leans_on_base());
    if let Some((disk, damage)) = leaning.into_iter().find_map(|disk| Some((disk, disk.damage.as_ref()?))) {
        let text = format!(
            "image {id} may be the base of {}, which is damaged ({damage}); restore that disk or delete its guest first",
            disk.volume()
        );
        return Err(Fault::new(FaultCode::Conflict, text));
    }
    Ok(())
}
