//! What every mode shares: its words, its log, its runtime, and when it ends.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Reads a mode's words, `name` standing for the program; prints help or what is wrong and ends the process.
pub(super) fn words<A: Parser>(name: &str, words: &[String]) -> A {
    let all = std::iter::once(OsString::from(format!("haar {name}"))).chain(words.iter().map(OsString::from));
    A::parse_from(all)
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

/// Runs a mode to its end; what went wrong is printed with its causes.
pub(super) fn run(mode: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(mode).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    });
    runtime.shutdown_background();
    code
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
