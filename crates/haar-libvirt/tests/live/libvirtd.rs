//! A libvirtd for one test, and guests that need no operating system.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use haar_api::rpc::Guest;

use crate::harness::{Agent, LIMIT, open_to_all, until};

pub(crate) fn left_out<T>(test: &str, missing: &str) -> Option<T> {
    crate::left_out::left_out(&format!("haar-libvirt {test}"), missing);
    None
}

/// A libvirtd of this test's own, answering, and a sub-agent on it; a bridge named `br0` is there too.
pub(crate) async fn system(test: &str) -> Option<(OwnLibvirtd, Agent)> {
    let mut libvirtd = OwnLibvirtd::new(test)?;
    libvirtd.order("start");
    // Its bridges are not in the network that the sub-agent can see.
    let agent =
        Agent::start_by(libvirtd.sub_agent(), &["--uri", &libvirtd.uri(), "--switch", "bridge"]).await;
    until("libvirtd answers", async || agent.list().await.is_ok()).await;
    Some((libvirtd, agent))
}

/// A guest whose only disk is an empty qcow2.
pub(crate) fn guest_on_qcow2(agent: &Agent, life: &str) -> Guest {
    let mut guest = agent.guest(life);
    let disk = agent.folder.path().join(format!("{}.qcow2", guest.id));
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("16M").status();
    assert!(made.expect("qemu-img comes with QEMU").success());
    guest.disks[0].source = disk.to_str().unwrap().to_owned();
    guest.disks[0].haar.as_mut().unwrap().format = "qcow2".into();
    guest
}

/// A libvirtd of the test's own, in namespaces of its own: killing it disturbs nobody, and all of it,
/// QEMU included, ends with the first process there, which ends with the test.
pub(crate) struct OwnLibvirtd {
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
ip link set br0 up
ip addr add 10.9.0.1/24 dev br0
ip addr add fd09::1/64 dev br0 nodad
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

    pub(crate) fn new(test: &str) -> Option<OwnLibvirtd> {
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

    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock/libvirt-sock")
    }

    /// The sub-agent with libvirtd's mounts: what lies below /var/lib/libvirt is seen by both.
    pub(crate) fn sub_agent(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first_inside())).arg("--mount");
        command.arg(env!("CARGO_BIN_EXE_haar-libvirt"));
        command
    }

    /// This path as it is in libvirtd's own mounts.
    pub(crate) fn inside(&self, path: &std::path::Path) -> PathBuf {
        let folder = PathBuf::from(format!("/proc/{}/root", self.first_inside()));
        folder.join(path.strip_prefix("/").unwrap())
    }

    /// The rules that libvirt has made of filters.
    pub(crate) fn ebtables(&self) -> String {
        let target = format!("--target={}", self.first_inside());
        let command = ["--net", "ebtables", "-t", "nat", "-L"];
        let output = Command::new("nsenter").arg(target).args(command).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Ends the QEMU of this domain as a crash would.
    pub(crate) fn kill_qemu(&self, name: &str) {
        let pid =
            std::fs::read_to_string(self.inside(format!("/run/libvirt/qemu/{name}.pid").as_ref())).unwrap();
        // The number is one of the namespace's own.
        let target = format!("--target={}", self.first_inside());
        let killed =
            Command::new("nsenter").arg(target).args(["--pid", "--mount", "kill", "-9", pid.trim()]).status();
        assert!(killed.unwrap().success());
    }

    /// The first process of the namespaces, by its number out here.
    fn first_inside(&self) -> String {
        let own = self.first.id();
        let path = format!("/proc/{own}/task/{own}/children");
        let deadline = Instant::now() + LIMIT;
        loop {
            let children = std::fs::read_to_string(&path).unwrap();
            if let Some(child) = children.split_whitespace().next() {
                return child.to_owned();
            }
            assert!(Instant::now() < deadline, "unshare has no child");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What virsh says, which must succeed.
    pub(crate) fn virsh(&self, arguments: &[&str]) -> String {
        let output =
            Command::new("virsh").args(["--quiet", "-c", &self.uri()]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn uri(&self) -> String {
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
