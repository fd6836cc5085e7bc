//! `haar down`: ends the processes of a data folder. Guests run on.
//!
//! With `--purge` everything of that cloud goes: guests' domains, bridges, rules, sockets and the data folder.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use haar_agent::{Config, net};
use haar_api::rpc;
use haar_api::rpc_client::{self, Address};
use nix::sys::signal::{Signal, kill};

use super::folder::Folder;
use super::{process, up};

/// How long everybody together may take to end.
const LIMIT: Duration = Duration::from_secs(60);
/// How long libvirt may take for one guest.
const GUEST_LIMIT: Duration = Duration::from_secs(60);

/// Stops the cloud of a data folder; guests run on.
#[derive(Debug, Parser)]
#[command(version)]
struct Words {
    /// The data folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/haar")]
    data: PathBuf,
    /// Also remove all of it: guests, their disks, bridges, rules, and the data folder
    #[arg(long, requires = "yes")]
    purge: bool,
    /// Yes, remove it
    #[arg(long)]
    yes: bool,
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let words: Words = process::words("down", words);
    process::run(run(words))
}

async fn run(words: Words) -> anyhow::Result<ExitCode> {
    let folder = Folder::at(&words.data)?;
    let was_up = stop(&folder).await?;
    if words.purge {
        purge(&folder).await?;
        println!("  everything of the cloud in {} is gone", folder.0.display());
    } else if was_up {
        println!("  down; guests run on. Up again: haar up --data {}", folder.0.display());
    } else {
        println!("  no cloud is up in {}", folder.0.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends whoever has the folder; false when nobody has.
async fn stop(folder: &Folder) -> anyhow::Result<bool> {
    if !folder.is_taken() {
        return Ok(false);
    }
    let Some(pid) = folder.holder() else {
        bail!("{} is held by a process that cannot be told; are you root?", folder.path("LOCK").display());
    };
    kill(pid, Signal::SIGTERM).with_context(|| format!("process {pid} cannot be stopped; are you root?"))?;
    let deadline = Instant::now() + LIMIT;
    while folder.is_taken() {
        if Instant::now() >= deadline {
            bail!("process {pid} was asked and has not ended after {} s; see log/up.log", LIMIT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}

/// Removes all that is this cloud's, and nothing else.
async fn purge(folder: &Folder) -> anyhow::Result<()> {
    if !folder.path("VERSION").exists() {
        bail!("{} is no data folder of Haar's; nothing was removed", folder.0.display());
    }
    let _taken = folder.take()?;
    let config = folder.path("agent.toml");
    if config.exists() {
        let config = Config::read(&config)?;
        remove_guests(&config).await?;
        net::prune(config.cloud, &[]).await.context("the cloud's bridges cannot be removed")?;
        remove_folder(&config.run_dir())?;
        up::forget(&config.controller)?;
    }
    remove_folder(&folder.0)
}

fn remove_folder(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the domains that carry this cloud's mark, by a sub-agent started for it.
async fn remove_guests(config: &Config) -> anyhow::Result<()> {
    let program = config.libvirt.program.clone();
    let program = program.unwrap_or_else(|| haar_agent::config::beside("haar-libvirt"));
    let socket = config.run_dir().join("purge.sock");
    std::fs::create_dir_all(config.run_dir()).context("the folder for sockets cannot be made")?;
    let mut child = Command::new(&program)
        .args(["--supervised", "--uri", &config.libvirt.uri, "--socket"])
        .arg(&socket)
        .arg("--run-dir")
        .arg(config.run_dir())
        .arg("--log-dir")
        .arg(config.data_dir.join("log"))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let removed = remove_domains(&Address::Unix(socket), &config.cloud.to_string()).await;
    // It may have ended by itself; then there is nothing to end.
    let _ = child.kill();
    let _ = child.wait();
    removed
}

async fn remove_domains(address: &Address, cloud: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let list = loop {
        let path = rpc::DEFAULT_PATH;
        let listed = rpc_client::call(address, path, "Libvirt.List", &rpc::Nothing {}, GUEST_LIMIT).await;
        match listed {
            Ok(list) => break list,
            Err(rpc_client::CallError::Connect { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error).context("libvirt does not tell its domains"),
        }
    };
    let rpc::GuestListResponse { guests } = list;
    for guest in guests {
        if guest.haar.as_ref().is_none_or(|extra| extra.cloud != cloud) {
            continue;
        }
        let id = guest.id.clone();
        let args = [("any_life".to_owned(), "true".to_owned())].into();
        let request = rpc::GuestRequest { guest: Some(guest), action: "delete".to_owned(), args };
        let deleted: Result<rpc::GuestResponse, _> =
            rpc_client::call(address, rpc::DEFAULT_PATH, "Libvirt.Delete", &request, GUEST_LIMIT).await;
        deleted.with_context(|| format!("the domain {id} cannot be removed"))?;
    }
    Ok(())
}
