//! Flavors on `/v1`: sizes a guest can have. `cpu`, `memory` and `disk` are flat, as the seed has them.

use std::collections::BTreeMap;

use haar_core::id::{FlavorId, ImageId};
use haar_core::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::{Ref, Time, given, present};

/// A flavor to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlavorCreate {
    /// Unique in the project; a DNS label.
    pub name: String,
    /// `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Image of guests that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Ref>,
    /// Virtual CPUs, 1 to 1024.
    pub cpu: u32,
    /// MiB of memory, at least 16.
    pub memory: u64,
    /// MiB of disk, at least 1.
    pub disk: u64,
}

/// Changes to a flavor; what is left out stays. Guests keep the resources they were made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlavorPatch {
    /// New name.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New labels, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// New image; null takes it out.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Ref>")]
    pub image: Option<Option<Ref>>,
    /// New virtual CPUs.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// New memory, MiB.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// New disk, MiB.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
}

/// A flavor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlavorView {
    /// Its id.
    #[schemars(with = "Uuid")]
    pub id: FlavorId,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its project.
    #[schemars(with = "String")]
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// Image of guests that name none.
    #[schemars(with = "Option<Uuid>")]
    pub image: Option<ImageId>,
    /// That image's name.
    pub image_name: Option<String>,
    /// Virtual CPUs.
    pub cpu: u32,
    /// MiB of memory.
    pub memory: u64,
    /// MiB of disk.
    pub disk: u64,
    /// Last change of what was asked; the ETag.
    pub revision: u64,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}
