//! With a real operating system inside: the power button, frames under a false name, and an agent that is slow at will.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use haar_api::rpc::{FaultCode, Guest, GuestRequest, Nic};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::harness::{Agent, LIMIT, spawn, until};
use crate::libvirtd::{OwnLibvirtd, left_out, system};

/// The guest's shell, on its serial console.
pub(crate) struct Shell {
    console: UnixStream,
    heard: String,
    commands: u32,
}

impl Shell {
    /// Waits until the guest has booted as far as its shell.
    pub(crate) async fn of(running: &Guest) -> Shell {
        let socket = &running.haar.as_ref().unwrap().console_socket;
        let console = UnixStream::connect(socket).await.unwrap();
        let mut shell = Shell { console, heard: String::new(), commands: 0 };
        shell.until(&["# "]).await;
        shell
    }

    /// Runs a command and answers what it printed, and whether it succeeded.
    async fn run(&mut self, command: &str) -> (bool, String) {
        self.commands += 1;
        self.heard.clear();
        let number = self.commands;
        // Broken up, so that the echo of the line is not taken for its end.
        let line = format!("{command}; echo en\"\"d-{number}-$?.\n");
        self.console.write_all(line.as_bytes()).await.unwrap();
        let ends = [format!("end-{number}-0."), format!("end-{number}-")];
        self.until(&[&ends[0], &format!("end-{number}-1."), &format!("end-{number}-2.")]).await;
        (self.heard.contains(&ends[0]), self.heard.clone())
    }

    async fn until(&mut self, words: &[&str]) {
        let deadline = Instant::now() + LIMIT;
        while !words.iter().any(|word| self.heard.contains(word)) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {words:?}: {}", self.heard);
            let mut bytes = [0_u8; 4096];
            if let Ok(read) = tokio::time::timeout(left, self.console.read(&mut bytes)).await {
                let read = read.unwrap();
                assert!(read > 0, "the console ended: {}", self.heard);
                self.heard.push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        }
    }

    pub(crate) async fn succeeds(&mut self, command: &str) {
        let (well, printed) = self.run(command).await;
        assert!(well, "{command}: {printed}");
    }

    async fn fails(&mut self, command: &str) {
        let (well, printed) = self.run(command).await;
        assert!(!well, "{command}: {printed}");
    }
}

/// A guest with a copy of the tiny image.
async fn guest(test: &str) -> Option<(OwnLibvirtd, Agent, Guest)> {
    let Some(image) = std::env::var_os("HAAR_TEST_IMAGE").map(PathBuf::from) else {
        return left_out(test, "HAAR_TEST_IMAGE names no image");
    };
    guest_of(test, &image).await
}

/// A guest with a copy of this image.
pub(crate) async fn guest_of(test: &str, image: &Path) -> Option<(OwnLibvirtd, Agent, Guest)> {
    let (libvirtd, agent) = system(test).await?;
    let mut guest = agent.guest("1.5");
    let disk = agent.folder.path().join(format!("{}.qcow2", guest.id));
    std::fs::copy(image, &disk).unwrap();
    guest.memory = 128;
    guest.disks[0].source = disk.to_str().unwrap().to_owned();
    guest.disks[0].haar.as_mut().unwrap().format = "qcow2".into();
    Some((libvirtd, agent, guest))
}

fn nic(last: u8, address: &str) -> Nic {
    Nic {
        name: format!("eth{last}"),
        network: "br0".into(),
        mac: format!("02:00:00:00:00:0{last}"),
        address: address.into(),
        ..Nic::default()
    }
}

const PING: &str = "ping -c 1 -W 2 10.9.0.1";
const PING6: &str = "ping -c 1 -W 2 fd09::1";

#[tokio::test]
async fn v11_a_guest_cannot_pose_as_another() {
    let Some((libvirtd, agent, mut guest)) = guest("V11").await else { return };
    guest.nics = vec![nic(0, "10.9.0.5,10.9.0.6,fd09::5"), nic(1, "")];
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let running = agent.call("Libvirt.Run", &guest).await.unwrap();
    let rules = libvirtd.ebtables();
    assert!(rules.contains("10.9.0.5") && rules.contains("10.9.0.6") && rules.contains("fd09::5"), "{rules}");
    let mut shell = Shell::of(&running).await;
    shell.succeeds("killall udhcpc; ip link set eth1 down; ip link set eth0 up; true").await;
    let take = |address: &str| format!("ip addr flush dev eth0; ip addr add {address} dev eth0");

    // Both of its own, as they were given, without DHCP.
    for own in ["10.9.0.5/24", "10.9.0.6/24"] {
        shell.succeeds(&take(own)).await;
        shell.succeeds(PING).await;
    }
    shell.succeeds(&take("10.9.0.66/24")).await;
    shell.fails(PING).await;
    shell.succeeds(&format!("{}; ip addr add fd09::5/64 dev eth0; sleep 2", take("10.9.0.5/24"))).await;
    shell.succeeds(PING6).await;
    shell.succeeds("ip addr del fd09::5/64 dev eth0; ip addr add fd09::66/64 dev eth0; sleep 2").await;
    shell.fails(PING6).await;
    // Another MAC, with an address that is its own.
    shell.succeeds(PING).await;
    shell
        .succeeds("ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; ip link set eth0 up")
        .await;
    shell.fails(PING).await;

    // A nic whose address nobody told is held to its MAC alone: what failed above failed by the filter.
    shell.succeeds("ip link set eth0 down; ip link set eth1 up; ip addr add 10.9.0.66/24 dev eth1").await;
    shell.succeeds(PING).await;
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert!(!libvirtd.ebtables().contains("10.9.0.5"), "the rules go with the guest");
}

