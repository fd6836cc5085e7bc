//! Guests: what is theirs beyond what every noun has.

use haar_api::endpoint::{Admin, Endpoint};
use haar_api::problem::ErrorCode;
use haar_api::table::{Candidates, GuestDelete, GuestList, GuestPost, GuestPut};
use haar_api::v1::{GuestCreate, RefWaitQuery};
use haar_core::fleet::command::{Command, GuestAction, Outcome};
use haar_core::guest::State;
use haar_core::id::Kind;
use http::StatusCode;
use uuid::Uuid;

use super::ask::Ask;
use super::job::{guest_after, job_after};
use super::noun::{Named, Page, page};
use super::reply::{No, Reply, empty, json, located};
use crate::wire::guest::{self, Guests};
use crate::wire::{Makeable, resolve};

const STATES: [State; 8] = [
    State::Creating,
    State::Running,
    State::Stopped,
    State::Paused,
    State::Deleting,
    State::Failed,
    State::Lost,
    State::Claimed,
];

/// `GET /v1/guests`.
pub(crate) async fn list(ask: Ask<GuestList>) -> Reply {
    let query = ask.query;
    let bounds = Page::of(query.limit, query.cursor.as_ref())?;
    let state = query.state;
    check_state(state.as_deref())?;
    let project = crate::wire::project(query.project.clone())?;
    let named = Named::of(query.name, query.project)?;
    let find = |kind: Kind, text: Option<String>| -> Result<Option<Uuid>, No> {
        let Some(reference) = text.map(Into::into) else { return Ok(None) };
        Ok(Some(ask.app.look(|look| resolve(look.fleet, kind, &reference, &project))?))
    };
    let hypervisor = find(Kind::Hypervisor, query.hypervisor)?;
    let flavor = find(Kind::Flavor, query.flavor)?;
    let image = find(Kind::Image, query.image)?;
    let network = find(Kind::Network, query.network)?;
    Ok(page::<Guests>(&ask.app, &bounds, |record, look| {
        let on = record.place.map(|place| place.hypervisor.0);
        named.keeps::<Guests>(record)
            && (hypervisor.is_none() || hypervisor == on)
            && flavor.is_none_or(|flavor| record.spec.flavor.0 == flavor)
            && image.is_none_or(|image| record.image.0 == image)
            && network.is_none_or(|network| record.spec.network.0 == network)
            && state.as_ref().is_none_or(|state| look.guest_state(record) == state)
    }))
}

fn check_state(state: Option<&str>) -> Result<(), No> {
    let Some(word) = state else { return Ok(()) };
    if word == "unknown" || STATES.iter().any(|state| state.as_str() == word) {
        return Ok(());
    }
    let words: Vec<_> = STATES.iter().map(|state| state.as_str()).collect();
    let message = format!("`{word}` is no state of a guest; those are {}, unknown", words.join(", "));
    Err(No::of(ErrorCode::BadQuery, message).about("state"))
}

/// `POST /v1/guests`: the server picks the id.
pub(crate) async fn post(ask: Ask<GuestPost>, body: GuestCreate) -> Reply {
    let id = ask.new_id()?;
    let command = ask.app.look(|look| Guests::create(id, body, look))?;
    let answer = ask.app.engine.submit(command).await?;
    guest_after(&ask.app, id, answer.job, ask.query.wait, StatusCode::CREATED)
        .await
        .map(|reply| placed(reply, id))
}

/// `PUT /v1/guests/{id}`: the same body twice is the same guest, and waits for the same job.
pub(crate) async fn put(ask: Ask<GuestPut>, body: GuestCreate) -> Reply {
    let id = ask.id()?;
    ask.check_put::<Guests>(id)?;
    let command = ask.app.look(|look| Guests::create(id, body, look))?;
    let answer = ask.app.engine.submit(command).await?;
    let good = if answer.outcome == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    guest_after(&ask.app, id, answer.job, ask.query.wait, good).await.map(|reply| placed(reply, id))
}

/// A finished guest says where it is; an unfinished one where its job is.
fn placed(reply: axum::response::Response, id: Uuid) -> axum::response::Response {
    if reply.status() == StatusCode::ACCEPTED { reply } else { located(reply, Kind::Guest, id) }
}

/// `DELETE /v1/guests/{ref}`: answers the job that removes it.
pub(crate) async fn delete(ask: Ask<GuestDelete>) -> Reply {
    let id = ask.app.look(|look| ask.resolve(Kind::Guest, ask.query.project.as_ref(), look))?;
    let command = Command::Delete(Kind::Guest, id, ask.if_match()?);
    match ask.app.engine.submit(command).await?.job {
        Some(job) => job_after(&ask.app, job, ask.query.wait).await,
        None => Ok(empty(StatusCode::NO_CONTENT)),
    }
}

/// `POST /v1/guests/{ref}/<action>`. With `If-Match` a retry whose first answer was lost does nothing twice.
pub(crate) async fn act<E>(ask: Ask<E>, action: GuestAction) -> Reply
where
    E: Endpoint<Query = RefWaitQuery, Permission = Admin>,
{
    ask.refuse_key(
        "send the guest's revision as If-Match: what was done already is then answered as stale_revision",
    )?;
    let id = ask.app.look(|look| ask.resolve(Kind::Guest, ask.query.project.as_ref(), look))?;
    let command = Command::Act(id.into(), action, ask.if_match()?);
    let answer = ask.app.engine.submit(command).await?;
    guest_after(&ask.app, id, answer.job, ask.query.wait, StatusCode::OK).await
}

/// `POST /v1/candidates`: a dry run; nothing is reserved.
pub(crate) async fn candidates(ask: Ask<Candidates>, body: GuestCreate) -> Reply {
    let engine = &ask.app.engine;
    let view = ask.app.look(|look| {
        let (spec, _) = guest::spec(body, look)?;
        let flavor = look.fleet.flavor(spec.flavor);
        let wants = flavor.map(|flavor| flavor.spec.resources).unwrap_or_default();
        let found = look.fleet.candidates(&spec, &engine.env())?;
        Ok::<_, No>(guest::candidates(wants, found))
    })?;
    Ok(json(StatusCode::OK, &view))
}
