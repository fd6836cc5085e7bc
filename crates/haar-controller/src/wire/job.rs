//! Jobs: core → wire.

use std::sync::Arc;

use haar_api::v1::{JobView, StepView};
use haar_core::fence::Revision;
use haar_core::fleet::Fleet;
use haar_core::id::Kind;
use haar_core::job::{Job, Status, Step, StepState};
use haar_core::name::Name;
use uuid::Uuid;

use super::look::Look;
use super::{Noun, time};

/// The noun.
pub(crate) struct Jobs;

/// The status's word on the wire.
pub(crate) fn status(status: Status) -> &'static str {
    match status {
        Status::New => "new",
        Status::Working => "working",
        Status::Done => "done",
        Status::Error => "error",
    }
}

fn step(step: &Step) -> StepView {
    StepView {
        stage: step.stage.as_str().to_owned(),
        state: match step.state {
            StepState::Waiting => "waiting",
            StepState::Running => "running",
            StepState::Done => "done",
            StepState::Failed => "failed",
            StepState::Undone => "undone",
        }
        .to_owned(),
        started_at: step.started_at.map(time),
        ended_at: step.ended_at.map(time),
        message: step.message.clone(),
    }
}

impl Noun for Jobs {
    const KIND: Kind = Kind::Job;
    type Record = Job;
    type View = JobView;

    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<Job>> {
        fleet.job(id.into())
    }

    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<Job>> + '_> {
        Box::new(fleet.jobs_from(id.map(Into::into)))
    }

    fn id(record: &Job) -> Uuid {
        record.id.0
    }

    fn name(_: &Job) -> (Option<&Name>, Option<&Name>) {
        (None, None)
    }

    fn revision(record: &Job) -> Revision {
        record.revision
    }

    fn view(record: &Job, look: &Look<'_>) -> JobView {
        let failure = record.error.clone();
        let (code, error, next) = match failure {
            Some(failure) => (Some(failure.code), Some(failure.message), Some(failure.next)),
            None => (None, None, None),
        };
        JobView {
            id: record.id,
            remote: String::new(),
            action: record.action.as_str().to_owned(),
            guest: record.guest,
            guest_name: record.guest_name.to_string(),
            error,
            code,
            next,
            status: status(record.status).to_owned(),
            hypervisor: record.hypervisor,
            hypervisor_name: look.name_some(Kind::Hypervisor, record.hypervisor.map(|id| id.0)),
            steps: record.steps.iter().map(step).collect(),
            tries: record.tries,
            revision: record.revision,
            created_at: time(record.created_at),
            started_at: record.started_at.map(time),
            finished_at: record.finished_at.map(time),
        }
    }
}
