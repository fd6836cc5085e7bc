//! The end of a server.
//!
//! What runs on it is ended, its destroy script and a sync get their time, each with a limit, and then the
//! cloud deletes it. A server that does not answer is deleted all the same. Only what the cloud does not know
//! any more counts as gone.

use std::time::Duration;

use haar_ssh::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Server;
use super::means::Means;
use crate::Result;
use crate::life::Destruction;

/// How long a server may take to write its disks out.
const SYNC_LIMIT: Duration = Duration::from_secs(15);
/// How much longer than its own limit the whole of a destroy script may take, with its way there.
const WAY_THERE: Duration = Duration::from_secs(60);
/// Writes out what is on its way to disks, those of others in the network included. No more than that: a
/// server may turn out to be a machine that stays.
const SYNC: &str = "sync";

impl Server {
    /// Destroys it: ends what runs on it, runs the destroy script, writes its disks out, and waits until the
    /// cloud has it no more. One that is gone already is no fault, and several at once wait for one end. Dropped,
    /// it goes on; see [`Cloud::settled`](crate::Cloud::settled).
    ///
    /// # Errors
    /// What the cloud says; the server stays unusable and on record then, and can be destroyed again.
    pub async fn destroy(&self) -> Result<()> {
        self.leave();
        let server = self.clone();
        self.cloud().to_the_end(async move { server.end(true).await }).await
    }

    /// As [`Self::destroy`], without a last word to the server itself.
    ///
    /// # Errors
    /// As [`Self::destroy`].
    pub async fn destroy_at_once(&self) -> Result<()> {
        self.leave();
        let server = self.clone();
        self.cloud().to_the_end(async move { server.end(false).await }).await
    }

    /// Takes note that somebody else has destroyed it.
    pub(crate) fn is_gone_now(&self) {
        self.leave();
        self.inner.end.cancel();
        self.guarded().life.destroyed();
        self.cloud().kept().remove(self.name());
        self.close_ssh();
    }

    fn leave(&self) {
        let destruction = self.guarded().life.destroy(self.cloud().now());
        if let Destruction::Begin { commands } = destruction
            && commands > 0
        {
            tracing::info!(
                server = self.name(),
                commands,
                "commands are cut off, as their server is destroyed"
            );
        }
    }

    /// Deletes a server whose life is leaving.
    async fn end(&self, gracefully: bool) -> Result<()> {
        let _one_at_a_time = self.inner.ending.lock().await;
        if self.guarded().life.is_gone() {
            return Ok(());
        }
        self.inner.end.cancel();
        if gracefully {
            self.last_words().await;
        }
        let answer = self.cloud().remove(self.id()).await;
        let mut guarded = self.guarded();
        match answer {
            Ok(()) => guarded.life.destroyed(),
            Err(_) => guarded.life.destroy_failed(),
        }
        answer
    }

    /// What the server is told before it goes, if ssh to it ever worked or a script is to run.
    async fn last_words(&self) {
        let script = self.guarded().destroy_script.clone();
        let means = match script {
            Some(_) => timeout(WAY_THERE, self.means()).await.ok().and_then(Result::ok),
            None => self.open_ssh().map(Means::Ssh),
        };
        let Some(means) = means else { return };
        if let Some(script) = script {
            self.run_destroy_script(&means, &script).await;
        }
        let sync = Command::new(SYNC).limit(SYNC_LIMIT);
        let never = CancellationToken::new();
        if timeout(SYNC_LIMIT * 2, means.run(&sync, &never)).await.is_err() {
            tracing::warn!(server = self.name(), "a server that goes did not write its disks out in time");
        }
        self.close_ssh();
    }

    async fn run_destroy_script(&self, means: &Means, script: &[u8]) {
        self.cloud().tell(format_args!("server {}", self.name()), "running its destroy script");
        let never = CancellationToken::new();
        let limit = self.cloud().access().script_limit + WAY_THERE;
        let run = self.run_script(means, "the destroy script", script, &never);
        match timeout(limit, run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, server = self.name(), "its destroy script failed"),
            Err(_) => tracing::warn!(server = self.name(), "its destroy script did not end"),
        }
    }
}
