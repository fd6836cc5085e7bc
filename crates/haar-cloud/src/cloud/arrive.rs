//! From a server that was asked for to one that runs and can be reached.
//!
//! A failed look is no failed server: what may pass is borne for two minutes. A server without an address in
//! the deployment's network is of no use, and says so; it is never taken for one at no address at all.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Cloud;
use super::spawn::Draft;
use super::wait::{ASK_LIMIT, Patience, bounded, may_pass, retry_after};
use crate::provider::{ServerState, ServerView};
use crate::state::{self, Entry, EntryId, Kind, Phase, ServerDetails};
use crate::{Error, Result};

/// How long a cloud that gives no answers is asked on about a server that is being made.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// How long a cloud may take to show a server that it has just accepted.
const SHOWN_AFTER: Duration = Duration::from_secs(10);
/// How long an active server may be without its address.
const ADDRESS_LIMIT: Duration = Duration::from_secs(30);
/// How long the cloud may take to give a server an external address.
const EXTERNAL_LIMIT: Duration = Duration::from_secs(120);
/// How long failures of that are borne which may pass.
const EXTERNAL_PATIENCE: Duration = Duration::from_secs(60);

impl Cloud {
    /// Waits until the server runs.
    pub(super) async fn until_active(&self, draft: &Draft, id: &str, began: Instant) -> Result<ServerView> {
        let limit = self.pace().limit(draft.boot);
        let typical = self.pace().typical(draft.boot);
        let what = format!("server {}", draft.name());
        let mut last = "not at all".to_owned();
        let mut answered = Instant::now();
        let looker = self.lookers().join(began);
        loop {
            let mut pause = looker.pause();
            match bounded(ASK_LIMIT, &what, self.provider().server(id)).await {
                Ok(view) => {
                    answered = Instant::now();
                    if last != view.status {
                        self.tell(&what, format!("being made ({})", view.status));
                    }
                    last.clone_from(&view.status);
                    if let Some(view) = judged(view)? {
                        return Ok(view);
                    }
                }
                Err(error) if error.is_not_found() => {
                    if began.elapsed() > SHOWN_AFTER {
                        return Err(failed(draft.name(), "it vanished while it was being made"));
                    }
                }
                Err(error) if error.is_transient() && answered.elapsed() < SILENCE_LIMIT => {
                    pause = retry_after(&error).unwrap_or(pause).max(pause);
                }
                Err(error) => return Err(error),
            }
            if began.elapsed() >= limit {
                return Err(Error::Timeout { what, after: began.elapsed(), last, typical });
            }
            sleep(pause.min(limit.saturating_sub(began.elapsed()))).await;
        }
    }

    /// Waits until the server has an address in the deployment's network; gives the first one.
    pub(super) async fn until_addressed(
        &self,
        draft: &Draft,
        mut view: ServerView,
    ) -> Result<(ServerView, IpAddr)> {
        let cidr = draft.deployment.ground.cidr;
        let is_inside = |address: &&IpAddr| matches!(address, IpAddr::V4(address) if cidr.contains(address));
        let began = Instant::now();
        let looker = self.lookers().join(began);
        loop {
            if let Some(address) = view.addresses.iter().find(is_inside).copied() {
                return Ok((view, address));
            }
            if began.elapsed() >= ADDRESS_LIMIT {
                let others: Vec<String> = view.addresses.iter().map(IpAddr::to_string).collect();
                let has = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
                return Err(failed(
                    draft.name(),
                    &format!("it should have an address in {cidr} and has {has}"),
                ));
            }
            sleep(looker.pause()).await;
            match bounded(ASK_LIMIT, draft.name(), self.provider().server(&view.id)).await {
                Ok(fresh) => view = fresh,
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the server an address of its own that others can reach.
    pub(super) async fn external_address(&self, draft: &Draft, view: &ServerView) -> Result<IpAddr> {
        let what = format!("server {}", draft.name());
        self.tell(&what, "getting an external address");
        let mut patience = Patience::new(EXTERNAL_PATIENCE);
        loop {
            let add = self.provider().add_external_address(&draft.deployment, view, self.journal());
            match bounded(EXTERNAL_LIMIT, &what, add).await {
                Err(error) if may_pass(&error) && patience.pause_after(&error).await => {}
                answer => return answer,
            }
        }
    }

    /// Notes the id of a server, and its password. Refuses where everything is being torn down: the server
    /// is not to stay.
    pub(super) async fn note_made(&self, entry: EntryId, id: &str, password: Option<String>) -> Result<()> {
        let (id, name) = (id.to_owned(), self.name().to_string());
        self.journal()
            .on_disk(move |store| {
                let unwanted = store.change(|record| {
                    record.made(entry, &id)?;
                    Ok(record.is_tearing_down())
                })?;
                if unwanted {
                    return Err(state::Error::TearingDown { name }.into());
                }
                match password {
                    Some(password) => {
                        store.change_secrets(|secrets| secrets.set_admin_password(&id, Some(&password)))
                    }
                    None => Ok(()),
                }
            })
            .await
    }

    /// Notes where the server is. The first one with an external address is the head node.
    pub(super) async fn note_arrival(&self, entry: EntryId, address: IpAddr) -> Result<ServerDetails> {
        let name = self.name().to_string();
        self.journal()
            .change(move |record| {
                if record.is_tearing_down() {
                    return Err(state::Error::TearingDown { name }.into());
                }
                let stays = |entry: &&Entry| !matches!(entry.phase, Phase::Leaving { .. });
                let servers = record.entries().filter(stays).filter(|entry| entry.kind == Kind::Server);
                let has_head =
                    servers.filter_map(|entry| entry.server.as_ref()).any(|server| server.head_node);
                let known = record.entry(entry).and_then(|entry| entry.server.clone());
                let mut details =
                    known.ok_or(Error::Cancelled { what: "a server that was destroyed".to_owned() })?;
                details.address = Some(address);
                details.head_node = details.external && !has_head;
                record.describe_server(entry, details.clone())?;
                Ok(details)
            })
            .await
    }
}

/// The view of a server that runs; `None` for one that is still being made.
fn judged(view: ServerView) -> Result<Option<ServerView>> {
    match view.state {
        ServerState::Active => Ok(Some(view)),
        ServerState::Building | ServerState::Inactive => Ok(None),
        ServerState::Failed => {
            Err(view.fault.unwrap_or_else(|| failed(&view.name, &format!("the cloud says {}", view.status))))
        }
        ServerState::Leaving => Err(failed(&view.name, "somebody destroys it while it is being made")),
    }
}

fn failed(server: &str, message: &str) -> Error {
    Error::ServerFailed { server: server.to_owned(), message: message.to_owned() }
}
