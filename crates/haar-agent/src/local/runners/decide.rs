//! What follows from each input; the stages of a job are in `stage`.

use std::collections::{BTreeMap, BTreeSet};

use haar_api::agent::{Guest, Status};
use haar_core::address::Mac;
use haar_core::fence::WallMs;
use uuid::Uuid;

use super::Runners;
use super::input::{Answer, Call, Decision, Env, Input, Patch, Refused};
use super::record::{Change, GuestRecord, JobRecord, Owner, Step, Work};
use crate::local::action;
use crate::local::check::{self, MOST_LABELS};

/// The state of a guest whose making has not ended.
pub(crate) const STATE_CREATE: &str = "create";
/// The state of a guest that could not be made, of which nothing is left.
pub(crate) const STATE_ERROR: &str = "error";

/// A decision being made: the runners as they are, under what was decided so far.
pub(super) struct Draft<'a> {
    pub(super) base: &'a Runners,
    pub(super) now: WallMs,
    pub(super) changes: Vec<Change>,
    pub(super) calls: Vec<Call>,
    /// Jobs that have ended, with what waits behind them not yet begun.
    pub(super) freed: Vec<JobRecord>,
}

impl Runners {
    /// What follows from an input. Reads only.
    ///
    /// # Errors
    /// [`Refused`] when the input must not be followed; then nothing changes.
    pub(crate) fn decide(&self, input: Input, env: &Env) -> Result<Decision, Refused> {
        let (changes, calls, freed) = Default::default();
        let mut draft = Draft { base: self, now: env.now, changes, calls, freed };
        let answer = match input {
            Input::Boot => draft.boot(),
            Input::Create { guest, job } => draft.create(*guest, job)?,
            Input::Act { guest, action, job } => draft.act(guest, &action, job)?,
            Input::Image { action, request, job } => {
                draft.enqueue(Owner::of_image(&request.id), action, Work::Image(*request), job)?;
                Answer::Queued { job, guest: None }
            }
            Input::Snapshot { guest, action, request, job } => {
                draft.made(guest)?;
                draft.enqueue(Owner::Guest(guest), action, Work::Snapshot(request), job)?;
                Answer::Queued { job, guest: None }
            }
            Input::PatchGuest { guest, patch } => draft.patch_guest(guest, &patch)?,
            Input::PatchAgent { patch } => draft.patch_agent(&patch)?,
            Input::Taken { guest, action, job } => draft.note(Owner::Guest(guest), action, job),
            Input::Seen { guest, state, next_seq } => draft.seen(guest, state, next_seq),
            Input::Cancel { job } => draft.cancel(job)?,
            Input::Ended { seq, step, outcome } => draft.ended(seq, &step, outcome),
        };
        draft.begin_waiting();
        draft.prune();
        Ok(Decision { changes: draft.changes, calls: draft.calls, answer })
    }
}

