//! Events of `/v1/events`: what changed, as server-sent events.
//!
//! Each is one SSE message: `id:` is `epoch.revision.n`, `event:` is `change`, `data:` is an [`EventView`].
//! Comment lines come in between to keep the connection alive.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::FenceText;

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventView {
    /// The noun: `guest`, `job`, `hypervisor`, …
    pub kind: String,
    /// Which.
    pub id: Uuid,
    /// `created`, `changed` or `deleted`.
    pub change: String,
    /// The fence that made it.
    pub revision: FenceText,
    /// The object as its own path shows it; null once deleted, and when it is so large that it is to be read at
    /// its own path (the event would have more than 16 KiB).
    pub object: Option<serde_json::Value>,
}
