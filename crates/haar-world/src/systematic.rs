//! Each step of each job fails once: before its effect, after it, late, for good with a crash in its undo.
//!
//! Nothing else goes wrong in these worlds, so what is found is the rule and not a coincidence.

use haar_core::fleet::command::{Command, GuestAction};
use haar_core::id::{GuestId, Kind};
use haar_core::job::{Action, Stage};
use haar_core::node::StageCall;
use haar_core::pipeline::Pipeline;

use crate::host::{Fate, Task, fault};
use crate::setup::guest_spec;
use crate::world::{Event, World};

/// One fault at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// The job in which it happens.
    pub action: Action,
    /// The step at which it happens.
    pub stage: Stage,
    /// What happens.
    pub how: How,
}

/// How a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// For good, and nothing is done.
    Before,
    /// For good, and all is done.
    After,
    /// Once, in a way that may pass.
    Passing,
    /// It is done after its deadline.
    Late,
    /// It is cancelled after its deadline, and was done.
    Cancelled,
    /// The agent crashes while it is under way.
    Crash,
    /// For good; and the agent crashes in what takes it back.
    CrashInUndo,
}

/// How far such a world is.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Progress {
    guest: Option<GuestId>,
    step: u32,
    armed: bool,
    pub(crate) fired: bool,
    crashed: bool,
}

/// Every fault at every place.
pub fn all() -> Vec<Once> {
    let jobs = [
        (Action::Create, Pipeline::Create),
        (Action::Delete, Pipeline::Remove),
        (Action::Start, Pipeline::Start),
        (Action::Shutdown, Pipeline::Shutdown),
        (Action::Poweroff, Pipeline::Poweroff),
        (Action::Reboot, Pipeline::Reboot),
        (Action::Recreate, Pipeline::Create),
    ];
    let hows =
        [How::Before, How::After, How::Passing, How::Late, How::Cancelled, How::Crash, How::CrashInUndo];
    let mut all = Vec::new();
    for (action, pipeline) in jobs {
        for step in pipeline.steps() {
            let whole = hows.iter().filter(|how| **how != How::CrashInUndo || pipeline.makes());
            // What takes back the first stage of a create is nothing: there is no undo to crash in.
            let whole = whole.filter(|how| **how != How::CrashInUndo || step.stage != Stage::Image);
            all.extend(whole.map(|how| Once { action, stage: step.stage, how: *how }));
        }
    }
    all
}

impl World {
    pub(crate) fn begin_systematic(&mut self) {
        for at in [20_000, 120_000, 240_000] {
            self.after(at, Event::User);
        }
        self.after(420_000, Event::Heal);
    }

    pub(crate) fn systematic_step(&mut self, once: Once) {
        self.planned.step += 1;
        match self.planned.step {
            1 => self.systematic_create(once),
            2 => self.systematic_prepare(once),
            _ => self.systematic_act(once),
        }
    }

    fn systematic_create(&mut self, once: Once) {
        let id = GuestId(self.lot.uuid());
        self.planned.guest = Some(id);
        self.planned.armed = once.action == Action::Create;
        let mut spec = guest_spec("web", self.user.stock.flavors[0], self.user.stock.networks[0]);
        spec.start = once.action != Action::Start;
        self.user_asks(Command::CreateGuest(id, Box::new(spec), None));
    }

    fn systematic_prepare(&mut self, once: Once) {
        let Some(id) = self.planned.guest else { return };
        if once.action == Action::Recreate {
            for host in &mut self.hosts {
                host.disks.remove(&id);
            }
        }
    }

    fn systematic_act(&mut self, once: Once) {
        let Some(id) = self.planned.guest else { return };
        let action = match once.action {
            Action::Create => return,
            Action::Delete => {
                self.planned.armed = true;
                self.user_asks(Command::Delete(Kind::Guest, id.0, None));
                return;
            }
            Action::Start => GuestAction::Start,
            Action::Shutdown => GuestAction::Shutdown,
            Action::Poweroff => GuestAction::Poweroff,
            Action::Reboot => GuestAction::Reboot,
            Action::Recreate => GuestAction::Recreate,
        };
        self.planned.armed = true;
        self.user_asks(Command::Act(id, action, None));
    }

    pub(crate) fn planned_fate(&mut self, host: usize, once: Once, call: &StageCall) -> Fate {
        if !self.planned.armed || self.planned.fired || call.stage != once.stage {
            return Fate::Done;
        }
        self.planned.fired = true;
        let for_good = fault("invalid", "as it was planned");
        match once.how {
            How::Before | How::CrashInUndo => Fate::FailBefore(for_good),
            How::After => Fate::FailAfter(for_good),
            How::Passing => Fate::FailAfter(fault("unavailable", "as it was planned")),
            How::Late => Fate::Late,
            How::Cancelled => Fate::Cancelled { effect: true },
            How::Crash => {
                let run = self.hosts[host].agent.as_ref().map_or(0, |agent| agent.run);
                self.after(2, Event::AgentCrashes { host, run });
                Fate::Done
            }
        }
    }

    /// A task has ended: is it the undo in which the agent shall crash?
    pub(crate) fn after_planned(&mut self, host: usize, task: &Task) {
        let crash_in_undo = matches!(self.plan, crate::world::Plan::One(Once { how: How::CrashInUndo, .. }));
        let undoes =
            matches!(task.call.stage, Stage::Undisk | Stage::Unseed | Stage::Undefine | Stage::Poweroff);
        if crash_in_undo && undoes && self.planned.fired && !self.planned.crashed {
            self.planned.crashed = true;
            self.crash_agent(host);
        }
    }

    /// What of the plan did not come to pass.
    pub(crate) fn unmet_plan(&self) -> Option<&'static str> {
        let crate::world::Plan::One(once) = self.plan else { return None };
        if !self.planned.fired {
            return Some("the planned fault was never reached");
        }
        let crashes = once.how == How::CrashInUndo && !self.planned.crashed;
        crashes.then_some("nothing was taken back, so no crash in it")
    }
}
