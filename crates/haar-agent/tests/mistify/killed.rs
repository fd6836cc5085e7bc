//! The REST in a process of its own, killed at every commit and in every call of every pipeline; and its sub-agents
//! likewise. Whatever falls, in the end every job has ended, nothing was done twice, and nothing is left of a guest
//! that is gone.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use haar_agent::local::{self, Plan, Profiling, Settings};
use haar_api::rpc;
use haar_store::{Disk, Error, Fence, Kind, Limits, Op, Options, Reader, RedbDisk, Visit};
use haar_subagents::kit;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;

use crate::host::{Break, Host, Quiet};
use crate::stub::Stub;
use crate::world::{Answer, G, request, sample, try_exchange};

const FOLDER: &str = "REST_FOLDER";

/// The process of the REST is this test; in an ordinary run it does nothing.
#[test]
fn rest_process() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    // The test holds the other end of the standard input.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let settings = Settings {
        socket: folder.join("agent.sock"),
        listen: None,
        plan: Plan::read(&folder.join("agent.json")).unwrap(),
        store: folder.join("rest.redb"),
        profiling: Profiling::Off,
    };
    let disk = RedbDisk::open(&settings.store, Options::default()).unwrap();
    let disk = Killing { disk, order: folder.join("kill"), commits: 0 };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let never = std::future::pending();
    runtime.block_on(async {
        local::start_on(Box::new(disk), settings, never).await.unwrap().ended().await.unwrap();
    });
}

/// A disk that kills its own process at the commit that the file `kill` says, counted from when that is there.
struct Killing {
    disk: RedbDisk,
    order: PathBuf,
    commits: usize,
}

impl Killing {
    fn kill(&self, moment: &str) {
        if std::fs::read_to_string(&self.order)
            .is_ok_and(|order| order == format!("{moment} {}", self.commits))
        {
            kill(Pid::this(), Signal::SIGKILL).unwrap();
        }
    }
}

