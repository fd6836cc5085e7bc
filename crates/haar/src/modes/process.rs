//! What every mode shares: its words, its log, its runtime, and when it ends.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use haar_api::problem::Problem;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::failure;
use crate::cli::output::Format;

/// Exit code of what is refused as things are.
const REFUSED: u8 = 3;
/// Exit code of what only another user may do.
const NOT_ALLOWED: u8 = 5;

/// A cloud is up in the folder already: what to say of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct AlreadyUp(pub(super) String);

/// What only root may do, and the command that does it.
#[derive(Debug, thiserror::Error)]
#[error("{what} needs root: {command}")]
pub(super) struct NeedsRoot {
    /// What was wanted.
    pub(super) what: &'static str,
    /// What to type.
    pub(super) command: String,
}

/// Reads a mode's words, `name` standing for the program; prints help or what is wrong and ends the process.
pub(super) fn words<A: Parser>(name: &str, words: &[String]) -> A {
    let all = std::iter::once(OsString::from(format!("haar {name}"))).chain(words.iter().map(OsString::from));
    A::try_parse_from(all).unwrap_or_else(|error| failure::wrong_words(&error, words))
}

/// Logs to standard error; `HAAR_LOG` is `error`, `warn`, `info` (unless set) or `debug`.
pub(super) fn log() {
    let level = std::env::var("HAAR_LOG").ok().and_then(|level| level.parse().ok());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .with_max_level(level.unwrap_or(tracing::Level::INFO))
        .init();
}

/// Runs a server to its end; what went wrong is printed with its causes.
pub(super) fn run(mode: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    run_as(Format::Table, mode)
}

/// Runs a mode to its end; what went wrong is printed with its causes, in the form asked for.
pub(super) fn run_as(format: Format, mode: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(format, &anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let code = runtime.block_on(mode).unwrap_or_else(|error| failed(format, &error));
    runtime.shutdown_background();
    code
}

/// Says why a mode failed and gives the exit code: 5 where only root may, 3 where a cloud is up already, else 1.
pub(super) fn failed(format: Format, error: &anyhow::Error) -> ExitCode {
    let (code, exit) = if error.is::<NeedsRoot>() {
        ("needs_root", ExitCode::from(NOT_ALLOWED))
    } else if error.is::<AlreadyUp>() {
        ("already_up", ExitCode::from(REFUSED))
    } else {
        ("local", ExitCode::FAILURE)
    };
    let message = format!("{error:#}");
    match format {
        Format::Table => eprintln!("error: {message}"),
        Format::Json => {
            let problem = Problem { code: code.to_owned(), message, ..Problem::default() };
            eprintln!("{}", serde_json::to_string_pretty(&problem).unwrap_or_else(|error| error.to_string()));
        }
    }
    exit
}

/// Resolves at the first SIGTERM or SIGINT, and for a supervised program when its standard input closes.
pub(super) fn ends(supervised: bool) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let cannot = "signals cannot be heard";
    let mut terminate = signal(SignalKind::terminate()).context(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(cannot)?;
    let (left_alone, alone) = tokio::sync::oneshot::channel();
    if supervised {
        // A thread of its own, for such a read cannot be taken back; it ends with the process.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            let _ = left_alone.send(());
        });
    }
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = alone, if supervised => {}
        }
    })
}
