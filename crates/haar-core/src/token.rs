//! Bearer tokens: stored as a hash, never as the secret.

use serde::{Deserialize, Serialize};

use crate::fence::{Revision, WallMs};
use crate::id::{HypervisorId, TokenId};
use crate::name::Name;

/// A token's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// Unique.
    pub name: Name,
    /// What its bearer may do.
    pub role: Role,
    /// SHA-256 of the secret, lower-case hex.
    pub hash: String,
    /// Last change.
    pub revision: Revision,
    /// Label of its making.
    pub created_at: WallMs,
}

/// What a token's bearer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything but speaking for a hypervisor.
    Admin,
    /// Speaking for this one hypervisor.
    Agent {
        /// Which.
        hypervisor: HypervisorId,
    },
}
