//! Programs of the host by their arguments, never through a shell, with a time limit.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use haar_api::rpc::{Fault, FaultCode};
use tokio::process::Command;
use tokio::runtime::Handle;

/// All that is run takes milliseconds; longer means that the host hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program and waits; answers what it printed. Must be called on a thread of tokio's that may block.
///
/// It has no use for its standard input, which therefore may be a file whose lock it shall share.
pub(super) fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], stdin: Stdio) -> Result<String, Fault> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(stdin).kill_on_drop(true);
    let shown = program.display();
    let unavailable = |text: String| Err(Fault::new(FaultCode::Unavailable, text));
    let ended = Handle::current().block_on(async { tokio::time::timeout(LIMIT, command.output()).await });
    let output = match ended {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            return unavailable(format!("{shown} is not installed"));
        }
        Ok(Err(error)) => return unavailable(format!("{shown} cannot be started: {error}")),
        Err(_) => return unavailable(format!("{shown} did not end within {} s", LIMIT.as_secs())),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Fault::new(FaultCode::Failed, format!("{shown} ended with {}: {}", output.status, words.trim())))
}

/// Runs a program that must not have a pipe, for what it makes keeps its output; killed when it takes too long.
pub(super) fn wait(command: &mut std::process::Command, limit: Duration) -> io::Result<ExitStatus> {
    let mut child = command.spawn()?;
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("it did not end within {} s", limit.as_secs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_never_ends_is_ended() {
        let begun = Instant::now();
        let mut command = std::process::Command::new("sleep");
        let ended = wait(command.arg("1000"), Duration::from_millis(50));
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(wait(&mut std::process::Command::new("true"), LIMIT).unwrap().success());
    }
}
