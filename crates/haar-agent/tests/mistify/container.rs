//! The REST with Haar's own container sub-agent as a service: an image, and a container of it that really runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use haar_subagents::container::oci::Digest;
use haar_subagents::container::{self, Config, Limits, Monitor};
use haar_subagents::kit::Listen;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::left_out::left_out;
use crate::world::{G, H, I, World};

const MONITOR: &str = "HAAR_TEST_REST_MONITOR";

/// The sub-agent in a folder of its own, and a bridge; both end with the test, and with them what they run.
struct Containers {
    folder: TempDir,
    bridge: String,
    config: Config,
    serving: JoinHandle<Result<(), container::Error>>,
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.serving.abort();
        let config = self.config.clone();
        // On a runtime of its own: this one is ending.
        let purging = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let deadline = Instant::now() + Duration::from_secs(20);
                // The sub-agent lets its folder go once its last call has ended.
                while let Err(error) = container::purge(&config).await {
                    assert!(Instant::now() < deadline, "{error:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
        let purged = purging.join();
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).status();
        assert!(purged.is_ok() || std::thread::panicking(), "containers are left");
    }
}

impl Containers {
    /// None, with words, where containers cannot run.
    async fn start(test: &str) -> Option<Containers> {
        let test = format!("haar-agent {test}");
        if !nix::unistd::geteuid().is_root() {
            left_out(&test, "only root runs containers");
            return None;
        }
        if !["runc", "crun"].iter().any(|name| Command::new(name).arg("--version").output().is_ok()) {
            left_out(&test, "neither runc nor crun is installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("import")).unwrap();
        static STARTED: AtomicU32 = AtomicU32::new(0);
        // Several at once: the tests of this file.
        let number = format!("{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let bridge = format!("hcr{number}");
        let made = Command::new("ip").args(["link", "add", &bridge, "type", "bridge"]).status().unwrap();
        assert!(made.success());
        let config = Config {
            listen: Listen::Unix(folder.path().join("run/container.sock")),
            root: folder.path().join("container"),
            run: folder.path().join("run/container"),
            image_dirs: vec![folder.path().join("import")],
            image_service: None,
            limits: Limits::default(),
            monitor: Monitor(Arc::new(monitor)),
            cloud: format!("rest-{number}"),
        };
        let serving = tokio::spawn(container::run(config.clone(), std::future::pending()));
        let containers = Containers { folder, bridge, config, serving };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(containers.socket()).is_err() {
            assert!(
                Instant::now() < deadline && !containers.serving.is_finished(),
                "the sub-agent does not start"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(containers)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/container.sock")
    }

    /// An archive as `docker save` writes it, of an image that speaks and waits; it has these tags.
    fn image(&self, tags: &Value) -> String {
        let at = |name: &str| self.folder.path().join("import").join(name);
        std::fs::create_dir_all(at("rootfs")).unwrap();
        std::fs::copy("/bin/busybox", at("rootfs/busybox"))
            .expect("this test needs /bin/busybox: install busybox-static");
        tar(&at("rootfs"), &at("layer.tar"), &["busybox"]);
        let diff = Digest::of(&std::fs::read(at("layer.tar")).unwrap());
        let words =
            ["/busybox", "sh", "-c", "trap 'exit 0' TERM; echo here; while :; do /busybox sleep 0.05; done"];
        let config = json!({"config": {"Cmd": words}, "rootfs": {"diff_ids": [diff]}});
        std::fs::write(at("config.json"), config.to_string()).unwrap();
        let list = json!([{"Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"]}]);
        std::fs::write(at("manifest.json"), list.to_string()).unwrap();
        tar(&at(""), &at("image.tar"), &["manifest.json", "config.json", "layer.tar"]);
        format!("file://{}", at("image.tar").display())
    }
}

fn tar(folder: &Path, archive: &Path, names: &[&str]) {
    let mut command = Command::new("tar");
    command.arg("-C").arg(folder).arg("-cf").arg(archive).args(names);
    assert!(command.status().unwrap().success());
}

fn monitor(folder: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", "container::the_monitor_as_a_process", "--ignored", "--nocapture"]);
    command.env(MONITOR, folder);
    command
}

#[test]
#[ignore = "started as a process by the sub-agent"]
fn the_monitor_as_a_process() {
    let folder = std::env::var_os(MONITOR).expect("only a sub-agent starts this one");
    container::monitor(folder.as_ref()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_of_an_image_held_let_go_and_removed() {
    let test = "a_container_is_made_of_an_image_held_let_go_and_removed";
    let Some(containers) = Containers::start(test).await else { return };
    let world = World::with(|config| {
        let built_in = include_str!("../../../../etc/haar-agent-actions.json");
        *config = serde_json::from_str::<Value>(built_in).unwrap();
        config["services"]["mdocker"] = json!({"socket": containers.socket()});
    })
    .await;
    let image = json!({"id": I, "source": containers.image(&json!([]))});
    let asked = world.post("/container_images", &image).await.is(202);
    assert_eq!(world.ended(&asked.job()).await["Status"], "Complete");
    let listed = world.get("/images?type=container").await.is(200).json();
    assert_eq!((&listed[0]["id"], &listed[0]["type"]), (&json!(I), &json!("container")));

    let nic = json!({"network": containers.bridge, "address": "10.97.3.2", "netmask": "255.255.255.0"});
    let guest = json!({"id": G, "type": "container", "image": I, "memory": 32, "cpu": 1, "nics": [nic]});
    let made = world.post("/guests", &guest).await.is(202);
    let job = world.ended(&made.job()).await;
    assert_eq!((&job["Status"], &job["Action"]), (&json!("Complete"), &json!("containerCreate")), "{job}");
    assert_eq!(world.get(&format!("/guests/{G}")).await.json()["state"], "running");
    let log = containers.config.root.join("containers").join(G).join("log");
    let deadline = Instant::now() + Duration::from_secs(30);
    while std::fs::read_to_string(&log).unwrap_or_default() != "here\n" {
        assert!(Instant::now() < deadline, "the container says nothing");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = world.ask("DELETE", &format!("/container_images/{I}"), "").await.is(202);
    assert_eq!(world.ended(&refused.job()).await["Status"], "Error", "it is in use");
    for (action, state) in
        [("suspend", "paused"), ("resume", "running"), ("restart", "running"), ("shutdown", "stopped")]
    {
        assert_eq!(world.act(action).await["Status"], "Complete", "{action}");
        assert_eq!(world.get(&format!("/guests/{G}")).await.json()["state"], state, "{action}");
    }
    assert_eq!(world.act("start").await["Status"], "Complete");
    // Somebody else, beside the agent.
    let guest = world.get(&format!("/guests/{G}")).await.json();
    let (socket, limit) = (containers.socket(), Duration::from_secs(30));
    let asked = json!({"guest": guest});
    let _: Value = haar_subagents::kit::call(&socket, "MDocker.StopContainer", &asked, limit).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.get(&format!("/guests/{G}")).await.json()["state"] != "stopped" {
        assert!(Instant::now() < deadline, "the state is not what it is: {guest}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.act("delete").await["Status"], "Complete");
    world.get(&format!("/guests/{G}")).await.fault(404);
    let removed = world.ask("DELETE", &format!("/container_images/{I}"), "").await.is(202);
    assert_eq!(world.ended(&removed.job()).await["Status"], "Complete");
}

/// The original ended at an image that nobody had given a name.
#[tokio::test(flavor = "multi_thread")]
async fn s06_an_image_without_a_tag_is_loaded_listed_and_removed() {
    let test = "s06_an_image_without_a_tag_is_loaded_listed_and_removed";
    let Some(containers) = Containers::start(test).await else { return };
    let world = World::with(|config| {
        config["services"]["mdocker"] = json!({"socket": containers.socket()});
        let stage = |method: &str| json!({"stages": [{"service": "mdocker", "method": method}]});
        config["actions"]["containerFetchImage"] = stage("MDocker.LoadImage");
        config["actions"]["containerDeleteImage"] = stage("MDocker.DeleteImage");
    })
    .await;
    for (tags, id) in [(json!(null), G), (json!([]), H), (json!(["<none>:<none>"]), I)] {
        let image = json!({"id": id, "source": containers.image(&tags)});
        let asked = world.post("/container_images", &image).await.is(202);
        let job = world.ended(&asked.job()).await;
        assert_eq!(job["Status"], "Complete", "{tags}: {job}");
        assert_eq!(world.get(&format!("/container_images/{id}")).await.is(200).json()["status"], "complete");
    }
    let listed = world.get("/container_images").await.is(200).json();
    let ids: Vec<&Value> = listed.as_array().unwrap().iter().map(|image| &image["id"]).collect();
    assert_eq!(ids, [H, G, I].map(|id| json!(id)).iter().collect::<Vec<_>>());
    for id in [G, H, I] {
        let removed = world.ask("DELETE", &format!("/container_images/{id}"), "").await.is(202);
        assert_eq!(world.ended(&removed.job()).await["Status"], "Complete");
    }
}
