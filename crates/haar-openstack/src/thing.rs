//! Things of the network: what all of them have, whose they are, and which one a deployment means.
//!
//! Neutron takes a tag only after a thing is made, but a description with it; so the mark is the
//! description from the first moment, and a tag as soon as possible. A thing is ours by either, or when
//! the record has its id. One of the same name that bears no mark is used and left alone; one that bears
//! another's is in the way, and so are two.

use haar_cloud::journal::Journal;
use haar_cloud::name::Owner;
use haar_cloud::provider::Deployment;
use haar_cloud::state::Kind;
use haar_cloud::{Error, Result};
use serde::Deserialize;

use crate::client::{Ask, Client, Service, path};

/// What everything of the network has.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Thing {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
    /// `null` in some places.
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
}

impl Thing {
    /// Its marks, wherever they are.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(String::as_str).chain(self.description.as_deref())
    }
}

/// A thing with what else its kind has.
pub(crate) trait Marked {
    fn thing(&self) -> &Thing;
}

impl Marked for Thing {
    fn thing(&self) -> &Thing {
        self
    }
}

/// Whose the thing is that a deployment uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Ours: what is wrong with it is put right.
    Ours,
    /// Somebody's: it has to do as it is.
    Theirs,
}

/// What a deployment stands on, while it is being settled.
pub(crate) struct Site<'a> {
    pub(crate) client: &'a Client,
    pub(crate) deployment: &'a Deployment,
    pub(crate) journal: &'a Journal,
}

impl Site<'_> {
    /// The name that everything of the deployment has.
    pub(crate) fn name(&self) -> &str {
        self.deployment.name.as_str()
    }

    /// The one of `things` that the deployment means, which all have its name; noted as ours or as used.
    ///
    /// # Errors
    /// [`Error::Conflict`] where several could be meant, or the one there is belongs to another.
    pub(crate) async fn find<T: Marked>(&self, kind: Kind, things: Vec<T>) -> Result<Option<(T, Whose)>> {
        let name = self.name();
        let entry = self.journal.find(kind, name).await?;
        let recorded = entry.as_ref().filter(|entry| entry.is_ours()).and_then(|entry| entry.cloud_id());
        let is_ours = |thing: &T| {
            let thing = thing.thing();
            self.deployment.id.owner_by_tags(thing.marks()) == Owner::Us
                || recorded == Some(thing.id.as_str())
        };
        let (mut ours, mut others): (Vec<T>, Vec<T>) = things.into_iter().partition(is_ours);
        // Of two of ours, one was made by a request whose answer never came. The survey finds both.
        ours.sort_by_key(|thing| thing.thing().id.clone());
        if let Some(thing) = ours.into_iter().next() {
            let entry = self.journal.plan(kind, name).await?;
            self.journal.made(entry, &thing.thing().id).await?;
            return Ok(Some((thing, Whose::Ours)));
        }
        if others.len() > 1 {
            return Err(several(kind, name, others.iter().map(Marked::thing)));
        }
        let Some(other) = others.pop() else { return Ok(None) };
        if let Owner::Another(id) = self.deployment.id.owner_by_tags(other.thing().marks()) {
            let message = format!("it belongs to another deployment, {id}; deploy under another name");
            return Err(Error::Conflict { what: format!("{kind} {name}"), message });
        }
        self.journal.reuse(kind, name, &other.thing().id).await?;
        Ok(Some((other, Whose::Theirs)))
    }

    /// Makes a thing by a request whose answer has it under `key`, and marks it.
    pub(crate) async fn make(
        &self,
        kind: Kind,
        collection: &str,
        key: &str,
        mut body: serde_json::Value,
    ) -> Result<String> {
        body[key]["description"] = self.deployment.id.tag().into();
        let create = async {
            let label = kind.to_string();
            let ask = Ask::post(Service::Network, path(&[collection]), body).about(&label, self.name());
            let made: Thing = self.client.object(ask, key).await?;
            Ok(made.id)
        };
        let (_, id) = self.journal.make(kind, self.name(), create).await?;
        self.tag(kind, collection, &id).await?;
        Ok(id)
    }

    /// Puts our tag on something of ours that lacks it.
    pub(crate) async fn repair_tag(&self, kind: Kind, collection: &str, thing: &Thing) -> Result<()> {
        if thing.tags.contains(&self.deployment.id.tag()) {
            return Ok(());
        }
        self.tag(kind, collection, &thing.id).await
    }

    /// Puts our tag on something. A cloud without tags has the description as our mark.
    pub(crate) async fn tag(&self, kind: Kind, collection: &str, id: &str) -> Result<()> {
        let label = kind.to_string();
        let path = path(&[collection, id, "tags", &self.deployment.id.tag()]);
        let ask = Ask::put_empty(Service::Network, path).about(&label, self.name());
        match self.client.done(ask).await {
            Err(Error::NotFound { .. } | Error::Refused { .. }) => Ok(()),
            done => done,
        }
    }
}

/// Several where one was meant.
pub(crate) fn several<'a>(kind: Kind, name: &str, things: impl Iterator<Item = &'a Thing>) -> Error {
    let ids: Vec<&str> = things.map(|thing| thing.id.as_str()).collect();
    let message = format!(
        "{} have this name: {}; rename all but one, or deploy under another name",
        ids.len(),
        ids.join(", ")
    );
    Error::Conflict { what: format!("{kind} {name}"), message }
}
