//! `qemu-img` and its kin by their arguments, never through a shell, with a time limit.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use haar_api::rpc::{Fault, FaultCode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::runtime::Handle;

/// What touches no data takes milliseconds; longer means the file system hangs.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// What goes through the tables or the bytes of the largest disk there is, on a slow file system.
pub(super) const LONG_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// How long the start waits for programs that it ends.
const STRAY_LIMIT: Duration = Duration::from_secs(5);

const ASK_EVERY: Duration = Duration::from_millis(200);

/// Runs `qemu-img` and waits; answers what it printed. Must be called on a thread of tokio's that may block.
///
/// It has no use for its standard input, which therefore may be a file whose lock it shall share.
pub(super) fn run<A: AsRef<OsStr>>(arguments: &[A], stdin: Stdio, limit: Duration) -> Result<Vec<u8>, Fault> {
    run_program("qemu-img", arguments, stdin, limit, || true)
}

/// The same, ended early when `wanted` says so; asked several times a second.
pub(super) fn run_while<A: AsRef<OsStr>>(
    arguments: &[A],
    stdin: Stdio,
    limit: Duration,
    wanted: impl FnMut() -> bool,
) -> Result<Vec<u8>, Fault> {
    run_program("qemu-img", arguments, stdin, limit, wanted)
}

/// Ends programs of an earlier run whose standard input is this file, which nothing but ours ever is: nobody waits
/// for what they do. What the kernel does not let end within a few seconds is left.
pub(super) fn end_strays(stdin: &Path) -> io::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < STRAY_LIMIT {
        let mut strays = 0;
        for process in fs::read_dir("/proc")? {
            let process = process?;
            let Some(id) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if fs::read_link(process.path().join("fd/0")).is_ok_and(|file| file == stdin) {
                strays += 1;
                // It may have ended in between.
                let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
            }
        }
        if strays == 0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    tracing::warn!(path = %stdin.display(), "a program that an earlier run started does not end");
    Ok(())
}

/// Why a program could not be started.
pub(super) fn not_started(program: &str, error: &io::Error) -> Fault {
    if error.kind() != io::ErrorKind::NotFound {
        return Fault::new(FaultCode::Unavailable, format!("{program} cannot be started: {error}"));
    }
    let package = match program {
        "zfs" => "zfsutils-linux, or zfs-fuse (Debian, Ubuntu)",
        _ => "qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, Arch)",
    };
    Fault::new(FaultCode::Unavailable, format!("{program} is not installed; install {package}"))
}

/// The same with another program.
pub(super) fn run_program<A: AsRef<OsStr>>(
    program: &str,
    arguments: &[A],
    stdin: Stdio,
    limit: Duration,
    mut wanted: impl FnMut() -> bool,
) -> Result<Vec<u8>, Fault> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(stdin).kill_on_drop(true);
    let unavailable = |text: String| Err(Fault::new(FaultCode::Unavailable, text));
    let given_up = async {
        while wanted() {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    let ended = Handle::current().block_on(async {
        tokio::select! {
            ended = tokio::time::timeout(limit, command.output()) => Some(ended),
            () = given_up => None,
        }
    });
    let Some(ended) = ended else {
        return unavailable("the storage sub-agent is stopping; ask again".to_owned());
    };
    let output = match ended {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(not_started(program, &error)),
        Err(_) => {
            let seconds = limit.as_secs();
            return unavailable(format!(
                "{program} did not end within {seconds} s; is the file system hanging?"
            ));
        }
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim();
    let code = match words {
        words if words.contains("No space left") => FaultCode::NoSpace,
        // The guest was started between the look and the act.
        words if words.contains("Is another process using the image") => FaultCode::Conflict,
        _ => FaultCode::Failed,
    };
    Err(Fault::new(code, format!("{program} ended with {}: {words}", output.status)))
}
