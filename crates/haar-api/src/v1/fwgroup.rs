//! Firewall groups on `/v1`. Rules have the seed's field names, `portStart` and `portEnd` included.

use std::collections::BTreeMap;

use haar_core::id::FwGroupId;
use haar_core::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::{Ref, Time, given};

/// What a rule matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FwProtocol {
    /// Everything.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP for both families.
    Icmp,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FwAction {
    /// Let it in.
    #[default]
    Accept,
    /// Drop it.
    Drop,
}

/// One rule: what may come in. In answers `group` is an id and `group_name` stands beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FwRuleBody {
    /// CIDR it is about; any when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Members of this firewall group it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Ref>,
    /// That group's name; ignored on input, so that an answer can be sent back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_name: Option<String>,
    /// First port, inclusive; only for TCP and UDP.
    #[serde(default, rename = "portStart", skip_serializing_if = "Option::is_none")]
    pub port_start: Option<u16>,
    /// Last port, inclusive; `portStart` when left out.
    #[serde(default, rename = "portEnd", skip_serializing_if = "Option::is_none")]
    pub port_end: Option<u16>,
    /// What kind of packet.
    #[serde(default)]
    pub protocol: FwProtocol,
    /// What happens.
    #[serde(default)]
    pub action: FwAction,
}

/// A firewall group to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FwGroupCreate {
    /// Unique in the project; a DNS label.
    pub name: String,
    /// `default` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Checked in order; at most 256.
    #[serde(default)]
    pub rules: Vec<FwRuleBody>,
}

/// Changes to a firewall group; what is left out stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FwGroupPatch {
    /// New name.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// New labels, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// New rules, all of them.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<FwRuleBody>>,
}

/// A firewall group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FwGroupView {
    /// Its id.
    #[schemars(with = "Uuid")]
    pub id: FwGroupId,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its project.
    #[schemars(with = "String")]
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// Checked in order.
    pub rules: Vec<FwRuleBody>,
    /// Whether the rules are in force on hypervisors; stored and checked only, when false.
    pub enforced: bool,
    /// Guests that name it.
    pub members: u64,
    /// Last change of what was asked; the ETag.
    pub revision: u64,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}
