//! The demo's guest, and what is shown of it: that it runs, what its console said, that it answers, and that
//! its disk keeps a file over a stop and a start. Every wait is for a condition, with a limit.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::show::Show;
use crate::cloud::{self, Cloud};
use crate::run;

/// The guest's name.
pub(super) const NAME: &str = "web";
const NETWORK: &str = "default";
const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// The first of the console's lines after a boot.
const BOOTED: &str = "haar-guest: booted from its own disk";
/// The whole console log, as far as it is kept.
const WHOLE_LOG: &str = "67108864";
const FILE: &str = "/root/written-by-the-demo";

/// The guest, its address and the key that opens it.
#[derive(Debug)]
pub(super) struct Guest {
    cloud: Cloud,
    pub(super) image: String,
    pub(super) key: PathBuf,
    pub(super) address: String,
    /// Where in the console's log the boot begins that is shown.
    log_from: usize,
}

impl Guest {
    /// Makes it, or takes the one of a former run and has it run.
    pub(super) fn ensure(show: &mut Show, cloud: &Cloud, flavor: &str, image: &str) -> Result<Self> {
        let key = key(cloud)?;
        let mut log_from = 0;
        match cloud.json(&["guest", "show", NAME]) {
            // It booted in a former run: its last boot counts, and nothing before it.
            Ok(known) if known["state"] == "running" => {
                log_from = log(cloud)?.rfind(BOOTED).unwrap_or_default();
            }
            Ok(_) => {
                log_from = log(cloud)?.len();
                show.run("start the guest of the former run", cloud, &["guest", "start", NAME])?;
            }
            Err(_) => {
                let public = key.with_extension("pub").display().to_string();
                let words = [
                    "guest",
                    "create",
                    NAME,
                    "--flavor",
                    flavor,
                    "--image",
                    image,
                    "--network",
                    NETWORK,
                    "--ssh-key",
                    &public,
                ];
                show.run("create a guest", cloud, &words)?;
            }
        }
        let seen = cloud.json(&["guest", "show", NAME])?;
        let address = cloud::text(&seen, "ip").context("the guest has no address")?;
        let image = cloud::text(&seen, "image_name")?;
        Ok(Self { cloud: cloud.clone(), image, key, address, log_from })
    }

    /// The list shows it running, with its address.
    pub(super) fn show_listed(&self, show: &mut Show) -> Result<()> {
        show.step("it runs, with an address", "haar guest list", || {
            let seen = self.cloud.json(&["guest", "show", NAME])?;
            ensure!(seen["state"] == "running", "the guest is {}: {}", seen["state"], seen["reason"]);
            let table = self.cloud.run(&["guest", "list"])?;
            let row = table.lines().find(|line| line.split_whitespace().next() == Some(NAME));
            let row = row.with_context(|| format!("the list does not name it:\n{table}"))?;
            ensure!(row.contains("running") && row.contains(&self.address), "the list says otherwise: {row}");
            Ok(table)
        })
    }

    /// The serial console says that it booted from its own disk, read its seed and set that address.
    pub(super) fn show_console(&self, show: &mut Show) -> Result<()> {
        let proofs = [
            BOOTED.to_owned(),
            format!("haar-guest: seed disk read, host name {NAME}"),
            format!("haar-guest: address {}/", self.address),
            "haar-guest: ready".to_owned(),
        ];
        show.step("its serial console", &format!("haar guest log {NAME}"), || {
            cloud::wait_for(BOOT_LIMIT, || {
                let whole = log(&self.cloud)?;
                let log = whole.get(self.log_from..).unwrap_or_default();
                let found = |proof: &String| {
                    let line = log.lines().find(|line| line.contains(proof.as_str()));
                    line.map(str::trim_end)
                        .with_context(|| format!("the console does not say `{proof}`:\n{}", last(log)))
                };
                let lines: Vec<&str> = proofs.iter().map(found).collect::<Result<_>>()?;
                Ok(lines.join("\n"))
            })
        })
    }

    /// The host reaches it.
    pub(super) fn show_ping(&self, show: &mut Show) -> Result<()> {
        let words = ["-c", "1", "-W", "2", &self.address];
        show.step("the host reaches it", &format!("ping {}", words.join(" ")), || {
            let printed = cloud::wait_for(BOOT_LIMIT, || run::quiet("ping", words))?;
            Ok(printed.lines().find(|line| line.contains("bytes from")).unwrap_or_default().to_owned())
        })
    }

    /// A person logs in by key.
    pub(super) fn show_login(&self, show: &mut Show) -> Result<()> {
        let command = "hostname; uname -sr; df -h / | tail -n 1";
        show.step("log in from the host", &self.ssh_line(command), || {
            let printed = cloud::wait_for(BOOT_LIMIT, || self.ssh(command))?;
            ensure!(printed.lines().next() == Some(NAME), "it calls itself otherwise: {printed}");
            Ok(printed)
        })
    }

    /// A file outlives a stop and a start.
    pub(super) fn show_disk_kept(&self, show: &mut Show) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let written = format!("kept-{now}");
        let command = format!("echo {written} >{FILE} && sync");
        show.step("write a file in it", &self.ssh_line(&command), || self.ssh(&command))?;
        show.run("stop it", &self.cloud, &["guest", "shutdown", NAME])?;
        self.state_is("stopped")?;
        show.run("start it", &self.cloud, &["guest", "start", NAME])?;
        self.state_is("running")?;
        let command = format!("cat {FILE}");
        show.step("the file is still on its disk", &self.ssh_line(&command), || {
            let printed = cloud::wait_for(BOOT_LIMIT, || self.ssh(&command))?;
            ensure!(printed.trim() == written, "the file holds {printed:?} instead of {written:?}");
            Ok(printed)
        })
    }

    fn state_is(&self, state: &str) -> Result<()> {
        let seen: Value = self.cloud.json(&["guest", "show", NAME])?;
        if seen["state"] != state {
            bail!("the guest is {} instead of {state}: {}", seen["state"], seen["reason"]);
        }
        Ok(())
    }

    fn ssh(&self, command: &str) -> Result<String> {
        let mut ssh = Command::new("ssh");
        ssh.args(self.ssh_words()).args([
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=10",
            "-o",
            "LogLevel=ERROR",
        ]);
        run::quietly(ssh.arg(format!("root@{}", self.address)).arg(command))
    }

    /// Host keys are new with every guest: what a former one at this address had proves nothing.
    fn ssh_words(&self) -> Vec<String> {
        let key = self.key.display().to_string();
        let options = ["IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"];
        let options = options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]);
        ["-F".to_owned(), "none".to_owned(), "-i".to_owned(), key].into_iter().chain(options).collect()
    }

    fn ssh_line(&self, command: &str) -> String {
        format!("ssh -i {} root@{} '{command}'", self.key.display(), self.address)
    }
}

/// All that the guest wrote to its console.
fn log(cloud: &Cloud) -> Result<String> {
    cloud.run(&["guest", "log", NAME, "--tail", WHOLE_LOG])
}

/// The demo's own key, made once.
fn key(cloud: &Cloud) -> Result<PathBuf> {
    let key = cloud.file("ssh-key");
    if !key.exists() {
        make_key(&key)?;
    }
    Ok(key)
}

fn make_key(key: &Path) -> Result<()> {
    let file = key.display().to_string();
    run::quiet("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "haar-demo", "-f", &file]).map(drop)
}

/// The end of a long text.
fn last(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