impl Disk for Killing {
    fn load(&mut self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error> {
        self.disk.load(skip, each)
    }

    fn commit(&mut self, ops: &[Op], expected: Fence, new: Fence) -> Result<(), Error> {
        if self.order.exists() {
            self.commits += 1;
        }
        self.kill("before");
        let committed = self.disk.commit(ops, expected, new);
        self.kill("after");
        committed
    }

    fn limits(&self) -> Limits {
        self.disk.limits()
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.disk.reopen()
    }

    fn reader(&self) -> Box<dyn Reader> {
        self.disk.reader()
    }
}

/// An agent's process; it ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Agent {
    async fn start(folder: &Path, host: &Host) -> Agent {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["killed::rest_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let agent = Agent(command.spawn().unwrap());
        host.state().agent = Some(Pid::from_raw(agent.0.id().try_into().unwrap()));
        until("the agent listens", async || UnixStream::connect(folder.join("agent.sock")).await.is_ok())
            .await;
        agent
    }

    /// Whether it was killed; an agent that ended by itself is a failure.
    fn is_killed(&mut self) -> bool {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none_or(|status| status.signal() == Some(9)), "{ended:?}");
        ended.is_some()
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What is asked for, on what, and how the host looks when it is done.
struct Case {
    action: &'static str,
    /// How a running guest is held still for its snapshots.
    quiet: Quiet,
    before: &'static [&'static str],
    is_done: fn(&Host) -> bool,
}

fn runs(host: &Host) -> Option<bool> {
    let state = host.state();
    state.domains.get(G).copied().filter(|_| state.disks.contains(G))
}

fn has_snapshot(host: &Host) -> bool {
    host.state().snapshots.contains_key(&format!("guests/{G}@s1"))
}

const CASES: &[Case] = &[
    Case { quiet: Quiet::No, action: "create", before: &[], is_done: |host| runs(host) == Some(true) },
    Case {
        quiet: Quiet::No,
        action: "shutdown",
        before: &["create"],
        is_done: |host| runs(host) == Some(false),
    },
    Case {
        quiet: Quiet::No,
        action: "start",
        before: &["create", "shutdown"],
        is_done: |host| runs(host) == Some(true),
    },
    Case {
        quiet: Quiet::No,
        action: "reboot",
        before: &["create"],
        is_done: |host| runs(host) == Some(true),
    },
    Case { quiet: Quiet::No, action: "createSnapshot", before: &["create"], is_done: has_snapshot },
    Case { quiet: Quiet::Frozen, action: "createSnapshot", before: &["create"], is_done: has_snapshot },
    Case { quiet: Quiet::Suspended, action: "createSnapshot", before: &["create"], is_done: has_snapshot },
    Case { quiet: Quiet::Inside, action: "createSnapshot", before: &["create"], is_done: has_snapshot },
    Case {
        quiet: Quiet::No,
        action: "rollbackSnapshot",
        before: &["create", "createSnapshot"],
        is_done: has_snapshot,
    },
    Case {
        quiet: Quiet::No,
        action: "deleteSnapshot",
        before: &["create", "createSnapshot"],
        is_done: |host| runs(host).is_some() && !has_snapshot(host),
    },
    Case {
        quiet: Quiet::Inside,
        action: "deleteSnapshot",
        before: &["create", "createSnapshot"],
        is_done: |host| runs(host) == Some(true) && !has_snapshot(host),
    },
    Case {
        quiet: Quiet::No,
        action: "delete",
        before: &["create", "createSnapshot"],
        is_done: |host| host.state().is_empty(),
    },
];

fn asked(action: &str) -> (&'static str, String, String) {
    let guest = json!({"id": G, "memory": 512, "cpu": 1, "disks": [{"size": 10}]});
    let snapshots = format!("/guests/{G}/snapshots");
    match action {
        "create" => ("POST", "/guests".to_owned(), guest.to_string()),
        "createSnapshot" => ("POST", snapshots, json!({"dest": "s1"}).to_string()),
        "rollbackSnapshot" => ("POST", format!("{snapshots}/s1/rollback"), "{}".to_owned()),
        "deleteSnapshot" => ("DELETE", format!("{snapshots}/s1"), String::new()),
        other => ("POST", format!("/guests/{G}/{other}"), "null".to_owned()),
    }
}

/// A folder with an agent and its host.
struct World {
    folder: TempDir,
    host: Host,
    agent: Agent,
    stub: Stub,
}

impl World {
    async fn new(before: &[&str], quiet: Quiet) -> World {
        let (folder, host) = (tempfile::tempdir().unwrap(), Host::default());
        let stub = host.stub().await;
        let mut config = sample(stub.address);
        let run = json!({"service": "libvirt", "method": "Libvirt.Run"});
        config["actions"]["create"]["stages"].as_array_mut().unwrap().push(run);
        host.state().quiet = quiet;
        if quiet != Quiet::No {
            for action in ["createSnapshot", "deleteSnapshot"] {
                config["actions"][action]["stages"][0]["quiesce"] = json!("libvirt");
            }
        }
        std::fs::write(folder.path().join("agent.json"), config.to_string()).unwrap();
        let agent = Agent::start(folder.path(), &host).await;
        let mut world = World { folder, host, agent, stub };
        for action in before {
            world.ask(action).await.unwrap();
            let job = world.end(action).await.expect("nobody kills it yet");
            assert_eq!(job["Status"], "Complete", "{action}: {job}");
        }
        world.host.state().effects.clear();
        world
    }

    /// Has the agent kill itself there.
    fn kill_at(&self, moment: &str, commit: usize) {
        std::fs::write(self.folder.path().join("kill"), format!("{moment} {commit}")).unwrap();
    }

    async fn exchange(&self, method: &str, path: &str, body: String) -> Option<Answer> {
        let stream = UnixStream::connect(self.folder.path().join("agent.sock")).await.ok()?;
        try_exchange(stream, request(method, path, body)).await.ok()
    }

    /// None when the agent was killed before it had answered.
    async fn ask(&self, action: &str) -> Option<Answer> {
        let (method, path, body) = asked(action);
        let answer = self.exchange(method, &path, body).await?;
        assert!(matches!(answer.status, 200 | 202), "{action}: {answer:?}");
        Some(answer)
    }

