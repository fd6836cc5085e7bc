//! Servers that are there: looking at them, finding them again from any process, and destroying them.
//!
//! Destroyed is only what bears our mark or is on our record, and only "it is not there" counts as gone. A
//! server that could not be destroyed stays on record as leaving, with what belongs to it.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Cloud;
use super::wait::{ASK_LIMIT, Patience, READ_LIMIT, bounded, may_pass, patiently};
use crate::name::{DeploymentId, Owner, host_name};
use crate::provider::{Found, ServerState, ServerView};
use crate::server::{Server, WeakServer};
use crate::state::{self, Entry, EntryId, Kind, Phase, Record, ServerDetails, Store};
use crate::{Error, Result};

/// How long a server may take to go.
pub(super) const GOING_LIMIT: Duration = Duration::from_secs(120);
/// How long what belongs to a server may be in the way of its own end.
pub(super) const IN_USE_LIMIT: Duration = Duration::from_secs(150);
/// How long a volume may take to go: some clouds write over all of it.
const VOLUME_LIMIT: Duration = Duration::from_secs(10 * 60);
/// After so long a server that is still there is asked to go once more.
const ASK_AGAIN: Duration = Duration::from_secs(10);

impl Cloud {
    /// What a server does now.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is gone, and what the cloud says.
    pub async fn server_state(&self, id: &str) -> Result<ServerState> {
        Ok(self.server_view(id).await?.state)
    }

    /// A server as the cloud has it, whoever made it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is gone, and what the cloud says.
    pub async fn server_view(&self, id: &str) -> Result<ServerView> {
        patiently(READ_LIMIT, &format!("server {id}"), || self.provider().server(id)).await
    }

    /// Every server of the deployment that is on record and stays, whichever process made it. One that another
    /// process made is not ended when it idles here; see [`Server::take_over`].
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn servers(&self) -> Result<Vec<Server>> {
        let record = self.record().await?;
        let entries = record.iter().flat_map(Record::entries);
        Ok(entries.filter_map(|entry| self.handle_of(entry)).collect())
    }

    /// A server of the deployment by the cloud's id, or by its name.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::State`].
    pub async fn server(&self, id_or_name: &str) -> Result<Server> {
        let fits = |server: &&Server| server.id() == id_or_name || server.name() == id_or_name;
        let not_found = || Error::NotFound { kind: "server".to_owned(), name: id_or_name.to_owned() };
        self.servers().await?.iter().find(fits).cloned().ok_or_else(not_found)
    }

