//! `qemu-img` by its arguments, never through a shell, with a time limit.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode};
use tokio::process::Command;
use tokio::runtime::Handle;

/// Making an empty disk or an overlay takes milliseconds; longer means the file system hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs it and waits. Must be called on a thread of tokio's that may block.
pub(super) fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Result<(), Fault> {
    let mut command = Command::new("qemu-img");
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let ended = Handle::current().block_on(async { tokio::time::timeout(LIMIT, command.output()).await });
    let output = match ended {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            let text =
                "qemu-img is not installed; install qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, Arch)";
            return Err(Fault::new(FaultCode::Unavailable, text));
        }
        Ok(Err(error)) => {
            return Err(Fault::new(FaultCode::Unavailable, format!("qemu-img cannot be started: {error}")));
        }
        Err(_) => {
            let text =
                format!("qemu-img did not end within {} s; is the file system hanging?", LIMIT.as_secs());
            return Err(Fault::new(FaultCode::Unavailable, text));
        }
    };
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim();
    let code = if words.contains("No space left") { FaultCode::NoSpace } else { FaultCode::Failed };
    Err(Fault::new(code, format!("qemu-img ended with {}: {words}", output.status)))
}
