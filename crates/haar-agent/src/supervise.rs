//! Keeping programs running: each is started, started again when it ends, and ended with its supervisor.
//!
//! A program's standard input is a pipe that nobody writes to: a program that was told `--supervised` ends
//! when it closes, so that even a supervisor that was killed leaves nobody behind. Nothing is ended by name.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What to keep running.
#[derive(Debug, Clone)]
pub struct Program {
    /// What people call it, in logs.
    pub name: &'static str,
    /// Its file.
    pub file: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where its standard output and error go, appended; None: with the supervisor's.
    pub log: Option<PathBuf>,
}

/// The shortest and the longest pause before a program is started again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A program that ran this long starts again with the shortest pause.
const STEADY: Duration = Duration::from_secs(30);
/// How long a program may take to end after it was asked.
const GRACE: Duration = Duration::from_secs(15);

/// A program kept running until [`Supervised::stop`], or until this is dropped.
pub struct Supervised {
    name: &'static str,
    condemned: watch::Sender<Option<u32>>,
    stop: watch::Sender<bool>,
    pid: watch::Receiver<Option<u32>>,
    task: JoinHandle<()>,
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // The child goes with the task: it was started to be killed on drop.
        self.task.abort();
    }
}

impl Supervised {
    /// Starts the program and keeps it running.
    pub fn start(program: Program) -> Supervised {
        let (condemned, to_kill) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let (pid_sender, pid) = watch::channel(None);
        let name = program.name;
        let task = tokio::spawn(keep(program, to_kill, stopped, pid_sender));
        Supervised { name, condemned, stop, pid, task }
    }

    /// What people call it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Kills the process of this id, which hangs, and starts a new one. Of an earlier process nothing is left
    /// to kill: then nothing happens.
    pub fn restart(&self, pid: u32) {
        self.condemned.send_replace(Some(pid));
    }

    /// Its process id while one runs.
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Asks it to end, waits, and kills it when it does not.
    pub async fn stop(mut self) {
        // Nobody listening means that the task has ended already.
        let _ = self.stop.send(true);
        let _ = (&mut self.task).await;
    }
}

async fn keep(
    program: Program,
    mut condemned: watch::Receiver<Option<u32>>,
    mut stopped: watch::Receiver<bool>,
    pid: watch::Sender<Option<u32>>,
) {
    let mut pause = PAUSE.0;
    loop {
        let started = Instant::now();
        match spawn(&program) {
            Err(error) => tracing::error!(program = program.name, %error, "cannot start"),
            Ok(mut child) => {
                // Held here for as long as it shall run: waiting for a child closes its input.
                let input = child.stdin.take();
                let own = child.id();
                pid.send_replace(own);
                let ended = tokio::select! {
                    status = child.wait() => Ended::ByItself(status),
                    _ = condemned.wait_for(|pid| pid.is_some() && *pid == own) => Ended::Hung,
                    _ = stopped.wait_for(|stop| *stop) => Ended::Asked,
                };
                pid.send_replace(None);
                drop(input);
                match ended {
                    Ended::Asked => return end(child, program.name).await,
                    Ended::Hung => {
                        tracing::warn!(program = program.name, "hangs, killed");
                        // It may have ended in this very moment.
                        let _ = child.kill().await;
                    }
                    Ended::ByItself(status) => {
                        let status =
                            status.map_or_else(|error| error.to_string(), |status| status.to_string());
                        tracing::warn!(program = program.name, %status, "ended by itself, started again");
                    }
                }
            }
        }
        pause = if started.elapsed() >= STEADY { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

enum Ended {
    ByItself(std::io::Result<ExitStatus>),
    Hung,
    Asked,
}

fn spawn(program: &Program) -> std::io::Result<Child> {
    let mut command = Command::new(&program.file);
    command.args(&program.args).stdin(Stdio::piped()).kill_on_drop(true);
    if let Some(path) = &program.log {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        command.stdout(log.try_clone()?).stderr(log);
    }
    command.spawn()
}

async fn end(mut child: Child, name: &'static str) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended in this very moment.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        tracing::warn!(program = name, "did not end when asked, killed");
        let _ = child.kill().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn shell(script: &str, folder: &Path) -> Program {
        Program {
            name: "test",
            file: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            log: Some(folder.join("log")),
        }
    }

    /// Waits until `found` gives something, at most ten seconds.
    async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(value) = found() {
                return value;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn lines(folder: &Path) -> usize {
        std::fs::read_to_string(folder.join("log")).map_or(0, |text| text.lines().count())
    }

    fn alive(pid: u32) -> bool {
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), None).is_ok()
    }

    #[tokio::test]
    async fn a_program_runs_on_as_long_as_its_supervisor() {
        let folder = tempfile::tempdir().unwrap();
        let supervised = Supervised::start(shell("cat; echo input closed; exec cat", folder.path()));
        let pid = eventually("a pid", || supervised.pid()).await;
        // Another program's whole life passes meanwhile.
        assert!(tokio::process::Command::new("true").status().await.unwrap().success());
        assert_eq!(supervised.pid(), Some(pid));
        assert_eq!(lines(folder.path()), 0);
        supervised.stop().await;
    }

    #[tokio::test]
    async fn a_program_that_ends_is_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let supervised = Supervised::start(shell("echo once; exit 3", folder.path()));
        eventually("a third start", || (lines(folder.path()) >= 3).then_some(())).await;
        supervised.stop().await;
    }

    #[tokio::test]
    async fn a_hanging_program_is_killed_and_started_anew() {
        let folder = tempfile::tempdir().unwrap();
        let supervised = Supervised::start(shell("trap '' TERM; echo up; exec cat", folder.path()));
        let first = eventually("a pid", || supervised.pid()).await;
        supervised.restart(first);
        let second = eventually("another pid", || supervised.pid().filter(|pid| *pid != first)).await;
        assert_ne!(first, second);
        eventually("the first to be gone", || (!alive(first)).then_some(())).await;
        supervised.stop().await;
    }

    #[tokio::test]
    async fn stopping_asks_and_leaves_nobody_behind() {
        let folder = tempfile::tempdir().unwrap();
        let supervised = Supervised::start(shell("echo up; exec cat", folder.path()));
        eventually("its first line", || (lines(folder.path()) == 1).then_some(())).await;
        let pid = eventually("a pid", || supervised.pid()).await;
        supervised.stop().await;
        assert!(!alive(pid));
    }

    #[tokio::test]
    async fn a_program_ends_with_a_supervisor_that_was_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let supervised = Supervised::start(shell("exec cat", folder.path()));
        let pid = eventually("a pid", || supervised.pid()).await;
        drop(supervised);
        eventually("its end", || (!alive(pid)).then_some(())).await;
    }
}
