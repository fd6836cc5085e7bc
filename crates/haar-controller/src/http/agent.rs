//! For agents: hello, the feed, reports, and their guests' user-data.
//!
//! A poll is the heartbeat. Deliberately absent: what an agent is told; that is the desired set's.

use std::time::Duration;

use haar_api::feed::{Hello, Report, ReportTaken, VERSION};
use haar_api::problem::Problem;
use haar_api::table::{AgentBlob, AgentFeed, AgentHello, AgentReport};
use haar_api::v1::FenceText;
use haar_core::fleet::command::Command;
use haar_core::id::{ImageId, Kind};
use http::StatusCode;
use tokio::time::Instant;

use super::ask::Ask;
use super::reply::{No, Reply, empty, json, not_found, text};
use crate::wire::feed::{feed, hello, welcome};
use crate::wire::report::report;

/// The longest poll.
const MOST_POLL: Duration = Duration::from_secs(55);

/// `POST /v1/agent/hello`.
pub(crate) async fn take_hello(ask: Ask<AgentHello>, body: Hello) -> Reply {
    let (engine, hypervisor) = (&ask.app.engine, ask.who.hypervisor);
    engine.submit_from_agent(Command::Hello(hello(hypervisor, body)?)).await?;
    engine.liveness.heard(hypervisor);
    let view = ask.app.look(|look| look.fleet.hypervisor(hypervisor).map(|record| welcome(record, look)));
    Ok(json(StatusCode::OK, &view.ok_or_else(|| not_found(Kind::Hypervisor, &hypervisor))?))
}

/// `GET /v1/agent/feed`: the whole desired set once it is newer than `?since=`, or when a stream is wanted.
pub(crate) async fn poll(ask: Ask<AgentFeed>) -> Reply {
    let (app, hypervisor) = (&ask.app, ask.who.hypervisor);
    let engine = &app.engine;
    engine.liveness.heard(hypervisor);
    let since = ask.query.since.map(|since| since.0);
    if let Some(seen) = since {
        engine.begin_epoch_after(seen).await?;
    }
    // Half a TTL at most: the next poll comes before this one's word grows old.
    let most = MOST_POLL.min(Duration::from_millis(engine.liveness.ttl_ms() / 2));
    let wait = ask.query.wait.map_or(Duration::ZERO, |wait| wait.0).min(most);
    let news = || {
        let is_newer = engine.read(|fleet| match since {
            Some(seen) if seen.epoch == fleet.epoch() => fleet.desired_revision(hypervisor) > seen.revision,
            _ => true,
        });
        (is_newer || app.streams.are_due(hypervisor)).then_some(())
    };
    let found = tokio::select! {
        found = engine.wait_for_hypervisor(hypervisor, Instant::now() + wait, news) => found,
        () = app.stopping.cancelled() => None,
        () = app.until_revoked(ask.who.token()) => None,
    };
    if found.is_none() {
        app.check_token(ask.who.token())?;
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let found = engine.read(|fleet| {
        let catalogue: Vec<ImageId> = fleet.images().map(|image| image.id).collect();
        fleet.desired(hypervisor).map(|set| (set, catalogue))
    });
    let (set, catalogue) = found.ok_or_else(|| not_found(Kind::Hypervisor, &hypervisor))?;
    // Looked at last: whoever was cut off while it waited is told nothing more.
    app.check_token(ask.who.token())?;
    Ok(json(StatusCode::OK, &feed(set, catalogue, app.streams.show(hypervisor))))
}

/// `POST /v1/agent/report`.
pub(crate) async fn take_report(ask: Ask<AgentReport>, body: Report) -> Reply {
    let (engine, hypervisor) = (&ask.app.engine, ask.who.hypervisor);
    engine.liveness.heard(hypervisor);
    let answer = engine.submit_from_agent(Command::Report(report(hypervisor, body)?)).await?;
    Ok(json(StatusCode::OK, &ReportTaken { version: VERSION, fence: FenceText(answer.fence) }))
}

/// `GET /v1/agent/blobs/{sha256}`: of its own guests only.
pub(crate) async fn blob(ask: Ask<AgentBlob>) -> Reply {
    let (hypervisor, wanted) = (ask.who.hypervisor, ask.param().to_owned());
    let is_its_own = ask.app.engine.read(|fleet| {
        fleet.guests_on(hypervisor).any(|guest| guest.spec.user_data.as_ref() == Some(&wanted))
    });
    // What it may not have is not told apart from what is not there.
    let missing = || {
        No(Box::new(Problem::new(
            404,
            "not_found",
            "no guest of this hypervisor has user-data of that SHA-256",
        )))
    };
    if !is_its_own {
        return Err(missing());
    }
    let bytes = ask.app.engine.blob(wanted).await?.ok_or_else(missing)?;
    Ok(text(StatusCode::OK, "application/octet-stream", bytes))
}
