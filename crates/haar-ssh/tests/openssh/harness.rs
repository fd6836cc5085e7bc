//! A real sshd of one's own: free port, own keys, own folder; gone when dropped, with all that it started.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use haar_ssh::{CancellationToken, HostKeys, KeyPair, Limits, Login, Options, Pool, Target};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(crate) const SSHD: &str = "/usr/sbin/sshd";

/// How a server is set up.
pub(crate) struct Setup {
    pub(crate) max_sessions: u32,
    /// Further lines for its configuration.
    pub(crate) lines: Vec<String>,
    pub(crate) has_sftp: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { max_sessions: 10, lines: Vec::new(), has_sftp: true }
    }
}

/// A server that runs.
pub(crate) struct Sshd {
    folder: tempfile::TempDir,
    child: Option<Child>,
    pub(crate) port: u16,
    pub(crate) host_key: KeyPair,
    pub(crate) user_key: KeyPair,
}

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
    Some(Sshd::start(setup))
}

/// Tells that a test is left out, where `cargo xtask test` collects it; with `HAAR_LIVE` nothing may be.
pub(crate) fn left_out(test: &str, reason: &str) {
    assert!(std::env::var_os("HAAR_LIVE").is_none(), "{test} cannot run although HAAR_LIVE is set: {reason}");
    println!("left out: {test}: {reason}");
    if let Some(file) = std::env::var_os("HAAR_LEFT_OUT") {
        use std::io::Write;
        let mut file = fs::File::options().create(true).append(true).open(file).unwrap();
        writeln!(file, "haar-ssh {test}: {reason}").unwrap();
    }
}

impl Sshd {
    fn start(setup: &Setup) -> Self {
        let folder = tempfile::Builder::new().prefix("haar-sshd-").tempdir().unwrap();
        let (host_key, user_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        write_private(&folder.path().join("host_key"), &host_key.private);
        fs::write(folder.path().join("authorized_keys"), &user_key.public).unwrap();
        let mut sshd = Self { folder, child: None, port: 0, host_key, user_key };
        // Another process may take a port that was free a moment ago.
        for _ in 0..5 {
            sshd.port = free_port();
            sshd.write_config(setup);
            if sshd.run() {
                return sshd;
            }
        }
        panic!("sshd does not start; it says:\n{}", sshd.log());
    }

    fn write_config(&self, setup: &Setup) {
        let folder = self.folder.path().display();
        let Setup { max_sessions, lines, has_sftp } = setup;
        // Of two lines for the same thing sshd takes the first.
        let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        text += &format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n\
             AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             MaxSessions {max_sessions}\nMaxStartups 100\nLogLevel VERBOSE\n",
            self.port
        );
        // Without this a bash begins each command with all that its user's ~/.bashrc does.
        text += "SetEnv SHLVL=9\n";
        if *has_sftp {
            text += "Subsystem sftp internal-sftp\n";
        }
        fs::write(self.path("config"), text).unwrap();
    }

    /// Starts it on its port; whether it took it.
    pub(crate) fn run(&mut self) -> bool {
        if nix::unistd::geteuid().is_root() {
            // Debian's unit makes it, and sshd insists on it.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let log = fs::File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut program = Program::new(SSHD);
        program.arg("-D").arg("-e").arg("-f").arg(self.path("config"));
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.child = Some(program.spawn().unwrap());
        let address = ("127.0.0.1", self.port);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if std::net::TcpStream::connect(address).is_ok() {
                return self.is_running();
            }
            if !self.is_running() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.stop();
        false
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Ends it and every connection and command of it.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let listener = child.id() as i32;
        let descendants = descendants(listener);
        let _ = child.kill();
        let _ = child.wait();
        for process in descendants {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }

    /// Breaks every connection, as a server does whose network or power fails; it itself goes on.
    pub(crate) fn kill_connections(&self) {
        let listener = self.child.as_ref().unwrap().id() as i32;
        for process in descendants(listener) {
            if name(process).is_some_and(|name| name.starts_with("sshd")) {
                let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
            }
        }
    }

    /// How many processes run in its sessions.
    pub(crate) fn commands(&self) -> usize {
        descendants(self.child.as_ref().unwrap().id() as i32).len() - self.connections()
    }

    /// How many processes serve its connections.
    pub(crate) fn connections(&self) -> usize {
        let serves = |process: &i32| name(*process).is_some_and(|name| name.starts_with("sshd"));
        descendants(self.child.as_ref().unwrap().id() as i32).iter().filter(|process| serves(process)).count()
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

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// How many logins it has accepted so far, which is how many connections were ever made for use.
    pub(crate) fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// A path in its own folder, also for a test's files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text, for commands and remote files.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn target(&self) -> Target {
        Target::new("127.0.0.1", user()).port(self.port)
    }

    pub(crate) fn options(&self) -> Options {
        let logins = vec![Login::Key(self.user_key.private.clone())];
        let host_keys = HostKeys::pinned([self.host_key.public.as_str()]).unwrap();
        Options { limits: limits(), ..Options::new(self.target(), logins, host_keys) }
    }

    pub(crate) fn pool(&self) -> Pool {
        Pool::new(self.options())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what sshd said:\n{}", self.log());
        }
        self.stop();
    }
}

/// Limits for a busy test machine: failures are told soon, success may take its time.
pub(crate) fn limits() -> Limits {
    Limits { patience: Duration::from_secs(60), ..Limits::default() }
}

pub(crate) fn never() -> CancellationToken {
    CancellationToken::new()
}

/// The user that the tests run as, who is also the one on the server.
pub(crate) fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
}

/// Waits for a condition, looking often, for at most 20 s.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
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
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn processes() -> BTreeSet<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Every process that one started, directly or not, as far as it still descends from it.
fn descendants(ancestor: i32) -> BTreeSet<i32> {
    let parents: Vec<(i32, i32)> =
        processes().into_iter().filter_map(|process| Some((process, parent(process)?))).collect();
    let mut found = BTreeSet::from([ancestor]);
    loop {
        let more: Vec<i32> = parents
            .iter()
            .filter(|(process, parent)| found.contains(parent) && !found.contains(process))
            .map(|(process, _)| *process)
            .collect();
        if more.is_empty() {
            found.remove(&ancestor);
            return found;
        }
        found.extend(more);
    }
}

fn name(process: i32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{process}/comm")).ok()?.trim().to_owned())
}

fn parent(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may have anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
