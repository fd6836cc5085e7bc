//! The handlers that every noun shares: list, show, make, change, remove.
//!
//! Written once against [`Noun`] and [`Makeable`]; what is a noun's own lies in its file under `wire`.

use std::sync::Arc;

use axum::response::Response;
use haar_api::endpoint::{Admin, Endpoint};
use haar_api::problem::ErrorCode;
use haar_api::v1::{
    DEFAULT_LIMIT, FenceText, List, ListQuery, MOST_LIMIT, NoQuery, RefQuery, SubnetListQuery,
};
use haar_core::fleet::command::{Command, Outcome};
use haar_core::id::Kind;
use haar_core::name::Name;
use haar_core::network::Subnet;
use haar_core::refusal::Refusal;
use http::StatusCode;
use uuid::Uuid;

use super::App;
use super::ask::Ask;
use super::reply::{No, Reply, empty, json, located, not_found, tagged};
use crate::engine::Failure;
use crate::wire::look::Look;
use crate::wire::subnet::Subnets;
use crate::wire::{Makeable, Noun, resolve};

/// How often a change is tried against a record that others change at the same time.
const TRIES: usize = 8;

/// Where a page begins and how long it is.
pub(crate) struct Page {
    limit: usize,
    after: Option<Uuid>,
}

impl Page {
    /// Reads `?limit=` and `?cursor=`.
    pub(crate) fn of(limit: Option<u32>, cursor: Option<&String>) -> Result<Page, No> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MOST_LIMIT).contains(&limit) {
            let message = format!("limit is {limit}; it must be from 1 to {MOST_LIMIT}");
            return Err(No::of(ErrorCode::BadQuery, message).about("limit"));
        }
        let wrong = |_| {
            No::of(ErrorCode::BadQuery, "cursor is none that a page has given as next_cursor").about("cursor")
        };
        let after = cursor.map(|cursor| Uuid::try_parse(cursor).map_err(wrong)).transpose()?;
        Ok(Page { limit: limit as usize, after })
    }
}

/// Keeps those of this name and project.
pub(crate) struct Named {
    name: Option<Name>,
    project: Option<Name>,
}

impl Named {
    /// Reads `?name=` and `?project=`.
    pub(crate) fn of(name: Option<String>, project: Option<String>) -> Result<Named, No> {
        let read = |text: Option<String>| text.map(Name::new).transpose().map_err(Refusal::from);
        Ok(Named { name: read(name)?, project: read(project)? })
    }

    /// Whether it is one of them.
    pub(crate) fn keeps<N: Noun>(&self, record: &N::Record) -> bool {
        let (name, project) = N::name(record);
        (self.name.is_none() || self.name.as_ref() == name)
            && (self.project.is_none() || project.is_none() || self.project.as_ref() == project)
    }
}

