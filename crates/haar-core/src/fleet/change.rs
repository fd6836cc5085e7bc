//! What a decision changes, and what it wakes.

use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::config::ClusterConfig;
use crate::fence::Fence;
use crate::firewall::FwGroup;
use crate::flavor::Flavor;
use crate::guest::Guest;
use crate::hypervisor::Hypervisor;
use crate::id::{HypervisorId, JobId, Kind, SubnetId};
use crate::image::Image;
use crate::job::Job;
use crate::network::{Network, Subnet};
use crate::token::Token;

use super::command::{Answer, Blob};

/// A yes: what changes, what is woken, what is answered. `changes` empty means that nothing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The fence after it: the next revision when something changes, else the present one.
    pub fence: Fence,
    /// In the order in which they are applied.
    pub changes: Vec<Change>,
    /// Lost without harm.
    pub effects: Vec<Effect>,
    /// What the caller is told, once the changes are durable.
    pub answer: Answer,
}

/// One change of the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This record is now so.
    Put(Record),
    /// This record is gone.
    Delete(Kind, Uuid),
    /// The last address handed out of a subnet: the next search begins after it.
    Cursor(SubnetId, IpAddr),
    /// A blob to be kept beside the books.
    PutBlob(Blob),
    /// A blob that nobody refers to any more (SHA-256, lower-case hex).
    DropBlob(String),
}

/// A record of any kind. Shared between the working and the published fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Cluster settings.
    Config(Arc<ClusterConfig>),
    /// A token.
    Token(Arc<Token>),
    /// A hypervisor.
    Hypervisor(Arc<Hypervisor>),
    /// An image.
    Image(Arc<Image>),
    /// A flavor.
    Flavor(Arc<Flavor>),
    /// A network.
    Network(Arc<Network>),
    /// A subnet.
    Subnet(Arc<Subnet>),
    /// A firewall group.
    FwGroup(Arc<FwGroup>),
    /// A guest.
    Guest(Arc<Guest>),
    /// A job.
    Job(Arc<Job>),
}

impl Record {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Record::Config(_) => Kind::Config,
            Record::Token(_) => Kind::Token,
            Record::Hypervisor(_) => Kind::Hypervisor,
            Record::Image(_) => Kind::Image,
            Record::Flavor(_) => Kind::Flavor,
            Record::Network(_) => Kind::Network,
            Record::Subnet(_) => Kind::Subnet,
            Record::FwGroup(_) => Kind::FwGroup,
            Record::Guest(_) => Kind::Guest,
            Record::Job(_) => Kind::Job,
        }
    }

    /// Its id; the cloud's for the one configuration record.
    pub fn id(&self) -> Uuid {
        match self {
            Record::Config(record) => record.cloud.0,
            Record::Token(record) => record.id.0,
            Record::Hypervisor(record) => record.id.0,
            Record::Image(record) => record.id.0,
            Record::Flavor(record) => record.id.0,
            Record::Network(record) => record.id.0,
            Record::Subnet(record) => record.id.0,
            Record::FwGroup(record) => record.id.0,
            Record::Guest(record) => record.id.0,
            Record::Job(record) => record.id.0,
        }
    }
}

/// Something to wake once the decision is durable. Only a hint to look: never the only copy of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The desired set of this hypervisor changed.
    WakeHypervisor(HypervisorId),
    /// Whoever waits for this job shall look.
    WakeJob(JobId),
}
