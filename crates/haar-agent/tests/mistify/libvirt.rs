//! The REST with Haar's own libvirt sub-agent as a service: on libvirt's test driver metrics, suspend and resume; on
//! QEMU, where `HAAR_LIVE` promises one, snapshots of a guest that runs, also of one with a guest agent of Debian's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::storage::Storage;
use crate::world::{G, H, World};

#[path = "../../../haar-libvirt/tests/harness/agent_image.rs"]
mod agent_image;

/// The program in a folder of its own; it ends with the test.
struct Libvirt {
    folder: TempDir,
    child: Child,
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Libvirt {
    /// None, with words, where the program is not built.
    async fn start(test: &str, uri: &str) -> Option<Libvirt> {
        let program = program();
        if !program.is_file() {
            crate::left_out::left_out(
                &format!("haar-agent {test}"),
                &format!("{} is not built", program.display()),
            );
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut command = Command::new(program);
        command.args(["--uri", uri]).stdout(Stdio::null());
        command
            .arg("--socket")
            .arg(at("rpc"))
            .arg("--run-dir")
            .arg(at("run"))
            .arg("--log-dir")
            .arg(at("log"));
        let child = command.spawn().unwrap();
        let libvirt = Libvirt { folder, child };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(libvirt.socket()).is_err() {
            assert!(Instant::now() < deadline, "the sub-agent does not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Some(libvirt)
    }

    async fn call(&self, method: &str, params: &serde_json::Value) -> serde_json::Value {
        let limit = Duration::from_secs(30);
        haar_subagents::kit::call(&self.socket(), method, params, limit).await.unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("rpc")
    }
}

/// Where the programs under test are: told, or beside this test.
fn program() -> PathBuf {
    let beside = || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    std::env::var_os("HAAR_BIN_DIR").map_or_else(beside, PathBuf::from).join("haar-libvirt")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_of_libvirt_is_measured_suspended_resumed_and_watched() {
    let Some(libvirt) = Libvirt::start("metrics, suspend and resume", "test:///default").await else {
        return;
    };
    let world = World::with(|config| {
        config["services"]["libvirt"] = json!({"socket": libvirt.socket(), "watch": true});
        let stage = |method: &str| json!({"stages": [{"service": "libvirt", "method": method}]});
        config["actions"]["suspend"] = stage("Libvirt.Suspend");
        config["actions"]["resume"] = stage("Libvirt.Resume");
    })
    .await;
    let nic = json!({"name": "eth0", "network": "br0", "model": "virtio", "mac": "02:00:00:00:00:01"});
    world.guest(json!({"memory": 64, "disks": [{"size": 8, "source": "/d"}], "nics": [nic]})).await;
    let path = format!("/guests/{G}");
    let metrics = |kind: &str| format!("{path}/metrics/{kind}");
    let off = world.get(&metrics("cpu")).await;
    assert!(off.text().contains("shutoff") && off.status != 200, "{off:?}");

    for (action, state) in
        [("start", "running"), ("suspend", "paused"), ("suspend", "paused"), ("resume", "running")]
    {
        let job = world.act(action).await;
        assert_eq!(job["Status"], "Complete", "{action}: {job}");
        assert_eq!(world.get(&path).await.json()["state"], state, "{action}");
    }
    // Somebody else, beside the agent.
    let guest = world.get(&path).await.json();
    assert_eq!(guest["nics"][0]["haar"], json!({"filtered": false}), "libvirt's test driver has no filters");
    libvirt.call("Libvirt.Poweroff", &json!({"guest": guest})).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.get(&path).await.json()["state"] != "shutoff" {
        assert!(Instant::now() < deadline, "the state is not what it is: {guest}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.act("start").await["Status"], "Complete");
    let cpu = world.get(&metrics("cpu")).await.is(200).json();
    let cpus = cpu.as_array().unwrap();
    assert!(!cpus.is_empty() && cpus.iter().all(|cpu| cpu["cpu_time"].as_f64() > Some(0.0)), "{cpu}");
    let nics = world.get(&metrics("nic")).await.is(200).json();
    assert_eq!((&nics["eth0"]["name"], nics["eth0"].as_object().unwrap().len()), (&json!("eth0"), 9));
    assert_eq!(world.act("delete").await["Status"], "Complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_the_agent_was_away_is_seen_at_its_start_and_strangers_are_left_alone() {
    let Some(libvirt) = Libvirt::start("states at the start", "test:///default").await else { return };
    let mut world = World::with(|config| {
        config["services"]["libvirt"] = json!({"socket": libvirt.socket(), "watch": true});
    })
    .await;
    let disks = json!([{"size": 8, "source": "/d"}]);
    world.guest(json!({"memory": 64, "disks": disks})).await;
    world.guest(json!({"id": H, "memory": 64, "disks": disks})).await;
    assert_eq!(world.act("start").await["Status"], "Complete");
    let guest = |id: &str| json!({"guest": {"id": id, "memory": 64, "cpu": 1, "disks": disks}});
    // The test driver comes with a domain of its own, which runs.
    let domains = async || {
        let listed = libvirt.call("Libvirt.List", &json!({})).await;
        let mut domains: Vec<(String, String)> = listed["guests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|found| (found["id"].as_str().unwrap().into(), found["state"].as_str().unwrap().into()))
            .collect();
        domains.sort();
        domains
    };
    world.stop().await;
    libvirt.call("Libvirt.Poweroff", &guest(G)).await;
    libvirt.call("Libvirt.Delete", &guest(H)).await;
    let before = domains().await;
    assert!(before.contains(&("test".into(), "running".into())), "{before:?}");
    world.start().await;
    for (id, state) in [(G, "shutoff"), (H, "unknown")] {
        let deadline = Instant::now() + Duration::from_secs(30);
        while world.get(&format!("/guests/{id}")).await.json()["state"] != state {
            assert!(Instant::now() < deadline, "{id} is not seen to be {state}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(world.get("/guests").await.json().as_array().unwrap().len(), 2, "strangers are no guests");
    assert_eq!(domains().await, before, "looking changes nothing");
}

/// A domain on the host's own libvirtd; gone with the test, however it ends.
struct Domain(String);

impl Drop for Domain {
    fn drop(&mut self) {
        for act in ["destroy", "undefine"] {
            let mut virsh = Command::new("virsh");
            virsh.args(["--quiet", "-c", SYSTEM, act, &self.0]);
            // It is gone already when all went well.
            let _ = virsh.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

const SYSTEM: &str = "qemu:///system";

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_runs_on_qcow2_is_snapshot_by_its_qemu_and_rolled_back_by_the_storage() {
    if std::env::var_os("HAAR_LIVE").is_none() {
        println!("left out: snapshots of a guest that runs: HAAR_LIVE is not set");
        return;
    }
    let Some(libvirt) = Libvirt::start("snapshots of a guest that runs", SYSTEM).await else { return };
    let storage = Storage::start().await;
    let world = World::with(|config| {
        config["services"]["libvirt"] = json!({"socket": libvirt.socket()});
        config["services"]["storage"] = json!({"socket": storage.socket()});
        for action in ["createSnapshot", "deleteSnapshot"] {
            config["actions"][action]["stages"][0]["quiesce"] = json!("libvirt");
        }
    })
    .await;
    let domain = Domain(uuid::Uuid::new_v4().to_string());
    let path = format!("/guests/{}", domain.0);
    world.guest(json!({"id": domain.0, "memory": 64, "disks": [{"size": 8}, {"size": 8}]})).await;
    let ask = async |method: &str, rest: &str, body: serde_json::Value| {
        let answer = world.ask(method, &format!("{path}{rest}"), body.to_string()).await;
        world.ended(&answer.job()).await
    };
    let well = async |method: &str, rest: &str, body: serde_json::Value| {
        let job = ask(method, rest, body).await;
        assert_eq!(job["Status"], "Complete", "{rest}: {job}");
    };
    let take = |name: &str| json!({"dest": name});
    well("POST", "/snapshots", take("off")).await;
    well("POST", "/start", json!(null)).await;
    well("POST", "/snapshots", take("on")).await;
    well("POST", "/disks/1/snapshots", take("one")).await;
    for (place, name) in [("", "on"), ("/disks/0", "off"), ("", "one"), ("/disks/1", "one")] {
        let job = ask("POST", &format!("{place}/snapshots"), take(name)).await;
        assert!(job["Message"].as_str().unwrap().contains("exists"), "{name}: {job}");
    }
    assert_eq!(world.get(&path).await.json()["state"], "running");
    let listed = world.get(&format!("{path}/snapshots")).await.is(200).json();
    let ids: Vec<&str> =
        listed.as_array().unwrap().iter().map(|found| found["id"].as_str().unwrap()).collect();
    for id in ["@off", "@on", "/disk-0@on", "/disk-1@on", "/disk-1@one"] {
        assert!(ids.contains(&format!("guests/{}{id}", domain.0).as_str()), "{ids:?}");
    }
    assert_eq!(ids.len(), 7, "{ids:?}");
    // While it runs, whoever has taken it: of all disks, and of one.
    well("POST", "/snapshots", take("gone")).await;
    for gone in ["/snapshots/gone", "/disks/0/snapshots/off"] {
        well("DELETE", gone, json!(null)).await;
        let job = ask("DELETE", gone, json!(null)).await;
        assert!(job["Status"] == "Error" && job["Message"].as_str().unwrap().contains("not_found"), "{job}");
    }
    let refused = ask("POST", "/snapshots/on/rollback", json!({"destroyMoreRecent": true})).await;
    assert!(refused["Message"].as_str().unwrap().contains("shut the guest off"), "{refused}");
    well("POST", "/poweroff", json!(null)).await;
    well("POST", "/snapshots/on/rollback", json!({"destroyMoreRecent": true})).await;
    well("DELETE", "/snapshots/off", json!(null)).await;
    well("POST", "/delete", json!(null)).await;
    assert!(!storage.holds(&domain.0));
}

impl Domain {
    /// What the agent inside answers to a command, past all that is under test.
    fn ask_inside(&self, execute: &str, arguments: &Value) -> Value {
        let command = json!({"execute": execute, "arguments": arguments}).to_string();
        let mut virsh = Command::new("virsh");
        let output =
            virsh.args(["--quiet", "-c", SYSTEM, "qemu-agent-command", &self.0, &command]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["return"].take()
    }

    /// Runs a script inside, to its end.
    async fn run_inside(&self, script: &str) {
        let arguments = json!({"path": "/bin/sh", "arg": ["-ec", script]});
        let started = self.ask_inside("guest-exec", &arguments);
        let deadline = Instant::now() + BOOT;
        loop {
            let status = self.ask_inside("guest-exec-status", &started);
            if status["exited"] == true {
                assert_eq!(status["exitcode"], 0, "{script}: {status}");
                return;
            }
            assert!(Instant::now() < deadline, "{script} does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What a guest may take to start on a loaded machine.
const BOOT: Duration = Duration::from_secs(100);

/// What a program of e2fsprogs printed, and whether it succeeded.
fn e2fs(program: &str, arguments: &[&str], file: &Path) -> (bool, String) {
    let output = Command::new(program).args(arguments).arg(file).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_guest_with_an_agent_holds_what_was_written_on_a_file_system_at_rest() {
    const TEST: &str = "snapshots of a guest with an agent of Debian's";
    let named = format!("haar-agent {TEST}");
    if std::env::var_os("HAAR_LIVE").is_none() {
        return crate::left_out::left_out(&named, "HAAR_LIVE is not set");
    }
    let Some(image) = agent_image::agent_image(&named) else { return };
    let Some(libvirt) = Libvirt::start(TEST, SYSTEM).await else { return };
    let storage = Storage::start().await;
    let world = World::with(|config| {
        config["services"]["libvirt"] = json!({"socket": libvirt.socket()});
        config["services"]["storage"] = json!({"socket": storage.socket()});
        config["services"]["storageDownload"] =
            json!({"socket": storage.socket(), "path": "/snapshots/download"});
        config["actions"]["createSnapshot"]["stages"][0]["quiesce"] = json!("libvirt");
        for (action, method) in [("suspend", "Libvirt.Suspend"), ("resume", "Libvirt.Resume")] {
            config["actions"][action] = json!({"stages": [{"service": "libvirt", "method": method}]});
        }
    })
    .await;
    let domain = Domain(uuid::Uuid::new_v4().to_string());
    let path = format!("/guests/{}", domain.0);
    world.guest(json!({"id": domain.0, "memory": 128, "disks": [{"size": 128}]})).await;
    let guest = world.get(&path).await.json();
    // The disk is the storage's; what is on it comes from the image.
    let mut filled = Command::new("qemu-img");
    filled.args(["convert", "-n", "-f", "qcow2", "-O", "qcow2"]).arg(&image);
    assert!(filled.arg(guest["disks"][0]["source"].as_str().unwrap()).status().unwrap().success());
    let well = async |rest: &str, body: Value| {
        let job = world.ask("POST", &format!("{path}{rest}"), body.to_string()).await.job();
        let job = world.ended(&job).await;
        assert_eq!(job["Status"], "Complete", "{rest}: {job}");
    };
    well("/start", json!(null)).await;
    let deadline = Instant::now() + BOOT;
    while libvirt.call("Libvirt.Ping", &json!({"guest": guest})).await["agent"] != "answers" {
        assert!(Instant::now() < deadline, "the guest's agent does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // From here on the guest's kernel writes nothing unless it is told to.
    let held_back = "echo 0 >/proc/sys/vm/dirty_writeback_centisecs
        mount -t ext4 -o remount,commit=600 $(cat /etc/haar/root-device) /
        sync; echo kept >/root/unsynced";
    domain.run_inside(held_back).await;
    // A guest that stands still cannot be frozen: that one is what a power cut would leave.
    well("/suspend", json!(null)).await;
    well("/snapshots", json!({"dest": "cut"})).await;
    well("/resume", json!(null)).await;
    well("/snapshots", json!({"dest": "rest"})).await;
    assert_eq!(domain.ask_inside("guest-fsfreeze-status", &json!({})), "thawed");
    domain.run_inside("echo goes on >/root/more; sync").await;
    well("/poweroff", json!(null)).await;

    let scratch = tempfile::tempdir().unwrap();
    let root_file_system = async |snapshot: &str| {
        let disk = world.get(&format!("{path}/disks/0/snapshots/{snapshot}/download")).await.is(200).body;
        // Of the boot record's second partition, the first sector.
        let start = u32::from_le_bytes(disk[470..474].try_into().unwrap());
        let file = scratch.path().join(snapshot);
        std::fs::write(&file, &disk[512 * usize::try_from(start).unwrap()..]).unwrap();
        file
    };
    for (snapshot, written, is_at_rest) in [("cut", "", false), ("rest", "kept\n", true)] {
        let file = root_file_system(snapshot).await;
        let (_, features) = e2fs("dumpe2fs", &["-h"], &file);
        assert!(features.contains("has_journal"), "{features}");
        assert_eq!(!features.contains("needs_recovery"), is_at_rest, "{snapshot}: {features}");
        assert_eq!(e2fs("debugfs", &["-R", "cat /root/unsynced"], &file).1, written, "{snapshot}");
        if is_at_rest {
            let (is_clean, found) = e2fs("e2fsck", &["-f", "-n"], &file);
            assert!(is_clean, "{found}");
        }
    }
    well("/delete", json!(null)).await;
    assert!(!storage.holds(&domain.0));
}