#[tokio::test]
async fn v4_a_guest_hears_its_power_button_and_the_plug_is_pulled_on_one_that_does_not() {
    let Some((_libvirtd, agent, guest)) = guest("V4").await else { return };
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let shut_down = async |limit: &str| {
        let args = [("limit_s".to_owned(), limit.to_owned())].into();
        let asked = GuestRequest { guest: Some(guest.clone()), args, ..GuestRequest::default() };
        agent.request("Libvirt.Shutdown", &asked).await
    };
    for wrong in ["0", "soon", "3601"] {
        assert_eq!(shut_down(wrong).await.unwrap_err().code, FaultCode::Invalid);
    }
    let mut shell = Shell::of(&agent.call("Libvirt.Run", &guest).await.unwrap()).await;
    shell.succeeds("true").await;
    let off = shut_down("60").await.unwrap();
    assert_eq!((off.state.as_str(), off.haar.unwrap().state_reason.as_str()), ("shutoff", "shutdown"));

    let mut shell = Shell::of(&agent.call("Libvirt.Run", &guest).await.unwrap()).await;
    shell.succeeds("killall acpid; true").await;
    let began = Instant::now();
    let asked = json!({"guest": guest, "args": {"limit_s": "2"}});
    let answer = agent.raw("Libvirt.Shutdown", &asked).await.unwrap();
    assert_eq!((&answer["guest"]["state"], &answer["retry"]), (&json!("running"), &json!(1)));
    let off = shut_down("2").await.unwrap();
    assert_eq!((off.state.as_str(), off.haar.unwrap().state_reason.as_str()), ("shutoff", "destroyed"));
    assert!(began.elapsed() >= Duration::from_secs(2));
}

/// An agent in a few lines of shell; a freeze takes it as long as the file says. As QEMU's own it takes only a few
/// commands while it is frozen, of which a second freeze is none.
const AGENT: &str = r#"refused='{"error": {"class": "GenericError", "desc": "the agent is in frozen state"}}'
while read -r line; do case $line in
*guest-sync*) id=${line##*\"id\"}; id=${id#*:}; echo "{\"return\": ${id%%\}*}}" ;;
*guest-ping*) echo '{"return": {}}' ;;
*fsfreeze-status*) [ -e /tmp/frozen ] && now=frozen || now=thawed; echo "{\"return\": \"$now\"}" ;;
*fsfreeze-thaw*) if [ -e /tmp/frozen ]; then rm /tmp/frozen; echo thawed >>/tmp/done; echo '{"return": 2}'
else echo '{"return": 0}'; fi ;;
*) if [ -e /tmp/frozen ]; then echo "$refused"; else case $line in
*fsfreeze-freeze*) sleep $(cat /tmp/slow); echo frozen >>/tmp/done; touch /tmp/frozen; echo '{"return": 2}' ;;
*) echo '{"return": {}}' ;; esac; fi ;; esac; done"#;

/// What the agent of a guest says, and of how many file systems.
pub(crate) async fn ask(
    agent: &Agent,
    guest: &Guest,
    method: &str,
    args: serde_json::Value,
) -> (String, u64) {
    let answer = agent.raw(method, &json!({"guest": guest, "args": args})).await.unwrap();
    (answer["agent"].as_str().unwrap().into(), answer["file_systems"].as_u64().unwrap())
}

