//! How much there is, how much is promised, and how many of what.

use super::Fleet;
use super::command::{Alive, Env};
use super::index::{minus, plus};
use crate::guest::State;
use crate::hypervisor::Hypervisor;
use crate::units::Resources;

/// The whole cloud in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacity {
    /// What the joined hypervisors have for guests.
    pub total: Resources,
    /// What may be promised on them, overcommit included.
    pub promised: Resources,
    /// What is promised to guests.
    pub used: Resources,
    /// What may still be promised now: on hypervisors that are alive, reported and not cordoned.
    pub free: Resources,
    /// Hypervisors by standing.
    pub hypervisors: HypervisorCounts,
    /// Guests by state.
    pub guests: GuestCounts,
}

/// Hypervisors by standing; each is counted once, by the first that holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HypervisorCounts {
    /// All of them.
    pub all: u64,
    /// Their agents never joined.
    pub never_joined: u64,
    /// No poll within the TTL.
    pub silent: u64,
    /// Alive, but owe a complete report since a restore or their return.
    pub not_reported: u64,
    /// Alive, but their agents cannot see what the machine has.
    pub blind: u64,
    /// Alive and cordoned.
    pub cordoned: u64,
    /// Alive and open for guests.
    pub open: u64,
}

/// Guests by state; those on a silent hypervisor count as unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestCounts {
    /// All of them.
    pub all: u64,
    /// Being made.
    pub creating: u64,
    /// Running.
    pub running: u64,
    /// Off.
    pub stopped: u64,
    /// Paused.
    pub paused: u64,
    /// Being taken away.
    pub deleting: u64,
    /// Could not be made.
    pub failed: u64,
    /// Disk or domain missing.
    pub lost: u64,
    /// Found after a restore.
    pub claimed: u64,
    /// On a hypervisor that is silent.
    pub unknown: u64,
}

impl Fleet {
    /// The whole cloud in numbers. Goes through all hypervisors and guests.
    pub fn capacity(&self, env: &Env<'_>) -> Capacity {
        let mut capacity = Capacity::default();
        for record in self.hypervisors() {
            let load = self.load_of(record);
            capacity.total = plus(capacity.total, record.total);
            capacity.promised = plus(capacity.promised, load.capacity);
            capacity.used = plus(capacity.used, load.used);
            if capacity.hypervisors.count(record, self.fence.epoch, env.alive) {
                capacity.free = plus(capacity.free, minus(load.capacity, load.used));
            }
        }
        for guest in self.guests() {
            let silent = guest.place.is_some_and(|place| !env.alive.is_alive(place.hypervisor));
            capacity.guests.count(guest.state, silent);
        }
        capacity
    }

    /// What may still be promised on a hypervisor, whether or not it is open now.
    pub fn free_on(&self, record: &Hypervisor) -> Resources {
        let load = self.load_of(record);
        minus(load.capacity, load.used)
    }
}

impl HypervisorCounts {
    /// Whether it is open.
    fn count(&mut self, record: &Hypervisor, epoch: u64, alive: &dyn Alive) -> bool {
        self.all += 1;
        let kind = if record.incarnation == 0 {
            &mut self.never_joined
        } else if !alive.is_alive(record.id) {
            &mut self.silent
        } else if record.reported_epoch != Some(epoch) {
            &mut self.not_reported
        } else if record.inventory.blind().is_some() {
            &mut self.blind
        } else if record.spec.cordon.is_some() {
            &mut self.cordoned
        } else {
            self.open += 1;
            return true;
        };
        *kind += 1;
        false
    }
}

impl GuestCounts {
    fn count(&mut self, state: State, silent: bool) {
        self.all += 1;
        let kind = match state {
            _ if silent => &mut self.unknown,
            State::Creating => &mut self.creating,
            State::Running => &mut self.running,
            State::Stopped => &mut self.stopped,
            State::Paused => &mut self.paused,
            State::Deleting => &mut self.deleting,
            State::Failed => &mut self.failed,
            State::Lost => &mut self.lost,
            State::Claimed => &mut self.claimed,
        };
        *kind += 1;
    }
}
