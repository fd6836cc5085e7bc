//! The node's brain: what one hypervisor shall have, has, and does about it, as one plain value.
//!
//! ```text
//!  feed, hands, host, clock ──Input──▶ decide ──▶ Decision ──commit──▶ ledger
//!                                        ▲            │ apply, then act
//!                                        └── Node ◀───┘──Effect──▶ hands, host, controller
//! ```
//!
//! It promises: one call at a time for one guest; nothing done before the host was looked at; nothing removed
//! that was not named `gone`, taken back after a failed create, or superseded by a newer life; nothing rebuilt
//! that once held data; a deed at most once; a failed removal never given up.
//! Deliberately absent: how a stage is done, and how reports travel; both are the agent's.

mod desired;
mod draft;
mod input;
mod ledger;
mod observe;
mod report;
mod work;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::fence::{Fence, MonoMs};
use crate::guest::Goal;
use crate::hypervisor::Inventory;
use crate::id::{GuestId, HypervisorId};
use crate::order::{GuestReport, Hello, Power, Report, StepReport};
use crate::units::Resources;

use draft::Draft;
use work::Run;

pub use input::{
    CallId, Decision, Effect, Env, Fault, Input, Observation, OffReason, Outcome, Refused, Seen, StageCall,
};
pub use ledger::{Failure, GuestRecord, LedgerChange, LedgerRecord, Made, NodeRecord, Stand};

/// Between the answer to one look at the host and the next look, in milliseconds: so long may it take until a
/// guest's end is seen.
pub const OBSERVE_EVERY_MS: u64 = 5_000;
/// After which a look that was never answered is asked again, in milliseconds.
pub const LOOK_LOST_MS: u64 = 60_000;
/// Between two complete reports, in milliseconds.
pub const COMPLETE_EVERY_MS: u64 = 600_000;
/// After which an unanswered hello or report is sent again, in milliseconds.
pub const RESEND_MS: u64 = 5_000;
/// Tombstones kept.
pub const MOST_TOMBSTONES: usize = 10_000;

/// A hypervisor's brain.
#[derive(Debug, Clone)]
pub struct Node {
    head: Head,
    guests: BTreeMap<GuestId, Box<Entry>>,
}

/// What the node knows besides its guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    record: NodeRecord,
    /// Whether `Input::Boot` was given; before it nothing is said or done.
    booted: bool,
    /// Whether a desired set was taken in this run; before it the whole set is asked for.
    fed: bool,
    last_ask: u64,
    /// The last ask that was answered.
    observed_ask: Option<u64>,
    observe_due: MonoMs,
    /// Why the last look failed; None after one that did not.
    blind: Option<String>,
    last_call: u64,
    last_version: u64,
    inventory: Inventory,
    total: Resources,
    strangers: Vec<String>,
    /// A complete report is owed, and must rest on an observation asked no earlier than this.
    complete_from_ask: Option<u64>,
    complete_due: MonoMs,
    /// When an unanswered hello or report is sent again; None while nothing is owed.
    send_due: Option<MonoMs>,
}

impl Head {
    /// Whether a look at the host has ended in this run, well or badly.
    fn has_looked(&self) -> bool {
        self.observed_ask.is_some() || self.blind.is_some()
    }
}

/// What the node knows of one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    record: GuestRecord,
    power: Power,
    reason: OffReason,
    /// Observations asked before this one may be older than the last call: they say nothing.
    fresh_from_ask: u64,
    run: Option<Run>,
    steps: Vec<StepReport>,
    /// Restarts by policy since it last ran for long.
    restarts: u32,
    restarted_at: MonoMs,
    restart_due: Option<MonoMs>,
    /// The last thing said of it, under its version.
    said: Option<GuestReport>,
    /// The last version that the controller has taken.
    taken: u64,
}

impl Entry {
    fn new(record: GuestRecord) -> Entry {
        let power = if record.ended() { Power::Absent } else { Power::Unknown };
        Entry {
            record,
            power,
            reason: OffReason::Unknown,
            fresh_from_ask: 0,
            run: None,
            steps: Vec::new(),
            restarts: 0,
            restarted_at: MonoMs(0),
            restart_due: None,
            said: None,
            taken: 0,
        }
    }

