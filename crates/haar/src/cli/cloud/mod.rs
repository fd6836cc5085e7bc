//! `haar cloud`: servers in other clouds, and in this one.
//!
//! A deployment is a name in a cloud: what servers stand on, and the servers. Its record is beneath the user's
//! folder of settings, so that every process of the user means the same one. What is done to the cloud is
//! `haar-cloud`'s; here are the words, and what a person and a program read.

mod copy;
mod deploy;
mod failure;
mod interrupt;
mod list;
mod offer;
mod open;
mod price;
mod progress;
mod provider;
mod run;
mod server;
mod spawn;
mod ssh;

use haar_cloud::{Error, state};

use super::Global;
use super::failure::Failure;

pub(crate) use failure::{exit_code, word};

/// The folder of the records, beneath the user's folder of settings.
const FOLDER: &str = "cloud";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar cloud deploy --provider haar
  haar cloud spawn --provider haar --image debian-12
  haar cloud list --provider haar
  haar cloud ssh --provider haar SERVER
  haar cloud teardown --provider haar --dry-run

HAAR_CLOUD_PROVIDER and HAAR_CLOUD_NAME say the provider and the name once for all commands.")]
pub(crate) struct Words {
    #[command(flatten)]
    which: Which,
    #[command(subcommand)]
    verb: Verb,
}

/// Which deployment, in which cloud.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Which {
    /// The cloud: openstack, haar (a Haar controller), or local (this machine as the one server)
    #[arg(
        long,
        global = true,
        env = "HAAR_CLOUD_PROVIDER",
        hide_env_values = true,
        value_name = "openstack|haar|local"
    )]
    pub(crate) provider: Option<String>,
    /// The deployment: what everything of it is called; haar-USER unless said
    #[arg(long, global = true, env = "HAAR_CLOUD_NAME", hide_env_values = true, value_name = "DEPLOYMENT")]
    pub(crate) name: Option<String>,
    /// The server to go through to those without an external address, or `none`; the first that has one unless said
    #[arg(long, global = true, env = "HAAR_CLOUD_JUMP", hide_env_values = true, value_name = "SERVER|none")]
    pub(crate) jump: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make what servers stand on, or put right what is missing of it
    Deploy(deploy::Words),
    /// Make servers, and wait until they can be used
    Spawn(spawn::Words),
    /// List the deployment's servers
    List(list::Words),
    /// Log in to a server with the system's ssh
    Ssh(ssh::Words),
    /// Run a command on a server; the exit code is the command's
    Run(run::Words),
    /// Copy files to a server or from it
    Copy(copy::Words),
    /// Show how much may be used, and how much is
    #[command(after_help = "Examples:\n  haar cloud quota\n  haar cloud quota -o json")]
    Quota,
    /// List the sizes that servers can have
    Flavors(offer::FlavorWords),
    /// List the images that servers can be made of
    Images(offer::ImageWords),
    /// Destroy servers
    Destroy(list::DestroyWords),
    /// Destroy everything of the deployment
    Teardown(deploy::TearDownWords),
}

pub(crate) async fn run(global: &Global, words: Words) -> Result<(), Failure> {
    let open = open::open(global, &words.which).await?;
    if !open.is_json() {
        tell_warnings();
    }
    // The system's ssh has the terminal, and its keys are its own to judge.
    if !matches!(words.verb, Verb::Ssh(_)) {
        open.interrupt.listen()?;
    }
    let sees_to_it = matches!(words.verb, Verb::Run(_) | Verb::Spawn(_));
    let done = tokio::select! {
        done = carry_out(&open, words.verb) => done,
        () = open.interrupt.token().cancelled(), if !sees_to_it => Err(open.interrupted()),
    };
    open.board.clear();
    // Whatever was begun for somebody who left is undone before the process ends.
    open.cloud.settled().await;
    match (open.interrupt.code(), done) {
        (Some(code), Err(failure)) => {
            failure.report(open.format);
            Err(Failure::Ended(code))
        }
        (_, done) => done.map_err(|failure| advised(&open, failure)),
    }
}

/// Without a deployment there is one thing to do.
fn advised(open: &open::Open, failure: Failure) -> Failure {
    match failure {
        Failure::Cloud(error) if matches!(*error, Error::State(state::Error::Absent { .. })) => {
            let advice = vec![format!("to deploy it:  {}", open.hint("deploy"))];
            Failure::Advised(Box::new(Failure::Cloud(error)), advice)
        }
        other => other,
    }
}

/// What goes wrong beside the one thing asked, such as a server that could not be deleted, is said too.
fn tell_warnings() {
    let warnings =
        tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr);
    // Somebody else listens already.
    let _ = warnings.without_time().with_target(false).try_init();
}

async fn carry_out(open: &open::Open, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Deploy(words) => Box::pin(deploy::deploy(open, &words)).await,
        Verb::Spawn(words) => Box::pin(spawn::run(open, &words)).await,
        Verb::List(words) => list::run(open, &words).await,
        Verb::Ssh(words) => ssh::run(open, &words).await,
        Verb::Run(words) => Box::pin(run::run(open, &words)).await,
        Verb::Copy(words) => Box::pin(copy::run(open, &words)).await,
        Verb::Quota => offer::quota(open).await,
        Verb::Flavors(words) => offer::flavors(open, &words).await,
        Verb::Images(words) => offer::images(open, &words).await,
        Verb::Destroy(words) => Box::pin(list::destroy(open, &words)).await,
        Verb::Teardown(words) => Box::pin(deploy::tear_down(open, &words)).await,
    }
}
