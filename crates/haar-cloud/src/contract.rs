//! What every provider is held to, case by case: one table for all clouds.
//!
//! A provider's tests call [`check`] with a cloud that they may use, and get one line for each case. The
//! cases go through [`Cloud`] only, and stand on each other: at the end nothing is left in the cloud.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::cloud::{Cloud, SpawnOrder};
use crate::flavor::{Need, Wanted};
use crate::name::ResourceName;
use crate::provider::{Found, Ground, Provider, ServerState};
use crate::server::Server;
use crate::space::Cores;
use crate::state::Kind;
use crate::{Class, Error, Result};

/// A cloud to be tried, and what may be asked of it.
#[derive(Debug)]
pub struct Setup {
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// An empty folder for records.
    pub folder: PathBuf,
    /// A name that nobody uses there; a second one is made of it by adding to it.
    pub name: ResourceName,
    /// What servers are to stand on.
    pub ground: Ground,
    /// An image.
    pub os: String,
    /// Who logs in to it.
    pub user: String,
    /// A small flavor.
    pub flavor: String,
    /// Whether more than one server can be had; else the cases that need more are left out.
    pub several: bool,
    /// Whether servers can have external addresses.
    pub external: bool,
}

/// How a case went.
#[derive(Debug)]
pub struct Outcome {
    /// The case.
    pub case: &'static str,
    /// What was wrong.
    pub answer: Result<(), String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.answer {
            Ok(()) => write!(formatter, "ok      {}", self.case),
            Err(why) => write!(formatter, "FAILED  {}: {why}", self.case),
        }
    }
}

type Case = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Tries all cases, and gives one outcome for each. Whatever fails, the cloud is cleaned at the end.
pub async fn check(setup: &Setup) -> Vec<Outcome> {
    let mut table = Table(Vec::new());
    table.note("before a deploy, spawning says to deploy", before_a_deploy(setup).await);
    table.note("what is not there is named", what_is_not_there(setup).await);
    table.note("the cheapest flavor is always the same", cheapest(setup).await);
    table.note("a dry run of a deploy makes nothing", dry_deploy(setup).await);
    table.note("deploying twice makes nothing twice", deploy_twice(setup).await);
    table.note("a failed spawn tells the quota once and leaves nothing", failed_spawn(setup).await);
    table.note("a server comes up, has an address and is on record", spawn(setup).await);
    table.note("another process finds the server", another_process(setup).await);
    if setup.external {
        table.note("external addresses are a server's own and go with it", external(setup).await);
    }
    if setup.several {
        table.note("a dropped spawn leaves nothing", dropped_spawn(setup).await);
    }
    table.note("a destroyed server is gone, also when told twice", destroy(setup).await);
    if setup.several {
        table.note("what has a longer name is not torn down with it", neighbour(setup).await);
    }
    table.note("a dry run of a tear-down names all of ours", dry_tear_down(setup).await);
    table.note("a tear-down leaves nothing, and a second one says so", tear_down(setup).await);
    table.0
}

/// Tries all cases, and panics with the whole table when one fails.
///
/// # Panics
/// With a table of all cases, if one of them failed.
pub async fn hold(setup: &Setup) {
    let outcomes = check(setup).await;
    let table: Vec<String> = outcomes.iter().map(Outcome::to_string).collect();
    let table = format!("{} × contract\n{}", setup.provider.kind(), table.join("\n"));
    println!("{table}");
    assert!(outcomes.iter().all(|outcome| outcome.answer.is_ok()), "{table}");
}

struct Table(Vec<Outcome>);

impl Table {
    fn note(&mut self, case: &'static str, answer: Case) {
        self.0.push(Outcome { case, answer: answer.map_err(|error| error.to_string()) });
    }
}

/// The deployment as a process that just started has it.
fn cloud(setup: &Setup) -> Result<Cloud> {
    Cloud::new(Arc::clone(&setup.provider), &setup.name, &setup.folder)
}

fn order(setup: &Setup) -> SpawnOrder {
    SpawnOrder::new(&setup.os, &setup.user, &setup.flavor)
}

async fn ours(setup: &Setup) -> Result<Vec<Found>> {
    let id = cloud(setup)?.record().await?.map(|record| record.deployment());
    let mut found = setup.provider.survey(&setup.name, id).await?;
    found.retain(|thing| thing.ours);
    found.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    Ok(found)
}

fn ensure(holds: bool, why: impl Into<String>) -> Case {
    if holds { Ok(()) } else { Err(why.into().into()) }
}

async fn before_a_deploy(setup: &Setup) -> Case {
    match cloud(setup)?.spawn(order(setup), || {}).await {
        Err(error) => ensure(error.class() == Class::State, format!("it says `{error}`")),
        Ok(server) => Err(format!("it spawned {}", server.name()).into()),
    }
}

