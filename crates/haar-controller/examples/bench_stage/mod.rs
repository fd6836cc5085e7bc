//! What the benches of the controller share: a controller with its nouns and hosts, and clients that create.
//!
//! The controller is the real one, on a real file, spoken to over HTTP on loopback by the typed client, each
//! client with a connection of its own. The hosts' agents only greet, report that they hold nothing, and poll:
//! they make no guests.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use haar_api::client::Client;
use haar_api::endpoint::Nothing;
use haar_api::feed::{self, ReportComplete};
use haar_api::table;
use haar_api::v1::{
    FlavorCreate, GuestCreate, HypervisorCreate, ImageCreate, ImageFormat, InventoryView, NetworkCreate, Ref,
    ResourcesView, SubnetCreate, TokenCreate, TokenRole,
};
use haar_controller::{Config, Running};
use haar_store::{Meter, Options, RedbDisk};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use uuid::Uuid;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Hosts; each has room for all.
const HYPERVISORS: usize = 16;
/// How often an agent polls: often enough to be alive, seldom enough not to be what is measured.
const POLL: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(60);

/// A controller at work.
pub(crate) struct Stage {
    controller: Running,
    stop: oneshot::Sender<()>,
    meter: Arc<Meter>,
    url: String,
    token: String,
    /// A client of each host's agent, with its incarnation.
    pub(crate) agents: Vec<(Client, u64)>,
    polls: JoinSet<()>,
}

