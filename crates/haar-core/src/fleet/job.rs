//! Jobs: begin, follow, end. A job always ends: each step has a deadline and a bounded number of tries.
//!
//! ```text
//!          report: steps            settled / gone
//!  new ──▶ working ───────────────▶ done
//!    └────────┴── failed, lost, superseded, overdue thrice ──▶ error
//! ```
//! An overdue create is taken back: its goal becomes `gone`, and its place is held until the node says that
//! nothing is there. Not so while the hypervisor has not reported since a restore: the books may be older
//! than the guest's data.

use super::command::Decided;
use super::draft::{Draft, not_found};
use crate::fence::{MonoMs, WallMs};
use crate::guest::{Goal, GoalBy, Guest, State};
use crate::id::{HypervisorId, JobId, Kind};
use crate::job::{Action, Failure, Job, Stage, Status, Step, StepState};
use crate::order::StepReport;

/// How often an overdue step is asked for again.
pub(super) const MOST_TRIES: u32 = 3;
/// Steps kept of one job.
const MOST_STEPS: usize = 32;

impl Action {
    /// Whether it makes the guest's disks: when it fails, the place is given back.
    pub(super) fn makes(self) -> bool {
        matches!(self, Action::Create | Action::Recreate)
    }

    /// The steps a job begins with; what a node tells besides is added.
    fn stages(self, start: bool) -> Vec<Stage> {
        match self {
            Action::Create | Action::Recreate => {
                let mut stages = vec![
                    Stage::Place,
                    Stage::Image,
                    Stage::Disks,
                    Stage::Seed,
                    Stage::Network,
                    Stage::Define,
                ];
                stages.extend(start.then_some(Stage::Start));
                stages
            }
            Action::Delete => {
                vec![Stage::Poweroff, Stage::Undefine, Stage::Unseed, Stage::Undisk, Stage::Release]
            }
            Action::Start => vec![Stage::Start],
            Action::Shutdown => vec![Stage::Shutdown],
            Action::Poweroff => vec![Stage::Poweroff],
            Action::Reboot => vec![Stage::Reboot],
        }
    }
}

/// Begins a job for a guest as it shall be from now on; the caller puts the guest with this job.
pub(super) fn begin(draft: &mut Draft<'_>, guest: &Guest, action: Action) -> JobId {
    let id = draft.new_job_id();
    let wall = draft.env.wall;
    let steps = action.stages(guest.goal == Goal::Running).into_iter().map(|stage| Step {
        stage,
        state: if stage == Stage::Place { StepState::Done } else { StepState::Waiting },
        started_at: (stage == Stage::Place).then_some(wall),
        ended_at: (stage == Stage::Place).then_some(wall),
        message: String::new(),
    });
    let mut job = Job {
        id,
        action,
        guest: guest.id,
        guest_name: guest.spec.name.clone(),
        hypervisor: guest.place.map(|place| place.hypervisor),
        order: guest.order,
        status: Status::New,
        steps: steps.collect(),
        error: None,
        tries: 0,
        reached: 0,
        due: draft.env.now.after(draft.fleet.config.job_step_ms()),
        revision: draft.revision(),
        created_at: wall,
        started_at: None,
        finished_at: None,
    };
    job.reached = count_done(&job);
    draft.put_job(job);
    id
}

/// Notes what a node tells of its steps. A step done for the first time renews the deadline and the tries;
/// a step that tells of more work done renews the deadline. A pipeline that begins anew is no progress until
/// it is further than ever: else a step that fails for ever would keep its job open for ever.
pub(super) fn follow(draft: &mut Draft<'_>, guest: &Guest, reports: &[StepReport]) {
    let Some(present) = draft.open_job(guest) else { return };
    let mut job = present.clone();
    let wall = draft.env.wall;
    let is_further = is_working_on(&job, reports);
    for report in reports.iter().take(MOST_STEPS) {
        note_step(&mut job.steps, report, wall);
    }
    if job.status == Status::New {
        job.status = Status::Working;
        job.started_at = Some(wall);
    }
    if job == *present {
        return;
    }
    let done = count_done(&job);
    if done > job.reached {
        (job.reached, job.tries) = (done, 0);
    }
    if done > present.reached || is_further || present.status == Status::New {
        job.due = draft.env.now.after(draft.fleet.config.job_step_ms());
    }
    job.revision = draft.revision();
    draft.put_job(job);
}

fn count_done(job: &Job) -> u32 {
    job.steps.iter().map(|step| u32::from(step.state == StepState::Done)).sum()
}

/// Whether a step that was under way before says something new, and none has to be done a second time.
fn is_working_on(job: &Job, reports: &[StepReport]) -> bool {
    count_done(job) == job.reached
        && reports.iter().any(|report| {
            let runs = |step: &&Step| step.stage == report.stage && step.state == StepState::Running;
            report.state == StepState::Running
                && job.steps.iter().find(runs).is_some_and(|step| step.message != shortened(&report.message))
        })
}

fn note_step(steps: &mut Vec<Step>, report: &StepReport, wall: WallMs) {
    let index = match steps.iter().position(|step| step.stage == report.stage) {
        Some(index) => index,
        None if steps.len() >= MOST_STEPS => return,
        None => {
            steps.push(Step {
                stage: report.stage,
                state: StepState::Waiting,
                started_at: None,
                ended_at: None,
                message: String::new(),
            });
            steps.len() - 1
        }
    };
    let step = &mut steps[index];
    let message = shortened(&report.message);
    if step.state == report.state && step.message == message {
        return;
    }
    step.state = report.state;
    step.message = message;
    match report.state {
        StepState::Waiting => {}
        StepState::Running => {
            step.started_at = step.started_at.or(Some(wall));
            step.ended_at = None;
        }
        StepState::Done | StepState::Failed | StepState::Undone => {
            step.started_at = step.started_at.or(Some(wall));
            step.ended_at = Some(wall);
        }
    }
}

