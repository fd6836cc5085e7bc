//! Tearing a deployment down until nothing of it is left, or saying what is.
//!
//! What goes is what bears our mark in the cloud or is on our record; never what merely has a name like
//! ours, and never the server that this process runs on. Things go kind by kind, each kind at once. The
//! record stays until the cloud has nothing any more, and refuses new servers from the first moment on.

use std::fmt;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::Cloud;
use super::deploy::PlannedThing;
use super::servers::{IN_USE_LIMIT, belongings};
use super::wait::{READ_LIMIT, patiently};
use crate::name::DeploymentId;
use crate::provider::Found;
use crate::server::WeakServer;
use crate::state::{Entry, EntryId, Kind, Phase, Record};
use crate::{Error, Result};

/// How many things are deleted at once.
const AT_ONCE: usize = 16;
/// How old a note without an id is before its absence from the cloud proves that it was never made.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
const OPEN_PAUSE: Duration = Duration::from_secs(5);
/// How long a cloud may go on showing what it says it deleted.
const ALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// What a tear-down destroyed; nothing is left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TornDown {
    /// In the order in which it went.
    pub destroyed: Vec<Found>,
}

/// Something that could not be torn down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The cloud's id, if it is known.
    pub id: Option<String>,
    /// Why it is left.
    pub why: String,
}

impl fmt::Display for Left {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id.as_deref().unwrap_or("no id");
        write!(formatter, "{} {} ({id}): {}", self.kind, self.name, self.why)
    }
}

impl Left {
    fn new(thing: &Found, why: impl Into<String>) -> Self {
        Self { kind: thing.kind, name: thing.name.clone(), id: Some(thing.id.clone()), why: why.into() }
    }
}

impl Cloud {
    /// Destroys everything of the deployment, then its record and its key.
    ///
    /// # Errors
    /// [`Error::NothingToTearDown`] when the cloud has nothing of it; if the record says otherwise, it is
    /// left as it is, since the login may be the wrong one ([`Self::forget`]). [`Error::LeftOver`] names what
    /// is left; tearing down again goes on. [`Error::State`] while another process is at it.
    pub async fn tear_down(&self) -> Result<TornDown> {
        let nothing = || Error::NothingToTearDown { name: self.name().to_string() };
        let Some(record) = self.record().await? else { return Err(nothing()) };
        let _exclusive = self.exclusive().await?;
        let here = patiently(READ_LIMIT, "the own server", || self.provider().here()).await?;
        let found = self.survey(Some(record.deployment())).await?;
        if is_elsewhere(&record, &found) {
            return Err(nothing());
        }
        self.begin_tear_down().await?;
        let mut destroyed = Vec::new();
        let left = self.destroy_all(record.deployment(), here.as_deref(), &mut destroyed).await?;
        if !left.is_empty() {
            return Err(Error::LeftOver { name: self.name().to_string(), left });
        }
        self.forget().await?;
        // Of this machine nothing is made, and it may have been given back before.
        let may_be_nothing = self.provider().is_this_machine();
        if destroyed.is_empty() && !may_be_nothing { Err(nothing()) } else { Ok(TornDown { destroyed }) }
    }

    /// What [`Self::tear_down`] would destroy, in its order; what has no id yet may exist or not. Without a
    /// record it is what has a name like ours, none of which is taken for ours. Changes nothing.
    ///
    /// # Errors
    /// [`Error::State`], and what the cloud says.
    pub async fn tear_down_plan(&self) -> Result<Vec<PlannedThing>> {
        let record = self.record().await?;
        let found = self.survey(record.as_ref().map(Record::deployment)).await?;
        let Some(record) = record else {
            let alike = found.into_iter().map(|found| Found { ours: false, ..found });
            return Ok(alike.map(planned).collect());
        };
        let here = patiently(READ_LIMIT, "the own server", || self.provider().here()).await?;
        let mut things: Vec<PlannedThing> = targets(&record, &found)
            .into_iter()
            .filter(|thing| here.as_ref().is_none_or(|here| thing.kind != Kind::Server || thing.id != *here))
            .map(planned)
            .collect();
        let open = open(&record, &found).into_iter();
        things.extend(open.map(|entry| PlannedThing { kind: entry.kind, name: entry.name, found: None }));
        things.sort_by_key(|thing| thing.kind);
        Ok(things)
    }

