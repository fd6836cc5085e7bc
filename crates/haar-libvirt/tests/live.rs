//! The program against a real libvirtd and QEMU, with domains that need no operating system.
//!
//! Each test has a libvirtd of its own in namespaces of its own, so nothing of the host is touched and all of
//! it, QEMU included, ends with the test, also on failure. Needs root and the programs it names.
//! Left out, with words, where a part is missing; `HAAR_LIVE=1` makes a missing part a failure.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod harness;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use haar_api::rpc::{FaultCode, Guest, GuestRequest, Nic};
use harness::{Agent, code, in_life, open_to_all, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn left_out<T>(test: &str, missing: &str) -> Option<T> {
    assert!(std::env::var_os("HAAR_LIVE").is_none(), "{test}: {missing}");
    println!("left out: {test}: {missing}");
    None
}

/// A libvirtd of this test's own, answering, and a sub-agent on it; a bridge named `br0` is there too.
async fn system(test: &str) -> Option<(OwnLibvirtd, Agent)> {
    let mut libvirtd = OwnLibvirtd::new(test)?;
    libvirtd.order("start");
    let agent = Agent::start(&libvirtd.uri()).await;
    until("libvirtd answers", async || agent.list().await.is_ok()).await;
    Some((libvirtd, agent))
}

/// A guest whose only disk is an empty qcow2.
fn guest_on_qcow2(agent: &Agent, life: &str) -> Guest {
    let mut guest = agent.guest(life);
    let disk = agent.folder.path().join(format!("{}.qcow2", guest.id));
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("16M").status();
    assert!(made.expect("qemu-img comes with QEMU").success());
    guest.disks[0].source = disk.to_str().unwrap().to_owned();
    guest.disks[0].haar.as_mut().unwrap().format = "qcow2".into();
    guest
}

#[tokio::test]
async fn a_real_guest_goes_through_its_whole_life() {
    let Some((_libvirtd, agent)) = system("whole life").await else { return };
    let mut guest = guest_on_qcow2(&agent, "1.5");
    let nic =
        |last: u8| Nic { network: "br0".into(), mac: format!("02:00:00:00:00:0{last}"), ..Nic::default() };
    guest.nics = vec![nic(1), nic(2)];
    assert_eq!(agent.call("Libvirt.CreateGuest", &guest).await.unwrap().state, "shutoff");

    let running = agent.call("Libvirt.Run", &guest).await.unwrap();
    let extra = running.haar.clone().unwrap();
    assert_eq!((running.state.as_str(), extra.state_reason.as_str()), ("running", "booted"));
    let devices: Vec<_> = running.nics.iter().map(|nic| nic.device.as_str()).collect();
    assert_eq!(devices, ["vnet0", "vnet1"]);
    assert_eq!(agent.call("Libvirt.Run", &guest).await.unwrap(), running);
    // Both without an operating system to hear them: asked, answered, still running.
    for method in ["Libvirt.Shutdown", "Libvirt.Restart", "Libvirt.Status"] {
        assert_eq!(agent.call(method, &guest).await.unwrap().state, "running", "{method}");
    }
    let listed = agent.list().await.unwrap();
    let listed = listed.iter().find(|listed| listed.id == guest.id).unwrap();
    assert_eq!(listed.haar.as_ref().unwrap().claim, guest.haar.as_ref().unwrap().claim);

    let off = agent.call("Libvirt.Poweroff", &guest).await.unwrap();
    assert_eq!((off.state.as_str(), off.haar.unwrap().state_reason.as_str()), ("shutoff", "destroyed"));
    agent.call("Libvirt.Run", &guest).await.unwrap();
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert_eq!(code(agent.call("Libvirt.Status", &guest).await), FaultCode::NotFound);
    for file in [&extra.console_socket, &extra.console_log] {
        assert!(!std::fs::exists(file).unwrap(), "{file} was left behind");
    }
    assert!(std::fs::exists(&guest.disks[0].source).unwrap(), "disks are not this program's to remove");
}

#[tokio::test]
async fn a_client_may_join_the_console_leave_and_join_again() {
    let Some((_libvirtd, agent)) = system("console").await else { return };
    let guest = guest_on_qcow2(&agent, "1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    let running = agent.call("Libvirt.Run", &guest).await.unwrap();
    let extra = running.haar.unwrap();
    assert!(std::fs::exists(&extra.console_log).unwrap(), "the log is there from the start");
    for _ in 0..2 {
        let mut client = tokio::net::UnixStream::connect(&extra.console_socket).await.unwrap();
        client.write_all(b"\r").await.unwrap();
        let mut byte = [0_u8];
        // The guest says nothing: an open connection is one without an end.
        let read = tokio::time::timeout(std::time::Duration::from_millis(200), client.read(&mut byte)).await;
        assert!(!matches!(read, Ok(Ok(0))), "the console hung up");
    }
}

#[tokio::test]
async fn another_life_leaves_a_running_guest_alone() {
    let Some((_libvirtd, agent)) = system("lives").await else { return };
    let guest = guest_on_qcow2(&agent, "1.5");
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    agent.call("Libvirt.Run", &guest).await.unwrap();
    let other = in_life(&guest, "1.6");
    for method in ["Libvirt.CreateGuest", "Libvirt.Delete", "Libvirt.Poweroff"] {
        assert_eq!(code(agent.call(method, &other).await), FaultCode::Conflict, "{method}");
    }
    assert_eq!(agent.call("Libvirt.Status", &guest).await.unwrap().state, "running");
    let args = [("any_life".to_owned(), "true".to_owned())].into();
    agent
        .request("Libvirt.Delete", &GuestRequest { guest: Some(other), args, ..GuestRequest::default() })
        .await
        .unwrap();
    assert_eq!(code(agent.call("Libvirt.Status", &guest).await), FaultCode::NotFound);
}

#[tokio::test]
async fn a_lost_disk_is_never_started_over() {
    let Some((_libvirtd, agent)) = system("lost disk").await else { return };
    let mut guest = guest_on_qcow2(&agent, "1.5");
    guest.haar.as_mut().unwrap().provisioned = true;
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    std::fs::remove_file(&guest.disks[0].source).unwrap();
    for method in ["Libvirt.Run", "Libvirt.CreateGuest"] {
        assert_eq!(code(agent.call(method, &guest).await), FaultCode::Lost, "{method}");
    }
    assert!(!std::fs::exists(&guest.disks[0].source).unwrap());
}

/// A libvirtd of the test's own, in namespaces of its own: killing it disturbs nobody, and all of it,
/// QEMU included, ends with the first process there, which ends with the test.
struct OwnLibvirtd {
    first: Child,
    orders: ChildStdin,
    folder: tempfile::TempDir,
}

impl OwnLibvirtd {
    const SCRIPT: &'static str = r#"
set -e
for folder in /run /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do mount -t tmpfs tmpfs $folder; done
# Where root may open /dev/kvm and QEMU's user may not, libvirtd trusts no probe of QEMU and repeats it, for
# seconds, at every device of every domain. This file is of no use to either of them.
touch /run/no-kvm; chmod 0 /run/no-kvm
if [ -e /dev/kvm ]; then mount --bind /run/no-kvm /dev/kvm; fi
# libvirt's own /dev for each QEMU cannot be built around such a mount.
echo 'namespaces = []' > /etc/libvirt/qemu.conf
ip link add br0 type bridge
virtlogd -d
exec 3<&0
while read -r order; do
  case $order in
    start) rm -f /run/libvirtd.pid; libvirtd -d -p /run/libvirtd.pid -f "$1/libvirtd.conf" ;;
    kill) kill -9 "$(cat /run/libvirtd.pid)"; rm -f "$1/sock/libvirt-sock" ;;
  esac
done <&3 &
# The namespace's first process inherits every orphan: waiting, it also takes leave of ended QEMUs, for whose
# end libvirtd would otherwise wait in vain.
wait
"#;

    fn new(test: &str) -> Option<OwnLibvirtd> {
        for program in ["unshare", "libvirtd", "virtlogd", "qemu-img", "qemu-system-x86_64"] {
            if Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err() {
                return left_out(test, &format!("{program} is not installed"));
            }
        }
        let namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
        if !Command::new("unshare").args(namespaces).arg("true").status().is_ok_and(|status| status.success())
        {
            return left_out(test, "no namespaces can be made: run as root");
        }
        let folder = tempfile::Builder::new().prefix("haar-ld").tempdir_in("/tmp").unwrap();
        open_to_all(folder.path());
        let sockets = folder.path().join("sock");
        std::fs::create_dir(&sockets).unwrap();
        let config = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\nhost_uuid = \"{}\"\n",
            sockets.display(),
            uuid::Uuid::new_v4()
        );
        std::fs::write(folder.path().join("libvirtd.conf"), config).unwrap();
        let mut first = Command::new("unshare")
            .args(namespaces)
            .args(["sh", "-c", Self::SCRIPT, "sh"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = first.stdin.take().expect("it was asked for");
        Some(OwnLibvirtd { first, orders, folder })
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock/libvirt-sock")
    }

    fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket().display())
    }
}

