//! `haar cloud list` and `haar cloud destroy`.
//!
//! Listed is what is on record, whoever put it there, beside what the cloud says of it; and what the cloud has
//! with our mark that no record knows: nothing that costs is left out.

use haar_cloud::Error;
use haar_cloud::flavor::{Flavor, PriceList};
use haar_cloud::name::{DeploymentId, Owner};
use haar_cloud::provider::{ServerState, ServerView};
use haar_cloud::state::{Entry, Kind, Phase, Record};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::deploy::said;
use super::open::Open;
use super::price::{self, PriceWords};
use super::server::{self, Names};
use crate::cli::failure::Failure;
use crate::cli::{output, several};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar cloud list
  haar cloud list --prices prices.json")]
pub(crate) struct Words {
    #[command(flatten)]
    prices: PriceWords,
}

/// A server as it is listed.
struct Listed {
    id: Option<String>,
    name: String,
    state: String,
    /// The cloud's own word.
    status: String,
    address: Option<String>,
    os: String,
    user: String,
    flavor: Option<Flavor>,
    head_node: bool,
    since: Option<Timestamp>,
}

pub(super) async fn run(open: &Open, words: &Words) -> Result<(), Failure> {
    let prices = words.prices.load()?;
    let record = open.cloud.record().await?;
    let listed = all(open, record.as_ref()).await?;
    if open.is_json() {
        let items: Vec<Value> = listed.iter().map(|server| as_json(server, prices.as_ref())).collect();
        return output::json(&json!({"name": open.cloud.name().as_str(), "items": items}));
    }
    if listed.is_empty() {
        let next = if record.is_some() { "spawn --image IMAGE" } else { "deploy" };
        output::out(&format!(
            "  no servers in deployment {}; next:  {}\n",
            open.cloud.name(),
            open.hint(next)
        ));
        return Ok(());
    }
    let rows = listed.iter().map(|server| row(server, prices.as_ref())).collect();
    let mut columns = vec!["NAME", "STATE", "ADDRESS", "FLAVOR", "IMAGE", "USER", "AGE"];
    columns.extend(prices.as_ref().map(|_| "PER HOUR"));
    columns.push("ID");
    output::out(&output::table(&columns, rows, output::colours()));
    if let Some(prices) = &prices {
        let flavors = listed.iter().filter(|server| costs(server)).map(|server| server.flavor.as_ref());
        output::out(&format!("  together {}\n", price::sum(prices, flavors)));
    }
    Ok(())
}

async fn all(open: &Open, record: Option<&Record>) -> Result<Vec<Listed>, Failure> {
    let views = open.cloud.provider().servers().await?;
    Ok(record.map(|record| listed(record, &views)).unwrap_or_default())
}

/// What a listed server goes by; `None` before the cloud has given it an id.
fn names(server: &Listed) -> Option<Names> {
    let address = server.address.as_ref().and_then(|address| address.parse().ok());
    server.id.clone().map(|id| Names { id, name: server.name.clone(), address })
}

/// Whether the cloud has it, whatever it does.
fn costs(server: &Listed) -> bool {
    !matches!(server.state.as_str(), "gone" | "planned")
}

fn listed(record: &Record, views: &[ServerView]) -> Vec<Listed> {
    let entries: Vec<&Entry> = record.entries().filter(|entry| entry.kind == Kind::Server).collect();
    let view_of = |entry: &Entry| views.iter().find(|view| Some(view.id.as_str()) == entry.cloud_id());
    let known = entries.iter().map(|entry| on_record(entry, view_of(entry)));
    let is_known = |view: &&ServerView| entries.iter().any(|entry| entry.cloud_id() == Some(&view.id));
    let strays = views.iter().filter(|view| bears(view.owner, record.deployment()) && !is_known(view));
    known.chain(strays.map(not_on_record)).collect()
}

fn bears(owner: Owner, id: DeploymentId) -> bool {
    owner == Owner::Us || owner == Owner::Another(id)
}

fn on_record(entry: &Entry, view: Option<&ServerView>) -> Listed {
    let details = entry.server.as_ref();
    let state = match (&entry.phase, view) {
        (Phase::Leaving { .. }, _) => "leaving",
        (_, Some(view)) => state_word(view.state),
        (Phase::Planned, None) => "planned",
        (_, None) => "gone",
    };
    let address = details.and_then(|details| details.address).map(|address| address.to_string());
    Listed {
        id: entry.cloud_id().map(str::to_owned),
        name: entry.name.clone(),
        state: state.to_owned(),
        status: view.map(|view| view.status.clone()).unwrap_or_default(),
        address: address.or_else(|| view.and_then(first_address)),
        os: details.map(|details| details.os.clone()).unwrap_or_default(),
        user: details.map(|details| details.user.clone()).unwrap_or_default(),
        flavor: details.map(|details| details.flavor.clone()),
        head_node: details.is_some_and(|details| details.head_node),
        since: Some(entry.since),
    }
}

fn not_on_record(view: &ServerView) -> Listed {
    Listed {
        id: Some(view.id.clone()),
        name: view.name.clone(),
        state: "not on record".to_owned(),
        status: view.status.clone(),
        address: first_address(view),
        os: String::new(),
        user: String::new(),
        flavor: None,
        head_node: false,
        since: None,
    }
}

fn first_address(view: &ServerView) -> Option<String> {
    view.external_addresses.first().or(view.addresses.first()).map(ToString::to_string)
}

fn state_word(state: ServerState) -> &'static str {
    match state {
        ServerState::Building => "building",
        ServerState::Active => "running",
        ServerState::Inactive => "stopped",
        ServerState::Failed => "failed",
        ServerState::Leaving => "leaving",
    }
}

