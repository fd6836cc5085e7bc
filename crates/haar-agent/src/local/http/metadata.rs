//! Labels of the hypervisor and of guests.

use std::collections::BTreeMap;

use super::App;
use super::reply::{Answer, Fail, ok};
use crate::local::runners::{Answer as Told, Input, Patch};

/// The longest key or value, bytes.
const MOST_TEXT: usize = 64 << 10;

/// `{}` when there are none.
pub(super) async fn of_agent(app: &App) -> Answer {
    ok(&app.engine.read(|runners| runners.labels().clone()).await?)
}

pub(super) async fn patch_agent(app: &App, body: &[u8]) -> Answer {
    labels(app.submit(Input::PatchAgent { patch: patch(body)? }).await?)
}

/// `null` when there are none.
pub(super) async fn of_guest(app: &App, guest: &str) -> Answer {
    let (_, guest) = app.guest(guest).await?;
    ok(&Some(guest.metadata).filter(|labels| !labels.is_empty()))
}

pub(super) async fn patch_guest(app: &App, guest: &str, body: &[u8]) -> Answer {
    let guest = app.own(guest, "update").await?;
    labels(app.submit(Input::PatchGuest { guest, patch: patch(body)? }).await?)
}

fn labels(told: Told) -> Answer {
    match told {
        Told::Labels(labels) => ok(&labels),
        _ => ok(&BTreeMap::<String, String>::new()),
    }
}

/// Null and the empty string both drop a label.
fn patch(body: &[u8]) -> Result<Patch, Fail> {
    let wrong = |why: String| Fail::bad(format!("the body is no map of texts: {why}"));
    let patch: Option<Patch> = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    let patch = patch.unwrap_or_default();
    for (key, value) in &patch {
        if key.is_empty() || key.len().max(value.as_ref().map_or(0, String::len)) > MOST_TEXT {
            return Err(wrong(format!("keys and values have 1 to {MOST_TEXT} bytes")));
        }
    }
    Ok(patch.into_iter().map(|(key, value)| (key, value.filter(|value| !value.is_empty()))).collect())
}
