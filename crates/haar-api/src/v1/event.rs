//! Events of `/v1/events`: what changed, as server-sent events.
//!
//! Each is one SSE message: `id:` is `epoch.revision.n`, `event:` is `change`, `data:` is an [`EventView`].
//! Comment lines come in between to keep the connection alive.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::{FenceText, Time};

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// The noun: `guest`, `job`, `hypervisor`, …
    pub kind: String,
    /// Which.
    pub id: Uuid,
    /// Its name, also once it is deleted; of a job, its guest's. Left out where there is none, and by events that an
    /// earlier release stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `created`, `changed` or `deleted`.
    pub change: String,
    /// Of a change, the fields of the object that are otherwise than before, in the alphabet's order; what every
    /// change touches (`revision`, `updated_at`) goes without saying.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// When it was made, by the controller's clock; left out by events that an earlier release stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
    /// The fence that made it.
    pub revision: FenceText,
    /// The object as its own path shows it; null once deleted, and when it is so large that it is to be read at
    /// its own path (the event would have more than 16 KiB).
    pub object: Option<serde_json::Value>,
}
