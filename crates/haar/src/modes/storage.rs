//! `haar storage`: the storage sub-agent as a process.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use haar_api::rpc::ImageService;
use haar_core::id::CloudId;
use haar_subagents::{kit, storage};

use super::process;

/// The storage sub-agent: images and guests' disks on this machine. Usually started by the agent.
#[derive(Debug, Parser)]
#[command(version)]
#[command(group = clap::ArgGroup::new("listen").required(true).args(["socket", "port"]))]
struct Words {
    /// Unix socket to answer on, for its owner only
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// Port on 127.0.0.1 to answer on; open to every local user, who thereby is root
    #[arg(long)]
    port: Option<u16>,
    /// The folder that holds images/ and disks/
    #[arg(long, value_name = "DIR", default_value = "/var/lib/haar/storage")]
    root: PathBuf,
    /// What new disks are made of: qcow2 (any file system), reflink (raw files on btrfs or xfs), zfs (volumes or
    /// datasets, the root folder must be one's mountpoint), or auto (qcow2)
    #[arg(long, value_name = "NAME", default_value_t)]
    backend: storage::Backend,
    /// The cloud's id: disks of another cloud are not touched
    #[arg(long, value_name = "UUID")]
    cloud: CloudId,
    /// A folder that file:// images may lie in; may be given more than once
    #[arg(long = "image-dir", value_name = "DIR")]
    image_dirs: Vec<PathBuf>,
    /// Where images come from that are asked for by their id alone, as mistify's are; taken as they come
    #[arg(long, value_name = "URL")]
    image_service: Option<ImageService>,
    /// End when standard input closes: whoever started it is gone then
    #[arg(long)]
    supervised: bool,
}

pub(super) fn grammar() -> clap::Command {
    <Words as clap::CommandFactory>::command()
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let words: Words = process::words("storage", words);
    process::log();
    process::run(run(words))
}

async fn run(words: Words) -> anyhow::Result<ExitCode> {
    let listen = match (words.socket, words.port) {
        (Some(socket), _) => kit::Listen::Unix(socket),
        (None, port) => kit::Listen::Loopback(port.unwrap_or(0)),
    };
    let config = storage::Config {
        listen,
        root: words.root,
        image_dirs: words.image_dirs,
        image_service: words.image_service,
        backend: words.backend,
        cloud: words.cloud.to_string(),
    };
    storage::run(config, process::ends(words.supervised)?)
        .await
        .context("the storage sub-agent cannot go on")?;
    Ok(ExitCode::SUCCESS)
}