    async fn jobs(&self) -> Option<Vec<Value>> {
        let jobs = self.exchange("GET", "/jobs", String::new()).await?.is(200).json();
        Some(jobs.as_array().unwrap().clone())
    }

    /// The newest job of an action, when it has ended; None when the agent was killed meanwhile.
    async fn end(&mut self, action: &str) -> Option<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.jobs().await {
                Some(jobs) => {
                    let job = jobs.into_iter().find(|job| job["Action"] == action);
                    let job = job.unwrap_or_else(|| panic!("the job of {action} is lost"));
                    if job["Status"] == "Complete" || job["Status"] == "Error" {
                        return Some(job);
                    }
                }
                None if self.agent.is_killed() => return None,
                None => {}
            }
            assert!(Instant::now() < deadline, "{action} does not end: {:?}", self.host);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Asks, and when the agent is killed meanwhile starts it again and asks what became of it, or anew when it knows
    /// nothing of that. Gives the job and whether the agent was killed.
    async fn through(&mut self, action: &str) -> (Value, bool) {
        if self.ask(action).await.is_some()
            && let Some(job) = self.end(action).await
        {
            let _ = std::fs::remove_file(self.folder.path().join("kill"));
            return (job, false);
        }
        until("the agent is killed", async || self.agent.is_killed()).await;
        // Whoever was killed by its own hand is not to be killed again.
        self.host.state().agent = None;
        let _ = std::fs::remove_file(self.folder.path().join("kill"));
        self.agent = Agent::start(self.folder.path(), &self.host).await;
        if self.jobs().await.unwrap().iter().all(|job| job["Action"] != action) {
            self.ask(action).await.unwrap();
        }
        (self.end(action).await.unwrap(), true)
    }

