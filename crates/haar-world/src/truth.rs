//! What must hold at every moment, checked against the hosts and not against the books.
//!
//! - No two running guests share an address or a MAC in a network, and no guest runs twice.
//! - No host runs more memory, or holds more disk, than it has.
//! - No disk is made again that a ledger or the books know to have held data, unless an operator said so.
//! - No disk with data is removed whose life was not ordered gone; and nobody orders gone but a user, or the
//!   undo of a create that never ended well.
//! - No deed is done twice.
//! - No ledger goes back to an older order; and what it called gone is not in the books at the end.

use std::collections::{BTreeMap, BTreeSet};

use haar_core::fence::Fence;
use haar_core::fleet::change::{Change, Decision, Record};
use haar_core::guest::{Goal, GoalBy, Guest};
use haar_core::id::{GuestId, Kind};
use haar_core::job::{Action, Job, Stage};
use haar_core::node::{Fault, GuestRecord, LedgerRecord, Made, Outcome, Stand};
use haar_core::order::Power;

use crate::host::Task;
use crate::world::{World, tell};

/// The whole books are checked after every so many decisions.
const CHECK_EVERY: u64 = 16;

/// What the world remembers of what was ordered and done.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// Lives that a ledger has called provisioned.
    pub(crate) settled: BTreeSet<(GuestId, Fence)>,
    /// Lives that the books have ordered gone.
    pub(crate) ordered_gone: BTreeSet<(GuestId, Fence)>,
    /// Guests that a user asked to remove, and to make anew.
    pub(crate) asked_gone: BTreeSet<GuestId>,
    pub(crate) asked_anew: BTreeSet<GuestId>,
    /// The newest order that each host's ledger has held, with its life.
    pub(crate) newest_order: BTreeMap<(usize, GuestId), (Fence, Fence)>,
    /// Lives that each host's ledger has called gone.
    pub(crate) buried: BTreeSet<(usize, GuestId, Fence)>,
    /// The healed world must be quiet by then.
    pub(crate) give_up_at: u64,
    /// Since when it has been quiet.
    pub(crate) quiet_since: Option<u64>,
}

impl World {
    /// A task has its effect on the host.
    pub(crate) fn take_effect(&mut self, host: usize, task: &Task) -> Outcome {
        let call = &task.call;
        let (guest, life) = (call.order.id, call.order.life);
        let disk_before = self.hosts[host].disks.get(&guest).cloned();
        let outcome = self.hosts[host].make_so(call);
        tell!(self, "host {host}: {:?} of {guest} life {life}: {outcome:?}", call.stage);
        if let Outcome::Failed(Fault { code, .. }) = &outcome {
            if code == "no_space" {
                self.fail(format!("host {host}: disk was promised twice: no space for guest {guest}"));
            }
            return outcome;
        }
        match call.stage {
            Stage::Disks if disk_before.is_none() && self.truth.settled.contains(&(guest, life)) => {
                self.fail(format!(
                    "host {host}: the disk of guest {guest}, life {life}, held data and was rebuilt"
                ));
            }
            Stage::Undisk => {
                if let Some(disk) = disk_before {
                    self.check_removal(host, guest, disk.life, disk.held_data);
                }
            }
            Stage::Start => self.check_running(),
            Stage::Reboot => {
                let twice =
                    self.hosts[host].deeds.iter().find(|(_, times)| **times > 1).map(|(deed, _)| *deed);
                if let Some((guest, fence)) = twice {
                    self.fail(format!("host {host}: guest {guest} was rebooted twice for deed {fence}"));
                }
            }
            _ => {}
        }
        outcome
    }

    /// A guest's record is in a host's ledger.
    pub(crate) fn note_ledger(&mut self, host: usize, record: &GuestRecord) {
        if record.provisioned && record.made == Made::Whole {
            self.truth.settled.insert((record.id, record.life));
        }
        if record.stand == Stand::Gone {
            self.truth.buried.insert((host, record.id, record.life));
        }
        let now = (record.life, record.fence());
        let before = self.truth.newest_order.insert((host, record.id), now);
        if let Some(before) = before.filter(|before| *before > now) {
            self.fail(format!(
                "host {host}: guest {} went back from order {} to {}",
                record.id, before.1, now.1
            ));
        }
    }

    /// A host's ledger is gone, and what it knew.
    pub(crate) fn forget_ledger(&mut self, host: usize) {
        self.truth.buried.retain(|(of, _, _)| *of != host);
        self.truth.newest_order.retain(|(of, _), _| *of != host);
    }

    fn check_removal(&mut self, host: usize, guest: GuestId, life: Fence, held_data: bool) {
        let truth = &self.truth;
        let lawful = !held_data
            || !truth.settled.contains(&(guest, life))
            || truth.ordered_gone.contains(&(guest, life))
            || truth.asked_anew.contains(&guest);
        if !lawful {
            self.fail(format!(
                "host {host}: the disk of guest {guest}, life {life}, was removed and nobody asked for it"
            ));
        }
    }

