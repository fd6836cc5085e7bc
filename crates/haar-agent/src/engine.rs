//! The engine: one thread owns the node's brain and its ledger; everything that happens comes to it as an input.
//!
//! decide → commit → apply → act, one input after the other. Effects are handed to whoever acts; a lost one is
//! found again by the node's own timer. What others need to know of the node they read through [`Engine::read`]
//! or watch in [`View`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_core::fence::{Fence, MonoMs};
use haar_core::node::{Effect, Env, Input, LedgerChange, LedgerRecord, Node, Refused};
use haar_core::order::NetworkOrder;
use tokio::sync::{mpsc, oneshot, watch};

use crate::ledger::{self, Ledger};

/// Inputs that may wait; whoever gives more waits.
const QUEUE: usize = 1024;
/// The shortest pause between two ticks, so that an overdue timer cannot make the engine spin.
const LEAST_TICK: Duration = Duration::from_millis(20);

/// What others watch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Whether the feed may be asked, and since when.
    pub(crate) feed_since: Option<Fence>,
    /// The networks of all guests that have something here or shall have.
    pub(crate) networks: Arc<Vec<NetworkOrder>>,
    /// Whether the networks are all there are: a desired set was taken in this run.
    pub(crate) fed: bool,
}

/// A handle to the engine; the engine ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Engine {
    sender: mpsc::Sender<Message>,
    view: watch::Receiver<View>,
}

type Reading = Box<dyn FnOnce(&Node) + Send>;

enum Message {
    Input(Box<Input>, Option<oneshot::Sender<Result<(), Refused>>>),
    Read(Reading),
}

/// The engine has ended, because the agent stops or its ledger failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine has ended")]
pub(crate) struct Stopped;

impl Engine {
    /// Starts the engine's thread. It answers with its end: an error when the ledger failed for good.
    pub(crate) fn start(
        node: Node,
        ledger: Ledger,
        effects: mpsc::UnboundedSender<Effect>,
    ) -> (Engine, tokio::task::JoinHandle<Result<(), ledger::Error>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (view_sender, view) = watch::channel(View::default());
        let runtime = tokio::runtime::Handle::current();
        let owner = Owner { node, ledger, effects, view: view_sender, start: Instant::now() };
        let thread = tokio::task::spawn_blocking(move || runtime.block_on(owner.run(receiver)));
        (Engine { sender, view }, thread)
    }

    /// Gives an input without waiting for what becomes of it.
    pub(crate) async fn give(&self, input: Input) -> Result<(), Stopped> {
        self.sender.send(Message::Input(Box::new(input), None)).await.map_err(|_| Stopped)
    }

    /// Gives an input and waits until it is durable or refused.
    pub(crate) async fn submit(&self, input: Input) -> Result<Result<(), Refused>, Stopped> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Input(Box::new(input), Some(answer));
        self.sender.send(message).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Reads something off the node, as of all inputs given before.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Node) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let reading: Reading = Box::new(move |node| {
            // Whoever asked may have gone away.
            let _ = answer.send(read(node));
        });
        self.sender.send(Message::Read(reading)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// What others watch.
    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }
}

struct Owner {
    node: Node,
    ledger: Ledger,
    effects: mpsc::UnboundedSender<Effect>,
    view: watch::Sender<View>,
    start: Instant,
}

impl Owner {
    async fn run(mut self, mut messages: mpsc::Receiver<Message>) -> Result<(), ledger::Error> {
        self.publish(true);
        let mut least_wait = Duration::ZERO;
        loop {
            let wait = self.until_due().map(|wait| wait.max(least_wait));
            let message = match wait {
                Some(wait) => tokio::time::timeout(wait, messages.recv()).await,
                None => Ok(messages.recv().await),
            };
            match message {
                Err(_) => {
                    least_wait = LEAST_TICK;
                    // A tick is never refused.
                    let _ = self.turn(&Input::Tick)?;
                }
                Ok(Some(Message::Input(input, answer))) => {
                    least_wait = Duration::ZERO;
                    let turned = self.turn(&input)?;
                    if let Err(refused) = &turned {
                        tracing::warn!(%refused, "an input was refused");
                    }
                    if let Some(answer) = answer {
                        // Whoever asked may have gone away.
                        let _ = answer.send(turned);
                    }
                }
                Ok(Some(Message::Read(read))) => read(&self.node),
                Ok(None) => return Ok(()),
            }
        }
    }

    fn now(&self) -> MonoMs {
        MonoMs(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn until_due(&self) -> Option<Duration> {
        let due = self.node.next_due()?;
        Some(Duration::from_millis(due.0.saturating_sub(self.now().0)))
    }

    /// decide → commit → apply → act.
    fn turn(&mut self, input: &Input) -> Result<Result<(), Refused>, ledger::Error> {
        let decision = match self.node.decide(input, &Env { now: self.now() }) {
            Ok(decision) => decision,
            Err(refused) => return Ok(Err(refused)),
        };
        self.ledger.commit(&decision.changes)?;
        self.node.apply(&decision);
        let guests_changed = decision.changes.iter().any(is_about_a_guest);
        self.publish(guests_changed);
        for effect in decision.effects {
            // Nobody acts any more when the agent stops.
            let _ = self.effects.send(effect);
        }
        Ok(Ok(()))
    }

    fn publish(&self, guests_changed: bool) {
        let feed_since = self.node.feed_since();
        let fed = feed_since.is_some_and(|since| since != Fence::default());
        let networks = guests_changed.then(|| networks(&self.node));
        self.view.send_if_modified(|view| {
            let networks = match networks {
                Some(networks) if networks != *view.networks => Arc::new(networks),
                _ => Arc::clone(&view.networks),
            };
            let new = View { feed_since, networks, fed };
            let changed = new != *view;
            *view = new;
            changed
        });
    }
}

fn is_about_a_guest(change: &LedgerChange) -> bool {
    !matches!(change, LedgerChange::Put(LedgerRecord::Node(_)))
}

/// The networks of all guests that have something on this host or shall have, in id order.
fn networks(node: &Node) -> Vec<NetworkOrder> {
    let mut networks: Vec<NetworkOrder> =
        node.guests().filter(|record| !record.ended()).filter_map(|record| record.network.clone()).collect();
    networks.sort_by_key(|network| network.id);
    networks.dedup_by_key(|network| network.id);
    networks
}
