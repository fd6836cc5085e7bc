//! `haar agent`: the hypervisor's agent, started from its configuration.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use super::process;

/// The agent of a hypervisor: carries out what the controller wants of this machine.
#[derive(Debug, Parser)]
#[command(version, after_help = "An example of the configuration lies in etc/haar-agent.toml.")]
struct Words {
    /// The configuration, TOML
    #[arg(long, value_name = "FILE", default_value = "/etc/haar/agent.toml")]
    config: PathBuf,
    /// End when standard input closes: whoever started it is gone then
    #[arg(long)]
    supervised: bool,
}

pub(super) fn grammar() -> clap::Command {
    <Words as clap::CommandFactory>::command()
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let words: Words = process::words("agent", words);
    process::log();
    process::run(run(words))
}

async fn run(words: Words) -> anyhow::Result<ExitCode> {
    let config = haar_agent::Config::read(&words.config)?;
    let running = haar_agent::start(&config, process::ends(words.supervised)?);
    running.await.context("the agent does not start")?.ended().await.context("the agent cannot go on")?;
    Ok(ExitCode::SUCCESS)
}
