//! A disk that servers share: a folder of one machine, over NFS.
//!
//! What is done is text made by pure functions, each safe to be run again. It is exported to one network
//! only, from a file of its own that leaves the administrator's list alone, and all who use it write as its
//! owner, so that users' numbers need not agree. Debian's and Ubuntu's families install what is missing;
//! elsewhere it must be there. Deliberately absent: any wish to undo it, which is the machine's owner's.

use std::net::IpAddr;
use std::time::Duration;

use haar_ssh::{Command, Limits, quote};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Server;
use super::here::Here;
use super::ssh::{error_of, succeeded};
use crate::Result;

/// Where it is on every machine.
const FOLDER: &str = "/shared";
/// How long either side may take, packages included.
const LIMIT: Duration = Duration::from_secs(180);
/// What is done, for errors.
const MAKING: &str = "making the shared disk";
const MOUNTING: &str = "mounting the shared disk";

/// Makes `/shared` on this machine and lets the servers of a network use it, as [`Server::create_shared_disk`] does on
/// a server.
///
/// # Errors
/// [`Error::RemoteExit`](crate::Error::RemoteExit) with what went wrong, [`Error::Timeout`](crate::Error::Timeout),
/// [`Error::Local`](crate::Error::Local) where no shell can be run.
pub async fn create_shared_disk(network: IpNet) -> Result<()> {
    let machine = "this machine";
    let here = Here::new(&Limits::default(), TaskTracker::new());
    let output = here.run(&shell(export_script(network)), &CancellationToken::new()).await;
    succeeded(machine, MAKING, output.map_err(|error| error_of(machine, true, &error))?).map(drop)
}

impl Server {
    /// Makes `/shared` on the server and lets the servers of a network use it. The folder becomes the property of who
    /// logs in, if it was not there. Does nothing where all that is done. Needs root, or a sudo that does not ask.
    ///
    /// # Errors
    /// As [`Self::run`], and [`Error::RemoteExit`](crate::Error::RemoteExit) with what went wrong.
    pub async fn create_shared_disk(&self, network: IpNet) -> Result<()> {
        self.prepare_shared_disk(MAKING, export_script(network)).await
    }

    /// Mounts the shared disk of the machine at an address. Does nothing where it is mounted already.
    ///
    /// # Errors
    /// As [`Self::run`], and [`Error::RemoteExit`](crate::Error::RemoteExit) with what went wrong.
    pub async fn mount_shared_disk(&self, from: IpAddr) -> Result<()> {
        self.prepare_shared_disk(MOUNTING, mount_script(from)).await
    }

    /// Runs a script that gives it the shared disk, which is on record then.
    async fn prepare_shared_disk(&self, what: &str, script: String) -> Result<()> {
        let output = self.run(&shell(script)).await?;
        self.succeeded(what, output)?;
        self.note(|details| details.shared_disk = true).await?;
        self.guarded().shared_disk = true;
        Ok(())
    }

    /// Whether it has the shared disk, its own or another machine's, by whatever process.
    #[must_use]
    pub fn has_shared_disk(&self) -> bool {
        self.guarded().shared_disk
    }
}

fn shell(script: String) -> Command {
    Command::new("sh").stdin(script).limit(LIMIT)
}

/// What both sides begin with: how to be root, and how to get a package.
const BEGIN: &str = r#"set -eu
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
need() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 && return
    . /etc/os-release
    case " $ID ${ID_LIKE:-} " in
    *" debian "* | *" ubuntu "*)
        # A machine that has just booted updates itself, and holds the lock.
        tries=0
        until root env DEBIAN_FRONTEND=noninteractive apt-get update -q >/dev/null; do
            tries=$((tries + 1)); [ $tries -lt 6 ] || break; sleep 5
        done
        root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y -o DPkg::Lock::Timeout=60 "$2" >/dev/null ;;
    *) echo "$1 is missing: install it; packages are only known for Debian and Ubuntu, and this is $ID" >&2; exit 1 ;;
    esac
}
"#;

/// Exports the folder to a network.
fn export_script(network: IpNet) -> String {
    let network = network.trunc();
    format!(
        r#"{BEGIN}need exportfs nfs-kernel-server
[ -d {FOLDER} ] || {{ root mkdir {FOLDER}; root chown "$(id -u):$(id -g)" {FOLDER}; }}
owner=$(stat -c 'anonuid=%u,anongid=%g' {FOLDER})
line="{FOLDER} {network}(rw,sync,no_subtree_check,all_squash,$owner)"
file=/etc/exports.d/haar.exports
if [ "$(cat $file 2>/dev/null || :)" != "$line" ]; then
    root mkdir -p /etc/exports.d
    echo "$line" | root tee $file >/dev/null
fi
if [ -d /run/systemd/system ]; then root systemctl start nfs-server; else root service nfs-kernel-server start; fi
root exportfs -ra
"#
    )
}

