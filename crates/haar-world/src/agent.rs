//! The agent's shell around the real `Node`: commit, apply, act; and the hands, with a fate for each call.

use haar_core::fence::MonoMs;
use haar_core::job::Stage;
use haar_core::node::{
    Decision, Effect, Env, Input, LedgerChange, LedgerRecord, Node, Outcome, Refused, StageCall,
};
use haar_core::order::Phase;

use crate::host::{Agent, Fate, Hand, Task, fault};
use crate::net::{Message, ToAgent, ToController};
use crate::world::{Event, Plan, World, tell};

/// Where an agent's process may end around a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    No,
    BeforeCommit,
    AfterCommit,
}

impl World {
    pub(crate) fn start_agent(&mut self, host: usize) {
        if !self.hosts[host].up || self.hosts[host].agent.is_some() {
            return;
        }
        if self.hosts[host].ledger.is_empty() {
            // A new ledger knows of no call of an earlier one: none may be under way at the first look.
            self.crash_sub_agent(host, Hand::Storage);
            self.crash_sub_agent(host, Hand::Libvirt);
        }
        let machine = &mut self.hosts[host];
        let records = machine.ledger.values().map(|bytes| {
            serde_json::from_slice::<LedgerRecord>(bytes).expect("what was encoded here can be read here")
        });
        let id = machine.id;
        let node = Node::restore(records).unwrap_or_else(|| Node::new(id, self.lot.bits()));
        machine.runs += 1;
        let run = machine.runs;
        machine.agent = Some(Agent { run, node, started: self.now, tick_at: None });
        tell!(self, "host {host}: agent starts, run {run}");
        self.tell_node(host, run, &Input::Boot);
        let wait = self.lot.between(100, 1_000);
        self.after(wait, Event::Poll { host, run });
    }

    pub(crate) fn crash_agent(&mut self, host: usize) {
        if self.hosts[host].agent.take().is_none() {
            return;
        }
        tell!(self, "host {host}: agent crashes");
        // What the agent itself was doing ends with it, half done or not.
        for task in self.hosts[host].crash_hand(Hand::Agent) {
            if self.lot.one_in(2) {
                self.take_effect(host, &task);
            }
        }
        let wait = self.lot.between(500, 8_000);
        self.after(wait, Event::AgentStarts { host });
    }

    /// Gives an input to a process's node, if it still lives: decide, commit, apply, act.
    pub(crate) fn tell_node(&mut self, host: usize, run: u64, input: &Input) {
        let Some(agent) = self.hosts[host].agent.as_ref().filter(|agent| agent.run == run) else { return };
        let env = Env { now: MonoMs(self.now - agent.started) };
        let decision = match agent.node.decide(input, &env) {
            Ok(decision) => decision,
            Err(refused) => {
                tell!(self, "host {host}: refused: {refused}");
                self.coverage.count(format!("node.{}", name_of(&refused)));
                return;
            }
        };
        let crash = self.draw_crash();
        if crash == Crash::BeforeCommit {
            self.count_fault("agent_crash_before_commit");
            self.crash_agent(host);
            return;
        }
        self.commit(host, &decision);
        if crash == Crash::AfterCommit {
            self.count_fault("agent_crash_after_commit");
            self.crash_agent(host);
            return;
        }
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.node.apply(&decision);
        for effect in decision.effects {
            self.act(host, run, effect);
        }
        self.plan_tick(host, run);
    }

    fn draw_crash(&mut self) -> Crash {
        if !self.chaos {
            return Crash::No;
        }
        match self.lot.below(1500) {
            0 => Crash::BeforeCommit,
            1 => Crash::AfterCommit,
            _ => Crash::No,
        }
    }

    fn commit(&mut self, host: usize, decision: &Decision) {
        for change in &decision.changes {
            let key = change.key();
            match change {
                LedgerChange::Put(record) => {
                    if let LedgerRecord::Guest(guest) = record {
                        self.note_ledger(host, guest);
                    }
                    let bytes = serde_json::to_vec(record).expect("a ledger record has only text keys");
                    self.hosts[host].ledger.insert(key, bytes);
                }
                LedgerChange::Forget(_) => {
                    self.hosts[host].ledger.remove(&key);
                }
            }
        }
    }

