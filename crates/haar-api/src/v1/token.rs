//! Tokens on `/v1`. The secret is in one answer only: the one that makes it.

use haar_core::id::{CloudId, HypervisorId, TokenId};
use haar_core::name::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::{Ref, Time};

/// What a token's bearer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenRole {
    /// Everything but speaking for a hypervisor.
    Admin,
    /// Speaking for one hypervisor.
    Agent,
}

impl TokenRole {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            TokenRole::Admin => "admin",
            TokenRole::Agent => "agent",
        }
    }
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// Unique; a DNS label.
    pub name: String,
    /// What its bearer may do.
    pub role: TokenRole,
    /// Which hypervisor an `agent` token speaks for; refused for other roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<Ref>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    /// Its id.
    #[schemars(with = "Uuid")]
    pub id: TokenId,
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// What its bearer may do.
    pub role: TokenRole,
    /// Which hypervisor it speaks for.
    #[schemars(with = "Option<Uuid>")]
    pub hypervisor: Option<HypervisorId>,
    /// That hypervisor's name.
    pub hypervisor_name: Option<String>,
    /// Last change.
    pub revision: u64,
    /// When it was made.
    pub created_at: Time,
}

/// A token just made, with its secret: shown this once, stored only as a hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCreated {
    /// The token.
    pub token: TokenView,
    /// What its bearer sends as `Authorization: Bearer …`.
    pub secret: String,
}

/// Who the caller is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhoamiView {
    /// The token's id.
    #[schemars(with = "Uuid")]
    pub token: TokenId,
    /// The token's name.
    pub name: String,
    /// What its bearer may do.
    pub role: TokenRole,
    /// Which hypervisor it speaks for.
    #[schemars(with = "Option<Uuid>")]
    pub hypervisor: Option<HypervisorId>,
    /// That hypervisor's name.
    pub hypervisor_name: Option<String>,
    /// The cloud's id.
    #[schemars(with = "Uuid")]
    pub cloud: CloudId,
    /// The controller's version.
    pub version: String,
}
