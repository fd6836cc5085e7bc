//! A real controller on a free port, an agent that does what it is told, and the binary run against them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use haar_api::client::Client;
use haar_api::endpoint::Nothing;
use haar_api::feed::{
    self, Feed, FeedGuest, GoalWord, Item, PowerWord, Report, ReportClaim, ReportComplete, ReportGuest,
    ReportPhase, ReportStep, StageWord, StepWord,
};
use haar_api::table as t;
use haar_api::v1::{
    FeedQuery, FenceText, HypervisorCreate, InventoryView, ResourcesView, TokenCreate, TokenRole, Wait,
};
use haar_controller::{Config, Running, start};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long anything may take before a test fails.
const LIMIT: Duration = Duration::from_secs(60);
const TOTAL: ResourcesView = ResourcesView { cpu: 8, memory: 16_384, disk: 1 << 20 };

/// A controller, and a home for the binary's user.
pub(crate) struct Cloud {
    pub(crate) url: String,
    pub(crate) admin: String,
    pub(crate) folder: TempDir,
    stop: oneshot::Sender<()>,
    running: Running,
}

/// What the binary said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Ended well.
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Ended well, and what it said is JSON.
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.well()).unwrap()
    }
}

impl Cloud {
    pub(crate) async fn start() -> Cloud {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            on_fatal: Box::new(|cause| panic!("the engine ended: {cause}")),
            ..Config::new(folder.path().join("controller"), "127.0.0.1:0".parse().unwrap())
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let mut running = start(config, async {
            let _ = stopped.await;
        })
        .await
        .unwrap();
        let admin = running.bootstrap.take().unwrap().admin.reveal().to_owned();
        Cloud { url: format!("http://{}", running.addr), admin, folder, stop, running }
    }

    /// Ends the controller in order.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(LIMIT, self.running.wait()).await.expect("the controller ends");
    }

    /// Runs the binary as the admin.
    pub(crate) async fn haar(&self, words: &str) -> Said {
        let words: Vec<&str> = words.split_whitespace().collect();
        haar(self.folder.path(), &[("HAAR_URL", &self.url), ("HAAR_TOKEN", &self.admin)], &words, "").await
    }

    /// Starts it so.
    pub(crate) fn begin(&self, words: &[&str]) -> Child {
        begin(self.folder.path(), &[("HAAR_URL", &self.url), ("HAAR_TOKEN", &self.admin)], words)
    }

    /// Writes a file the binary can be given.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Runs the binary with nothing of the test's own surroundings but a home.
pub(crate) async fn haar(home: &Path, surroundings: &[(&str, &str)], words: &[&str], input: &str) -> Said {
    use tokio::io::AsyncWriteExt as _;
    let mut child = begin(home, surroundings, words);
    let mut stdin = child.stdin.take().unwrap();
    // One that reads no input may be gone already.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    end(child).await
}

