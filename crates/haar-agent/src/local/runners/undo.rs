//! What becomes of a job that failed: a create is taken back, as far as it came.

use haar_api::agent::Status;

use super::decide::{Draft, STATE_ERROR};
use super::input::{Outcome, Why};
use super::record::{Change, JobRecord, Owner, Step};
use crate::local::action;

impl Draft<'_> {
    /// `begun` of its stages may have left something.
    pub(super) fn failed(&mut self, mut job: JobRecord, begun: usize, message: String) {
        if !action::creates(&job.action) {
            return self.finish(job, Status::Error, message);
        }
        let undo = self.undo_of(&job, begun);
        self.put_at(&mut job, Step::Undo(undo));
        job.message = message;
        self.go_on(job);
    }

    /// The stages of the delete pipeline whose services had begun something, the failed one too: it may have half
    /// done its work. A delete runs against the order of a create already.
    fn undo_of(&self, job: &JobRecord, begun: usize) -> Vec<usize> {
        let has_begun = |service: &str| job.stages.iter().take(begun).any(|stage| stage.service == service);
        let stages = self.stages(&job.undoing()).iter().enumerate();
        stages.filter(|(_, stage)| has_begun(&stage.service)).map(|(at, _)| at).collect()
    }

    /// A stage that takes something back has ended. Whatever came of it, the rest is taken back all the same.
    pub(super) fn undone(&mut self, mut job: JobRecord, left: &[usize], outcome: &Outcome) {
        if let Outcome::Failed { message, why } = outcome
            && *why != Why::Absent
        {
            job.left.extend(job.stages.first().map(|stage| stage.service.clone()));
            // Most likely somebody else's, whom it met; but its own may be held by something, and a delete asks again.
            if *why != Why::Foreign {
                job.message = format!("{}; it could not be taken back: {message}", job.message);
            }
        }
        let left = left.iter().skip(1).copied().collect();
        self.put_at(&mut job, Step::Undo(left));
        self.go_on(job);
    }

    pub(super) fn end_failed_create(&mut self, job: JobRecord) {
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
}
