//! Flavors: sizes a guest can have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fence::{Revision, WallMs};
use crate::id::{FlavorId, ImageId};
use crate::name::Name;
use crate::units::{MiB, Resources};

/// A size of guest. A guest keeps the resources it was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flavor {
    /// Its id.
    pub id: FlavorId,
    /// What was asked.
    pub spec: FlavorSpec,
    /// Last change of what was asked.
    pub revision: Revision,
    /// Label of its making.
    pub created_at: WallMs,
    /// Label of its last change.
    pub updated_at: WallMs,
}

/// What a user says of a flavor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlavorSpec {
    /// Unique in the project.
    pub name: Name,
    /// Owner's project.
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// Image of guests that name none.
    pub image: Option<ImageId>,
    /// What a guest of it takes.
    pub resources: Resources,
}

/// Why resources are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}; it must be from {least} to {most}")]
pub struct BadResources {
    /// Which quantity.
    pub what: &'static str,
    /// What was given, with its unit.
    pub value: String,
    /// The least allowed.
    pub least: String,
    /// The most allowed.
    pub most: String,
}

/// The most CPUs of one guest.
pub const MOST_CPUS: u32 = 1024;
/// The most memory of one guest: 64 TiB.
pub const MOST_MEMORY: MiB = MiB(64 << 20);
/// The most disk of one guest: 1 PiB.
pub const MOST_DISK: MiB = MiB(1 << 30);
/// The least memory of one guest.
pub const LEAST_MEMORY: MiB = MiB(16);

/// Checks that a guest could have these resources on some machine.
///
/// # Errors
/// [`BadResources`] names the first quantity at fault and its bounds.
pub fn check_resources(resources: Resources) -> Result<(), BadResources> {
    let bad =
        |what, value: String, least: String, most: String| Err(BadResources { what, value, least, most });
    if !(1..=MOST_CPUS).contains(&resources.cpu) {
        return bad("cpu", resources.cpu.to_string(), "1".into(), MOST_CPUS.to_string());
    }
    if !(LEAST_MEMORY..=MOST_MEMORY).contains(&resources.memory) {
        return bad(
            "memory",
            resources.memory.to_string(),
            LEAST_MEMORY.to_string(),
            MOST_MEMORY.to_string(),
        );
    }
    if !(MiB(1)..=MOST_DISK).contains(&resources.disk) {
        return bad("disk", resources.disk.to_string(), MiB(1).to_string(), MOST_DISK.to_string());
    }
    Ok(())
}
