//! Keeping the states of guests as they are: what happens to them unasked is told by a service that is watched.
//!
//! A change only says "look": the state comes from `Libvirt.Status`. A guest with a job under way is looked at when
//! that has ended. Deliberately absent: any other consequence; nothing is started, stopped or removed here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use haar_api::agent::{Guest, GuestRequest, GuestResponse};
use haar_api::rpc::libvirt::{ChangesRequest, ChangesResponse};
use haar_api::rpc_client::{self, CallError};
use uuid::Uuid;

use super::config::{Service, Stage};
use super::http::App;
use super::runners::{Input, Owner, Why};

/// How long a question waits for something to happen, in seconds.
const WAIT_S: u32 = 30;
/// How long its answer may take on top.
const LATE: Duration = Duration::from_secs(10);
/// Between two tries when the service does not answer, and between two looks at a guest that is being worked on.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(20);
/// The state of a guest whose domain is gone.
const STATE_UNKNOWN: &str = "unknown";

/// Watches one service for as long as this is awaited.
pub(super) async fn keep(app: Arc<App>, name: String, service: Service) {
    let mut cursor = String::new();
    let mut changed = BTreeSet::new();
    loop {
        // While guests are owed a look nothing is waited for.
        let wait_s = if changed.is_empty() { WAIT_S } else { 0 };
        match ask(&service, &cursor, wait_s).await {
            Ok(answer) => {
                if answer.all {
                    changed.extend(guests(&app).await);
                }
                changed.extend(answer.changes.iter().filter_map(|change| Uuid::parse_str(&change.id).ok()));
                cursor = answer.cursor;
            }
            Err(CallError::Refused { status, text }) => {
                tracing::warn!(service = name, status, text, "tells of no changes: states may lag behind");
                return;
            }
            // It is being started, or ends; whoever calls it for a job says so.
            Err(error) => {
                tracing::debug!(service = name, %error, "cannot be watched just now");
                tokio::time::sleep(PAUSE).await;
            }
        }
        look(&app, &name, &mut changed).await;
        if !changed.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn ask(service: &Service, cursor: &str, wait_s: u32) -> Result<ChangesResponse, CallError> {
    let limit = Duration::from_secs(wait_s.into()) + LATE;
    let question = ChangesRequest { cursor: cursor.to_owned(), wait_s };
    // Beside the service's limit of calls: a question that waits must not hold up a job.
    rpc_client::call(&service.address, &service.path, "Libvirt.Changes", &question, limit).await
}

async fn guests(app: &App) -> Vec<Uuid> {
    let read = app.engine.read(|runners| {
        runners.guests().filter_map(|record| Uuid::parse_str(&record.guest.id).ok()).collect()
    });
    read.await.unwrap_or_default()
}

/// Looks at guests that changed; those that must be looked at again stay in the set.
async fn look(app: &App, service: &str, changed: &mut BTreeSet<Uuid>) {
    for id in changed.clone() {
        let read = app.engine.read(move |runners| {
            let record = runners.guest(id).filter(|record| record.left.is_none());
            (record.map(|record| record.guest.clone()), runners.is_busy(Owner::Guest(id)))
        });
        let state = match read.await {
            Ok((_, true)) => continue,
            Ok((Some(guest), false)) if !guest.is_container() => state(app, service, &guest).await,
            Ok(_) | Err(_) => None,
        };
        changed.remove(&id);
        if let Some(state) = state {
            // Nobody is there any more when the agent stops.
            let _ = app.engine.give(Input::Seen { guest: id, state }).await;
        }
    }
}

/// None when it cannot be told.
async fn state(app: &App, service: &str, guest: &Guest) -> Option<String> {
    let stage = Stage {
        service: service.to_owned(),
        method: "Libvirt.Status".to_owned(),
        args: Default::default(),
        timeout: LOOK,
        quiesce: None,
    };
    let request = GuestRequest { guest, action: "status", args: &stage.args };
    match app.hands.ask::<_, GuestResponse>(&stage, &request).await {
        Ok(answer) => answer.guest.map(|guest| guest.state).filter(|state| !state.is_empty()),
        Err(failure) if failure.why == Why::Absent => Some(STATE_UNKNOWN.to_owned()),
        Err(failure) => {
            tracing::warn!(guest = guest.id, why = failure.message, "its state cannot be told");
            None
        }
    }
}