    /// Removes the record and the key without asking the cloud, for what is known to be gone. What is still
    /// there is forgotten.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn forget(&self) -> Result<()> {
        self.held().clear();
        let forget = self.journal().on_disk(|store| {
            if store.load()?.is_some() {
                store.change(|record| {
                    let all: Vec<EntryId> = record.entries().map(|entry| entry.id).collect();
                    all.into_iter().for_each(|entry| record.gone(entry));
                    Ok(())
                })?;
            }
            store.remove()
        });
        forget.await
    }

    async fn begin_tear_down(&self) -> Result<()> {
        let begin = self.journal().change(|record| {
            record.begin_tear_down(Timestamp::now());
            let ours: Vec<EntryId> = record.to_destroy().iter().map(|entry| entry.id).collect();
            ours.into_iter().for_each(|entry| record.leaving(entry));
            Ok(())
        });
        begin.await
    }

    /// Looks and destroys, until a look finds nothing. Gives what cannot be destroyed.
    async fn destroy_all(
        &self,
        id: DeploymentId,
        here: Option<&str>,
        destroyed: &mut Vec<Found>,
    ) -> Result<Vec<Left>> {
        let began = Instant::now();
        loop {
            let found = self.survey(Some(id)).await?;
            let Some(record) = self.record().await? else { return Ok(Vec::new()) };
            let (targets, open) = (targets(&record, &found), open(&record, &found));
            if targets.is_empty() && open.is_empty() {
                return Ok(Vec::new());
            }
            let before = destroyed.len();
            let left = self.destroy_round(&record, targets, here, destroyed).await?;
            if !left.is_empty() || began.elapsed() >= ALL_LIMIT {
                let never_ends = "the cloud goes on showing it, or may still be making it";
                let still = open.iter().map(|entry| Left {
                    kind: entry.kind,
                    name: entry.name.clone(),
                    id: None,
                    why: never_ends.to_owned(),
                });
                return Ok(left.into_iter().chain(still).collect());
            }
            if destroyed.len() == before {
                self.wait_for_open(&open, began).await?;
            }
        }
    }

    /// Destroys each kind in its turn; targets come sorted by kind.
    async fn destroy_round(
        &self,
        record: &Record,
        targets: Vec<Found>,
        here: Option<&str>,
        destroyed: &mut Vec<Found>,
    ) -> Result<Vec<Left>> {
        let (targets, mut left) = spare_own(record, targets, here);
        for things in targets.chunk_by(|one, next| one.kind == next.kind) {
            // What is in the way of one kind is in the way of all that follow: those are tried just once.
            let limit = if left.is_empty() { IN_USE_LIMIT } else { Duration::ZERO };
            let ends: Vec<_> =
                things.iter().map(|thing| async move { (thing, self.end(thing, limit).await) }).collect();
            let ends: Vec<_> = stream::iter(ends).buffer_unordered(AT_ONCE).collect().await;
            let mut gone = Vec::new();
            for (thing, end) in ends {
                match end {
                    Ok(was_there) => {
                        self.tell_holders(thing);
                        gone.push(thing.clone());
                        destroyed.extend(was_there.then(|| thing.clone()));
                    }
                    Err(error) => left.push(Left::new(thing, error.to_string())),
                }
            }
            self.note_gone(gone).await?;
        }
        Ok(left)
    }

    async fn end(&self, thing: &Found, limit: Duration) -> Result<bool> {
        if thing.kind == Kind::Server {
            return self.delete_server(&thing.id, &thing.name).await;
        }
        self.tell(format_args!("{} {}", thing.kind, thing.name), "being deleted");
        self.delete_thing(thing.kind, &thing.id, limit).await
    }

    /// Whoever holds a server that is gone is not to go on with it.
    fn tell_holders(&self, thing: &Found) {
        let held = self.held().get(&thing.id).and_then(WeakServer::upgrade);
        if let Some(server) = held.filter(|_| thing.kind == Kind::Server) {
            server.is_gone_now();
        }
    }

    async fn note_gone(&self, things: Vec<Found>) -> Result<()> {
        if things.is_empty() {
            return Ok(());
        }
        let note = self.journal().change(move |record| {
            for thing in things {
                let is_it = |entry: &&Entry| entry.kind == thing.kind && entry.cloud_id() == Some(&thing.id);
                let entries: Vec<EntryId> = record.entries().filter(is_it).map(|entry| entry.id).collect();
                // The same thing may have been planned, and found before its id was noted.
                let open =
                    record.unsettled().find(|entry| entry.kind == thing.kind && entry.name == thing.name);
                let open = open.map(|entry| entry.id);
                entries.into_iter().chain(open).for_each(|entry| record.gone(entry));
            }
            Ok(())
        });
        note.await
    }

    /// Waits for what may still be in the making, or takes it for never made.
    async fn wait_for_open(&self, open: &[Entry], began: Instant) -> Result<()> {
        let age = |entry: &Entry| {
            let before = Timestamp::now().duration_since(entry.since);
            Duration::try_from(before).unwrap_or_default().max(began.elapsed())
        };
        let never_made: Vec<EntryId> =
            open.iter().filter(|entry| age(entry) >= OPEN_LIMIT).map(|entry| entry.id).collect();
        if never_made.is_empty() {
            self.tell(
                format_args!("deployment {}", self.name()),
                "waiting for what may still be in the making",
            );
            sleep(OPEN_PAUSE).await;
            return Ok(());
        }
        let forget = self.journal().change(move |record| {
            never_made.into_iter().for_each(|entry| record.gone(entry));
            Ok(())
        });
        forget.await
    }
}

