//! Images: what a guest's first disk is cloned from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fence::{Revision, WallMs};
use crate::id::ImageId;
use crate::name::Name;

/// An image. Its bytes lie with the controller or behind an address, never in the books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// What was asked.
    pub spec: ImageSpec,
    /// The bytes, once they are known.
    pub data: Option<ImageData>,
    /// Last change of what was asked.
    pub revision: Revision,
    /// Label of its making.
    pub created_at: WallMs,
    /// Label of its last change.
    pub updated_at: WallMs,
}

/// What a user says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Unique in the project.
    pub name: Name,
    /// Owner's project.
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// Told, never probed (design §11.17).
    pub format: Format,
    /// Where hypervisors fetch it.
    pub source: Source,
}

/// How the bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// QEMU's copy-on-write format.
    Qcow2,
    /// The disk's bytes as they are.
    Raw,
}

impl Format {
    /// The word on every wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
        }
    }
}

/// Where an image's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Uploaded to the controller; not usable before the upload is whole.
    Upload,
    /// Fetched by each hypervisor from here, with this SHA-256 in lower-case hex.
    Url {
        /// `http://`, `https://`, or `file://` inside the agent's `image_dirs`.
        url: String,
        /// What the bytes must hash to.
        sha256: String,
    },
}

/// The bytes, as they were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageData {
    /// Lower-case hex.
    pub sha256: String,
    /// Bytes of the file; 0 while unknown (fetched from an address).
    pub file_bytes: u64,
    /// Bytes a clone has; 0 while unknown.
    pub virtual_bytes: u64,
}
