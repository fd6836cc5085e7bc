//! Programs of the host by their arguments, never through a shell, with a time limit.
//!
//! Promised: a program that takes too long is killed and collected. It speaks English, whatever the host does.
//! Deliberately absent: what its end means to a caller, and what its words do.

use std::ffi::OsStr;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::runtime::Handle;

/// Between two looks whether it is still wanted.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Why a program has not done what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not on this host.
    #[error("{0} is not installed")]
    NotInstalled(String),
    /// It is, and the system does not start it.
    #[error("{program} cannot be started")]
    NotStarted {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It was killed.
    #[error("{program} did not end within {} s", limit.as_secs())]
    TooLong {
        /// Its name.
        program: String,
        /// What it had.
        limit: Duration,
    },
    /// It was killed, for nobody wanted it any more.
    #[error("{0} was ended: nobody wants it any more")]
    Unwanted(String),
    /// It says so itself.
    #[error("{program} ended with {status}: {words}")]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote on its standard error.
        words: String,
    },
}

impl Error {
    /// With what the system said, for who keeps no errors but words.
    pub fn in_full(&self) -> String {
        match self {
            Error::NotStarted { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }

    /// That it was not started.
    pub fn not_started(program: impl Into<String>, source: io::Error) -> Error {
        let program = program.into();
        match source.kind() {
            io::ErrorKind::NotFound => Error::NotInstalled(program),
            _ => Error::NotStarted { program, source },
        }
    }
}

/// Runs a program and waits; answers what it printed. It is ended early when `wanted`, which is asked several times a
/// second, says so. Must be called on a thread of tokio's that may block.
///
/// It has no use for its standard input, which therefore may be a file whose lock it shall share.
///
/// # Errors
/// [`Error`].
pub fn run<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: &[A],
    stdin: Stdio,
    limit: Duration,
    mut wanted: impl FnMut() -> bool,
) -> Result<Vec<u8>, Error> {
    let name = || program.as_ref().display().to_string();
    let mut command = Command::new(&program);
    command.args(arguments).env("LC_ALL", "C").stdin(stdin).kill_on_drop(true);
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
    let output = match ended {
        None => return Err(Error::Unwanted(name())),
        Some(Err(_)) => return Err(Error::TooLong { program: name(), limit }),
        Some(Ok(output)) => output.map_err(|error| Error::not_started(name(), error))?,
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Failed { program: name(), status: output.status, words })
}

/// Runs a program that must not have a pipe, for what it makes keeps its output; killed when it takes too long.
///
/// # Errors
/// When it cannot be started, and `TimedOut`.
pub fn wait(command: &mut std::process::Command, limit: Duration) -> io::Result<ExitStatus> {
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

    /// On a thread that may block.
    async fn run_it(
        program: &'static str,
        arguments: &'static [&'static str],
        limit: Duration,
        is_wanted: bool,
    ) -> Result<String, Error> {
        let ran =
            tokio::task::spawn_blocking(move || run(program, arguments, Stdio::null(), limit, || is_wanted));
        ran.await.unwrap().map(|printed| String::from_utf8(printed).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_program_prints_is_told_and_what_keeps_it_from_that() {
        let (long, short) = (Duration::from_secs(60), Duration::from_millis(50));
        assert_eq!(run_it("echo", &["$HOME", "a b"], long, true).await.unwrap(), "$HOME a b\n");
        let failed = run_it("sh", &["-c", "echo why >&2; exit 3"], long, true).await.unwrap_err();
        assert!(
            matches!(&failed, Error::Failed { words, status, .. } if words == "why" && status.code() == Some(3)),
            "{failed}"
        );
        let absent = run_it("/nonexistent/program", &[], long, true).await.unwrap_err();
        assert!(matches!(absent, Error::NotInstalled(_)), "{absent}");
        let refused = run_it("/etc/passwd", &[], long, true).await.unwrap_err();
        assert!(matches!(refused, Error::NotStarted { .. }), "{refused}");
        let begun = Instant::now();
        assert!(matches!(run_it("sleep", &["1000"], short, true).await, Err(Error::TooLong { .. })));
        assert!(matches!(run_it("sleep", &["1000"], long, false).await, Err(Error::Unwanted(_))));
        assert!(begun.elapsed() < long);
    }

    #[test]
    fn a_program_that_never_ends_is_ended() {
        let begun = Instant::now();
        let mut command = std::process::Command::new("sleep");
        let ended = wait(command.arg("1000"), Duration::from_millis(50));
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(wait(&mut std::process::Command::new("true"), Duration::from_secs(60)).unwrap().success());
    }
}
