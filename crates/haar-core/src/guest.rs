//! Guests: virtual machines, as asked, as placed and as seen.
//!
//! ```text
//!             place          report: settled                 delete
//!  (PUT) ──▶ creating ──────▶ running ⇄ stopped ──────────▶ deleting ──▶ (no record)
//!               │ report: failed, undone     │ report: lost     ▲
//!               ▼                            ▼                  │
//!             failed (holds nothing) ◀┄┄┄  lost ┄┄ recreate ┄┄▶ creating
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::fence::{Fence, Revision, WallMs};
use crate::id::{FlavorId, FwGroupId, GuestId, HypervisorId, ImageId, JobId, NetworkId, SubnetId};
use crate::name::Name;
use crate::units::Resources;

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Its id.
    pub id: GuestId,
    /// What was asked.
    pub spec: GuestSpec,
    /// Its image: the one asked, else the flavor's.
    pub image: ImageId,
    /// What it takes; the flavor's at the time it was made.
    pub resources: Resources,
    /// Its MAC address; held as long as the record, unique in the network.
    pub mac: Mac,
    /// Where it is, and what it holds there. None: holds nothing.
    pub place: Option<Place>,
    /// What is wanted.
    pub goal: Goal,
    /// Who wants it.
    pub goal_by: GoalBy,
    /// The fence of the last change of goal, place or deed: what the hypervisor is told and answers with.
    pub order: Fence,
    /// The last thing to be done once, such as a reboot.
    pub deed: Option<Deed>,
    /// The fence of its first successful create: from then on its disks are never rebuilt (design §11.1).
    pub provisioned: Option<Fence>,
    /// What was last seen.
    pub state: State,
    /// Why state and goal differ, or what is wrong; empty when all is well.
    pub reason: String,
    /// Whose it is.
    pub owner: Owner,
    /// The last report that was taken: (incarnation of the hypervisor, version at that hypervisor).
    pub observed: (u64, u64),
    /// The job under way, else the last one.
    pub job: Option<JobId>,
    /// Hypervisors on which making it failed, tried last the next time.
    pub avoid: Vec<HypervisorId>,
    /// Last change of what was asked.
    pub revision: Revision,
    /// Last change of what was seen.
    pub observed_revision: Revision,
    /// Label of its making.
    pub created_at: WallMs,
    /// Label of its last change.
    pub updated_at: WallMs,
}

/// What a user says of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// Unique in the project; the host name inside.
    pub name: Name,
    /// Owner's project.
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// The seed's `type`: empty or `vm` for a virtual machine.
    pub kind: String,
    /// Its size.
    pub flavor: FlavorId,
    /// Its image, if not the flavor's.
    pub image: Option<ImageId>,
    /// Its network.
    pub network: NetworkId,
    /// The subnet its address must come from.
    pub subnet: Option<SubnetId>,
    /// The address it must have.
    pub address: Option<IpAddr>,
    /// Its firewall group.
    pub fwgroup: Option<FwGroupId>,
    /// The MAC address it must have.
    pub mac: Option<Mac>,
    /// The hypervisor it must be on.
    pub hypervisor: Option<HypervisorId>,
    /// Labels the hypervisor must have.
    pub require: BTreeMap<String, String>,
    /// When it is started again by itself.
    pub restart: RestartPolicy,
    /// Public keys for the first user, one line each.
    pub ssh_keys: Vec<String>,
    /// SHA-256 in lower-case hex of the user-data blob.
    pub user_data: Option<String>,
    /// Whether it is started once made.
    pub start: bool,
}

/// Where a guest is and what it holds there: taken in one decision, given back in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The machine.
    pub hypervisor: HypervisorId,
    /// Whose address it has.
    pub subnet: SubnetId,
    /// The address.
    pub address: IpAddr,
    /// The fence of the placement: names this life of the guest on the host. Undo removes only its own.
    pub life: Fence,
}

/// What is wanted of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// It shall run.
    Running,
    /// It shall be off, and be asked politely.
    Stopped,
    /// It shall be off, now.
    Off,
    /// It shall be removed with all it has.
    Gone,
}

impl Goal {
    /// The word on every wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Goal::Running => "running",
            Goal::Stopped => "stopped",
            Goal::Off => "off",
            Goal::Gone => "gone",
        }
    }
}

/// Who set the goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoalBy {
    /// A user of `/v1`.
    User,
    /// Somebody on the host, or the guest itself (design §11.3).
    Local,
    /// A failed job taking back what it made.
    Undo,
}

/// A thing done once per fence and noted in the host's ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// What.
    pub kind: DeedKind,
    /// Its fence.
    pub fence: Fence,
}

/// Things done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeedKind {
    /// Ask the guest to reboot.
    Reboot,
}

/// When a guest is started again by itself (design §11.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Not at all.
    Never,
    /// After a crash or the host's reboot; not after a clean shutdown from inside.
    #[default]
    OnFailure,
    /// Whenever it is off and its goal is `running`.
    Always,
}

/// What was last seen of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Being made.
    Creating,
    /// Runs.
    Running,
    /// Is off.
    Stopped,
    /// Paused by somebody, or by QEMU for want of disk.
    Paused,
    /// Being taken away.
    Deleting,
    /// Could not be made; holds nothing once its place is none.
    Failed,
    /// Its disk or domain is gone from the host; never rebuilt by itself.
    Lost,
    /// Found on a host after a restore; held as booked, adopted by an operator's word.
    Claimed,
}

impl State {
    /// The word on every wire.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Creating => "creating",
            State::Running => "running",
            State::Stopped => "stopped",
            State::Paused => "paused",
            State::Deleting => "deleting",
            State::Failed => "failed",
            State::Lost => "lost",
            State::Claimed => "claimed",
        }
    }
}

/// Whose a guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The controller's.
    Controller,
    /// Found on a host after a restore (design §11.2): counted, never touched until adopted or deleted.
    Claimed,
}
