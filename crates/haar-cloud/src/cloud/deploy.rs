//! Making what servers stand on, and making good a record that knows less than the cloud.
//!
//! The private key is on disk before the cloud sees its public half, so no key pair is ever without its key.
//! One process at a time deploys or tears down. Deploying again is always right: it finds what is there,
//! ends a tear-down that was given up, and settles what an earlier process left open. A ground is on record once
//! it stands, so that a deploy which fails changes nothing for servers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::wait::{Patience, READ_LIMIT, bounded, patiently};
use super::{Cloud, GROUND, PUBLIC_KEY};
use crate::key;
use crate::name::DeploymentId;
use crate::provider::{Deployment, Found, Ground};
use crate::state::{Entry, Exclusive, Kind, Record, Store};
use crate::{Error, Result};

/// How long one go of a provider may take: some things come up slowly.
const ONE_GO: Duration = Duration::from_secs(10 * 60);
/// How long failures that may pass are borne.
const DEPLOY_LIMIT: Duration = Duration::from_secs(120);
/// How old a note without an id is before its absence from the cloud proves that it was never made.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// Something that a deploy makes, or finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedThing {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What there is of it already; `None` will be made.
    pub found: Option<Found>,
}

impl Cloud {
    /// Makes what servers stand on, or puts right what is missing of it.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a ground that cannot be built, [`Error::State`] while another process is at
    /// it, and what the cloud says. What was made by then is on record.
    pub async fn deploy(&self, ground: Ground) -> Result<Deployment> {
        ground.check()?;
        let _exclusive = self.exclusive().await?;
        self.claim().await?;
        self.tell(format_args!("deployment {}", self.name()), "preparing the record and the key");
        let deployment = self.prepare(ground).await?;
        self.tell(format_args!("deployment {}", self.name()), "making networks and access");
        let mut patience = Patience::new(DEPLOY_LIMIT);
        loop {
            let go = self.provider().deploy(&deployment, self.journal());
            match bounded(ONE_GO, "the deployment", go).await {
                Ok(()) => break,
                Err(error) if error.is_transient() && patience.pause_after(&error).await => {}
                Err(error) => return Err(error),
            }
        }
        // Not before: servers stand on what is there, and a wish that could not be met would spoil each of them.
        let ground = serde_json::to_string(&deployment.ground).expect("a ground has only text and numbers");
        let note = self.journal().change(move |record| {
            record.set_fact(GROUND, &ground);
            Ok(())
        });
        note.await?;
        self.recover().await?;
        Ok(deployment)
    }

    /// What [`Self::deploy`] would make, and what of it is there. Changes nothing.
    ///
    /// # Errors
    /// [`Error::BadInput`], [`Error::State`], and what the cloud says.
    pub async fn deploy_plan(&self, ground: &Ground) -> Result<Vec<PlannedThing>> {
        ground.check()?;
        let id = self.record().await?.map(|record| record.deployment());
        let public_key = match self.private_key().await? {
            Some(private_key) => key::public_of(&private_key)?,
            None => String::new(),
        };
        let deployment = Deployment {
            name: self.name().clone(),
            id: id.unwrap_or_else(DeploymentId::random),
            ground: ground.clone(),
            public_key,
        };
        let mut found = self.survey(id).await?;
        let things = self.provider().needed(&deployment).await?.into_iter().map(|(kind, name)| {
            let place = found.iter().position(|found| found.kind == kind && found.name == name);
            PlannedThing { kind, name, found: place.map(|place| found.swap_remove(place)) }
        });
        Ok(things.collect())
    }

    /// Puts on record what the cloud has with our mark and the record does not know, gives notes without an
    /// id the one they have in the cloud, and forgets old notes of what was never made. Gives what it put
    /// on record. What should be gone by then is ended by a task; see [`Self::settled`]. Can be called at any
    /// time, also while others spawn.
    ///
    /// # Errors
    /// [`Error::State`], and what the cloud says.
    pub async fn recover(&self) -> Result<Vec<Found>> {
        let adopted = self.make_record_good().await?;
        self.end_leftovers_in_background();
        Ok(adopted)
    }

    pub(super) async fn make_record_good(&self) -> Result<Vec<Found>> {
        self.claim().await?;
        let Some(record) = self.record().await? else { return Ok(Vec::new()) };
        let found = self.survey(Some(record.deployment())).await?;
        self.journal().change(move |record| settle(record, &found, Timestamp::now())).await
    }

    /// Begins a record in place of one that was lost, for a deployment whose mark is known, and puts on
    /// record what the cloud has of it. The mark is the `haar-deployment` on its servers.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is a record, and as [`Self::recover`].
    pub async fn adopt(&self, id: DeploymentId) -> Result<Vec<Found>> {
        let _exclusive = self.exclusive().await?;
        let record = self.journal().on_disk(move |store| store.begin_as(id, Timestamp::now())).await?;
        if record.deployment() != id {
            let message = format!("it has the mark {}", record.deployment());
            return Err(Error::Conflict { what: format!("the record of {}", self.name()), message });
        }
        self.recover().await
    }

