//! A real sshd of one's own: free port, own keys, own folder; gone when dropped, with all that it started.
//!
//! The tests and the bench start theirs here; what only one of them does with it is theirs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use haar_ssh::{HostKeys, KeyPair, Limits, Login, Options, Pool, Target};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt::ReuseAddr};
use nix::unistd::Pid;

/// The server's program, of Debian's package `openssh-server`.
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

impl Sshd {
    /// Starts it; the error has what it says.
    pub(crate) fn start(setup: &Setup) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("haar-sshd-").tempdir()?;
        let (host_key, user_key) = (key_pair()?, key_pair()?);
        write_private(&folder.path().join("host_key"), &host_key.private)?;
        fs::write(folder.path().join("authorized_keys"), &user_key.public)?;
        let mut sshd = Self { folder, child: None, port: 0, host_key, user_key };
        // Another process may take a port that was free a moment ago.
        for _ in 0..5 {
            sshd.port = free_port()?;
            sshd.write_config(setup)?;
            if sshd.run()? {
                return Ok(sshd);
            }
        }
        Err(io::Error::other(format!("sshd does not start; it says:\n{}", sshd.log())))
    }

    fn write_config(&self, setup: &Setup) -> io::Result<()> {
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
        fs::write(self.path("config"), text)
    }

    /// Starts it on its port; whether it took it.
    pub(crate) fn run(&mut self) -> io::Result<bool> {
        if nix::unistd::geteuid().is_root() {
            // Debian's unit makes it, and sshd insists on it.
            fs::create_dir_all("/run/sshd")?;
        }
        let log = fs::File::options().create(true).append(true).open(self.path("log"))?;
        let mut program = Program::new(SSHD);
        program.arg("-D").arg("-e").arg("-f").arg(self.path("config"));
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.child = Some(program.spawn()?);
        let address = ("127.0.0.1", self.port);
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if std::net::TcpStream::connect(address).is_ok() {
                return self.is_running();
            }
            if !self.is_running()? {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.stop();
        Ok(false)
    }

    fn is_running(&mut self) -> io::Result<bool> {
        self.child.as_mut().map_or(Ok(false), |child| Ok(child.try_wait()?.is_none()))
    }

    /// Ends it and every connection and command of it.
    pub(crate) fn stop(&mut self) {
        let descendants = self.descendants();
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
        for process in descendants {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
    }

    /// The processes of its connections, and what they started.
    pub(crate) fn descendants(&self) -> BTreeSet<i32> {
        self.child.as_ref().map_or_else(BTreeSet::new, |child| descendants(child.id() as i32))
    }

    /// All that it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// How many logins it has accepted so far, which is how many connections were ever made for use.
    pub(crate) fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    /// A path in its own folder, also for other files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn target(&self) -> Target {
        Target::new("127.0.0.1", user()).port(self.port)
    }

    pub(crate) fn options(&self) -> Options {
        let logins = vec![Login::Key(self.user_key.private.clone())];
        let host_keys = HostKeys::pinned([self.host_key.public.as_str()]).expect("the key was just made");
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

/// Limits for a busy machine: failures are told soon, success may take its time.
pub(crate) fn limits() -> Limits {
    let patience = Duration::from_secs(60);
    Limits { dial: patience, session: patience, patience: 2 * patience, ..Limits::default() }
}

/// The user that this process runs as, who is also the one on the server.
pub(crate) fn user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    user.ok().flatten().expect("whoever starts this has a name").name
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

/// A port that nobody has at this moment. Nothing listens on it to find it: a child of this process that is just
/// being started would share the listener, and be taken for the server.
pub(crate) fn free_port() -> io::Result<u16> {
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&socket, ReuseAddr, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0))?;
    Ok(socket::getsockname::<SockaddrIn>(socket.as_raw_fd())?.port())
}

fn key_pair() -> io::Result<KeyPair> {
    KeyPair::generate().map_err(io::Error::other)
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

/// Every process there is.
pub(crate) fn processes() -> BTreeSet<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn parent(process: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may have anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}
