//! Images on `/v1`: what a guest's first disk is cloned from.

use std::collections::BTreeMap;

use haar_core::id::ImageId;
use haar_core::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::{Time, given};

/// How an image's bytes are laid out. Told, never probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// QEMU's copy-on-write format.
    Qcow2,
    /// The disk's bytes as they are.
    Raw,
}

impl ImageFormat {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Raw => "raw",
        }
    }
}

/// An image to be made. With `url` and `sha256` each hypervisor fetches it from there; without them its
/// bytes are uploaded next, to `PUT /v1/images/{ref}/data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageCreate {
    /// Unique in the project; a DNS label.
    pub name: String,
    /// `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// How the bytes are laid out.
    pub format: ImageFormat,
    /// `http://`, `https://`, or `file://` inside the agents' `image_dirs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the bytes at `url` must hash to, lower-case hex; needed with `url`, refused without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Changes to an image; what is left out stays. Format and source cannot change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImagePatch {
    /// New name.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New labels, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageView {
    /// Its id.
    #[schemars(with = "Uuid")]
    pub id: ImageId,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its project.
    #[schemars(with = "String")]
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// How the bytes are laid out.
    pub format: ImageFormat,
    /// `empty` (waiting for its upload) or `ready`.
    pub state: String,
    /// Where hypervisors fetch it; null when it was uploaded.
    pub url: Option<String>,
    /// SHA-256 of the bytes, lower-case hex; null before they are known.
    pub sha256: Option<String>,
    /// Bytes of the file; null while unknown.
    pub file_bytes: Option<u64>,
    /// Bytes a guest's disk cloned from it has at least; null while unknown.
    pub virtual_bytes: Option<u64>,
    /// Last change of what was asked; the ETag.
    pub revision: u64,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}
