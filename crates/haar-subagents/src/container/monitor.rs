//! The process beside each running container: it makes the container's first process its child, waits for its end and
//! writes that down. It outlives the sub-agent, as the container does, and keeps the container's log short.
//!
//! Promised: two monitors of one container never act at once; an end is written before the lock is let go; the runtime
//! has a time limit. When a monitor is killed the container runs on, and only the code it ends with is lost.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::log;
use super::process::Process;
use super::record::{self, Begun, Exit, Order};
use crate::kit::program;
use crate::storage::folders::write_json;

/// Whoever asks whether a monitor is there holds its lock for a moment.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// How long the runtime may take; twice this is less than the sub-agent waits.
const CALL_LIMIT: Duration = Duration::from_secs(25);
/// What a line for the sub-agent begins with.
pub(super) const SAYS: &str = "haar-monitor: ";
/// What it is told when the container runs.
pub(super) const RUNS: &str = "runs";

/// Runs the container that stands in this folder, and waits for its end. What goes wrong is written there, and said
/// in one line on standard output.
///
/// # Errors
/// When not even that can be written.
pub fn monitor(folder: &Path) -> io::Result<()> {
    watch(folder).inspect_err(|error| say(&format!("its monitor cannot go on: {error}")))
}

fn watch(folder: &Path) -> io::Result<()> {
    let lock = record::lock_file(folder)?;
    if !take(&lock)? {
        return Ok(());
    }
    // Only now may a sub-agent that waits for the one which started this go on: it finds the lock held.
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    // A signal for whoever started this is not for the container. Who leads a group has a session already.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)?;
    let own = Process::of(nix::unistd::getpid().as_raw()).ok_or(io::ErrorKind::NotFound)?;
    write_json(&folder.join("monitor.json"), &own)?;
    let order: Order = record::read(folder, "run.json").ok_or(io::ErrorKind::NotFound)?;
    // Of no run: it is there so that the end can be written on a full disk too.
    let mut exit = Exit { run: 0, code: 0, error: String::new(), at_s: 0 };
    record::write(&folder.join("exit.json"), &exit)?;
    match begin(folder, &order) {
        Ok(process) => {
            say(RUNS);
            log::keep(folder.to_owned());
            exit.code = wait(Pid::from_raw(process.pid));
        }
        Err(why) => (exit.code, exit.error) = (-1, why),
    }
    (exit.run, exit.at_s) = (order.run, record::now_s());
    let written = record::write(&folder.join("exit.json"), &exit);
    if !exit.error.is_empty() {
        say(&exit.error);
    }
    drop(lock);
    written
}

/// Kills the monitor of this folder, and a runtime that it has begun and that outlived it.
pub(super) fn end(folder: &Path) {
    let process: Option<Process> = record::read(folder, "monitor.json");
    if let Some(process) = process.filter(Process::is_alive_or_its_number_free) {
        // It leads a group, in which the runtime is and the container is not. Mostly there is nobody any more.
        let _ = killpg(Pid::from_raw(process.pid), Signal::SIGKILL);
    }
}

fn take(lock: &File) -> io::Result<bool> {
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(5)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Has the runtime make the container and let it go.
fn begin(folder: &Path, order: &Order) -> Result<Process, String> {
    let pid_file = folder.join("pid");
    let _ = fs::remove_file(&pid_file);
    call(
        folder,
        order,
        &[
            "create".as_ref(),
            "--bundle".as_ref(),
            folder.as_os_str(),
            "--pid-file".as_ref(),
            pid_file.as_os_str(),
        ],
    )?;
    let pid = fs::read_to_string(&pid_file).ok().and_then(|pid| pid.trim().parse::<i32>().ok());
    let process = pid.and_then(Process::of).ok_or("the container's process ended before it began")?;
    let mut begun =
        Begun { run: order.run, process: process.clone(), at_s: record::now_s(), is_started: false };
    let write = |begun: &Begun| {
        record::write(&folder.join("begun.json"), begun)
            .map_err(|error| format!("cannot write begun.json: {error}"))
    };
    write(&begun)?;
    call(folder, order, &["start".as_ref()])?;
    begun.is_started = true;
    write(&begun)?;
    Ok(process)
}

/// Runs the runtime; the container has its output, and its own words go to a file.
fn call(folder: &Path, order: &Order, words: &[&std::ffi::OsStr]) -> Result<(), String> {
    let said = folder.join("runtime.log");
    let _ = fs::remove_file(&said);
    let open = |path: &Path| OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let log =
        open(&folder.join("log")).map_err(|error| format!("cannot open the container's log: {error}"))?;
    let err = log.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(&order.runtime);
    command.arg("--root").arg(&order.state).arg("--log").arg(&said).args(words).arg(&order.id);
    command.stdin(Stdio::null()).stdout(log).stderr(err);
    let status = program::wait(&mut command, CALL_LIMIT)
        .map_err(|error| format!("{}: {error}", order.runtime.display()))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(said).unwrap_or_default();
    let last = said.lines().last().unwrap_or_default();
    Err(format!("the runtime ended with {status}: {last}"))
}

/// Waits for the container's first process, and collects whoever else ends here.
fn wait(process: Pid) -> i32 {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == process => return code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == process => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            // It is nobody's child here: it was collected by a runtime that stayed.
            Err(_) => return -1,
        }
    }
}

fn say(line: &str) {
    // Whoever would read it may be gone; that changes nothing.
    let mut out = io::stdout();
    let _ = writeln!(out, "\n{SAYS}{}", line.replace('\n', " "));
    let _ = out.flush();
}
