//! Streams between a client and an agent that can only dial: tickets, each used once.
//!
//! ```text
//!  client ─▶ open ─▶ ticket in the agent's feed ─▶ agent dials with it ─▶ take ─▶ both ends spliced
//!                └───── 15 s without it: the client is told so ─────┘
//! ```
//!
//! A ticket is shown again in the feed after a while if nobody has dialled it, for a feed may be lost.
//! Deliberately absent: what flows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use haar_api::feed::{FeedStream, StreamKind};
use haar_core::id::{GuestId, HypervisorId, TokenId};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

/// How long a client waits for the agent.
pub(crate) const DIAL_TIME: Duration = Duration::from_secs(15);
/// After so long without a dial the ticket is shown again.
const SHOWN_AGAIN: Duration = Duration::from_secs(3);
/// Streams that may wait for their agents at once.
const MOST_WAITING: usize = 256;

/// An agent's end of a stream.
pub(crate) type AgentEnd = TokioIo<Upgraded>;

/// An agent that has dialled.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// Its end.
    pub(crate) end: AgentEnd,
    /// The token it dialled with; the stream ends with it.
    pub(crate) token: TokenId,
}

/// The streams that wait for their agents.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    waiting: Mutex<HashMap<String, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    hypervisor: HypervisorId,
    order: FeedStream,
    shown: Option<Instant>,
    deliver: oneshot::Sender<Dialled>,
}

/// What is wanted of a guest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Whose.
    pub(crate) guest: GuestId,
    /// What of it.
    pub(crate) kind: StreamKind,
    /// For a log: bytes of its end to begin with.
    pub(crate) tail: Option<u64>,
    /// For a log: whether it goes on.
    pub(crate) follow: bool,
}

/// A client's place; dropped, its ticket is void.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    streams: &'a Streams,
    ticket: String,
    /// Where the agent's end arrives.
    pub(crate) arrives: oneshot::Receiver<Dialled>,
}

impl Streams {
    /// Makes a ticket; `None` when too many wait.
    pub(crate) fn open(&self, hypervisor: HypervisorId, wanted: Wanted) -> Option<Opened<'_>> {
        let ticket = hex::encode(crate::auth::random::<32>());
        let (deliver, arrives) = oneshot::channel();
        let order = FeedStream {
            ticket: ticket.clone(),
            guest: wanted.guest,
            kind: wanted.kind,
            tail: wanted.tail,
            follow: wanted.follow,
        };
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_WAITING {
            return None;
        }
        waiting.insert(ticket.clone(), Waiting { hypervisor, order, shown: None, deliver });
        drop(waiting);
        Some(Opened { streams: self, ticket, arrives })
    }

    /// Whether the feed of this hypervisor has something to show.
    pub(crate) fn are_due(&self, hypervisor: HypervisorId) -> bool {
        self.waiting().values().any(|waiting| waiting.is_due(hypervisor))
    }

    /// What the feed of this hypervisor shows now.
    pub(crate) fn show(&self, hypervisor: HypervisorId) -> Vec<FeedStream> {
        let now = Instant::now();
        let mut waiting = self.waiting();
        let due = waiting.values_mut().filter(|waiting| waiting.is_due(hypervisor));
        due.map(|waiting| {
            waiting.shown = Some(now);
            waiting.order.clone()
        })
        .collect()
    }

    /// The place behind a ticket, once, for the agent it was made for.
    pub(crate) fn take(&self, ticket: &str, hypervisor: HypervisorId) -> Option<oneshot::Sender<Dialled>> {
        let mut waiting = self.waiting();
        if waiting.get(ticket)?.hypervisor != hypervisor {
            return None;
        }
        waiting.remove(ticket).map(|waiting| waiting.deliver)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        // A map is whole whatever panicked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_due(&self, hypervisor: HypervisorId) -> bool {
        self.hypervisor == hypervisor && self.shown.is_none_or(|shown| shown.elapsed() > SHOWN_AGAIN)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.streams.waiting().remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ONE: HypervisorId = HypervisorId(Uuid::from_u128(1));
    const OTHER: HypervisorId = HypervisorId(Uuid::from_u128(2));

    fn wanted() -> Wanted {
        let guest = GuestId(Uuid::from_u128(7));
        Wanted { guest, kind: StreamKind::Console, tail: None, follow: false }
    }

    #[test]
    fn a_ticket_is_for_one_agent_and_one_use() {
        let streams = Streams::default();
        let _opened = streams.open(ONE, wanted()).unwrap();
        assert!(streams.show(OTHER).is_empty());
        let ticket = streams.show(ONE).remove(0).ticket;
        assert!(streams.show(ONE).is_empty(), "shown once for a while");
        assert!(streams.take(&ticket, OTHER).is_none());
        assert!(streams.take(&ticket, ONE).is_some());
        assert!(streams.take(&ticket, ONE).is_none());
    }

    #[test]
    fn a_client_that_left_leaves_no_ticket() {
        let streams = Streams::default();
        drop(streams.open(ONE, wanted()).unwrap());
        assert!(!streams.are_due(ONE));
    }

    #[test]
    fn waiting_streams_have_a_limit() {
        let streams = Streams::default();
        let held: Vec<_> = (0..MOST_WAITING).map(|_| streams.open(ONE, wanted()).unwrap()).collect();
        assert!(streams.open(ONE, wanted()).is_none());
        drop(held);
        assert!(streams.open(ONE, wanted()).is_some());
    }
}