async fn what_is_not_there(setup: &Setup) -> Case {
    let (cloud, none) = (cloud(setup)?, "no-such-thing-0f3c");
    let answers = [
        cloud.image_by_prefix(none).await.map(drop),
        cloud.flavor(none).await.map(drop),
        cloud.server_state(none).await.map(drop),
    ];
    for answer in answers {
        let error = answer.err().ok_or("it was found")?;
        ensure(error.is_not_found() && error.to_string().contains(none), format!("it says `{error}`"))?;
    }
    Ok(())
}

async fn cheapest(setup: &Setup) -> Case {
    let cloud = cloud(setup)?;
    let need = Need { cores: Cores::ZERO, ram_mb: 1 };
    let wanted = Wanted { need, pattern: None, prices: None };
    let first = cloud.cheapest_flavor(&wanted).await?;
    ensure(cloud.cheapest_flavor(&wanted).await? == first, "it is another one the second time")?;
    cloud.flavor(&first.id).await?;
    cloud.quota().await?;
    let image = cloud.image_by_prefix(&setup.os).await?.image;
    ensure(cloud.image_by_prefix(&image.id).await?.image == image, "an image's id means another image")
}

async fn dry_deploy(setup: &Setup) -> Case {
    let before = setup.provider.survey(&setup.name, None).await?.len();
    cloud(setup)?.deploy_plan(&setup.ground).await?;
    ensure(cloud(setup)?.record().await?.is_none(), "it began a record")?;
    ensure(setup.provider.survey(&setup.name, None).await?.len() == before, "it made something")
}

async fn deploy_twice(setup: &Setup) -> Case {
    let planned = cloud(setup)?.deploy_plan(&setup.ground).await?;
    let first = cloud(setup)?.deploy(setup.ground.clone()).await?;
    let made = ours(setup).await?;
    for thing in planned.iter().filter(|thing| thing.found.is_none()) {
        let is_there = made.iter().any(|made| made.kind == thing.kind && made.name == thing.name);
        ensure(is_there, format!("{} {} was planned and is not there", thing.kind, thing.name))?;
    }
    let second = cloud(setup)?.deploy(setup.ground.clone()).await?;
    ensure(second.public_key == first.public_key, "the key is another one")?;
    ensure(ours(setup).await? == made, "something was made twice, or anew")?;
    let plan = cloud(setup)?.deploy_plan(&setup.ground).await?;
    ensure(plan.iter().all(|thing| thing.found.is_some()), format!("it would still make some of {plan:?}"))
}

async fn failed_spawn(setup: &Setup) -> Case {
    let before = ours(setup).await?;
    for (os, flavor) in [("no-such-thing-0f3c", setup.flavor.as_str()), (&setup.os, "no-such-thing-0f3c")] {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let tell = move || _ = count.fetch_add(1, Ordering::SeqCst);
        let order = SpawnOrder { os: os.to_owned(), flavor: flavor.to_owned(), ..order(setup) };
        let answer = cloud(setup)?.spawn(order, tell).await;
        ensure(answer.is_err_and(|error| error.is_not_found()), "it is not said to be not found")?;
        ensure(told.load(Ordering::SeqCst) == 1, format!("it was told {told:?} times"))?;
    }
    ensure(ours(setup).await? == before, "something was made")
}

async fn spawn(setup: &Setup) -> Case {
    let cloud = cloud(setup)?;
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let server = cloud.spawn(order(setup), move || _ = count.fetch_add(1, Ordering::SeqCst)).await?;
    ensure(told.load(Ordering::SeqCst) == 1, format!("the quota was told {told:?} times"))?;
    let address = server.address().ok_or("it has no address")?;
    let cidr = setup.ground.cidr;
    ensure(
        matches!(address, std::net::IpAddr::V4(address) if cidr.contains(&address)),
        format!("{address} is outside {cidr}"),
    )?;
    ensure(cloud.server_state(server.id()).await? == ServerState::Active, "it does not run")?;
    let listed = setup.provider.servers().await?;
    ensure(
        listed.iter().any(|view| view.id == server.id() && view.name == server.name()),
        "it is not listed",
    )?;
    let marked = ours(setup).await?;
    ensure(
        marked.iter().any(|thing| thing.kind == Kind::Server && thing.id == server.id()),
        "it bears no mark",
    )?;
    ensure(server.is_running().await? && server.is_known().await?, "its handle takes it for gone")
}

