//! Keeping the states of containers as they are: one that ended, or was ended behind the agent's back, is seen.
//!
//! Their service tells of nothing by itself. It is asked by the clock, for each of the agent's own guests that are
//! containers and are not worked on; `MDocker.GetContainer` is the seed's. Deliberately absent: any consequence but
//! the state that is served.

use std::sync::Arc;
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode};
use haar_api::rpc_client::{self, CallError};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::config::{Plan, Service};
use super::http::App;
use super::runners::{Input, Owner};
use super::watching::STATE_UNKNOWN;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(20);

/// The answer, as far as it is read.
#[derive(Deserialize)]
struct Containers {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(rename = "State")]
    state: State,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct State {
    running: bool,
    paused: bool,
}

/// The service that starts containers, when it speaks the seed's methods for them.
pub(super) fn service(plan: &Plan) -> Option<&Service> {
    let stage = plan.stages("containerStart")?.last()?;
    plan.services.get(&stage.service).filter(|_| stage.method.starts_with("MDocker."))
}

/// Looks at containers for as long as this is awaited.
pub(super) async fn keep(app: Arc<App>, service: Service) {
    loop {
        let read = app.engine.read(|runners| {
            let idle = runners.guests().filter(|record| record.guest.is_container() && record.left.is_none());
            let ids = idle.filter_map(|record| Uuid::parse_str(&record.guest.id).ok());
            let ids: Vec<Uuid> = ids.filter(|id| !runners.is_busy(Owner::Guest(*id))).collect();
            (ids, runners.next_seq())
        });
        // Nobody is there any more when the agent stops.
        let Ok((ids, next_seq)) = read.await else { return };
        for guest in ids {
            match look(&service, guest).await {
                Ok(Some(state)) => {
                    let state = state.to_owned();
                    let _ = app.engine.give(Input::Seen { guest, state, next_seq }).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%guest, %error, "the states of containers cannot be told just now");
                    break;
                }
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The state of one, None when the service does not say.
///
/// # Errors
/// The service cannot be asked.
async fn look(service: &Service, guest: Uuid) -> Result<Option<&'static str>, CallError> {
    // Beside the service's limit of calls, as no job may be held up by it.
    let asked = json!({"id": guest});
    let (address, path) = (&service.address, &service.path);
    match rpc_client::call::<_, Containers>(address, path, "MDocker.GetContainer", &asked, LOOK).await {
        Ok(answer) => Ok(answer.containers.first().map(|container| word(&container.state))),
        Err(CallError::Fault(fault)) if is_absence(&fault) => Ok(Some(STATE_UNKNOWN)),
        Err(CallError::Fault(_) | CallError::Json(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// As the jobs' answers have it.
fn word(state: &State) -> &'static str {
    match state {
        State { paused: true, .. } => "paused",
        State { running: true, .. } => "running",
        State { .. } => "stopped",
    }
}

/// Docker says it in words.
fn is_absence(fault: &Fault) -> bool {
    fault.code == FaultCode::NotFound || fault.message.to_ascii_lowercase().starts_with("no such container")
}