/// Mounts the folder of another machine.
fn mount_script(from: IpAddr) -> String {
    let host = match from {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let source = quote(&format!("{host}:{FOLDER}"));
    format!(
        r#"{BEGIN}source={source}
mounted=$(awk -v at={FOLDER} '$2 == at {{ from = $1 }} END {{ print from }}' /proc/mounts)
[ "$mounted" != "$source" ] || exit 0
if [ -n "$mounted" ]; then echo "$mounted is mounted at {FOLDER} already" >&2; exit 1; fi
need mount.nfs nfs-common
root mkdir -p {FOLDER}
root mount -t nfs "$source" {FOLDER}
"#
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    /// Runs a script in a world of stand-ins that write down what they are asked. Paths of the system are
    /// led into a folder.
    fn run(script: &str, world: &Path, mounts: &str) -> (bool, String) {
        let bin = world.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let programs = ["apt-get", "mount", "systemctl", "service", "exportfs", "chown", "mount.nfs"];
        for name in programs.iter().filter(|name| !world.join(format!("no-{name}")).exists()) {
            let path = bin.join(name);
            fs::write(&path, format!("#!/bin/sh\necho {name} \"$@\" >>{}/log\n", world.display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(world.join("mounts"), mounts).unwrap();
        let place = world.display();
        let script = script
            .replace("/proc/mounts", &format!("{place}/mounts"))
            .replace("/etc/os-release", &format!("{place}/os-release"))
            .replace("/etc/exports.d", &format!("{place}/exports.d"))
            .replace("mkdir /shared", &format!("mkdir {place}/shared"))
            .replace("mkdir -p /shared", &format!("mkdir -p {place}/shared"))
            .replace("[ -d /shared ]", &format!("[ -d {place}/shared ]"))
            .replace("%g' /shared", &format!("%g' {place}/shared"))
            .replace(":/usr/sbin:/sbin", "")
            .replace("if [ \"$(id -u)\" = 0 ]; then \"$@\"; else sudo -n \"$@\"; fi", "\"$@\"");
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let output =
            std::process::Command::new("sh").arg("-c").arg(script).env("PATH", path).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    fn world(os_release: &str) -> tempfile::TempDir {
        let world = tempfile::tempdir().unwrap();
        fs::write(world.path().join("os-release"), os_release).unwrap();
        world
    }

    fn log(world: &tempfile::TempDir) -> String {
        fs::read_to_string(world.path().join("log")).unwrap_or_default()
    }

    #[test]
    fn case_35_defect_36_it_is_exported_to_one_network_as_its_owner_and_twice_is_once() {
        let world = world("ID=debian\n");
        let script = export_script("192.168.64.7/18".parse().unwrap());
        for _ in 0..2 {
            let (well, words) = run(&script, world.path(), "");
            assert!(well, "{words}");
            let line = fs::read_to_string(world.path().join("exports.d/haar.exports")).unwrap();
            let begin = "/shared 192.168.64.0/18(rw,sync,no_subtree_check,all_squash,anonuid=";
            assert!(line.starts_with(begin) && line.lines().count() == 1, "{line}");
        }
        assert!(log(&world).contains("exportfs -ra"), "{}", log(&world));
    }

    #[test]
    fn case_35_defect_36_a_mount_that_is_there_is_left_and_another_at_its_place_is_an_error() {
        let world = world("ID=ubuntu\nID_LIKE=debian\n");
        let script = mount_script("192.168.64.5".parse().unwrap());
        let (well, words) = run(&script, world.path(), "192.168.64.5:/shared2 /shared2 nfs rw 0 0\n");
        assert!(
            well && log(&world).ends_with("mount -t nfs 192.168.64.5:/shared /shared\n"),
            "{words}{}",
            log(&world)
        );
        let before = log(&world);
        let (well, _) = run(&script, world.path(), "192.168.64.5:/shared /shared nfs rw 0 0\n");
        assert!(well && log(&world) == before, "nothing more was done");
        let (well, words) = run(&script, world.path(), "/dev/sdb /shared ext4 rw 0 0\n");
        assert!(!well && words.contains("/dev/sdb is mounted"), "{words}");
    }

    #[test]
    fn case_35_defect_36_what_is_missing_is_installed_where_it_is_known_how_and_else_said() {
        let script = mount_script("192.168.64.5".parse().unwrap());
        let known = world("ID=mint\nID_LIKE=\"ubuntu debian\"\n");
        fs::write(known.path().join("no-mount.nfs"), "").unwrap();
        let (well, words) = run(&script, known.path(), "");
        assert!(
            well && log(&known).contains("apt-get install -q -y -o DPkg::Lock::Timeout=60 nfs-common"),
            "{words}{}",
            log(&known)
        );
        let unknown = world("ID=alpine\n");
        fs::write(unknown.path().join("no-mount.nfs"), "").unwrap();
        let (well, words) = run(&script, unknown.path(), "");
        assert!(!well && words.contains("mount.nfs is missing") && words.contains("alpine"), "{words}");
    }
}
