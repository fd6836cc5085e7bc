//! Guests: list, get, create, and what is done with them.

use haar_api::agent::{Guest, go};
use haar_core::address::Mac;
use uuid::Uuid;

use super::reply::{Answer, Fail, ok};
use super::{App, accepted, guest_id};
use crate::local::check;
use crate::local::runners::{Answer as Told, Input};

/// `null` when there are none, as the seed.
pub(super) async fn list(app: &App) -> Answer {
    let guests =
        app.engine.read(|runners| runners.guests().map(|record| record.guest.clone()).collect::<Vec<_>>());
    let mut guests = guests.await?;
    guests.extend(app.cloud.guests().await?);
    guests.sort_by(|left, right| left.id.cmp(&right.id));
    ok(&Some(guests).filter(|guests| !guests.is_empty()))
}

pub(super) async fn get(app: &App, id: &str) -> Answer {
    let (_, guest) = app.guest(id).await?;
    ok(&guest)
}

pub(super) async fn create(app: &App, body: &[u8]) -> Answer {
    let mut guest: Guest =
        go::from_slice(body).map_err(|error| Fail::bad(format!("the body is no guest: {error}")))?;
    let id = match guest.id.as_str() {
        "" => Uuid::new_v4(),
        text => check::id(text).ok_or_else(|| Fail::bad("id: is no UUID; leave it out to have one made"))?,
    };
    guest.id = id.to_string();
    // What is, is ours to say.
    guest.state.clear();
    check::tidy(&mut guest);
    check::guest(&guest).map_err(Fail::bad)?;
    app.own(&guest.id, "create").await?;
    check_their_macs(app, &guest).await?;
    let input = Input::Create { guest: Box::new(guest), job: Uuid::new_v4() };
    queued(app.submit(input).await?)
}

/// No guest of the controller may have one of its MACs; those of the host's own guests are looked at when it is made.
async fn check_their_macs(app: &App, guest: &Guest) -> Result<(), Fail> {
    let macs: Vec<Mac> = check::macs(guest).collect();
    for theirs in app.cloud.guests().await? {
        if let Some(mac) = check::macs(&theirs).find(|mac| macs.contains(mac)) {
            let words = format!("the MAC {mac} is that of guest {}; choose another one", theirs.id);
            return Err(Fail::new(http::StatusCode::CONFLICT, words));
        }
    }
    Ok(())
}

/// The body is not looked at: the seed's clients send none, or `null`.
pub(super) async fn act(app: &App, guest: &str, action: &str) -> Answer {
    let (guest, job) = (guest_id(guest)?, Uuid::new_v4());
    let Some(theirs) = app.cloud.guest(guest).await? else {
        return queued(app.submit(Input::Act { guest, action: action.to_owned(), job }).await?);
    };
    app.cloud.power(guest, action).await?;
    // The node has it and sees to it: for a client that polls the job there is nothing more to wait for here.
    app.submit(Input::Taken { guest, action: action.to_owned(), job }).await?;
    accepted(&theirs, job)
}

fn queued(told: Told) -> Answer {
    match told {
        Told::Queued { job, guest: Some(guest) } => accepted(&guest, job),
        other => Err(super::reply::Fail::new(
            http::StatusCode::INTERNAL_SERVER_ERROR,
            format!("a guest was expected, not {other:?}"),
        )),
    }
}