    fn act(&mut self, host: usize, run: u64, effect: Effect) {
        match effect {
            Effect::Call(call) => self.call(host, run, *call),
            Effect::Observe { ask } => {
                let wait = self.lot.between(10, 400);
                self.after(wait, Event::Look { host, run, ask });
            }
            Effect::Hello => {
                let hello = self.hosts[host].agent.as_ref().and_then(|agent| agent.node.hello());
                if let Some(hello) = hello {
                    self.send(Message::ToController(host, run, ToController::Hello(hello)));
                }
            }
            Effect::Report => {
                let reports = self.hosts[host].agent.as_ref().map(|agent| agent.node.reports());
                for report in reports.unwrap_or_default() {
                    for guest in &report.guests {
                        tell!(self, "host {host}: says {guest:?}");
                        self.coverage.count(format!("phase.{}", phase_name(&guest.phase)));
                    }
                    self.send(Message::ToController(host, run, ToController::Report(Box::new(report))));
                }
            }
        }
    }

    pub(crate) fn agent_hears(&mut self, host: usize, run: u64, message: ToAgent) {
        let input = match message {
            ToAgent::Welcome(incarnation) => Input::Welcome { incarnation },
            ToAgent::NotWelcome(incarnation) => Input::NotWelcome { incarnation },
            ToAgent::Set(set) => Input::Desired(*set),
            ToAgent::Taken(report) => Input::Taken(*report),
        };
        tell!(self, "host {host}: hears {}", short(&input));
        self.tell_node(host, run, &input);
    }

    pub(crate) fn poll(&mut self, host: usize, run: u64) {
        let Some(agent) = self.hosts[host].agent.as_ref().filter(|agent| agent.run == run) else { return };
        if let Some(since) = agent.node.feed_since() {
            self.send(Message::ToController(host, run, ToController::Feed(since)));
        }
        let wait = if self.chaos { self.lot.between(500, 2_500) } else { 4_000 };
        self.after(wait, Event::Poll { host, run });
    }

    fn plan_tick(&mut self, host: usize, run: u64) {
        let now = self.now;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some(due) = agent.node.next_due() else { return };
        let at = (agent.started + due.0).max(now + 1);
        if agent.tick_at.is_none_or(|planned| planned <= now || at < planned) {
            agent.tick_at = Some(at);
            self.after(at - now, Event::Tick { host, run });
        }
    }

    pub(crate) fn tick_node(&mut self, host: usize, run: u64) {
        let Some(agent) = self.hosts[host].agent.as_mut().filter(|agent| agent.run == run) else { return };
        if agent.tick_at.is_some_and(|at| at > self.now) {
            return;
        }
        agent.tick_at = None;
        self.tell_node(host, run, &Input::Tick);
        self.plan_tick(host, run);
    }

    pub(crate) fn look(&mut self, host: usize, run: u64, ask: u64) {
        if self.hosts[host].agent.as_ref().is_none_or(|agent| agent.run != run) {
            return;
        }
        let fails = self.chaos && self.lot.one_in(40);
        if fails {
            self.count_fault("look_failed");
        }
        let seen = (!fails).then(|| Box::new(self.hosts[host].look(ask)));
        let wait = self.lot.between(1, 300);
        self.after(wait, Event::Looked { host, run, seen, ask });
    }

    fn call(&mut self, host: usize, run: u64, call: StageCall) {
        let guest = call.order.id;
        if let Some(other) = self.hosts[host].has_call(run, guest) {
            self.fail(format!(
                "host {host}: call {:?} for guest {guest} while {other:?} is under way",
                call.call
            ));
            return;
        }
        let fate = self.draw_fate(host, &call);
        let name = fate.name();
        if fate != Fate::Progress {
            self.coverage.count(format!("stage.{}.{name}", call.stage.as_str()));
        }
        let lasts_ms = match &fate {
            Fate::Late | Fate::Cancelled { .. } => call.deadline_ms + self.lot.between(1_000, 30_000),
            _ => self.lot.between(5, 1_500),
        };
        tell!(
            self,
            "host {host}: call {:?} {:?} life {} for {guest}: will be {name}",
            call.call,
            call.stage,
            call.order.life
        );
        self.serial_task(host, Task { id: 0, run, call, fate, lasts_ms });
    }

    fn serial_task(&mut self, host: usize, mut task: Task) {
        task.id = self.next_serial();
        let key = (task.call.order.id, Hand::of(task.call.stage));
        let (id, lasts_ms) = (task.id, task.lasts_ms);
        let queue = self.hosts[host].work.entry(key).or_default();
        queue.push_back(task);
        if queue.len() == 1 {
            self.after(lasts_ms, Event::TaskEnds { host, task: id });
        }
    }

