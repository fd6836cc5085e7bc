//! Commands on this machine itself, as ssh has them on others.
//!
//! Promises: a command is a line for the user's shell and begins at home; with all its process group it is ended
//! when its caller cancels, runs out of time or goes away; output beyond the cap is read and dropped. Deliberately
//! absent: another user than the one that this program runs as.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use haar_ssh::{Chunk, Command, Error, Exit, Limits, Output, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{self, Child, ChildStderr, ChildStdout};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub(super) use files::Files;

mod files;

/// How long a command has to end when asked.
const GRACE: Duration = Duration::from_secs(2);
/// How long it has to be gone when killed.
const KILLING: Duration = Duration::from_secs(10);
/// How long a caller that cancelled is kept while its command is being ended; that goes on without it.
const ENDING: Duration = Duration::from_millis(800);
/// Between two looks at whether processes are gone.
const LOOK: Duration = Duration::from_millis(20);
/// How much is read at a time.
const PIECE: usize = 64 << 10;

/// Where commands on this machine begin: the user's home, or `/` where there is none.
#[must_use]
pub fn home() -> PathBuf {
    told("HOME", "/", Path::is_dir)
}

/// What reads commands on this machine: the user's shell, or `/bin/sh` where none is known.
#[must_use]
pub fn shell() -> PathBuf {
    told("SHELL", "/bin/sh", Path::is_file)
}

/// What is not there would only be a shell that cannot be run.
fn told(variable: &str, otherwise: &str, is_there: fn(&Path) -> bool) -> PathBuf {
    let told = std::env::var_os(variable).map(PathBuf::from).filter(|path| is_there(path));
    told.unwrap_or_else(|| PathBuf::from(otherwise))
}

/// This machine, to be worked on by who runs this program.
#[derive(Debug, Clone)]
pub(super) struct Here {
    home: Arc<Path>,
    shell: Arc<Path>,
    output_cap: usize,
    background: TaskTracker,
}

impl Here {
    /// What has to be done for callers that went away is done by tasks of `background`.
    pub(super) fn new(limits: &Limits, background: TaskTracker) -> Self {
        Self { home: Arc::from(home()), shell: Arc::from(shell()), output_cap: limits.output_cap, background }
    }

    pub(super) fn files(&self) -> Files {
        Files::new(&self.home)
    }

    /// Runs a command to its end.
    pub(super) async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output> {
        let mut running = self.spawn(command, cancel)?;
        let mut output = Output::default();
        while output.hear(running.next().await, self.output_cap)? {}
        let exit = running.wait().await?;
        Ok(Output { status: exit.status, signal: exit.signal, ..output })
    }

    /// Starts a command whose output is wanted as it comes.
    pub(super) fn spawn(&self, command: &Command, cancel: &CancellationToken) -> Result<Running> {
        command.check()?;
        let not_run = |error| Error::local("run", &self.shell, error);
        let mut process = process::Command::new(&*self.shell);
        process.arg("-c").arg(command.text()).current_dir(&self.home).process_group(0);
        let stdin = if command.input().is_some() { Stdio::piped() } else { Stdio::null() };
        process.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process.spawn().map_err(not_run)?;
        let input = child.stdin.take().zip(command.input().cloned()).map(|(mut stdin, bytes)| {
            // A command may end without having read it all, so nobody waits for this.
            AbortOnDropHandle::new(tokio::spawn(async move {
                let _ = stdin.write_all(&bytes).await;
            }))
        });
        let limit = command.time_limit();
        Ok(Running {
            text: command.text().to_owned(),
            cancel: cancel.clone(),
            limit: limit.map(|limit| (Instant::now() + limit, limit)),
            group: Some(Group::new(child).map_err(not_run)?),
            exit: None,
            background: self.background.clone(),
            shell: Arc::clone(&self.shell),
            _input: input,
        })
    }

    /// Starts a command that goes on by itself. Gives its process id.
    pub(super) async fn background(&self, text: &str, cancel: &CancellationToken) -> Result<u32> {
        let output = self.run(&Command::background(text), cancel).await?;
        let pid = String::from_utf8_lossy(&output.stdout).trim().parse();
        pid.map_err(|_| Error::local("start a command with", &self.shell, io::ErrorKind::Other.into()))
    }
}

