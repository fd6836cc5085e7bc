//! The cloud as a whole: who asks, status, capacity, check, settings, and a machine declared lost.

use std::sync::PoisonError;

use haar_api::table::{Capacity, Check, ConfigSet, ConfigShow, HypervisorLost, Status, Whoami};
use haar_api::v1::{CheckView, CheckedView, ConfigPatch, FenceText, StatusView};
use haar_core::fleet::command::{Command, Outcome};
use haar_core::id::Kind;
use http::StatusCode;

use super::App;
use super::ask::Ask;
use super::noun::object;
use super::reply::{Reply, json, tagged};
use crate::engine::Failure;
use crate::liveness::Clock;
use crate::wire::hypervisor::Hypervisors;
use crate::wire::look::Look;
use crate::wire::{config, status, time, token};

/// `GET /v1/whoami`.
pub(crate) async fn whoami(ask: Ask<Whoami>) -> Reply {
    let view = ask.app.look(|look| token::whoami(&ask.who, look));
    Ok(json(StatusCode::OK, &view))
}

/// `GET /v1/status`.
pub(crate) async fn show_status(ask: Ask<Status>) -> Reply {
    let app = &ask.app;
    let checked = *app.checked.lock().unwrap_or_else(PoisonError::into_inner);
    let view = app.look(|look| {
        let [total, promised, used] = status::total_promised_and_used(look);
        StatusView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cloud: look.fleet.config().cloud,
            host: app.host.clone(),
            revision: FenceText(look.fleet.fence()),
            uptime_s: app.started.elapsed().as_secs(),
            hypervisors: status::hypervisors(look),
            guests: status::guests(look),
            jobs: status::jobs(look, Clock::wall()),
            total,
            promised,
            used,
            checked,
        }
    });
    Ok(json(StatusCode::OK, &view))
}

/// `GET /v1/capacity`.
pub(crate) async fn capacity(ask: Ask<Capacity>) -> Reply {
    let view = ask.app.look(status::capacity);
    Ok(json(StatusCode::OK, &view))
}

/// `GET /v1/check`.
pub(crate) async fn check(ask: Ask<Check>) -> Reply {
    Ok(json(StatusCode::OK, &check_books(&ask.app).await))
}

/// Checks a copy of the books in a thread of its own, and remembers how it went. One at a time: it takes
/// memory as large as the books' indexes.
pub(crate) async fn check_books(app: &App) -> CheckView {
    let _turn = app.checking.lock().await;
    let shared = app.engine.shared();
    let checking = tokio::task::spawn_blocking(move || {
        // Records are shared, only the indexes are copied; nobody waits for the check itself.
        let fleet = shared.read(Clone::clone);
        let look = Look::new(&fleet, &shared.liveness);
        let faults = fleet.check().into_iter();
        CheckView {
            revision: FenceText(fleet.fence()),
            checked_at: time(Clock::wall()),
            compared: status::compared(&look),
            faults: faults.map(|fault| status::fault(&fault)).collect(),
            strangers: status::strangers(&look),
        }
    });
    let view = checking.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let result = CheckedView { at: view.checked_at, faults: view.faults.len() as u64 };
    *app.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    view
}

/// `GET /v1/config`.
pub(crate) async fn config_show(ask: Ask<ConfigShow>) -> Reply {
    Ok(shown(&ask.app))
}

/// `PATCH /v1/config`.
pub(crate) async fn config_set(ask: Ask<ConfigSet>, body: ConfigPatch) -> Reply {
    let command = config::set(body, ask.if_match()?);
    ask.app.engine.submit(command).await?;
    Ok(shown(&ask.app))
}

fn shown(app: &App) -> axum::response::Response {
    let (view, revision) = app.look(|look| (config::view(look.fleet.config()), look.fleet.config().revision));
    tagged(json(StatusCode::OK, &view), revision)
}

/// `POST /v1/hypervisors/{ref}/lost`.
pub(crate) async fn hypervisor_lost(ask: Ask<HypervisorLost>) -> Reply {
    let id = ask.app.look(|look| ask.resolve(Kind::Hypervisor, ask.query.project.as_ref(), look))?;
    // A task of its own: all guests are settled even when whoever asks hangs up.
    let engine = ask.app.engine.clone();
    let settling = tokio::spawn(async move {
        while engine.submit(Command::DeclareLost(id.into())).await?.outcome != Outcome::Same {}
        Ok::<(), Failure>(())
    });
    settling.await.unwrap_or(Err(Failure::OutcomeUnknown))?;
    object::<Hypervisors>(&ask.app, StatusCode::OK, id)
}
