//! Asking the cloud for a server so that it is never there without anybody knowing.
//!
//! The request is not cut off by a cancellation: its answer is waited for. When the answer is lost, the
//! server is looked for by its name, which nobody else has, and used if it is there. So it is before a cloud
//! that was busy is asked once more. One that does not show
//! is looked for a while longer in the background, and deleted when it shows; its note stays until then.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Cloud;
use super::spawn::{Draft, Spawn};
use super::wait::{ASK_LIMIT, Patience, bounded, may_pass, retry_after};
use crate::provider::{NewServer, ServerView};
use crate::state::EntryId;
use crate::{Class, Error, Result};

/// How long the cloud may take to accept a server.
const CREATE_LIMIT: Duration = Duration::from_secs(5 * 60);
/// How long a cloud that asks us to wait is asked again.
const BUSY_LIMIT: Duration = Duration::from_secs(120);
/// How long a caller waits for a server whose answer was lost.
const LOST_LIMIT: Duration = Duration::from_secs(10);
/// How long it is looked for after that.
const LATE_LIMIT: Duration = Duration::from_secs(120);
const LATE_PAUSE: Duration = Duration::from_secs(10);

/// What the cloud began to make.
pub(super) type Created = NewServer;

impl Spawn {
    /// Asks for the server. After an error it is not there, or a task goes on looking for it.
    pub(super) async fn create(&self, draft: &Draft, entry: EntryId) -> Result<Created> {
        let mut patience = Patience::new(BUSY_LIMIT);
        loop {
            let error = match self.cloud.ask_for_server(draft).await {
                Ok(created) => return Ok(created),
                Err(error) => error,
            };
            if is_doubtful(&error) {
                return self.look_for_lost(draft, entry, error).await;
            }
            if retry_after(&error).is_some() {
                let pause = self.cancel.run_until_cancelled(patience.pause_after(&error));
                let again = pause.await == Some(true);
                // Whoever answers for a busy cloud may have handed the request on all the same.
                match self.cloud.look_by_name(draft, &mut patience).await {
                    Ok(Some(view)) => return Ok(NewServer { id: view.id, admin_password: None }),
                    Ok(None) if again => continue,
                    Ok(None) => {}
                    Err(_) => return self.look_for_lost(draft, entry, error).await,
                }
            }
            self.cloud.refused(draft, entry, &error).await?;
            return Err(error);
        }
    }

    async fn look_for_lost(&self, draft: &Draft, entry: EntryId, error: Error) -> Result<Created> {
        let name = draft.name();
        self.cloud.tell(format_args!("server {name}"), format!("looking whether it was made ({error})"));
        let mut patience = Patience::new(LOST_LIMIT);
        loop {
            match self.cloud.find_by_name(draft).await {
                Ok(Some(view)) => return Ok(NewServer { id: view.id, admin_password: None }),
                Ok(None) | Err(_) if patience.pause_after(&error).await => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.cloud.watch_for_late(draft, entry);
        Err(error)
    }
}

impl Cloud {
    async fn ask_for_server(&self, draft: &Draft) -> Result<Created> {
        let ask = self.provider().create_server(&draft.deployment, &draft.order, self.journal());
        bounded(CREATE_LIMIT, &format!("server {}", draft.name()), ask).await
    }

    /// The server of a draft, if the cloud has one with its name and our mark.
    async fn find_by_name(&self, draft: &Draft) -> Result<Option<ServerView>> {
        let servers = bounded(ASK_LIMIT, "the servers", self.provider().servers()).await?;
        let id = draft.deployment.id;
        Ok(servers
            .into_iter()
            .find(|view| view.name == draft.name() && super::servers::is_ours(view.owner, id)))
    }

    /// As [`Self::find_by_name`], asked again as long as the patience lasts.
    async fn look_by_name(&self, draft: &Draft, patience: &mut Patience) -> Result<Option<ServerView>> {
        loop {
            match self.find_by_name(draft).await {
                Err(error) if may_pass(&error) && patience.pause_after(&error).await => {}
                answer => return answer,
            }
        }
    }

    /// Goes on looking for a server that may have been made, to delete it.
    fn watch_for_late(&self, draft: &Draft, entry: EntryId) {
        let (cloud, name) = (self.clone(), draft.name().to_owned());
        let draft = draft.clone();
        self.background().spawn(async move {
            let began = Instant::now();
            loop {
                sleep(LATE_PAUSE).await;
                let found = cloud.find_by_name(&draft).await;
                let answer = match found {
                    Ok(Some(view)) => cloud.discard(Some(entry), &view.id, &name).await,
                    Ok(None) if began.elapsed() >= LATE_LIMIT => cloud.abandon(&draft, entry).await,
                    // Nobody knows; the note stays, for the next deploy or tear-down.
                    Err(error) if began.elapsed() >= LATE_LIMIT => Err(error),
                    Ok(None) | Err(_) => continue,
                };
                if let Err(error) = answer {
                    tracing::warn!(%error, server = name, "it stays on record, it may be there");
                }
                return;
            }
        });
    }
}

/// Whether the server may have been made all the same.
fn is_doubtful(error: &Error) -> bool {
    match error.class() {
        Class::Transient => retry_after(error).is_none(),
        Class::Timeout | Class::Cancelled | Class::State => true,
        _ => false,
    }
}
