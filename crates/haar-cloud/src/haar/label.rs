//! Names as Haar has them, and the labels that say whose something is.
//!
//! A name of ours may be longer than a DNS label and have other signs in it. The label is made of it, and the
//! name itself is kept beside the mark.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::name::{DeploymentId, HOST_NAME_MAX, Owner, host_name};
use crate::state::Kind;
use crate::{Error, Result};

/// The key of the label that holds the name as it was given.
const NAME_KEY: &str = "haar-name";
/// What stands in for a name of which nothing is left.
const OURS: &str = "haar";
/// Bytes of an id as text.
const ID_LENGTH: usize = 36;

/// The labels of what a deployment makes.
pub(super) fn marks(id: DeploymentId, name: &str) -> BTreeMap<String, String> {
    let (key, value) = id.metadata();
    [(key.to_owned(), value), (NAME_KEY.to_owned(), name.to_owned())].into()
}

/// The name that something of a deployment was given.
pub(super) fn given_name(labels: &BTreeMap<String, String>) -> Option<&str> {
    labels.get(NAME_KEY).map(String::as_str)
}

/// The name as it was given to what we made; Haar's own name of anything else.
pub(super) fn full_name<'a>(labels: &'a BTreeMap<String, String>, name: &'a str) -> &'a str {
    given_name(labels).unwrap_or(name)
}

/// A name as a DNS label. The id that a server's name ends with is never cut off.
pub(super) fn label(name: &str) -> String {
    let (head, id) = match trailing_id(name) {
        Some(id) => (&name[..name.len() - ID_LENGTH], id.to_string()),
        None => (name, String::new()),
    };
    let host = host_name(head);
    let room = if id.is_empty() { HOST_NAME_MAX } else { HOST_NAME_MAX - ID_LENGTH - 1 };
    let host = host.trim_matches('-');
    let host = host[..host.len().min(room)].trim_end_matches('-');
    // An id alone is no name in Haar, and neither is nothing.
    let is_name = !host.is_empty() && Uuid::try_parse(host).is_err();
    let parts = [if is_name { "" } else { OURS }, host, &id];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// The id of the guest that a server of this name is: asked for twice, it is the same one.
pub(super) fn guest_id(name: &str) -> Uuid {
    trailing_id(name).unwrap_or_else(Uuid::new_v4)
}

fn trailing_id(name: &str) -> Option<Uuid> {
    let start = name.len().checked_sub(ID_LENGTH)?;
    let id = name.get(start..).filter(|id| id.contains('-'))?;
    Uuid::try_parse(id).ok()
}

/// The id of the one thing of this kind that a deployment makes.
pub(super) fn derived_id(id: DeploymentId, kind: Kind) -> Uuid {
    let id = Uuid::try_parse(&id.to_string()).expect("an id is written as one");
    let mut bytes = id.into_bytes();
    bytes[15] ^= match kind {
        Kind::SecurityGroup => 1,
        Kind::Network => 2,
        Kind::Subnet => 3,
        _ => 0,
    };
    Uuid::from_bytes(bytes)
}

/// Whether something of our name is ours; if not, it may still be used.
///
/// # Errors
/// [`Error::Conflict`] when another deployment, of another name with the same label, made it.
pub(super) fn is_ours(
    id: DeploymentId,
    kind: Kind,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Result<bool> {
    if id.owner_by_metadata(labels) == Owner::Us {
        return Ok(true);
    }
    match labels.get(NAME_KEY).filter(|other| *other != name) {
        Some(other) => Err(Error::Conflict {
            what: format!("{kind} {}", label(name)),
            message: format!("it belongs to `{other}`, whose name is the same as `{name}` to Haar"),
        }),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_becomes_a_label_that_haar_takes() {
        let id = "7c1d0e52-9a3b-4f6e-8d21-0123456789ab";
        let long = "x".repeat(200);
        for (name, expected) in [
            ("render farm".to_owned(), "render-farm".to_owned()),
            ("wr-dev_Al".to_owned(), "wr-dev-al".to_owned()),
            (format!("render farm-{id}"), format!("render-farm-{id}")),
            (format!("{long}-{id}"), format!("{}-{id}", "x".repeat(26))),
            (format!("_ -{id}"), format!("haar-{id}")),
            (long.clone(), "x".repeat(63)),
            ("_".to_owned(), "haar".to_owned()),
            (id.to_owned(), format!("haar-{id}")),
            (id.replace('-', ""), format!("haar-{}", id.replace('-', ""))),
        ] {
            assert_eq!(label(&name), expected, "{name}");
        }
    }

    #[test]
    fn a_server_asked_for_twice_is_the_same_guest() {
        let id = Uuid::new_v4();
        assert_eq!(guest_id(&format!("a-{id}")), id);
        assert_ne!(guest_id("a"), guest_id("a"));
    }

    #[test]
    fn each_kind_has_an_id_of_its_own() {
        let id = DeploymentId::random();
        let ids = [Kind::SecurityGroup, Kind::Network, Kind::Subnet].map(|kind| derived_id(id, kind));
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert_eq!(ids[0], derived_id(id, Kind::SecurityGroup));
        assert_ne!(ids[0], derived_id(DeploymentId::random(), Kind::SecurityGroup));
    }

    #[test]
    fn two_names_with_one_label_do_not_share_what_they_made() {
        let (us, them) = (DeploymentId::random(), DeploymentId::random());
        let ours = |labels| is_ours(us, Kind::Network, "a b", &labels);
        assert!(ours(marks(us, "a b")).unwrap());
        assert!(!ours(BTreeMap::new()).unwrap());
        assert!(!ours(marks(them, "a b")).unwrap());
        assert!(ours(marks(them, "a-b")).unwrap_err().to_string().contains("`a-b`"));
    }
}
