//! A sub-agent in a temp folder, a bridge of its own, and the calls, so that a case is a few lines.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use haar_api::rpc::{self, Fault, FaultCode};
use haar_subagents::container::{self, Config, Limits, Monitor};
use haar_subagents::kit::{self, CallError, Listen};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::make_image::Image;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const IMAGE: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const GUEST: &str = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";
pub(crate) const OTHER_GUEST: &str = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb";
const FOLDER: &str = "HAAR_TEST_CONTAINER_FOLDER";
const MONITOR: &str = "HAAR_TEST_CONTAINER_MONITOR";

/// A folder, a cloud and a bridge of a test's own. With it goes everything that has its name on the host.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) cloud: String,
    pub(crate) bridge: Option<String>,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl World {
    pub(crate) fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("import")).unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let cloud = format!("test-{}-{number}", std::process::id());
        std::fs::write(folder.path().join("cloud"), &cloud).unwrap();
        World { folder, cloud, bridge: None }
    }

    /// With a bridge; none where containers cannot run, which is told then.
    pub(crate) fn live() -> Option<World> {
        if !nix::unistd::geteuid().is_root() {
            left_out("only root runs containers");
            return None;
        }
        if !["runc", "crun"].iter().any(|name| Command::new(name).arg("--version").output().is_ok()) {
            left_out("neither runc nor crun is installed");
            return None;
        }
        let mut world = World::new();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let bridge = format!("hct{}x{number}", std::process::id() % 1_000_000);
        ip(&["link", "add", &bridge, "type", "bridge"]);
        world.bridge = Some(bridge.clone());
        ip(&["link", "set", &bridge, "up"]);
        Some(world)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("run/container.sock")
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.path().join("container/containers").join(id)
    }

    /// What stands in a file of a container, such as its record.
    pub(crate) fn noted(&self, id: &str, file: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.container(id).join(file)).unwrap()).unwrap()
    }

    /// The process that watches over a container.
    pub(crate) fn monitor(&self, id: &str) -> nix::unistd::Pid {
        let pid = self.noted(id, "monitor.json")["pid"].as_i64().unwrap();
        nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap())
    }

    pub(crate) fn agent_log(&self) -> String {
        std::fs::read_to_string(self.path().join("agent.log")).unwrap_or_default()
    }

    pub(crate) fn log(&self, id: &str) -> String {
        std::fs::read_to_string(self.container(id).join("log")).unwrap_or_default()
    }

    /// Names on the host that are this cloud's.
    pub(crate) fn tag(&self) -> String {
        use sha2::Digest as _;
        hex::encode(&sha2::Sha256::digest(&self.cloud)[..4])
    }

    /// Everything of this world's that stands on the host: mounts, namespaces, cgroups, processes.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let folder = self.path().canonicalize().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let inside = folder.to_str().unwrap();
        traces.extend(mounts.lines().filter(|line| line.contains(inside)).map(ToOwned::to_owned));
        let tag = self.tag();
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            traces.extend(entry.file_name().into_string().ok().filter(|name| name.contains(&tag)));
        }
        for cgroup in self.cgroups() {
            for entry in std::fs::read_dir(cgroup).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
                traces.push(entry.path().display().to_string());
            }
        }
        if let Some(bridge) = &self.bridge {
            let ports =
                std::fs::read_dir(format!("/sys/class/net/{bridge}/brif")).into_iter().flatten().flatten();
            traces.extend(ports.map(|port| port.path().display().to_string()));
        }
        traces
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let kinds = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let points = kinds.filter(|fields| matches!(fields[2], "cgroup" | "cgroup2"));
        let folders = points.map(|fields| Path::new(fields[1]).join(format!("haar-{}", self.tag())));
        folders.filter(|folder| folder.is_dir()).collect()
    }

    /// Process ids of everything that runs in this world's containers.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        for cgroup in self.cgroups() {
            for entry in std::fs::read_dir(cgroup).unwrap().flatten() {
                let text = std::fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
                pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            }
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Puts an image where it may be loaded from.
    pub(crate) fn request(&self, image: &Image) -> rpc::ImageRequest {
        let layout = self.path().join("import/layout");
        let _ = std::fs::remove_dir_all(&layout);
        image.write_layout(&layout);
        rpc::ImageRequest {
            id: IMAGE.to_owned(),
            source: format!("file://{}", layout.display()),
            ..Default::default()
        }
    }

    /// A guest with an address on this world's bridge.
    pub(crate) fn guest(&self, id: &str) -> Value {
        json!({
            "id": id,
            "type": "container",
            "image": IMAGE,
            "memory": 64,
            "cpu": 1,
            "nics": [{
                "network": self.bridge.clone().unwrap_or_else(|| "br0".to_owned()),
                "model": "virtio",
                "mac": if id == GUEST { "02:00:00:00:00:0a" } else { "02:00:00:00:00:0b" },
                "address": if id == GUEST { "10.98.7.10" } else { "10.98.7.11" },
                "netmask": "ffffff00",
                "gateway": "<nil>",
                "vlans": [1],
            }],
            "haar": {"cloud": self.cloud, "name": "box", "life": "1.1", "stranger": {"kept": 1}},
        })
    }
}