impl Draft<'_> {
    /// The guest as decided so far.
    pub(super) fn guest(&self, id: Uuid) -> Option<&GuestRecord> {
        for change in self.changes.iter().rev() {
            match change {
                Change::PutGuest(changed, record) if *changed == id => return Some(record),
                Change::DropGuest(changed) if *changed == id => return None,
                _ => {}
            }
        }
        self.base.guest(id)
    }

    fn existing(&self, id: Uuid) -> Result<&GuestRecord, Refused> {
        self.guest(id).ok_or(Refused::NoSuchGuest(id))
    }

    /// The guest, unless it could not be made.
    fn made(&self, id: Uuid) -> Result<&GuestRecord, Refused> {
        let record = self.existing(id)?;
        if record.left.is_some() { Err(Refused::NotMade(id)) } else { Ok(record) }
    }

    /// The owner's jobs that have not ended, before this decision.
    pub(super) fn open(&self, owner: Owner) -> impl Iterator<Item = &JobRecord> {
        let open = self.base.open.get(&owner).into_iter().flatten();
        open.filter_map(|seq| self.base.records.jobs.get(seq))
    }

    fn create(&mut self, asked: Guest, job: Uuid) -> Result<Answer, Refused> {
        let id = Uuid::parse_str(&asked.id).map_err(|_| Refused::NoSuchGuest(Uuid::nil()))?;
        let owner = Owner::Guest(id);
        if let Some(record) = self.guest(id) {
            let is_failed = record.left.is_some() && self.open(owner).next().is_none();
            if !is_failed {
                return self.create_again(id, record.clone(), &asked, job);
            }
        }
        self.check_macs(id, &asked)?;
        let guest = Guest { state: STATE_CREATE.to_owned(), ..asked.clone() };
        let record = GuestRecord { guest: guest.clone(), asked, create_job: job, left: None };
        let action = action::full_name("create", guest.is_container());
        self.changes.push(Change::PutGuest(id, Box::new(record)));
        self.enqueue(owner, action, Work::Guest, job)?;
        Ok(Answer::Queued { job, guest: Some(Box::new(guest)) })
    }

    /// A guest of the id is there: asked for as it was, it is the same request.
    fn create_again(
        &mut self,
        id: Uuid,
        mut record: GuestRecord,
        asked: &Guest,
        job: Uuid,
    ) -> Result<Answer, Refused> {
        let owner = Owner::Guest(id);
        if self.open(owner).any(|job| action::deletes(&job.action)) {
            return Err(Refused::BeingDeleted(id));
        }
        if record.asked != *asked {
            return Err(Refused::Exists(id));
        }
        let guest = Some(Box::new(record.guest.clone()));
        if self.base.job(record.create_job).is_none() {
            // Dropped from the log, and a client polls for it.
            let action = action::full_name("create", record.guest.is_container());
            self.note(owner, action, job);
            record.create_job = job;
            self.changes.push(Change::PutGuest(id, Box::new(record.clone())));
        }
        Ok(Answer::Queued { job: record.create_job, guest })
    }

    /// Two guests of one MAC would take each other's packets, and the deletion of one the other's network.
    fn check_macs(&self, id: Uuid, asked: &Guest) -> Result<(), Refused> {
        let macs: BTreeSet<Mac> = check::macs(asked).collect();
        // Of one that could not be made, and of which nothing is left, there is no nic.
        let is_there = |record: &GuestRecord| record.left.as_ref().is_none_or(|left| !left.is_empty());
        let guests = self.base.records.guests.iter();
        for (guest, record) in guests.filter(|(guest, record)| **guest != id && is_there(record)) {
            if let Some(mac) = check::macs(&record.guest).find(|mac| macs.contains(mac)) {
                return Err(Refused::MacTaken { mac, guest: *guest });
            }
        }
        Ok(())
    }

    fn act(&mut self, id: Uuid, base: &str, job: Uuid) -> Result<Answer, Refused> {
        let record = if action::deletes(base) { self.existing(id)? } else { self.made(id)? };
        let guest = record.guest.clone();
        let action = action::full_name(base, guest.is_container());
        self.enqueue(Owner::Guest(id), action, Work::Guest, job)?;
        Ok(Answer::Queued { job, guest: Some(Box::new(guest)) })
    }

    fn enqueue(&mut self, owner: Owner, action: String, work: Work, id: Uuid) -> Result<(), Refused> {
        if self.base.plan.stages(&action).is_none() {
            return Err(Refused::NotConfigured(action));
        }
        let of = |owner: &Owner| self.base.open.get(owner).map_or(0, BTreeSet::len);
        let open = of(&owner);
        let counted = match owner {
            // However many images there are: all of them together.
            Owner::Image(_) => {
                self.base.open.keys().filter(|owner| matches!(owner, Owner::Image(_))).map(of).sum()
            }
            Owner::Agent | Owner::Guest(_) => open,
        };
        let waiting = u32::try_from(counted.saturating_sub(1)).unwrap_or(u32::MAX);
        if waiting >= self.base.plan.limits.queue {
            return Err(Refused::QueueFull { owner, waiting });
        }
        let job = self.job(owner, action, work, id);
        match open {
            0 => self.start(job),
            _ => self.changes.push(Change::PutJob(Box::new(job))),
        }
        Ok(())
    }

    fn job(&self, owner: Owner, action: String, work: Work, id: Uuid) -> JobRecord {
        JobRecord {
            seq: self.base.next_seq,
            id,
            owner,
            action,
            work,
            step: Step::Forward(0),
            stages: Vec::new(),
            status: Status::Queued,
            message: String::new(),
            left: Vec::new(),
            again: false,
            held_by: None,
            queued_at: self.now,
            started_at: None,
            updated_at: self.now,
        }
    }

    fn note(&mut self, owner: Owner, action: String, id: Uuid) -> Answer {
        let mut job = self.job(owner, action, Work::Guest, id);
        job.started_at = Some(self.now);
        self.put_ended(job, Status::Complete, String::new());
        Answer::Nothing
    }

    /// Nothing when something is done with the guest, or was done since it was looked at: the stages say the state.
    fn seen(&mut self, id: Uuid, state: String, next_seq: u64) -> Answer {
        let owner = Owner::Guest(id);
        let mut since = self.base.records.jobs.range(next_seq..);
        let is_old = self.base.is_busy(owner) || since.any(|(_, job)| job.owner == owner);
        let record = self.guest(id).filter(|record| record.left.is_none() && record.guest.state != state);
        if let Some(mut record) = record.cloned()
            && !is_old
        {
            record.guest.state = state;
            self.changes.push(Change::PutGuest(id, Box::new(record)));
        }
        Answer::Nothing
    }

    fn patch_guest(&mut self, id: Uuid, patch: &Patch) -> Result<Answer, Refused> {
        let mut record = self.existing(id)?.clone();
        for (key, value) in patch {
            match value {
                Some(value) => record.guest.metadata.insert(key.clone(), value.clone()),
                None => record.guest.metadata.remove(key),
            };
        }
        let labels = record.guest.metadata.clone();
        check_labels(self.existing(id)?.guest.metadata.len(), labels.len())?;
        self.changes.push(Change::PutGuest(id, Box::new(record)));
        Ok(Answer::Labels(labels))
    }

    fn patch_agent(&mut self, patch: &Patch) -> Result<Answer, Refused> {
        let mut labels: BTreeMap<String, String> = self.base.labels().clone();
        for (key, value) in patch {
            match value {
                Some(value) => labels.insert(key.clone(), value.clone()),
                None => labels.remove(key),
            };
            self.changes.push(Change::Label(key.clone(), value.clone()));
        }
        check_labels(self.base.labels().len(), labels.len())?;
        Ok(Answer::Labels(labels))
    }

    fn cancel(&mut self, id: Uuid) -> Result<Answer, Refused> {
        let job = self.base.job(id).ok_or(Refused::NoSuchJob(id))?.clone();
        match job.status {
            Status::Queued => {}
            Status::Running => return Err(Refused::HasBegun(id)),
            Status::Complete | Status::Error => return Err(Refused::HasEnded(id)),
        }
        let job = self.put_ended(job, Status::Error, "cancelled before it began".to_owned());
        Ok(Answer::Job(Box::new(job.job())))
    }

    fn boot(&mut self) -> Answer {
        for owner in self.base.open.keys() {
            let first = self.open(*owner).next().cloned();
            if let Some(job) = first {
                self.resume(job);
            }
        }
        Answer::Nothing
    }

    /// Puts the job, ended.
    pub(super) fn put_ended(&mut self, mut job: JobRecord, status: Status, message: String) -> JobRecord {
        (job.status, job.message, job.updated_at) = (status, message, self.now);
        self.changes.push(Change::PutJob(Box::new(job.clone())));
        job
    }

    /// Drops the oldest ended jobs above the limit.
    fn prune(&mut self) {
        let newly = |change: &&Change| matches!(change, Change::PutJob(job) if job.status.has_ended());
        let ended = self.base.ended.len() + self.changes.iter().filter(newly).count();
        let keep = usize::try_from(self.base.plan.limits.jobs).unwrap_or(usize::MAX);
        let oldest = self.base.ended.iter().take(ended.saturating_sub(keep));
        self.changes.extend(oldest.map(|seq| Change::DropJob(*seq)));
    }
}

/// Too many may still be made fewer: a sub-agent may have added some.
fn check_labels(before: usize, after: usize) -> Result<(), Refused> {
    if after > MOST_LABELS && after > before { Err(Refused::TooManyLabels(after)) } else { Ok(()) }
}
