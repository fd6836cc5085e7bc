//! Console and log of a guest: a client's end and the agent's end, spliced.
//!
//! The client is answered only once the agent has dialled, so that a "no" is a problem and not a dead
//! stream. Spliced streams outlive their requests and end with the controller, or with the token of
//! either end.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use haar_api::feed::StreamKind;
use haar_api::problem::ErrorCode;
use haar_api::table::{AgentStream, GuestConsole, GuestLog};
use haar_core::guest::{Goal, Place, State};
use haar_core::id::{GuestId, Kind, TokenId};
use haar_core::refusal::Refusal;
use http::StatusCode;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::io::ReaderStream;

use super::App;
use super::ask::Ask;
use super::reply::{HAAR_STREAM, No, Reply, empty, not_found, text};
use crate::liveness::Heard;
use crate::streams::{AgentEnd, DIAL_TIME, Dialled, Wanted};

/// What a log is.
const LOG_TYPE: &str = "text/plain; charset=utf-8";
/// Bytes of a log's end that are shown when nothing else is asked.
const DEFAULT_TAIL: u64 = 64 << 10;
/// The most bytes of a log's end.
const MOST_TAIL: u64 = 64 << 20;

/// `GET /v1/guests/{ref}/console`.
pub(crate) async fn console(ask: Ask<GuestConsole>, mut request: Request) -> Reply {
    let client = upgrade(&ask.headers, &mut request)?;
    let app = &ask.app;
    let guest = GuestId(app.look(|look| ask.resolve(Kind::Guest, ask.query.project.as_ref(), look))?);
    refuse_one_that_is_off(app, guest)?;
    let wanted = Wanted { guest, kind: StreamKind::Console, tail: None, follow: false };
    let agent = agent_end(app, wanted).await?;
    let ended = until_over(app, ask.who.token, agent.token);
    app.tasks.spawn(async move {
        let splice = async {
            let client = client.await.map_err(std::io::Error::other)?;
            splice(TokioIo::new(client), agent.end).await
        };
        tokio::select! {
            spliced = splice => if let Err(error) = spliced {
                tracing::debug!(%guest, %error, "a console ended badly");
            },
            () = ended => {}
        }
    });
    Ok(switching())
}

/// Ends when the controller shall, or with the token of either end.
fn until_over(app: &Arc<App>, client: TokenId, agent: TokenId) -> impl Future<Output = ()> + Send + 'static {
    let app = Arc::clone(app);
    async move {
        tokio::select! {
            () = app.stopping.cancelled() => {}
            () = app.until_revoked(client) => {}
            () = app.until_revoked(agent) => {}
        }
    }
}

/// Until either end closes; then so does the other.
async fn splice(mut client: AgentEnd, mut agent: AgentEnd) -> std::io::Result<()> {
    tokio::io::copy_bidirectional(&mut client, &mut agent).await.map(|_| ())
}

/// `GET /v1/guests/{ref}/log`.
pub(crate) async fn log(ask: Ask<GuestLog>) -> Reply {
    let app = &ask.app;
    let guest = GuestId(app.look(|look| ask.resolve(Kind::Guest, ask.query.project.as_ref(), look))?);
    let tail = ask.query.tail.unwrap_or(DEFAULT_TAIL);
    if tail > MOST_TAIL {
        return Err(
            No::of(ErrorCode::BadQuery, format!("tail is {tail}; at most {MOST_TAIL} bytes")).about("tail")
        );
    }
    if ask.is_head {
        // The agent would be asked for all of it, to throw it away.
        placed(app, guest)?;
        return Ok(text(StatusCode::OK, LOG_TYPE, Body::empty()));
    }
    let follow = ask.query.follow.unwrap_or(false);
    let wanted = Wanted { guest, kind: StreamKind::Log, tail: Some(tail), follow };
    let agent = agent_end(app, wanted).await?;
    let ended = Box::pin(until_over(app, ask.who.token, agent.token));
    let lines = futures_util::StreamExt::take_until(ReaderStream::new(agent.end), ended);
    Ok(text(StatusCode::OK, LOG_TYPE, Body::from_stream(lines)))
}

