//! `haar cloud` that is asked to end while it waits: a real process, a real signal, and what is left afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::MIB;
use super::cloud::{Agent, Cloud, Luck, Said, end};
use super::left_out::left_out;

/// How long anything may take to show.
const LIMIT: Duration = Duration::from_secs(60);
const SSHD: &str = "/usr/sbin/sshd";

async fn deployed(luck: Luck) -> (Cloud, Agent) {
    let cloud = Cloud::start().await;
    let agent = Agent::join(&cloud, luck).await;
    let file = cloud.file("tiny.raw", &vec![7; MIB]);
    cloud.haar(&format!("image import tiny {file}")).await.well();
    cloud.haar("cloud deploy --name farm").await.well();
    (cloud, agent)
}

async fn interrupted(child: Child, signal: Signal) -> Said {
    let process = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    kill(process, signal).unwrap();
    end(child).await
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn items(cloud: &Cloud, words: &str) -> Vec<Value> {
    cloud.haar(words).await.json()["items"].as_array().unwrap().clone()
}

const SPAWN: [&str; 8] = ["cloud", "spawn", "--name", "farm", "--image", "tiny", "--flavor", "tiny"];

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_being_made_are_removed_again() {
    let (cloud, _agent) = deployed(Luck::Never).await;
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let child = cloud.begin(&[&SPAWN[..], &["--count", "3", "--no-wait"]].concat());
        until("all are being made", async || items(&cloud, "guest list -o json").await.len() == 3).await;
        let said = interrupted(child, signal).await;
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains("removed") && said.err.contains("cancelled"), "{said:?}");
        assert_eq!(cloud.haar("guest list").await.well(), "  no guests\n");
        assert!(cloud.haar("cloud list --name farm").await.well().contains("no servers"));
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_up_stays_and_is_named() {
    let (cloud, _agent) = deployed(Luck::Good).await;
    let record = cloud.haar("cloud deploy --name farm -o json").await.json()["record"].clone();
    // Nobody answers at its address, so that it is waited for.
    let child = cloud.begin(&SPAWN);
    let is_up = async || {
        let text: Value = serde_json::from_slice(&fs::read(record.as_str().unwrap()).unwrap()).unwrap();
        text["entries"].as_array().unwrap().iter().any(|entry| entry["server"]["address"].is_string())
    };
    until("it has its address", is_up).await;
    let said = interrupted(child, Signal::SIGINT).await;
    assert_eq!(said.code, 130, "{said:?}");
    let server = items(&cloud, "cloud list --name farm -o json").await.remove(0);
    let destroy = format!("haar cloud destroy {} --name farm", server["id"].as_str().unwrap());
    assert!(said.err.contains("it is there, and costs") && said.err.contains(&destroy), "{said:?}");
    assert_eq!(server["state"], "running");
    cloud.stop().await;
}

/// An sshd at the usual port of an address of loopback that nobody else has. Ends when dropped.
struct Sshd {
    child: Child,
    folder: tempfile::TempDir,
    address: String,
}

impl Sshd {
    /// Takes the place of a deployment's only server: its record says so from then on.
    async fn in_place_of(record: &Path) -> Sshd {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let mut program = Command::new("ssh-keygen");
        program.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path("host_key"));
        assert!(program.status().await.unwrap().success());
        let process = std::process::id();
        let address = format!("127.83.{}.{}", process / 250 % 250 + 1, process % 250 + 1);
        let mut text: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
        let key = text["facts"]["public_key"].as_str().unwrap().to_owned();
        let server =
            text["entries"].as_array_mut().unwrap().iter_mut().find(|entry| entry["kind"] == "server");
        let server = &mut server.unwrap()["server"];
        server["address"] = Value::String(address.clone());
        server["host_keys"][0] = Value::String(fs::read_to_string(path("host_key.pub")).unwrap());
        fs::write(record, text.to_string()).unwrap();
        fs::write(path("authorized_keys"), key).unwrap();
        let place = folder.path().display();
        let config = format!(
            "Port 22\nListenAddress {address}\nHostKey {place}/host_key\nPidFile none\nUsePAM no\nStrictModes no\n\
             AuthorizedKeysFile {place}/authorized_keys\nPasswordAuthentication no\n\
             PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\nSetEnv SHLVL=9\n"
        );
        fs::write(path("config"), config).unwrap();
        fs::create_dir_all("/run/sshd").unwrap();
        let mut command = Command::new(SSHD);
        command.args(["-D", "-e", "-f"]).arg(path("config")).kill_on_drop(true);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let sshd = Sshd { child, folder, address };
        let port = (sshd.address.clone(), 22);
        until("sshd listens", async || tokio::net::TcpStream::connect(port.clone()).await.is_ok()).await;
        sshd
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Its connections go on without it, and end with the commands and clients of this test.
        let _ = self.child.start_kill();
    }
}

/// The processes whose command line has this in it.
fn processes(part: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has_part = |process: &i32| {
        fs::read(format!("/proc/{process}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).replace('\0', " ").contains(part))
    };
    numbers.filter(|process| *process != std::process::id() as i32).filter(has_part).collect()
}

/// Ends them with the test.
struct Remote(String);

impl Remote {
    fn runs(&self) -> bool {
        !processes(&self.0).is_empty()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        for process in processes(&self.0) {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_on_a_server_is_ended_there_too() {
    const TEST: &str = "what_was_begun_on_a_server_is_ended_there_too";
    let is_usable = Path::new(SSHD).exists() && nix::unistd::geteuid().is_root();
    let port_is_free = || std::net::TcpListener::bind("127.83.254.254:22").is_ok();
    if !is_usable || !port_is_free() {
        left_out(TEST, "it needs root, Debian's openssh-server, and port 22 free on loopback");
        return;
    }
    let (cloud, _agent) = deployed(Luck::Good).await;
    let server = &[&SPAWN[..], &["--user", "root", "--no-wait", "-o", "json"]].concat().join(" ");
    let server = cloud.haar(server).await.json()["items"][0]["name"].as_str().unwrap().to_owned();
    let deployed = cloud.haar("cloud deploy --name farm -o json").await.json();
    let sshd = Sshd::in_place_of(Path::new(deployed["record"].as_str().unwrap())).await;

    // It does not go when it is asked to.
    let remote = Remote(format!("sleep 1009.{}", std::process::id()));
    let begun = sshd.path("begun");
    let command = format!("trap '' TERM; echo > {}; {}; echo never", begun.display(), remote.0);
    let child = cloud.begin(&["cloud", "run", "--name", "farm", &server, "--", &command]);
    until("it runs", async || begun.exists() && remote.runs()).await;
    let said = interrupted(child, Signal::SIGINT).await;
    assert_eq!(said.code, 130, "{said:?}");
    assert!(!remote.runs(), "{said:?}");

    // More than is copied in the time of this test, and nothing on the disk.
    let (large, folder) = (sshd.path("large"), sshd.path("there"));
    fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let there = format!("{server}:{}/large", folder.display());
    let child = cloud.begin(&["cloud", "copy", "--name", "farm", large.to_str().unwrap(), &there]);
    let entries = || fs::read_dir(&folder).unwrap().count();
    until("it is being copied", async || entries() == 1).await;
    let said = interrupted(child, Signal::SIGTERM).await;
    assert_eq!((said.code, entries()), (143, 0), "{said:?}");
    cloud.stop().await;
}