fn row(server: &Listed, prices: Option<&PriceList>) -> Vec<String> {
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let age =
        |since: Timestamp| output::age(haar_api::v1::Time::from_ms(since.as_millisecond()), output::now());
    let mut row = vec![
        format!("{}{}", server.name, if server.head_node { " (head)" } else { "" }),
        server.state.clone(),
        dash(server.address.as_deref().unwrap_or_default()),
        dash(server.flavor.as_ref().map(|flavor| flavor.name.as_str()).unwrap_or_default()),
        dash(&server.os),
        dash(&server.user),
        server.since.map_or("-".to_owned(), age),
    ];
    if let Some(prices) = prices {
        row.push(server.flavor.as_ref().map_or("-".to_owned(), |flavor| price::shown(prices, flavor)));
    }
    row.push(dash(server.id.as_deref().unwrap_or_default()));
    row
}

fn as_json(server: &Listed, prices: Option<&PriceList>) -> Value {
    let price = server.flavor.as_ref().zip(prices).and_then(|(flavor, prices)| prices.price(flavor));
    json!({
        "id": server.id,
        "name": server.name,
        "state": server.state,
        "status": server.status,
        "address": server.address,
        "image": server.os,
        "user": server.user,
        "flavor": server.flavor.as_ref().map(|flavor| flavor.name.clone()),
        "flavor_id": server.flavor.as_ref().map(|flavor| flavor.id.clone()),
        "head_node": server.head_node,
        "since": server.since.map(|since| since.to_string()),
        "per_hour": price,
        "currency": prices.map(|prices| prices.currency.clone()),
    })
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar cloud destroy 7c1d
  haar cloud destroy --all     every server; what they stand on stays")]
pub(crate) struct DestroyWords {
    /// Names, ids, addresses, or first digits of ids (4 or more)
    #[arg(required_unless_present = "all", value_name = "SERVER")]
    server: Vec<String>,
    /// Every server of the deployment
    #[arg(long, conflicts_with = "server")]
    all: bool,
}

pub(super) async fn destroy(open: &Open, words: &DestroyWords) -> Result<(), Failure> {
    let record = open.cloud.record().await?;
    let there: Vec<Names> = all(open, record.as_ref()).await?.iter().filter_map(names).collect();
    let mut servers: Vec<Names> = if words.all { there.clone() } else { Vec::new() };
    // Every text is looked up before anything is done, among all that is listed: whatever costs can be named.
    for text in &words.server {
        let server = &there[server::place(&there, text)?];
        if !servers.iter().any(|known| known.id == server.id) {
            servers.push(server.clone());
        }
    }
    let mut gone = Vec::new();
    let begin = async |server: &Names| {
        let (cloud, id) = (open.cloud.clone(), server.id.clone());
        Ok(tokio::spawn(async move { cloud.destroy(&id).await }))
    };
    let end = async |server: &Names, task: JoinHandle<haar_cloud::Result<()>>| {
        let cut_off = || Error::Cancelled { what: server.name.clone() };
        task.await.unwrap_or_else(|_| Err(cut_off()))?;
        gone.push(json!({"id": server.id, "name": server.name}));
        Ok(())
    };
    let name = |server: &Names| server.name.clone();
    several::each_to_the_end(&servers, name, begin, end).await?;
    open.board.clear();
    let line = match servers.as_slice() {
        [] => "no server was there".to_owned(),
        [one] => format!("server {} destroyed", one.name),
        several => format!("{} servers destroyed", several.len()),
    };
    said(open, &json!({"destroyed": gone}), &line)
}

#[cfg(test)]
mod tests {
    use haar_cloud::name::ResourceName;
    use haar_cloud::state::Store;

    use super::*;

    fn view(id: &str, state: ServerState, owner: Owner) -> ServerView {
        ServerView {
            id: id.to_owned(),
            name: format!("farm-{id}"),
            state,
            status: "X".to_owned(),
            fault: None,
            flavor: "f".to_owned(),
            addresses: vec!["10.0.0.7".parse().unwrap()],
            external_addresses: Vec::new(),
            owner,
        }
    }

    #[test]
    fn what_costs_is_listed_whether_on_record_or_not_and_what_is_anothers_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "fake", &ResourceName::parse("farm").unwrap()).unwrap();
        let ours = store.begin(Timestamp::UNIX_EPOCH).unwrap().deployment();
        let plan = |name: &str, id: Option<&str>| {
            store
                .change(|record| {
                    let entry = record.plan(Kind::Server, name, Timestamp::UNIX_EPOCH)?;
                    id.map_or(Ok(()), |id| record.made(entry, id))
                })
                .unwrap();
        };
        plan("farm-1", Some("1"));
        plan("farm-2", Some("2"));
        plan("farm-3", None);
        let stranger = DeploymentId::random();
        let views = [
            view("1", ServerState::Active, Owner::Another(ours)),
            view("8", ServerState::Active, Owner::Another(ours)),
            view("9", ServerState::Active, Owner::Another(stranger)),
            view("10", ServerState::Active, Owner::Unmarked),
        ];
        let record = store.load().unwrap().unwrap();
        let all = listed(&record, &views);
        assert_eq!(all.iter().filter(|server| costs(server)).count(), 2);
        let states: Vec<(String, String)> =
            all.into_iter().map(|server| (server.name, server.state)).collect();
        let expected =
            [("farm-1", "running"), ("farm-2", "gone"), ("farm-3", "planned"), ("farm-8", "not on record")];
        assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state.to_owned())));
    }
}
