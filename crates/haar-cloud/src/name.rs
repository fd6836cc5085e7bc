//! Names: the one name a deployment goes by, the names derived from it, and whose something in a cloud is.
//!
//! A name never proves ownership: `wr-dev-al` is also the beginning of what `wr-dev-alice` made. A random
//! [`DeploymentId`] does, written as metadata on servers and as a tag on everything of the network. A key pair
//! has neither, and bears the tag as the comment of its key.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Error;

/// The most bytes of a host name.
pub const HOST_NAME_MAX: usize = 63;
/// The most bytes of a resource name: a port's, with a server's id and a number, must fit in a cloud's 255.
pub const RESOURCE_NAME_MAX: usize = 200;
/// The key of the metadata that says whose a server is; also the first part of a tag.
pub const OWNER_KEY: &str = "haar-deployment";

/// The name of a deployment: ASCII letters, digits, underscore, space and hyphen; at least one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceName(String);

impl ResourceName {
    /// Reads a name.
    ///
    /// # Errors
    /// [`Error::BadName`] names the first sign that may not be in it.
    pub fn parse(name: &str) -> Result<Self, Error> {
        let bad = |why: String| Error::BadName { name: name.to_owned(), why };
        if name.is_empty() {
            return Err(bad("it is empty".to_owned()));
        }
        if name.len() > RESOURCE_NAME_MAX {
            return Err(bad(format!("it has {} bytes, at most {RESOURCE_NAME_MAX} may be", name.len())));
        }
        let allowed = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | ' ' | '-');
        match name.chars().find(|sign| !allowed(*sign)) {
            Some(sign) => Err(bad(format!("{sign:?} may not be in it"))),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a new server.
    #[must_use]
    pub fn server(&self, id: Uuid) -> String {
        format!("{}-{id}", self.0)
    }

    /// The name of a further port of a server; the first further one has index 1.
    #[must_use]
    pub fn port(&self, server_id: &str, index: usize) -> String {
        format!("{}-{server_id}-{index}", self.0)
    }

    /// Whether something has the form of a server's name of this deployment: good enough to report it,
    /// never to destroy it.
    #[must_use]
    pub fn resembles_server(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.0).and_then(|rest| rest.strip_prefix('-'));
        // Only the form with hyphens is ever written.
        rest.is_some_and(|rest| rest.len() == 36 && Uuid::try_parse(rest).is_ok())
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for ResourceName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::parse(name)
    }
}

impl TryFrom<String> for ResourceName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        Self::parse(&name)
    }
}

impl From<ResourceName> for String {
    fn from(name: ResourceName) -> Self {
        name.0
    }
}

/// The host name that a cloud gives a server of this name: lower case, each run of other signs than
/// `a-z`, `0-9` and `-` one hyphen, at most [`HOST_NAME_MAX`] bytes.
#[must_use]
pub fn host_name(name: &str) -> String {
    let mut host = String::with_capacity(name.len());
    let mut in_run = false;
    for sign in name.to_lowercase().chars() {
        let plain = sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '-';
        if plain {
            host.push(sign);
        } else if !in_run {
            host.push('-');
        }
        in_run = !plain;
    }
    host.truncate(HOST_NAME_MAX);
    host
}

/// Which deployment made something: random, written on whatever can carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeploymentId(Uuid);

/// Whose something in the cloud is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It carries our id: ours to destroy.
    Us,
    /// It carries the id of another deployment.
    Another(DeploymentId),
    /// It carries none. Never ours by its name alone.
    Unmarked,
}

impl DeploymentId {
    /// An id that nobody else has.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The metadata of a server: key and value.
    #[must_use]
    pub fn metadata(&self) -> (&'static str, String) {
        (OWNER_KEY, self.0.to_string())
    }

    /// The tag of networks, subnets, routers, ports, security groups, addresses and volumes.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("{OWNER_KEY}={}", self.0)
    }

    /// Whose something with this metadata is.
    #[must_use]
    pub fn owner_by_metadata(&self, metadata: &BTreeMap<String, String>) -> Owner {
        self.owner(metadata.get(OWNER_KEY).map(String::as_str))
    }

    /// Whose something with these tags is. With two owners it is not ours: better left than taken.
    #[must_use]
    pub fn owner_by_tags<'a>(&self, tags: impl IntoIterator<Item = &'a str>) -> Owner {
        let ids = tags.into_iter().filter_map(|tag| tag.strip_prefix(OWNER_KEY)?.strip_prefix('='));
        let owners = ids.map(|id| self.owner(Some(id)));
        let mut found = Owner::Unmarked;
        for owner in owners {
            match owner {
                Owner::Another(_) => return owner,
                Owner::Us => found = Owner::Us,
                Owner::Unmarked => {}
            }
        }
        found
    }

    fn owner(&self, value: Option<&str>) -> Owner {
        match value.and_then(|value| Uuid::try_parse(value).ok()) {
            Some(id) if id == self.0 => Owner::Us,
            Some(id) => Owner::Another(Self(id)),
            None => Owner::Unmarked,
        }
    }
}

impl From<Uuid> for DeploymentId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_like_ours_does_not_make_it_ours() {
        let us = DeploymentId::random();
        assert_eq!(us.owner_by_metadata(&BTreeMap::new()), Owner::Unmarked);
        let alice = DeploymentId::random();
        let (key, value) = alice.metadata();
        assert_eq!(us.owner_by_metadata(&BTreeMap::from([(key.to_owned(), value)])), Owner::Another(alice));
    }

    #[test]
    fn only_our_own_tag_makes_it_ours() {
        let (us, other) = (DeploymentId::random(), DeploymentId::random());
        assert_eq!(us.owner_by_tags(["blue", &us.tag()]), Owner::Us);
        assert_eq!(us.owner_by_tags([us.tag().as_str(), &other.tag()]), Owner::Another(other));
        assert_eq!(us.owner_by_tags(["haar-deployment=", "haar-deployment=x", "blue"]), Owner::Unmarked);
    }

    #[test]
    fn the_longer_name_of_another_does_not_resemble_ours() {
        let al = ResourceName::parse("wr-dev-al").unwrap();
        let alice = ResourceName::parse("wr-dev-alice").unwrap();
        let id = Uuid::new_v4();
        assert!(al.resembles_server(&al.server(id)));
        assert!(!al.resembles_server(&alice.server(id)));
        assert!(!al.resembles_server(&format!("wr-dev-al-{}", id.simple())));
    }

    #[test]
    fn a_stored_name_is_held_to_the_rule_too() {
        assert!(serde_json::from_str::<ResourceName>("\"a b\"").is_ok());
        assert!(serde_json::from_str::<ResourceName>("\"../a\"").is_err());
    }

    #[test]
    fn a_name_has_a_length_that_leaves_room_for_what_is_added() {
        let longest = "a".repeat(RESOURCE_NAME_MAX);
        let name = ResourceName::parse(&longest).unwrap();
        assert!(name.port(&Uuid::new_v4().to_string(), 99).len() <= 255);
        assert!(ResourceName::parse(&format!("{longest}a")).is_err());
    }
}
