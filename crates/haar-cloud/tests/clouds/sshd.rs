//! A real sshd on a free port of loopback, whose server in the cloud in memory is at its address.

use std::fs;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_cloud::cloud::{Access, Cloud, Way};
use haar_cloud::fake::{Build, Fake};
use haar_cloud::provider::Ground;
use haar_cloud::{Server, SpawnOrder};
use haar_ssh::KeyPair;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt::ReuseAddr};

const PROGRAM: &str = "/usr/sbin/sshd";

/// A deployment whose servers are all this machine, by ssh.
pub(crate) struct Reachable {
    /// The cloud.
    pub(crate) fake: Arc<Fake>,
    /// Its handle.
    pub(crate) cloud: Cloud,
    /// Who the tests run as.
    pub(crate) user: String,
    access: Access,
    folder: tempfile::TempDir,
    sshd: Option<Child>,
}

impl Reachable {
    /// Starts it, or tells that a test is left out.
    pub(crate) async fn start(test: &str) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            left_out(test, "there is no sshd: install the package openssh-server");
            return None;
        }
        let folder = crate::bench::folder();
        let (host_key, port) = (KeyPair::generate().unwrap(), free_port());
        let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let access = Access {
            port,
            sentinel: place("sentinel"),
            folder: place("scripts"),
            script_limit: Duration::from_secs(10),
            ..Access::default()
        };
        let (fake, cloud) = here(folder.path(), access.clone()).await;
        fake.with(|world| {
            world.console = format!(
                "booting\n-----BEGIN SSH HOST KEY KEYS-----\n{} root@x\n-----END SSH HOST KEY KEYS-----\n",
                host_key.public.trim()
            );
        });
        let deployment = cloud.deployment().await.unwrap();
        fs::write(folder.path().join("authorized_keys"), deployment.public_key).unwrap();
        fs::write(folder.path().join("host_key"), &host_key.private).unwrap();
        fs::set_permissions(folder.path().join("host_key"), fs::Permissions::from_mode(0o600)).unwrap();
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let mut reachable = Self { fake, cloud, user, access, folder, sshd: None };
        reachable.run(port);
        Some(reachable)
    }

    /// A server, ready or not.
    pub(crate) async fn spawn(&self) -> Server {
        let order = SpawnOrder::new("debian-12", &self.user, "small");
        self.cloud.spawn(order, || {}).await.unwrap()
    }

    /// The handle of another process, which goes to servers this way.
    pub(crate) fn process(&self, way: Way) -> Cloud {
        let access = Access { way, ..self.access.clone() };
        Cloud::with(self.fake.clone(), self.cloud.name(), self.path("records"), access, None).unwrap()
    }

    /// How many connections were ever logged in.
    pub(crate) fn logins(&self) -> usize {
        fs::read_to_string(self.path("log")).unwrap().matches("Accepted publickey").count()
    }

    /// Its first boot is done from now on.
    pub(crate) fn booted(&self) {
        fs::write(self.path("sentinel"), "").unwrap();
    }

    /// It is not known any more that its boot is done.
    pub(crate) fn boots(&self) {
        fs::remove_file(self.path("sentinel")).unwrap();
    }

    /// From now on nothing of it says a word, and connections are still taken.
    pub(crate) fn hang(&self) {
        let sshd = self.sshd.as_ref().unwrap().id();
        for process in descendants(sshd).into_iter().chain(i32::try_from(sshd)) {
            // One that has ended meanwhile is as silent.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::SIGSTOP);
        }
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same as text.
    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn run(&mut self, port: u16) {
        let folder = self.folder.path().display().to_string();
        // At this depth bash does not take itself for a login, and reads no settings of whoever tests. The time
        // zone is not the one of who asks.
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nUsePAM no\n\
             AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPasswordAuthentication no\n\
             PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n\
             SetEnv SHLVL=9 TZ=UTC\n"
        );
        fs::write(self.path("config"), config).unwrap();
        if nix::unistd::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let mut command = Command::new(PROGRAM);
        command.args(["-D", "-e", "-f"]).arg(self.path("config"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(self.path("log")).unwrap());
        self.sshd = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "sshd does not listen: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Reachable {
    fn drop(&mut self) {
        let Some(mut sshd) = self.sshd.take() else { return };
        for process in descendants(sshd.id()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::SIGKILL);
        }
        let _ = sshd.kill();
        let _ = sshd.wait();
    }
}

/// A deployment, with its records in a folder, all of whose servers are at this machine's loopback address.
pub(crate) async fn here(folder: &Path, access: Access) -> (Arc<Fake>, Cloud) {
    let fake = Arc::new(Fake::default());
    fake.with(|world| {
        world.build = Build::At(Some("127.0.0.1".parse().unwrap()));
        world.leaving = Some(Duration::ZERO);
    });
    let cloud =
        Cloud::with(fake.clone(), &"a".parse().unwrap(), folder.join("records"), access, None).unwrap();
    let ground = Ground {
        cidr: "127.0.0.0/8".parse().unwrap(),
        gateway: "127.0.0.1".parse().unwrap(),
        ..Ground::default()
    };
    cloud.deploy(ground).await.unwrap();
    (fake, cloud)
}

/// Tells that a test is left out; with `HAAR_LIVE` nothing may be.
fn left_out(test: &str, reason: &str) {
    assert!(std::env::var_os("HAAR_LIVE").is_none(), "{test} cannot run although HAAR_LIVE is set: {reason}");
    println!("left out: {test}: {reason}");
    if let Some(file) = std::env::var_os("HAAR_LEFT_OUT") {
        use std::io::Write;
        let mut file = fs::File::options().create(true).append(true).open(file).unwrap();
        writeln!(file, "haar-cloud {test}: {reason}").unwrap();
    }
}

/// A port that nobody has at this moment. Nothing listens on it to find it: a child of this process that is just
/// being started would share the listener, and be taken for the server.
pub(crate) fn free_port() -> u16 {
    let socket = socket::socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    socket::setsockopt(&socket, ReuseAddr, &true).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    socket::getsockname::<SockaddrIn>(socket.as_raw_fd()).unwrap().port()
}

/// The processes that one started, and those that they did.
fn descendants(ancestor: u32) -> Vec<i32> {
    let mut found = Vec::new();
    let mut next = vec![ancestor];
    while let Some(process) = next.pop() {
        let children =
            fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()) {
            found.extend(i32::try_from(child));
            next.push(child);
        }
    }
    found
}