/// What came of creating.
pub(crate) struct Created {
    /// The ids of all that were answered with a yes.
    pub(crate) ids: Vec<Uuid>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

impl Stage {
    /// Starts a controller on a new store in `folder`, with flavor, image, network and hosts that are alive.
    pub(crate) async fn begin(folder: &Path, options: Options) -> Outcome<Stage> {
        std::fs::create_dir_all(folder)?;
        let disk = RedbDisk::open(folder.join("store.redb"), options)?;
        let meter = disk.meter();
        let mut config = Config::new(folder, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        config.disk = Some(Box::new(disk));
        let (stop, stopped) = oneshot::channel::<()>();
        let controller = haar_controller::start(config, async {
            // An error means that the stage is gone: an end as well.
            let _ = stopped.await;
        })
        .await?;
        let url = format!("http://{}", controller.addr);
        let bootstrap = controller.bootstrap.as_ref().ok_or("the store was not new")?;
        let token = bootstrap.admin.reveal().to_owned();
        let admin = Client::new(&url, Some(token.clone()))?;
        make_nouns(&admin).await?;
        let polls = JoinSet::new();
        let mut stage = Stage { controller, stop, meter, url, token, agents: Vec::new(), polls };
        for number in 0..HYPERVISORS {
            let agent = stage.join(&admin, number).await?;
            stage.polls.spawn(poll_for_ever(agent.0.clone()));
            stage.agents.push(agent);
        }
        Ok(stage)
    }

    /// Makes a host and has its agent greet and report that it holds nothing.
    async fn join(&self, admin: &Client, number: usize) -> Outcome<(Client, u64)> {
        let name = format!("host-{number}");
        let hypervisor = HypervisorCreate { name: name.clone(), ..Default::default() };
        admin.request::<table::HypervisorPost>(&[]).send(&hypervisor).await?;
        let token = TokenCreate { name: name.clone(), role: TokenRole::Agent, hypervisor: Some(name.into()) };
        let secret = admin.request::<table::TokenPost>(&[]).send(&token).await?.value.secret;
        let agent = Client::new(&self.url, Some(secret))?;
        let total = ResourcesView { cpu: 1_000_000, memory: 1 << 30, disk: 1 << 30 };
        let inventory = InventoryView::default();
        let hello = feed::Hello {
            version: feed::VERSION,
            lot: number as u64 + 1,
            inventory: inventory.clone(),
            total,
        };
        let welcome = agent.request::<table::AgentHello>(&[]).send(&hello).await?.value;
        let complete = ReportComplete {
            epoch: welcome.fence.0.epoch,
            holds: Vec::new(),
            strangers: Vec::new(),
            inventory,
            total,
        };
        let report = feed::Report {
            version: feed::VERSION,
            incarnation: welcome.incarnation,
            seen: welcome.fence,
            guests: Vec::new(),
            complete: Some(complete),
            unsupported: Vec::new(),
        };
        agent.request::<table::AgentReport>(&[]).send(&report).await?;
        Ok((agent, welcome.incarnation))
    }

    /// Creates guests with so many clients at once, each asking for the next when it has its answer, as long
    /// as `go_on` says yes to the number begun so far and the time since the start.
    pub(crate) async fn create(
        &self,
        clients: usize,
        go_on: impl Fn(usize, Duration) -> bool + Send + Sync + 'static,
    ) -> Outcome<Created> {
        let (go_on, begun, start) = (Arc::new(go_on), Arc::new(AtomicUsize::new(0)), Instant::now());
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let client = Client::new(&self.url, Some(self.token.clone()))?;
            let (go_on, begun) = (Arc::clone(&go_on), Arc::clone(&begun));
            tasks.spawn(async move {
                let mut ids = Vec::new();
                while go_on(begun.fetch_add(1, Ordering::Relaxed), start.elapsed()) {
                    ids.push(create_one(&client).await?);
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(ids)
            });
        }
        let mut ids = Vec::new();
        while let Some(done) = tasks.join_next().await {
            ids.extend(done??);
        }
        Ok(Created { ids, took: start.elapsed() })
    }

    /// Flushes of the store and commits of the controller so far.
    pub(crate) async fn flushes_and_commits(&self) -> Outcome<(u64, u64)> {
        let client = Client::new(&self.url, None)?;
        let mut page = client.request::<table::Metrics>(&[]).stream(&Nothing).await?;
        let mut text = Vec::new();
        while let Some(chunk) = page.chunk().await? {
            text.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(text)?;
        let count = text.lines().find_map(|line| line.strip_prefix("haar_commit_seconds_count "));
        let commits = count.ok_or("/metrics does not count commits")?.trim().parse()?;
        Ok((self.meter.flushes(), commits))
    }

    /// Ends the controller; then its store is closed.
    pub(crate) async fn end(mut self) {
        self.polls.shutdown().await;
        let _ = self.stop.send(());
        self.controller.wait().await;
    }
}

async fn make_nouns(admin: &Client) -> Outcome<()> {
    let flavor = FlavorCreate { name: "bench".into(), cpu: 1, memory: 16, disk: 1, ..Default::default() };
    admin.request::<table::FlavorPost>(&[]).send(&flavor).await?;
    let image = ImageCreate {
        name: "bench".into(),
        project: None,
        metadata: Default::default(),
        format: ImageFormat::Qcow2,
        url: Some("http://images.invalid/tiny.qcow2".into()),
        sha256: Some("0".repeat(64)),
    };
    admin.request::<table::ImagePost>(&[]).send(&image).await?;
    let network = NetworkCreate { name: "wide".into(), ..Default::default() };
    admin.request::<table::NetworkPost>(&[]).send(&network).await?;
    let subnet = SubnetCreate {
        name: "wide".into(),
        network: "wide".into(),
        cidr: "10.128.0.0/10".into(),
        gateway: Some(Some("10.128.0.1".into())),
        ..Default::default()
    };
    admin.request::<table::SubnetPost>(&[]).send(&subnet).await?;
    Ok(())
}

/// Creates one guest and checks the answer: a yes (201, or 202 with its job), and about this guest.
async fn create_one(client: &Client) -> Outcome<Uuid> {
    let id = Uuid::new_v4();
    let guest = GuestCreate {
        name: format!("g-{}", id.simple()),
        project: None,
        metadata: Default::default(),
        kind: String::new(),
        flavor: Ref::from("bench"),
        image: Some("bench".into()),
        network: "wide".into(),
        subnet: None,
        ip: None,
        fwgroup: None,
        mac: None,
        hypervisor: None,
        require: Default::default(),
        restart: Default::default(),
        ssh_keys: Vec::new(),
        user_data: None,
        start: true,
    };
    let call = client.request::<table::GuestPut>(&[&id.to_string()]).limit(LIMIT);
    let answered = call.send(&guest).await?;
    let is_yes = answered.status == 201 || (answered.status == 202 && answered.job().is_some());
    if !is_yes || answered.value.id.0 != id || answered.value.ip.is_none() {
        return Err(format!("guest {id} was answered with {}: {:?}", answered.status, answered.value).into());
    }
    Ok(id)
}

/// A poll is the heartbeat; what it brings is not carried out.
async fn poll_for_ever(agent: Client) {
    loop {
        // A poll that fails shows in the creates, which then have nowhere to go.
        let _ = agent.request::<table::AgentFeed>(&[]).limit(LIMIT).poll(&Nothing).await;
        tokio::time::sleep(POLL).await;
    }
}
