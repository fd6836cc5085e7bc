//! Carrying orders out: which pipeline a guest needs, and one call after the other.
//!
//! ```text
//!             ┌── Due ──▶ pipeline ──all done──▶ Settled / Gone
//!   order ────┤             │ a stage fails for good
//!             │             ├── a create ──▶ Undoing ──all taken back──▶ Failed
//!             │             ├── `lost` ────▶ Lost
//!             │             └── else ──────▶ Failed
//!             └── a newer order: the call under way ends, then the next plan is made from what is known
//! ```
//! A run is memory only: after a restart it begins anew, for every stage may be asked twice.

use crate::fence::{Fence, MonoMs};
use crate::guest::Goal;
use crate::id::GuestId;
use crate::job::{Stage, StepState};
use crate::order::{GuestOrder, Power, StepReport};
use crate::pipeline::{Pipeline, Step, deadline_ms, most_tries, patience_ms, undo_of};

use super::Entry;
use super::desired::pending_deed;
use super::draft::Draft;
use super::input::{CallId, Effect, Fault, Outcome, StageCall};
use super::ledger::{Failure, GuestRecord, Made, Stand};

/// Between two questions how far a stage is, in milliseconds.
const ASK_AGAIN_MS: u64 = 2_000;
/// The longest wait between two tries of what is never given up, in milliseconds.
const MOST_WAIT_MS: u64 = 300_000;

/// A pipeline under way for a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    task: Task,
    /// What it was begun for; when that has changed, the run ends after its call.
    wanted: Wanted,
    stages: Vec<Stage>,
    index: usize,
    tries: u32,
    pub(crate) call: Option<CallId>,
    /// Not before.
    pub(crate) due: MonoMs,
    /// Furthest progress, and when it was reached.
    furthest: Option<(u64, MonoMs)>,
    /// Something had been made before it began: when it fails, everything is taken back.
    after_another: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Forward(Pipeline),
    /// Takes back a failed create.
    Undo,
    /// Removes an earlier life.
    Clear(Fence),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    life: Fence,
    fence: Fence,
    goal: Option<Goal>,
}

impl Wanted {
    fn of(record: &GuestRecord) -> Wanted {
        Wanted { life: record.life, fence: record.fence(), goal: record.goal() }
    }
}

impl Task {
    /// Whether its failures are never final.
    fn never_gives_up(self) -> bool {
        matches!(self, Task::Undo | Task::Clear(_) | Task::Forward(Pipeline::Remove))
    }
}