/// Starts the agent inside, and waits until it is found.
async fn with_agent(agent: &Agent, guest: &Guest, running: &Guest) -> Shell {
    let mut shell = Shell::of(running).await;
    shell.succeeds(&format!("echo 0 >/tmp/slow; cat >/tmp/agent <<'END'\n{AGENT}\nEND\ntrue")).await;
    shell.succeeds(&format!("[ $(wc -c </tmp/agent) = {} ]", AGENT.len() + 1)).await;
    // The shell may well be up before the driver of the port is.
    shell.succeeds("until ls /dev/vport*p1; do sleep 1; done").await;
    shell
        .succeeds("port=$(ls /dev/vport*p1 | head -1); (sh /tmp/agent <>$port >&0 2>/tmp/why &) ; true")
        .await;
    let deadline = Instant::now() + LIMIT;
    loop {
        let (said, _) = ask(agent, guest, "Libvirt.Ping", json!({})).await;
        if said == "answers" {
            return shell;
        }
        if Instant::now() >= deadline {
            let (_, inside) = shell.run("cat /tmp/why; ps; ls -l /dev/vport*").await;
            panic!("the agent was not found, it is {said}: {inside}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) fn told(agent: &str, file_systems: u64) -> (String, u64) {
    (agent.to_owned(), file_systems)
}

#[tokio::test]
async fn a_guests_agent_is_asked_in_time_and_what_is_frozen_is_thawed() {
    let Some((_libvirtd, agent, guest)) = guest("guest agent").await else { return };
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let refused = async |method: &str, args: serde_json::Value| {
        agent.raw(method, &json!({"guest": guest, "args": args})).await.unwrap_err().code
    };
    assert_eq!(refused("Libvirt.Ping", json!({})).await, FaultCode::Invalid, "it is off");
    let running = agent.call("Libvirt.Run", &guest).await.unwrap();
    for method in ["Libvirt.Ping", "Libvirt.Freeze", "Libvirt.Thaw"] {
        assert_eq!(ask(&agent, &guest, method, json!({})).await, told("absent", 0), "{method}");
    }
    assert_eq!(refused("Libvirt.Freeze", json!({"thaw_after_s": "61"})).await, FaultCode::Invalid);

    let mut shell = with_agent(&agent, &guest, &running).await;
    let frozen = ask(&agent, &guest, "Libvirt.Freeze", json!({"thaw_after_s": "1"})).await;
    assert_eq!(frozen, told("answers", 2));
    shell.succeeds("until grep -q thawed /tmp/done; do sleep 1; done; grep -q frozen /tmp/done").await;
    assert_eq!(ask(&agent, &guest, "Libvirt.Thaw", json!({})).await, told("answers", 0), "it is thawed");

    // Frozen again it stays as it is, and its time begins anew.
    shell.succeeds("rm /tmp/done").await;
    for limit in ["60", "60", "1"] {
        let frozen = ask(&agent, &guest, "Libvirt.Freeze", json!({"thaw_after_s": limit})).await;
        assert_eq!(frozen, told("answers", 2), "{limit}");
        assert_eq!(ask(&agent, &guest, "Libvirt.Ping", json!({})).await, told("answers", 0), "{limit}");
    }
    shell.succeeds("until grep -q thawed /tmp/done; do sleep 1; done").await;
    shell.succeeds("[ $(grep -c frozen /tmp/done) = 1 ] && [ $(grep -c thawed /tmp/done) = 1 ]").await;

    // One whose processors stand still is not waited for, and is thawed when they go on.
    shell.succeeds("rm /tmp/done").await;
    assert_eq!(ask(&agent, &guest, "Libvirt.Freeze", json!({})).await, told("answers", 2));
    agent.call("Libvirt.Suspend", &guest).await.unwrap();
    let began = Instant::now();
    for method in ["Libvirt.Ping", "Libvirt.Freeze", "Libvirt.Thaw"] {
        assert_eq!(ask(&agent, &guest, method, json!({})).await, told("silent", 0), "{method}");
    }
    assert!(began.elapsed() < Duration::from_secs(9), "it was waited for");
    agent.call("Libvirt.Resume", &guest).await.unwrap();
    shell.succeeds("until grep -q thawed /tmp/done; do sleep 1; done").await;
}

#[tokio::test]
async fn a_guest_that_freezes_too_slowly_or_whose_sub_agent_falls_is_thawed_all_the_same() {
    let Some((libvirtd, mut agent, guest)) = guest("thaw").await else { return };
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let running = agent.call("Libvirt.Run", &guest).await.unwrap();
    let mut shell = with_agent(&agent, &guest, &running).await;
    // Longer than libvirt waits for it, and for the thaw that follows at once.
    shell.succeeds("echo 25 >/tmp/slow").await;
    assert_eq!(ask(&agent, &guest, "Libvirt.Freeze", json!({})).await, told("silent", 0));
    // Both may come in one go, when the agent has time again.
    let thawed =
        "until grep -q frozen /tmp/done && [ \"$(tail -n 1 /tmp/done)\" = thawed ]; do sleep 1; done";
    shell.succeeds(thawed).await;

    shell.succeeds("echo 0 >/tmp/slow; rm /tmp/done").await;
    let named = agent.folder.path().join(format!("run/frozen/{}.frozen", guest.id));
    assert_eq!(ask(&agent, &guest, "Libvirt.Freeze", json!({})).await, told("answers", 2));
    assert!(named.exists());
    agent.child.kill().unwrap();
    agent.child.wait().unwrap();
    agent.child = spawn(libvirtd.sub_agent(), &["--uri", &libvirtd.uri()], agent.folder.path());
    agent.listens().await;
    shell.succeeds(thawed).await;
    until("its file is gone", async || !named.exists()).await;
}
