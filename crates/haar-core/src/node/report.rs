//! What is said to the controller: facts under a version that counts upwards.
//!
//! No report is stored: after a restart all is said again, under versions that begin above the earlier ones.

use crate::guest::Goal;
use crate::id::GuestId;
use crate::order::{Complete, GuestReport, Phase, Report};

use super::draft::Draft;
use super::ledger::Stand;
use super::{COMPLETE_EVERY_MS, Entry, Head, Node};

/// What there is to say of a guest; None when it could not be booked from it anyway.
pub(crate) fn of_guest(entry: &Entry, version: u64) -> Option<GuestReport> {
    let record = &entry.record;
    Some(GuestReport {
        id: record.id,
        life: record.life,
        order: record.fence(),
        version,
        phase: phase(entry),
        power: entry.power,
        provisioned: record.provisioned,
        deed: record.deed_done,
        steps: entry.steps.clone(),
        claim: record.claim.clone()?,
    })
}

fn phase(entry: &Entry) -> Phase {
    match &entry.record.stand {
        Stand::Due | Stand::Undoing(_) => Phase::Working,
        Stand::Settled if entry.restart_due.is_some() => Phase::Working,
        Stand::Settled => match (entry.record.local, &entry.record.order) {
            (Some(goal), Some(order)) if goal != order.goal && order.goal != Goal::Gone => {
                Phase::Local { goal }
            }
            _ => Phase::Settled,
        },
        Stand::Failed(failure) => Phase::Failed {
            stage: failure.stage,
            code: failure.code.clone(),
            message: failure.message.clone(),
        },
        Stand::Lost(message) => Phase::Lost { message: message.clone() },
        Stand::Gone => Phase::Gone,
    }
}

/// Whether `new` says nothing that `said` did not.
pub(crate) fn same_news(said: Option<&GuestReport>, new: &GuestReport) -> bool {
    said.is_some_and(|said| GuestReport { version: new.version, ..said.clone() } == *new)
}

/// Whether a complete report is owed and the look it rests on was taken.
pub(crate) fn complete_is_ready(head: &Head) -> bool {
    let Some(from) = head.complete_from_ask else { return false };
    // What rests on a look is not said while nobody can look.
    head.fed && head.blind.is_none() && head.observed_ask.is_some_and(|ask| ask >= from)
}

pub(crate) fn reports(node: &Node) -> Vec<Report> {
    let head = &node.head;
    let Some(incarnation) = head.record.incarnation.filter(|_| head.booted) else { return Vec::new() };
    let mut owed: Vec<GuestReport> = node
        .guests
        .values()
        .filter_map(|entry| entry.said.clone().filter(|said| said.version > entry.taken))
        .collect();
    owed.sort_by_key(|report| report.version);
    let report = |guests: Vec<GuestReport>, complete| Report {
        hypervisor: head.record.hypervisor,
        incarnation,
        seen: head.record.seen,
        guests,
        complete,
    };
    // Whoever reads "complete" must have read everything else before it: so it waits until one report holds
    // all that is still owed.
    if complete_is_ready(head) && owed.len() <= Report::MOST_GUESTS {
        return vec![report(owed, Some(complete(node)))];
    }
    owed.chunks(Report::MOST_GUESTS).map(|chunk| report(chunk.to_vec(), None)).collect()
}

fn complete(node: &Node) -> Complete {
    let held = || node.guests.values().map(|entry| &entry.record).filter(|record| record.holds());
    let nameless = held()
        .filter(|record| record.claim.is_none())
        .map(|record| format!("disks of guest {} (life {}) without a readable mark", record.id, record.life));
    Complete {
        epoch: node.head.record.seen.epoch,
        holds: held()
            .filter(|record| record.claim.is_some())
            .map(|record| record.id)
            .collect::<Vec<GuestId>>(),
        strangers: node.head.strangers.iter().cloned().chain(nameless).collect(),
        inventory: node.head.inventory.clone(),
        total: node.head.total,
    }
}

impl Draft<'_> {
    /// The controller has it: it need not be sent again.
    pub(crate) fn taken(&mut self, report: &Report) {
        if self.head.record.incarnation != Some(report.incarnation) {
            return;
        }
        for guest in &report.guests {
            if let Some(entry) = self.entry(guest.id)
                && entry.said.as_ref().is_some_and(|said| said.version >= guest.version)
            {
                entry.taken = entry.taken.max(guest.version);
            }
        }
        let complete = report.complete.as_ref();
        if complete.is_some_and(|complete| complete.epoch == self.head.record.seen.epoch)
            && complete_is_ready(&self.head)
        {
            self.head.complete_from_ask = None;
            self.head.complete_due = self.now.after(COMPLETE_EVERY_MS);
        }
    }
}