fn planned(found: Found) -> PlannedThing {
    PlannedThing { kind: found.kind, name: found.name.clone(), found: Some(found) }
}

/// Everything of ours with an id: what the cloud shows, and what is on record.
fn targets(record: &Record, found: &[Found]) -> Vec<Found> {
    let mut targets: Vec<Found> = found.iter().filter(|thing| thing.ours).cloned().collect();
    for entry in record.to_destroy() {
        let Some(id) = entry.cloud_id() else { continue };
        if is_anothers_by_now(entry, id, found) {
            continue;
        }
        if !targets.iter().any(|thing| thing.kind == entry.kind && thing.id == id) {
            let (kind, name, id) = (entry.kind, entry.name.clone(), id.to_owned());
            targets.push(Found { kind, name, id, ours: true });
        }
    }
    targets.sort_by_key(|thing| thing.kind);
    targets
}

/// Whether somebody made something anew under an id of ours: that of a key pair is just its name.
fn is_anothers_by_now(entry: &Entry, id: &str, found: &[Found]) -> bool {
    let is_it = |thing: &&Found| thing.kind == entry.kind && thing.id == id;
    entry.kind == Kind::KeyPair && found.iter().find(is_it).is_some_and(|thing| !thing.ours)
}

/// Notes of ours without an id that the cloud does not show either.
fn open(record: &Record, found: &[Found]) -> Vec<Entry> {
    let shown = |entry: &&Entry| {
        found.iter().any(|thing| thing.ours && thing.kind == entry.kind && thing.name == entry.name)
    };
    record.unsettled().filter(|entry| !shown(entry)).cloned().collect()
}

/// Whether the record speaks of things and this login sees none of them. Key pairs belong to a user and not
/// to a project, so they prove nothing.
fn is_elsewhere(record: &Record, found: &[Found]) -> bool {
    let made =
        |entry: &&Entry| matches!(entry.phase, Phase::Made { .. } | Phase::Leaving { cloud_id: Some(_) });
    let expected = record.entries().filter(made).any(|entry| entry.is_ours() && entry.kind != Kind::KeyPair);
    expected && !found.iter().any(|thing| thing.ours && thing.kind != Kind::KeyPair)
}

/// Leaves out the server that this process runs on, and all that it needs.
fn spare_own(record: &Record, targets: Vec<Found>, here: Option<&str>) -> (Vec<Found>, Vec<Left>) {
    let is_own = |thing: &Found| thing.kind == Kind::Server && here == Some(thing.id.as_str());
    if !targets.iter().any(is_own) {
        return (targets, Vec::new());
    }
    let servers = targets.iter().filter(|thing| thing.kind == Kind::Server && !is_own(thing));
    let theirs: Vec<Entry> =
        servers.flat_map(|server| belongings(record, &server.id, &server.name, &[])).collect();
    let goes = |thing: &Found| match thing.kind {
        Kind::Server => !is_own(thing),
        _ => theirs.iter().any(|entry| entry.kind == thing.kind && entry.cloud_id() == Some(&thing.id)),
    };
    let (go, stay): (Vec<Found>, Vec<Found>) = targets.iter().cloned().partition(goes);
    let why = |thing: &Found| {
        if is_own(thing) {
            "this program runs on it: tear it down from another machine"
        } else {
            "the server that this program runs on needs it"
        }
    };
    (go, stay.iter().map(|thing| Left::new(thing, why(thing))).collect())
}