/// One page of those that `keep` keeps, in id order.
pub(crate) fn page<N: Noun>(
    app: &App,
    page: &Page,
    keep: impl Fn(&N::Record, &Look<'_>) -> bool,
) -> Response {
    let list = app.look(|look| {
        let mut kept = N::after(look.fleet, page.after).filter(|record| keep(record, look));
        let records: Vec<&Arc<N::Record>> = kept.by_ref().take(page.limit).collect();
        let last = records.last().filter(|_| kept.next().is_some());
        List {
            next_cursor: last.map(|record| N::id(record).to_string()),
            items: records.iter().map(|record| N::view(record, look)).collect(),
            revision: FenceText(look.fleet.fence()),
        }
    });
    json(StatusCode::OK, &list)
}

/// An object as it is now.
pub(crate) fn object<N: Noun>(app: &App, status: StatusCode, id: Uuid) -> Reply {
    let found = app.look(|look| {
        let record = N::get(look.fleet, id)?;
        Some((N::view(record, look), N::revision(record)))
    });
    let (view, revision) = found.ok_or_else(|| not_found(N::KIND, &id))?;
    Ok(tagged(json(status, &view), revision))
}

/// `GET /v1/<noun>s`.
pub(crate) async fn list<N: Noun, E>(ask: Ask<E>) -> Reply
where
    E: Endpoint<Query = ListQuery, Permission = Admin>,
{
    let bounds = Page::of(ask.query.limit, ask.query.cursor.as_ref())?;
    let named = Named::of(ask.query.name, ask.query.project)?;
    Ok(page::<N>(&ask.app, &bounds, |record, _| named.keeps::<N>(record)))
}

/// `GET /v1/subnets`, which can be narrowed to a network.
pub(crate) async fn list_subnets<E>(ask: Ask<E>) -> Reply
where
    E: Endpoint<Query = SubnetListQuery, Permission = Admin>,
{
    let bounds = Page::of(ask.query.limit, ask.query.cursor.as_ref())?;
    let wanted = ask.query.network.map(Into::into);
    let project = crate::wire::project(ask.query.project.clone())?;
    let named = Named::of(ask.query.name, ask.query.project)?;
    let network =
        wanted.map(|network| ask.app.look(|look| resolve(look.fleet, Kind::Network, &network, &project)));
    let network = network.transpose()?;
    Ok(page::<Subnets>(&ask.app, &bounds, |subnet: &Subnet, _| {
        named.keeps::<Subnets>(subnet) && network.is_none_or(|network| subnet.spec.network.0 == network)
    }))
}

/// `GET /v1/<noun>s/{ref}`.
pub(crate) async fn show<N: Noun, E>(ask: Ask<E>) -> Reply
where
    E: Endpoint<Query = RefQuery, Permission = Admin>,
{
    let id = ask.app.look(|look| ask.resolve(N::KIND, ask.query.project.as_ref(), look))?;
    object::<N>(&ask.app, StatusCode::OK, id)
}

/// `POST /v1/<noun>s`: the server picks the id.
pub(crate) async fn post<N: Makeable, E>(ask: Ask<E>, body: N::Create) -> Reply
where
    E: Endpoint<Query = NoQuery, Permission = Admin>,
{
    let id = ask.new_id()?;
    let command = ask.app.look(|look| N::create(id, body, look))?;
    ask.app.engine.submit(command).await?;
    Ok(located(object::<N>(&ask.app, StatusCode::CREATED, id)?, N::KIND, id))
}

/// `PUT /v1/<noun>s/{id}`: the caller picks the id, so that a retry is the same request.
pub(crate) async fn put<N: Makeable, E>(ask: Ask<E>, body: N::Create) -> Reply
where
    E: Endpoint<Query = NoQuery, Permission = Admin>,
{
    let id = ask.id()?;
    ask.check_put::<N>(id)?;
    let command = ask.app.look(|look| N::create(id, body, look))?;
    let answer = ask.app.engine.submit(command).await?;
    let status = if answer.outcome == Outcome::Created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(located(object::<N>(&ask.app, status, id)?, N::KIND, id))
}

/// `PATCH /v1/<noun>s/{ref}`. Without `If-Match` the change is made to the record as it is, however often
/// others change it meanwhile.
pub(crate) async fn patch<N: Makeable, E>(ask: Ask<E>, body: N::Patch) -> Reply
where
    E: Endpoint<Query = RefQuery, Permission = Admin>,
{
    let (app, asked) = (&ask.app, ask.if_match()?);
    let id = app.look(|look| ask.resolve(N::KIND, ask.query.project.as_ref(), look))?;
    for tries in 1.. {
        let command = app.look(|look| {
            let record = N::get(look.fleet, id).ok_or_else(|| not_found(N::KIND, &id))?;
            let if_match = asked.or(Some(N::revision(record)));
            N::set(record, body.clone(), if_match, look).map_err(No::from)
        })?;
        match app.engine.submit(command).await {
            Err(Failure::Refused(Refusal::Stale { .. })) if asked.is_none() && tries < TRIES => {}
            Err(failure) => return Err(failure.into()),
            Ok(_) => break,
        }
    }
    object::<N>(app, StatusCode::OK, id)
}

/// `DELETE /v1/<noun>s/{ref}`.
pub(crate) async fn delete<N: Noun, E>(ask: Ask<E>) -> Reply
where
    E: Endpoint<Query = RefQuery, Permission = Admin>,
{
    let id = ask.app.look(|look| ask.resolve(N::KIND, ask.query.project.as_ref(), look))?;
    let if_match = ask.if_match()?;
    ask.app.engine.submit(Command::Delete(N::KIND, id, if_match)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
