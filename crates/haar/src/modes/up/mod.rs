//! `haar up`: a whole cloud on this machine, from nothing to the first guest in one command.
//!
//! ```text
//!  haar up ── checks, chooses ──▶ haar up --foreground   (own session, holds LOCK)
//!     ▲                               ├─ haar controller --supervised …
//!     └──── "up", or why not ─────────┴─ haar agent --supervised …
//!                                            ├─ haar storage --supervised …
//!                                            └─ haar-libvirt --supervised …
//! ```
//! Whoever of these dies is started again; when `haar up` itself dies, all of them end. Guests run on in any case.

mod daemon;
mod enrol;
mod saved;

pub(super) use saved::forget;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail};
use clap::Parser;
use haar_core::address::Cidr;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::machine::{self, Check, Libvirt, Mark};
use super::process;

/// A whole cloud on this machine: checks it, starts what is needed, and goes into the background when ready.
#[derive(Debug, Clone, Parser)]
#[command(
    version,
    after_help = "Examples:\n  sudo haar up\n  sudo haar up --data /srv/haar --listen 127.0.0.1:8700\n\nStop it with `haar down`; guests run on."
)]
struct Words {
    /// The data folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/haar")]
    data: PathBuf,
    /// Where the API answers; loopback only
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8600")]
    listen: SocketAddr,
    /// The range of the network `default`, made at the first start; one that no route overlaps unless said
    #[arg(long, value_name = "CIDR")]
    network: Option<Cidr>,
    /// What this machine is called in the cloud; its host name unless said
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The name under which the cloud is saved for the command line
    #[arg(long, value_name = "NAME", default_value = "default")]
    save_as: String,
    /// The program haar-libvirt; looked for beside this one unless said
    #[arg(long, value_name = "FILE", env = "HAAR_LIBVIRT", hide_env_values = true)]
    libvirt_program: Option<PathBuf>,
    /// Stay in the foreground, for systemd and the like
    #[arg(long)]
    foreground: bool,
    /// Tell the process that started this one how it went, by one line of JSON on standard output
    #[arg(long, hide = true, requires = "foreground")]
    told: bool,
}

/// How the start went, from the process in the background to the one before the terminal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Told {
    Up(Up),
    Failed(String),
}

/// A cloud that is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Up {
    url: String,
    cloud: String,
    hypervisor: String,
    is_first_start: bool,
    /// Where its token is saved, and under which name.
    saved: Vec<String>,
    /// What is not as it should be.
    warnings: Vec<String>,
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let begun = Instant::now();
    let words: Words = process::words("up", words);
    if words.told {
        return daemon::main(words);
    }
    let up = match prepare(words) {
        Ok((words, folder)) if words.foreground => return daemon::main_in_foreground(&words, &folder, begun),
        Ok((words, folder)) => in_background(&words, &folder),
        Err(error) => Err(error),
    };
    match up {
        Ok(up) => {
            print(&up, begun);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Checks the machine, says what was found, and chooses what was not said.
fn prepare(mut words: Words) -> anyhow::Result<(Words, Folder)> {
    if !nix::unistd::geteuid().is_root() {
        bail!("bridges, disks and libvirt need root: sudo haar up");
    }
    let folder = Folder::at(&words.data)?;
    words.data.clone_from(&folder.0);
    if folder.is_taken() {
        bail!("{}", folder.in_use());
    }
    println!("  checking this machine");
    let checks = machine::checks(&folder.0, Libvirt::Start, words.libvirt_program.as_deref());
    for check in &checks {
        println!("    {}", check.line());
    }
    machine::check_listen(words.listen).map_err(anyhow::Error::msg)?;
    if !folder.is_founded() {
        let chosen = choose_network(&words)?;
        println!("    {}", chosen.1.line());
        words.network = Some(chosen.0);
    }
    Ok((words, folder))
}

fn choose_network(words: &Words) -> anyhow::Result<(Cidr, Check)> {
    let line = |range: Cidr, note: &str| {
        let found = format!("network  default {range}, NAT");
        (range, Check { mark: Mark::Good, found, note: note.to_owned() })
    };
    if let Some(range) = words.network {
        return Ok(line(range, ""));
    }
    let range = machine::free_range()
        .context("every usual range for a network is routed on this host; choose one: --network CIDR")?;
    Ok(line(range, "chosen because no route overlaps it"))
}

/// Starts this program again in the background and waits for its word.
fn in_background(words: &Words, folder: &Folder) -> anyhow::Result<Up> {
    let program = std::env::current_exe().context("this program's own file is not to be found")?;
    folder.make()?;
    let log_path = folder.path("log/up.log");
    let log = std::fs::File::options().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("cannot write {}", log_path.display()))?;
    let mut command = Command::new(program);
    command.args(["up", "--foreground", "--told", "--save-as", &words.save_as, "--data"]).arg(&folder.0);
    command.args(["--listen", &words.listen.to_string()]);
    if let Some(network) = words.network {
        command.args(["--network", &network.to_string()]);
    }
    if let Some(name) = &words.name {
        command.args(["--name", name]);
    }
    if let Some(program) = &words.libvirt_program {
        command.arg("--libvirt-program").arg(program);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
    let mut child = child.context("cannot start the process for the background")?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output)
            .read_line(&mut line)
            .context("the process in the background cannot be heard")?;
    }
    match serde_json::from_str(&line) {
        Ok(Told::Up(up)) => Ok(up),
        Ok(Told::Failed(why)) => bail!("{why}"),
        Err(_) => bail!("it ended without a word; the end of its log:\n{}", folder.log_end("up.log", 5)),
    }
}

fn print(up: &Up, begun: Instant) {
    println!("  controller  {}   console and API", up.url);
    println!("  hypervisor  {}", up.hypervisor);
    for place in &up.saved {
        println!("  token       saved {place}");
    }
    if up.is_first_start {
        println!(
            "  made        network `default`, flavors tiny, small, medium and large, firewall group `default`"
        );
    }
    println!("  firewall groups are stored, not yet enforced");
    for warning in &up.warnings {
        println!("  ! {warning}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("  up in {seconds:.1} s — try:  haar image import NAME FILE.qcow2");
    println!(
        "                     then:  haar guest create web --flavor small --image NAME --ssh-key ~/.ssh/id_ed25519.pub"
    );
}
