//! What the agent stores: one record for the node, one for each guest it has or had.
//!
//! Not stored: calls under way, tries, what was last seen, and which reports were taken; after a restart the
//! host is looked at, pipelines begin anew, and everything is reported again.

use serde::{Deserialize, Serialize};

use crate::fence::Fence;
use crate::guest::Goal;
use crate::id::{CloudId, GuestId, HypervisorId};
use crate::job::Stage;
use crate::order::{Claim, GuestOrder, ImageOrder, NetworkOrder};

/// One stored record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LedgerRecord {
    /// The node's own; there is one.
    Node(NodeRecord),
    /// A guest's.
    Guest(Box<GuestRecord>),
}

/// One change of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerChange {
    /// This record is now so.
    Put(LedgerRecord),
    /// This guest's record is dropped: a tombstone that has grown too old.
    Forget(GuestId),
}

impl LedgerRecord {
    /// The table of the node's own record.
    pub const NODE_KIND: u8 = 1;
    /// The table of guests.
    pub const GUEST_KIND: u8 = 2;

    /// Its table and its key there.
    pub fn key(&self) -> (u8, Vec<u8>) {
        match self {
            LedgerRecord::Node(_) => (Self::NODE_KIND, Vec::new()),
            LedgerRecord::Guest(record) => (Self::GUEST_KIND, record.id.0.as_bytes().to_vec()),
        }
    }
}

impl LedgerChange {
    /// Table and key of the record it is about.
    pub fn key(&self) -> (u8, Vec<u8>) {
        match self {
            LedgerChange::Put(record) => record.key(),
            LedgerChange::Forget(guest) => (LedgerRecord::GUEST_KIND, guest.0.as_bytes().to_vec()),
        }
    }
}

/// What a node knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Who it is.
    pub hypervisor: HypervisorId,
    /// Whose it is: learned from the first desired set, then fixed.
    pub cloud: Option<CloudId>,
    /// Drawn when the ledger was made.
    pub lot: u64,
    /// What the controller calls this ledger.
    pub incarnation: Option<u64>,
    /// The newest desired set taken.
    pub seen: Fence,
    /// How often the agent has started with this ledger; the upper half of versions and call ids.
    pub boots: u64,
    /// Counts burials; orders the tombstones.
    pub buried: u64,
}

/// What a node knows of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// Which.
    pub id: GuestId,
    /// Which life of it.
    pub life: Fence,
    /// The newest order; None: found on the host without one.
    pub order: Option<GuestOrder>,
    /// What books it again; None only when neither an order nor a readable mark was ever seen.
    pub claim: Option<Claim>,
    /// Its image, as last told.
    pub image: Option<ImageOrder>,
    /// Its network, as last told.
    pub network: Option<NetworkOrder>,
    /// Whether its disks have held data.
    pub provisioned: bool,
    /// What of it may be on the host.
    pub made: Made,
    /// How far the order is.
    pub stand: Stand,
    /// What somebody on the host, or the guest, made of the goal since that order.
    pub local: Option<Goal>,
    /// The deed that was begun: never begun again.
    pub deed_begun: Option<Fence>,
    /// The last deed done.
    pub deed_done: Option<Fence>,
    /// An earlier life of which something may be on the host: removed before this one is made.
    pub leftover: Option<Fence>,
    /// When it was buried, counted by [`NodeRecord::buried`]; 0 while something of it may be here.
    pub buried: u64,
}

/// What of a guest may be on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Made {
    /// Nothing.
    Nothing,
    /// Some of it.
    Begun,
    /// All of it.
    Whole,
}

/// How far a guest's order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stand {
    /// To be carried out.
    Due,
    /// Carried out.
    Settled,
    /// Making it failed; what was made is being taken back.
    Undoing(Failure),
    /// Not carried out, and left so.
    Failed(Failure),
    /// Its disk or domain is missing though it once held data.
    Lost(String),
    /// Removed.
    Gone,
}

/// Why an order could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// The fault's code.
    pub code: String,
    /// The fault's words.
    pub message: String,
}

impl GuestRecord {
    /// What is wanted now: the local word, else the order's; None without an order.
    pub fn goal(&self) -> Option<Goal> {
        let order = self.order.as_ref()?;
        if order.goal == Goal::Gone { Some(Goal::Gone) } else { Some(self.local.unwrap_or(order.goal)) }
    }

    /// The fence of the newest order; zero without one.
    pub fn fence(&self) -> Fence {
        self.order.as_ref().map_or_else(Fence::default, |order| order.order)
    }

    /// Whether something of it, or of an earlier life, may be on the host.
    pub fn holds(&self) -> bool {
        self.made != Made::Nothing || self.leftover.is_some() || matches!(self.stand, Stand::Due)
    }

    /// Whether nothing is left to do and nothing of it is here.
    pub fn ended(&self) -> bool {
        !self.holds() && matches!(self.stand, Stand::Gone | Stand::Failed(_))
    }
}