    /// The server that calls itself by this host name.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn server_by_host_name(&self, host: &str) -> Result<Option<Server>> {
        Ok(self.servers().await?.into_iter().find(|server| host_name(server.name()) == host))
    }

    /// The first server with an external address; where that one is gone, another that has one.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn head_node(&self) -> Result<Option<Server>> {
        let servers = self.servers().await?;
        let is_outside = |server: &&Server| server.details().external && server.address().is_some();
        let first = servers.iter().find(|server| server.is_head_node());
        Ok(first.or_else(|| servers.iter().find(is_outside)).cloned())
    }

    /// Destroys a server and what belongs to it, and waits until it is gone. One that is gone already is
    /// no fault. No destroy script is run; that is [`Server::destroy`]. Dropped, it goes on; see
    /// [`Self::settled`].
    ///
    /// # Errors
    /// [`Error::BadInput`] for a server that is not the deployment's, [`Error::Timeout`], and what the cloud
    /// says; it is on record then.
    pub async fn destroy(&self, id: &str) -> Result<()> {
        let held = self.held().get(id).and_then(WeakServer::upgrade);
        if let Some(server) = held {
            return server.destroy_at_once().await;
        }
        let (cloud, id) = (self.clone(), id.to_owned());
        self.to_the_end(async move { cloud.remove(&id).await }).await
    }

    /// The one handle of a server: all that hold it share its life.
    pub(crate) fn handle(&self, id: &str, name: &str, details: ServerDetails) -> Server {
        let mut held = self.held();
        // An id may come again where a cloud has few; a name never does.
        let known = held.get(id).and_then(WeakServer::upgrade).filter(|server| server.name() == name);
        if let Some(server) = known {
            server.learn(&details);
            return server;
        }
        held.retain(|_, server| server.upgrade().is_some());
        let server = Server::new(self.clone(), id, name, details);
        held.insert(id.to_owned(), server.downgrade());
        server
    }

    fn handle_of(&self, entry: &Entry) -> Option<Server> {
        match (&entry.phase, entry.kind, &entry.server) {
            (Phase::Made { cloud_id }, Kind::Server, Some(details)) => {
                Some(self.handle(cloud_id, &entry.name, details.clone()))
            }
            _ => None,
        }
    }

    /// Deletes a server of ours and waits until it is gone.
    pub(crate) async fn remove(&self, id: &str) -> Result<()> {
        let read = match self.claim().await {
            Ok(()) => self.record().await,
            Err(error) => Err(error),
        };
        let record = match read {
            Ok(record) => record,
            // It is of another cloud, where the id means nothing, or what is another's.
            Err(error @ Error::State(state::Error::Elsewhere { .. } | state::Error::Unknown { .. })) => {
                return Err(error);
            }
            Err(error) => return self.remove_unread(id, error).await,
        };
        let is_it =
            |entry: &&Entry| entry.kind == Kind::Server && entry.cloud_id() == Some(id) && entry.is_ours();
        if let Some(entry) = record.as_ref().and_then(|record| record.entries().find(is_it)) {
            return self.discard(Some(entry.id), id, &entry.name).await;
        }
        let view = match self.server_view(id).await {
            Err(error) if error.is_not_found() => return Ok(()),
            view => view?,
        };
        if record.is_some_and(|record| is_ours(view.owner, record.deployment())) {
            return self.discard(None, id, &view.name).await;
        }
        let why = format!("it does not belong to `{}`, which destroys only what it made", self.name());
        Err(Error::BadInput { what: "the server", value: id.to_owned(), why })
    }

    /// Deletes a server whose record cannot be read: one that this process holds is ours all the same.
    async fn remove_unread(&self, id: &str, error: Error) -> Result<()> {
        let Some(server) = self.held().get(id).and_then(WeakServer::upgrade) else { return Err(error) };
        tracing::warn!(%error, server = server.name(), "it is destroyed, although the record cannot be read");
        self.discard(None, id, server.name()).await
    }

    /// Deletes a server until it is gone, then what belongs to it, then its entry. When that fails, a task goes
    /// on trying.
    pub(super) async fn discard(&self, entry: Option<EntryId>, id: &str, name: &str) -> Result<()> {
        self.kept().remove(name);
        let answer = self.discard_once(entry, id, name).await;
        if answer.is_err() {
            self.end_leftovers_later();
        }
        answer
    }

    async fn discard_once(&self, entry: Option<EntryId>, id: &str, name: &str) -> Result<()> {
        if let Some(entry) = entry {
            // A disk that is full must not keep a server that costs money.
            if let Err(error) = self.note_leaving(entry).await {
                tracing::warn!(%error, server = name, "cannot note that it is being destroyed");
            }
        }
        let outside = self.outside_addresses(id, name).await;
        self.delete_server(id, name).await?;
        self.release_belongings(id, name, &outside).await?;
        let id = id.to_owned();
        let forget = self.journal().on_disk(move |store| {
            let known = store.secrets()?.admin_password(&id).is_some();
            if known {
                store.change_secrets(|secrets| secrets.set_admin_password(&id, None))?;
            }
            Ok(())
        });
        forget.await?;
        match entry {
            Some(entry) => self.forget_entry(entry).await,
            None => Ok(()),
        }
    }

    /// Deletes a server and waits until the cloud does not know it. Whether it was there.
    pub(super) async fn delete_server(&self, id: &str, name: &str) -> Result<bool> {
        let what = format!("server {name} ({id})");
        self.tell(&what, "being destroyed");
        let began = Instant::now();
        let looker = self.lookers().join(began);
        let (mut asked, mut was_there) = (None::<Instant>, false);
        loop {
            if asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
                match bounded(ASK_LIMIT, &what, self.provider().delete(Kind::Server, id)).await {
                    Ok(()) => (asked, was_there) = (Some(Instant::now()), true),
                    Err(error) if error.is_not_found() => return Ok(was_there),
                    Err(error) => drop(tolerable(error)?),
                }
            }
            let last = match bounded(ASK_LIMIT, &what, self.provider().server(id)).await {
                Ok(view) => view.status,
                Err(error) if error.is_not_found() => return Ok(was_there),
                Err(error) => tolerable(error)?,
            };
            if began.elapsed() >= GOING_LIMIT {
                return Err(Error::Timeout { what, after: began.elapsed(), last, typical: None });
            }
            sleep(looker.pause()).await;
        }
    }

    /// Deletes something else than a server. Whether it was there. Of a volume the end is only begun by the
    /// request, and may fail, so that it is asked until nobody knows the volume.
    pub(super) async fn delete_thing(&self, kind: Kind, id: &str, limit: Duration) -> Result<bool> {
        let what = format!("{kind} {id}");
        let is_volume = kind == Kind::Volume;
        let mut patience = Patience::new(if is_volume { limit.max(VOLUME_LIMIT) } else { limit });
        let mut was_there = false;
        loop {
            let error = match bounded(ASK_LIMIT, &what, self.provider().delete(kind, id)).await {
                Ok(()) if is_volume => {
                    was_there = true;
                    Error::Conflict { what: what.clone(), message: "it is being deleted".to_owned() }
                }
                Ok(()) => return Ok(true),
                Err(error) if error.is_not_found() => return Ok(was_there),
                Err(error) => error,
            };
            if !may_pass(&error) || !patience.pause_after(&error).await {
                return Err(error);
            }
        }
    }

    /// The external addresses of a server, where the id of one is not on record, or one is on record that was
    /// found and not made: a cloud names an address by itself, and after the server's end nothing tells whose it
    /// was.
    async fn outside_addresses(&self, id: &str, name: &str) -> Vec<String> {
        let record = match self.record().await {
            Ok(Some(record)) => record,
            Ok(None) => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, server = name, "what belongs to it cannot be read");
                return Vec::new();
            }
        };
        let is_open = belongings(&record, id, name, &[]).iter().any(|entry| entry.cloud_id().is_none());
        if !is_open && !record.to_destroy().into_iter().any(is_bare_address) {
            return Vec::new();
        }
        match self.server_view(id).await {
            Ok(view) => view.external_addresses.iter().map(IpAddr::to_string).collect(),
            // What it was is left for a look at everything that bears our mark.
            Err(_) => Vec::new(),
        }
    }

    /// Deletes the addresses, ports and volumes that are on record as a server's.
    async fn release_belongings(&self, id: &str, name: &str, outside: &[String]) -> Result<()> {
        let Some(record) = self.record().await? else { return Ok(()) };
        let (deployment, belongings) = (record.deployment(), belongings(&record, id, name, outside));
        let mut found = Vec::new();
        if belongings.iter().any(|entry| entry.cloud_id().is_none()) {
            found = self.survey(Some(deployment)).await?;
        }
        for entry in belongings {
            match id_of(&entry, &found, outside) {
                Some(id) => {
                    self.delete_thing(entry.kind, &id, IN_USE_LIMIT).await?;
                }
                // It may be this very thing, under a name of the cloud's own: the note stays until a deploy
                // or a tear-down has looked.
                None if found.iter().any(|thing| is_unknown(&record, thing, entry.kind)) => continue,
                None => {}
            }
            self.forget_entry(entry.id).await?;
        }
        Ok(())
    }

    async fn note_leaving(&self, entry: EntryId) -> Result<()> {
        let note = self.journal().on_disk(move |store| {
            change_if_there(store, move |record| {
                record.leaving(entry);
                Ok(())
            })
        });
        note.await
    }

    /// Forgets an entry; also when the whole record is gone meanwhile, since a tear-down ended.
    pub(super) async fn forget_entry(&self, entry: EntryId) -> Result<()> {
        let forget = self.journal().on_disk(move |store| {
            change_if_there(store, move |record| {
                record.gone(entry);
                Ok(())
            })
        });
        forget.await
    }
}

