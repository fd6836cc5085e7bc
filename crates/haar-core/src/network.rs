//! Networks and their subnets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::Cidr;
use crate::fence::{Revision, WallMs};
use crate::id::{NetworkId, SubnetId};
use crate::name::Name;

/// A layer-2 network: one bridge on every hypervisor that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// What was asked.
    pub spec: NetworkSpec,
    /// Last change of what was asked.
    pub revision: Revision,
    /// Label of its making.
    pub created_at: WallMs,
    /// Label of its last change.
    pub updated_at: WallMs,
}

/// What a user says of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Unique in the project.
    pub name: Name,
    /// Owner's project.
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// Whether guests reach the outside under the hypervisor's address.
    pub nat: bool,
    /// Which hypervisors have it.
    pub reach: Reach,
}

/// Which hypervisors have a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Every one: the agent makes the bridge when the first guest needs it.
    All,
    /// Those whose record lists one of its subnets (the seed's way).
    Listed,
}

/// A range of addresses in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// What was asked.
    pub spec: SubnetSpec,
    /// Last change of what was asked.
    pub revision: Revision,
    /// Label of its making.
    pub created_at: WallMs,
    /// Label of its last change.
    pub updated_at: WallMs,
}

/// What a user says of a subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetSpec {
    /// Unique in the project.
    pub name: Name,
    /// Owner's project.
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// The network it belongs to.
    pub network: NetworkId,
    /// The range as a whole.
    pub cidr: Cidr,
    /// Router's address: the bridge's own on each hypervisor; never handed out.
    pub gateway: Option<IpAddr>,
    /// First address handed out, inclusive.
    pub start: IpAddr,
    /// Last address handed out, inclusive.
    pub end: IpAddr,
    /// Name servers told to guests.
    pub dns: Vec<IpAddr>,
}

/// What a subnet's maker says of its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// It is as the spec has it, none included.
    Said,
    /// Nothing: a network with NAT gets the first usable address, for without a gateway nobody would reach its
    /// guests, nor they anybody; another gets none.
    Left,
}

/// Why a subnet is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSubnet {
    /// Addresses that no guest can have.
    #[error(
        "{cidr} meets {special}, which is meant for {meant_for}; choose a private range such as 10.1.2.0/24 or fd00:1::/64"
    )]
    Special {
        /// The range.
        cidr: Cidr,
        /// The special range it meets.
        special: &'static str,
        /// What that one is for.
        meant_for: &'static str,
    },
    /// An address outside the range.
    #[error("{what} {address} lies outside {cidr}")]
    Outside {
        /// `gateway`, `start` or `end`.
        what: &'static str,
        /// The address.
        address: IpAddr,
        /// The range.
        cidr: Cidr,
    },
    /// start after end.
    #[error("start {start} comes after end {end}")]
    Order {
        /// First address.
        start: IpAddr,
        /// Last address.
        end: IpAddr,
    },
    /// Nothing left to hand out.
    #[error(
        "{cidr} from {start} to {end} has no address for a guest (network, broadcast and gateway are never handed out)"
    )]
    Empty {
        /// The range.
        cidr: Cidr,
        /// First address.
        start: IpAddr,
        /// Last address.
        end: IpAddr,
    },
    /// Shares addresses with another subnet.
    #[error(
        "subnet `{name}` ({cidr}) overlaps subnet `{other}` ({other_cidr}), and one hypervisor can have both; \
         give one of them another range"
    )]
    Overlap {
        /// Its name.
        name: Name,
        /// The range.
        cidr: Cidr,
        /// The other's name.
        other: Name,
        /// The other's range.
        other_cidr: Cidr,
    },
    /// Gateway of the network or broadcast address.
    #[error("gateway {0} is the network's or the broadcast address")]
    Gateway(IpAddr),
    /// More name servers than a guest reads.
    #[error("{0} name servers; at most 3 are used by a guest")]
    TooManyDns(usize),
}
