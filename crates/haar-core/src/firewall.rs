//! Firewall groups: stored and validated here; enforced by a later issue's compiler.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::address::Cidr;
use crate::fence::{Revision, WallMs};
use crate::id::FwGroupId;
use crate::name::Name;

/// A named list of rules; its members are the guests that name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwGroup {
    /// Its id.
    pub id: FwGroupId,
    /// What was asked.
    pub spec: FwGroupSpec,
    /// Last change of what was asked.
    pub revision: Revision,
    /// Label of its making.
    pub created_at: WallMs,
    /// Label of its last change.
    pub updated_at: WallMs,
}

/// What a user says of a firewall group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwGroupSpec {
    /// Unique in the project.
    pub name: Name,
    /// Owner's project.
    pub project: Name,
    /// Free labels.
    pub metadata: BTreeMap<String, String>,
    /// Checked in order.
    pub rules: Vec<FwRule>,
}

/// One rule: what may come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwRule {
    /// Addresses it is about; none means any.
    pub source: Option<Cidr>,
    /// Members of this group it is about; together with `source` both must hold.
    pub group: Option<FwGroupId>,
    /// What kind of packet.
    pub protocol: Protocol,
    /// Inclusive port range; only for TCP and UDP; none means any.
    pub ports: Option<(u16, u16)>,
    /// What happens.
    pub action: Action,
}

/// What a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Everything.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP for both families.
    Icmp,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let it in.
    Accept,
    /// Drop it.
    Drop,
}

/// Why a rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// Ports without TCP or UDP.
    #[error("rule {0} names ports, but its protocol has none; use tcp or udp")]
    PortsWithoutProtocol(usize),
    /// The range is upside down or begins at 0.
    #[error("rule {rule} has the port range {start}-{end}; the start must be at least 1 and at most the end")]
    PortRange {
        /// Position of the rule, from 1.
        rule: usize,
        /// First port.
        start: u16,
        /// Last port.
        end: u16,
    },
    /// More than anyone writes.
    #[error("the group has {0} rules; at most 256 are allowed")]
    TooMany(usize),
}

/// Checks what the rules say by themselves; whether a named group exists is the fleet's to know.
///
/// # Errors
/// [`BadRule`] names the first rule at fault.
pub fn check_rules(rules: &[FwRule]) -> Result<(), BadRule> {
    if rules.len() > 256 {
        return Err(BadRule::TooMany(rules.len()));
    }
    for (index, rule) in rules.iter().enumerate() {
        let Some((start, end)) = rule.ports else { continue };
        if !matches!(rule.protocol, Protocol::Tcp | Protocol::Udp) {
            return Err(BadRule::PortsWithoutProtocol(index + 1));
        }
        if start == 0 || start > end {
            return Err(BadRule::PortRange { rule: index + 1, start, end });
        }
    }
    Ok(())
}