impl Draft<'_> {
    /// Does for a guest whatever can be done now: at most one call comes out of it.
    pub(crate) fn advance(&mut self, id: GuestId) {
        if !self.head.booted || self.head.observed_ask.is_none() {
            return;
        }
        loop {
            let now = self.now;
            let Some(entry) = self.entry(id) else { return };
            restart_if_due(entry, now);
            if entry.run.as_ref().is_some_and(|run| run.call.is_some()) {
                return;
            }
            let wanted = Wanted::of(&entry.record);
            if entry.run.as_ref().is_none_or(|run| run.wanted != wanted) {
                entry.run = plan(entry, wanted, now);
            }
            let Some(run) = &entry.run else { return };
            if run.due > now {
                return;
            }
            if let Some(&stage) = run.stages.get(run.index) {
                self.call(id, stage);
                return;
            }
            self.finish_run(id);
        }
    }

    fn call(&mut self, id: GuestId, stage: Stage) {
        let call = CallId(self.head.last_call + 1);
        let Some(entry) = self.entry(id) else { return };
        let (Some(run), Some(order)) = (&mut entry.run, &entry.record.order) else { return };
        let life = if let Task::Clear(life) = run.task { life } else { entry.record.life };
        let order = GuestOrder { life, provisioned: entry.record.provisioned, ..order.clone() };
        run.call = Some(call);
        if let Task::Forward(pipeline) = run.task {
            if pipeline.makes() && entry.record.made == Made::Nothing {
                entry.record.made = Made::Begun;
            }
            if stage == Stage::Reboot {
                entry.record.deed_begun = order.deed.map(|deed| deed.fence);
            }
        }
        note(entry, stage, StepState::Running, String::new());
        let effect = Effect::Call(Box::new(StageCall {
            call,
            stage,
            order,
            image: entry.record.image.clone(),
            network: entry.record.network.clone(),
            deadline_ms: deadline_ms(stage),
        }));
        self.head.last_call = call.0;
        self.effects.push(effect);
    }

    /// A call has ended: go on, ask again, or fail.
    pub(crate) fn ended(&mut self, call: CallId, outcome: &Outcome) {
        let node = self.node;
        let holder = node
            .guests
            .iter()
            .find(|(_, entry)| entry.run.as_ref().is_some_and(|run| run.call == Some(call)));
        let Some((&id, _)) = holder else { return };
        let (now, fresh) = (self.now, self.head.last_ask + 1);
        let Some(entry) = self.entry(id) else { return };
        entry.fresh_from_ask = fresh;
        let Some(run) = &mut entry.run else { return };
        run.call = None;
        let Some(&stage) = run.stages.get(run.index) else { return };
        let superseded = run.wanted != Wanted::of(&entry.record);
        match outcome {
            Outcome::Done => stage_done(entry, stage),
            Outcome::Progress { done, total } => {
                if let Some(fault) = stage_goes_on(entry, stage, *done, *total, now) {
                    self.stage_failed(id, stage, &fault);
                }
            }
            Outcome::Failed(fault) if is_absent_already(run.task, stage, fault) => stage_done(entry, stage),
            Outcome::Failed(fault) if !superseded => self.stage_failed(id, stage, fault),
            Outcome::Cancelled if !superseded => self.stage_failed(id, stage, &timed_out(stage)),
            Outcome::Failed(_) | Outcome::Cancelled => {}
        }
        self.advance(id);
    }

    fn stage_failed(&mut self, id: GuestId, stage: Stage, fault: &Fault) {
        let now = self.now;
        let Some(entry) = self.entry(id) else { return };
        let record = &entry.record;
        let lost = record.provisioned
            && (fault.code == "lost" || (stage == Stage::Inspect && fault.code == "not_found"));
        let Some(run) = &mut entry.run else { return };
        run.tries += 1;
        run.furthest = None;
        let again = fault.may_pass && run.tries < most_tries(stage);
        if run.task.never_gives_up() || (again && !lost) {
            run.due = now.after(wait_ms(run.tries));
            if run.task.never_gives_up() {
                // From the beginning: somebody may have started the guest that was just powered off.
                run.index = 0;
            }
            note(entry, stage, StepState::Running, format!("{}; tried again", fault.message));
            return;
        }
        note(entry, stage, StepState::Failed, fault.message.clone());
        let failure = Failure { stage, code: fault.code.clone(), message: fault.message.clone() };
        let Some(run) = entry.run.take() else { return };
        if lost {
            entry.record.stand = Stand::Lost(fault.message.clone());
            entry.power = Power::Unknown;
        } else if let Task::Forward(pipeline) = run.task
            && pipeline.makes()
            && !entry.record.provisioned
        {
            entry.record.stand = Stand::Undoing(failure);
            let last = if run.after_another { usize::MAX } else { run.index };
            entry.run = Some(undo_run(pipeline, last, &run));
        } else {
            entry.record.stand = Stand::Failed(failure);
        }
    }

    fn finish_run(&mut self, id: GuestId) {
        let Some(entry) = self.entry(id) else { return };
        let Some(run) = entry.run.take() else { return };
        let record = &mut entry.record;
        match run.task {
            Task::Clear(_) => record.leftover = None,
            Task::Undo => {
                if let Stand::Undoing(failure) = &record.stand {
                    record.stand = Stand::Failed(failure.clone());
                }
                record.made = Made::Nothing;
                entry.power = Power::Absent;
                note(entry, Stage::Undo, StepState::Done, String::new());
                self.bury(id);
            }
            Task::Forward(Pipeline::Remove) => {
                record.stand = Stand::Gone;
                record.made = Made::Nothing;
                entry.power = Power::Absent;
                self.bury(id);
            }
            Task::Forward(_) => {
                record.made = Made::Whole;
                record.provisioned = true;
                record.stand = Stand::Settled;
                // A deed that was begun and whose end nobody saw is not done again; one that came with a
                // start is done by it.
                record.deed_done = record.deed_begun.max(pending_deed(record)).max(record.deed_done);
            }
        }
    }
}