/// Starts the binary so; it is killed when dropped.
pub(crate) fn begin(home: &Path, surroundings: &[(&str, &str)], words: &[&str]) -> Child {
    // What tests us may have us ignore signals, as a shell does for what runs in its background.
    let mut command = tokio::process::Command::new("/usr/bin/env");
    command.arg("--default-signal").arg(env!("CARGO_BIN_EXE_haar"));
    command.args(words).env_clear().env("HOME", home).kill_on_drop(true);
    command.envs(surroundings.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for its end.
pub(crate) async fn end(child: Child) -> Said {
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("it ends").unwrap();
    Said {
        code: ended.status.code().expect("it was not killed"),
        out: String::from_utf8(ended.stdout).unwrap(),
        err: String::from_utf8(ended.stderr).unwrap(),
    }
}

/// What an agent makes of an order to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Luck {
    Good,
    NoSpace,
    /// It is never done with what is to run.
    Never,
}

/// An agent at work until dropped.
pub(crate) struct Agent(JoinHandle<()>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Makes the hypervisor `lab1` known, joins as its agent, and does what it is told.
    pub(crate) async fn join(cloud: &Cloud, luck: Luck) -> Agent {
        let admin = Client::new(&cloud.url, Some(cloud.admin.clone())).unwrap();
        let hypervisor = HypervisorCreate { name: "lab1".to_owned(), ..HypervisorCreate::default() };
        admin.request::<t::HypervisorPost>(&[]).send(&hypervisor).await.unwrap();
        let token = TokenCreate {
            name: "lab1-agent".to_owned(),
            role: TokenRole::Agent,
            hypervisor: Some("lab1".into()),
        };
        let made = admin.request::<t::TokenPost>(&[]).send(&token).await.unwrap();
        let client = Client::new(&cloud.url, Some(made.value.secret)).unwrap();
        let hello = feed::Hello { version: feed::VERSION, lot: 7, inventory: inventory(), total: TOTAL };
        let welcome = client.request::<t::AgentHello>(&[]).send(&hello).await.unwrap().value;
        let first = poll(&client, None).await.expect("the first poll has an answer");
        let empty = report(welcome.incarnation, &first, Vec::new(), true);
        client.request::<t::AgentReport>(&[]).send(&empty).await.unwrap();
        Agent(tokio::spawn(work(client, welcome.incarnation, luck)))
    }
}

fn inventory() -> InventoryView {
    InventoryView { host: "lab1".to_owned(), accel: "tcg".to_owned(), ..InventoryView::default() }
}

async fn poll(client: &Client, since: Option<FenceText>) -> Option<Feed> {
    let query = FeedQuery { since, wait: since.map(|_| Wait(Duration::from_secs(5))) };
    let polled = client.request::<t::AgentFeed>(&[]).query(query).poll(&Nothing).await;
    polled.ok().flatten().map(|answered| answered.value)
}

async fn work(client: Client, incarnation: u64, luck: Luck) {
    let mut since = None;
    let mut versions: BTreeMap<uuid::Uuid, u64> = BTreeMap::new();
    loop {
        let Some(feed) = poll(&client, since).await else {
            // Nothing new, or the controller is on its way out.
            tokio::task::yield_now().await;
            continue;
        };
        let orders: Vec<FeedGuest> = feed.guests.iter().filter_map(|item| item.clone().known()).collect();
        let is_done = |order: &FeedGuest| luck != Luck::Never || order.goal != GoalWord::Running;
        let done = orders.into_iter().filter(is_done).map(|order| {
            let version = versions.entry(order.id.0).or_default();
            *version += 1;
            done(order, *version, luck)
        });
        let report = report(incarnation, &feed, done.collect(), false);
        client.request::<t::AgentReport>(&[]).send(&report).await.unwrap();
        since = Some(feed.fence);
    }
}

fn report(incarnation: u64, feed: &Feed, guests: Vec<ReportGuest>, complete: bool) -> Report {
    let complete = complete.then(|| ReportComplete {
        epoch: feed.fence.0.epoch,
        holds: Vec::new(),
        strangers: vec!["test-old".to_owned()],
        inventory: inventory(),
        total: TOTAL,
    });
    Report {
        version: feed::VERSION,
        incarnation,
        seen: feed.fence,
        guests: guests.into_iter().map(Item::Known).collect(),
        complete,
        unsupported: Vec::new(),
    }
}

fn done(order: FeedGuest, version: u64, luck: Luck) -> ReportGuest {
    let full = "no space left on the disks' file system".to_owned();
    let (phase, power) = match (order.goal, luck) {
        (GoalWord::Gone, _) => (ReportPhase::Gone, PowerWord::Absent),
        (GoalWord::Running, Luck::NoSpace) => {
            let (stage, code) = (StageWord::Disks, "no_space".to_owned());
            (ReportPhase::Failed { stage, code, message: full.clone() }, PowerWord::Absent)
        }
        (GoalWord::Running, Luck::Good | Luck::Never) => (ReportPhase::Settled, PowerWord::Running),
        (GoalWord::Stopped | GoalWord::Off, _) => (ReportPhase::Settled, PowerWord::Off),
    };
    let failed = matches!(phase, ReportPhase::Failed { .. });
    let step = |stage, state, message| ReportStep { stage, state, message };
    let steps = match (order.goal, failed) {
        (GoalWord::Running, true) => vec![
            step(StageWord::Image, StepWord::Done, String::new()),
            step(StageWord::Disks, StepWord::Failed, full),
        ],
        (GoalWord::Running, false) => vec![
            step(StageWord::Image, StepWord::Done, String::new()),
            step(StageWord::Disks, StepWord::Done, String::new()),
            step(StageWord::Start, StepWord::Done, String::new()),
        ],
        _ => Vec::new(),
    };
    ReportGuest {
        id: order.id,
        life: order.life,
        order: order.order,
        version,
        provisioned: order.goal != GoalWord::Gone && !failed,
        phase,
        power,
        deed: order.deed.map(|deed| deed.fence),
        steps,
        claim: ReportClaim {
            name: order.name,
            project: order.project,
            resources: order.resources,
            flavor: order.flavor,
            image: order.image,
            network: order.network,
            subnet: order.subnet,
            mac: order.mac,
            address: order.address,
        },
    }
}
