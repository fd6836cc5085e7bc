//! The command line: nouns and verbs over `/v1`, one file per noun.
//!
//! Tables for people, `-o json` for programs (what the API sends), errors on stderr with an exit code each
//! caller can act on: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not found, 5 not allowed, 6 unreachable.
//! Deliberately absent: anything that is not a request to the API, but for saving credentials, and for servers in
//! other clouds, which are [`cloud`]'s.

mod advice;
mod cloud;
pub(crate) mod completion;
mod config;
mod console;
mod context;
pub(crate) mod credentials;
mod events;
pub(crate) mod failure;
mod flavor;
mod follow;
mod fwgroup;
mod guest;
mod guest_create;
mod hypervisor;
mod image;
mod import;
mod job;
mod labels;
mod login;
mod narrow;
mod network;
mod noun;
pub(crate) mod output;
mod several;
mod size;
mod ssh;
mod status;
mod subnet;
mod terminal;
mod token;

use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use context::Context;
use failure::Failure;
use output::Format;

/// A private cloud: guests on your own machines.
#[derive(Debug, Parser)]
#[command(name = "haar", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options everywhere")]
pub(crate) struct Global {
    /// The controller, as http://host:port
    #[arg(long, global = true, env = "HAAR_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Which saved cloud to talk to
    #[arg(long, global = true, env = "HAAR_CLOUD", hide_env_values = true, value_name = "CLOUD")]
    pub(crate) cloud: Option<String>,
    /// The project names are looked up and made in
    #[arg(long, global = true, env = "HAAR_PROJECT", hide_env_values = true, value_name = "NAME")]
    pub(crate) project: Option<String>,
    /// Tables for people, or what the API sends
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_default_value = true,
        hide_possible_values = true,
        value_name = "table|json"
    )]
    pub(crate) output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Virtual machines
    #[command(subcommand)]
    Guest(guest::Verb),
    /// Log in to a guest over the network
    Ssh(ssh::Words),
    /// What guests' disks are cloned from
    #[command(subcommand)]
    Image(image::Verb),
    /// Sizes a guest can have
    #[command(subcommand)]
    Flavor(flavor::Verb),
    /// Networks guests are plugged into
    #[command(subcommand)]
    Network(network::Verb),
    /// Ranges of addresses in a network
    #[command(subcommand)]
    Subnet(subnet::Verb),
    /// Firewall groups
    #[command(subcommand)]
    Fwgroup(fwgroup::Verb),
    /// Machines that run guests
    #[command(subcommand)]
    Hypervisor(hypervisor::Verb),
    /// Changes under way, and how they ended
    #[command(subcommand)]
    Job(job::Verb),
    /// The cloud at a glance
    #[command(after_help = "Examples:\n  haar status\n  haar status -o json")]
    Status,
    /// What there is, what is promised, what is left
    #[command(after_help = "Examples:\n  haar capacity")]
    Capacity,
    /// Check the books and list every fault
    #[command(after_help = "Examples:\n  haar check          exits with 1 when something is wrong")]
    Check,
    /// Servers in other clouds, and in this one
    Cloud(cloud::Words),
    /// What changes, as it changes
    Events(events::Words),
    /// Settings of the whole cloud
    #[command(subcommand)]
    Config(config::Verb),
    /// Who may ask
    #[command(subcommand)]
    Token(token::Verb),
    /// Save a cloud's address and token
    Login(login::Words),
    /// Print a completion script for a shell
    Completion(completion::Words),
}

/// Reads the words, does what they say, and gives the exit code.
pub(crate) fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = parsed.unwrap_or_else(|error| failure::wrong_words(&error, &words));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::local("cannot start", error).report(cli.global.output),
    };
    let format = cli.global.output;
    let ended = runtime.block_on(run(cli));
    // A console may have left a read of the terminal behind; nobody waits for it.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(format),
    }
}

/// The whole grammar, as help and completion show it.
pub(crate) fn command() -> clap::Command {
    command_beside(&crate::modes::overview())
}

fn command_beside(modes: &str) -> clap::Command {
    let footer = format!(
        "{modes}First steps:\n  haar image import debian-12 ./debian-12-genericcloud-amd64.qcow2\n  \
         haar guest create web --image debian-12 --ssh-key ~/.ssh/id_ed25519.pub\n  haar ssh debian@web\n\n\
         Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 not found, 5 not allowed, 6 unreachable"
    );
    Cli::command().after_help(footer)
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    match cli.command {
        Command::Completion(words) => return completion::print(&words),
        Command::Login(words) => return login::save(&global, &words).await,
        Command::Cloud(words) => return Box::pin(cloud::run(&global, words)).await,
        _ => {}
    }
    let context = Context::connect(global)?;
    let done = carry_out(&context, cli.command).await;
    done.map_err(|failure| advice::with_next_step(&context, failure))
}

async fn carry_out(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Guest(verb) => Box::pin(guest::run(context, verb)).await,
        Command::Ssh(words) => ssh::run(context, &words).await,
        Command::Image(verb) => Box::pin(image::run(context, verb)).await,
        Command::Flavor(verb) => flavor::run(context, verb).await,
        Command::Network(verb) => network::run(context, verb).await,
        Command::Subnet(verb) => subnet::run(context, verb).await,
        Command::Fwgroup(verb) => fwgroup::run(context, verb).await,
        Command::Hypervisor(verb) => hypervisor::run(context, verb).await,
        Command::Job(verb) => job::run(context, verb).await,
        Command::Status => status::status(context).await,
        Command::Capacity => status::capacity(context).await,
        Command::Check => status::check(context).await,
        Command::Events(words) => events::run(context, &words).await,
        Command::Config(verb) => config::run(context, verb).await,
        Command::Token(verb) => token::run(context, verb).await,
        Command::Cloud(_) | Command::Login(_) | Command::Completion(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
