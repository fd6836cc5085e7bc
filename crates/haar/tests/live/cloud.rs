//! A cloud of the test's own: data folder, port and cloud id nobody else has, gone when dropped.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::left_out::left_out;

/// How long anything may take on a loaded machine without hardware virtualisation.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);

/// One cloud at a time: the machine is small.
static TURN: Mutex<()> = Mutex::new(());

/// Everything a live test needs, or None with the reason said.
pub(crate) struct Cloud {
    data: PathBuf,
    mounted: Option<Mounted>,
    folder: TempDir,
    listen: String,
    image: PathBuf,
    pub(crate) cloud_id: String,
    _turn: MutexGuard<'static, ()>,
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["up", "controller", "agent"] {
                let text = std::fs::read_to_string(self.data().join(format!("log/{log}.log")));
                println!("--- {log}.log\n{}", text.unwrap_or_default());
            }
        }
        if !self.data().exists() {
            return;
        }
        let gone = self.command(&["down", "--purge", "--yes", "--data"]).arg(self.data()).output().unwrap();
        let left = if self.cloud_id.is_empty() { Vec::new() } else { self.left_over() };
        let is_gone = gone.status.success() && left.is_empty() && !self.data().exists();
        let words = format!("the test's cloud could not be removed: {}{left:?}", text(&gone));
        // A second panic would hide the first.
        if std::thread::panicking() {
            println!("gone: {is_gone}; otherwise {words}");
        } else {
            assert!(is_gone, "{words}");
        }
    }
}

impl Cloud {
    /// A folder and a port; nothing is started yet.
    pub(crate) fn prepare(test: &str) -> Option<Cloud> {
        if std::env::var_os("HAAR_LIVE").is_none() {
            left_out(&format!("haar {test}"), "live tests need root and HAAR_LIVE=1");
            return None;
        }
        let image = std::env::var_os("HAAR_TEST_IMAGE").expect("HAAR_TEST_IMAGE names the tiny guest image");
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::Builder::new().prefix("haar-live").tempdir_in("/tmp").unwrap();
        // QEMU's user must get through to the disks.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let data = folder.path().join("data");
        let image = image.into();
        Some(Cloud { data, mounted: None, folder, listen, image, cloud_id: String::new(), _turn: turn })
    }

    /// A cloud that is up, with the tiny image in it and a key for its guests.
    pub(crate) fn with_image(test: &str) -> Option<Cloud> {
        let mut cloud = Cloud::prepare(test)?;
        cloud.up();
        let image = cloud.image.to_string_lossy().into_owned();
        cloud.haar(&["image", "import", "tiny", &image]);
        let key = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(cloud.path("key"))
            .status();
        assert!(key.unwrap().success());
        Some(cloud)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Puts the data folder on a file system of its own, of this size.
    pub(crate) fn mount(&mut self, size: &str) -> PathBuf {
        let place = self.path("disk");
        std::fs::create_dir(&place).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0711"), "tmpfs", as_text(&place)]);
        self.mounted = Some(Mounted(place.clone()));
        self.data = place.join("data");
        place
    }

    /// The command line as its user would call it, with credentials of its own.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_haar"));
        command
            .args(words)
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("NO_COLOR", "1")
            .env_remove("SUDO_USER")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that must succeed.
    pub(crate) fn haar(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "haar {words:?}: {}", text(&output));
        text(&output)
    }

    /// Runs a command whatever comes of it: exit code and everything it said.
    pub(crate) fn haar_tried(&self, words: &[&str]) -> (i32, String) {
        let output = self.command(words).output().unwrap();
        (output.status.code().unwrap_or(-1), text(&output))
    }

