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
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use super::folder::Folder;
use super::process::{self, NeedsRoot};
use super::{data_words, machine, up};
use crate::cli::output::{self, Format, FormatWords};

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
    #[command(flatten)]
    format: FormatWords,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Outcome {
    data: PathBuf,
    was_up: bool,
    purged: bool,
    /// What a purge leaves on this machine, in words.
    left: Vec<String>,
}

pub(super) fn grammar() -> clap::Command {
    <Words as clap::CommandFactory>::command()
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let words: Words = process::words("down", words);
    process::run_as(words.format.output, run(words))
}

async fn run(words: Words) -> anyhow::Result<ExitCode> {
    let folder = Folder::at(&words.data)?;
    let was_up = stop(&folder, words.purge).await?;
    let left = if words.purge { purge(&folder).await? } else { Vec::new() };
    let outcome = Outcome { data: folder.0, was_up, purged: words.purge, left };
    match words.format.output {
        Format::Table => outcome.print(),
        Format::Json => output::json_of(&outcome),
    }
    Ok(ExitCode::SUCCESS)
}

impl Outcome {
    fn print(&self) {
        let data = self.data.display();
        match (self.purged, self.was_up) {
            (true, _) => println!("  everything of the cloud in {data} is gone"),
            (false, true) => println!("  down; guests run on. Up again: haar up{}", data_words(&self.data)),
            (false, false) => {
                println!("  no cloud is up in {data}");
                // Which cloud is stopped is never guessed; where it is may be told.
                if let Some(saved) = super::saved_data().filter(|saved| *saved != self.data) {
                    println!("  the saved cloud is in {}: haar down{}", saved.display(), data_words(&saved));
                }
            }
        }
        for line in &self.left {
            println!("  stays: {line}");
        }
    }
}

/// Ends whoever has the folder; false when nobody has.
async fn stop(folder: &Folder, purge: bool) -> anyhow::Result<bool> {
    let needs_root = || {
        let more = if purge { " --purge --yes" } else { "" };
        let command = format!("sudo haar down{}{more}", data_words(&folder.0));
        NeedsRoot { what: "stopping the cloud", command }
    };
    match folder.is_taken() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Err(needs_root().into()),
        taken => {
            if !taken.context("it cannot be told whether a cloud is up")? {
                // Those of a `haar up` that was killed end by themselves, a little later.
                return tokio::task::block_in_place(|| folder.wait_for_the_former());
            }
        }
    }
    let Some(pid) = holder(folder).await? else {
        if folder.is_taken()? {
            return Err(needs_root().into());
        }
        return tokio::task::block_in_place(|| folder.wait_for_the_former());
    };
    match kill(pid, Signal::SIGTERM) {
        Err(Errno::EPERM) => return Err(needs_root().into()),
        // It ended in this very moment.
        Err(Errno::ESRCH) => {}
        asked => asked.with_context(|| format!("process {pid} cannot be stopped"))?,
    }
    let deadline = Instant::now() + LIMIT;
    while folder.is_taken()? {
        if Instant::now() >= deadline {
            bail!("process {pid} was asked and has not ended after {} s; see log/up.log", LIMIT.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // One that was killed meanwhile leaves others behind, which end by themselves.
    tokio::task::block_in_place(|| folder.wait_for_the_former())?;
    Ok(true)
}

/// The process that has the folder. One that is dying holds it a moment longer than it can be told.
async fn holder(folder: &Folder) -> anyhow::Result<Option<Pid>> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match folder.holder() {
            None if folder.is_taken()? && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            found => return Ok(found),
        }
    }
}

/// Removes all that is this cloud's, and nothing else; says what stays on the machine.
async fn purge(folder: &Folder) -> anyhow::Result<Vec<String>> {
    if !folder.is_ours() {
        bail!("{} is no data folder of Haar's; nothing was removed", folder.0.display());
    }
    let _taken = folder.take_to_remove()?;
    let mut left = Vec::new();
    let config = folder.path("agent.toml");
    if config.exists() {
        let config = Config::read(&config)?;
        let started = machine::ensure_libvirt();
        let started = started.map_err(|why| anyhow::anyhow!("{why}; it must tell which guests to remove"))?;
        left.extend(started.map(|how| format!("libvirtd, started {how}; stop it as you stop services")));
        remove_guests(&config).await?;
        super::container::purge(&config).await?;
        net::prune(config.cloud, &[]).await.context("the cloud's bridges cannot be removed")?;
        remove_folder(&config.run_dir())?;
        left.extend(up::forget(&config.cloud.to_string()));
        left.extend(what_stays());
    }
    remove_folder(&folder.0)?;
    Ok(left)
}

/// What Haar may have changed on this machine and does not take back, for others may rely on it by now.
fn what_stays() -> Vec<String> {
    let mut left = Vec::new();
    for (key, words) in [("ipv4/ip_forward", "ip_forward"), ("ipv6/conf/all/forwarding", "IPv6 forwarding")] {
        let value = std::fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap_or_default();
        if value.trim() == "1" {
            left.push(format!("{words} is on; off again: sysctl net.{}=0", key.replace('/', ".")));
        }
    }
    let folder = crate::cli::credentials::folder().ok();
    let keys =
        folder.into_iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let is_keys = |name: &str| name.starts_with("known_hosts.");
    let keys = keys
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_keys));
    left.extend(keys.map(|path| format!("guests' host keys in {}", path.display())));
    left
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
    // What the guests shared; another cloud's guests keep what they use.
    let path = rpc::DEFAULT_PATH;
    let pruned = rpc_client::call(address, path, "Libvirt.Prune", &rpc::Nothing {}, GUEST_LIMIT).await;
    let rpc::Nothing {} = pruned.context("the guests' network filters cannot be removed")?;
    Ok(())
}
