//! The newest events: a ring in the store, written in the commit that made them.
//!
//! An event's id is `epoch.revision.n`: the decision that made it, and its place among that decision's
//! events. Sequence numbers count events without gaps and never leave this file and the engine; an event
//! lies in the slot `sequence mod capacity`, so that old ones are overwritten and nothing is ever
//! deleted. Whoever follows reads from its own place: first the tail in memory, else the store; a
//! follower slower than the ring is told to start again. A slot tells whose it is, for the next commit may
//! have it before the ring says so. An event of a large object leaves the object out, which bounds the
//! ring, the tail and what a follower is sent in bytes. Deliberately absent: one queue per follower.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use haar_core::fence::Fence;
use haar_store::{Op, Reader};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::records;

/// Events kept in memory too, for those who follow closely.
const TAIL: usize = 2_048;

/// Bytes of an event's data, beyond which its object is left out.
pub(crate) const MOST_DATA: usize = 16 << 10;

/// Which event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventId {
    /// The epoch of its decision.
    pub epoch: u64,
    /// The revision of its decision.
    pub revision: u64,
    /// Its place among that decision's events, from 0.
    pub n: u32,
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.revision, self.n)
    }
}

/// A text that is no [`EventId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no place in the events; give an event's id (`epoch.revision.n`) or a list's revision (`epoch.revision`)"
)]
pub struct BadEventId(String);

impl std::str::FromStr for EventId {
    type Err = BadEventId;
    /// Without `n` it means the last event of that revision: what a list shows is known.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadEventId(text.chars().take(80).collect());
        let mut parts = text.split('.');
        let mut number = || parts.next().map(|part| part.parse::<u64>().map_err(|_| bad()));
        let epoch = number().ok_or_else(bad)??;
        let revision = number().ok_or_else(bad)??;
        let n = match number() {
            None => u32::MAX,
            Some(n) => u32::try_from(n?).map_err(|_| bad())?,
        };
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(EventId { epoch, revision, n })
    }
}

/// One event, ready to be sent.
#[derive(Debug, Clone)]
pub struct Event {
    /// Which.
    pub id: EventId,
    /// The event as `/v1` sends it, JSON.
    pub data: Box<RawValue>,
}

impl Event {
    /// Bytes that it takes in the store, at most.
    pub fn most_stored(&self) -> usize {
        // Names, numbers and envelope around the data, and the key of its slot.
        self.data.get().len() + 192
    }
}

/// An event in its slot.
#[derive(Serialize, Deserialize)]
struct Stored<D> {
    /// Whose the slot is; earlier releases did not say.
    #[serde(default)]
    sequence: Option<u64>,
    id: EventId,
    data: D,
}

/// How far the ring is; stored in every commit that has events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// The sequence number of the next event.
    pub end: u64,
    /// Slots; fixed when the store is made.
    pub capacity: u64,
}

impl Ring {
    /// A ring without events.
    pub fn empty(capacity: u64) -> Ring {
        Ring { end: 0, capacity: capacity.max(1) }
    }

    /// The sequence number of the oldest event kept.
    pub fn oldest(self) -> u64 {
        self.end.saturating_sub(self.capacity)
    }

    /// The operation that stores how far the ring is.
    pub fn operation(self) -> Op {
        Op::Put { kind: records::META, key: records::RING.to_vec(), value: records::write(&self) }
    }

    /// The operation that stores an event under a sequence number.
    pub fn put(self, sequence: u64, event: &Event) -> Op {
        let stored = Stored { sequence: Some(sequence), id: event.id, data: &event.data };
        Op::Put { kind: records::EVENTS, key: self.slot(sequence), value: records::write(&stored) }
    }

    fn slot(self, sequence: u64) -> Vec<u8> {
        (sequence % self.capacity).to_be_bytes().to_vec()
    }
}

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Events in between are no longer kept, or these books never had that event.
    #[error(
        "the events after that place are no longer kept; list what you follow again, then follow from the list's revision"
    )]
    Resync,
    /// The store does not answer.
    #[error("the stored events cannot be read now; ask again")]
    Store(#[from] haar_store::Error),
    /// A stored event does not parse.
    #[error("a stored event cannot be read; {0}")]
    Bad(String),
}

/// The published events.
pub struct EventLog {
    reader: Box<dyn Reader>,
    tail: RwLock<VecDeque<(u64, Arc<Event>)>>,
    ring: watch::Sender<Ring>,
}