    fn draw_fate(&mut self, host: usize, call: &StageCall) -> Fate {
        if let Plan::One(once) = self.plan {
            return self.planned_fate(host, once, call);
        }
        if !self.chaos {
            return Fate::Done;
        }
        let codes: &[&str] = match call.stage {
            Stage::Image => &["unavailable", "bad_image", "failed"],
            Stage::Disks => &["unavailable", "no_space", "failed"],
            _ => &["unavailable", "failed", "invalid"],
        };
        let code = self.lot.pick(codes).copied().unwrap_or("failed");
        match self.lot.below(60) {
            0 | 1 => Fate::FailBefore(fault(code, "as the lot had it")),
            2 => Fate::FailAfter(fault(code, "as the lot had it")),
            3 => Fate::Late,
            4 => Fate::Cancelled { effect: self.lot.one_in(2) },
            5 if matches!(call.stage, Stage::Image | Stage::Shutdown) => Fate::Progress,
            6..=20 if call.stage == Stage::Image => Fate::Progress,
            _ => Fate::Done,
        }
    }

    /// The task at a hand comes to its end: effect, answer, and the next one begins.
    pub(crate) fn task_ends(&mut self, host: usize, id: u64) {
        let at_front =
            |tasks: &std::collections::VecDeque<Task>| tasks.front().is_some_and(|task| task.id == id);
        let Some(queue) = self.hosts[host].work.values_mut().find(|tasks| at_front(tasks)) else { return };
        let Some(task) = queue.pop_front() else { return };
        if let Some((task, lasts_ms)) = queue.front().map(|next| (next.id, next.lasts_ms)) {
            self.after(lasts_ms, Event::TaskEnds { host, task });
        }
        let outcome = self.outcome_of(host, &task);
        let undoing =
            matches!(task.call.stage, Stage::Undisk | Stage::Undefine | Stage::Unseed | Stage::Poweroff);
        if undoing && self.crash_in_undo && self.chaos {
            self.crash_in_undo = false;
            self.count_fault("agent_crash_in_undo");
            self.crash_agent(host);
        }
        self.after_planned(host, &task);
        let (run, call) = (task.run, task.call.call);
        let wait = self.lot.between(1, 20);
        self.after(wait, Event::Answer { host, run, call, outcome });
    }

    fn outcome_of(&mut self, host: usize, task: &Task) -> Outcome {
        if let Fate::Progress = task.fate {
            let done = self.next_serial();
            return Outcome::Progress { done, total: 0 };
        }
        let made = if task.fate.has_effect() { self.take_effect(host, task) } else { Outcome::Done };
        match &task.fate {
            Fate::FailBefore(fault) | Fate::FailAfter(fault) => Outcome::Failed(fault.clone()),
            Fate::Cancelled { .. } => Outcome::Cancelled,
            _ => made,
        }
    }

    /// A sub-agent dies: what it was at is half done or not, and its callers hear that.
    pub(crate) fn crash_sub_agent(&mut self, host: usize, hand: Hand) {
        for task in self.hosts[host].crash_hand(hand) {
            if self.lot.one_in(2) {
                self.take_effect(host, &task);
            }
            let outcome = Outcome::Failed(fault("unavailable", "the sub-agent is gone"));
            let (run, call) = (task.run, task.call.call);
            self.after(5, Event::Answer { host, run, call, outcome });
        }
    }
}

fn name_of(refused: &Refused) -> &'static str {
    match refused {
        Refused::Stale { .. } => "stale",
        Refused::OtherHypervisor(_) => "other_hypervisor",
        Refused::OtherCloud(_) => "other_cloud",
        Refused::NotReady => "not_ready",
        Refused::NoSuchGuest(_) => "no_such_guest",
        Refused::NotLocal(_) => "not_local",
    }
}

fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Working => "working",
        Phase::Settled => "settled",
        Phase::Failed { .. } => "failed",
        Phase::Lost { .. } => "lost",
        Phase::Gone => "gone",
        Phase::Local { .. } => "local",
    }
}

fn short(input: &Input) -> String {
    match input {
        Input::Desired(set) => {
            let orders: Vec<String> = set
                .guests
                .iter()
                .map(|order| {
                    format!("{} {} life {} order {}", order.id, order.goal.as_str(), order.life, order.order)
                })
                .collect();
            format!("set {}: {}", set.fence, orders.join("; "))
        }
        Input::Taken(report) => {
            let versions: Vec<u64> = report.guests.iter().map(|guest| guest.version).collect();
            format!("taken {versions:?} complete {}", report.complete.is_some())
        }
        other => format!("{other:?}"),
    }
}
