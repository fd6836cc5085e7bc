//! What the runners are told and what they answer.

use std::collections::BTreeMap;
use std::time::Duration;

use haar_api::agent::{Guest, Job};
use haar_api::rpc::{ImageRequest, SnapshotRequest};
use haar_core::address::Mac;
use haar_core::fence::WallMs;
use serde_json::Value;
use uuid::Uuid;

use super::record::{Change, Owner, Step};

/// Labels: a key with its new value, None to drop it.
pub(crate) type Patch = BTreeMap<String, Option<String>>;

/// Everything that can happen.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// The agent has started: what was under way goes on or ends with a reason. The first input, once.
    Boot,
    /// A new guest. Its id is canonical and it was looked over.
    Create { guest: Box<Guest>, job: Uuid },
    /// An action on a guest, by its bare name.
    Act { guest: Uuid, action: String, job: Uuid },
    /// Work on an image, by the full name.
    Image { action: String, request: Box<ImageRequest>, job: Uuid },
    /// Work on snapshots of a guest.
    Snapshot { guest: Uuid, action: String, request: SnapshotRequest, job: Uuid },
    /// New labels of a guest.
    PatchGuest { guest: Uuid, patch: Patch },
    /// New labels of the hypervisor.
    PatchAgent { patch: Patch },
    /// The node has taken a power action on one of the controller's guests: noted, for whoever looks up its job.
    Taken { guest: Uuid, action: String, job: Uuid },
    /// The state a guest is in, by somebody who looked when the next job was this one.
    Seen { guest: Uuid, state: String, next_seq: u64 },
    /// A job that shall not begin.
    Cancel { job: Uuid },
    /// A stage has ended.
    Ended { seq: u64, step: Step, outcome: Outcome },
}

/// How a stage ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Well, and of a guest stage: with which guest it was called and which one it gave back.
    Guest { sent: Box<Guest>, got: Option<Box<Guest>> },
    /// Well, with this.
    Told(Value),
    /// Well.
    Done,
    /// Badly.
    Failed {
        /// The sub-agent's words.
        message: String,
        why: Why,
    },
}

/// What a failure says of the thing it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is not there.
    Absent,
    /// Something of its name is there and is somebody else's.
    Foreign,
    /// It cannot be done as things are, such as on a guest that is off; nothing was done.
    Unfit,
    /// Whom it was to be asked of was not there; nothing was done.
    Unreached,
    /// No answer came: nobody knows whether it took effect.
    Unheard,
    /// Nothing.
    Other,
}

impl Why {
    /// Whether it may have taken effect all the same.
    pub(crate) fn may_be_done(self) -> bool {
        matches!(self, Why::Unheard | Why::Other)
    }
}

/// What is known besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Env {
    /// For labels only.
    pub(crate) now: WallMs,
}

/// What follows.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// All of it durable before anything else.
    pub(crate) changes: Vec<Change>,
    /// Then to be called.
    pub(crate) calls: Vec<Call>,
    /// Then told to whoever asked.
    pub(crate) answer: Answer,
}

/// What whoever asked is told.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) enum Answer {
    #[default]
    Nothing,
    /// The job, and the guest as stored.
    Queued {
        job: Uuid,
        guest: Option<Box<Guest>>,
    },
    Labels(BTreeMap<String, String>),
    Job(Box<Job>),
}

/// One call to a sub-agent; never two at a time for one owner.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// To be given back.
    pub(crate) seq: u64,
    /// To be given back.
    pub(crate) step: Step,
    pub(crate) owner: Owner,
    pub(crate) action: String,
    pub(crate) service: String,
    pub(crate) method: String,
    pub(crate) args: BTreeMap<String, String>,
    pub(crate) timeout: Duration,
    pub(crate) params: Params,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Params {
    Guest(Box<Guest>),
    Image(Box<ImageRequest>),
    Snapshot(SnapshotRequest),
    /// Whatever the stage needs; the answer is given back as it is.
    Any(Value),
}

/// Why an input is not followed; nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("guest {0} does not exist")]
    NoSuchGuest(Uuid),
    #[error("job {0} does not exist")]
    NoSuchJob(Uuid),
    #[error("the action `{0}` has no stages configured")]
    NotConfigured(String),
    #[error("guest {0} exists already with another description; delete it first, or choose another id")]
    Exists(Uuid),
    #[error("guest {0} is being deleted; create it again when that has ended")]
    BeingDeleted(Uuid),
    #[error("the MAC {mac} is that of guest {guest}; choose another one")]
    MacTaken { mac: Mac, guest: Uuid },
    #[error("{waiting} jobs wait for {owner} already; try again when some have ended")]
    QueueFull { owner: Owner, waiting: u32 },
    #[error("guest {0} could not be made, its create job says why; delete it, or create it again")]
    NotMade(Uuid),
    #[error("job {0} has begun and cannot be cancelled; wait for its end")]
    HasBegun(Uuid),
    #[error("job {0} has ended already")]
    HasEnded(Uuid),
    #[error("{0} labels are too many; drop some first")]
    TooManyLabels(usize),
}
