//! Hypervisors: the machines that run guests, as asked and as seen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::address::Mac;
use crate::fence::{Revision, WallMs};
use crate::id::{HypervisorId, SubnetId};
use crate::name::Name;
use crate::units::{Overcommit, Resources};

/// A machine that runs guests. Whether it is alive is not stored: a poll is its heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hypervisor {
    /// Its id.
    pub id: HypervisorId,
    /// What was asked.
    pub spec: HypervisorSpec,
    /// Which life of its ledger speaks for it; 0 before the first. Reports of earlier ones are refused.
    pub incarnation: u64,
    /// The lot the agent drew for this life; the same lot asked again gets the same incarnation.
    pub lot: u64,
    /// The last epoch in which it reported everything it has; until that is the present one, nothing
    /// is given out on it (design §11.2).
    pub reported_epoch: Option<u64>,
    /// The last epoch in which the books surely knew all it holds: that of its making, of its last
    /// complete report, or of being declared lost. Until that is the present one, nothing is given out in
    /// the networks it has (design §11.2).
    #[serde(default)]
    pub known_epoch: u64,
    /// What it has for guests, as its agent says; zero before it joined.
    pub total: Resources,
    /// What it is, as its agent says.
    pub inventory: Inventory,
    /// Domains on it that are in no book, by name; left alone.
    pub strangers: Vec<String>,
    /// Last change of what was asked.
    pub revision: Revision,
    /// Last change of what was seen.
    pub observed_revision: Revision,
    /// Label of its making.
    pub created_at: WallMs,
    /// Label of its last change.
    pub updated_at: WallMs,
}

/// What a user says of a hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HypervisorSpec {
    /// Unique.
    pub name: Name,
    /// Owner's project.
    pub project: Name,
    /// Free labels; a guest may require or prefer some.
    pub metadata: BTreeMap<String, String>,
    /// Its address, for people and old agents.
    pub ip: Option<IpAddr>,
    /// Its netmask.
    pub netmask: Option<IpAddr>,
    /// Its router.
    pub gateway: Option<IpAddr>,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Subnets it has, each with the bridge's name; only for networks whose reach is `listed`.
    pub subnets: BTreeMap<SubnetId, String>,
    /// Ratios of its own.
    pub overcommit: Option<Overcommit>,
    /// Why nothing new is placed on it, when so.
    pub cordon: Option<String>,
}

impl Inventory {
    /// Stands for the acceleration when the agent cannot see its machine's guests; the reason is beside it.
    pub const UNAVAILABLE: &str = "unavailable";

    /// Why the agent cannot see what its machine has; None when it can.
    pub fn blind(&self) -> Option<&str> {
        (self.accel == Self::UNAVAILABLE).then_some(self.accel_reason.as_str())
    }
}

/// What a machine is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// Haar's version on it.
    pub version: String,
    /// Host name.
    pub host: String,
    /// libvirt's version.
    pub libvirt: String,
    /// QEMU's version.
    pub qemu: String,
    /// `kvm` or `tcg`; [`Inventory::UNAVAILABLE`] while the agent cannot see its guests.
    pub accel: String,
    /// Why KVM is not used, or why the guests cannot be seen; empty when all is well.
    pub accel_reason: String,
    /// CPUs of the machine.
    pub cpus: u32,
    /// Memory of the machine, MiB.
    pub memory_mib: u64,
    /// Free disk, MiB, at the last report.
    pub disk_free_mib: u64,
}
