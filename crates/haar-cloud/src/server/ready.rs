//! Waiting until a server can be worked with.
//!
//! ```text
//!   ssh answers, with a key we expect ─▶ first boot done ─▶ files copied ─▶ script run ─▶ ssh anew
//! ```
//!
//! A server that shows another key than the one it was given is asked for its keys through its console: some
//! images make their own. The script runs once for each server and content, from whatever process; asking
//! again costs a look. Afterwards connections are made anew, since the script may have changed what a login
//! sets; what began before goes on over its own. The server is never destroyed here.

use std::time::Duration;

use haar_ssh::{Command, quote};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::Server;
use crate::copy_list::CopyList;
use crate::state::PreparedServer;
use crate::{Error, Result};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

impl Server {
    /// Waits until the first boot is done, copies the files, and runs the script (with its `#!` line; empty
    /// for none). Called again with the same, it returns at once. May be dropped at any await.
    ///
    /// # Errors
    /// [`Error::Ssh`] when it cannot be reached or shows a key that nobody vouches for, [`Error::Timeout`],
    /// [`Error::RemoteExit`] with what the script complained of, [`Error::Cancelled`] when the server is
    /// destroyed meanwhile.
    pub async fn wait_until_ready(&self, files: &CopyList, script: &[u8]) -> Result<()> {
        let wanted = PreparedServer::new(script, files);
        if self.guarded().ready.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let _in_use = self.in_use()?;
        let what = format!("server {}", self.name());
        if self.cloud().provider().is_this_machine() {
            // It runs already, and no mark is left on it: what is on record is what was done.
            if self.guarded().prepared.as_ref() == Some(&wanted) {
                return Ok(());
            }
        } else {
            self.cloud().tell(&what, "waiting for ssh");
            self.until_ssh_answers().await?;
            self.cloud().tell(&what, "waiting for its first boot to end");
            self.until_booted().await?;
        }
        self.cloud().tell(&what, "copying files");
        self.copy_over(files).await?;
        if !script.is_empty() {
            self.cloud().tell(&what, "running the start-up script");
            self.run_once(script).await?;
            self.renew_ssh();
        }
        let noted = wanted.clone();
        self.note(|details| details.prepared = Some(noted)).await?;
        let mut guarded = self.guarded();
        guarded.prepared = Some(wanted.clone());
        guarded.ready = Some(wanted);
        Ok(())
    }

    async fn until_ssh_answers(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let pool = match self.ssh().await {
                Ok(pool) => Some(pool),
                // No key to expect yet: the console has not told any.
                Err(Error::Ssh { .. }) if began.elapsed() < self.cloud().access().limits.patience => None,
                Err(error) => return Err(error),
            };
            if let Some(pool) = pool {
                match pool.wait_until_ready(&self.until_destroyed()).await {
                    Ok(()) => return Ok(()),
                    Err(error @ haar_ssh::Error::HostKey { .. }) => {
                        // It may be about to exchange its keys for ours, or tell its own.
                        if began.elapsed() >= self.cloud().access().limits.patience {
                            return Err(self.ssh_error(&error));
                        }
                        match self.learn_keys().await {
                            Err(error) if !error.is_transient() => return Err(error),
                            Ok(_) | Err(_) => {}
                        }
                    }
                    Err(error) => return Err(self.ssh_error(&error)),
                }
            }
            self.pause().await?;
        }
    }

    async fn until_booted(&self) -> Result<()> {
        let (began, limit) = (Instant::now(), self.cloud().access().boot_limit);
        let look = Command::new(format!("test -e {}", quote(&self.cloud().access().sentinel)))
            .limit(Duration::from_secs(60));
        loop {
            // A first boot may well restart sshd: a connection that breaks is no reason to give up.
            let last = match self.run(&look).await {
                Ok(output) if output.is_success() => return Ok(()),
                Ok(_) => "booting: cloud-init has not ended".to_owned(),
                Err(error @ (Error::Ssh { .. } | Error::Timeout { .. })) => error.to_string(),
                Err(error) => return Err(error),
            };
            if began.elapsed() >= limit {
                let what = format!("the first boot of {}", self.name());
                return Err(Error::Timeout { what, after: began.elapsed(), last, typical: None });
            }
            self.pause().await?;
        }
    }

    /// Runs a script unless it ran on this server before.
    async fn run_once(&self, script: &[u8]) -> Result<()> {
        if self.cloud().provider().is_this_machine() {
            return self.run_start_up(script).await;
        }
        let mark = format!("{}/done-{}", self.cloud().access().folder, hex::encode(Sha256::digest(script)));
        let files = self.files().await?;
        if self.unless_destroyed(files.exists(&mark)).await? {
            return Ok(());
        }
        self.run_start_up(script).await?;
        self.unless_destroyed(files.write(&mark, b"", 0o600)).await
    }

    async fn run_start_up(&self, script: &[u8]) -> Result<()> {
        let means = self.means().await?;
        self.run_script(&means, "the start-up script", script, &self.until_destroyed()).await
    }

    async fn pause(&self) -> Result<()> {
        let cancelled = || Error::Cancelled { what: format!("{}, which is destroyed", self.name()) };
        self.inner.end.run_until_cancelled(sleep(PAUSE)).await.ok_or_else(cancelled)
    }
}
