//! Hypervisors on `/v1`: the machines that run guests, as asked and as seen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use haar_core::address::Mac;
use haar_core::id::{HypervisorId, SubnetId};
use haar_core::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::{Ref, ResourcesView, Time, given, present};

/// How much more may be promised than is there: 1.0 promises what there is; two decimals count.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OvercommitRatios {
    /// Virtual CPUs per CPU.
    pub cpu: f64,
    /// Memory per memory.
    pub memory: f64,
    /// Disk per disk.
    pub disk: f64,
}

/// A hypervisor to be known. Its agent joins later with a token of its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HypervisorCreate {
    /// Unique; a DNS label.
    pub name: String,
    /// `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Free labels; a guest may require some.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Its address, for people and old agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Its netmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netmask: Option<String>,
    /// Its router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Its MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Subnets it has, each with its bridge's name; only for networks whose reach is `listed`.
    #[serde(default)]
    pub subnets: BTreeMap<Ref, String>,
    /// Ratios of its own; the cluster's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overcommit: Option<OvercommitRatios>,
    /// Why nothing new shall be placed on it, when so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon: Option<String>,
}

/// Changes to a hypervisor; what is left out stays, null clears.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HypervisorPatch {
    /// New name.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New labels, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// New address.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ip: Option<Option<String>>,
    /// New netmask.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub netmask: Option<Option<String>>,
    /// New router.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub gateway: Option<Option<String>>,
    /// New MAC address.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub mac: Option<Option<String>>,
    /// New subnets, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub subnets: Option<BTreeMap<Ref, String>>,
    /// New ratios; null for the cluster's.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<OvercommitRatios>")]
    pub overcommit: Option<Option<OvercommitRatios>>,
    /// Why nothing new shall be placed on it; null opens it again.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub cordon: Option<Option<String>>,
}

/// A hypervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HypervisorView {
    /// Its id.
    #[schemars(with = "Uuid")]
    pub id: HypervisorId,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its project.
    #[schemars(with = "String")]
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Its netmask.
    pub netmask: Option<IpAddr>,
    /// Its router.
    pub gateway: Option<IpAddr>,
    /// Its MAC address.
    #[schemars(with = "Option<String>")]
    pub mac: Option<Mac>,
    /// Subnets it has, each with its bridge's name.
    #[schemars(with = "BTreeMap<Uuid, String>")]
    pub subnets: BTreeMap<SubnetId, String>,
    /// What it has for guests, as its agent says; zero before it joined.
    pub total_resources: ResourcesView,
    /// What may be promised in all: total times overcommit.
    #[serde(default)]
    pub promised_resources: ResourcesView,
    /// What may still be promised: total times overcommit, less what guests hold.
    pub available_resources: ResourcesView,
    /// What its guests hold.
    pub used_resources: ResourcesView,
    /// Ratios of its own; null when the cluster's are in force.
    pub overcommit: Option<OvercommitRatios>,
    /// Why nothing new is placed on it, when so.
    pub cordon: Option<String>,
    /// `alive`, `silent` (no poll within the time limit), `new` (its agent never joined), or `unreported`
    /// (after a restore it has not said what it holds).
    pub state: String,
    /// When it last polled; null when not since the controller's start.
    pub seen_at: Option<Time>,
    /// Guests placed on it.
    pub guests: u64,
    /// What it is.
    pub inventory: InventoryView,
    /// Domains on it that are in no book, by name; left alone.
    pub strangers: Vec<String>,
    /// Last change of what was asked; the ETag.
    pub revision: u64,
    /// Last change of what was seen.
    pub observed_revision: u64,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

/// What a machine is, as its agent says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InventoryView {
    /// Haar's version on it.
    pub version: String,
    /// Host name.
    pub host: String,
    /// libvirt's version.
    pub libvirt: String,
    /// QEMU's version.
    pub qemu: String,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// Why KVM is not used; empty when it is.
    pub accel_reason: String,
    /// CPUs of the machine.
    pub cpus: u32,
    /// Memory of the machine, MiB.
    pub memory_mib: u64,
    /// Free disk, MiB, at the last report.
    pub disk_free_mib: u64,
}
