//! The job log: all of it, a guest's part of it, one job, and taking back one that waits.

use uuid::Uuid;

use super::reply::{Answer, Fail, ok};
use super::{App, Query};
use crate::local::check;
use crate::local::runners::{Answer as Told, Input, Owner};

/// How many are listed unless asked otherwise.
const USUAL: usize = 1000;

/// The newest first. Of a guest only its own; the guest need not be there any more.
pub(super) async fn list(app: &App, guest: Option<&str>, query: &Query) -> Answer {
    let limit = match query.get("limit").map(String::as_str) {
        None | Some("") => USUAL,
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().unwrap_or(usize::MAX),
        Some(_) => return Err(Fail::bad("limit: must be a number")),
    };
    let of = match guest.map(check::id) {
        None => None,
        Some(Some(id)) => Some(Owner::Guest(id)),
        Some(None) => return ok(&[(); 0]),
    };
    ok(&app.engine.read(move |runners| runners.jobs(of, limit)).await?)
}

pub(super) async fn get(app: &App, guest: Option<&str>, job: &str) -> Answer {
    let id = job_id(job)?;
    let found =
        app.engine.read(move |runners| runners.job(id).map(|record| (record.owner, record.job()))).await?;
    let of = guest.map(|text| check::id(text).map(Owner::Guest));
    match found {
        Some((owner, job)) if of.is_none_or(|of| of == Some(owner)) => ok(&job),
        _ => Err(no_such(job)),
    }
}

pub(super) async fn cancel(app: &App, job: &str) -> Answer {
    match app.submit(Input::Cancel { job: job_id(job)? }).await? {
        Told::Job(job) => ok(&job),
        _ => Err(no_such(job)),
    }
}

fn job_id(text: &str) -> Result<Uuid, Fail> {
    check::id(text).ok_or_else(|| no_such(text))
}

fn no_such(text: &str) -> Fail {
    let text: String = text.chars().take(64).collect();
    Fail::not_found(format!("job `{text}` does not exist, or is so old that it was dropped from the log"))
}
