//! What passes between the two brains: the desired set one way, reports the other.
//!
//! These are values; `haar-api` has their wire form. Everything here may arrive late, twice, out of order
//! or never: fences and versions make that harmless, and absence is never an order.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::fence::Fence;
use crate::guest::{Deed, Goal, RestartPolicy};
use crate::hypervisor::Inventory;
use crate::id::{CloudId, FlavorId, GuestId, HypervisorId, ImageId, JobId, NetworkId, SubnetId};
use crate::image::Format;
use crate::job::Stage;
use crate::name::Name;
use crate::units::Resources;

/// All that one hypervisor shall have, as of `fence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredSet {
    /// The books it was read from: an older set than the last one seen is refused by the node.
    pub fence: Fence,
    /// The cloud.
    pub cloud: CloudId,
    /// Whose it is; a node refuses another's.
    pub hypervisor: HypervisorId,
    /// Every guest with a place on it, the ones to be removed included.
    pub guests: Vec<GuestOrder>,
    /// What those guests are cloned from.
    pub images: Vec<ImageOrder>,
    /// What those guests are plugged into.
    pub networks: Vec<NetworkOrder>,
}

/// One guest's order. Complete: it leaves the hands no choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestOrder {
    /// Which guest.
    pub id: GuestId,
    /// Its name; the host name inside.
    pub name: Name,
    /// Owner's project.
    pub project: Name,
    /// Fence of the order; the node refuses an older one than it has.
    pub order: Fence,
    /// Which life of the guest on this host.
    pub life: Fence,
    /// What is wanted.
    pub goal: Goal,
    /// A thing to be done once.
    pub deed: Option<Deed>,
    /// Whether its disks have held data: what is missing is then lost, not rebuilt.
    pub provisioned: bool,
    /// When it is started again by itself.
    pub restart: RestartPolicy,
    /// The job that waits, for the report's steps.
    pub job: Option<JobId>,
    /// Its size's name in the books.
    pub flavor: FlavorId,
    /// What it is cloned from.
    pub image: ImageId,
    /// What it takes.
    pub resources: Resources,
    /// Its network.
    pub network: NetworkId,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its MAC address.
    pub mac: Mac,
    /// Its address.
    pub address: IpAddr,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    /// Its router.
    pub gateway: Option<IpAddr>,
    /// Its name servers.
    pub dns: Vec<IpAddr>,
    /// Public keys for the first user.
    pub ssh_keys: Vec<String>,
    /// SHA-256 of the user-data, fetched apart.
    pub user_data: Option<String>,
}

/// An image a node may need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOrder {
    /// Which.
    pub id: ImageId,
    /// Told, never probed.
    pub format: Format,
    /// Lower-case hex.
    pub sha256: String,
    /// Bytes of the file, 0 when unknown.
    pub file_bytes: u64,
    /// Where else than at the controller; None: fetched from the controller.
    pub url: Option<String>,
}

/// A network a node may need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOrder {
    /// Which.
    pub id: NetworkId,
    /// The bridge's name on the host.
    pub bridge: String,
    /// The bridge's own addresses with prefix length: the subnets' gateways.
    pub gateways: Vec<(IpAddr, u8)>,
    /// Whether guests reach the outside under the host's address.
    pub nat: bool,
}

/// A node's first word with a new ledger: which incarnation is it?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Who speaks (from its token).
    pub hypervisor: HypervisorId,
    /// Drawn when the ledger was made; asked again with the same lot, the answer is the same.
    pub lot: u64,
    /// What it is.
    pub inventory: Inventory,
    /// What it has for guests.
    pub total: Resources,
}

/// What a node says of itself. Facts, not steps: the newest report of a guest says all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Who speaks.
    pub hypervisor: HypervisorId,
    /// Which life of its ledger; an earlier one is refused.
    pub incarnation: u64,
    /// The newest desired set it has taken.
    pub seen: Fence,
    /// The guests reported on; at most [`Report::MOST_GUESTS`] in one report.
    pub guests: Vec<GuestReport>,
    /// Set on the last of a series that together told of everything the host has, read from the host itself
    /// after it had seen an order of this epoch.
    pub complete: Option<Complete>,
}

impl Report {
    /// One report fits one commit.
    pub const MOST_GUESTS: usize = 16;
}

/// What a complete report adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complete {
    /// The epoch it was made in.
    pub epoch: u64,
    /// Every guest of ours on the host, whether reported on in this series or before.
    pub holds: Vec<GuestId>,
    /// Domains that are in no ledger of ours, by name.
    pub strangers: Vec<String>,
    /// What it is.
    pub inventory: Inventory,
    /// What it has for guests.
    pub total: Resources,
}

/// What a node says of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// Which guest.
    pub id: GuestId,
    /// Which life of it.
    pub life: Fence,
    /// The newest order the node has for it.
    pub order: Fence,
    /// Counts this node's reports of this guest upwards within an incarnation: an older one changes nothing.
    pub version: u64,
    /// How far the node is with the order.
    pub phase: Phase,
    /// What the domain does.
    pub power: Power,
    /// Whether its disks have held data.
    pub provisioned: bool,
    /// The last deed done.
    pub deed: Option<Fence>,
    /// Steps of the pipeline for the order, for the job.
    pub steps: Vec<StepReport>,
    /// What a controller that does not know the guest needs to book it (design §11.2).
    pub claim: Claim,
}

/// How far a node is with a guest's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A pipeline is under way.
    Working,
    /// The order is carried out.
    Settled,
    /// The order could not be carried out. After a create everything it made is removed again; after
    /// anything else the guest is as before.
    Failed {
        /// Where.
        stage: Stage,
        /// The fault code of the sub-agents' wire, such as `no_space`.
        code: String,
        /// The sub-agent's words.
        message: String,
    },
    /// Its disk or domain is missing though it once held data.
    Lost {
        /// What is missing.
        message: String,
    },
    /// Nothing of this life is on the host.
    Gone,
    /// Somebody on the host, or the guest itself, powered it off or on: becomes the goal (design §11.3).
    Local {
        /// What they made of it.
        goal: Goal,
    },
}

/// What a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Runs.
    Running,
    /// Is defined and off.
    Off,
    /// Is paused.
    Paused,
    /// There is no domain.
    Absent,
    /// Not looked at yet, or libvirtd does not answer.
    Unknown,
}

/// One stage's progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// Which.
    pub stage: Stage,
    /// How far.
    pub state: crate::job::StepState,
    /// Words for a person: progress, or what went wrong.
    pub message: String,
}

/// What is needed to book a guest that the books do not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its name.
    pub name: Name,
    /// Owner's project.
    pub project: Name,
    /// What it takes.
    pub resources: Resources,
    /// Its size's name in the books.
    pub flavor: FlavorId,
    /// What it was cloned from.
    pub image: ImageId,
    /// Its network.
    pub network: NetworkId,
    /// Its subnet.
    pub subnet: SubnetId,
    /// Its MAC address.
    pub mac: Mac,
    /// Its address.
    pub address: IpAddr,
}

impl GuestOrder {
    /// What a controller needs to book this guest again after a restore.
    pub fn claim(&self) -> Claim {
        Claim {
            name: self.name.clone(),
            project: self.project.clone(),
            resources: self.resources,
            flavor: self.flavor,
            image: self.image,
            network: self.network,
            subnet: self.subnet,
            mac: self.mac,
            address: self.address,
        }
    }
}
