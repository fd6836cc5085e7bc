//! Images that are complete: their layers laid over each other, read-only, with their facts beside them.
//!
//! An image appears and goes as a whole, by a rename of its folder. Layers are not shared between images: each has
//! its own folder, which one overlay needs, however many layers there were.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use haar_api::rpc::{Fault, FaultCode, Image, ImageExtra};
use serde::{Deserialize, Serialize};

use super::folders::{Folders, ids_in, remove};
use super::oci::{Digest, ImageConfig};
use crate::storage::folders::{io_fault, sync_folder, write_json};
use crate::storage::names::check_id;

/// The state of a complete image.
pub(super) const COMPLETE: &str = "complete";
/// What kind of image these are.
pub(super) const KIND: &str = "container";
/// The one format.
pub(super) const FORMAT: &str = "oci";

/// What stands in `image.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Version of this record.
    pub(super) v: u32,
    pub(super) id: String,
    /// What it was verified by: hex of the archive's SHA-256, or of the manifest's.
    pub(super) sha256: String,
    /// The configuration's digest, which Docker calls the image's id.
    pub(super) digest: Digest,
    pub(super) config: ImageConfig,
    /// Bytes that came.
    pub(super) file_bytes: u64,
    /// Bytes of its files.
    pub(super) unpacked_bytes: u64,
}

impl Facts {
    /// As it goes over the wire.
    pub(super) fn to_wire(&self) -> Image {
        Image {
            id: self.id.clone(),
            kind: KIND.to_owned(),
            size: self.unpacked_bytes.div_ceil(1 << 20),
            status: COMPLETE.to_owned(),
            haar: Some(ImageExtra {
                format: FORMAT.to_owned(),
                sha256: self.sha256.clone(),
                file_bytes: self.file_bytes,
                virtual_bytes: self.unpacked_bytes,
                done_bytes: self.file_bytes,
                error: String::new(),
            }),
            ..Image::default()
        }
    }
}

/// Reads a complete image; none when it is not there. The id must have been checked.
pub(super) fn find(folders: &Folders, id: &str) -> Result<Option<Facts>, Fault> {
    let path = folders.image(id).join("image.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_fault("read", &path, &error)),
    };
    match serde_json::from_slice::<Facts>(&text) {
        Ok(facts) if facts.id == id => Ok(Some(facts)),
        other => {
            let error = other.err().map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(path = %path.display(), error, "an image's facts are damaged; it counts as absent");
            Ok(None)
        }
    }
}

/// Reads a complete image or says that it must be loaded first.
pub(super) fn require(folders: &Folders, id: &str) -> Result<Facts, Fault> {
    check_id("image", id)?;
    find(folders, id)?.ok_or_else(|| {
        Fault::new(FaultCode::NotFound, format!("image {id} is not stored here; load it first"))
    })
}

/// Every complete image, by id.
pub(super) fn list(folders: &Folders) -> Result<Vec<Facts>, Fault> {
    let mut found = Vec::new();
    for id in ids_in(&folders.images())? {
        found.extend(find(folders, &id)?);
    }
    Ok(found)
}

/// The folder of an image in progress; removed when dropped before it was kept.
pub(super) struct Part(PathBuf);

impl Part {
    /// Begins anew, whatever an earlier attempt left. That nobody else makes this image is the caller's promise.
    pub(super) fn begin(folders: &Folders, id: &str) -> Result<Part, Fault> {
        let part = Part(folders.image_part(id));
        let failed = |error| io_fault("make", part.path(), &error);
        remove(part.path()).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(part.path()).map_err(failed)?;
        fs::create_dir(part.rootfs()).map_err(failed)?;
        // A layer may say otherwise; what none says is what a root folder has.
        fs::set_permissions(part.rootfs(), Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(part)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Where its files lie.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// Makes it the image.
    pub(super) fn keep(self, folders: &Folders, facts: &Facts) -> Result<(), Fault> {
        let path = self.0.join("image.json");
        write_json(&path, facts).map_err(|error| io_fault("write", &path, &error))?;
        // Its files count only with what they hold: a power cut must not leave an image of empty ones.
        let synced = File::open(&self.0).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
        synced.map_err(|error| io_fault("sync", &self.0, &error))?;
        // What stands there is damaged, or it would have been found.
        remove_away(put_away(folders, &facts.id)?)?;
        let path = folders.image(&facts.id);
        let failed = |error| io_fault("keep", &path, &error);
        fs::rename(&self.0, &path).map_err(failed)?;
        sync_folder(&folders.images()).map_err(failed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After it was kept there is nothing of this name any more.
        let _ = remove(&self.0);
    }
}

/// Moves an image out of sight, of which no container is: the caller has made sure of that, and removes it, which takes
/// long for a large one. An absent one is fine.
pub(super) fn put_away(folders: &Folders, id: &str) -> Result<Option<PathBuf>, Fault> {
    super::folders::put_away(&folders.images(), id)
        .map_err(|error| io_fault("remove", &folders.image(id), &error))
}

/// Removes what was moved out of sight.
pub(super) fn remove_away(gone: Option<PathBuf>) -> Result<(), Fault> {
    gone.map_or(Ok(()), |gone| remove(&gone).map_err(|error| io_fault("remove", &gone, &error)))
}
