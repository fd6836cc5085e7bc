//! What the node's brain is told, and what it answers: inputs, decisions, effects, refusals.
//!
//! The shell gives one [`Input`] at a time, commits the changes of the [`Decision`], applies it, and only then
//! acts on its effects. A lost effect is found again by a later [`Input::Tick`].

use crate::fence::{Fence, MonoMs};
use crate::guest::Goal;
use crate::hypervisor::Inventory;
use crate::id::{CloudId, GuestId, HypervisorId};
use crate::job::Stage;
use crate::order::{Claim, DesiredSet, GuestOrder, ImageOrder, NetworkOrder, Power, Report};
use crate::units::Resources;

use super::ledger::LedgerChange;
use super::{Entry, Head};

/// What a decision may know besides the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Env {
    /// Since the agent's start.
    pub now: MonoMs,
}

/// Everything that can happen to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The agent has started and read its ledger: the first input, exactly once per run.
    Boot,
    /// The controller has answered the hello.
    Welcome {
        /// Which life of the ledger this is to the controller.
        incarnation: u64,
    },
    /// The controller no longer takes this incarnation's reports: say hello again.
    NotWelcome {
        /// The incarnation that was refused.
        incarnation: u64,
    },
    /// The controller's feed.
    Desired(DesiredSet),
    /// The host was looked at, as asked by [`Effect::Observe`]. All of it, or it is [`Input::Unseen`].
    Observed(Observation),
    /// Looking at the host failed: libvirtd or the storage does not answer. The controller is told, so that
    /// nothing more is placed here until the host is seen again.
    Unseen {
        /// Which ask failed.
        ask: u64,
        /// Why, in words for a person.
        why: String,
    },
    /// Something happened on the host that nobody here asked for: it is looked at now and not at the next time.
    Stirred,
    /// A call has ended, or was surely cancelled.
    Ended {
        /// Which.
        call: CallId,
        /// How.
        outcome: Outcome,
    },
    /// The controller has this report in its books.
    Taken(Report),
    /// Somebody on the host asks for this power through the agent's own REST.
    Local {
        /// Of which guest.
        guest: GuestId,
        /// What they want; `gone` is refused, for the guest is the controller's.
        goal: Goal,
    },
    /// Time has passed: [`Node::next_due`](super::Node::next_due) is over.
    Tick,
}

/// Names a call within all runs of an agent with this ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is so.
    Done,
    /// Not yet; the node asks again.
    Progress {
        /// Bytes or other units done so far. The stage fails when it stands still for too long.
        done: u64,
        /// Units in all, 0 when unknown.
        total: u64,
    },
    /// It is not so, or only half.
    Failed(Fault),
    /// The deadline passed and the hands have made sure that nothing of the call is still under way;
    /// whether it took effect is not known.
    Cancelled,
}

/// Why a stage failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The fault code of the sub-agents' wire, such as `no_space`, `conflict` or `lost`.
    pub code: String,
    /// The sub-agent's words.
    pub message: String,
    /// Whether asking again, with nothing changed by a person, may succeed.
    pub may_pass: bool,
}

/// What the host has, seen at one moment after the ask was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Which [`Effect::Observe`] it answers.
    pub ask: u64,
    /// Whatever carries this cloud's mark: a domain, disks, or both.
    pub guests: Vec<Seen>,
    /// Domains without it, by name.
    pub strangers: Vec<String>,
    /// What the machine is.
    pub inventory: Inventory,
    /// What it has for guests.
    pub total: Resources,
}

/// One guest as it was seen on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub id: GuestId,
    /// Which life of it, from the mark on the domain, else on the disks.
    pub life: Fence,
    /// Whether its domain is there.
    pub domain: bool,
    /// Whether all its disks are there.
    pub disks: bool,
    /// What the domain does; `Absent` without one.
    pub power: Power,
    /// Why it is off.
    pub reason: OffReason,
    /// From the mark; None when it cannot be read or only disks are left.
    pub claim: Option<Claim>,
}

/// Why a domain is off, in the words that matter for restarting it (design §11.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum OffReason {
    /// It powered off from inside, cleanly.
    Shutdown,
    /// Somebody on the host cut its power.
    Destroyed,
    /// QEMU or the guest crashed, or could not be started.
    Crashed,
    /// The host or libvirtd went down with it, or nobody knows; also while it is not off.
    #[default]
    Unknown,
}

/// What changes, and what is to be done about it once that is durable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// To be committed to the ledger, all at once, before anything else.
    pub changes: Vec<LedgerChange>,
    /// Then to be done, in order.
    pub effects: Vec<Effect>,
    /// What the brain itself takes over in `apply`; not stored.
    pub(super) head: Option<Box<Head>>,
    /// Guests as they are now; None for those forgotten.
    pub(super) entries: Vec<(GuestId, Option<Box<Entry>>)>,
}

/// Something for the shell to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Call a hand; answer with [`Input::Ended`], whatever comes of it.
    Call(Box<StageCall>),
    /// Look at the whole host; answer with [`Input::Observed`] or [`Input::Unseen`].
    Observe {
        /// To be given back.
        ask: u64,
    },
    /// [`Node::hello`](super::Node::hello) has something to say, or [`Node::greeting`](super::Node::greeting)
    /// something else than before.
    Hello,
    /// [`Node::reports`](super::Node::reports) has something to send.
    Report,
}

/// One call to a hand. Never two at a time for one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageCall {
    /// To be given back.
    pub call: CallId,
    /// What is to be made so.
    pub stage: Stage,
    /// For whom. `life` is the life that is acted on and `provisioned` what the ledger knows: both may
    /// differ from the controller's order.
    pub order: GuestOrder,
    /// Its image, when the controller sent it.
    pub image: Option<ImageOrder>,
    /// Its network, when the controller sent it.
    pub network: Option<NetworkOrder>,
    /// How long the call may last; then the hands cancel it and answer [`Outcome::Cancelled`] as soon as
    /// that is sure.
    pub deadline_ms: u64,
}

/// Why an input was refused; nothing changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The set is of the past.
    #[error("the desired set of fence {given} is older than {seen}, which was taken already")]
    Stale {
        /// Its fence.
        given: Fence,
        /// The last one taken.
        seen: Fence,
    },
    /// The set is another's.
    #[error("the desired set is for hypervisor {0}, not for this one; check the agent's token")]
    OtherHypervisor(HypervisorId),
    /// The set is another cloud's.
    #[error(
        "the desired set is of cloud {0}, not of the one this ledger belongs to; check the controller's address"
    )]
    OtherCloud(CloudId),
    /// Orders are taken only after the hello was answered and the host was looked at.
    #[error("the node takes no orders before it was welcomed and has looked at its host")]
    NotReady,
    /// No such guest here.
    #[error("guest {0} is not on this hypervisor")]
    NoSuchGuest(GuestId),
    /// A local order that only the controller may give.
    #[error("guest {0} belongs to the controller; ask there")]
    NotLocal(GuestId),
}
