//! The process beside each running container: it makes the container's first process its child, waits for its end and
//! writes that down. It outlives the sub-agent, as the container does.
//!
//! Promised: two monitors of one container never act at once; an end is written before the lock is let go. When a
//! monitor is killed the container runs on, and only the code it ends with is lost.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::process::Process;
use super::record::{self, Begun, Exit, Order};
use crate::storage::folders::write_json;

/// Whoever asks whether a monitor is there holds its lock for a moment.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
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
    let lock = record::lock_file(folder)?;
    if !take(&lock)? {
        return Ok(());
    }
    // Only now may a sub-agent that waits for the one which started this go on: it finds the lock held.
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    // A signal for whoever started this is not for the container. Who leads a group has a session already.
    let _ = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)?;
    let order: Order = record::read(folder, "run.json").ok_or(io::ErrorKind::NotFound)?;
    let _ = fs::remove_file(folder.join("exit.json"));
    let (code, error) = match begin(folder, &order) {
        Ok(process) => {
            say(RUNS);
            (wait(Pid::from_raw(process.pid)), String::new())
        }
        Err(why) => (-1, why),
    };
    let exit = Exit { run: order.run, code, error: error.clone(), at_s: record::now_s() };
    write_json(&folder.join("exit.json"), &exit)?;
    if !error.is_empty() {
        say(&error);
    }
    drop(lock);
    Ok(())
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
    let begun = Begun { run: order.run, process: process.clone(), at_s: record::now_s() };
    write_json(&folder.join("begun.json"), &begun)
        .map_err(|error| format!("cannot write begun.json: {error}"))?;
    call(folder, order, &["start".as_ref()])?;
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
    let status = command.status().map_err(|error| format!("{}: {error}", order.runtime.display()))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(said).unwrap_or_default();
    let last = said.lines().last().unwrap_or_default();
    Err(format!("the runtime ended with {status}: {last}").replace('\n', " "))
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
    let _ = writeln!(out, "\n{SAYS}{line}");
    let _ = out.flush();
}
