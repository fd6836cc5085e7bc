//! The stages of a job: which comes next, what an answer changes, and what is taken back.

use haar_api::agent::{Guest, Status};
use uuid::Uuid;

use super::decide::{Draft, STATE_ERROR};
use super::input::{Answer, Call, Outcome, Params, Why};
use super::quiesce::Phase;
use super::record::{Change, JobRecord, Owner, Step, Work};
use crate::local::action::{self, Again};
use crate::local::config::Stage;

impl Draft<'_> {
    /// Begins a job.
    pub(super) fn start(&mut self, mut job: JobRecord) {
        job.status = Status::Running;
        job.started_at = Some(self.now);
        let is_failed = matches!(job.owner, Owner::Guest(id) if self.left(id).is_some());
        if is_failed && !action::deletes(&job.action) {
            let message = format!("guest {} could not be made, its create job says why", job.owner);
            return self.finish(job, Status::Error, message);
        }
        self.next(job, 0);
    }

    /// Where something of a guest that could not be made may be left; None: it was made, or is being made.
    fn left(&self, id: Uuid) -> Option<&[String]> {
        self.guest(id)?.left.as_deref()
    }

    /// Takes up a job that the agent's end left open.
    pub(super) fn resume(&mut self, mut job: JobRecord) {
        if job.status == Status::Queued {
            return self.start(job);
        }
        if let Step::Quiesce(at, phase) = job.step {
            return self.resume_quiesced(job, at, phase);
        }
        if let (Step::Forward(at), Again::Unsafe) = (&job.step, action::again(&job.action)) {
            let method = self.base.plan.stages(&job.action).and_then(|stages| stages.get(*at));
            let method = method.map_or(job.action.as_str(), |stage| stage.method.as_str());
            let message = format!(
                "the agent ended while {method} was under way; it is not known whether it took effect, and it is not asked twice"
            );
            return self.finish(job, Status::Error, message);
        }
        job.again = true;
        self.go_on(job);
    }

    /// Calls the stage the job is at, or ends it when there is none.
    pub(super) fn go_on(&mut self, mut job: JobRecord) {
        let pipeline = match &job.step {
            Step::Forward(_) | Step::Quiesce(..) => job.action.clone(),
            Step::Undo(_) => action::full_name("delete", job.action.starts_with("container")),
        };
        let stages = self.base.plan.stages(&pipeline).unwrap_or_default();
        if let Step::Quiesce(at, phase) = job.step {
            return self.call_quiesced(job, stages.get(at), phase);
        }
        let at = match &mut job.step {
            Step::Forward(at) | Step::Quiesce(at, _) => Some(*at),
            Step::Undo(left) => {
                left.retain(|at| *at < stages.len());
                left.first().copied()
            }
        };
        let stage = at.and_then(|at| stages.get(at)).cloned();
        match (stage, &job.step) {
            (Some(stage), _) => match self.params(&job) {
                Some(params) => self.call(job, stage, pipeline, params),
                None => self.finish(job, Status::Error, "its guest does not exist any more".to_owned()),
            },
            (None, Step::Undo(_)) => self.end_failed_create(job),
            (None, Step::Forward(_) | Step::Quiesce(..)) => {
                let message = format!("the action `{pipeline}` has no such stage any more");
                self.finish(job, Status::Error, message);
            }
        }
    }

    fn params(&self, job: &JobRecord) -> Option<Params> {
        Some(match (&job.work, job.owner) {
            (Work::Guest, Owner::Guest(id)) => Params::Guest(Box::new(self.guest(id)?.guest.clone())),
            (Work::Guest, Owner::Agent) => return None,
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
            // What is to be removed and is not there, or is somebody else's, is removed.
            Outcome::Failed { why: Why::Absent | Why::Foreign, .. } if action::deletes(&job.action) => {
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
        let method = self.base.plan.stages(&job.action).and_then(|stages| stages.get(at));
        let method = method.map_or("the stage", |stage| stage.method.as_str());
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
        let left = match job.owner {
            Owner::Guest(id) => self.left(id),
            Owner::Agent => None,
        };
        let is_called = |stage: &Stage| left.is_none_or(|left| left.contains(&stage.service));
        let stages = self.base.plan.stages(&job.action).unwrap_or_default().iter().enumerate();
        let next = stages.skip(at).find(|(_, stage)| is_called(stage)).map(|(at, _)| at);
        job.again = false;
        if let Some(at) = next {
            let stage = self.base.plan.stages(&job.action).and_then(|stages| stages.get(at));
            let is_quiesced = stage.is_some_and(|stage| self.is_quiesced(&job, stage));
            job.step = if is_quiesced { Step::Quiesce(at, Phase::Look) } else { Step::Forward(at) };
            return self.go_on(job);
        }
        if let (true, Owner::Guest(id)) = (action::deletes(&job.action), job.owner) {
            // In one commit with the job's end: who sees it complete finds no guest.
            self.changes.push(Change::DropGuest(id));
        }
        self.finish(job, Status::Complete, String::new());
    }

    /// `begun` stages may have left something.
    pub(super) fn failed(&mut self, mut job: JobRecord, begun: usize, message: String) {
        if !action::creates(&job.action) {
            return self.finish(job, Status::Error, message);
        }
        job.step = Step::Undo(self.undo_of(&job.action, begun));
        job.message = message;
        self.go_on(job);
    }

    /// The stages of the delete pipeline whose services had begun something, the failed one too: it may have half
    /// done its work. A delete runs against the order of a create already.
    fn undo_of(&self, action: &str, begun: usize) -> Vec<usize> {
        let begun = self.base.plan.stages(action).unwrap_or_default().iter().take(begun);
        let begun: Vec<&str> = begun.map(|stage| stage.service.as_str()).collect();
        let delete = action::full_name("delete", action.starts_with("container"));
        let stages = self.base.plan.stages(&delete).unwrap_or_default().iter().enumerate();
        stages.filter(|(_, stage)| begun.contains(&stage.service.as_str())).map(|(at, _)| at).collect()
    }

    fn undone(&mut self, mut job: JobRecord, left: &[usize], outcome: &Outcome) {
        if let Outcome::Failed { message, why: Why::Other | Why::Unfit | Why::Unheard | Why::Unreached } =
            outcome
        {
            // The rest is taken back all the same.
            let delete = action::full_name("delete", job.action.starts_with("container"));
            let stages = self.base.plan.stages(&delete).unwrap_or_default();
            job.left.extend(left.first().and_then(|at| stages.get(*at)).map(|stage| stage.service.clone()));
            job.message = format!("{}; it could not be taken back: {message}", job.message);
        }
        job.step = Step::Undo(left.iter().skip(1).copied().collect());
        self.go_on(job);
    }

    fn end_failed_create(&mut self, job: JobRecord) {
        if let Owner::Guest(id) = job.owner
            && let Some(mut record) = self.guest(id).cloned()
        {
            record.guest.state = STATE_ERROR.to_owned();
            record.left = Some(job.left.clone());
            self.changes.push(Change::PutGuest(id, Box::new(record)));
        }
        let message = job.message.clone();
        self.finish(job, Status::Error, message);
    }

    /// Ends a running job, and begins the owner's next one; when the owner is gone, what waits ends with a reason.
    fn finish(&mut self, job: JobRecord, status: Status, message: String) {
        let job = self.put_ended(job, status, message);
        let waiting: Vec<JobRecord> =
            self.open(job.owner).filter(|waiting| waiting.seq > job.seq).cloned().collect();
        let is_gone = matches!(job.owner, Owner::Guest(id) if self.guest(id).is_none());
        if is_gone {
            for waiting in waiting {
                let message = format!("guest {} was deleted by job {} before it", job.owner, job.id);
                self.put_ended(waiting, Status::Error, message);
            }
        } else if let Some(next) = waiting.into_iter().next() {
            self.start(next);
        }
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
