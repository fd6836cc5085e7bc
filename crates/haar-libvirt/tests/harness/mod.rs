//! A sub-agent of the test's own: the real program on a socket in a temporary folder, ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use haar_api::rpc::{
    Disk, DiskExtra, Fault, FaultCode, Guest, GuestExtra, GuestListResponse, GuestRequest, GuestResponse,
    HostResponse, Nothing,
};
use haar_subagents::kit;

/// How long anything may take on a loaded machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(100);

/// The program, its socket and its folders.
pub(crate) struct Agent {
    pub(crate) child: Child,
    pub(crate) folder: tempfile::TempDir,
}

impl Agent {
    /// Starts the program for this URI and waits until it answers.
    pub(crate) async fn start(uri: &str) -> Agent {
        Agent::start_with(&["--uri", uri]).await
    }

    /// Starts the program with these arguments besides and waits until it answers.
    pub(crate) async fn start_with(arguments: &[&str]) -> Agent {
        Agent::start_by(Command::new(env!("CARGO_BIN_EXE_haar-libvirt")), arguments).await
    }

    /// Starts the program by this command, and waits until it answers.
    pub(crate) async fn start_by(command: Command, arguments: &[&str]) -> Agent {
        // Short, for a unix socket's path has little room; and QEMU's user must get through to the disks.
        let folder = tempfile::Builder::new().prefix("haar-lv").tempdir_in("/tmp").unwrap();
        open_to_all(folder.path());
        let agent = Agent { child: spawn(command, arguments, folder.path()), folder };
        agent.listens().await;
        agent
    }

    /// Waits until it answers.
    pub(crate) async fn listens(&self) {
        until("the sub-agent listens", async || tokio::net::UnixStream::connect(self.socket()).await.is_ok())
            .await;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("rpc")
    }

    /// Calls a guest method with this request, as often as it wants to be asked.
    pub(crate) async fn request(&self, method: &str, request: &GuestRequest) -> Result<Guest, Fault> {
        loop {
            let answer = kit::call::<_, GuestResponse>(&self.socket(), method, request, LIMIT).await;
            let answer = answer.map_err(as_fault)?;
            if answer.retry == 0 {
                return Ok(answer.guest.expect("every answer has a guest"));
            }
            tokio::time::sleep(Duration::from_secs(answer.retry.into())).await;
        }
    }

    /// Calls a guest method with this guest.
    pub(crate) async fn call(&self, method: &str, guest: &Guest) -> Result<Guest, Fault> {
        self.request(method, &GuestRequest { guest: Some(guest.clone()), ..GuestRequest::default() }).await
    }

    /// Calls a method with these parameters and answers its result as it is.
    pub(crate) async fn raw(
        &self,
        method: &str,
        params: &serde_json::Value,
    ) -> Result<serde_json::Value, Fault> {
        kit::call(&self.socket(), method, params, LIMIT).await.map_err(as_fault)
    }

    pub(crate) async fn list(&self) -> Result<Vec<Guest>, Fault> {
        let answer =
            kit::call::<_, GuestListResponse>(&self.socket(), "Libvirt.List", &Nothing {}, LIMIT).await;
        answer.map(|response| response.guests).map_err(as_fault)
    }

    pub(crate) async fn host(&self) -> Result<HostResponse, Fault> {
        kit::call(&self.socket(), "Libvirt.Host", &Nothing {}, LIMIT).await.map_err(as_fault)
    }

    /// A guest of Haar's with one tiny disk, made here, and a seed.
    pub(crate) fn guest(&self, life: &str) -> Guest {
        let id = uuid::Uuid::new_v4().to_string();
        let (disk, seed) =
            (self.folder.path().join(format!("{id}.img")), self.folder.path().join(format!("{id}.seed")));
        for path in [&disk, &seed] {
            std::fs::File::create(path).unwrap().set_len(1 << 20).unwrap();
        }
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let haar = GuestExtra {
            cloud: "test-cloud".into(),
            name: "web".into(),
            order: "1.9".into(),
            life: life.into(),
            claim: "{\"name\":\"<&>\"}".into(),
            seed: text(&seed),
            ..GuestExtra::default()
        };
        let format = DiskExtra { format: "raw".into(), ..DiskExtra::default() };
        let disks = vec![Disk { source: text(&disk), haar: Some(format), ..Disk::default() }];
        Guest { id, memory: 64, cpu: 1, disks, haar: Some(haar), ..Guest::default() }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Already ended is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program by this command, with its files in this folder.
pub(crate) fn spawn(mut command: Command, arguments: &[&str], folder: &Path) -> Child {
    command.arg("--socket").arg(folder.join("rpc")).args(arguments);
    command.arg("--run-dir").arg(folder.join("run")).arg("--log-dir").arg(folder.join("log"));
    command.stdout(Stdio::null()).spawn().unwrap()
}

fn as_fault(error: kit::CallError) -> Fault {
    match error {
        kit::CallError::Fault(fault) => fault,
        other => panic!("the call did not reach its method: {other}"),
    }
}

/// The same guest in another life.
pub(crate) fn in_life(guest: &Guest, life: &str) -> Guest {
    let haar = guest.haar.clone().map(|extra| GuestExtra { life: life.into(), ..extra });
    Guest { haar, ..guest.clone() }
}

/// The fault's code, or what came instead.
pub(crate) fn code(outcome: Result<Guest, Fault>) -> FaultCode {
    match outcome {
        Err(fault) => fault.code,
        Ok(guest) => panic!("expected a fault, got {guest:?}"),
    }
}

/// Polls until the condition holds, or fails with its name after [`LIMIT`].
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Lets every user through this folder.
pub(crate) fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}