    /// When it wants to be looked after again.
    fn due(&self) -> Option<MonoMs> {
        let run = self.run.as_ref().filter(|run| run.call.is_none()).map(|run| run.due);
        [run, self.restart_due].into_iter().flatten().min()
    }
}

impl Node {
    /// A node with an empty ledger. `lot` is drawn once for each ledger; it tells this one from an earlier
    /// one of the same hypervisor.
    pub fn new(hypervisor: HypervisorId, lot: u64) -> Node {
        Node::with(NodeRecord {
            hypervisor,
            cloud: None,
            lot,
            incarnation: None,
            seen: Fence::default(),
            boots: 0,
            buried: 0,
        })
    }

    fn with(record: NodeRecord) -> Node {
        Node {
            head: Head {
                record,
                booted: false,
                fed: false,
                last_ask: 0,
                observed_ask: None,
                observe_due: MonoMs(0),
                blind: None,
                last_call: 0,
                last_version: 0,
                inventory: Inventory::default(),
                total: Resources::default(),
                strangers: Vec::new(),
                complete_from_ask: None,
                complete_due: MonoMs(0),
                send_due: None,
            },
            guests: BTreeMap::new(),
        }
    }

    /// The node of a stored ledger, in any order of records; None when the node's own record is missing:
    /// then the ledger is new or lost, and [`Node::new`] begins another.
    pub fn restore(records: impl IntoIterator<Item = LedgerRecord>) -> Option<Node> {
        let mut own = None;
        let mut guests = BTreeMap::new();
        for record in records {
            match record {
                LedgerRecord::Node(record) => own = Some(record),
                LedgerRecord::Guest(record) => {
                    guests.insert(record.id, Box::new(Entry::new(*record)));
                }
            }
        }
        let mut node = Node::with(own?);
        node.guests = guests;
        Some(node)
    }

    /// What follows from an input. Reads only.
    ///
    /// # Errors
    /// [`Refused`] when the input must not be followed; then nothing changes.
    pub fn decide(&self, input: &Input, env: &Env) -> Result<Decision, Refused> {
        let mut draft = Draft::of(self, env.now);
        match input {
            Input::Boot => draft.boot(),
            Input::Welcome { incarnation } => draft.welcome(*incarnation),
            Input::NotWelcome { incarnation } => draft.not_welcome(*incarnation),
            Input::Desired(set) => draft.take_set(set)?,
            Input::Observed(observation) => draft.observe(observation),
            Input::Unseen { ask, why } => draft.unseen(*ask, why),
            Input::Stirred => draft.stirred(),
            Input::Ended { call, outcome } => draft.ended(*call, outcome),
            Input::Taken(report) => draft.taken(report),
            Input::Local { guest, goal } => draft.local(*guest, *goal)?,
            Input::Tick => draft.tick(),
        }
        Ok(draft.finish())
    }

    /// Takes over a decision whose changes are durable. Cannot fail.
    pub fn apply(&mut self, decision: &Decision) {
        if let Some(head) = &decision.head {
            self.head = (**head).clone();
        }
        for (id, entry) in &decision.entries {
            match entry {
                Some(entry) => self.guests.insert(*id, entry.clone()),
                None => self.guests.remove(id),
            };
        }
    }

    /// What is to be said to the controller before anything else, when it does not know this ledger yet.
    pub fn hello(&self) -> Option<Hello> {
        self.greeting().filter(|_| self.head.record.incarnation.is_none())
    }

    /// What this machine is now and has for guests, or that it cannot be seen; None before the first look has
    /// ended. Said again when it changes, even under a known incarnation.
    pub fn greeting(&self) -> Option<Hello> {
        let head = &self.head;
        if !head.booted || !head.has_looked() {
            return None;
        }
        let inventory = match &head.blind {
            None => head.inventory.clone(),
            Some(why) => Inventory {
                accel: Inventory::UNAVAILABLE.to_owned(),
                accel_reason: why.clone(),
                ..head.inventory.clone()
            },
        };
        let NodeRecord { hypervisor, lot, .. } = head.record;
        Some(Hello { hypervisor, lot, inventory, total: head.total })
    }