fn restart_if_due(entry: &mut Entry, now: MonoMs) {
    if entry.restart_due.is_some_and(|due| due <= now) && entry.run.is_none() {
        entry.restart_due = None;
        entry.restarts += 1;
        entry.restarted_at = now;
        entry.record.stand = Stand::Due;
        entry.steps.clear();
    }
}

/// What is to be run for a guest, from what is known of it.
fn plan(entry: &mut Entry, wanted: Wanted, now: MonoMs) -> Option<Run> {
    let record = &entry.record;
    record.order.as_ref()?;
    let run = |task, stages| Run {
        task,
        wanted,
        stages,
        index: 0,
        tries: 0,
        call: None,
        due: now,
        furthest: None,
        after_another: record.made != Made::Nothing,
    };
    if let Some(life) = record.leftover {
        return Some(run(Task::Clear(life), stages_of(Pipeline::Remove)));
    }
    match &record.stand {
        Stand::Undoing(_) => Some(undo_run(Pipeline::Create, usize::MAX, &run(Task::Undo, Vec::new()))),
        Stand::Due => {
            let pipeline = pipeline_for(record, entry.power);
            let run = run(Task::Forward(pipeline), stages_of(pipeline));
            let waiting = |stage: &Stage| StepReport {
                stage: *stage,
                state: StepState::Waiting,
                message: String::new(),
            };
            entry.steps = run.stages.iter().map(waiting).collect();
            Some(run)
        }
        Stand::Settled | Stand::Failed(_) | Stand::Lost(_) | Stand::Gone => None,
    }
}

fn undo_run(pipeline: Pipeline, last: usize, failed: &Run) -> Run {
    let steps: &[Step] = pipeline.steps();
    let last = last.min(steps.len() - 1);
    Run {
        task: Task::Undo,
        stages: undo_of(steps, last),
        index: 0,
        tries: 0,
        call: None,
        furthest: None,
        ..failed.clone()
    }
}

fn stages_of(pipeline: Pipeline) -> Vec<Stage> {
    pipeline.steps().iter().map(|step| step.stage).collect()
}

fn pipeline_for(record: &GuestRecord, power: Power) -> Pipeline {
    match (record.goal().unwrap_or(Goal::Gone), record.provisioned) {
        (Goal::Gone, _) => Pipeline::Remove,
        (Goal::Running, false) => Pipeline::Create,
        (Goal::Stopped | Goal::Off, false) if record.made == Made::Nothing => Pipeline::CreateOff,
        (Goal::Stopped | Goal::Off, false) => Pipeline::CreateThenOff,
        (Goal::Running, true) if pending_deed(record).is_some() && power == Power::Running => {
            Pipeline::Reboot
        }
        (Goal::Running, true) => Pipeline::Start,
        (Goal::Stopped, true) => Pipeline::Shutdown,
        (Goal::Off, true) => Pipeline::Poweroff,
    }
}

