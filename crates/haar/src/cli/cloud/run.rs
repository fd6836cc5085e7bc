//! `haar cloud run`: a command on a server; its output as it comes, its end as ours.

use std::io::Write as _;
use std::time::Duration;

use haar_cloud::server::{Chunk, Command};
use haar_cloud::{Error, Server};
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::deploy::said;
use super::open::Open;
use super::server;
use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The command is a line for the login shell of the server's user; words are joined by blanks.

Examples:
  haar cloud run SERVER -- uname -a
  haar cloud run SERVER --limit 60 -- 'make test 2>&1 | tail'
  haar cloud run SERVER --background -- ./train.sh
  haar cloud run SERVER --stdin -- 'cat > notes' < notes"
)]
pub(crate) struct Words {
    /// Name, id, address, or the first digits of an id (4 or more); may be left out where there is but one
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// End the command after so many seconds, on the server too
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// Leave the command running there, and print its process id
    #[arg(long, conflicts_with_all = ["limit", "stdin"])]
    background: bool,
    /// Send our standard input to it
    #[arg(long)]
    stdin: bool,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(super) async fn run(open: &Open, words: &Words) -> Result<(), Failure> {
    let server = open.unless_interrupted(server::one(open, words.server.as_deref())).await?;
    server::address(&server)?;
    let text = words.command.join(" ");
    if words.background {
        let process = open.unless_interrupted(server.run_in_background(&text)).await?;
        let line = format!("`{text}` runs on {} as process {process}", server.name());
        return said(open, &json!({"server": server.name(), "process": process}), &line);
    }
    let mut command = Command::new(&*text);
    if let Some(seconds) = words.limit {
        command = command.limit(Duration::from_secs(seconds));
    }
    if words.stdin {
        let mut bytes = Vec::new();
        let mut input = tokio::io::stdin();
        let not_read = |error| Failure::local("cannot read standard input", error);
        open.unless_interrupted(async { input.read_to_end(&mut bytes).await.map_err(not_read) }).await?;
        command = command.stdin(bytes);
    }
    let ended = to_the_end(open, &server, &command).await?;
    if ended == 0 { Ok(()) } else { Err(Failure::Ended(u8::try_from(ended).unwrap_or(u8::MAX))) }
}

/// Runs it and gives its status. When we are interrupted it is ended on the server too, by a task that is waited for
/// before the process ends.
async fn to_the_end(open: &Open, server: &Server, command: &Command) -> Result<u32, Failure> {
    open.board.show(&format!("server {}", server.name()), "waiting for it to answer");
    let work = async {
        match open.is_json() {
            true => collect(server, command).await,
            false => stream(open, server, command).await,
        }
    };
    let ended = || Error::Cancelled {
        what: format!("`{}` on {}, which is ended there", command.text(), server.name()),
    };
    let done = open.interrupt.token().run_until_cancelled(work).await;
    Ok(done.unwrap_or_else(|| Err(ended()))?)
}

/// The whole output as one document.
async fn collect(server: &Server, command: &Command) -> Result<u32, Error> {
    let ended = server.run(command).await?;
    output::json_of(&json!({
        "server": server.name(),
        "status": ended.status,
        "signal": ended.signal,
        "stdout": String::from_utf8_lossy(&ended.stdout),
        "stderr": String::from_utf8_lossy(&ended.stderr),
        "truncated": ended.truncated,
    }));
    Ok(ended.status)
}

/// The output as it comes.
async fn stream(open: &Open, server: &Server, command: &Command) -> Result<u32, Error> {
    let mut running = server.run_streaming(command).await?;
    open.board.clear();
    while let Some(chunk) = running.next().await? {
        match chunk {
            // A reader that left wants no more of it, and with this the command ends.
            Chunk::Stdout(bytes) if !output::bytes_out(&bytes) => {
                return Err(Error::Cancelled { what: "whoever reads the output".to_owned() });
            }
            Chunk::Stdout(_) => {}
            Chunk::Stderr(bytes) => {
                let _ = std::io::stderr().write_all(&bytes);
            }
        }
    }
    Ok(running.wait().await?.status)
}
