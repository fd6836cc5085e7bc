//! `haar container`: the container sub-agent as a process, and the process beside each container.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use haar_api::rpc::ImageService;
use haar_core::id::CloudId;
use haar_subagents::container::{self, Devices, Limits, Monitor};
use haar_subagents::kit;

use super::process;

/// The container sub-agent: OCI images and containers of them on this machine. Usually started by the agent.
#[derive(Debug, Parser)]
#[command(version)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["socket", "port", "monitor"]))]
struct Words {
    /// Unix socket to answer on, for its owner only
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// Port on 127.0.0.1 to answer on; open to every local user, who thereby is root
    #[arg(long)]
    port: Option<u16>,
    /// The folder that holds images/ and containers/
    #[arg(long, value_name = "DIR", default_value = "/var/lib/haar/container")]
    root: PathBuf,
    /// The folder for what ends with this machine's running, on a file system in memory
    #[arg(long, value_name = "DIR", default_value = "/run/haar/container")]
    run_dir: PathBuf,
    /// The cloud's id: containers of another cloud are not touched
    #[arg(long, value_name = "UUID", required_unless_present = "monitor")]
    cloud: Option<CloudId>,
    /// A folder that file:// images may lie in; may be given more than once
    #[arg(long = "image-dir", value_name = "DIR")]
    image_dirs: Vec<PathBuf>,
    /// Where images come from that are asked for by their id alone, as mistify's are; taken as they come
    #[arg(long, value_name = "URL")]
    image_service: Option<ImageService>,
    /// The largest image that is taken, in MiB of its files
    #[arg(long, value_name = "MIB", default_value_t = 65_536)]
    max_image_mib: u32,
    /// Make the device nodes that images bring; they are refused otherwise
    #[arg(long)]
    allow_devices: bool,
    /// End when standard input closes: whoever started it is gone then
    #[arg(long)]
    supervised: bool,
    /// Run the container in this folder and wait for its end; the sub-agent itself asks for this
    #[arg(long, value_name = "DIR", hide = true)]
    monitor: Option<PathBuf>,
}

pub(super) fn grammar() -> clap::Command {
    <Words as clap::CommandFactory>::command()
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let words: Words = process::words("container", words);
    if let Some(folder) = &words.monitor {
        return match container::monitor(folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => process::failed(crate::cli::output::Format::Table, &anyhow::Error::new(error)),
        };
    }
    process::log();
    process::run(run(words))
}

async fn run(words: Words) -> anyhow::Result<ExitCode> {
    let listen = match (words.socket, words.port) {
        (Some(socket), _) => kit::Listen::Unix(socket),
        (None, port) => kit::Listen::Loopback(port.unwrap_or(0)),
    };
    let devices = if words.allow_devices { Devices::Made } else { Devices::Refused };
    let config = container::Config {
        listen,
        root: words.root,
        run: words.run_dir,
        image_dirs: words.image_dirs,
        image_service: words.image_service,
        limits: Limits { bytes: u64::from(words.max_image_mib) << 20, devices, ..Limits::default() },
        monitor: Monitor(Arc::new(monitor)),
        cloud: words.cloud.map(|cloud| cloud.to_string()).unwrap_or_default(),
    };
    container::run(config, process::ends(words.supervised)?)
        .await
        .context("the container sub-agent cannot go on")?;
    Ok(ExitCode::SUCCESS)
}

/// Ends and removes all containers and images of an agent's data folder.
pub(super) async fn purge(config: &haar_agent::Config) -> anyhow::Result<()> {
    let run = config.run_dir().join("container");
    let config = container::Config {
        listen: kit::Listen::Unix(run.join("purge.sock")),
        root: config.data_dir.join("container"),
        run,
        image_dirs: Vec::new(),
        image_service: None,
        limits: Limits::default(),
        monitor: Monitor(Arc::new(monitor)),
        cloud: config.cloud.to_string(),
    };
    container::purge(&config).await.context("the cloud's containers cannot be removed")
}

/// This very program, also when its file was replaced meanwhile.
fn monitor(folder: &std::path::Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut command, "haar");
    command.args(["container", "--monitor"]).arg(folder);
    command
}