/// A command that runs. Dropping it ends the command.
#[derive(Debug)]
pub(super) struct Running {
    text: String,
    cancel: CancellationToken,
    limit: Option<(Instant, Duration)>,
    group: Option<Group>,
    exit: Option<Exit>,
    background: TaskTracker,
    shell: Arc<Path>,
    _input: Option<AbortOnDropHandle<()>>,
}

impl Running {
    /// What it writes next; `None` when it has ended. May be dropped and called again without anything being lost.
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>> {
        let Some(group) = &mut self.group else { return Ok(None) };
        let step = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled { what: format!("`{}`", self.text) }),
            limit = over_time(self.limit) => {
                Err(Error::OverTime { command: self.text.clone(), limit, output: Box::default() })
            }
            step = group.step() => step.map_err(|error| Error::local("read the output of", &self.shell, error)),
        };
        match step {
            Ok(Step::Said(chunk)) => Ok(Some(chunk)),
            Ok(Step::Ended(status)) => {
                self.group = None;
                self.exit = Some(exit(status));
                Ok(None)
            }
            Err(error) => {
                if let Some(group) = self.group.take() {
                    let ending = self.background.spawn(group.end());
                    let _ = timeout(ENDING, ending).await;
                }
                Err(error)
            }
        }
    }

    /// Waits for its end; what it still writes is dropped.
    pub(super) async fn wait(mut self) -> Result<Exit> {
        while self.next().await?.is_some() {}
        let gone = || Error::Cancelled { what: format!("`{}`", self.text) };
        self.exit.take().ok_or_else(gone)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(group) = self.group.take() else { return };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(self.background.spawn_on(group.end(), &runtime)),
            // Nobody is there to wait whether it ends when asked.
            Err(_) => group.signal(Signal::SIGKILL),
        }
    }
}

/// Gives the limit when its time has come.
async fn over_time(limit: Option<(Instant, Duration)>) -> Duration {
    match limit {
        Some((at, limit)) => {
            sleep_until(at).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// What a command does next.
enum Step {
    Said(Chunk),
    Ended(ExitStatus),
}

/// The processes of a command.
#[derive(Debug)]
struct Group {
    id: Pid,
    child: Child,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Group {
    fn new(mut child: Child) -> io::Result<Self> {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).ok_or(io::ErrorKind::NotFound)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Self { id: Pid::from_raw(id), child, stdout, stderr })
    }

    /// As with ssh, a command has ended when nobody can write for it any more.
    async fn step(&mut self) -> io::Result<Step> {
        loop {
            tokio::select! {
                bytes = read(&mut self.stdout), if self.stdout.is_some() => {
                    if let Some(bytes) = bytes? {
                        return Ok(Step::Said(Chunk::Stdout(bytes)));
                    }
                }
                bytes = read(&mut self.stderr), if self.stderr.is_some() => {
                    if let Some(bytes) = bytes? {
                        return Ok(Step::Said(Chunk::Stderr(bytes)));
                    }
                }
                else => return self.child.wait().await.map(Step::Ended),
            }
        }
    }

    /// Ends them, whatever it takes.
    async fn end(mut self) {
        for (signal, time) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, KILLING)] {
            self.signal(signal);
            if timeout(time, self.gone()).await.is_ok() {
                return;
            }
        }
        tracing::warn!(pid = self.id.as_raw(), "a command could not be ended");
    }

    fn signal(&self, signal: Signal) {
        // One that is gone already is what is wanted.
        let _ = killpg(self.id, signal);
    }

    async fn gone(&mut self) {
        let _ = self.child.wait().await;
        while killpg(self.id, None).is_ok() {
            sleep(LOOK).await;
        }
    }
}

/// The next bytes of a stream, which is taken away when it has ended.
async fn read<S: AsyncRead + Unpin>(stream: &mut Option<S>) -> io::Result<Option<Bytes>> {
    let Some(open) = stream else { return Ok(None) };
    let mut bytes = BytesMut::with_capacity(PIECE);
    if open.read_buf(&mut bytes).await? == 0 {
        *stream = None;
        return Ok(None);
    }
    Ok(Some(bytes.freeze()))
}

/// An end as ssh tells it.
fn exit(status: ExitStatus) -> Exit {
    let signal = status.signal().and_then(|number| Signal::try_from(number).ok());
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Exit {
        status: u32::try_from(code).unwrap_or(u32::MAX),
        signal: signal.map(|signal| signal.as_str().trim_start_matches("SIG").to_owned()),
    }
}
