//! What was seen on the host becomes state: power, losses, finds, and restarts by policy.

use crate::fence::MonoMs;
use crate::guest::{Goal, RestartPolicy};
use crate::id::GuestId;
use crate::order::Power;

use super::desired::runs;
use super::draft::Draft;
use super::input::{Effect, Observation, OffReason, Seen};
use super::ledger::{GuestRecord, Made, Stand};
use super::{Entry, OBSERVE_EVERY_MS};

/// A guest that ran for so long is restarted at once again, in milliseconds.
const STABLE_MS: u64 = 600_000;
/// The longest wait before a restart, in milliseconds.
const MOST_RESTART_WAIT_MS: u64 = 300_000;

impl Draft<'_> {
    pub(crate) fn observe(&mut self, observation: &Observation) {
        let head = &mut self.head;
        if !head.booted || observation.ask > head.last_ask || head.observed_ask > Some(observation.ask) {
            return;
        }
        let greeting = self.node.greeting();
        head.observed_ask = Some(observation.ask);
        head.inventory = observation.inventory.clone();
        head.total = observation.total;
        head.blind = None;
        head.strangers.clone_from(&observation.strangers);
        self.look_ended(observation.ask);
        let same = greeting.is_some_and(|said| {
            let head = &self.head;
            (&said.inventory, said.total) == (&head.inventory, head.total)
        });
        if !same {
            self.greet_again();
        }
        for seen in &observation.guests {
            self.see(seen, observation.ask);
        }
        let seen: Vec<GuestId> = observation.guests.iter().map(|seen| seen.id).collect();
        let ids = self.live_ids();
        for id in ids.iter().filter(|id| !seen.contains(id)) {
            self.miss(*id, observation.ask);
        }
        // What the ledger still owes is done only now that the host was looked at.
        for id in ids {
            self.advance(id);
        }
    }

    pub(crate) fn unseen(&mut self, ask: u64, why: &str) {
        let head = &mut self.head;
        if !head.booted || ask > head.last_ask || head.observed_ask > Some(ask) {
            return;
        }
        let was_known = head.blind.as_deref() == Some(why);
        head.blind = Some(why.to_owned());
        self.look_ended(ask);
        // Without a single look no feed is asked for, and then this is the only sign of life.
        if !was_known || self.head.observed_ask.is_none() {
            self.greet_again();
        }
        for id in self.live_ids() {
            if let Some(entry) = self.entry(id)
                && entry.run.is_none()
            {
                entry.power = Power::Unknown;
            }
        }
    }

    /// The next regular look comes some time after the last one asked for was answered, however slow it was.
    fn look_ended(&mut self, ask: u64) {
        if ask == self.head.last_ask {
            self.head.observe_due = self.now.after(OBSERVE_EVERY_MS);
        }
    }

    /// Has the changed facts said under an incarnation that is known; without one the hello says them anyway.
    fn greet_again(&mut self) {
        if self.head.record.incarnation.is_some() {
            self.effects.push(Effect::Hello);
        }
    }

    fn see(&mut self, seen: &Seen, ask: u64) {
        let now = self.now;
        let Some(entry) = self.entry(seen.id) else {
            self.insert(taken_up(seen));
            return;
        };
        if ask < entry.fresh_from_ask {
            return;
        }
        let record = &mut entry.record;
        if seen.life > record.life {
            // The host knows more than the ledger, which must have been put back: believe the host.
            *entry = taken_up(seen);
        } else if seen.life < record.life {
            if entry.run.is_none() && record.leftover.is_none() {
                record.leftover = Some(seen.life);
                record.buried = 0;
                entry.power = Power::Absent;
            }
        } else {
            see_same_life(entry, seen, now);
        }
    }

    fn miss(&mut self, id: GuestId, ask: u64) {
        let Some(entry) = self.entry(id) else { return };
        if ask < entry.fresh_from_ask || entry.run.is_some() {
            return;
        }
        entry.power = Power::Absent;
        if entry.record.made == Made::Whole && matches!(entry.record.stand, Stand::Settled | Stand::Failed(_))
        {
            entry.record.stand = Stand::Lost("its domain and its disks are missing on the host".to_owned());
            entry.restart_due = None;
        }
        // Nothing of it is held here, though it is remembered that it was.
        if matches!(entry.record.stand, Stand::Lost(_)) {
            entry.record.made = Made::Nothing;
        }
    }
}