/// `GET /v1/agent/streams/{ticket}`.
pub(crate) async fn dial(ask: Ask<AgentStream>, mut request: Request) -> Reply {
    let agent = upgrade(&ask.headers, &mut request)?;
    let deliver = ask.app.streams.take(ask.param(), ask.who.hypervisor).ok_or_else(|| {
        No::of(ErrorCode::TicketUnknown, "this ticket is used, or its client has gone, or it is not yours")
    })?;
    let token = ask.who.token();
    ask.app.tasks.spawn(async move {
        match agent.await {
            // The client may have gone meanwhile; then the agent's end closes with it.
            Ok(end) => drop(deliver.send(Dialled { end: TokioIo::new(end), token })),
            Err(error) => tracing::debug!(%error, "an agent's stream was not upgraded"),
        }
    });
    Ok(switching())
}

/// Orders a stream and waits for the agent to dial.
async fn agent_end(app: &App, wanted: Wanted) -> Result<Dialled, No> {
    let (name, place) = placed(app, wanted.guest)?;
    let unavailable = |message: String| No::of(ErrorCode::StreamUnavailable, message);
    if app.engine.liveness.of(place.hypervisor).0 == Heard::Silent {
        let host = app.look(|look| look.name(Kind::Hypervisor, place.hypervisor.0));
        return Err(unavailable(format!(
            "hypervisor `{host}` of guest `{name}` is silent; look with `haar status`"
        )));
    }
    let Some(mut opened) = app.streams.open(place.hypervisor, wanted) else {
        return Err(No::of(
            ErrorCode::TooBusy,
            "too many streams wait for their hypervisors; try again shortly",
        ));
    };
    app.engine.wake_hypervisor(place.hypervisor);
    tokio::select! {
        arrived = tokio::time::timeout(DIAL_TIME, &mut opened.arrives) => match arrived {
            Ok(Ok(end)) => Ok(end),
            Ok(Err(_)) => Err(unavailable(format!("the hypervisor of guest `{name}` broke off; try again"))),
            Err(_) => Err(unavailable(format!(
                "the hypervisor of guest `{name}` did not answer within {} s; look with `haar status`",
                DIAL_TIME.as_secs()
            ))),
        },
        () = app.stopping.cancelled() => Err(No::of(ErrorCode::NotReady, "the controller is stopping")),
    }
}

/// The console of a guest that is off would only close at once, without a word. One that was started is off only until
/// its hypervisor has said otherwise; its console is where to see it boot.
fn refuse_one_that_is_off(app: &App, guest: GuestId) -> Result<(), No> {
    let record =
        app.look(|look| look.fleet.guest(guest).cloned()).ok_or_else(|| not_found(Kind::Guest, &guest))?;
    let name = &record.spec.name;
    let is_meant_off = matches!(record.goal, Goal::Stopped | Goal::Off);
    let next = match record.state {
        State::Stopped if is_meant_off => {
            format!("its console is silent; start it:  haar guest start {name}")
        }
        State::Lost => format!("it has no console; make it anew, empty:  haar guest recreate {name}"),
        _ => return Ok(()),
    };
    Err(Refusal::WrongState { guest: name.clone(), state: record.state.as_str(), next }.into())
}

fn placed(app: &App, guest: GuestId) -> Result<(String, Place), No> {
    let record =
        app.look(|look| look.fleet.guest(guest).cloned()).ok_or_else(|| not_found(Kind::Guest, &guest))?;
    match record.place {
        Some(place) => Ok((record.spec.name.to_string(), place)),
        None => Err(Refusal::WrongState {
            guest: record.spec.name.clone(),
            state: record.state.as_str(),
            next: "it is on no hypervisor, so it has neither console nor log".to_owned(),
        }
        .into()),
    }
}

/// The connection behind the request, once it is answered with 101.
fn upgrade(headers: &HeaderMap, request: &mut Request) -> Result<OnUpgrade, No> {
    let names =
        |header: &HeaderValue| header.to_str().is_ok_and(|text| text.eq_ignore_ascii_case(HAAR_STREAM));
    if headers.get(UPGRADE).is_some_and(names) {
        return Ok(hyper::upgrade::on(request));
    }
    Err(No::of(ErrorCode::UpgradeRequired, "ask with `Connection: upgrade` and `Upgrade: haar-stream`"))
}

fn switching() -> Response {
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(HAAR_STREAM));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
