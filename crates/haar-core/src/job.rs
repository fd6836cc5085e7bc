//! Jobs: a change under way, with its steps. A job always ends.

use serde::{Deserialize, Serialize};

use crate::fence::{Fence, MonoMs, Revision, WallMs};
use crate::id::{GuestId, HypervisorId, JobId};
use crate::name::Name;

/// A change under way. Carries the seed's fields and states (`mistify-wire` §1.4) and, besides, its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What is done.
    pub action: Action,
    /// To whom.
    pub guest: GuestId,
    /// The guest's name, kept for when the guest is gone.
    pub guest_name: Name,
    /// On which machine.
    pub hypervisor: Option<HypervisorId>,
    /// The order it waits for: the guest's order when the job began.
    pub order: Fence,
    /// How far it is.
    pub status: Status,
    /// Its steps in order.
    pub steps: Vec<Step>,
    /// Why it failed.
    pub error: Option<Failure>,
    /// How often the current step was asked again.
    pub tries: u32,
    /// The most steps that were ever done at once: only beyond it is a step progress.
    #[serde(default)]
    pub reached: u32,
    /// When the current step is overdue. Not stored: a restart renews it.
    #[serde(skip)]
    pub due: MonoMs,
    /// Last change.
    pub revision: Revision,
    /// Label of its making.
    pub created_at: WallMs,
    /// Label of its first step's start.
    pub started_at: Option<WallMs>,
    /// Label of its end.
    pub finished_at: Option<WallMs>,
}

/// What a job does. The words are the seed's where it had one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Place, make and start.
    Create,
    /// Stop, remove and give back.
    Delete,
    /// Start a stopped guest.
    Start,
    /// Ask the guest to power off.
    Shutdown,
    /// Cut the power.
    Poweroff,
    /// Ask the guest to reboot.
    Reboot,
    /// Make a lost guest anew from its image, by an operator's word.
    Recreate,
}

impl Action {
    /// The word on every wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Delete => "delete",
            Action::Start => "start",
            Action::Shutdown => "shutdown",
            Action::Poweroff => "poweroff",
            Action::Reboot => "reboot",
            Action::Recreate => "recreate",
        }
    }
}

/// How far a job is (the seed's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing was heard from the hypervisor yet.
    New,
    /// Under way.
    Working,
    /// Ended well.
    Done,
    /// Ended badly; what it held is given back, or will be as soon as the hypervisor says so.
    Error,
}

impl Status {
    /// Whether it has ended.
    pub fn ended(self) -> bool {
        matches!(self, Status::Done | Status::Error)
    }
}

/// One step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub stage: Stage,
    /// How far.
    pub state: StepState,
    /// Label of its start.
    pub started_at: Option<WallMs>,
    /// Label of its end.
    pub ended_at: Option<WallMs>,
    /// Words for a person: progress, or what went wrong.
    pub message: String,
}

/// A step's name; the node's pipelines and the jobs' steps share them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Find a hypervisor and an address (the controller's).
    Place,
    /// Have the image on the host.
    Image,
    /// Clone the disks.
    Disks,
    /// Write the seed disk.
    Seed,
    /// Have the bridge.
    Network,
    /// Define the domain.
    Define,
    /// Start the domain.
    Start,
    /// Ask the guest to power off and wait until it did.
    Shutdown,
    /// Cut the power.
    Poweroff,
    /// Ask the guest to reboot.
    Reboot,
    /// Undefine the domain.
    Undefine,
    /// Remove the seed disk.
    Unseed,
    /// Remove the disks.
    Undisk,
    /// Look at what is there.
    Inspect,
    /// Take back what the failed steps made, in reverse.
    Undo,
    /// Give back address, MAC and resources (the controller's).
    Release,
}

impl Stage {
    /// The word on every wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Place => "place",
            Stage::Image => "image",
            Stage::Disks => "disks",
            Stage::Seed => "seed",
            Stage::Network => "network",
            Stage::Define => "define",
            Stage::Start => "start",
            Stage::Shutdown => "shutdown",
            Stage::Poweroff => "poweroff",
            Stage::Reboot => "reboot",
            Stage::Undefine => "undefine",
            Stage::Unseed => "unseed",
            Stage::Undisk => "undisk",
            Stage::Inspect => "inspect",
            Stage::Undo => "undo",
            Stage::Release => "release",
        }
    }
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// Not begun.
    Waiting,
    /// Begun.
    Running,
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// Was done, and was taken back.
    Undone,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable code.
    pub code: String,
    /// The cause, for a person.
    pub message: String,
    /// What to do next.
    pub next: String,
}