impl Drop for OwnLibvirtd {
    fn drop(&mut self) {
        // With --kill-child the namespace's first process goes too, and with it everything in there.
        let _ = self.first.kill();
        let _ = self.first.wait();
    }
}

#[tokio::test]
async fn a_killed_libvirtd_costs_the_calls_meanwhile_and_no_guest() {
    let Some(mut libvirtd) = OwnLibvirtd::new("killed libvirtd") else { return };
    let agent = Agent::start(&libvirtd.uri()).await;
    let guest = guest_on_qcow2(&agent, "1.5");
    assert_eq!(code(agent.call("Libvirt.CreateGuest", &guest).await), FaultCode::Unavailable);

    libvirtd.order("start");
    until("libvirtd answers", async || agent.list().await.is_ok()).await;
    agent.call("Libvirt.CreateGuest", &guest).await.unwrap();
    // Console folders are the sub-agent's and lie outside the namespace's own folders.
    assert_eq!(agent.call("Libvirt.Run", &guest).await.unwrap().state, "running");

    libvirtd.order("kill");
    until("libvirtd is gone", async || agent.list().await.is_err()).await;
    let fault = agent.call("Libvirt.Status", &guest).await.unwrap_err();
    assert_eq!(fault.code, FaultCode::Unavailable);
    assert!(fault.message.contains("libvirtd -d"), "{fault}");

    libvirtd.order("start");
    until("libvirtd answers again", async || agent.list().await.is_ok()).await;
    let status = agent.call("Libvirt.Status", &guest).await.unwrap();
    assert_eq!(status.state, "running", "the guest ran on");
    agent.call("Libvirt.Delete", &guest).await.unwrap();
    assert!(agent.list().await.unwrap().is_empty());
    assert!(agent.host().await.unwrap().qemu.contains('.'));
}
