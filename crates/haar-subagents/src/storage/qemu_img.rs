//! `qemu-img` and its kin: how long they may take, what becomes of those that outlive us, and what their words mean.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use haar_api::rpc::{Fault, FaultCode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kit::program::{self, Error};

/// What touches no data takes milliseconds; longer means the file system hangs.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// What goes through the tables or the bytes of the largest disk there is, on a slow file system.
pub(super) const LONG_LIMIT: Duration = Duration::from_secs(4 * 60 * 60);

/// How long the start waits for programs that it ends.
const STRAY_LIMIT: Duration = Duration::from_secs(5);

/// Runs `qemu-img` and waits; answers what it printed. Must be called on a thread of tokio's that may block.
///
/// It has no use for its standard input, which therefore may be a file whose lock it shall share.
pub(super) fn run<A: AsRef<OsStr>>(arguments: &[A], stdin: Stdio, limit: Duration) -> Result<Vec<u8>, Fault> {
    run_while(arguments, stdin, limit, || true)
}

/// The same, ended early when `wanted` says so; asked several times a second.
pub(super) fn run_while<A: AsRef<OsStr>>(
    arguments: &[A],
    stdin: Stdio,
    limit: Duration,
    wanted: impl FnMut() -> bool,
) -> Result<Vec<u8>, Fault> {
    program::run("qemu-img", arguments, stdin, limit, wanted).map_err(|error| fault(&error))
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

/// Why a program has not done it, as a fault.
pub(super) fn fault(error: &Error) -> Fault {
    let words = error.in_full();
    let (code, words) = match error {
        Error::NotInstalled(program) => {
            (FaultCode::Unavailable, format!("{words}; install {}", package(program)))
        }
        Error::NotStarted { .. } => (FaultCode::Unavailable, words),
        Error::TooLong { .. } => (FaultCode::Unavailable, format!("{words}; is the file system hanging?")),
        Error::Unwanted(_) => {
            (FaultCode::Unavailable, "the storage sub-agent is stopping; ask again".to_owned())
        }
        Error::Failed { words: said, .. } if said.contains("No space left") => (FaultCode::NoSpace, words),
        // The guest was started between the look and the act.
        Error::Failed { words: said, .. } if said.contains("Is another process using the image") => {
            (FaultCode::Conflict, words)
        }
        Error::Failed { .. } => (FaultCode::Failed, words),
    };
    Fault::new(code, words)
}

fn package(program: &str) -> &'static str {
    match program {
        "zfs" => "zfsutils-linux, or zfs-fuse (Debian, Ubuntu)",
        _ => "qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, Arch)",
    }
}
