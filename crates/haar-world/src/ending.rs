//! The end of a world: when it is quiet, the books must equal the truth.

use haar_core::fleet::Fleet;
use haar_core::fleet::command::Command;
use haar_core::guest::{Goal, Guest, State};
use haar_core::id::{GuestId, Kind};
use haar_core::node::Stand;
use haar_core::order::Power;

use crate::host::Host;
use crate::world::{Event, World};

/// How long nothing may have been under way.
const QUIET_MS: u64 = 90_000;

impl World {
    pub(crate) fn check_end(&mut self) {
        let busy = self.what_is_under_way();
        match busy {
            Some(what) if self.now >= self.truth.give_up_at => {
                self.fail(format!("the healed world does not become quiet: {what}"));
            }
            Some(_) => {
                self.truth.quiet_since = None;
                self.operator_resolves();
                self.after(30_000, Event::Check);
            }
            None => {
                let since = *self.truth.quiet_since.get_or_insert(self.now);
                if self.now - since < QUIET_MS {
                    self.after(30_000, Event::Check);
                } else {
                    self.compare();
                }
            }
        }
    }

    /// A lost guest of restored books may hold the address of one that runs: an operator must let go of it.
    fn operator_resolves(&mut self) {
        let Some(engine) = &self.books.engine else { return };
        let books = &engine.published;
        let unheard = |id| {
            books.hypervisor(id).is_some_and(|record| {
                record.reported_epoch != Some(books.epoch()) && !record.strangers.is_empty()
            })
        };
        let claimed_in_vain =
            |guest: &Guest| guest.state == State::Claimed && guest.reason.contains("missing");
        let lost = books.guests().filter(|guest| guest.state == State::Lost || claimed_in_vain(guest));
        let in_the_way: Vec<GuestId> = lost
            .filter(|_| self.hosts.iter().any(|host| !host.dead && unheard(host.id)))
            .map(|guest| guest.id)
            .collect();
        for id in in_the_way {
            self.user_asks(Command::Delete(Kind::Guest, id.0, None));
        }
    }

    fn what_is_under_way(&self) -> Option<String> {
        let Some(engine) = &self.books.engine else { return Some("no controller".to_owned()) };
        if self.has_turn_due() || engine.is_busy() {
            return Some("the controller has a queue".to_owned());
        }
        if let Some(job) = engine.published.jobs().find(|job| !job.status.ended()) {
            return Some(format!("job {} ({}) of {} is open", job.id, job.action.as_str(), job.guest_name));
        }
        if self.user.waits() {
            return Some("the user waits".to_owned());
        }
        for (number, host) in self.hosts.iter().enumerate().filter(|(_, host)| !host.dead) {
            let epoch = engine.published.epoch();
            let record = engine.published.hypervisor(host.id);
            if record.is_some_and(|record| record.reported_epoch != Some(epoch)) {
                return Some(format!("host {number} has not told what it holds: {record:?}"));
            }
            let Some(agent) = &host.agent else { return Some(format!("host {number} has no agent")) };
            let node = &agent.node;
            if !host.is_idle() || node.hello().is_some() || !node.reports().is_empty() {
                return Some(format!("host {number} is not done: {:?}", node.reports()));
            }
            let due = node.guests().find(|record| matches!(record.stand, Stand::Due | Stand::Undoing(_)));
            if let Some(record) = due {
                return Some(format!("host {number} works on guest {}: {:?}", record.id, record.stand));
            }
        }
        None
    }

    /// Books against hosts.
    fn compare(&mut self) {
        if let Some(unmet) = self.unmet_plan() {
            self.fail(unmet.to_owned());
            return;
        }
        let Some(engine) = &self.books.engine else { return };
        let wrong = self.first_difference(&engine.published);
        match wrong {
            Some(wrong) => self.fail(wrong),
            None => self.end_well(),
        }
    }