fn stage_done(entry: &mut Entry, stage: Stage) {
    let Some(run) = &mut entry.run else { return };
    run.index += 1;
    if !run.task.never_gives_up() {
        run.tries = 0;
    }
    run.furthest = None;
    let (task, last) = (run.task, run.index == run.stages.len());
    match stage {
        Stage::Define => entry.power = Power::Off,
        Stage::Start => entry.power = Power::Running,
        Stage::Shutdown | Stage::Poweroff if entry.power != Power::Absent => entry.power = Power::Off,
        Stage::Undefine => entry.power = Power::Absent,
        _ => {}
    }
    if let Task::Forward(pipeline) = task {
        if pipeline.makes() && last {
            // Even when a newer order waits: from here on the disks may hold data.
            entry.record.provisioned = true;
            entry.record.made = Made::Whole;
        } else if stage == Stage::Inspect {
            entry.record.made = Made::Whole;
        }
        note(entry, stage, StepState::Done, String::new());
    } else if task == Task::Undo {
        mark_undone(entry, stage);
    }
}

fn mark_undone(entry: &mut Entry, undone: Stage) {
    let made_by = Pipeline::Create.steps().iter().find(|step| step.undo == Some(undone));
    let Some(made_by) = made_by else { return };
    for step in &mut entry.steps {
        if step.stage == made_by.stage && step.state == StepState::Done {
            step.state = StepState::Undone;
        }
    }
}

/// A stage answered that it goes on; a fault when it has stood still for too long.
fn stage_goes_on(entry: &mut Entry, stage: Stage, done: u64, total: u64, now: MonoMs) -> Option<Fault> {
    let run = entry.run.as_mut()?;
    let (furthest, since) = run.furthest.unwrap_or((done, now));
    let since = if done > furthest { now } else { since };
    run.furthest = Some((done.max(furthest), since));
    run.due = now.after(ASK_AGAIN_MS);
    if now.0.saturating_sub(since.0) > patience_ms(stage) {
        run.tries = most_tries(stage);
        return Some(Fault {
            code: "timed_out".to_owned(),
            message: format!("`{}` has made no progress for {} s", stage.as_str(), patience_ms(stage) / 1000),
            may_pass: false,
        });
    }
    note(entry, stage, StepState::Running, progress(done, total));
    None
}

fn progress(done: u64, total: u64) -> String {
    match (done, total) {
        (0, 0) => String::new(),
        (done, 0) => format!("{done} bytes"),
        (done, total) => format!("{done} of {total} bytes"),
    }
}

fn timed_out(stage: Stage) -> Fault {
    Fault {
        code: "timed_out".to_owned(),
        message: format!(
            "`{}` did not end within {} s and was cancelled",
            stage.as_str(),
            deadline_ms(stage) / 1000
        ),
        may_pass: true,
    }
}

/// Removing what is not there, or what is another life's, leaves nothing of ours to remove.
fn is_absent_already(task: Task, stage: Stage, fault: &Fault) -> bool {
    let removes = matches!(stage, Stage::Poweroff | Stage::Undefine | Stage::Unseed | Stage::Undisk);
    task.never_gives_up() && removes && matches!(fault.code.as_str(), "not_found" | "conflict" | "lost")
}

fn wait_ms(tries: u32) -> u64 {
    (1_000_u64 << tries.saturating_sub(1).min(10)).min(MOST_WAIT_MS)
}

/// Notes a stage in the steps of the job. What takes back or clears away shows as the one step `undo`.
fn note(entry: &mut Entry, stage: Stage, state: StepState, message: String) {
    let undoing = entry.run.as_ref().is_some_and(|run| run.task == Task::Undo) || stage == Stage::Undo;
    let clearing = entry.run.as_ref().is_some_and(|run| matches!(run.task, Task::Clear(_)));
    if clearing && message.is_empty() {
        return;
    }
    let stage = if undoing || clearing { Stage::Undo } else { stage };
    let step = StepReport { stage, state, message };
    match entry.steps.iter_mut().find(|known| known.stage == stage) {
        Some(known) => *known = step,
        None => entry.steps.push(step),
    }
}