/// What goes also when a test failed: only what has this world's name.
impl Drop for World {
    fn drop(&mut self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            for pid in self.pids().into_iter().filter(|pid| *pid > 1) {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
            let cgroups = self.cgroups();
            for cgroup in &cgroups {
                for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
                    for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                        let path = entry.path().join(file);
                        let _ = path.exists().then(|| std::fs::write(&path, word));
                    }
                    let _ = std::fs::remove_dir(entry.path());
                }
                let _ = std::fs::remove_dir(cgroup);
            }
            if cgroups.is_empty() || std::time::Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let folder = self.path().canonicalize().unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| Path::new(point).starts_with(&folder)) {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
        for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if name.contains(&self.tag()) {
                let _ = Command::new("ip").args(["netns", "delete", &name]).status();
            }
        }
        if let Some(bridge) = &self.bridge {
            let _ = Command::new("ip").args(["link", "delete", bridge]).status();
        }
    }
}

pub(crate) fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("this test needs ip: install iproute2");
    assert!(output.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What the sub-agent of a world is told.
pub(crate) fn config(folder: &Path) -> Config {
    let monitor = |folder: &Path| {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--exact", "harness::the_monitor_as_a_process", "--ignored", "--nocapture"]);
        command.env(MONITOR, folder);
        command
    };
    Config {
        listen: Listen::Unix(folder.join("run/container.sock")),
        root: folder.join("container"),
        run: folder.join("run/container"),
        image_dirs: vec![folder.join("import")],
        image_service: std::fs::read_to_string(folder.join("image-service"))
            .ok()
            .map(|text| text.parse().unwrap()),
        limits: Limits { bytes: 64 << 20, entries: 1000, ..Limits::default() },
        monitor: Monitor(Arc::new(monitor)),
        cloud: std::fs::read_to_string(folder.join("cloud")).unwrap(),
    }
}

/// The sub-agent as a process: this test binary again, running nothing else; killed with the test.
pub(crate) struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started as a process by the other tests"]
async fn the_sub_agent_as_a_process() {
    let folder = std::env::var_os(FOLDER).expect("only another test starts this one");
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    container::run(config(folder.as_ref()), async move {
        end.recv().await;
    })
    .await
    .unwrap();
}

#[test]
#[ignore = "started as a process by the sub-agent"]
fn the_monitor_as_a_process() {
    let folder = std::env::var_os(MONITOR).expect("only a sub-agent starts this one");
    container::monitor(folder.as_ref()).unwrap();
}

impl Agent {
    /// Starts it and waits until it answers; started again when it ends, as its supervisor would. A child that a killed
    /// one had just forked may hold its socket for a moment.
    pub(crate) async fn start(world: &World) -> Agent {
        let mut agent = Agent::start_unready(world);
        let begun = std::time::Instant::now();
        while agent.try_call::<Value>("GetInfo", &json!({})).await.is_err() {
            assert!(begun.elapsed() < LIMIT, "the sub-agent never answers: {}", world.agent_log());
            if agent.child.try_wait().unwrap().is_some() {
                agent = Agent::start_unready(world);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        agent
    }

    fn start_unready(world: &World) -> Agent {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(world.path().join("agent.log"))
            .unwrap();
        // Programs that a test puts there are found before the host's.
        let path = format!("{}:{}", world.path().join("bin").display(), std::env::var("PATH").unwrap());
        let child = Command::new(std::env::current_exe().unwrap())
            .env("PATH", path)
            .args(["--exact", "harness::the_sub_agent_as_a_process", "--ignored", "--nocapture"])
            .env(FOLDER, world.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        Agent { child: child.unwrap(), socket: world.socket() }
    }

    /// As a power cut would, but for what other processes do.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) async fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        until("the sub-agent ends", || self.child.try_wait().unwrap().is_some()).await;
    }

    pub(crate) async fn try_call<R: DeserializeOwned>(
        &self,
        method: &str,
        params: &Value,
    ) -> Result<R, CallError> {
        kit::call(&self.socket, &format!("MDocker.{method}"), params, LIMIT).await
    }

    pub(crate) async fn call<R: DeserializeOwned>(&self, method: &str, params: &Value) -> Result<R, Fault> {
        match self.try_call(method, params).await {
            Ok(result) => Ok(result),
            Err(CallError::Fault(fault)) => Err(fault),
            Err(error) => panic!("{method} did not reach the sub-agent: {error:?}"),
        }
    }

    /// Loads until the image is complete or the load failed.
    pub(crate) async fn load(&self, request: &rpc::ImageRequest) -> Result<rpc::Image, Fault> {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let request = serde_json::to_value(request).unwrap();
        loop {
            let response: rpc::ImageResponse = self.call("LoadImage", &request).await?;
            let image = response.images.unwrap().remove(0);
            match image.status.as_str() {
                "complete" => return Ok(image),
                "error" => return Err(Fault::parse(&image.haar.unwrap().error)),
                _ => assert!(tokio::time::Instant::now() < deadline, "the load never ended: {image:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A guest method; answers the guest.
    pub(crate) async fn guest(&self, method: &str, guest: &Value) -> Result<Value, Fault> {
        let answer: Value = self.call(method, &json!({"guest": guest, "action": "test"})).await?;
        Ok(answer["guest"].clone())
    }

    /// Makes a container and starts it.
    pub(crate) async fn run(&self, guest: &Value) -> Value {
        self.guest("CreateContainer", guest).await.unwrap();
        self.guest("StartContainer", guest).await.unwrap()
    }

    pub(crate) async fn inspect(&self, id: &str) -> Result<Value, Fault> {
        let answer: Value = self.call("GetContainer", &json!({"id": id})).await?;
        Ok(answer["containers"][0].clone())
    }

    /// Waits until the container's inspection has this at that place.
    pub(crate) async fn until_state(&self, id: &str, place: &str, wanted: &Value) -> Value {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let found = self.inspect(id).await.unwrap();
            if found.pointer(place) == Some(wanted) {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "{place} never was {wanted}: {found:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Tells that this test is left out, where `cargo xtask test` collects it; with `HAAR_LIVE=1` nothing may be.
pub(crate) fn left_out(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("HAAR_LIVE").is_none_or(|live| live != "1"), "{name} must run: {reason}");
    eprintln!("left out: {reason}");
    if let Some(path) = std::env::var_os("HAAR_LEFT_OUT") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("{name}: {reason}\n").as_bytes()).unwrap();
    }
}

#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(outcome: Result<T, Fault>, code: FaultCode, words: &str) {
    let fault = outcome.expect_err("this must fail");
    assert_eq!(fault.code, code, "{fault}");
    assert!(fault.message.contains(words), "{:?} should say {words:?}", fault.message);
}

pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