fn change_if_there(store: &Store, change: impl FnOnce(&mut Record) -> Result<()>) -> Result<()> {
    // Not even the lock is wanted where there is nothing.
    if store.load()?.is_none() {
        return Ok(());
    }
    match store.change(change) {
        Err(Error::State(state::Error::Absent { .. })) => Ok(()),
        answer => answer,
    }
}

/// The cloud's id of an entry: the one on record, or that of what was found under its name or address.
fn id_of(entry: &Entry, found: &[Found], outside: &[String]) -> Option<String> {
    let is_named = |thing: &Found| thing.name == entry.name || outside.contains(&thing.name);
    let is_it = |thing: &&Found| thing.ours && thing.kind == entry.kind && is_named(thing);
    let noted = entry.cloud_id().map(str::to_owned);
    noted.or_else(|| found.iter().find(is_it).map(|thing| thing.id.clone()))
}

/// Whether something of ours is not on record.
fn is_unknown(record: &Record, thing: &Found, kind: Kind) -> bool {
    let is_it = |entry: &Entry| entry.kind == kind && entry.cloud_id() == Some(&thing.id);
    thing.ours && thing.kind == kind && !record.entries().any(is_it)
}

/// Whether it is an address that was found, and so has no name but its own.
fn is_bare_address(entry: &Entry) -> bool {
    entry.kind == Kind::FloatingIp && entry.name.parse::<IpAddr>().is_ok()
}

/// What is on record as belonging to a server: its name or id is in theirs, or it is one of the server's
/// addresses `outside`.
pub(super) fn belongings(record: &Record, id: &str, name: &str, outside: &[String]) -> Vec<Entry> {
    let belongs = |entry: &&Entry| {
        let is_named = entry.name.contains(name) || entry.name.contains(id);
        matches!(entry.kind, Kind::FloatingIp | Kind::Port | Kind::Volume)
            && (is_named || (is_bare_address(entry) && outside.contains(&entry.name)))
    };
    record.to_destroy().into_iter().filter(belongs).cloned().collect()
}

/// Whether something bears our mark: a provider may tell it as ours, or by the mark itself.
pub(super) fn is_ours(owner: Owner, id: DeploymentId) -> bool {
    owner == Owner::Us || owner == Owner::Another(id)
}

fn tolerable(error: Error) -> Result<String> {
    if may_pass(&error) { Ok(error.to_string()) } else { Err(error) }
}