    fn first_difference(&self, books: &Fleet) -> Option<String> {
        if let Some(fault) = books.check().first() {
            return Some(format!("the books are wrong at the end: {fault}"));
        }
        for guest in books.guests() {
            if let Some(wrong) = self.compare_guest(guest) {
                return Some(format!("{wrong}; the books have {guest:?}"));
            }
        }
        for (number, host) in self.hosts.iter().enumerate().filter(|(_, host)| !host.dead) {
            for id in host.domains.keys().chain(host.disks.keys()) {
                let placed = books.guest(*id).and_then(|guest| guest.place);
                if placed.is_none_or(|place| place.hypervisor != host.id) {
                    return Some(format!("host {number} holds guest {id}, which no book has there"));
                }
            }
        }
        None
    }

    /// What a host's ledger called gone beats whatever restored books remember.
    fn is_buried(&self, guest: &Guest) -> bool {
        let Some(place) = guest.place else { return false };
        // An order newer than the removal keeps the record, which then says that nothing is left.
        if guest.state == State::Lost && guest.reason == "nothing of it is on its hypervisor" {
            return false;
        }
        let host = self.hosts.iter().position(|host| host.id == place.hypervisor);
        host.is_some_and(|host| self.truth.buried.contains(&(host, guest.id, place.life)))
    }

    fn compare_guest(&self, guest: &Guest) -> Option<String> {
        if self.is_buried(guest) {
            return Some(format!("guest {} was removed and is still booked", guest.id));
        }
        let Some(place) = guest.place else {
            let held = self.holder_of(guest.id);
            return held
                .map(|host| format!("guest {} holds nothing in the books and is on host {host}", guest.id));
        };
        let Some(host) = self.hosts.iter().find(|host| host.id == place.hypervisor) else {
            return Some(format!("guest {} is on a hypervisor that never was", guest.id));
        };
        if host.dead {
            return Some(format!("guest {} is booked on a dead host that was declared lost", guest.id));
        }
        let domain = host.domains.get(&guest.id).filter(|domain| domain.life == place.life);
        let disk = host.disks.get(&guest.id).filter(|disk| disk.life == place.life);
        let power = domain.map_or(Power::Absent, |domain| domain.power);
        if let Some(domain) = domain
            && (domain.claim.address != place.address || domain.claim.mac != guest.mac)
        {
            return Some(format!("guest {} has another address than booked", guest.id));
        }
        let seen = |state: State| {
            format!("guest {} is {} in the books and {power:?} in truth", guest.id, state.as_str())
        };
        let right = match guest.state {
            State::Running => power == Power::Running && disk.is_some(),
            State::Stopped => power == Power::Off && disk.is_some(),
            State::Paused => power == Power::Paused,
            State::Lost => domain.is_none() || disk.is_none(),
            State::Claimed => domain.is_some() && disk.is_some() || is_known_lost(host, guest.id),
            State::Failed => power != Power::Running,
            State::Creating | State::Deleting => false,
        };
        if !right {
            return Some(seen(guest.state));
        }
        let wanted = match guest.goal {
            Goal::Running => State::Running,
            Goal::Stopped | Goal::Off => State::Stopped,
            Goal::Gone => State::Deleting,
        };
        let plain = matches!(guest.state, State::Running | State::Stopped);
        if plain && guest.state != wanted && guest.reason.is_empty() {
            return Some(format!(
                "{}, its goal is {}, and no reason is given",
                seen(guest.state),
                guest.goal.as_str()
            ));
        }
        None
    }

    fn holder_of(&self, guest: GuestId) -> Option<usize> {
        self.hosts.iter().position(|host| {
            !host.dead && (host.domains.contains_key(&guest) || host.disks.contains_key(&guest))
        })
    }
}

fn is_known_lost(host: &Host, guest: GuestId) -> bool {
    let record = host.agent.as_ref().and_then(|agent| agent.node.guest(guest));
    record.is_some_and(|record| matches!(record.stand, Stand::Lost(_)))
}
