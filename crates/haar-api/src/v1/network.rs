//! Networks and subnets on `/v1`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use haar_core::address::Cidr;
use haar_core::id::{NetworkId, SubnetId};
use haar_core::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::{Ref, Time, given, present};

/// Which hypervisors have a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkReach {
    /// Every one: the agent makes the bridge when the first guest needs it.
    #[default]
    All,
    /// Those whose record lists one of its subnets.
    Listed,
}

/// A network to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// Unique in the project; a DNS label.
    pub name: String,
    /// `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Whether guests reach the outside under the hypervisor's address.
    #[serde(default)]
    pub nat: bool,
    /// Which hypervisors have it.
    #[serde(default)]
    pub reach: NetworkReach,
}

/// Changes to a network; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkPatch {
    /// New name.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New labels, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Whether guests reach the outside under the hypervisor's address.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub nat: Option<bool>,
    /// Which hypervisors have it.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub reach: Option<NetworkReach>,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkView {
    /// Its id.
    #[schemars(with = "Uuid")]
    pub id: NetworkId,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its project.
    #[schemars(with = "String")]
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// Whether guests reach the outside under the hypervisor's address.
    pub nat: bool,
    /// Which hypervisors have it.
    pub reach: NetworkReach,
    /// The bridge's name on each of them.
    pub bridge: String,
    /// Its subnets' ids.
    #[schemars(with = "Vec<Uuid>")]
    pub subnets: Vec<SubnetId>,
    /// Those subnets' names, in the same order.
    pub subnet_names: Vec<String>,
    /// Last change of what was asked; the ETag.
    pub revision: u64,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

/// A subnet to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubnetCreate {
    /// Unique in the project; a DNS label.
    pub name: String,
    /// `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The network it belongs to.
    pub network: Ref,
    /// The range as a whole, such as `10.77.0.0/24`.
    pub cidr: String,
    /// Router's address: the bridge's own on each hypervisor; never handed out. When left out, the range's first
    /// usable one in a network with NAT, else none; null wants none in any network.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub gateway: Option<Option<String>>,
    /// First address handed out, inclusive; the range's first usable one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Last address handed out, inclusive; the range's last usable one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Name servers told to guests, at most 3.
    #[serde(default)]
    pub dns: Vec<String>,
}

/// Changes to a subnet; what is left out stays. Addresses in use must stay inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubnetPatch {
    /// New name.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New labels, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// New router's address; null takes it out.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub gateway: Option<Option<String>>,
    /// New first address.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// New last address.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// New name servers, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub dns: Option<Vec<String>>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubnetView {
    /// Its id.
    #[schemars(with = "Uuid")]
    pub id: SubnetId,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its project.
    #[schemars(with = "String")]
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// The network it belongs to.
    #[schemars(with = "Uuid")]
    pub network: NetworkId,
    /// That network's name.
    pub network_name: String,
    /// The range as a whole.
    #[schemars(with = "String")]
    pub cidr: Cidr,
    /// Router's address.
    pub gateway: Option<IpAddr>,
    /// First address handed out, inclusive.
    pub start: IpAddr,
    /// Last address handed out, inclusive.
    pub end: IpAddr,
    /// Name servers told to guests.
    pub dns: Vec<IpAddr>,
    /// Addresses guests hold.
    pub addresses_used: u64,
    /// Addresses that can be handed out in all; the largest number when there are more.
    pub addresses_total: u64,
    /// Last change of what was asked; the ETag.
    pub revision: u64,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}
