//! Jobs: list, show, retry, and waiting for one's end.

use std::time::Duration;

use axum::response::Response;
use haar_api::problem::{ErrorCode, Problem};
use haar_api::table::{JobList, JobRetry, JobShow};
use haar_api::v1::Wait;
use haar_core::fleet::command::Command;
use haar_core::id::{JobId, Kind};
use haar_core::job::{Job, Status};
use haar_core::name::Name;
use haar_core::refusal::Refusal;
use http::StatusCode;
use uuid::Uuid;

use super::App;
use super::ask::Ask;
use super::noun::{Page, object, page};
use super::reply::{No, Reply, at_job, not_found};
use crate::wire::guest::Guests;
use crate::wire::job::{Jobs, status};
use crate::wire::{Noun, resolve};

/// How a job stands when the waiting is over.
pub(crate) enum Ended {
    /// It ended well, or is no longer kept.
    Well,
    /// It has not ended.
    NotYet,
}

/// Waits for a job's end, not beyond the controller's.
///
/// # Errors
/// `job_failed`, with the job and its steps.
pub(crate) async fn wait(app: &App, job: JobId, wait: Option<Wait>) -> Result<Ended, No> {
    let time = wait.map_or(Duration::ZERO, |wait| wait.0);
    let found = tokio::select! {
        found = app.engine.wait_for_job(job, time) => found,
        () = app.stopping.cancelled() => return Ok(Ended::NotYet),
    };
    match found {
        Some(job) if job.status == Status::Error && wait.is_some() => Err(failed(app, &job)),
        Some(job) if !job.status.ended() || wait.is_none() => Ok(Ended::NotYet),
        _ => Ok(Ended::Well),
    }
}

fn failed(app: &App, job: &Job) -> No {
    let view = app.look(|look| Jobs::view(job, look));
    let cause = view.error.clone().unwrap_or_else(|| "no cause was told".to_owned());
    let mut message = format!("to {} guest `{}` failed: {cause}", view.action, view.guest_name);
    if let Some(next) = view.next.as_ref().filter(|next| !next.is_empty()) {
        message = format!("{message}; next: {next}");
    }
    let mut problem = Problem::of(ErrorCode::JobFailed, message);
    problem.job = Some(Box::new(view));
    No(Box::new(problem))
}

/// 202 with the job's place, or the finished answer.
pub(crate) fn settled(
    ended: &Ended,
    job: JobId,
    answer: impl FnOnce(StatusCode) -> Reply,
    good: StatusCode,
) -> Reply {
    match ended {
        Ended::Well => answer(good),
        Ended::NotYet => Ok(at_job(answer(StatusCode::ACCEPTED)?, job)),
    }
}

/// `GET /v1/jobs`.
pub(crate) async fn list(ask: Ask<JobList>) -> Reply {
    let bounds = Page::of(ask.query.limit, ask.query.cursor.as_ref())?;
    let wanted = ask.query.status;
    if let Some(word) = wanted.as_ref().filter(|word| !STATUSES.contains(&word.as_str())) {
        let message = format!("`{word}` is no status of a job; those are {}", STATUSES.join(", "));
        return Err(No::of(ErrorCode::BadQuery, message).about("status"));
    }
    let project = crate::wire::project(ask.query.project)?;
    let guest = ask.query.guest.map(|guest| whose(&ask.app, guest, &project)).transpose()?;
    Ok(page::<Jobs>(&ask.app, &bounds, |job, _| {
        let is_its = match &guest {
            None => true,
            Some(Whose::Guest(id)) => job.guest.0 == *id,
            Some(Whose::Gone(name)) => job.guest_name == *name,
        };
        is_its && wanted.as_ref().is_none_or(|wanted| status(job.status) == wanted)
    }))
}

/// Whose jobs are asked for.
enum Whose {
    /// This guest's.
    Guest(Uuid),
    /// Those of a guest that had this name: no other has it now.
    Gone(Name),
}

fn whose(app: &App, guest: String, project: &Name) -> Result<Whose, No> {
    let reference = guest.clone().into();
    let found = app.look(|look| resolve(look.fleet, Kind::Guest, &reference, project));
    match (found, guest.parse::<Uuid>(), Name::new(guest)) {
        (Ok(id), ..) | (Err(_), Ok(id), _) => Ok(Whose::Guest(id)),
        (Err(Refusal::NotFound { .. }), _, Ok(name)) => Ok(Whose::Gone(name)),
        (Err(refusal), ..) => Err(refusal.into()),
    }
}

const STATUSES: [&str; 4] = ["new", "working", "done", "error"];

/// `GET /v1/jobs/{id}`: as it is; with a wait, once it has ended or the time is over.
pub(crate) async fn show(ask: Ask<JobShow>) -> Reply {
    let id = JobId(ask.id()?);
    if let Some(time) = ask.query.wait {
        tokio::select! {
            _ = ask.app.engine.wait_for_job(id, time.0) => {}
            () = ask.app.stopping.cancelled() => {}
        }
    }
    object::<Jobs>(&ask.app, StatusCode::OK, id.0)
}

/// `POST /v1/jobs/{id}/retry`: answers the new job.
pub(crate) async fn retry(ask: Ask<JobRetry>) -> Reply {
    ask.refuse_key("list the guest's jobs first: a retry that was taken has made a new one")?;
    let app = &ask.app;
    let asked = JobId(ask.id()?);
    let answer = app.engine.submit(Command::RetryJob(asked)).await?;
    let job = answer.job.ok_or_else(|| not_found(Kind::Job, &asked))?;
    let ended = wait(app, job, ask.query.wait).await?;
    settled(&ended, job, |status| object::<Jobs>(app, status, job.0), StatusCode::OK)
}

/// A guest after what began this job: finished, or on its way.
pub(crate) async fn guest_after(
    app: &App,
    guest: uuid::Uuid,
    job: Option<JobId>,
    time: Option<Wait>,
    good: StatusCode,
) -> Reply {
    let Some(job) = job else { return object::<Guests>(app, good, guest) };
    let ended = wait(app, job, time).await?;
    settled(&ended, job, |status| object::<Guests>(app, status, guest), good)
}

/// The job itself, finished or on its way.
pub(crate) async fn job_after(app: &App, job: JobId, time: Option<Wait>) -> Result<Response, No> {
    let ended = wait(app, job, time).await?;
    settled(&ended, job, |status| object::<Jobs>(app, status, job.0), StatusCode::OK)
}
