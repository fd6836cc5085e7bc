//! The books on a disk: loading them, and committing decisions with the events they make.
//!
//! One commit holds the records, the address cursors, the blobs, the events and how far their ring is.
//! Deliberately absent: deciding, and what is done when a commit fails.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_core::batch::{Commit, Cost};
use haar_core::fence::{Fence, MonoMs};
use haar_core::fleet::Fleet;
use haar_core::fleet::change::Decision;
use haar_store::{Disk, Op};

use crate::events::{Event, EventId, Ring};
use crate::liveness::Clock;
use crate::records::{self, BadRecord, Loaded};
use crate::wire::event::Scribe;

use super::Shared;

/// Operations of a commit that belong to no decision: how far the ring of events is.
const OVERHEAD: Cost = Cost { ops: 1, bytes: 128 };

/// Books read from a disk.
pub(crate) struct Books {
    /// The fleet.
    pub(crate) fleet: Fleet,
    /// How far the ring of events is.
    pub(crate) ring: Ring,
}

/// Why books cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store fails.
    #[error("the store cannot be read")]
    Store(#[from] haar_store::Error),
    /// A record does not parse.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// The store has records, but not the one of the cluster.
    #[error(
        "the store holds records but no cluster settings; it is not a controller's, or was cut short: restore a backup"
    )]
    NoConfig,
}

/// Reads everything; `None` when the disk is empty.
///
/// # Errors
/// [`LoadError`]; then nothing may be served.
pub(crate) fn load(disk: &mut dyn Disk, now: MonoMs) -> Result<Option<Books>, LoadError> {
    let mut fleet = Fleet::empty();
    let mut ring = None;
    let mut problem = None;
    let mut count = 0_u64;
    let mut has_config = false;
    let fence = disk.load(&[records::EVENTS, records::BLOBS], &mut |table, key, value| {
        count += 1;
        match records::decode(table, key, value) {
            Ok(Loaded::Record(record)) => {
                has_config |= record.kind() == haar_core::id::Kind::Config;
                fleet.restore(record);
            }
            Ok(Loaded::Cursor(subnet, address)) => fleet.restore_cursor(subnet, address),
            Ok(Loaded::Ring(found)) => ring = Some(found),
            Err(bad) => problem = problem.take().or(Some(bad)),
        }
    })?;
    if let Some(bad) = problem {
        return Err(bad.into());
    }
    if count == 0 && fence == haar_store::Fence::default() {
        return Ok(None);
    }
    let (true, Some(ring)) = (has_config, ring) else { return Err(LoadError::NoConfig) };
    fleet.restored(Fence::new(fence.epoch, fence.revision), now);
    Ok(Some(Books { fleet, ring }))
}

/// What one decision puts on the disk.
struct Encoded {
    fence: Fence,
    ops: Vec<Op>,
    events: Vec<Event>,
}

impl Encoded {
    fn cost(&self) -> Cost {
        let ops: usize = self.ops.iter().map(Op::size).sum();
        let events: usize = self.events.iter().map(Event::most_stored).sum();
        Cost { ops: self.ops.len() + self.events.len(), bytes: ops + events }
    }
}

/// The one writer.
pub(crate) struct DiskCommit {
    disk: Box<dyn Disk>,
    shared: Arc<Shared>,
    ring: Ring,
    /// Decisions of the turn under way, encoded when their cost was asked.
    encoded: RefCell<VecDeque<Encoded>>,
    scribe: RefCell<Scribe>,
    fresh_events: Vec<Event>,
    /// When the last commit began and how long it took.
    pub(crate) last: Option<(Instant, Duration)>,
}

impl DiskCommit {
    /// Writes on `disk`, whose ring stands at `ring`.
    pub(crate) fn new(disk: Box<dyn Disk>, shared: Arc<Shared>, ring: Ring) -> DiskCommit {
        let (encoded, scribe) = (RefCell::default(), RefCell::default());
        DiskCommit { disk, shared, ring, encoded, scribe, fresh_events: Vec::new(), last: None }
    }

    /// A turn begins: nothing is encoded yet.
    pub(crate) fn begin(&mut self) {
        self.encoded.get_mut().clear();
        self.scribe.get_mut().clear();
        self.fresh_events.clear();
        self.last = None;
    }

    /// The events of the last commit, once.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.fresh_events)
    }

    /// Opens the disk again and reads the books.
    ///
    /// # Errors
    /// [`LoadError`]; may be tried again.
    pub(crate) fn reload(&mut self, now: MonoMs) -> Result<Books, LoadError> {
        self.begin();
        self.disk.reopen()?;
        let books = load(&mut *self.disk, now)?.ok_or(LoadError::NoConfig)?;
        self.ring = books.ring;
        Ok(books)
    }

    fn encode(&self, decision: &Decision) -> Encoded {
        let fence = decision.fence;
        let ops = decision.changes.iter().flat_map(records::operations).collect();
        let mut scribe = self.scribe.borrow_mut();
        scribe.note(&decision.changes);
        let made = (fence, Clock::wall());
        let events = self.shared.read(|fleet| {
            let told = decision.changes.iter();
            let told = told.filter_map(|change| scribe.event(change, made, fleet, &self.shared.liveness));
            (0..)
                .zip(told)
                .map(|(n, data)| Event {
                    id: EventId { epoch: fence.epoch, revision: fence.revision, n },
                    data,
                })
                .collect()
        });
        Encoded { fence, ops, events }
    }
}

impl Commit for DiskCommit {
    type Error = haar_store::Error;

    fn cost(&self, decision: &Decision) -> Cost {
        let encoded = self.encode(decision);
        let cost = encoded.cost();
        self.encoded.borrow_mut().push_back(encoded);
        cost
    }

    fn limits(&self) -> Cost {
        let limits = self.disk.limits();
        Cost {
            ops: limits.ops.saturating_sub(OVERHEAD.ops),
            bytes: limits.bytes.saturating_sub(OVERHEAD.bytes),
        }
    }

    fn commit(&mut self, decisions: &[Decision], expected: Fence, new: Fence) -> Result<(), Self::Error> {
        let began = Instant::now();
        let mut known = std::mem::take(self.encoded.get_mut());
        let (mut ops, mut ring, mut events) = (Vec::new(), self.ring, Vec::new());
        for decision in decisions {
            // In the order of the decisions; one whose cost was never asked is encoded now.
            let encoded = match known.pop_front_if(|encoded| encoded.fence == decision.fence) {
                Some(encoded) => encoded,
                None => self.encode(decision),
            };
            ops.extend(encoded.ops);
            for event in encoded.events {
                ops.push(ring.put(ring.end, &event));
                ring.end += 1;
                events.push(event);
            }
        }
        if ring != self.ring {
            ops.push(ring.operation());
        }
        let result = self.disk.commit(&ops, store_fence(expected), store_fence(new));
        self.last = Some((began, began.elapsed()));
        result?;
        self.ring = ring;
        self.fresh_events = events;
        Ok(())
    }
}

/// The same fence in the store's words.
pub(crate) fn store_fence(fence: Fence) -> haar_store::Fence {
    haar_store::Fence { epoch: fence.epoch, revision: fence.revision }
}