impl std::fmt::Debug for EventLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventLog").field("ring", &*self.ring.borrow()).finish_non_exhaustive()
    }
}

impl EventLog {
    /// What the store holds.
    pub fn new(reader: Box<dyn Reader>, ring: Ring) -> EventLog {
        EventLog { reader, tail: RwLock::default(), ring: watch::Sender::new(ring) }
    }

    /// Tells when the ring grows.
    pub fn watch(&self) -> watch::Receiver<Ring> {
        self.ring.subscribe()
    }

    /// How far the ring is.
    pub fn ring(&self) -> Ring {
        *self.ring.borrow()
    }

    /// These events are durable now; the ring has grown by them.
    pub fn publish(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let ring = self.ring();
        let mut end = ring.end;
        let mut tail = self.tail.write().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            tail.push_back((end, Arc::new(event)));
            end += 1;
        }
        while tail.len() > TAIL {
            tail.pop_front();
        }
        drop(tail);
        self.ring.send_replace(Ring { end, ..ring });
    }

    /// The store was read again: the ring is as it says.
    pub fn reload(&self, ring: Ring) {
        self.tail.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.ring.send_replace(ring);
    }

    /// The sequence number of the first event after `since`, in books that stand at `fence`. Blocks.
    ///
    /// # Errors
    /// [`Error::Resync`] when events between are gone, or `since` is of an epoch that has ended or a
    /// revision not reached.
    pub fn after(&self, since: EventId, fence: Fence) -> Result<u64, Error> {
        let ring = self.ring();
        if since.epoch != fence.epoch || since.revision > fence.revision {
            return Err(Error::Resync);
        }
        let (mut low, mut high) = (ring.oldest(), ring.end);
        if low > 0 && self.one(low)?.id > since {
            return Err(Error::Resync);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if self.one(middle)?.id > since { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }

    /// At most `limit` events from `sequence` on, each with its number. Blocks.
    ///
    /// # Errors
    /// [`Error::Resync`] when that one is no longer kept.
    pub fn read(&self, sequence: u64, limit: usize) -> Result<Vec<(u64, Arc<Event>)>, Error> {
        let ring = self.ring();
        if sequence < ring.oldest() {
            return Err(Error::Resync);
        }
        if sequence >= ring.end {
            return Ok(Vec::new());
        }
        if let Some(events) = self.in_tail(sequence, limit) {
            return Ok(events);
        }
        let to_wrap = ring.capacity - sequence % ring.capacity;
        let count = (ring.end - sequence).min(to_wrap).min(limit as u64);
        let stored = self.reader.scan(records::EVENTS, &ring.slot(sequence), count as usize)?;
        let mut events = Vec::with_capacity(stored.len());
        for (number, (_, value)) in (sequence..).zip(stored) {
            let Stored::<Box<RawValue>> { sequence, id, data } = records::read(&value).map_err(Error::Bad)?;
            if sequence.is_some_and(|sequence| sequence != number) {
                return Err(Error::Resync);
            }
            events.push((number, Arc::new(Event { id, data })));
        }
        // What does not say whose it is may have been overwritten meanwhile.
        if sequence < self.ring().oldest() { Err(Error::Resync) } else { Ok(events) }
    }

    fn one(&self, sequence: u64) -> Result<Arc<Event>, Error> {
        let found = self.read(sequence, 1)?.pop();
        found.map(|(_, event)| event).ok_or_else(|| Error::Bad(format!("event {sequence} is missing")))
    }

    fn in_tail(&self, sequence: u64, limit: usize) -> Option<Vec<(u64, Arc<Event>)>> {
        let tail = self.tail.read().unwrap_or_else(PoisonError::into_inner);
        let first = tail.front()?.0;
        let skip = usize::try_from(sequence.checked_sub(first)?).ok()?;
        Some(tail.iter().skip(skip).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use haar_store::{Disk, MemoryDisk};

    use super::*;

    fn event(revision: u64) -> Event {
        let data = RawValue::from_string(format!("{{\"revision\":\"1.{revision}\"}}")).unwrap();
        Event { id: EventId { epoch: 1, revision, n: 0 }, data }
    }

    /// A log of `capacity` slots that has seen `count` events of revisions 1, 2, 3, …
    fn log(capacity: u64, count: u64, published: Publish) -> EventLog {
        let mut disk = MemoryDisk::new();
        let mut ring = Ring::empty(capacity);
        for revision in 1..=count {
            let op = ring.put(ring.end, &event(revision));
            let expected = haar_store::Fence { epoch: 1, revision: revision - 1 };
            let expected = if revision == 1 { haar_store::Fence::default() } else { expected };
            disk.commit(&[op], expected, haar_store::Fence { epoch: 1, revision }).unwrap();
            ring.end += 1;
        }
        match published {
            Publish::Stored => EventLog::new(disk.reader(), ring),
            Publish::Live => {
                let log = EventLog::new(disk.reader(), Ring::empty(capacity));
                log.publish((1..=count).map(event).collect());
                log
            }
        }
    }

    #[derive(Clone, Copy)]
    enum Publish {
        Stored,
        Live,
    }

    fn revisions_after(log: &EventLog, since: &str, fence: Fence) -> Result<Vec<u64>, Error> {
        let mut next = log.after(since.parse().unwrap(), fence)?;
        let mut seen = Vec::new();
        loop {
            let events = log.read(next, 3)?;
            let Some((last, _)) = events.last() else { return Ok(seen) };
            next = last + 1;
            seen.extend(events.iter().map(|(_, event)| event.id.revision));
        }
    }

    #[test]
    fn following_resumes_after_the_event_named_in_memory_and_from_the_store() {
        for published in [Publish::Stored, Publish::Live] {
            let log = log(10, 14, published);
            let fence = Fence::new(1, 14);
            assert_eq!(revisions_after(&log, "1.11.0", fence).unwrap(), [12, 13, 14]);
            assert_eq!(revisions_after(&log, "1.11", fence).unwrap(), [12, 13, 14]);
            assert_eq!(revisions_after(&log, "1.14.0", fence).unwrap(), [0_u64; 0]);
            assert_eq!(revisions_after(&log, "1.5.0", fence).unwrap().len(), 9);
        }
    }

    #[test]
    fn what_is_no_longer_kept_or_never_was_asks_for_a_resync() {
        let log = log(10, 14, Publish::Stored);
        let fence = Fence::new(1, 14);
        for since in ["1.4.0", "0.14.0", "2.1.0", "1.15.0"] {
            let answer = revisions_after(&log, since, fence);
            assert!(matches!(answer, Err(Error::Resync)), "{since}: {answer:?}");
        }
        // A follower that is slower than the ring.
        assert!(matches!(log.read(3, 1), Err(Error::Resync)));
        assert_eq!(log.read(4, 1).unwrap()[0].1.id.revision, 5);
    }

    #[test]
    fn a_slot_that_the_next_commit_has_already_is_not_taken_for_the_oldest_event() {
        let ahead = log(10, 14, Publish::Stored);
        // The store is one commit ahead of the ring that is told.
        let log = EventLog { ring: watch::Sender::new(Ring { end: 13, capacity: 10 }), ..ahead };
        assert!(matches!(log.read(3, 1), Err(Error::Resync)));
        assert!(matches!(log.read(3, 5), Err(Error::Resync)));
        assert_eq!(log.read(4, 1).unwrap()[0].1.id.revision, 5);
    }

    #[test]
    fn an_event_that_does_not_tell_its_slot_is_read_too() {
        let mut disk = MemoryDisk::new();
        let ring = Ring { end: 1, capacity: 10 };
        let value = br#"{"v":1,"record":{"id":{"epoch":1,"revision":7,"n":0},"data":{"kind":"guest"}}}"#;
        let op = Op::Put { kind: records::EVENTS, key: ring.slot(0), value: value.to_vec() };
        disk.commit(&[op], haar_store::Fence::default(), haar_store::Fence { epoch: 1, revision: 7 })
            .unwrap();
        let read = EventLog::new(disk.reader(), ring).read(0, 1).unwrap();
        assert_eq!((read[0].1.id.revision, read[0].1.data.get()), (7, r#"{"kind":"guest"}"#));
    }

    #[test]
    fn an_event_takes_no_more_of_the_store_than_it_says() {
        let id = EventId { epoch: u64::MAX, revision: u64::MAX, n: u32::MAX };
        let event = Event { id, ..event(1) };
        assert!(Ring { end: 0, capacity: u64::MAX }.put(u64::MAX - 1, &event).size() <= event.most_stored());
    }

    #[test]
    fn an_id_is_read_and_written() {
        assert_eq!("1.2.3".parse::<EventId>().unwrap().to_string(), "1.2.3");
        for bad in ["", "1", "1.x", "1.2.3.4", "1.2.-3", "1..2"] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }
}
