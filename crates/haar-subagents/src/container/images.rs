//! Images that are complete: their layers laid over each other, read-only, with their facts beside them.
//!
//! An image appears and goes as a whole, by a rename of its folder. Layers are not shared between images: each has
//! its own folder, which one overlay needs, however many layers there were.

use std::fs;
use std::io;
use std::path::PathBuf;

use haar_api::rpc::{Fault, FaultCode, Image, ImageExtra};
use serde::{Deserialize, Serialize};

use super::folders::{Folders, ids_in, remove};
use super::oci::{Digest, ImageConfig};
use crate::storage::folders::{io_fault, sync_folder};
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

/// Makes a folder in progress the image's.
pub(super) fn keep(folders: &Folders, id: &str) -> Result<(), Fault> {
    let path = folders.image(id);
    let failed = |error| io_fault("keep", &path, &error);
    // What stands there is damaged, or it would have been found.
    remove_away(put_away(folders, id)?)?;
    fs::rename(folders.image_part(id), &path).map_err(failed)?;
    sync_folder(&folders.images()).map_err(failed)
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
