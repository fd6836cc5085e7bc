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
use haar_api::rpc::storage::Backend;
use haar_core::address::Cidr;
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::machine::{self, Check, Libvirt, Mark};
use super::process::{self, AlreadyUp, NeedsRoot};
use crate::cli::output::{self, Format, FormatWords};

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
    /// What new disks are made of: qcow2 (any file system), reflink (raw files on btrfs or xfs), zfs (volumes or
    /// datasets; the folder `storage` must be one's mountpoint), or auto (qcow2); as it was unless said
    #[arg(long, value_name = "NAME")]
    storage_backend: Option<Backend>,
    /// Stay in the foreground, for systemd and the like
    #[arg(long)]
    foreground: bool,
    #[command(flatten)]
    format: FormatWords,
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
    /// Another start was faster.
    AlreadyUp(String),
}

/// A cloud that is up.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Up {
    url: String,
    cloud: String,
    hypervisor: String,
    is_first_start: bool,
    /// Where its token is saved, and under which name; the caller's own file last.
    saved: Vec<saved::SavedFor>,
    /// What is not as it should be.
    warnings: Vec<String>,
    /// What was found on this machine before the start.
    #[serde(default)]
    checks: Vec<Check>,
}

impl Up {
    /// With what was found before; what is bad is said again at the end, where it is read.
    fn beside(mut self, checks: Vec<Check>) -> Up {
        let bad = checks.iter().filter(|check| check.mark == Mark::Bad);
        self.warnings.extend(bad.map(|check| format!("guests cannot run: {}; {}", check.found, check.note)));
        self.checks = checks;
        self
    }
}

pub(super) fn grammar() -> clap::Command {
    <Words as clap::CommandFactory>::command()
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let begun = Instant::now();
    let words: Words = process::words("up", words);
    if words.told {
        return daemon::main(words);
    }
    let format = words.format.output;
    let up = match prepare(words) {
        Ok((words, folder, checks)) if words.foreground => {
            return daemon::main_in_foreground(&words, &folder, checks, begun);
        }
        Ok((words, folder, checks)) => in_background(&words, &folder).map(|up| up.beside(checks)),
        Err(error) => Err(error),
    };
    match up {
        Ok(up) => {
            print(format, &up, begun);
            ExitCode::SUCCESS
        }
        Err(error) => process::failed(format, &error),
    }
}

/// Checks the machine, says what was found, and chooses what was not said.
fn prepare(mut words: Words) -> anyhow::Result<(Words, Folder, Vec<Check>)> {
    if !nix::unistd::geteuid().is_root() {
        let command = format!("sudo haar up{}", super::data_words(&words.data));
        return Err(NeedsRoot { what: "starting a cloud, with bridges, disks and libvirt,", command }.into());
    }
    let say = |line: &str| {
        if words.format.output == Format::Table {
            println!("{line}");
        }
    };
    let folder = Folder::at(&words.data)?;
    words.data.clone_from(&folder.0);
    if folder.is_taken().context("it cannot be told whether a cloud is up")? {
        return Err(folder.in_use().into());
    }
    if folder.wait_for_the_former()? {
        say("  waited for the processes of a killed `haar up` to end");
    }
    if folder.has_lost_its_books() {
        let data = folder.0.display();
        bail!(
            "the books of this cloud are gone: {data}/controller holds none, and agent.toml says that there were; \
             restore a backup of that folder, or begin anew in another one (--data DIR); `haar down --purge --yes \
             --data {data}` removes what is left of the old cloud, guests included"
        );
    }
    say("  checking this machine");
    let backend = words.storage_backend;
    let mut checks = machine::checks(&folder.0, Libvirt::Start, words.libvirt_program.as_deref(), backend);
    checks.iter().for_each(|check| say(&format!("    {}", check.line())));
    machine::check_listen(words.listen).map_err(anyhow::Error::msg)?;
    if !folder.is_founded() {
        let (range, check) = choose_network(&words)?;
        say(&format!("    {}", check.line()));
        checks.push(check);
        words.network = Some(range);
    }
    Ok((words, folder, checks))
}

fn choose_network(words: &Words) -> anyhow::Result<(Cidr, Check)> {
    let line = |range: Cidr, note: &str| {
        let found = format!("network  default {range}, NAT");
        (range, Check { mark: Mark::Good, found, note: note.to_owned() })
    };
    if let Some(range) = words.network {
        return Ok(line(range, ""));
    }
    let range = machine::free_range(&[])
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
    if let Some(backend) = words.storage_backend {
        command.args(["--storage-backend", &backend.to_string()]);
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
        Ok(Told::AlreadyUp(why)) => Err(AlreadyUp(why).into()),
        Err(_) => bail!("it ended without a word; the end of its log:\n{}", folder.log_end("up.log", 5)),
    }
}

fn print(format: Format, up: &Up, begun: Instant) {
    if format == Format::Json {
        output::json_of(up);
        return;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a key in the unit.
    fn unit(key: &str) -> &'static str {
        let text = include_str!("../../../../../etc/haar.service");
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("the unit has no {key}"))
    }

    #[test]
    fn the_units_words_are_understood_and_its_patience_is_ours() {
        let mut start = unit("ExecStart").split_whitespace();
        assert_eq!(start.next(), Some("/usr/bin/haar"));
        assert_eq!(start.next(), Some("up"));
        let words = Words::try_parse_from(std::iter::once("haar up").chain(start)).unwrap();
        assert!(words.foreground && !words.told, "{words:?}");
        assert_eq!(unit("Type"), "notify");
        let patience: u64 = unit("TimeoutStartSec").parse().unwrap();
        assert!(patience > (daemon::CONTROLLER_LIMIT + daemon::AGENT_LIMIT).as_secs(), "{patience} s");
    }

    #[test]
    fn what_is_bad_before_the_start_is_said_again_at_its_end() {
        let check = |mark| Check { mark, found: "nftables is missing".into(), note: "install it".into() };
        let up = Up {
            url: String::new(),
            cloud: String::new(),
            hypervisor: String::new(),
            is_first_start: true,
            saved: Vec::new(),
            warnings: Vec::new(),
            checks: Vec::new(),
        };
        let up = up.beside(vec![check(Mark::Good), check(Mark::Warning), check(Mark::Bad)]);
        assert_eq!(up.warnings, ["guests cannot run: nftables is missing; install it"]);
    }
}
