//! The agent's REST over HTTP: a request finds its handler in `route`, the handler proves, translates, submits and
//! answers. What mistify's agent serves is in `mistify-wire` §2.10.

pub(crate) mod guard;
mod guest;
mod host;
mod image;
mod job;
pub(crate) mod listen;
mod metadata;
mod metrics;
mod passing;
mod profile;
mod progress;
mod reply;
mod route;
mod snapshot;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use uuid::Uuid;

use super::cloud::{self, Cloud};
use super::config::Plan;
use super::engine::Engine;
use super::hands::Hands;
use super::runners::{Answer as Told, Input, Refused};
use super::throttle::Throttles;
use host::Door;
use reply::{Answer, Body, Fail, json, with_job};
use route::{Found, Route, find};

/// Bytes of a request's body.
const MOST_BODY: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// What is escaped in a path that a client is sent to.
const IN_PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`');

/// What handlers work with.
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) cloud: Cloud,
    pub(crate) hands: Hands,
    pub(crate) plan: Arc<Plan>,
    pub(crate) throttles: Throttles,
    pub(crate) profiling: Profiling,
}

/// Whether `/debug/pprof` is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profiling {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// A request's query, by key; of a key given twice the first counts.
type Query = BTreeMap<String, String>;

/// Answers a request, whatever comes of it.
pub(crate) async fn handle(
    app: Arc<App>,
    request: Request<Incoming>,
    door: Door,
) -> Result<Response<Body>, Infallible> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let Ok(path) = percent_decode_str(uri.path()).decode_utf8() else { return Ok(reply::no_such_page()) };
    let response = match find(&method, &path) {
        _ if !door.admits(request.headers()) => reply::not_admitted(),
        _ if !door.is_of(&request) => {
            let words =
                "over TCP the agent is asked as localhost or by a loopback address, and by no other name";
            Fail::new(StatusCode::FORBIDDEN, words).response()
        }
        _ if is_of_a_page(request.headers()) => {
            let words = "a page in a browser may not speak to the agent; use a client of its own";
            Fail::new(StatusCode::FORBIDDEN, words).response()
        }
        Found::Nothing => reply::no_such_page(),
        Found::Moved(to) => {
            let to = utf8_percent_encode(&to, IN_PATH).to_string();
            let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            reply::moved(&format!("{to}{query}"))
        }
        Found::Route(route) => {
            let answered = answer(&app, route, request, uri.query().unwrap_or_default()).await;
            answered.unwrap_or_else(Fail::response)
        }
    };
    let status = response.status().as_u16();
    if status >= 500 {
        tracing::warn!(%method, path = %path, status, "a request to the agent's REST failed");
    } else {
        tracing::debug!(%method, path = %path, status, "answered");
    }
    Ok(response)
}

/// Whether a browser sends it on behalf of a page: whoever reads that page on this host would be its root.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

async fn answer(app: &App, route: Route, request: Request<Incoming>, query: &str) -> Answer {
    let query = parsed(query)?;
    match route {
        Route::Metadata => metadata::of_agent(app).await,
        Route::PatchMetadata => metadata::patch_agent(app, &body(request).await?).await,
        Route::ListImages(images) => image::list(app, images, &query).await,
        Route::FetchImage(images) => image::fetch(app, images, &body(request).await?).await,
        Route::GetImage(images, id) => image::get(app, images, &id).await,
        Route::DeleteImage(images, id) => image::delete(app, images, &id).await,
        Route::ListJobs => job::list(app, None, &query).await,
        Route::GetJob(id) => job::get(app, None, &id).await,
        Route::CancelJob(id) => job::cancel(app, &id).await,
        Route::ListGuests => guest::list(app).await,
        Route::CreateGuest => guest::create(app, &body(request).await?).await,
        Route::GetGuest(id) => guest::get(app, &id).await,
        Route::Act { guest, action } => guest::act(app, &guest, &action).await,
        Route::GuestJobs(guest) => job::list(app, Some(&guest), &query).await,
        Route::GuestJob { guest, job } => job::get(app, Some(&guest), &job).await,
        Route::GuestMetadata(guest) => metadata::of_guest(app, &guest).await,
        Route::PatchGuestMetadata(guest) => metadata::patch_guest(app, &guest, &body(request).await?).await,
        Route::Metrics { guest, kind } => metrics::get(app, &guest, kind).await,
        Route::ListSnapshots(target) => snapshot::list(app, &target, None).await,
        Route::GetSnapshot(target, name) => snapshot::list(app, &target, Some(&name)).await,
        Route::CreateSnapshot(target) => snapshot::create(app, &target, &body(request).await?).await,
        Route::DeleteSnapshot(target, name) => snapshot::delete(app, &target, &name).await,
        Route::RollbackSnapshot(target, name) => {
            snapshot::rollback(app, &target, &name, &body(request).await?).await
        }
        Route::DownloadSnapshot(target, name) => {
            snapshot::download(app, &target, &name, request.headers()).await
        }
        Route::Profile(name) => Ok(profile::get(app.profiling, &name)),
    }
}

fn parsed(query: &str) -> Result<Query, Fail> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
        .map_err(|error| Fail::bad(format!("the query cannot be read: {error}")))?;
    Ok(pairs.into_iter().rev().collect())
}

/// A request's whole body, within its limits.
async fn body(request: Request<Incoming>) -> Result<Bytes, Fail> {
    let collected = Limited::new(request.into_body(), MOST_BODY).collect();
    let late = |_| Fail::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
    let collected = tokio::time::timeout(BODY_TIME, collected).await.map_err(late)?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fail::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {MOST_BODY} bytes"),
        )),
        Err(_) => Err(Fail::bad("the body broke off")),
    }
}

impl App {
    /// Gives an input and waits until it is durable.
    async fn submit(&self, input: Input) -> Result<Told, Fail> {
        Ok(self.engine.submit(input).await??)
    }

    /// The id of a guest that is not the controller's: of those nothing but the power can be changed here.
    async fn own(&self, text: &str, action: &str) -> Result<Uuid, Fail> {
        let guest = guest_id(text)?;
        match self.cloud.guest(guest).await? {
            None => Ok(guest),
            Some(_) => Err(cloud::Error::Theirs { guest, action: action.to_owned() }.into()),
        }
    }

    /// A guest as it is stored, or the controller's as the node knows it.
    async fn guest(&self, text: &str) -> Result<(Uuid, haar_api::agent::Guest), Fail> {
        let id = guest_id(text)?;
        if let Some(guest) = self.cloud.guest(id).await? {
            return Ok((id, guest));
        }
        let found =
            self.engine.read(move |runners| runners.guest(id).map(|record| record.guest.clone())).await?;
        found.map(|guest| (id, guest)).ok_or_else(|| Refused::NoSuchGuest(id).into())
    }
}

/// A guest's id in a path; what is no id is nobody's.
fn guest_id(text: &str) -> Result<Uuid, Fail> {
    let nobody = || {
        let text: String = text.chars().take(64).collect();
        Fail::not_found(format!("guest `{text}` does not exist"))
    };
    super::check::id(text).ok_or_else(nobody)
}

/// 202 with the job's id.
fn accepted<T: serde::Serialize + ?Sized>(value: &T, job: Uuid) -> Answer {
    Ok(with_job(json(StatusCode::ACCEPTED, value), job))
}
