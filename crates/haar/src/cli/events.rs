//! `haar events`: what changes, as it changes.
//!
//! Without words it tells what is new from now on, until it is ended. With `--since` it tells what is kept after that
//! place and ends; `--follow` goes on from there. It ends well only when the controller says that these were all:
//! a stream that breaks off before is a failure, and says where to go on.

use haar_api::client::{ClientError, Message};
use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{EventView, EventsQuery};
use serde_json::Value;

use super::context::Context;
use super::failure::Failure;
use super::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar events                                what is new, until Ctrl-C
  haar events --since 1.48000                what came after that revision, then the end
  haar events --since 1.48000 --follow
  haar events -o json | jq .name             one event per line")]
pub(crate) struct Words {
    /// What came after this revision (epoch.revision) or event id, and no more
    #[arg(long, value_name = "REVISION")]
    since: Option<String>,
    /// Go on with what is new, as without --since
    #[arg(long, short)]
    follow: bool,
}

impl Words {
    fn query(&self) -> EventsQuery {
        let ends = self.since.is_some() && !self.follow;
        EventsQuery { since: self.since.clone(), follow: ends.then_some(false) }
    }
}

pub(crate) async fn run(context: &Context, words: &Words) -> Result<(), Failure> {
    let query = words.query();
    let must_end = query.follow == Some(false);
    let call = context.client.request::<t::EventStream>(&[]).query(query);
    let opened = call.events(&Nothing).await;
    let mut events = opened.map_err(|error| knows_no_end(context, words, must_end, error))?;
    let mut last = words.since.clone();
    loop {
        match events.next().await {
            Ok(Some(message)) => {
                print(context, &message)?;
                last = Some(message.id);
            }
            Ok(None) if must_end && events.has_ended() => return Ok(()),
            Ok(None) => {
                let why = "the controller ended the events before their end";
                return Err(broken_off(context, must_end, last, ClientError::Broken(why.into())));
            }
            Err(error) => return Err(broken_off(context, must_end, last, error)),
        }
    }
}

/// Not all was told: where to go on. Events that are no longer kept are in no place to go on from.
fn broken_off(context: &Context, must_end: bool, last: Option<String>, error: ClientError) -> Failure {
    let is_gone = error.problem().is_some_and(|problem| problem.code == "resync");
    let Some(last) = last.filter(|_| !is_gone) else { return error.into() };
    let follow = if must_end { "" } else { " --follow" };
    let next = context.hint(&format!("events --since {}{follow}", output::quoted(&last)));
    Failure::Advised(Box::new(error.into()), vec![format!("go on from there:  {next}")])
}

