//! The key pair that new servers know.
//!
//! A key pair has neither tags nor description, but its key has a comment, which the cloud keeps: that is
//! our mark. One of our name with our key and no mark is used as it is; with another key, nobody could log
//! in to a server made with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use haar_cloud::name::{DeploymentId, Owner};
use haar_cloud::state::Kind;
use haar_cloud::{Error, Result};
use serde::Deserialize;
use serde_json::json;

use crate::client::{Ask, Client, Service, path};
use crate::thing::{Site, Whose};

#[derive(Deserialize)]
struct KeyPair {
    public_key: String,
    #[serde(default)]
    fingerprint: String,
}

/// Makes it, or finds it with our key.
pub(crate) async fn settle(site: &Site<'_>) -> Result<()> {
    let (name, ours) = (site.name(), &site.deployment.public_key);
    let Some(found) = find(site.client, name).await? else {
        let marked = marked(ours, &site.deployment.id.tag());
        let body = json!({"keypair": {"name": name, "public_key": marked}});
        let create = async {
            let ask = Ask::post(Service::Compute, path(&["os-keypairs"]), body).about("key pair", name);
            site.client.done(ask).await?;
            Ok(name.to_owned())
        };
        return site.journal.make(Kind::KeyPair, name, create).await.map(drop);
    };
    if blob(&found.public_key).is_none() || blob(&found.public_key) != blob(ours) {
        let message = format!(
            "it holds another key ({}) than this deployment's; delete it, or deploy under another name",
            found.fingerprint
        );
        return Err(Error::Conflict { what: format!("key pair {name}"), message });
    }
    if is_ours(&found, site.deployment.id) {
        let entry = site.journal.plan(Kind::KeyPair, name).await?;
        return site.journal.made(entry, name).await;
    }
    site.journal.reuse(Kind::KeyPair, name, name).await.map(drop)
}

/// Whose the one of this name is, if there is one.
pub(crate) async fn whose(client: &Client, name: &str, id: Option<DeploymentId>) -> Result<Option<Whose>> {
    let whose = |found: &KeyPair| match id {
        Some(id) if is_ours(found, id) => Whose::Ours,
        _ => Whose::Theirs,
    };
    find(client, name).await.map(|found| found.as_ref().map(whose))
}

fn is_ours(pair: &KeyPair, id: DeploymentId) -> bool {
    id.owner_by_tags(pair.public_key.split_whitespace().skip(2)) == Owner::Us
}

/// The key with our mark for a comment.
fn marked(key: &str, mark: &str) -> String {
    let words: Vec<&str> = key.split_whitespace().take(2).chain([mark]).collect();
    words.join(" ")
}

async fn find(client: &Client, name: &str) -> Result<Option<KeyPair>> {
    let ask = Ask::get(Service::Compute, path(&["os-keypairs", name])).about("key pair", name);
    match client.object(ask, "keypair").await {
        Err(error) if error.is_not_found() => Ok(None),
        found => found.map(Some),
    }
}

/// Asks that it is deleted.
pub(crate) async fn delete(client: &Client, name: &str) -> Result<()> {
    client.done(Ask::delete(Service::Compute, path(&["os-keypairs", name])).about("key pair", name)).await
}

/// The key itself, without its type and comment.
fn blob(key: &str) -> Option<Vec<u8>> {
    STANDARD.decode(key.split_whitespace().nth(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_makes_no_other_key() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS";
        assert!(blob(key).is_some());
        assert_eq!(blob(key), blob(&format!("  {key} me@here\n")));
        assert_ne!(blob(key), blob(&key.replace("PnAS", "PnAT")));
        assert_eq!(blob("nonsense"), None);
    }

    #[test]
    fn our_mark_is_the_keys_comment_and_changes_no_key() {
        let (us, key) = (DeploymentId::random(), "ssh-ed25519 AAAA me@here");
        let pair =
            |public_key: &str| KeyPair { public_key: public_key.to_owned(), fingerprint: String::new() };
        let marked = marked(key, &us.tag());
        assert_eq!(blob(&marked), blob(key));
        assert!(is_ours(&pair(&marked), us) && !is_ours(&pair(key), us));
        assert!(!is_ours(&pair(&marked), DeploymentId::random()));
    }
}
