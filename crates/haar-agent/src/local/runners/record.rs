//! What the runners keep: guests, jobs, the hypervisor's labels; and the changes of them.

use std::collections::BTreeMap;

use haar_api::agent::{Guest, Job, Status, Time};
use haar_api::rpc::{ImageRequest, SnapshotRequest};
use haar_core::fence::WallMs;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::quiesce::Phase;
use crate::local::action;
use crate::local::config::Stage;

/// Who the work is for: one at a time for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Owner {
    /// Nobody in particular. Of earlier releases: all images.
    Agent,
    /// An image, by a number made of its id: what is done with one holds up no other.
    Image(Uuid),
    /// A guest.
    Guest(Uuid),
}

impl Owner {
    /// The image of this id, whose length and letters are others' to choose.
    pub(crate) fn of_image(id: &str) -> Owner {
        let digest: [u8; 32] = Sha256::digest(id).into();
        let mut number = [0; 16];
        number.copy_from_slice(&digest[..16]);
        Owner::Image(Uuid::from_bytes(number))
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Owner::Agent | Owner::Image(_) => f.write_str("agent"),
            Owner::Guest(id) => id.fmt(f),
        }
    }
}

/// A guest of the agent's own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GuestRecord {
    /// As it is.
    pub(crate) guest: Guest,
    /// As it was asked for: the same again is the same request.
    pub(crate) asked: Guest,
    /// The job that made it.
    pub(crate) create_job: Uuid,
    /// Set when it could not be made: the services that may still hold something of it. Its name may be
    /// somebody else's on the host; nothing but a delete is called for it, and only where something is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left: Option<Vec<String>>,
}

/// What a job is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// The owner itself.
    Guest,
    /// An image.
    Image(ImageRequest),
    /// A snapshot of the owner.
    Snapshot(SnapshotRequest),
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    /// At this stage of its pipeline.
    Forward(usize),
    /// It failed, and this is left to be called to take back what stands: stages of the delete pipeline.
    Undo(Vec<usize>),
    /// At this stage, which takes a snapshot of a guest that may run, and what of it is under way.
    Quiesce(usize, Phase),
}

impl Step {
    /// Whether it takes something back; nobody else will when it fails.
    pub(crate) fn takes_back(&self) -> bool {
        match self {
            Step::Forward(_) => false,
            Step::Undo(_) => true,
            Step::Quiesce(_, phase) => phase.takes_back(),
        }
    }

    /// Whether it lets a guest go on that is held.
    pub(crate) fn lets_go(&self) -> bool {
        matches!(self, Step::Quiesce(_, phase) if phase.lets_go())
    }

    /// Whether QEMU removes a snapshot by it.
    pub(crate) fn forgets(&self) -> bool {
        matches!(self, Step::Quiesce(_, Phase::Forget))
    }

    /// Whether a guest is held for as long as it takes.
    pub(crate) fn holds(&self) -> bool {
        matches!(self, Step::Quiesce(_, phase) if phase.holds())
    }
}

/// A stage by its names, which say what its number meant when it was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageName {
    pub(crate) service: String,
    pub(crate) method: String,
}

impl StageName {
    pub(crate) fn of(stage: &Stage) -> StageName {
        StageName { service: stage.service.clone(), method: stage.method.clone() }
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JobRecord {
    /// Its place among all jobs ever.
    pub(crate) seq: u64,
    pub(crate) id: Uuid,
    pub(crate) owner: Owner,
    pub(crate) action: String,
    pub(crate) work: Work,
    pub(crate) step: Step,
    /// The stages that its step speaks of: those begun, the last one being the present one, or those left to undo.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stages: Vec<StageName>,
    pub(crate) status: Status,
    pub(crate) message: String,
    /// Services where taking back has failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) left: Vec<String>,
    /// Whether its stage is asked a second time, after the agent's end: it may have taken effect already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) again: bool,
    /// The service that holds its guest still, once it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held_by: Option<String>,
    pub(crate) queued_at: WallMs,
    pub(crate) started_at: Option<WallMs>,
    pub(crate) updated_at: WallMs,
}

impl JobRecord {
    /// The action whose stages its step counts.
    pub(crate) fn pipeline(&self) -> String {
        match self.step {
            Step::Forward(_) | Step::Quiesce(..) => self.action.clone(),
            Step::Undo(_) => self.undoing(),
        }
    }

    /// The action that takes back what its stages have begun.
    pub(crate) fn undoing(&self) -> String {
        action::full_name("delete", self.action.starts_with("container"))
    }

    /// As it is served.
    pub(crate) fn job(&self) -> Job {
        Job {
            id: self.id.to_string(),
            guest_id: self.owner.to_string(),
            action: self.action.clone(),
            queued_at: Time(Some(self.queued_at)),
            started_at: Time(self.started_at),
            updated_at: Time(Some(self.updated_at)),
            status: self.status,
            message: self.message.clone(),
        }
    }
}

/// One change, to be made durable and then applied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    PutGuest(Uuid, Box<GuestRecord>),
    DropGuest(Uuid),
    PutJob(Box<JobRecord>),
    DropJob(u64),
    /// The hypervisor's label, or None to drop it.
    Label(String, Option<String>),
}

/// Everything that is stored.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) guests: BTreeMap<Uuid, GuestRecord>,
    pub(crate) jobs: BTreeMap<u64, JobRecord>,
    pub(crate) labels: BTreeMap<String, String>,
}