    /// What the cloud has of the deployment.
    pub(super) async fn survey(&self, id: Option<DeploymentId>) -> Result<Vec<Found>> {
        patiently(READ_LIMIT, "what is deployed", || self.provider().survey(self.name(), id)).await
    }

    pub(super) async fn exclusive(&self) -> Result<Exclusive> {
        self.journal().on_disk(Store::exclusive).await
    }

    /// Begins the record, the key first; what is to be deployed on this ground.
    async fn prepare(&self, ground: Ground) -> Result<Deployment> {
        let name = self.name().clone();
        self.journal()
            .on_disk(move |store| {
                let id = store.begin(Timestamp::now())?.deployment();
                if store.secrets()?.private_key().is_none() {
                    let private_key = key::generate()?.private;
                    store.change_secrets(|secrets| {
                        // Whoever was faster has the key that counts.
                        if secrets.private_key().is_none() {
                            secrets.set_private_key(&private_key);
                        }
                    })?;
                }
                let secrets = store.secrets()?;
                let public_key = key::public_of(secrets.private_key().unwrap_or_default())?;
                store.change(|record| {
                    // Nobody else is at it, so whoever began the tear-down has given up.
                    if record.is_tearing_down() {
                        record.give_up_tear_down();
                    }
                    record.set_fact(PUBLIC_KEY, &public_key);
                    Ok(())
                })?;
                Ok(Deployment { name, id, ground, public_key })
            })
            .await
    }
}

/// Makes the record agree with what was found.
fn settle(record: &mut Record, found: &[Found], now: Timestamp) -> Result<Vec<Found>> {
    let mut adopted = Vec::new();
    for thing in found.iter().filter(|thing| thing.ours) {
        if knows(record, thing) {
            continue;
        }
        let open = record.unsettled().find(|entry| entry.kind == thing.kind && entry.name == thing.name);
        match open.map(|entry| entry.id) {
            Some(entry) => record.made(entry, &thing.id)?,
            // Nothing new comes on record during a tear-down, which finds it by itself.
            None if record.is_tearing_down() => continue,
            None => {
                record.adopt(thing.kind, &thing.name, &thing.id, now);
            }
        }
        adopted.push(thing.clone());
    }
    let is_old = |entry: &&Entry| now.duration_since(entry.since) > SETTLED_AFTER;
    let never_made: Vec<_> = record.unsettled().filter(is_old).map(|entry| entry.id).collect();
    for entry in never_made {
        record.gone(entry);
    }
    Ok(adopted)
}

fn knows(record: &Record, thing: &Found) -> bool {
    record.entries().any(|entry| entry.kind == thing.kind && entry.cloud_id() == Some(&thing.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ResourceName;
    use crate::state::Phase;

    fn thing(kind: Kind, name: &str, id: &str, ours: bool) -> Found {
        Found { kind, name: name.to_owned(), id: id.to_owned(), ours }
    }

    fn record(folder: &tempfile::TempDir) -> Record {
        let store = Store::new(folder.path(), "fake", &ResourceName::parse("a").unwrap()).unwrap();
        store.begin(Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn an_open_note_gets_its_id_and_what_is_unknown_an_entry_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = record(&folder);
        let open = record.plan(Kind::Server, "a-1", Timestamp::UNIX_EPOCH).unwrap();
        let found = [
            thing(Kind::Server, "a-1", "s1", true),
            thing(Kind::Network, "a", "n1", true),
            thing(Kind::Network, "theirs", "n2", false),
        ];
        assert_eq!(settle(&mut record, &found, Timestamp::UNIX_EPOCH).unwrap().len(), 2);
        assert_eq!(record.entry(open).unwrap().phase, Phase::Made { cloud_id: "s1".to_owned() });
        assert_eq!(record.to_destroy().len(), 2, "and not what is theirs");
        assert!(settle(&mut record, &found, Timestamp::UNIX_EPOCH).unwrap().is_empty());
    }

    #[test]
    fn an_entry_whose_name_is_taken_by_a_second_thing_keeps_its_own_id() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = record(&folder);
        let network = record.plan(Kind::Network, "a", Timestamp::UNIX_EPOCH).unwrap();
        record.made(network, "n1").unwrap();
        let found = [thing(Kind::Network, "a", "n1", true), thing(Kind::Network, "a", "n2", true)];
        settle(&mut record, &found, Timestamp::UNIX_EPOCH).unwrap();
        let ids: Vec<_> = record.to_destroy().iter().filter_map(|entry| entry.cloud_id()).collect();
        assert_eq!(ids, ["n1", "n2"]);
    }

    #[test]
    fn a_young_note_without_an_id_is_kept_and_an_old_one_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = record(&folder);
        record.plan(Kind::Server, "a-1", Timestamp::UNIX_EPOCH).unwrap();
        let young = Timestamp::UNIX_EPOCH + SETTLED_AFTER;
        settle(&mut record, &[], young).unwrap();
        assert_eq!(record.entries().count(), 1);
        settle(&mut record, &[], young + SignedDuration::from_secs(1)).unwrap();
        assert_eq!(record.entries().count(), 0);
    }
}
