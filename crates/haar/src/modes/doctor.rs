//! `haar doctor`: looks at this machine and says what guests would miss. Changes nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::folder::Folder;
use super::machine::{self, Libvirt, Mark};
use super::process;

/// Looks at this machine: what guests need, what is there, what to do. Changes nothing.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exits with 1 when guests cannot run here.")]
struct Words {
    /// The data folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/haar")]
    data: PathBuf,
    /// The program haar-libvirt; looked for beside this one unless said
    #[arg(long, value_name = "FILE", env = "HAAR_LIBVIRT", hide_env_values = true)]
    libvirt_program: Option<PathBuf>,
}

pub(super) fn main(words: &[String]) -> ExitCode {
    let words: Words = process::words("doctor", words);
    let folder = match Folder::at(&words.data) {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let checks = machine::checks(&folder.0, Libvirt::Look, words.libvirt_program.as_deref());
    for check in &checks {
        println!("  {}", check.line());
    }
    if !nix::unistd::geteuid().is_root() {
        println!("  ! not root                                       `haar up` needs root: sudo haar up");
    }
    match folder.holder() {
        Some(pid) => println!("  ✓ a cloud is up in {} (process {pid})", folder.0.display()),
        None if folder.is_founded() => println!("  · a cloud is down in {}: haar up", folder.0.display()),
        None => println!("  · no cloud yet in {}: haar up", folder.0.display()),
    }
    println!("  · firewall groups are stored, not yet enforced");
    let is_bad = checks.iter().any(|check| check.mark == Mark::Bad);
    if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
