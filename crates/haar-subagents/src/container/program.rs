//! The programs that containers need: the runtime and `ip`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode};

use crate::kit::program::{self, Error};

/// All that is run takes milliseconds; longer means that the host hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program and waits; answers what it printed. Must be called on a thread of tokio's that may block.
///
/// It has no use for its standard input, which therefore may be a file whose lock it shall share.
pub(super) fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A], stdin: Stdio) -> Result<String, Fault> {
    let printed = program::run(program, arguments, stdin, LIMIT, || true).map_err(|error| {
        let code = match error {
            Error::Failed { .. } => FaultCode::Failed,
            _ => FaultCode::Unavailable,
        };
        Fault::new(code, error.in_full())
    })?;
    Ok(String::from_utf8_lossy(&printed).into_owned())
}
