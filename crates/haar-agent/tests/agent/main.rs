//! The whole agent with a controller in memory and stub sub-agents in processes of their own.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod controller;
mod rest;
mod stub;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use controller::Controller;
use haar_agent::local::{Plan, Profiling, Settings};
use haar_agent::{Hand, HostNetwork, Parts, Patience, Running};
use haar_core::fence::Fence;
use haar_core::guest::{Goal, RestartPolicy};
use haar_core::id::GuestId;
use haar_core::image::Format;
use haar_core::name::Name;
use haar_core::node::GuestRecord;
use haar_core::order::{GuestOrder, Hello, ImageOrder, NetworkOrder, Phase, Power};
use haar_core::units::{MiB, Resources};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::sync::oneshot;
use uuid::Uuid;

/// The stub's process is this test; in an ordinary run it does nothing.
#[test]
fn stub_process() {
    stub::main();
}

struct World {
    folder: TempDir,
    controller: Arc<Controller>,
    agent: Option<(Running, oneshot::Sender<()>)>,
}

impl World {
    async fn new() -> World {
        let controller = Controller::new(Uuid::from_u128(9).into(), Uuid::from_u128(7).into());
        let mut world = World { folder: tempfile::tempdir().unwrap(), controller, agent: None };
        world.start().await;
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn hand(&self, name: &'static str) -> Hand {
        let program = stub::program(name, self.folder.path());
        Hand { name, socket: self.path(&format!("{name}.sock")), program: Some(program) }
    }

    fn rest_settings(&self) -> Settings {
        Settings {
            socket: self.path("agent.sock"),
            listen: None,
            plan: Plan::built_in(&self.path("libvirt.sock"), &self.path("storage.sock"), None),
            store: self.path("rest.redb"),
            profiling: Profiling::Off,
        }
    }

    async fn start(&mut self) {
        let parts = Parts {
            link: Arc::clone(&self.controller),
            cloud: self.controller.cloud,
            hypervisor: self.controller.hypervisor,
            ledger: self.path("agent/ledger.redb"),
            seeds: self.path("seeds"),
            storage: self.hand("storage"),
            libvirt: self.hand("libvirt"),
            patience: Patience {
                knock_every: Duration::from_millis(100),
                knock_limit: Duration::from_millis(500),
                knocks_missed: 3,
                overdue: Duration::from_millis(300),
            },
            reserve_memory_mib: None,
            container: None,
            host_network: HostNetwork::LeftAlone,
            rest: Some(self.rest_settings()),
        };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { drop(stopped.await) };
        self.agent = Some((haar_agent::start_with(parts, shutdown).await.unwrap(), stop));
    }

    async fn stop(&mut self) {
        let (running, stop) = self.agent.take().unwrap();
        stop.send(()).unwrap();
        running.ended().await.unwrap();
    }

    /// Calls under way are left as they are.
    async fn stop_and_start(&mut self) {
        self.stop().await;
        self.start().await;
    }

    fn order(&self, id: u128, goal: Goal) -> Fence {
        let image = ImageOrder {
            id: Uuid::from_u128(3).into(),
            format: Format::Qcow2,
            sha256: "00".repeat(32),
            file_bytes: 1,
            url: None,
        };
        let network = NetworkOrder {
            id: Uuid::from_u128(4).into(),
            bridge: "hr0000-00000000".into(),
            gateways: Vec::new(),
            nat: false,
        };
        self.controller.order(image, network, order(id, goal))
    }

    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            if Instant::now() >= deadline {
                let log = |name: &str| std::fs::read_to_string(self.path(name)).unwrap_or_default();
                panic!(
                    "waited in vain: {what}\ncalls:\n{}\n{}{}",
                    log("calls"),
                    log("storage.log"),
                    log("libvirt.log")
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_phase(&self, id: u128, order: Fence, phase: &str) {
        let guest = GuestId(Uuid::from_u128(id));
        let name = |phase: &Phase| match phase {
            Phase::Working => "working".to_owned(),
            Phase::Settled => "settled".to_owned(),
            Phase::Failed { stage, code, .. } => format!("failed {} {code}", stage.as_str()),
            Phase::Lost { .. } => "lost".to_owned(),
            Phase::Gone => "gone".to_owned(),
            Phase::Local { .. } => "local".to_owned(),
        };
        let told = || self.controller.report_of(guest);
        self.until(&format!("guest {id} {phase}, last told {:?}", told()), || {
            told().is_some_and(|report| report.order == order && name(&report.phase) == phase)
        })
        .await;
    }

    fn file(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn no_file(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    fn domains(&self) -> usize {
        stub::list(self.folder.path(), "domain").len()
    }

    fn disks(&self) -> usize {
        stub::list(self.folder.path(), "disk").len()
    }

    fn seeds(&self) -> usize {
        std::fs::read_dir(self.path("seeds")).unwrap().count()
    }

    fn calls(&self, line: &str) -> usize {
        let calls = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().filter(|call| call.starts_with(line)).count()
    }
}

fn order(id: u128, goal: Goal) -> GuestOrder {
    let uuid = Uuid::from_u128;
    GuestOrder {
        id: uuid(id).into(),
        name: Name::new(format!("guest-{id}")).unwrap(),
        project: Name::default_project(),
        order: Fence::default(),
        life: Fence::default(),
        goal,
        deed: None,
        provisioned: false,
        restart: RestartPolicy::OnFailure,
        job: None,
        flavor: uuid(2).into(),
        image: uuid(3).into(),
        resources: Resources { cpu: 1, memory: MiB(256), disk: MiB(1024) },
        network: uuid(4).into(),
        subnet: uuid(5).into(),
        mac: "02:1a:2b:3c:4d:5e".parse().unwrap(),
        address: "10.77.0.12".parse().unwrap(),
        prefix: 24,
        gateway: None,
        dns: Vec::new(),
        ssh_keys: Vec::new(),
        user_data: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_is_made_stopped_started_and_removed() {
    let mut world = World::new().await;
    let made = world.order(1, Goal::Running);
    world.until_phase(1, made, "settled").await;
    let report = world.controller.report_of(Uuid::from_u128(1).into()).unwrap();
    assert_eq!((report.power, report.provisioned), (Power::Running, true));
    assert_eq!((world.domains(), world.disks(), world.seeds()), (1, 1, 1));
    let domain = stub::find(world.folder.path(), "domain", &Uuid::from_u128(1).to_string()).unwrap();
    assert_eq!(domain.disks[0].source, format!("/disks/{}", Uuid::from_u128(1)));
    assert_eq!(domain.nics[0].network, "hr0000-00000000");
    let extra = domain.haar.unwrap();
    assert_eq!(extra.cloud, world.controller.cloud.to_string());
    assert!(Path::new(&extra.seed).is_file(), "{}", extra.seed);

    let off = world.order(1, Goal::Stopped);
    world.until_phase(1, off, "settled").await;
    assert_eq!(world.calls("Libvirt.Shutdown"), 1);
    let on = world.order(1, Goal::Running);
    world.until_phase(1, on, "settled").await;
    let gone = world.order(1, Goal::Gone);
    world.until_phase(1, gone, "gone").await;
    assert_eq!((world.domains(), world.disks(), world.seeds()), (0, 0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_fails_for_good_is_undone_and_told() {
    let mut world = World::new().await;
    world.file("fail-Libvirt.Run", "no_space: no room for the guest's memory");
    let order = world.order(1, Goal::Running);
    world.until_phase(1, order, "failed start no_space").await;
    assert_eq!((world.domains(), world.disks(), world.seeds()), (0, 0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_may_pass_is_tried_again() {
    let mut world = World::new().await;
    world.file("fail-Libvirt.CreateGuest", "unavailable: libvirtd does not answer");
    let order = world.order(1, Goal::Running);
    world.until("the disks", || world.disks() == 1).await;
    world.no_file("fail-Libvirt.CreateGuest");
    world.until_phase(1, order, "settled").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hanging_call_holds_up_one_guest_only() {
    let mut world = World::new().await;
    let hang = format!("hang-Libvirt.CreateGuest-{}", Uuid::from_u128(1));
    world.file(&hang, "");
    let first = world.order(1, Goal::Running);
    world.until("the call that hangs", || world.path("hung").exists()).await;
    let second = world.order(2, Goal::Running);
    world.until_phase(2, second, "settled").await;
    world.until_phase(1, world_order_of(&world, 1), "working").await;
    world.no_file(&hang);
    world.until_phase(1, world_order_of(&world, 1), "settled").await;
    assert!(first < second);
    world.stop().await;
}

fn world_order_of(world: &World, id: u128) -> Fence {
    world.controller.report_of(Uuid::from_u128(id).into()).unwrap().order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_agent_that_answers_nobody_is_killed_and_the_guest_is_made_all_the_same() {
    let mut world = World::new().await;
    let made = world.order(2, Goal::Running);
    world.until_phase(2, made, "settled").await;
    let frozen = pid_of(&world.path("storage.sock"));
    world.file("freeze", "");
    let order = world.order(1, Goal::Running);
    world.until("the frozen process to be killed", || kill(frozen, None).is_err()).await;
    world.no_file("freeze");
    world.until_phase(1, order, "settled").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_agent_killed_in_the_middle_of_a_create_is_replaced_and_asked_again() {
    let mut world = World::new().await;
    world.file("hang-Libvirt.Run", "");
    let order = world.order(1, Goal::Running);
    world.until("the call that hangs", || world.path("hung").exists()).await;
    kill(pid_of(&world.path("libvirt.sock")), Signal::SIGKILL).unwrap();
    world.no_file("hang-Libvirt.Run");
    world.until_phase(1, order, "settled").await;
    assert_eq!((world.domains(), world.disks()), (1, 1));
    world.stop().await;
}

/// The process that listens on the socket, by what the kernel knows of its peer.
fn pid_of(socket: &Path) -> Pid {
    let stream = UnixStream::connect(socket).unwrap();
    Pid::from_raw(getsockopt(&stream, PeerCredentials).unwrap().pid())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_stopped_in_the_middle_of_a_create_goes_on_with_the_same_ledger() {
    let mut world = World::new().await;
    world.file("hang-Libvirt.CreateGuest", "");
    let order = world.order(1, Goal::Running);
    world.until("the call that hangs", || world.path("hung").exists()).await;
    world.no_file("hang-Libvirt.CreateGuest");
    world.stop_and_start().await;
    world.until_phase(1, order, "settled").await;
    assert_eq!((world.domains(), world.disks(), world.seeds()), (1, 1, 1));
    assert_eq!(world.controller.lots().len(), 1, "it is the same life of the ledger");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_took_effect_but_was_never_answered_is_found_done() {
    let mut world = World::new().await;
    world.file("late-Libvirt.Run", "");
    let order = world.order(1, Goal::Running);
    let id = Uuid::from_u128(1).to_string();
    let runs =
        || stub::find(world.folder.path(), "domain", &id).is_some_and(|domain| domain.state == "running");
    world.until("the domain to run", runs).await;
    world.stop_and_start().await;
    world.no_file("late-Libvirt.Run");
    world.until_phase(1, order, "settled").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_was_away_hears_everything_afterwards() {
    let mut world = World::new().await;
    let made = world.order(1, Goal::Running);
    world.until_phase(1, made, "settled").await;
    world.controller.set_away(true);
    world.stop_and_start().await;
    world.until("the sub-agents", || UnixStream::connect(world.path("libvirt.sock")).is_ok()).await;
    world.controller.set_away(false);
    let gone = world.order(1, Goal::Gone);
    world.until_phase(1, gone, "gone").await;
    world.until("a complete report", || world.controller.complete().is_some()).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_incarnation_says_hello_again() {
    let mut world = World::new().await;
    let made = world.order(1, Goal::Running);
    world.until_phase(1, made, "settled").await;
    world.controller.forget_incarnation();
    let off = world.order(1, Goal::Off);
    world.until_phase(1, off, "settled").await;
    let lots = world.controller.lots();
    assert!(lots.len() == 2 && lots[0] == lots[1], "the same ledger says hello with the same lot: {lots:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_libvirt_the_host_is_told_with_nothing_to_give_and_why_until_it_is_there() {
    let controller = Controller::new(Uuid::from_u128(9).into(), Uuid::from_u128(7).into());
    let mut world = World { folder: tempfile::tempdir().unwrap(), controller, agent: None };
    world.file("fail-Libvirt.Host", "unavailable: libvirtd is not running");
    world.file("fail-Libvirt.List", "unavailable: libvirtd is not running");
    world.start().await;
    world.until("a complete report", || world.controller.complete().is_some()).await;
    let told = world.controller.complete().unwrap();
    assert_eq!(told.total, Resources::default());
    assert_eq!(told.inventory.accel, "unavailable");
    assert!(told.inventory.accel_reason.contains("libvirtd is not running"));

    world.no_file("fail-Libvirt.Host");
    world.no_file("fail-Libvirt.List");
    let has_cpus = |hello: Hello| hello.total.cpu == 8 && hello.inventory.accel == "tcg";
    world.until("the new facts", || world.controller.hello_of().is_some_and(has_cpus)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_guests_that_cannot_be_seen_is_told_so_and_again_when_it_is_seen() {
    let mut world = World::new().await;
    let made = world.order(1, Goal::Running);
    world.until_phase(1, made, "settled").await;
    let is_blind = |hello: &Hello| hello.inventory.blind() == Some("libvirtd is not running");
    let controller = Arc::clone(&world.controller);
    let told = move |wanted: bool| controller.hello_of().is_some_and(|hello| is_blind(&hello) == wanted);
    world.file("fail-Libvirt.List", "unavailable: libvirtd is not running");
    world.until("the hello that it cannot be seen", || told(true)).await;
    world.no_file("fail-Libvirt.List");
    world.until("the hello that it is seen", || told(false)).await;

    // An agent that starts so says it too, and goes on saying it, for it asks for no feed.
    world.file("fail-Libvirt.List", "unavailable: libvirtd is not running");
    world.stop().await;
    let before = world.controller.hellos();
    world.start().await;
    world.until("a hello and a sign of life", || told(true) && world.controller.hellos() > before + 1).await;
    assert_eq!(world.controller.lots().len(), 1, "it is the same ledger");
    world.no_file("fail-Libvirt.List");
    let off = world.order(1, Goal::Off);
    world.until_phase(1, off, "settled").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_no_book_goes_when_no_guest_here_is_of_it() {
    let mut world = World::new().await;
    let made = world.order(1, Goal::Running);
    world.until_phase(1, made, "settled").await;
    let images = |world: &World| stub::stored_images(world.folder.path()).len();
    assert_eq!(images(&world), 1);
    let calls = |world: &World| std::fs::read_to_string(world.path("calls")).unwrap();
    let lists = |world: &World| calls(world).matches("ImageStore.ListImages").count();
    // Its guest is here: a set without the image removes nothing. The second list is asked after the first sweep.
    for _ in 0..2 {
        let before = lists(&world);
        world.controller.forget_images();
        world.until("a look at the images", || lists(&world) > before).await;
    }
    assert_eq!(images(&world), 1);
    let gone = world.order(1, Goal::Gone);
    world.until_phase(1, gone, "gone").await;
    assert_eq!(images(&world), 1, "in the books again with the order, and kept for the next guest");
    world.controller.forget_images();
    world.until("the image to go", || images(&world) == 0).await;
    let calls = calls(&world);
    let at = |method: &str| calls.find(method).unwrap();
    assert!(at("ImageStore.DeleteGuestsDisks") < at("ImageStore.DeleteImage"), "{calls}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clouds_ledger_is_refused() {
    let mut world = World::new().await;
    let made = world.order(1, Goal::Running);
    world.until_phase(1, made, "settled").await;
    world.stop().await;
    let other = Controller::new(Uuid::from_u128(10).into(), world.controller.hypervisor);
    let parts = Parts {
        link: Arc::clone(&other),
        cloud: other.cloud,
        hypervisor: other.hypervisor,
        ledger: world.path("agent/ledger.redb"),
        seeds: world.path("seeds"),
        storage: world.hand("storage"),
        libvirt: world.hand("libvirt"),
        patience: Patience::default(),
        reserve_memory_mib: None,
        container: None,
        host_network: HostNetwork::LeftAlone,
        rest: None,
    };
    let refused = haar_agent::start_with(parts, std::future::pending()).await;
    assert!(matches!(refused, Err(haar_agent::Error::OtherLedger { .. })));
}

#[test]
fn golden_records_say_what_they_should() {
    let guest = include_bytes!("../golden/ledger-guest-v1.json");
    let record: GuestRecord = serde_json::from_slice(guest).unwrap();
    assert_eq!(record.order.unwrap().name.as_str(), "web");
}