/// A controller of an earlier release takes no `follow=false`: it cannot say where its events end.
fn knows_no_end(context: &Context, words: &Words, must_end: bool, error: ClientError) -> Failure {
    let is_older = must_end
        && error.problem().is_some_and(|no| no.code == "unknown_field" && no.message.contains("`follow`"));
    let Some(since) = words.since.as_ref().filter(|_| is_older) else { return error.into() };
    let next = context.hint(&format!("events --since {} --follow", output::quoted(since)));
    let advice =
        format!("the controller is of an earlier release, which tells no end; until Ctrl-C:  {next}");
    Failure::Advised(Box::new(error.into()), vec![advice])
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

/// `2026-01-01T00:00:00.000Z  1.48213  guest web changed: running   cpu=4`.
fn line(event: &EventView) -> String {
    let text = |field: &str| {
        event.object.as_ref().and_then(|object| object[field].as_str()).filter(|text| !text.is_empty())
    };
    let short = output::short_id(event.id);
    let name = event.name.as_deref().or_else(|| text("name")).or_else(|| text("guest_name"));
    let name = match (name, event.kind.as_str()) {
        (Some(name), _) => format!(" {name}"),
        // There is one, and its id is the cloud's.
        (None, "config") => String::new(),
        (None, _) => format!(" {short}"),
    };
    let action = text("action").map(|action| format!(" ({action})")).unwrap_or_default();
    let state =
        text("state").or_else(|| text("status")).map(|state| format!(": {state}")).unwrap_or_default();
    let reason = text("reason").or_else(|| text("error")).map(|why| format!(", {why}")).unwrap_or_default();
    let at = event.at.map(|at| format!("{at}  ")).unwrap_or_default();
    let line = format!(
        "  {at}{:<9} {}{name}{action} {}{state}{reason}   {}",
        event.revision.to_string(),
        event.kind,
        event.change,
        fields(event)
    );
    line.trim_end().to_owned() + "\n"
}

/// Fields of a change that the line says already, or that are too small to say.
const UNSAID: [&str; 9] =
    ["state", "status", "reason", "error", "name", "life", "observed_revision", "seen_at", "addresses_used"];

/// The fields that are otherwise than before, with their values where these are short.
fn fields(event: &EventView) -> String {
    let said = event.fields.iter().filter(|field| !UNSAID.contains(&field.as_str()));
    let words: Vec<String> = said
        .map(|field| match event.object.as_ref().and_then(|object| short_value(&object[field])) {
            Some(value) => format!("{field}={value}"),
            None => field.clone(),
        })
        .collect();
    words.join(" ")
}

fn short_value(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null => "none".to_owned(),
        Value::Array(_) | Value::Object(_) => return None,
    };
    (text.chars().count() <= 40 && !text.contains(char::is_whitespace)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(kind: &str, change: &str, name: Option<&str>, object: Value) -> EventView {
        EventView {
            kind: kind.to_owned(),
            id: uuid::Uuid::from_u128(1),
            name: name.map(str::to_owned),
            change: change.to_owned(),
            fields: Vec::new(),
            at: Some(haar_api::v1::Time::from_ms(0)),
            revision: "1.7".parse().unwrap(),
            object: if object.is_null() { None } else { Some(object) },
        }
    }

    #[test]
    fn an_event_is_one_line_in_a_persons_words() {
        let guest =
            event("guest", "changed", Some("web"), json!({"name": "web", "state": "running", "reason": ""}));
        assert_eq!(line(&guest), "  1970-01-01T00:00:00.000Z  1.7       guest web changed: running\n");
        let job = json!({"guest_name": "web", "action": "create", "status": "done"});
        let job = event("job", "changed", Some("web"), job);
        assert_eq!(line(&job), "  1970-01-01T00:00:00.000Z  1.7       job web (create) changed: done\n");
        let gone = event("guest", "deleted", Some("web"), json!(null));
        assert_eq!(line(&gone), "  1970-01-01T00:00:00.000Z  1.7       guest web deleted\n");
        // As earlier releases stored them.
        let old = EventView { name: None, at: None, ..gone };
        assert_eq!(line(&old), "  1.7       guest 00000000 deleted\n");
    }

    #[test]
    fn an_event_says_what_changed() {
        let object = json!({"name": "small", "cpu": 4, "image": null, "metadata": {"a": "1"}, "state": "x"});
        let fields = ["cpu", "image", "metadata", "state"].map(str::to_owned).to_vec();
        let flavor = EventView { fields, ..event("flavor", "changed", Some("small"), object) };
        assert!(
            line(&flavor).ends_with("flavor small changed: x   cpu=4 image=none metadata\n"),
            "{}",
            line(&flavor)
        );
    }

    #[test]
    fn only_what_is_asked_from_a_place_ends_by_itself() {
        let query =
            |since: Option<&str>, follow| Words { since: since.map(str::to_owned), follow }.query().follow;
        assert_eq!(query(None, false), None);
        assert_eq!(query(None, true), None);
        assert_eq!(query(Some("1.7"), false), Some(false));
        assert_eq!(query(Some("1.7"), true), None);
    }
}
