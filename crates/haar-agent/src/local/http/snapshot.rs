//! Snapshots of a guest and of one of its disks.
//!
//! What changes them is queued like any other work on the guest and is answered 200 `null` with the job's id, as
//! the seed's clients expect; how it went is in the job. Their names go into other people's paths and are checked.

use haar_api::agent::go;
use haar_api::rpc::{SnapshotRequest, SnapshotResponse};
use http::{HeaderMap, StatusCode};
use uuid::Uuid;

use super::reply::{Answer, Fail, json, stream, text, with_job};
use super::route::Target;
use super::{App, guest_id, passing};
use crate::local::check;
use crate::local::engine::now;
use crate::local::hands::Failure;
use crate::local::runners::{Input, Owner, Refused, Why};

/// All of them, or the one of this name.
pub(super) async fn list(app: &App, target: &Target, name: Option<&str>) -> Answer {
    let (id, _) = app.guest(&target.guest).await?;
    let action = if name.is_some() { "getSnapshot" } else { "listSnapshots" };
    let stages = app.plan.stages(action).ok_or_else(|| Refused::NotConfigured(action.to_owned()))?;
    let request = request(target, id, name)?;
    let _turn = app.throttles.info(Owner::Guest(id)).await?;
    let mut last = SnapshotResponse::default();
    for stage in stages {
        last = app.hands.ask(stage, &request).await.map_err(fail)?;
    }
    Ok(with_job(json(StatusCode::OK, &last.snapshots), Uuid::new_v4()))
}

pub(super) async fn create(app: &App, target: &Target, body: &[u8]) -> Answer {
    let asked = parsed(body)?;
    let mut request = request(target, guest_id(&target.guest)?, None)?;
    request.dest = match asked.dest {
        dest if dest.is_empty() => format!("snap-{}", now().0 / 1000),
        dest => dest,
    };
    check::snapshot_name(&request.dest).map_err(|why| Fail::bad(format!("dest: {why}")))?;
    queue(app, target, "createSnapshot", request).await
}

pub(super) async fn delete(app: &App, target: &Target, name: &str) -> Answer {
    let request = request(target, guest_id(&target.guest)?, Some(name))?;
    queue(app, target, "deleteSnapshot", request).await
}

pub(super) async fn rollback(app: &App, target: &Target, name: &str, body: &[u8]) -> Answer {
    let asked = parsed(body)?;
    let mut request = request(target, guest_id(&target.guest)?, Some(name))?;
    request.destroy_more_recent = asked.destroy_more_recent;
    queue(app, target, "rollbackSnapshot", request).await
}

/// The service's bytes as they come, all or a range of them; its no with its own status and words.
pub(super) async fn download(app: &App, target: &Target, name: &str, headers: &HeaderMap) -> Answer {
    let (id, _) = app.guest(&target.guest).await?;
    let not_configured = || Refused::NotConfigured("downloadSnapshot".to_owned());
    let stage = app.plan.stages("downloadSnapshot").and_then(<[_]>::first).ok_or_else(not_configured)?;
    let request = request(target, id, Some(name))?;
    let turn = app.throttles.stream(Owner::Guest(id)).await?;
    let response = match passing::open(&app.hands, stage, &request, headers, turn).await? {
        passing::Opened::Body { status, headers, body } => stream(status, headers, body),
        passing::Opened::Refused(status, words) => text(status, words),
    };
    Ok(with_job(response, Uuid::new_v4()))
}

fn parsed(body: &[u8]) -> Result<SnapshotRequest, Fail> {
    go::from_slice(body).map_err(|error| Fail::bad(format!("the body is no snapshot request: {error}")))
}

/// What the storage knows it by: `guests/<id>[/disk-<index>][@<name>]`; without a disk, all of the guest's.
fn request(target: &Target, guest: Uuid, name: Option<&str>) -> Result<SnapshotRequest, Fail> {
    let disk = target.disk.as_ref().map(|disk| format!("/disk-{disk}")).unwrap_or_default();
    let at = match name {
        None => String::new(),
        Some(name) => {
            check::snapshot_name(name).map_err(Fail::bad)?;
            format!("@{name}")
        }
    };
    let id = format!("guests/{guest}{disk}{at}");
    Ok(SnapshotRequest { id, recursive: target.disk.is_none(), ..SnapshotRequest::default() })
}

async fn queue(app: &App, target: &Target, action: &str, request: SnapshotRequest) -> Answer {
    let (guest, job) = (app.own(&target.guest, action).await?, Uuid::new_v4());
    app.submit(Input::Snapshot { guest, action: action.to_owned(), request, job }).await?;
    Ok(with_job(json(StatusCode::OK, &()), job))
}

fn fail(failure: Failure) -> Fail {
    match failure.why {
        Why::Absent => Fail::not_found(failure.message),
        Why::Foreign | Why::Unfit | Why::Unreached | Why::Unheard | Why::Other => failure.into(),
    }
}
