//! Pulling the desired set: one poll is always open, and is the heartbeat.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use haar_core::fence::Fence;
use haar_core::id::ImageId;
use haar_core::node::{Input, Refused};
use tokio::sync::{mpsc, watch};

use super::{Fed, Link, LinkError, Pause, Ticket, Unsupported};
use crate::engine::{Engine, Stopped};

/// How long one poll is left open: well below the time after which silence counts.
const WAIT: Duration = Duration::from_secs(10);
/// Tickets remembered, so that one told twice is dialled once.
const TICKETS: usize = 256;

/// What the pull needs to know.
pub(crate) struct Pull<L> {
    pub(crate) link: Arc<L>,
    pub(crate) engine: Engine,
    pub(crate) tickets: mpsc::Sender<Ticket>,
    pub(crate) unsupported: watch::Sender<Vec<Unsupported>>,
    /// The images there are, as of the last set that was taken.
    pub(crate) catalogue: watch::Sender<Option<Arc<BTreeSet<ImageId>>>>,
}

impl<L: Link> Pull<L> {
    /// Pulls until the engine ends.
    pub(crate) async fn run(self) -> Result<(), Stopped> {
        let mut view = self.engine.view();
        let mut pause = Pause::new();
        let mut dialled = VecDeque::new();
        let mut reachable = true;
        loop {
            let ready = view.wait_for(|view| view.feed_since.is_some()).await.map_err(|_| Stopped)?.clone();
            let since = ready.feed_since.filter(|since| *since != Fence::default());
            match self.link.feed(since, WAIT).await {
                Ok(fed) => {
                    if !reachable {
                        tracing::info!("the controller answers again");
                    }
                    reachable = true;
                    let taken = match fed {
                        Some(fed) => self.take(fed, &mut dialled).await?,
                        None => Ok(()),
                    };
                    if taken.is_ok() {
                        pause.reset();
                        continue;
                    }
                }
                Err(LinkError::StaleIncarnation(_)) => self.not_welcome().await?,
                Err(error) if reachable => {
                    reachable = false;
                    tracing::warn!(%error, "the controller gives no desired set; guests run on, asked again");
                }
                Err(_) => {}
            }
            pause.wait().await;
        }
    }

    async fn take(&self, fed: Fed, dialled: &mut VecDeque<String>) -> Result<Result<(), Refused>, Stopped> {
        let taken = self.engine.submit(Input::Desired(fed.set)).await?;
        self.unsupported.send_if_modified(|known| {
            let changed = *known != fed.unsupported;
            *known = fed.unsupported;
            changed
        });
        if taken.is_ok() {
            self.catalogue.send_replace(fed.catalogue.map(Arc::new));
        }
        for ticket in fed.streams {
            if dialled.contains(&ticket.ticket) {
                continue;
            }
            dialled.push_back(ticket.ticket.clone());
            if dialled.len() > TICKETS {
                dialled.pop_front();
            }
            // Streams that nobody takes are given up: whoever waits for one is told so by the controller.
            let _ = self.tickets.try_send(ticket);
        }
        Ok(taken)
    }

    async fn not_welcome(&self) -> Result<(), Stopped> {
        let incarnation = self.engine.read(|node| node.record().incarnation).await?;
        match incarnation {
            Some(incarnation) => self.engine.give(Input::NotWelcome { incarnation }).await,
            None => Ok(()),
        }
    }
}
