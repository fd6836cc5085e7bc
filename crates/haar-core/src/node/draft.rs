//! A decision in the making: copies of what is touched, compared at the end with what was there.
//!
//! So the rules may change their copies freely, `decide` still changes nothing, and the ledger's changes are
//! found in one place instead of being remembered at each rule.

use std::collections::BTreeMap;

use crate::fence::MonoMs;
use crate::id::GuestId;

use super::ledger::{GuestRecord, LedgerChange, LedgerRecord, Stand};
use super::{Decision, Effect, Entry, Head, LOOK_LOST_MS, MOST_TOMBSTONES, Node, RESEND_MS, report};

pub(crate) struct Draft<'a> {
    pub(crate) node: &'a Node,
    pub(crate) now: MonoMs,
    pub(crate) head: Head,
    touched: BTreeMap<GuestId, Option<Box<Entry>>>,
    pub(crate) effects: Vec<Effect>,
}

impl<'a> Draft<'a> {
    pub(crate) fn of(node: &'a Node, now: MonoMs) -> Draft<'a> {
        Draft { node, now, head: node.head.clone(), touched: BTreeMap::new(), effects: Vec::new() }
    }

    /// A guest's copy to change.
    pub(crate) fn entry(&mut self, id: GuestId) -> Option<&mut Entry> {
        let node = self.node;
        let copy = self.touched.entry(id).or_insert_with(|| node.guests.get(&id).cloned());
        copy.as_deref_mut()
    }

    /// Puts a new guest in the ledger, or a new life in place of an old one.
    pub(crate) fn insert(&mut self, entry: Entry) {
        self.touched.insert(entry.record.id, Some(Box::new(entry)));
    }

    /// Ids of all guests but those that have ended untouched, of which there may be thousands.
    pub(crate) fn live_ids(&self) -> Vec<GuestId> {
        let live = |id: &GuestId| {
            self.touched.contains_key(id)
                || self.node.guests.get(id).is_some_and(|entry| !entry.record.ended())
        };
        self.ids().into_iter().filter(live).collect()
    }

    fn ids(&self) -> Vec<GuestId> {
        let mut ids: Vec<GuestId> = self.node.guests.keys().chain(self.touched.keys()).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Asks for a look at the host, now.
    pub(crate) fn ask_to_observe(&mut self) {
        self.head.last_ask += 1;
        self.head.observe_due = self.now.after(LOOK_LOST_MS);
        self.effects.push(Effect::Observe { ask: self.head.last_ask });
    }

    /// From now on everything is to be reported again, and then a complete report made from a fresh look.
    pub(crate) fn owe_complete(&mut self) {
        self.ask_to_observe();
        self.head.complete_from_ask = Some(self.head.last_ask);
        for id in self.live_ids() {
            self.say_again(id);
        }
    }

    /// Has a guest reported again though nothing may have changed.
    pub(crate) fn say_again(&mut self, id: GuestId) {
        if let Some(entry) = self.entry(id) {
            entry.said = None;
        }
    }

    /// Marks a guest as one of which nothing is left here.
    pub(crate) fn bury(&mut self, id: GuestId) {
        let number = self.head.record.buried + 1;
        self.head.record.buried = number;
        if let Some(entry) = self.entry(id) {
            entry.record.buried = number;
            if let Some(order) = &mut entry.record.order {
                order.ssh_keys.clear();
            }
        }
    }

    /// The decision: what differs from what was there.
    pub(crate) fn finish(mut self) -> Decision {
        self.forget_oldest();
        let said = self.speak();
        self.say_when(said);
        let mut changes = Vec::new();
        if self.head.record != self.node.head.record {
            changes.push(LedgerChange::Put(LedgerRecord::Node(self.head.record.clone())));
        }
        let mut entries = Vec::new();
        for (id, entry) in self.touched {
            let before = self.node.guests.get(&id);
            if let Some(change) = change_of(id, before.map(|b| &b.record), entry.as_ref().map(|e| &e.record))
            {
                changes.push(change);
            }
            if before != entry.as_ref() {
                entries.push((id, entry));
            }
        }
        let head = (self.head != self.node.head).then(|| Box::new(self.head));
        Decision { changes, effects: self.effects, head, entries }
    }

    /// Gives every touched guest whose report differs from the last one a new version.
    fn speak(&mut self) -> bool {
        if !self.head.booted {
            return false;
        }
        let mut news = false;
        for entry in self.touched.values_mut().flatten() {
            let version = self.head.last_version + 1;
            let Some(report) = report::of_guest(entry, version) else { continue };
            if report::same_news(entry.said.as_ref(), &report) {
                continue;
            }
            self.head.last_version = version;
            entry.said = Some(report);
            news = true;
        }
        news
    }

    /// Decides whether a hello or report is sent now, later or not.
    fn say_when(&mut self, news: bool) {
        let welcome = self.head.record.incarnation.is_some();
        let owed = if welcome { self.owes_report() } else { self.head.booted && self.head.has_looked() };
        if !owed {
            self.head.send_due = None;
            return;
        }
        let fresh = news
            || self.head.send_due.is_none()
            || self.head.record.incarnation != self.node.head.record.incarnation
            || self.head.observed_ask != self.node.head.observed_ask && self.head.complete_from_ask.is_some();
        if fresh || self.head.send_due.is_some_and(|due| due <= self.now) {
            self.head.send_due = Some(self.now.after(RESEND_MS));
            self.effects.push(if welcome { Effect::Report } else { Effect::Hello });
        }
    }

    fn owes_report(&self) -> bool {
        let untaken = |entry: &Entry| entry.said.as_ref().is_some_and(|said| said.version > entry.taken);
        let complete = report::complete_is_ready(&self.head);
        complete
            || self.touched.values().flatten().any(|entry| untaken(entry))
            || self.node.guests.iter().any(|(id, entry)| !self.touched.contains_key(id) && untaken(entry))
    }

    /// Drops the oldest tombstones beyond the bound.
    fn forget_oldest(&mut self) {
        if self.head.record.buried == self.node.head.record.buried {
            return;
        }
        let mut buried: Vec<(u64, GuestId)> = Vec::new();
        for id in self.ids() {
            let record = match self.touched.get(&id) {
                Some(entry) => entry.as_deref().map(|entry| &entry.record),
                None => self.node.guests.get(&id).map(|entry| &entry.record),
            };
            if let Some(record) = record
                && record.ended()
            {
                buried.push((record.buried, id));
            }
        }
        buried.sort_unstable();
        let beyond = buried.len().saturating_sub(MOST_TOMBSTONES);
        for (_, id) in buried.into_iter().take(beyond) {
            self.touched.insert(id, None);
        }
    }
}

fn change_of(id: GuestId, before: Option<&GuestRecord>, after: Option<&GuestRecord>) -> Option<LedgerChange> {
    match after {
        Some(after) if before != Some(after) => {
            Some(LedgerChange::Put(LedgerRecord::Guest(Box::new(after.clone()))))
        }
        None if before.is_some() => Some(LedgerChange::Forget(id)),
        _ => None,
    }
}

impl Entry {
    /// Ends whatever was planned; a call under way stays known until it has ended.
    pub(crate) fn replan(&mut self) {
        self.record.stand = Stand::Due;
        self.restart_due = None;
        self.restarts = 0;
    }
}
