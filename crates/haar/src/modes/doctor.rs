//! `haar doctor`: looks at this machine and says what guests would miss. Changes nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use super::folder::Folder;
use super::machine::{self, Check, Libvirt, Mark};
use super::process;
use crate::cli::output::{self, Format, FormatWords};

/// Looks at this machine: what guests need, what is there, what to do. Changes nothing.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exits with 1 when guests cannot run here.")]
struct Words {
    /// The data folder; that of the saved cloud unless said, else /var/lib/haar
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The program haar-libvirt; looked for beside this one unless said
    #[arg(long, value_name = "FILE", env = "HAAR_LIBVIRT", hide_env_values = true)]
    libvirt_program: Option<PathBuf>,
    #[command(flatten)]
    format: FormatWords,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Findings {
    checks: Vec<Check>,
    is_root: bool,
    data: PathBuf,
    /// `up`, `down`, `none`, or `unknown` where only root may look.
    cloud: &'static str,
    /// The process that has the folder.
    process: Option<i32>,
}

pub(super) fn grammar() -> clap::Command {
    <Words as clap::CommandFactory>::command()
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let words: Words = process::words("doctor", words);
    let data = words.data.or_else(super::saved_data).unwrap_or_else(|| super::USUAL_DATA.into());
    let folder = match Folder::at(&data) {
        Ok(folder) => folder,
        Err(error) => return process::failed(words.format.output, &error),
    };
    let (cloud, process) = state(&folder);
    let mut checks = machine::checks(&folder.0, Libvirt::Look, words.libvirt_program.as_deref(), None);
    checks.extend(machine::sub_agents(&folder.0, cloud == "up"));
    let findings =
        Findings { checks, is_root: nix::unistd::geteuid().is_root(), data: folder.0, cloud, process };
    match words.format.output {
        Format::Table => findings.print(),
        Format::Json => output::json_of(&findings),
    }
    let is_bad = findings.checks.iter().any(|check| check.mark == Mark::Bad);
    if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn state(folder: &Folder) -> (&'static str, Option<i32>) {
    match folder.is_taken() {
        Err(_) => ("unknown", None),
        Ok(true) => ("up", folder.holder().map(nix::unistd::Pid::as_raw)),
        Ok(false) if folder.is_founded() => ("down", None),
        Ok(false) => ("none", None),
    }
}

impl Findings {
    fn print(&self) {
        for check in &self.checks {
            println!("  {}", check.line());
        }
        let data = self.data.display();
        let words = super::data_words(&self.data);
        if !self.is_root {
            println!(
                "  ! not root                                       `haar up` needs root: sudo haar up{words}"
            );
        }
        match (self.cloud, self.process) {
            ("up", Some(pid)) => println!("  ✓ a cloud is up in {data} (process {pid})"),
            ("up", None) => println!("  ✓ a cloud is up in {data}"),
            ("down", _) => println!("  · a cloud is down in {data}: haar up{words}"),
            ("none", _) => println!("  · no cloud yet in {data}: haar up{words}"),
            _ => println!("  · only root can tell whether a cloud is up in {data}: sudo haar doctor{words}"),
        }
        println!("  · firewall groups are stored, not yet enforced");
    }
}