    /// What must hold, whatever fell, and that a guest can still be deleted without a trace.
    async fn check(&mut self, case: &Case, job: &Value, place: &str) {
        let effects = self.host.state().effects.clone();
        for (at, effect) in effects.iter().enumerate() {
            assert!(!effects[..at].contains(effect), "{place}: done twice: {effects:?}");
        }
        let is_held = self.host.state().frozen || self.host.state().suspended;
        assert!(!is_held, "{place}: left held: {:?}", self.host);
        if job["Status"] == "Complete" {
            assert!((case.is_done)(&self.host), "{place}: {job} {:?}", self.host);
        }
        let jobs = self.jobs().await.unwrap();
        assert_eq!(jobs.iter().filter(|job| job["Action"] == case.action).count(), 1, "{place}: {jobs:?}");
        let found = self.exchange("GET", &format!("/guests/{G}"), String::new()).await.unwrap();
        if found.status == 404 {
            assert!(self.host.state().is_empty(), "{place}: orphaned: {:?}", self.host);
            return;
        }
        self.ask("delete").await.unwrap();
        let deleted = self.end("delete").await.unwrap();
        assert_eq!(deleted["Status"], "Complete", "{place}: {deleted}");
        assert!(self.host.state().is_empty(), "{place}: orphaned: {:?}", self.host);
    }
}

/// Whether a job that was under way when the agent fell may end with an error: asked again it would be done again.
fn may_end_badly(case: &Case) -> bool {
    matches!(case.action, "reboot" | "rollbackSnapshot")
        || case.action == "createSnapshot" && case.quiet == Quiet::No
}

fn check_end(case: &Case, job: &Value, place: &str) {
    let words = job["Message"].as_str().unwrap();
    let told = may_end_badly(case) && words.contains("not asked twice");
    assert!(job["Status"] == "Complete" || told, "{place}: {job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_commit_of_any_pipeline_every_job_ends_and_nothing_is_done_twice() {
    for case in CASES {
        for moment in ["before", "after"] {
            for commit in 1.. {
                let place = format!("{} killed {moment} commit {commit}", case.action);
                let mut world = World::new(case.before, case.quiet).await;
                world.kill_at(moment, commit);
                let (job, killed) = world.through(case.action).await;
                check_end(case, &job, &place);
                world.check(case, &job, &place).await;
                if !killed {
                    assert!(commit > 2, "{place}: nothing was killed");
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_any_call_of_any_pipeline_every_job_ends_and_nothing_is_done_twice() {
    for case in CASES {
        for how in [Break::AgentBefore, Break::AgentAfter] {
            for call in 1.. {
                let place = format!("{}: {how:?} at call {call}", case.action);
                let mut world = World::new(case.before, case.quiet).await;
                world.host.state().breaks = Some((call, how));
                let (job, killed) = world.through(case.action).await;
                check_end(case, &job, &place);
                world.host.state().breaks = None;
                world.check(case, &job, &place).await;
                if !killed {
                    assert!(call > 1, "{place}: nothing was killed");
                    break;
                }
            }
        }
    }
}

/// The ways a sub-agent falls.
const FALLS: [Break; 4] =
    [Break::SubAgentBefore, Break::SubAgentAfter, Break::UnavailableBefore, Break::UnavailableAfter];

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_agent_that_falls_in_any_call_leaves_nothing_behind() {
    for case in CASES {
        for how in FALLS {
            for call in 1.. {
                let place = format!("{}: {how:?} at call {call}", case.action);
                let mut world = World::new(case.before, case.quiet).await;
                world.host.state().breaks = Some((call, how));
                let (job, _) = world.through(case.action).await;
                let all_well = world.host.state().breaks.take().is_some();
                // What lets a guest go on is asked again until it is heard.
                let is_made_good = case.quiet != Quiet::No && job["Status"] == "Complete";
                assert!(is_made_good || (job["Status"] == "Complete") == all_well, "{place}: {job}");
                if case.action == "create" && !all_well {
                    assert!(world.host.state().is_empty(), "{place}: left: {:?}", world.host);
                    world.host.state().effects.clear();
                }
                if case.action == "delete" && !all_well {
                    // Asked again it goes on where it stands.
                    world.ask("delete").await.unwrap();
                    assert_eq!(world.end("delete").await.unwrap()["Status"], "Complete", "{place}");
                    assert!((case.is_done)(&world.host), "{place}");
                    continue;
                }
                world.check(case, &job, &place).await;
                if all_well {
                    assert!(call > 1, "{place}: nothing fell");
                    break;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_agent_is_silent_is_asked_again_until_it_is_thawed() {
    let mut world = World::new(&["create"], Quiet::Frozen).await;
    world.host.state().silences = 2;
    let (job, _) = world.through("createSnapshot").await;
    assert_eq!((&job["Status"], world.host.state().frozen), (&json!("Complete"), false), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_is_taken_back_by_a_sub_agent_that_falls_once_more() {
    for call in 1..=2 {
        let mut world = World::new(&[], Quiet::No).await;
        let stub = &world.stub;
        stub.on("Libvirt.Run", crate::stub::Manner::Error("no room"));
        world.host.state().breaks = Some((2 + call, Break::SubAgentBefore));
        let (job, _) = world.through("create").await;
        assert_eq!(job["Message"], "no room");
        assert!(world.host.state().is_empty(), "call {call}: {:?}", world.host);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_yet_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("libvirt.sock");
    let world = crate::world::World::with(|config| {
        config["services"]["libvirt"] = json!({"socket": socket});
    })
    .await;
    let asked = json!({"id": G, "memory": 1, "cpu": 1}).to_string();
    let job = world.ask("POST", "/guests", asked).await.is(202).job();
    world.until_asked("ImageStore.CreateGuestDisks", 1).await;
    let mut server = kit::Server::new();
    server.method("Libvirt.CreateGuest", |request: rpc::GuestRequest| async move {
        Ok::<_, rpc::Fault>(rpc::GuestResponse { guest: request.guest, ..Default::default() })
    });
    let bound = server.bind(&kit::Listen::Unix(socket.clone())).unwrap();
    let serving = tokio::spawn(bound.serve(std::future::pending()));
    let ended = world.ended(&job).await;
    assert_eq!(ended["Status"], "Complete", "{ended}");
    serving.abort();
}
