//! Jobs on `/v1`: the seed's fields and states, and the steps with their times.

use haar_core::id::{GuestId, HypervisorId, JobId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::Time;

/// A change under way, or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// Its id.
    #[schemars(with = "Uuid")]
    pub id: JobId,
    /// The agent's own job id, where an agent keeps its own; else empty.
    #[serde(default)]
    pub remote: String,
    /// `create`, `delete`, `start`, `shutdown`, `poweroff`, `reboot`, `recreate`.
    pub action: String,
    /// To whom.
    #[schemars(with = "Uuid")]
    pub guest: GuestId,
    /// The guest's name, kept for when the guest is gone.
    pub guest_name: String,
    /// Why it failed; left out unless it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The failure's stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What to do next after the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// `new`, `working`, `done`, `error`.
    pub status: String,
    /// On which machine.
    #[schemars(with = "Option<Uuid>")]
    pub hypervisor: Option<HypervisorId>,
    /// That machine's name.
    pub hypervisor_name: Option<String>,
    /// Its steps in order.
    pub steps: Vec<StepView>,
    /// How often the current step was asked again.
    pub tries: u32,
    /// Last change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Time,
    /// When its first step began.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
}

impl JobView {
    /// Whether it has ended, well or badly.
    pub fn ended(&self) -> bool {
        self.status == "done" || self.status == "error"
    }
}

/// One step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// `place`, `image`, `disks`, `seed`, `network`, `define`, `start`, and so on.
    pub stage: String,
    /// `waiting`, `running`, `done`, `failed`, `undone`.
    pub state: String,
    /// When it began.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Words for a person: progress, or what went wrong.
    pub message: String,
}
