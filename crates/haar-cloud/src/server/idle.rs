//! The countdown of a server that nobody uses.
//!
//! A task looks at the life when the time may be over; what it sees there is decided in the life alone. There
//! is at most one task for a server, and none while it is in use for long. A process knows only its own use of
//! a server, so the one that spawned it counts, or one that took it over. A server that should go and does
//! not is told so again, less and less often; it is on record all the while.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::sleep;

use super::Server;
use crate::life::Tick;

impl Server {
    /// From now on this process ends the server when it idles for as long as it may, and the countdown begins
    /// here if nothing is in use. For the process that spawned it this is so already; it is meant for one that
    /// goes on with the servers of a process that ended.
    pub fn take_over(&self) {
        self.cloud().kept().insert(self.name().to_owned());
        self.guarded().life.rest(self.cloud().now());
        self.watch_idle();
    }

    /// Sees to it that somebody looks when the idle time is over.
    pub(super) fn watch_idle(&self) {
        // Without a runtime the process ends, and a countdown with it.
        let Ok(runtime) = Handle::try_current() else { return };
        if !self.cloud().kept().contains(self.name()) {
            return;
        }
        let wait = {
            let now = self.cloud().now();
            let mut guarded = self.guarded();
            let Some(until) = guarded.life.idles_until().filter(|_| !guarded.watched) else { return };
            guarded.watched = true;
            until.saturating_sub(now)
        };
        let server = self.clone();
        runtime.spawn(async move { server.count_down(wait).await });
    }

    async fn count_down(&self, mut wait: Duration) {
        loop {
            sleep(wait).await;
            let now = self.cloud().now();
            let tick = {
                let mut guarded = self.guarded();
                let tick = guarded.life.tick(now);
                // Beneath the same lock: whoever begins to idle from now on starts a task of its own.
                guarded.watched = matches!(tick, Tick::LookAt(_));
                tick
            };
            match tick {
                Tick::LookAt(at) => wait = at.saturating_sub(now),
                Tick::Nothing => return,
                Tick::Destroy => {
                    if let Err(error) = self.destroy().await {
                        tracing::warn!(%error, server = self.name(), "an idle server could not be destroyed");
                    }
                    return;
                }
            }
        }
    }
}