async fn another_process(setup: &Setup) -> Case {
    let cloud = cloud(setup)?;
    let servers = cloud.servers().await?;
    let [server] = servers.as_slice() else {
        return Err(format!("it finds {} servers", servers.len()).into());
    };
    ensure(server.user() == setup.user && server.os() == setup.os, "user or system are lost")?;
    ensure(!server.details().host_keys.is_empty(), "the host keys are lost")?;
    let named = cloud.server_by_host_name(&server.host_name()).await?;
    ensure(named.as_ref().map(Server::id) == Some(server.id()), "it is not found by its host name")?;
    ensure(cloud.private_key().await?.is_some(), "the key is lost")
}

async fn external(setup: &Setup) -> Case {
    let cloud = cloud(setup)?;
    let order = SpawnOrder { external: true, ..order(setup) };
    let (one, other) = tokio::join!(cloud.spawn(order.clone(), || {}), cloud.spawn(order, || {}));
    let (one, other) = (one?, other?);
    ensure(one.address() != other.address(), format!("both have {:?}", one.address()))?;
    let heads = cloud.servers().await?.iter().filter(|server| server.is_head_node()).count();
    ensure(heads == 1, format!("{heads} of them are the head node"))?;
    one.destroy_at_once().await?;
    other.destroy_at_once().await?;
    let left = ours(setup).await?;
    ensure(!left.iter().any(|thing| thing.kind == Kind::FloatingIp), format!("an address is left: {left:?}"))
}

async fn dropped_spawn(setup: &Setup) -> Case {
    let before = ours(setup).await?;
    let cloud = cloud(setup)?;
    for wait in [0, 20, 300, 1500] {
        let spawn = cloud.spawn(order(setup), || {});
        if let Ok(server) = tokio::time::timeout(Duration::from_millis(wait), spawn).await {
            server?.destroy_at_once().await?;
        }
    }
    cloud.settled().await;
    let after = ours(setup).await?;
    ensure(after == before, format!("{after:?} instead of {before:?}"))?;
    let open = cloud.record().await?.map_or(0, |record| record.unsettled().count());
    ensure(open == 0, format!("{open} notes are left"))
}

async fn destroy(setup: &Setup) -> Case {
    let cloud = cloud(setup)?;
    let server = cloud.servers().await?.into_iter().next().ok_or("there is no server")?;
    server.destroy_at_once().await?;
    let gone = cloud.server_state(server.id()).await;
    ensure(gone.is_err_and(|error| error.is_not_found()), "it is still there")?;
    server.destroy().await?;
    cloud.destroy(server.id()).await?;
    ensure(server.is_destroyed() && !server.is_running().await?, "its handle takes it for alive")?;
    ensure(cloud.servers().await?.is_empty(), "it is still on record")
}

async fn neighbour(setup: &Setup) -> Case {
    let name = ResourceName::parse(&format!("{}x", setup.name))?;
    let neighbour = Cloud::new(Arc::clone(&setup.provider), &name, &setup.folder)?;
    neighbour.deploy(setup.ground.clone()).await?;
    let server = neighbour.spawn(order(setup), || {}).await?;
    let own = cloud(setup)?;
    let plan = own.tear_down_plan().await?;
    let foreign = plan.iter().find(|thing| thing.name.starts_with(name.as_str()));
    let refused = own.destroy(server.id()).await;
    let there = neighbour.server_state(server.id()).await;
    neighbour.tear_down().await?;
    ensure(foreign.is_none(), format!("{foreign:?} would be torn down"))?;
    ensure(matches!(refused, Err(Error::BadInput { .. })), "another's server could be destroyed")?;
    ensure(there.is_ok(), "it is gone")
}

async fn dry_tear_down(setup: &Setup) -> Case {
    let before = ours(setup).await?;
    let plan = cloud(setup)?.tear_down_plan().await?;
    for thing in &before {
        ensure(
            plan.iter().any(|planned| planned.found.as_ref() == Some(thing)),
            format!("{thing} is not named"),
        )?;
    }
    ensure(ours(setup).await? == before, "something is gone")
}

async fn tear_down(setup: &Setup) -> Case {
    let cloud = cloud(setup)?;
    // One more, so that there is something to tear down in a cloud without a ground.
    cloud.spawn(order(setup), || {}).await?;
    let id = cloud.record().await?.map(|record| record.deployment());
    let torn = cloud.tear_down().await?;
    ensure(torn.destroyed.iter().any(|thing| thing.kind == Kind::Server), "no server was destroyed")?;
    let left: Vec<Found> =
        setup.provider.survey(&setup.name, id).await?.into_iter().filter(|thing| thing.ours).collect();
    ensure(left.is_empty(), format!("{left:?} is left"))?;
    ensure(cloud.record().await?.is_none() && cloud.private_key().await?.is_none(), "files are left")?;
    let again = cloud.tear_down().await;
    ensure(matches!(again, Err(Error::NothingToTearDown { .. })), format!("the second one said {again:?}"))
}
