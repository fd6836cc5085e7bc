//! The stages of a job: which comes next, what an answer changes, and what waits behind it.
//!
//! A job keeps the names of the stages that its step speaks of: after a restart the file of actions may be another.

use haar_api::agent::{Guest, Status};
use uuid::Uuid;

use super::decide::Draft;
use super::input::{Answer, Call, Outcome, Params, Why};
use super::quiesce::Phase;
use super::record::{Change, JobRecord, Owner, StageName, Step, Work};
use crate::local::action::{self, Again};
use crate::local::config::Stage;

impl<'a> Draft<'a> {
    /// The stages of an action; none when it is not configured.
    pub(super) fn stages(&self, action: &str) -> &'a [Stage] {
        self.base.plan.stages(action).unwrap_or_default()
    }

    /// Begins a job.
    pub(super) fn start(&mut self, mut job: JobRecord) {
        job.status = Status::Running;
        job.started_at = Some(self.now);
        match self.hindrance(&job) {
            Some(message) => self.failed(job, 0, message),
            None => self.next(job, 0),
        }
    }

    /// Why a job that waited cannot begin.
    fn hindrance(&self, job: &JobRecord) -> Option<String> {
        let stages = self.stages(&job.action);
        let Some(left) = self.left_of(job) else {
            let is_gone = stages.is_empty();
            return is_gone.then(|| format!("the action `{}` has no stages configured any more", job.action));
        };
        if !action::deletes(&job.action) {
            return Some(format!("guest {} could not be made, its create job says why", job.owner));
        }
        let is_passed_over = |service: &&String| stages.iter().all(|stage| stage.service != **service);
        let service = left.iter().find(is_passed_over)?;
        Some(format!(
            "something of guest {} may be left with the service `{service}`, which `{}` has no stage of",
            job.owner, job.action
        ))
    }

    /// Where something of its guest, which could not be made, may be left; None: it was made, or is being made.
    fn left_of(&self, job: &JobRecord) -> Option<&[String]> {
        match job.owner {
            Owner::Guest(id) => self.guest(id)?.left.as_deref(),
            Owner::Agent | Owner::Image(_) => None,
        }
    }

    /// Puts the job at a step, with what its numbers mean now.
    pub(super) fn put_at(&self, job: &mut JobRecord, step: Step) {
        job.step = step;
        job.stages = self.names(job);
    }

    /// The names of the stages that its step speaks of: those it has begun, or those that are left to be called.
    fn names(&self, job: &JobRecord) -> Vec<StageName> {
        let stages = self.stages(&job.pipeline());
        match &job.step {
            Step::Forward(at) | Step::Quiesce(at, _) => {
                stages.iter().take(at + 1).map(StageName::of).collect()
            }
            Step::Undo(left) => left.iter().filter_map(|at| stages.get(*at)).map(StageName::of).collect(),
        }
    }

    /// Takes up a job that the agent's end left open.
    pub(super) fn resume(&mut self, mut job: JobRecord) {
        if job.status == Status::Queued {
            return self.start(job);
        }
        if let Step::Quiesce(at, phase) = job.step {
            return self.resume_quiesced(job, at, phase);
        }
        if job.stages.is_empty() {
            // Of a release that did not keep them.
            job.stages = self.names(&job);
        }
        if let (Step::Forward(_), Again::Unsafe) = (&job.step, action::again(&job.action)) {
            let method = job.stages.last().map_or(job.action.as_str(), |stage| stage.method.as_str());
            let message = format!(
                "the agent ended while {method} was under way; it is not known whether it took effect, and it is not asked twice"
            );
            return self.finish(job, Status::Error, message);
        }
        if job.stages != self.names(&job) {
            return self.lose_the_way(job);
        }
        job.again = true;
        self.go_on(job);
    }

    /// The file of actions was changed while the agent was away, so that nobody knows what comes next.
    fn lose_the_way(&mut self, mut job: JobRecord) {
        let message = format!("the stages of `{}` were changed while it was under way", job.pipeline());
        if let Step::Undo(_) = job.step {
            job.left.extend(job.stages.iter().map(|stage| stage.service.clone()));
            job.message = format!("{}; it could not be taken back: {message}", job.message);
            return self.end_failed_create(job);
        }
        // What no stage takes back any more may be left.
        let undo = self.stages(&job.undoing());
        let is_kept = |service: &String| undo.iter().all(|stage| stage.service != *service);
        job.left.extend(job.stages.iter().map(|stage| stage.service.clone()).filter(is_kept));
        let begun = job.stages.len();
        self.failed(job, begun, message);
    }

    /// Calls the stage the job is at, or ends it when there is none.
    pub(super) fn go_on(&mut self, job: JobRecord) {
        let pipeline = job.pipeline();
        let stages = self.stages(&pipeline);
        if let Step::Quiesce(at, phase) = job.step {
            return self.call_quiesced(job, stages.get(at), phase);
        }
        let at = match &job.step {
            Step::Forward(at) | Step::Quiesce(at, _) => Some(*at),
            Step::Undo(left) => left.first().copied(),
        };
        let stage = at.and_then(|at| stages.get(at)).cloned();
        match (stage, &job.step) {
            (Some(stage), _) => match self.params(&job) {
                Some(params) => self.call(job, stage, pipeline, params),
                None => self.finish(job, Status::Error, "its guest does not exist any more".to_owned()),
            },
            (None, Step::Undo(_)) => self.end_failed_create(job),
            (None, Step::Forward(_) | Step::Quiesce(..)) => {
                let begun = job.stages.len();
                self.failed(job, begun, format!("the action `{pipeline}` has no such stage any more"));
            }
        }
    }

    fn params(&self, job: &JobRecord) -> Option<Params> {
        Some(match (&job.work, job.owner) {
            (Work::Guest, Owner::Guest(id)) => Params::Guest(Box::new(self.guest(id)?.guest.clone())),
            (Work::Guest, Owner::Agent | Owner::Image(_)) => return None,
            (Work::Image(request), _) => Params::Image(Box::new(request.clone())),
            (Work::Snapshot(request), _) => Params::Snapshot(request.clone()),
        })
    }

    fn call(&mut self, mut job: JobRecord, stage: Stage, action: String, params: Params) {
        job.updated_at = self.now;
        self.calls.push(Call {
            seq: job.seq,
            step: job.step.clone(),
            owner: job.owner,
            action,
            service: stage.service,
            method: stage.method,
            args: stage.args,
            timeout: stage.timeout,
            params,
        });
        self.changes.push(Change::PutJob(Box::new(job)));
    }

    /// A stage has ended. What is told of a stage that the job is not at is of the past.
    pub(super) fn ended(&mut self, seq: u64, step: &Step, outcome: Outcome) -> Answer {
        let job = self.base.records.jobs.get(&seq).cloned();
        let Some(job) = job.filter(|job| job.status == Status::Running && job.step == *step) else {
            return Answer::Nothing;
        };
        let foreign = matches!(outcome, Outcome::Failed { why: Why::Foreign, .. });
        match step {
            Step::Forward(at) => match self.take(&job, *at, outcome) {
                Ok(()) => self.next(job, *at + 1),
                // What is somebody else's is not taken back: of the failed stage nothing is ours.
                Err(message) => self.failed(job, if foreign { *at } else { *at + 1 }, message),
            },
            Step::Undo(left) => self.undone(job, left, &outcome),
            Step::Quiesce(at, phase) => self.quiesced(job, *at, *phase, outcome),
        }
        Answer::Nothing
    }

    /// Takes over what the stage has given.
    fn take(&mut self, job: &JobRecord, at: usize, outcome: Outcome) -> Result<(), String> {
        let (sent, got) = match outcome {
            Outcome::Done | Outcome::Told(_) => return Ok(()),
            // What is to be removed and is not there is removed.
            Outcome::Failed { why: Why::Absent, .. } if action::deletes(&job.action) => return Ok(()),
            // What stands under the name of a guest that could not be made is somebody else's. Of one that was made
            // it is the guest's own, which something holds.
            Outcome::Failed { why: Why::Foreign, .. }
                if action::deletes(&job.action) && self.left_of(job).is_some() =>
            {
                return Ok(());
            }
            // Whether it was there the first time nobody knows; it is gone, as was asked.
            Outcome::Failed { why: Why::Absent, .. } if job.again && action::removes(&job.action) => {
                return Ok(());
            }
            Outcome::Failed { message, .. } => return Err(message),
            Outcome::Guest { sent, got } => (sent, got),
        };
        let Owner::Guest(id) = job.owner else { return Ok(()) };
        let Some(mut record) = self.guest(id).cloned() else { return Ok(()) };
        let method = self.stages(&job.action).get(at).map_or("the stage", |stage| stage.method.as_str());
        let Some(got) = got else { return Err(format!("{method} answered without the guest")) };
        if Uuid::parse_str(&got.id) != Ok(id) {
            return Err(format!("{method} answered with another guest, `{}`", shortened(&got.id)));
        }
        if got.is_container() != sent.is_container() {
            return Err(format!(
                "{method} answered with a guest of another type, `{}`",
                shortened(&got.kind)
            ));
        }
        record.guest = merged(*got, &sent, &record.guest);
        self.changes.push(Change::PutGuest(id, Box::new(record)));
        Ok(())
    }

    /// Goes on with the stage at this place or the first one after it that is called; without one the job is done.
    pub(super) fn next(&mut self, mut job: JobRecord, at: usize) {
        let left = self.left_of(&job);
        let is_called = |stage: &Stage| left.is_none_or(|left| left.contains(&stage.service));
        let mut stages = self.stages(&job.action).iter().enumerate().skip(at);
        job.again = false;
        if let Some((at, stage)) = stages.find(|(_, stage)| is_called(stage)) {
            let is_quiesced = self.is_quiesced(&job, stage);
            let step = if is_quiesced { Step::Quiesce(at, Phase::Look) } else { Step::Forward(at) };
            self.put_at(&mut job, step);
            return self.go_on(job);
        }
        if let (true, Owner::Guest(id)) = (action::deletes(&job.action), job.owner) {
            // In one commit with the job's end: who sees it complete finds no guest.
            self.changes.push(Change::DropGuest(id));
        }
        self.finish(job, Status::Complete, String::new());
    }

    /// Ends a running job; what waits behind it begins when all of this is decided.
    pub(super) fn finish(&mut self, job: JobRecord, status: Status, message: String) {
        let job = self.put_ended(job, status, message);
        self.freed.push(job);
    }

    /// Begins what waits behind each job that has ended; when its guest is gone, that ends with a reason. One after
    /// the other, for what cannot begin ends at once, and there may be thousands of it.
    pub(super) fn begin_waiting(&mut self) {
        while let Some(ended) = self.freed.pop() {
            let is_gone = matches!(ended.owner, Owner::Guest(id) if self.guest(id).is_none());
            let behind = if is_gone { usize::MAX } else { 1 };
            let waiting: Vec<JobRecord> = self.waiting(&ended).take(behind).cloned().collect();
            for waiting in waiting {
                if is_gone {
                    let message = format!("guest {} was deleted by job {} before it", ended.owner, ended.id);
                    self.put_ended(waiting, Status::Error, message);
                } else {
                    self.start(waiting);
                }
            }
        }
    }

    fn waiting(&self, ended: &JobRecord) -> impl Iterator<Item = &'a JobRecord> {
        let base = self.base;
        let open = base.open.get(&ended.owner).into_iter();
        let behind = ended.seq + 1..;
        open.flat_map(move |open| open.range(behind.clone())).filter_map(|seq| base.records.jobs.get(seq))
    }
}

/// What a stage gave back, with the labels that were changed since it was called. A state is never unlearned.
fn merged(mut got: Guest, sent: &Guest, now: &Guest) -> Guest {
    for (key, value) in &now.metadata {
        if sent.metadata.get(key) != Some(value) {
            got.metadata.insert(key.clone(), value.clone());
        }
    }
    for key in sent.metadata.keys().filter(|key| !now.metadata.contains_key(*key)) {
        got.metadata.remove(key);
    }
    if got.state.is_empty() {
        got.state.clone_from(&now.state);
    }
    got.id.clone_from(&now.id);
    got
}

/// A stranger's text as it may stand in a message.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
