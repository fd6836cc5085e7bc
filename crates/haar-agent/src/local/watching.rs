//! Keeping the states of guests as they are: what happens to them unasked is told by a service that is watched.
//!
//! A change only says "look": the state comes from `Libvirt.Status`. A guest with a job under way is looked at when
//! that has ended, one that cannot be looked at just now is looked at again. Containers are looked at in
//! [`containers`](super::containers). Deliberately absent: any other consequence; nothing is started, stopped or
//! removed here.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
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
/// Between two tries when the service cannot tell: another one may take its place.
const SLOW: Duration = Duration::from_secs(60);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(20);
/// The state of a guest that is gone from where it ran.
pub(super) const STATE_UNKNOWN: &str = "unknown";

/// Has a watch begin again whenever it ends by a defect: nobody would see that the states lag behind.
pub(super) async fn without_end<F>(what: &str, watch: impl Fn() -> F)
where
    F: Future<Output = ()>,
{
    loop {
        if AssertUnwindSafe(watch()).catch_unwind().await.is_err() {
            tracing::error!(what, "watching guests stopped by a defect, the log says where; it begins again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Watches one service for as long as this is awaited.
pub(super) async fn keep(app: Arc<App>, name: String, service: Service) {
    let mut cursor = String::new();
    let mut changed = BTreeSet::new();
    let mut has_warned = false;
    loop {
        // While guests are owed a look nothing is waited for.
        let wait_s = if changed.is_empty() { WAIT_S } else { 0 };
        let asked = Instant::now();
        let pause = match ask(&service, &cursor, wait_s).await {
            Ok(answer) => {
                if answer.all {
                    changed.extend(guests(&app).await);
                }
                changed.extend(answer.changes.iter().filter_map(|change| Uuid::parse_str(&change.id).ok()));
                cursor = answer.cursor;
                look(&app, &name, &mut changed).await;
                // Also a service that does not wait is not asked without pause.
                PAUSE.saturating_sub(asked.elapsed())
            }
            Err(CallError::Refused { status: status @ (400 | 404), text }) => {
                if !std::mem::replace(&mut has_warned, true) {
                    tracing::warn!(
                        service = name,
                        status,
                        text,
                        "tells of no changes: states may lag behind"
                    );
                }
                SLOW
            }
            // It is being started, or ends; whoever calls it for a job says so.
            Err(error) => {
                tracing::debug!(service = name, %error, "cannot be watched just now");
                PAUSE
            }
        };
        tokio::time::sleep(pause).await;
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
            let guest = record.map(|record| record.guest.clone());
            (guest, runners.is_busy(Owner::Guest(id)), runners.next_seq())
        });
        // Nobody is there any more when the agent stops.
        let Ok((guest, is_busy, next_seq)) = read.await else { return };
        if is_busy {
            continue;
        }
        if let Some(guest) = guest.filter(|guest| !guest.is_container()) {
            let Some(state) = state(app, service, &guest).await else { continue };
            if !state.is_empty() {
                let _ = app.engine.give(Input::Seen { guest: id, state, next_seq }).await;
            }
        }
        changed.remove(&id);
    }
}

/// None when it cannot be told just now; empty when the service does not say.
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
        Ok(answer) => Some(answer.guest.map(|guest| guest.state).unwrap_or_default()),
        Err(failure) if matches!(failure.why, Why::Absent | Why::Foreign) => Some(STATE_UNKNOWN.to_owned()),
        Err(failure) => {
            tracing::debug!(guest = guest.id, why = failure.message, "its state cannot be told just now");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_watch_that_stopped_by_a_defect_begins_again() {
        let begun = AtomicU32::new(0);
        let watched = tokio::sync::Notify::new();
        let watch = without_end("a test", async || {
            assert!(begun.fetch_add(1, Ordering::Relaxed) > 0, "a defect");
            watched.notify_one();
            std::future::pending::<()>().await;
        });
        tokio::select! {
            () = watch => {}
            () = watched.notified() => {}
        }
        assert_eq!(begun.load(Ordering::Relaxed), 2);
    }
}
