//! Pipelines as data: which stages carry out what is wanted of a guest, and what takes each back.
//!
//! A stage is one "make it so" call to a hand and may be asked twice. What undoes a stage is a stage too.
//! Deliberately absent: when a pipeline is chosen (`node::work`), and how a stage is done (the agent's hands).

use crate::job::Stage;

/// One step of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is called.
    pub stage: Stage,
    /// What takes it back, whether it ended well, badly or was only begun. None: it leaves nothing behind
    /// that is the guest's own.
    pub undo: Option<Stage>,
}

const fn step(stage: Stage, undo: Option<Stage>) -> Step {
    Step { stage, undo }
}

/// What the node does for one guest at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pipeline {
    /// Make it and start it.
    Create,
    /// Make it and leave it off.
    CreateOff,
    /// As `CreateOff`, after an earlier attempt that may have started it.
    CreateThenOff,
    /// Start what was made.
    Start,
    /// Ask it to power off.
    Shutdown,
    /// Cut its power.
    Poweroff,
    /// Ask it to reboot.
    Reboot,
    /// Remove all it has.
    Remove,
}

const CREATE: [Step; 6] = [
    step(Stage::Image, None),
    step(Stage::Disks, Some(Stage::Undisk)),
    step(Stage::Seed, Some(Stage::Unseed)),
    step(Stage::Network, None),
    step(Stage::Define, Some(Stage::Undefine)),
    step(Stage::Start, Some(Stage::Poweroff)),
];
const CREATE_OFF: [Step; 5] = [CREATE[0], CREATE[1], CREATE[2], CREATE[3], CREATE[4]];
const CREATE_THEN_OFF: [Step; 6] =
    [CREATE[0], CREATE[1], CREATE[2], CREATE[3], CREATE[4], step(Stage::Poweroff, Some(Stage::Poweroff))];
const START: [Step; 3] = [step(Stage::Inspect, None), step(Stage::Network, None), step(Stage::Start, None)];
const SHUTDOWN: [Step; 2] = [step(Stage::Inspect, None), step(Stage::Shutdown, None)];
const POWEROFF: [Step; 2] = [step(Stage::Inspect, None), step(Stage::Poweroff, None)];
const REBOOT: [Step; 2] = [step(Stage::Inspect, None), step(Stage::Reboot, None)];
const REMOVE: [Step; 4] = [
    step(Stage::Poweroff, None),
    step(Stage::Undefine, None),
    step(Stage::Unseed, None),
    step(Stage::Undisk, None),
];

impl Pipeline {
    /// Every pipeline.
    pub const ALL: [Pipeline; 8] = [
        Pipeline::Create,
        Pipeline::CreateOff,
        Pipeline::CreateThenOff,
        Pipeline::Start,
        Pipeline::Shutdown,
        Pipeline::Poweroff,
        Pipeline::Reboot,
        Pipeline::Remove,
    ];

    /// Its steps in order.
    pub fn steps(self) -> &'static [Step] {
        match self {
            Pipeline::Create => &CREATE,
            Pipeline::CreateOff => &CREATE_OFF,
            Pipeline::CreateThenOff => &CREATE_THEN_OFF,
            Pipeline::Start => &START,
            Pipeline::Shutdown => &SHUTDOWN,
            Pipeline::Poweroff => &POWEROFF,
            Pipeline::Reboot => &REBOOT,
            Pipeline::Remove => &REMOVE,
        }
    }

    /// Whether it makes a guest: when it fails, what it made is taken back.
    pub fn makes(self) -> bool {
        matches!(self, Pipeline::Create | Pipeline::CreateOff | Pipeline::CreateThenOff)
    }
}

/// What takes back the steps up to and including `last`, in reverse: the step that failed is undone too, for
/// it may have half done its work.
pub fn undo_of(steps: &[Step], last: usize) -> Vec<Stage> {
    let mut undo: Vec<Stage> = Vec::new();
    for stage in steps.iter().take(last + 1).rev().filter_map(|step| step.undo) {
        if !undo.contains(&stage) {
            undo.push(stage);
        }
    }
    undo
}

/// How long one call of this stage may last, in milliseconds; then the hands cancel it.
pub fn deadline_ms(stage: Stage) -> u64 {
    match stage {
        Stage::Image | Stage::Disks => 60_000,
        Stage::Start | Stage::Shutdown => 45_000,
        _ => 30_000,
    }
}

/// How long a stage may answer "in progress" without getting further, in milliseconds; then it has failed.
pub fn patience_ms(stage: Stage) -> u64 {
    match stage {
        Stage::Image => 300_000,
        _ => 120_000,
    }
}

/// How often a stage is asked in all when its fault may pass. A reboot is asked once: nobody can tell
/// whether the first one reached the guest.
pub fn most_tries(stage: Stage) -> u32 {
    if stage == Stage::Reboot { 1 } else { 3 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_undone_too_in_reverse() {
        let steps = Pipeline::Create.steps();
        assert_eq!(undo_of(steps, 0), vec![]);
        assert_eq!(undo_of(steps, 1), vec![Stage::Undisk]);
        assert_eq!(undo_of(steps, 4), vec![Stage::Undefine, Stage::Unseed, Stage::Undisk]);
        assert_eq!(undo_of(steps, 5), vec![Stage::Poweroff, Stage::Undefine, Stage::Unseed, Stage::Undisk]);
    }

    #[test]
    fn undoing_a_whole_create_is_what_remove_does() {
        let removed: Vec<Stage> = Pipeline::Remove.steps().iter().map(|step| step.stage).collect();
        for pipeline in Pipeline::ALL.into_iter().filter(|pipeline| pipeline.makes()) {
            let undo = undo_of(pipeline.steps(), pipeline.steps().len() - 1);
            assert!(undo.iter().all(|stage| removed.contains(stage)), "{pipeline:?}");
        }
        assert_eq!(undo_of(&CREATE, 5), removed);
    }
}
