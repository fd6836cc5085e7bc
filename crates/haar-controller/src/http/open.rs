//! Open to all: health, readiness, numbers, the OpenAPI document, and a page.

use std::sync::{LazyLock, PoisonError};

use haar_api::openapi::openapi_text;
use haar_api::problem::ErrorCode;
use haar_api::table::{Healthz, Metrics, OpenApi, Page, Readyz};
use http::StatusCode;

use super::ask::Ask;
use super::reply::{No, Reply, text};
use crate::liveness::Clock;
use crate::metrics::Reading;
use crate::wire::status;

static OPENAPI: LazyLock<String> = LazyLock::new(openapi_text);

/// `GET /healthz`.
pub(crate) async fn healthz(_: Ask<Healthz>) -> Reply {
    Ok(text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"))
}

/// `GET /readyz`.
pub(crate) async fn readyz(ask: Ask<Readyz>) -> Reply {
    if ask.app.engine.is_ready() && !ask.app.stopping.is_cancelled() {
        return Ok(text(StatusCode::OK, "text/plain; charset=utf-8", "ready\n"));
    }
    Err(No::of(ErrorCode::NotReady, "the books cannot be written now"))
}

/// `GET /metrics`.
pub(crate) async fn metrics(ask: Ask<Metrics>) -> Reply {
    let app = &ask.app;
    let checked = *app.checked.lock().unwrap_or_else(PoisonError::into_inner);
    let reading = app.look(|look| {
        let jobs = status::jobs(look, Clock::wall());
        Reading {
            queue_depth: app.engine.waiting(),
            revision: look.fleet.fence().revision,
            hypervisors: status::hypervisors(look).into_iter().collect(),
            guests: status::guests(look).into_iter().collect(),
            jobs_open: jobs.running,
            job_oldest_seconds: jobs.oldest_ms as f64 / 1000.0,
            books_faults: checked.map(|checked| checked.faults),
            flushes: app.meter.as_ref().map(|meter| meter.flushes()),
        }
    });
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(text(StatusCode::OK, media, app.engine.metrics.text(&reading)))
}

/// `GET /openapi.json`.
pub(crate) async fn openapi(_: Ask<OpenApi>) -> Reply {
    Ok(text(StatusCode::OK, "application/json", OPENAPI.as_str()))
}

/// `GET /`.
pub(crate) async fn page(_: Ask<Page>) -> Reply {
    Ok(text(StatusCode::OK, "text/html; charset=utf-8", include_str!("page.html")))
}