/// A guest of ours that no ledger knows. It may have run, so nothing of it is ever rebuilt.
fn taken_up(seen: &Seen) -> Entry {
    let mut entry = Entry::new(GuestRecord {
        id: seen.id,
        life: seen.life,
        order: None,
        claim: seen.claim.clone(),
        image: None,
        network: None,
        provisioned: true,
        made: Made::Whole,
        stand: Stand::Settled,
        local: None,
        deed_begun: None,
        deed_done: None,
        leftover: None,
        buried: 0,
    });
    entry.power = seen.power;
    entry.reason = seen.reason;
    if let Some(missing) = missing(seen) {
        entry.record.stand = Stand::Lost(missing);
    }
    entry
}

fn missing(seen: &Seen) -> Option<String> {
    match (seen.domain, seen.disks) {
        (true, true) => None,
        (false, _) => Some("its domain is missing on the host".to_owned()),
        (true, false) => Some("a disk of it is missing on the host".to_owned()),
    }
}

fn see_same_life(entry: &mut Entry, seen: &Seen, now: MonoMs) {
    if entry.run.as_ref().is_some_and(|run| run.call.is_some()) {
        return;
    }
    entry.power = seen.power;
    entry.reason = seen.reason;
    let record = &mut entry.record;
    if record.claim.is_none() {
        record.claim.clone_from(&seen.claim);
    }
    if record.made == Made::Nothing {
        record.made = Made::Begun;
        record.buried = 0;
    }
    if entry.run.is_some() {
        return;
    }
    match &record.stand {
        // Removed or taken back, and yet it is here: done again until it is not.
        Stand::Gone => record.stand = Stand::Due,
        Stand::Failed(failure) if !record.provisioned => record.stand = Stand::Undoing(failure.clone()),
        Stand::Lost(_) if missing(seen).is_none() => {
            record.made = Made::Whole;
            record.stand = if record.order.is_some() { Stand::Due } else { Stand::Settled };
        }
        Stand::Settled | Stand::Failed(_) => match missing(seen) {
            Some(missing) => {
                record.stand = Stand::Lost(missing);
                entry.restart_due = None;
            }
            None => follow_power(entry, now),
        },
        _ => {}
    }
}

/// A guest that stands still was seen running or off: is that what is wanted, and if not, who decides?
fn follow_power(entry: &mut Entry, now: MonoMs) {
    let Some(goal) = entry.record.goal() else { return };
    let running = match entry.power {
        Power::Running => true,
        Power::Off => false,
        // It holds its place and does nothing until somebody resumes it: no restart by policy.
        Power::Paused => {
            entry.restart_due = None;
            return;
        }
        Power::Absent | Power::Unknown => return,
    };
    if running == runs(goal) {
        entry.restart_due = None;
        let late = |stage| matches!(stage, crate::job::Stage::Shutdown | crate::job::Stage::Start);
        if matches!(&entry.record.stand, Stand::Failed(failure) if late(failure.stage)) {
            entry.record.stand = Stand::Settled;
        }
        return;
    }
    if running {
        if entry.record.stand == Stand::Settled {
            entry.record.local = Some(Goal::Running);
        }
        return;
    }
    let by_policy = entry.record.stand == Stand::Settled || entry.restarts > 0;
    if by_policy && entry.restart_due.is_none() {
        was_found_off(entry, now);
    }
}

fn was_found_off(entry: &mut Entry, now: MonoMs) {
    let policy = entry.record.order.as_ref().map_or(RestartPolicy::Never, |order| order.restart);
    if !starts_again(policy, entry.reason) {
        entry.record.local = Some(Goal::Stopped);
        entry.record.stand = Stand::Settled;
        return;
    }
    if now.0.saturating_sub(entry.restarted_at.0) > STABLE_MS {
        entry.restarts = 0;
    }
    entry.restart_due = Some(if entry.restarts == 0 {
        now
    } else {
        entry.restarted_at.after(restart_wait_ms(entry.restarts))
    });
}

/// Whether a guest that shall run and was found off is started again (design §11.4).
pub(crate) fn starts_again(policy: RestartPolicy, reason: OffReason) -> bool {
    match policy {
        RestartPolicy::Never => false,
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => matches!(reason, OffReason::Crashed | OffReason::Unknown),
    }
}

/// How long after the last restart the next one may be, in milliseconds: a crash loop must not spin.
pub(crate) fn restart_wait_ms(restarts: u32) -> u64 {
    let doublings = restarts.saturating_sub(1).min(10);
    (10_000_u64 << doublings).min(MOST_RESTART_WAIT_MS)
}
