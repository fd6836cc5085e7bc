//! The cloud as a whole: status, capacity, and what the books' check found.

use std::collections::BTreeMap;

use haar_core::id::{CloudId, HypervisorId, JobId, SubnetId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::{FenceText, ResourcesView, Time};

/// The cloud at a glance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusView {
    /// The controller's version.
    pub version: String,
    /// The cloud's id.
    #[schemars(with = "Uuid")]
    pub cloud: CloudId,
    /// The controller's host name.
    pub host: String,
    /// The fleet's fence.
    pub revision: FenceText,
    /// Seconds since the controller's start.
    pub uptime_s: u64,
    /// Hypervisors by state: `alive`, `silent`, `new`, `unreported`; `cordoned` counts them besides.
    pub hypervisors: BTreeMap<String, u64>,
    /// Guests by state.
    pub guests: BTreeMap<String, u64>,
    /// Jobs.
    pub jobs: JobsView,
    /// What all hypervisors have for guests.
    #[serde(default)]
    pub total: ResourcesView,
    /// What may be promised in all, with overcommit.
    pub promised: ResourcesView,
    /// What guests hold.
    pub used: ResourcesView,
    /// How many faults the last check of the books found, and when; null before the first.
    pub checked: Option<CheckedView>,
}

/// Jobs at a glance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobsView {
    /// Not ended.
    pub running: u64,
    /// Age of the oldest of them, milliseconds.
    pub oldest_ms: u64,
    /// Ended in error within the last hour.
    pub failed_last_hour: u64,
    /// The latest of those.
    #[schemars(with = "Option<Uuid>")]
    pub last_failed: Option<JobId>,
}

/// When the books were checked, and how it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckedView {
    /// When.
    pub at: Time,
    /// Faults found.
    pub faults: u64,
}

/// What there is, what is promised, what is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CapacityView {
    /// What the machines have.
    pub total: ResourcesView,
    /// What may be promised of it, with overcommit.
    pub promised: ResourcesView,
    /// What guests hold.
    pub used: ResourcesView,
    /// What may still be promised, on machines that can take guests now.
    pub free: ResourcesView,
    /// Hypervisors by state, as in the status.
    pub hypervisors: BTreeMap<String, u64>,
    /// Guests by state.
    pub guests: BTreeMap<String, u64>,
    /// The same for each hypervisor.
    pub by_hypervisor: Vec<HypervisorCapacity>,
    /// Addresses for each subnet.
    pub by_subnet: Vec<SubnetCapacity>,
    /// The fence it was read at.
    pub revision: FenceText,
}

/// One hypervisor's capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HypervisorCapacity {
    /// Which.
    #[schemars(with = "Uuid")]
    pub hypervisor: HypervisorId,
    /// Its name.
    pub hypervisor_name: String,
    /// Its state, as in its own view.
    pub state: String,
    /// Whether an operator keeps new guests away.
    pub cordoned: bool,
    /// What it has.
    pub total: ResourcesView,
    /// What may be promised of it.
    pub promised: ResourcesView,
    /// What guests hold.
    pub used: ResourcesView,
    /// What may still be promised.
    pub free: ResourcesView,
}

/// One subnet's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubnetCapacity {
    /// Which.
    #[schemars(with = "Uuid")]
    pub subnet: SubnetId,
    /// Its name.
    pub subnet_name: String,
    /// Addresses guests hold.
    pub used: u64,
    /// Addresses that can be handed out in all; the largest number when there are more.
    pub total: u64,
}

/// What a check of the books compared, and what it found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckView {
    /// The fence the books were at.
    pub revision: FenceText,
    /// When.
    pub checked_at: Time,
    /// What was compared, by noun: `guests`, `hypervisors`, `addresses`, …
    pub compared: BTreeMap<String, u64>,
    /// Every broken rule; empty when the books balance.
    pub faults: Vec<FaultView>,
    /// Domains on hypervisors that are in no book; left alone.
    pub strangers: Vec<StrangerView>,
}

/// A broken rule of the books.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FaultView {
    /// Which rule, a stable word.
    pub rule: String,
    /// What is wrong, for a person.
    pub message: String,
}

/// A domain that is in no book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StrangerView {
    /// Where.
    #[schemars(with = "Uuid")]
    pub hypervisor: HypervisorId,
    /// That hypervisor's name.
    pub hypervisor_name: String,
    /// The domain's name.
    pub domain: String,
}
