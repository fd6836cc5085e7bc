//! OpenSSH's `ssh` and `sftp` as one uses them on this sshd: no configuration of the user's, the same key.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::sshd::{Sshd, user, write_private};

/// The two programs for one server; ends the ControlMaster with this value.
pub(crate) struct Programs {
    port: u16,
    key: PathBuf,
    known_hosts: PathBuf,
    control: PathBuf,
}

impl Programs {
    pub(crate) fn on(sshd: &Sshd) -> Outcome<Self> {
        let (key, known_hosts) = (sshd.path("user_key"), sshd.path("known_hosts"));
        write_private(&key, &sshd.user_key.private)?;
        std::fs::write(&known_hosts, format!("[127.0.0.1]:{} {}\n", sshd.port, sshd.host_key.public.trim()))?;
        Ok(Self { port: sshd.port, key, known_hosts, control: sshd.path("control") })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
        command.args(["-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=yes"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.known_hosts.display()));
        command.arg("-o").arg(format!("IdentityFile={}", self.key.display()));
        command.arg("-o").arg(format!("Port={}", self.port));
        command.stdout(Stdio::null());
        command
    }

    /// `ssh` by the ControlMaster, which the first one becomes.
    fn shared(&self) -> Command {
        let mut command = self.command("ssh");
        command.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=600"]);
        command.arg("-o").arg(format!("ControlPath={}", self.control.display()));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command.
    pub(crate) fn run(&self, text: &str) -> Outcome<()> {
        let status = self.shared().arg(host()).arg(text).status()?;
        if status.success() { Ok(()) } else { Err(format!("ssh ended with {status}").into()) }
    }

    /// Has `sftp` carry out a line, such as `put here there`, on a connection of its own.
    pub(crate) fn sftp(&self, line: &str) -> Outcome<()> {
        let mut command = self.command("sftp");
        let mut sftp = command.args(["-q", "-b", "-"]).arg(host()).stdin(Stdio::piped()).spawn()?;
        let mut input = sftp.stdin.take().ok_or("sftp has no input")?;
        writeln!(input, "{line}")?;
        drop(input);
        let status = sftp.wait()?;
        if status.success() { Ok(()) } else { Err(format!("sftp ended with {status} at `{line}`").into()) }
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        if self.control.exists() {
            // Its connection ends with the server at the latest, and then it does too.
            let _ = self.shared().args(["-O", "exit"]).arg(host()).stderr(Stdio::null()).status();
        }
    }
}

fn host() -> String {
    format!("{}@127.0.0.1", user())
}