    /// What the controller has not taken yet, in reports of at most [`Report::MOST_GUESTS`] guests, to be sent
    /// in this order. For each one that was taken the shell gives [`Input::Taken`].
    pub fn reports(&self) -> Vec<Report> {
        report::reports(self)
    }

    /// Whether the feed may be asked, and since when: the zero fence asks for the whole set, whatever it is.
    pub fn feed_since(&self) -> Option<Fence> {
        let head = &self.head;
        let ready = head.booted && head.observed_ask.is_some() && head.record.incarnation.is_some();
        ready.then(|| if head.fed { head.record.seen } else { Fence::default() })
    }

    /// When [`Input::Tick`] is due.
    pub fn next_due(&self) -> Option<MonoMs> {
        let entries = self.guests.values().filter_map(|entry| entry.due());
        let owed = self.head.booted.then_some(self.head.observe_due);
        entries.chain(owed).chain(self.head.send_due).min()
    }

    /// What the ledger says of the node.
    pub fn record(&self) -> &NodeRecord {
        &self.head.record
    }

    /// What the ledger says of a guest.
    pub fn guest(&self, id: GuestId) -> Option<&GuestRecord> {
        self.guests.get(&id).map(|entry| &entry.record)
    }

    /// Every guest in the ledger, tombstones included, in id order.
    pub fn guests(&self) -> impl Iterator<Item = &GuestRecord> {
        self.guests.values().map(|entry| &entry.record)
    }

    /// What was last seen of a guest's domain.
    pub fn power(&self, id: GuestId) -> Power {
        self.guests.get(&id).map_or(Power::Absent, |entry| entry.power)
    }

    /// The call under way for a guest.
    pub fn call_of(&self, id: GuestId) -> Option<CallId> {
        self.guests.get(&id)?.run.as_ref()?.call
    }
}

impl Draft<'_> {
    fn boot(&mut self) {
        if self.head.booted {
            return;
        }
        self.head.booted = true;
        self.head.record.boots += 1;
        self.head.last_call = self.head.record.boots << 32;
        self.head.last_version = self.head.record.boots << 32;
        self.owe_complete();
    }

    fn welcome(&mut self, incarnation: u64) {
        if !self.head.booted || self.head.record.incarnation == Some(incarnation) {
            return;
        }
        self.head.record.incarnation = Some(incarnation);
        self.owe_complete();
    }

    fn not_welcome(&mut self, incarnation: u64) {
        if self.head.record.incarnation == Some(incarnation) {
            self.head.record.incarnation = None;
            self.head.fed = false;
        }
    }

    fn local(&mut self, id: GuestId, goal: Goal) -> Result<(), Refused> {
        let entry = self.entry(id).ok_or(Refused::NoSuchGuest(id))?;
        let record = &mut entry.record;
        let ours = record.provisioned && record.goal().is_some_and(|wanted| wanted != Goal::Gone);
        if !ours || goal == Goal::Gone {
            return Err(Refused::NotLocal(id));
        }
        record.local = Some(goal);
        record.stand = Stand::Due;
        entry.restart_due = None;
        self.advance(id);
        Ok(())
    }

    /// Before the first look nothing can have changed.
    fn stirred(&mut self) {
        if self.head.booted && self.head.observed_ask.is_some() {
            self.ask_to_observe();
        }
    }

    fn tick(&mut self) {
        let now = self.now;
        let due: Vec<GuestId> = self
            .node
            .guests
            .iter()
            .filter(|(_, entry)| entry.due().is_some_and(|due| due <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.advance(id);
        }
        if self.head.booted && now >= self.head.complete_due && self.head.complete_from_ask.is_none() {
            self.owe_complete();
        }
        if self.head.booted && now >= self.head.observe_due {
            self.ask_to_observe();
        }
    }
}
