//! What can be asked of the fleet, and what it answers.

use std::collections::BTreeMap;

use crate::fence::{Fence, MonoMs, Revision, WallMs};
use crate::firewall::FwGroupSpec;
use crate::flavor::FlavorSpec;
use crate::guest::{GuestSpec, RestartPolicy};
use crate::hypervisor::HypervisorSpec;
use crate::id::{
    FlavorId, FwGroupId, GuestId, HypervisorId, ImageId, JobId, Kind, NetworkId, SubnetId, TokenId,
};
use crate::image::{ImageData, ImageSpec};
use crate::name::Name;
use crate::network::{Gateway, NetworkSpec, SubnetSpec};
use crate::order::{Hello, Report};
use crate::refusal::Refusal;
use crate::token::Role;

use super::change::Decision;

/// What a decision may know besides the books. Comes in with every command.
#[derive(Debug, Clone, Copy)]
pub struct Env<'a> {
    /// Since the engine's start.
    pub now: MonoMs,
    /// A label.
    pub wall: WallMs,
    /// Random bits for this decision: new job ids and the like come from it.
    pub lot: u128,
    /// Which hypervisors have polled within the TTL.
    pub alive: &'a dyn Alive,
}

/// Liveness, kept by the engine in memory only.
pub trait Alive {
    /// Whether it polled within the TTL.
    fn is_alive(&self, hypervisor: HypervisorId) -> bool;
}

impl<'a> std::fmt::Debug for dyn Alive + 'a {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alive")
    }
}

/// What can be asked.
///
/// A create carries the id, so that asking twice is asking once: the same id with the same spec answers
/// [`Outcome::Same`] (with the job, if one is under way), with another spec [`Refusal::Differs`].
/// `if_match` is the revision the caller knows; None asks for no check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Makes a hypervisor's record; its agent joins later with a token of its own.
    CreateHypervisor(HypervisorId, HypervisorSpec),
    /// Makes a flavor.
    CreateFlavor(FlavorId, FlavorSpec),
    /// Makes an image; its bytes come later if its source is an upload.
    CreateImage(ImageId, ImageSpec),
    /// Makes a network.
    CreateNetwork(NetworkId, NetworkSpec),
    /// Makes a subnet, with the gateway it says or with one chosen for it.
    CreateSubnet(SubnetId, SubnetSpec, Gateway),
    /// Makes a firewall group.
    CreateFwGroup(FwGroupId, FwGroupSpec),
    /// Makes a token; the secret stays with the shell.
    CreateToken {
        /// Its id.
        id: TokenId,
        /// Its name.
        name: Name,
        /// What its bearer may do.
        role: Role,
        /// SHA-256 of the secret, lower-case hex.
        hash: String,
    },
    /// Places a guest and begins its create job. The blob, if any, is its user-data under its SHA-256.
    CreateGuest(GuestId, Box<GuestSpec>, Option<Blob>),

    /// Replaces what was asked of a hypervisor.
    SetHypervisor(HypervisorId, HypervisorSpec, Option<Revision>),
    /// Replaces what was asked of a flavor.
    SetFlavor(FlavorId, FlavorSpec, Option<Revision>),
    /// Replaces what was asked of an image; format and source stay.
    SetImage(ImageId, ImageSpec, Option<Revision>),
    /// Replaces what was asked of a network.
    SetNetwork(NetworkId, NetworkSpec, Option<Revision>),
    /// Replaces what was asked of a subnet; addresses in use must stay inside.
    SetSubnet(SubnetId, SubnetSpec, Option<Revision>),
    /// Replaces what was asked of a firewall group.
    SetFwGroup(FwGroupId, FwGroupSpec, Option<Revision>),
    /// Changes what of a guest may change while it lives.
    SetGuest(GuestId, GuestPatch, Option<Revision>),
    /// Changes cluster settings; an empty value removes the key.
    SetConfig(BTreeMap<String, String>, Option<Revision>),
    /// The bytes of an image are there.
    ImageReady(ImageId, ImageData),

    /// Removes what is not in use. A guest is removed by its job.
    Delete(Kind, uuid::Uuid, Option<Revision>),

    /// Begins a guest's action.
    Act(GuestId, GuestAction, Option<Revision>),
    /// Places a failed guest anew.
    RetryJob(JobId),

    /// An agent with this ledger joins.
    Hello(Hello),
    /// An agent reports.
    Report(Report),
    /// A job's step is overdue: what the engine's timer found by [`Fleet::overdue`](super::Fleet::overdue).
    Overdue(JobId, MonoMs),
    /// An operator says that the machine is dead and will not come back with what it holds.
    DeclareLost(HypervisorId),
    /// The books were restored: a new epoch begins. With 0 the next one; else at least this one, and none
    /// when the books have it already.
    BeginEpoch(u64),
}

/// A guest's user-data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// At most 64 KiB.
    pub bytes: Vec<u8>,
}

/// What a user can do with a guest that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestAction {
    /// Start it.
    Start,
    /// Ask it to power off.
    Shutdown,
    /// Cut its power.
    Poweroff,
    /// Ask it to reboot.
    Reboot,
    /// Make a lost one anew from its image, on an operator's word.
    Recreate,
    /// Take over a claimed one.
    Adopt,
}

/// Changes to a guest; None leaves as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuestPatch {
    /// New name; the host name inside changes with the next create only.
    pub name: Option<Name>,
    /// New labels, all of them.
    pub metadata: Option<BTreeMap<String, String>>,
    /// New restart policy.
    pub restart: Option<RestartPolicy>,
    /// New firewall group; `Some(None)` takes it out.
    pub fwgroup: Option<Option<FwGroupId>>,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The object it is about.
    pub kind: Kind,
    /// Its id.
    pub id: uuid::Uuid,
    /// What happened.
    pub outcome: Outcome,
    /// The job that will finish it, or that is under way.
    pub job: Option<JobId>,
    /// The fleet's fence after it.
    pub fence: Fence,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was so already.
    Same,
    /// It changed.
    Changed,
    /// It is gone, or its job will remove it.
    Deleted,
}

/// A decision or a reasoned no.
pub type Decided = Result<Decision, Refusal>;