    /// What the API says, as JSON.
    pub(crate) fn json(&self, words: &[&str]) -> Option<serde_json::Value> {
        let output = self.command(words).args(["-o", "json"]).output().unwrap();
        output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// `haar up` on the test's folder and port.
    pub(crate) fn up_command(&self) -> Command {
        let mut command = self.command(&["up", "--name", "test-host", "--listen", &self.listen, "--data"]);
        command.arg(self.data());
        command
    }

    pub(crate) fn up(&mut self) {
        let output = self.up_command().args(["-o", "json"]).output().unwrap();
        assert!(output.status.success(), "haar up: {}", text(&output));
        let up: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        self.cloud_id = up["cloud"].as_str().unwrap().to_owned();
        assert_eq!(self.json(&["status"]).unwrap()["cloud"].as_str(), Some(self.cloud_id.as_str()));
    }

    /// `haar up` where libvirtd cannot be run and its sockets are hidden, in a mount namespace of its own.
    pub(crate) fn up_without_libvirtd(&self) -> String {
        let script =
            "mount --bind /dev/null /usr/sbin/libvirtd && mount -t tmpfs tmpfs /run/libvirt && exec \"$@\"";
        let up = self.up_command();
        let mut hidden = Command::new("unshare");
        hidden.args(["--mount", "sh", "-c", script, "sh"]).arg(up.get_program()).args(up.get_args());
        for (name, value) in up.get_envs() {
            match value {
                Some(value) => hidden.env(name, value),
                None => hidden.env_remove(name),
            };
        }
        let output = hidden.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }

    /// Lets that cloud see libvirtd again.
    pub(crate) fn show_libvirtd(&self) {
        let agent = until("the agent", || self.process("agent")).to_string();
        run("nsenter", &["--mount", "--target", &agent, "umount", "/run/libvirt"]);
    }

    pub(crate) fn down(&self) -> String {
        self.haar(&["down", "--data", self.data().to_str().unwrap()])
    }

    pub(crate) fn create(&self, name: &str, more: &[&str]) -> (i32, String) {
        let key = self.path("key.pub");
        let words = ["guest", "create", name, "--flavor", "tiny", "--image", "tiny", "--ssh-key"];
        self.haar_tried(&[&words[..], &[key.to_str().unwrap()], more].concat())
    }

    /// A guest's field as the API shows it; empty when there is no such guest or nobody answers.
    pub(crate) fn field(&self, guest: &str, field: &str) -> String {
        let shown = self.json(&["guest", "show", guest]);
        shown.and_then(|guest| guest[field].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// The process of this role: `up`, `controller`, `agent`, `storage` or `haar-libvirt`.
    pub(crate) fn process(&self, role: &str) -> Option<Pid> {
        let lock = std::fs::read_to_string(self.data().join("LOCK")).ok()?;
        let up: i32 = lock.trim().parse().ok()?;
        if role == "up" {
            return Some(Pid::from_raw(up));
        }
        let is_role = |pid: &i32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = words.split(|byte| *byte == 0);
            let program = words.next().unwrap_or_default();
            program.ends_with(role.as_bytes()) || words.next() == Some(role.as_bytes())
        };
        let below = children(up);
        let all = below.iter().copied().chain(below.iter().flat_map(|pid| children(*pid)));
        all.into_iter().find(is_role).map(Pid::from_raw)
    }

    /// Kills the process of this role, without a word, while the guest's job is at one of these stages: `holder`,
    /// who does the work there, is held until the stage is reached. Waits until another has taken the place.
    pub(crate) fn kill_at(&self, role: &str, guest: &str, held: Held, stages: &[&str]) {
        let stage = until(&format!("a stage of {stages:?}"), || self.stage(guest, stages));
        let pid = until(role, || self.process(role));
        kill(pid, Signal::SIGKILL).unwrap();
        drop(held);
        println!("{role} was killed at stage {stage}");
        until("its successor", || self.process(role).filter(|new| *new != pid));
    }

    /// Holds the process of this role where it is.
    pub(crate) fn hold(&self, role: &str) -> Held {
        let pid = until(role, || self.process(role));
        kill(pid, Signal::SIGSTOP).unwrap();
        Held(pid)
    }

    /// Which of these stages the guest's job is at.
    fn stage(&self, guest: &str, stages: &[&str]) -> Option<String> {
        let jobs = self.json(&["job", "list", "--guest", guest])?;
        let steps = jobs["items"].as_array()?.iter().filter_map(|job| job["steps"].as_array()).flatten();
        let mut running = steps.filter(|step| step["state"] == "running");
        let stage = running.next()?["stage"].as_str()?.to_owned();
        stages.contains(&stage.as_str()).then_some(stage)
    }

    /// What libvirt has of this cloud: names of domains whose XML carries its mark.
    pub(crate) fn domains(&self) -> Vec<String> {
        let list = run("virsh", &["-c", "qemu:///system", "list", "--all", "--name"]);
        let is_ours = |name: &&str| {
            let xml = Command::new("virsh").args(["-c", "qemu:///system", "dumpxml", name]).output().unwrap();
            String::from_utf8_lossy(&xml.stdout).contains(&self.cloud_id)
        };
        list.lines().filter(|name| !name.is_empty()).filter(is_ours).map(str::to_owned).collect()
    }

    /// Everything of guests that is left on this host: domains, disks, seed disks, bridges.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let mut left = self.domains();
        for folder in ["storage/disks", "seeds"] {
            let entries = std::fs::read_dir(self.data().join(folder)).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        let prefix = format!("hr{}-", &self.cloud_id[..4]);
        let links = run("ip", &["-brief", "link"]);
        left.extend(links.lines().filter(|line| line.starts_with(&prefix)).map(str::to_owned));
        left
    }
}

/// A file system, until dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A process that is held; let go when dropped.
pub(crate) struct Held(Pid);

impl Drop for Held {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).ok();
    let all: Vec<String> = tasks.filter_map(of_task).collect();
    all.iter().flat_map(|line| line.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
}

/// Waits until `found` gives something.
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a program of the host that must succeed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output));
    text(&output)
}

/// Everything a program said.
pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether one ping is answered.
pub(crate) fn answers_ping(address: &str) -> bool {
    let ping = Command::new("ping").args(["-c", "1", "-W", "2", address]).output();
    ping.is_ok_and(|output| output.status.success())
}

/// The folder of a path, for those who need it as text.
pub(crate) fn as_text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}