    /// Looks at everything that runs anywhere.
    pub(crate) fn check_running(&mut self) {
        let mut addresses = BTreeMap::new();
        let mut macs = BTreeMap::new();
        let mut guests = BTreeMap::new();
        let mut wrong = None;
        for (number, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.up) {
            let mut memory = 0;
            let running = host.domains.iter().filter(|(_, domain)| domain.power == Power::Running);
            for (id, domain) in running {
                let claim = &domain.claim;
                memory += claim.resources.memory.0;
                if let Some((other, there)) = addresses.insert((claim.network, claim.address), (*id, number))
                {
                    wrong = Some(format!(
                        "address {} is with guest {id} on host {number} and with guest {other} on host {there}",
                        claim.address
                    ));
                }
                if let Some(other) = macs.insert((claim.network, claim.mac), *id) {
                    wrong = Some(format!("MAC {} is with guests {id} and {other}", claim.mac));
                }
                if let Some(there) = guests.insert(*id, number) {
                    wrong = Some(format!("guest {id} runs on host {number} and on host {there}"));
                }
            }
            if memory > host.total.memory.0 {
                wrong =
                    Some(format!("host {number} runs {memory} MiB of its {} of memory", host.total.memory));
            }
        }
        if let Some(wrong) = wrong {
            self.fail(wrong);
        }
    }

    /// A decision became durable and was published.
    pub(crate) fn note_decision(&mut self, decision: &Decision) {
        for change in &decision.changes {
            match change {
                Change::Put(Record::Guest(guest)) => self.note_guest(guest),
                Change::Put(Record::Job(job)) if job.status.ended() => {
                    let how = if job.error.is_some() { "error" } else { "done" };
                    self.coverage.count(format!("job.{}.{how}", job.action.as_str()));
                    if job.error.is_none() && job.action != Action::Delete {
                        self.check_job(job);
                    }
                }
                Change::Delete(Kind::Guest, id) => tell!(self, "books: guest {id} is gone"),
                _ => {}
            }
        }
        // The whole check costs more than the decision; what is wrong stays wrong, so a sample finds it.
        if decision.fence.revision.is_multiple_of(CHECK_EVERY) {
            let faults =
                self.books.engine.as_ref().map(|engine| engine.published.check()).unwrap_or_default();
            if let Some(fault) = faults.first() {
                self.fail(format!("the books are wrong after {}: {fault}", decision.fence));
            }
        }
    }

    /// A job may be done only when its host has had the order it waits for. A delete is done without it when
    /// the host is declared lost, or has said before that nothing is left.
    fn check_job(&mut self, job: &Job) {
        let Some(host) = self.hosts.iter().position(|host| Some(host.id) == job.hypervisor) else { return };
        let Some((_, newest)) = self.truth.newest_order.get(&(host, job.guest)).copied() else { return };
        if newest != Fence::default() && newest < job.order {
            let (action, order) = (job.action.as_str(), job.order);
            self.fail(format!(
                "the {action} job of guest {} is done, and its order {order} never was on host {host}",
                job.guest
            ));
        }
    }

    fn note_guest(&mut self, guest: &Guest) {
        if guest.goal != Goal::Gone {
            return;
        }
        if let Some(place) = guest.place {
            self.truth.ordered_gone.insert((guest.id, place.life));
        }
        let by_undo = guest.goal_by == GoalBy::Undo && guest.provisioned.is_none();
        if !by_undo && !self.truth.asked_gone.contains(&guest.id) {
            self.fail(format!("the books order guest {} gone and nobody asked for it", guest.id));
        }
    }

    /// The books were read from the medium: what a lost answer hid is in them now.
    pub(crate) fn note_books_reloaded(&mut self) {
        let Some(engine) = &self.books.engine else { return };
        let guests: Vec<Guest> = engine.published.guests().map(|guest| Guest::clone(guest)).collect();
        let faults = engine.published.check();
        for guest in &guests {
            self.note_guest(guest);
        }
        if let Some(fault) = faults.first() {
            self.fail(format!("the books are wrong after loading: {fault}"));
        }
    }

    /// When the last who knew that a disk had held data is gone, and the disk with it, nobody can be blamed.
    pub(crate) fn forget_what_nobody_can_know(&mut self) {
        let mut known = BTreeSet::new();
        for host in &self.hosts {
            known.extend(host.disks.iter().map(|(id, disk)| (*id, disk.life)));
            for bytes in host.ledger.values() {
                if let Ok(LedgerRecord::Guest(record)) = serde_json::from_slice(bytes)
                    && record.provisioned
                {
                    known.insert((record.id, record.life));
                }
            }
        }
        if let Some(engine) = &self.books.engine {
            for guest in engine.published.guests() {
                if let (Some(place), Some(_)) = (guest.place, guest.provisioned) {
                    known.insert((guest.id, place.life));
                }
            }
        }
        self.truth.settled.retain(|life| known.contains(life));
    }
}
