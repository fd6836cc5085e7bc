//! Who calls: bearer tokens of 256 random bits, known here only by their SHA-256.
//!
//! A presented secret is hashed, and the hash looked up: there is no comparison whose time tells anything
//! about a stored secret. Deliberately absent: what a role may do on which path; that is the endpoint
//! table's.

use haar_core::fleet::Fleet;
use haar_core::id::{HypervisorId, TokenId};
use haar_core::name::Name;
use haar_core::token::Role;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

/// What every secret begins with, so that a leaked one is found by searching.
const PREFIX: &str = "haar_";

/// A bearer's secret. Shown once; `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new one.
    pub fn random() -> Secret {
        Secret(format!("{PREFIX}{}", hex::encode(random::<32>())))
    }

    /// The text, to be handed to its bearer.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub fn hash(&self) -> String {
        sha256(self.0.as_bytes())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The token's id.
    pub(crate) token: TokenId,
    /// The token's name, for the audit log.
    pub(crate) name: Name,
    /// What it may do.
    pub(crate) role: Role,
}

impl Caller {
    /// The hypervisor it speaks for, if it is an agent.
    pub(crate) fn hypervisor(&self) -> Option<HypervisorId> {
        match self.role {
            Role::Agent { hypervisor } => Some(hypervisor),
            Role::Admin => None,
        }
    }
}

/// Why nobody is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    /// No token was sent.
    #[error("this needs a token: send `Authorization: Bearer …`; `haar up` saved one for you")]
    NoToken,
    /// What was sent is no bearer token.
    #[error("the Authorization header is not `Bearer` and a token")]
    NotBearer,
    /// The token is not known.
    #[error("this token is not known here; it may have been deleted, or belong to another cloud")]
    NotKnown,
}

/// Recognises the bearer of the request's token.
///
/// # Errors
/// [`Unknown`] says why nobody is recognised.
pub(crate) fn recognise(headers: &HeaderMap, fleet: &Fleet) -> Result<Caller, Unknown> {
    let header = headers.get(AUTHORIZATION).ok_or(Unknown::NoToken)?;
    let text = header.to_str().map_err(|_| Unknown::NotBearer)?;
    let (scheme, secret) = text.split_once(' ').ok_or(Unknown::NotBearer)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Unknown::NotBearer);
    }
    let token = fleet.token_by_hash(&sha256(secret.trim().as_bytes())).ok_or(Unknown::NotKnown)?;
    Ok(Caller { token: token.id, name: token.name.clone(), role: token.role })
}

/// SHA-256 in lower-case hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has had randomness since it booted");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_256_bits_and_is_not_printed() {
        let secret = Secret::random();
        assert_eq!(secret.reveal().len(), PREFIX.len() + 64);
        assert_ne!(secret, Secret::random());
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        assert_eq!(secret.hash().len(), 64);
    }
}
