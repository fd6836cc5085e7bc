//! `haar events`: what changes, as it changes.

use std::time::Duration;

use haar_api::client::Message;
use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{EventView, EventsQuery};
use haar_core::fence::Fence;

use super::context::Context;
use super::failure::Failure;
use super::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar events --follow
  haar events --since 1.48000
  haar events --follow -o json | jq .object.name")]
pub(crate) struct Words {
    /// Events after this revision (epoch.revision) or event id; only new ones when left out
    #[arg(long, value_name = "REVISION", required_unless_present = "follow")]
    since: Option<String>,
    /// Go on with what is new
    #[arg(long, short)]
    follow: bool,
}

/// Without `--follow`, this much silence after the last event means that there are no more.
const QUIET: Duration = Duration::from_secs(1);

pub(crate) async fn run(context: &Context, words: &Words) -> Result<(), Failure> {
    let end = match words.follow {
        true => None,
        false => Some(context.client.request::<t::Status>(&[]).send(&Nothing).await?.value.revision.0),
    };
    let query = EventsQuery { since: words.since.clone() };
    let mut events = context.client.request::<t::EventStream>(&[]).query(query).events(&Nothing).await?;
    loop {
        let next = match end {
            None => events.next().await?,
            Some(_) => match tokio::time::timeout(QUIET, events.next()).await {
                Ok(next) => next?,
                Err(_) => return Ok(()),
            },
        };
        let Some(message) = next else { return Ok(()) };
        print(context, &message)?;
        if end.is_some_and(|end| is_last(&message, end)) {
            return Ok(());
        }
    }
}

/// Whether nothing older than the beginning of this command comes after it.
fn is_last(message: &Message, end: Fence) -> bool {
    message.event.revision.0 > end
}

fn print(context: &Context, message: &Message) -> Result<(), Failure> {
    if context.is_json() {
        let text = serde_json::to_string(&message.event);
        let text = text.map_err(|error| Failure::local("cannot write JSON", error))?;
        output::out(&format!("{text}\n"));
        return Ok(());
    }
    output::out(&line(&message.event));
    Ok(())
}

/// `1.48213  guest web changed: running`.
fn line(event: &EventView) -> String {
    let text = |field: &str| {
        event.object.as_ref().and_then(|object| object[field].as_str()).filter(|text| !text.is_empty())
    };
    let short = output::short_id(event.id);
    let name = text("name").or_else(|| text("guest_name")).unwrap_or(&short);
    let action = text("action").map(|action| format!(" ({action})")).unwrap_or_default();
    let state =
        text("state").or_else(|| text("status")).map(|state| format!(": {state}")).unwrap_or_default();
    let reason = text("reason").or_else(|| text("error")).map(|why| format!(", {why}")).unwrap_or_default();
    format!(
        "  {:<12} {} {name}{action} {}{state}{reason}\n",
        event.revision.to_string(),
        event.kind,
        event.change
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line_in_a_persons_words() {
        let event = |kind: &str, change: &str, object: serde_json::Value| EventView {
            kind: kind.to_owned(),
            id: uuid::Uuid::from_u128(1),
            change: change.to_owned(),
            revision: "1.7".parse().unwrap(),
            object: if object.is_null() { None } else { Some(object) },
        };
        let guest = event("guest", "changed", json!({"name": "web", "state": "running", "reason": ""}));
        assert_eq!(line(&guest), "  1.7          guest web changed: running\n");
        let job = event("job", "changed", json!({"guest_name": "web", "action": "create", "status": "done"}));
        assert_eq!(line(&job), "  1.7          job web (create) changed: done\n");
        assert_eq!(line(&event("guest", "deleted", json!(null))), "  1.7          guest 00000000 deleted\n");
    }
}
