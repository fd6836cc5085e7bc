//! The brain of the agent's own REST: its guests, its jobs, and what is done next, as one plain value.
//!
//! ```text
//!  HTTP, hands, clock ──Input──▶ decide ──▶ Decision ──commit──▶ store
//!                                  ▲            │ apply, then call and answer
//!                                  └─ Runners ◀─┘
//!
//!  job:  Queued ──▶ Running: Forward(0), Forward(1), … ──▶ Complete
//!           │                   └─ failed ─▶ Undo (of a create) ─▶ Error
//!           └─ cancelled, or its guest was deleted ─▶ Error
//! ```
//! It promises: one stage at a time for one guest, in the order asked; every job ends; a guest that was deleted
//! is gone before its job is complete, and nothing is called for it afterwards.
//! Deliberately absent: info actions and streams, which leave nothing behind; how a stage is called.

mod decide;
mod input;
mod quiesce;
mod record;
mod stage;
mod undo;

#[cfg(test)]
mod quiesce_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use haar_api::agent::Job;
use uuid::Uuid;

use super::config::Plan;

pub(crate) use input::{Answer, Call, Env, Input, Outcome, Params, Patch, Refused, Why};
pub(crate) use record::{Change, GuestRecord, JobRecord, Owner, Records, Step};

/// All guests and jobs of the agent's own.
#[derive(Debug, Clone)]
pub(crate) struct Runners {
    plan: Arc<Plan>,
    records: Records,
    // What follows from the records; only `apply` touches it.
    by_id: BTreeMap<Uuid, u64>,
    open: BTreeMap<Owner, BTreeSet<u64>>,
    ended: BTreeSet<u64>,
    next_seq: u64,
}

impl Runners {
    /// Of what was stored.
    pub(crate) fn restore(plan: Arc<Plan>, records: Records) -> Runners {
        let mut runners = Runners {
            plan,
            records: Records { jobs: BTreeMap::new(), ..records },
            by_id: BTreeMap::new(),
            open: BTreeMap::new(),
            ended: BTreeSet::new(),
            next_seq: 1,
        };
        for job in records.jobs.into_values() {
            runners.apply_one(Change::PutJob(Box::new(job)));
        }
        runners
    }

    /// Takes over changes that are durable. Cannot fail.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.apply_one(change);
        }
    }

    fn apply_one(&mut self, change: Change) {
        match change {
            Change::PutGuest(id, record) => {
                self.records.guests.insert(id, *record);
            }
            Change::DropGuest(id) => {
                self.records.guests.remove(&id);
            }
            Change::PutJob(job) => {
                let (seq, owner) = (job.seq, job.owner);
                self.by_id.insert(job.id, seq);
                self.next_seq = self.next_seq.max(seq + 1);
                if job.status.has_ended() {
                    self.close(owner, seq);
                    self.ended.insert(seq);
                } else {
                    self.open.entry(owner).or_default().insert(seq);
                }
                self.records.jobs.insert(seq, *job);
            }
            Change::DropJob(seq) => {
                if let Some(job) = self.records.jobs.remove(&seq) {
                    self.by_id.remove(&job.id);
                    self.close(job.owner, seq);
                }
                self.ended.remove(&seq);
            }
            Change::Label(key, Some(value)) => {
                self.records.labels.insert(key, value);
            }
            Change::Label(key, None) => {
                self.records.labels.remove(&key);
            }
        }
    }

    fn close(&mut self, owner: Owner, seq: u64) {
        if let Some(open) = self.open.get_mut(&owner) {
            open.remove(&seq);
            if open.is_empty() {
                self.open.remove(&owner);
            }
        }
    }

    /// Every guest, by id.
    pub(crate) fn guests(&self) -> impl Iterator<Item = &GuestRecord> {
        self.records.guests.values()
    }

    /// One guest.
    pub(crate) fn guest(&self, id: Uuid) -> Option<&GuestRecord> {
        self.records.guests.get(&id)
    }

    /// Whether it has jobs that have not ended.
    pub(crate) fn is_busy(&self, owner: Owner) -> bool {
        self.open.contains_key(&owner)
    }

    /// The number of the next job, whoever's it will be.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The hypervisor's labels.
    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.records.labels
    }

    /// One job.
    pub(crate) fn job(&self, id: Uuid) -> Option<&JobRecord> {
        self.by_id.get(&id).and_then(|seq| self.records.jobs.get(seq))
    }

    /// The newest jobs first, of one owner or of all.
    pub(crate) fn jobs(&self, of: Option<Owner>, limit: usize) -> Vec<Job> {
        let jobs = self.records.jobs.values().rev();
        jobs.filter(|job| of.is_none_or(|owner| job.owner == owner)).take(limit).map(JobRecord::job).collect()
    }
}
