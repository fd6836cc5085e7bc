//! Guests on `/v1`: virtual machines, as asked, as placed and as seen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use haar_core::address::Mac;
use haar_core::id::{FlavorId, FwGroupId, GuestId, HypervisorId, ImageId, JobId, NetworkId, SubnetId};
use haar_core::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::{FenceText, Ref, ResourcesView, Time, given, present};

/// When a guest is started again by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuestRestart {
    /// Not at all.
    Never,
    /// After a crash or the host's reboot; not after a clean shutdown from inside.
    #[default]
    OnFailure,
    /// Whenever it is off and shall run.
    Always,
}

/// A guest to be placed, made and started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestCreate {
    /// Unique in the project; a DNS label; the host name inside.
    pub name: String,
    /// `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Empty or `vm` for a virtual machine.
    #[serde(default, rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its size.
    pub flavor: Ref,
    /// Its image; the flavor's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Ref>,
    /// Its network.
    pub network: Ref,
    /// The subnet its address must come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Ref>,
    /// The address it must have; a free one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Its firewall group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fwgroup: Option<Ref>,
    /// The MAC address it must have; made from its id when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The hypervisor it must be on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<Ref>,
    /// Labels its hypervisor must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub require: BTreeMap<String, String>,
    /// When it is started again by itself.
    #[serde(default)]
    pub restart: GuestRestart,
    /// Public keys for the first user, one line each.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// cloud-init user-data as text, at most 64 KiB. Never shown again; answers give its SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Whether it is started once made.
    #[serde(default = "yes")]
    pub start: bool,
}

fn yes() -> bool {
    true
}

/// Changes to a guest; what is left out stays. Size, image and place cannot change here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuestPatch {
    /// New name; the host name inside stays until it is made anew.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New labels, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// New restart policy.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub restart: Option<GuestRestart>,
    /// New firewall group; null takes it out.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Ref>")]
    pub fwgroup: Option<Option<Ref>>,
}

/// A guest. The first twelve fields are the seed's, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GuestView {
    /// Its id.
    #[schemars(with = "Uuid")]
    pub id: GuestId,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// Empty or `vm` for a virtual machine.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its size.
    #[schemars(with = "Uuid")]
    pub flavor: FlavorId,
    /// The machine it is on; null when it holds nothing.
    #[schemars(with = "Option<Uuid>")]
    pub hypervisor: Option<HypervisorId>,
    /// Its network.
    #[schemars(with = "Uuid")]
    pub network: NetworkId,
    /// The subnet its address is from.
    #[schemars(with = "Option<Uuid>")]
    pub subnet: Option<SubnetId>,
    /// Its firewall group.
    #[schemars(with = "Option<Uuid>")]
    pub fwgroup: Option<FwGroupId>,
    /// Its MAC address.
    #[schemars(with = "String")]
    pub mac: Mac,
    /// Its address; null when it holds none.
    pub ip: Option<IpAddr>,
    /// The bridge it is plugged into on its hypervisor; null when it is on none.
    pub bridge: Option<String>,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its project.
    #[schemars(with = "String")]
    pub project: Name,
    /// The flavor's name.
    pub flavor_name: String,
    /// The hypervisor's name.
    pub hypervisor_name: Option<String>,
    /// The network's name.
    pub network_name: String,
    /// The subnet's name.
    pub subnet_name: Option<String>,
    /// The firewall group's name.
    pub fwgroup_name: Option<String>,
    /// Its image.
    #[schemars(with = "Uuid")]
    pub image: ImageId,
    /// The image's name.
    pub image_name: String,
    /// What it takes; the flavor's at the time it was made.
    pub resources: ResourcesView,
    /// What is wanted: `running`, `stopped`, `off`, `gone`.
    pub goal: String,
    /// Who wants it: `user`, `local`, `undo`.
    pub goal_by: String,
    /// What was last seen: `creating`, `running`, `stopped`, `paused`, `deleting`, `failed`, `lost`,
    /// `claimed`; `unknown` while its hypervisor is silent.
    pub state: String,
    /// Why state and goal differ, or what is wrong; empty when all is well.
    pub reason: String,
    /// Whose it is: `controller` or `claimed`.
    pub owner: String,
    /// Whether its disks have held data: from then on they are never rebuilt by themselves.
    pub provisioned: bool,
    /// When it is started again by itself.
    pub restart: GuestRestart,
    /// Whether it was to be started once made.
    pub start: bool,
    /// Labels its hypervisor must have.
    pub require: BTreeMap<String, String>,
    /// Public keys for the first user.
    pub ssh_keys: Vec<String>,
    /// The fence of its making on its hypervisor; another one after it was made anew, with new disks and host keys.
    /// Null when it is on none.
    #[serde(default)]
    pub life: Option<FenceText>,
    /// SHA-256 of its user-data, lower-case hex.
    pub user_data: Option<String>,
    /// The job under way, else the last one.
    #[schemars(with = "Option<Uuid>")]
    pub job: Option<JobId>,
    /// Last change of what was asked; the ETag.
    pub revision: u64,
    /// Last change of what was seen.
    pub observed_revision: u64,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

/// Where a guest could be placed now: every hypervisor's yes or no. Nothing is reserved by asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CandidatesView {
    /// What the guest would take.
    pub wants: ResourcesView,
    /// Those that can take it first, the one that would be chosen at their head.
    pub items: Vec<CandidateView>,
}

/// One hypervisor's answer to a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CandidateView {
    /// Which.
    #[schemars(with = "Uuid")]
    pub hypervisor: HypervisorId,
    /// Its name.
    pub hypervisor_name: String,
    /// Whether it can take the guest.
    pub fits: bool,
    /// What the choice among those that fit goes by, for a person; empty when it does not fit.
    pub score: String,
    /// Why not: a stable word such as `memory`; null when it fits.
    pub cause: Option<String>,
    /// The same for a person, such as `188 GiB free of 256 GiB`.
    pub detail: String,
}
