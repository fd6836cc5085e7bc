//! Which hypervisors have spoken lately. In memory only: a poll is the heartbeat.
//!
//! After a restart nobody counts as alive before it has spoken, and for one TTL nobody is called silent
//! either. Deliberately absent: anything that is decided by it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use haar_core::fence::{MonoMs, WallMs};
use haar_core::fleet::command::Alive;
use haar_core::id::HypervisorId;

/// The engine's clock: monotonic milliseconds since its start, and wall time for labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts now.
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Milliseconds since the start.
    pub(crate) fn now(&self) -> MonoMs {
        MonoMs(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn wall() -> WallMs {
        WallMs(jiff::Timestamp::now().as_millisecond())
    }
}

/// How a hypervisor is heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It spoke within the TTL.
    Alive,
    /// It did not.
    Silent,
    /// The controller has not listened for a TTL yet.
    NotYet,
}

/// When each hypervisor last spoke.
#[derive(Debug)]
pub(crate) struct Liveness {
    clock: Clock,
    ttl_ms: AtomicU64,
    spoke: RwLock<HashMap<HypervisorId, (MonoMs, WallMs)>>,
}

impl Liveness {
    /// Nobody has spoken yet.
    pub(crate) fn new(clock: Clock, ttl_ms: u64) -> Liveness {
        Liveness { clock, ttl_ms: AtomicU64::new(ttl_ms), spoke: RwLock::default() }
    }

    /// It speaks now.
    pub(crate) fn heard(&self, hypervisor: HypervisorId) {
        let now = self.clock.now();
        let mut spoke = self.spoke.write().unwrap_or_else(PoisonError::into_inner);
        spoke.insert(hypervisor, (now, Clock::wall()));
    }

    /// It is dead or deleted: its last word no longer counts.
    pub(crate) fn forget(&self, hypervisor: HypervisorId) {
        self.spoke.write().unwrap_or_else(PoisonError::into_inner).remove(&hypervisor);
    }

    /// The TTL in force, in milliseconds.
    pub(crate) fn ttl_ms(&self) -> u64 {
        self.ttl_ms.load(Ordering::Relaxed)
    }

    /// Another TTL, in milliseconds.
    pub(crate) fn set_ttl_ms(&self, ttl_ms: u64) {
        self.ttl_ms.store(ttl_ms, Ordering::Relaxed);
    }

    /// How it is heard of now, and when it last spoke.
    pub(crate) fn of(&self, hypervisor: HypervisorId) -> (Heard, Option<WallMs>) {
        let now = self.clock.now().0;
        let spoke = self.spoke.read().unwrap_or_else(PoisonError::into_inner);
        match spoke.get(&hypervisor) {
            Some((at, label)) if now.saturating_sub(at.0) <= self.ttl_ms() => (Heard::Alive, Some(*label)),
            Some((_, label)) => (Heard::Silent, Some(*label)),
            None if now <= self.ttl_ms() => (Heard::NotYet, None),
            None => (Heard::Silent, None),
        }
    }
}

impl Alive for Liveness {
    fn is_alive(&self, hypervisor: HypervisorId) -> bool {
        self.of(hypervisor).0 == Heard::Alive
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn nobody_is_alive_before_it_spoke_and_nobody_silent_before_a_ttl() {
        let one = HypervisorId(Uuid::from_u128(1));
        let liveness = Liveness::new(Clock::start(), 3_600_000);
        assert_eq!(liveness.of(one), (Heard::NotYet, None));
        assert!(!liveness.is_alive(one));
        liveness.heard(one);
        assert!(liveness.is_alive(one));
        liveness.forget(one);
        assert!(!liveness.is_alive(one));
    }

    #[test]
    fn silence_longer_than_the_ttl_is_silence() {
        let one = HypervisorId(Uuid::from_u128(1));
        let start = Instant::now().checked_sub(std::time::Duration::from_secs(60)).unwrap();
        let liveness = Liveness::new(Clock { start }, 1_000);
        assert_eq!(liveness.of(one).0, Heard::Silent);
        liveness.heard(one);
        assert_eq!(liveness.of(one).0, Heard::Alive);
    }
}