/// At most 1,000 characters: what others say must not fill the books.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(1000).collect()
}

/// Ends a guest's open job well, if there is one.
pub(super) fn end_well(draft: &mut Draft<'_>, guest: &Guest) {
    let Some(present) = draft.open_job(guest) else { return };
    let mut job = present.clone();
    let wall = draft.env.wall;
    for step in &mut job.steps {
        if matches!(step.state, StepState::Waiting | StepState::Running) {
            step.state = StepState::Done;
            step.started_at = step.started_at.or(Some(wall));
            step.ended_at = Some(wall);
        }
    }
    end(draft, job, Status::Done);
}

/// Ends a guest's open job badly, if there is one.
pub(super) fn end_badly(draft: &mut Draft<'_>, guest: &Guest, failure: Failure) {
    let Some(present) = draft.open_job(guest) else { return };
    let mut job = present.clone();
    let at_fault = job.steps.iter().position(|step| step.state == StepState::Running);
    let at_fault = at_fault.filter(|_| !job.steps.iter().any(|step| step.state == StepState::Failed));
    if let Some(index) = at_fault {
        let step = &mut job.steps[index];
        step.state = StepState::Failed;
        step.ended_at = Some(draft.env.wall);
        step.message = failure.message.clone();
    }
    job.error = Some(failure);
    end(draft, job, Status::Error);
}

fn end(draft: &mut Draft<'_>, mut job: Job, status: Status) {
    let wall = draft.env.wall;
    job.status = status;
    job.started_at = job.started_at.or(Some(wall));
    job.finished_at = Some(wall);
    job.revision = draft.revision();
    draft.put_job(job);
}

/// A step is overdue: it is asked for again, at most [`MOST_TRIES`] times; then the job ends in error.
pub(super) fn overdue(mut draft: Draft<'_>, id: JobId, due: MonoMs) -> Decided {
    let present = draft.fleet.job(id).ok_or_else(|| not_found(Kind::Job, id))?;
    let is_late = !present.status.ended() && present.due == due && due <= draft.env.now;
    if !is_late {
        return Ok(draft.finish_as_it_is(Kind::Job, id.0));
    }
    if present.tries < MOST_TRIES {
        let mut job = Job::clone(present);
        job.tries += 1;
        job.due = draft.env.now.after(draft.fleet.config.job_step_ms());
        job.revision = draft.revision();
        draft.put_job(job);
        return Ok(draft.finish_as_it_is(Kind::Job, id.0));
    }
    let failure = why_overdue(&draft, present);
    let waits = draft.fleet.guest(present.guest).filter(|guest| guest.job == Some(id));
    match waits {
        Some(guest) => {
            end_badly(&mut draft, guest, failure.clone());
            give_up(&mut draft, guest, present.action, &failure);
        }
        None => {
            let mut job = Job::clone(present);
            job.error = Some(failure);
            end(&mut draft, job, Status::Error);
        }
    }
    Ok(draft.finish_as_it_is(Kind::Job, id.0))
}

/// What becomes of the guest whose job is overdue for good.
fn give_up(draft: &mut Draft<'_>, guest: &Guest, action: Action, failure: &Failure) {
    let mut changed = guest.clone();
    changed.reason = failure.message.clone();
    changed.updated_at = draft.env.wall;
    let may_undo = action.makes()
        && guest.provisioned.is_none()
        && guest.place.is_some_and(|place| has_reported(draft, place.hypervisor));
    if may_undo {
        changed.goal = Goal::Gone;
        changed.goal_by = GoalBy::Undo;
        changed.state = State::Deleting;
        changed.order = draft.fence;
        changed.deed = None;
    }
    draft.put_guest(changed);
}

fn has_reported(draft: &Draft<'_>, hypervisor: HypervisorId) -> bool {
    let record = draft.fleet.hypervisor(hypervisor);
    record.is_some_and(|record| record.reported_epoch == Some(draft.fleet.fence.epoch))
}

fn why_overdue(draft: &Draft<'_>, job: &Job) -> Failure {
    let name = job
        .hypervisor
        .and_then(|id| draft.fleet.hypervisor(id))
        .map_or_else(|| "(none)".to_owned(), |record| record.spec.name.to_string());
    let alive = job.hypervisor.is_some_and(|id| draft.env.alive.is_alive(id));
    let minutes = draft.fleet.config.job_step_ms().saturating_mul(u64::from(MOST_TRIES + 1)) / 1000;
    if alive {
        let step = job.steps.iter().find(|step| !matches!(step.state, StepState::Done | StepState::Undone));
        let step = step.map_or("its work", |step| step.stage.as_str());
        Failure {
            code: "no_progress".to_owned(),
            message: format!("hypervisor `{name}` made no progress with {step} for {minutes} s"),
            next: format!("look at the agent's log on `{name}`, then try again"),
        }
    } else {
        Failure {
            code: "hypervisor_silent".to_owned(),
            message: format!("hypervisor `{name}` has been silent for {minutes} s"),
            next: format!("see whether `{name}` is up; if it will not come back, declare it lost"),
        }
    }
}
