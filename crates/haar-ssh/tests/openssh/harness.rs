//! What the tests do with their sshd, and waiting for conditions.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use haar_ssh::{CancellationToken, KeyPair};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sshd::{SSHD, processes};
pub(crate) use crate::sshd::{Setup, Sshd, limits, user};

/// Starts a usual server, or tells that the test is left out.
pub(crate) fn sshd(test: &str) -> Option<Sshd> {
    sshd_with(test, &Setup::default())
}

/// Starts a server, or tells that the test is left out.
pub(crate) fn sshd_with(test: &str, setup: &Setup) -> Option<Sshd> {
    if !Path::new(SSHD).exists() {
        left_out(test, &format!("there is no {SSHD}: install the package openssh-server"));
        return None;
    }
    Some(Sshd::start(setup).unwrap())
}

/// Tells that a test is left out, where `cargo xtask test` collects it; with `HAAR_LIVE` nothing may be.
pub(crate) fn left_out(test: &str, reason: &str) {
    assert!(std::env::var_os("HAAR_LIVE").is_none(), "{test} cannot run although HAAR_LIVE is set: {reason}");
    left_out_here(test, reason);
}

/// The same for what no machine must have.
pub(crate) fn left_out_here(test: &str, reason: &str) {
    println!("left out: {test}: {reason}");
    if let Some(file) = std::env::var_os("HAAR_LEFT_OUT") {
        use std::io::Write;
        let mut file = fs::File::options().create(true).append(true).open(file).unwrap();
        writeln!(file, "haar-ssh {test}: {reason}").unwrap();
    }
}

impl Sshd {
    /// Breaks every connection, as a server does whose network or power fails; it itself goes on.
    pub(crate) fn kill_connections(&self) {
        for process in self.descendants().into_iter().filter(serves) {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }

    /// How many processes run in its sessions.
    pub(crate) fn commands(&self) -> usize {
        // Looked at once: what ends between two looks would be taken away twice.
        self.descendants().iter().filter(|process| !serves(process)).count()
    }

    /// How many processes serve its connections.
    pub(crate) fn connections(&self) -> usize {
        self.descendants().iter().filter(|process| serves(process)).count()
    }

    /// Nobody can log in from now on.
    pub(crate) fn forget_keys(&self) {
        fs::write(self.path("authorized_keys"), "").unwrap();
    }

    /// The user's key is known from now on, in one piece.
    pub(crate) fn learn_key(&self, public: &str) {
        fs::write(self.path("new_keys"), public).unwrap();
        fs::rename(self.path("new_keys"), self.path("authorized_keys")).unwrap();
    }

    /// Shows another host key, from its next start on.
    pub(crate) fn change_host_key(&mut self) {
        self.host_key = KeyPair::generate().unwrap();
        write_private(&self.path("host_key"), &self.host_key.private);
    }

    /// A path in its own folder as text, for commands and remote files.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// Whether a process is sshd's own, for a connection.
fn serves(process: &i32) -> bool {
    let name = fs::read_to_string(format!("/proc/{process}/comm"));
    name.is_ok_and(|name| name.starts_with("sshd"))
}

pub(crate) fn never() -> CancellationToken {
    CancellationToken::new()
}

/// Waits for a condition, looking often, for at most a minute.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether a process runs whose command line has this in it.
pub(crate) fn runs(part: &str) -> bool {
    !with_command_line(part).is_empty()
}

/// Kills the processes whose command line has this in it: something that only the test's own have.
pub(crate) fn end_all(part: &str) {
    for process in with_command_line(part) {
        let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
    }
}

fn with_command_line(part: &str) -> Vec<i32> {
    let has_part = |process: &i32| {
        fs::read(format!("/proc/{process}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).replace('\0', " ").contains(part))
    };
    let own = std::process::id() as i32;
    processes().into_iter().filter(|process| *process != own).filter(has_part).collect()
}

pub(crate) fn write_private(path: &Path, text: &str) {
    crate::sshd::write_private(path, text).unwrap();
}

pub(crate) fn free_port() -> u16 {
    crate::sshd::free_port().unwrap()
}
