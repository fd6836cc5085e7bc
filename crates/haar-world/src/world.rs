//! One world: a controller, some hosts, a network and a user, in one thread and virtual time.
//!
//! Everything that happens is an event in one queue, ordered by time and then by the order of its making; all
//! chance comes from one seed. So a seed is a whole history, and a bad one can be told again line by line.
//! First comes chaos, then everything heals, then the books must equal the truth.

use std::collections::BTreeMap;

use haar_core::id::CloudId;
use haar_core::node::{CallId, Input, Observation, Outcome};
use haar_core::order::Report;

use crate::books::Books;
use crate::coverage::Coverage;
use crate::host::Host;
use crate::lot::Lot;
use crate::net::Message;
use crate::truth::Truth;
use crate::user::User;

/// Virtual milliseconds of chaos.
pub(crate) const CHAOS_MS: u64 = 600_000;
/// Virtual milliseconds after which a healed world must be quiet.
pub(crate) const HEALED_MS: u64 = 3 * 3_600_000;

/// How a world is run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Whether it is told line by line.
    pub trace: bool,
    /// What must go wrong in it, besides or instead of chance.
    pub plan: Plan,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Plan {
    /// Whatever the seed draws.
    #[default]
    Chance,
    /// Nothing but this one.
    One(crate::systematic::Once),
}

/// How a world ended.
#[derive(Debug)]
pub struct End {
    /// What was reached.
    pub coverage: Coverage,
    /// What was wrong, if anything.
    pub failure: Option<String>,
    /// Its history, if it was told.
    pub trace: Vec<String>,
    /// Messages sent.
    pub messages: u64,
    /// Commands given by the user.
    pub commands: u64,
    /// Faults that happened.
    pub faults: u64,
}

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    Arrives(Message),
    /// The task at the front of a hand's queue comes to its end.
    TaskEnds {
        host: usize,
        task: u64,
    },
    Answer {
        host: usize,
        run: u64,
        call: CallId,
        outcome: Outcome,
    },
    Look {
        host: usize,
        run: u64,
        ask: u64,
    },
    Looked {
        host: usize,
        run: u64,
        seen: Option<Box<Observation>>,
        ask: u64,
    },
    Tick {
        host: usize,
        run: u64,
    },
    Poll {
        host: usize,
        run: u64,
    },
    Turn,
    Timer,
    User,
    Again(usize),
    Fault,
    AgentCrashes {
        host: usize,
        run: u64,
    },
    AgentStarts {
        host: usize,
    },
    HostBoots {
        host: usize,
    },
    ControllerStarts,
    Heal,
    Check,
}

/// Who waits for a command's answer.
#[derive(Debug)]
pub(crate) enum Asker {
    User(usize),
    Hello { host: usize, run: u64 },
    Report { host: usize, run: u64, report: Box<Report> },
    Setup,
    Nobody,
}

/// A world.
#[derive(Debug)]
pub struct World {
    pub(crate) lot: Lot,
    pub(crate) now: u64,
    events: BTreeMap<(u64, u64), Event>,
    serial: u64,
    pub(crate) books: Books,
    pub(crate) hosts: Vec<Host>,
    pub(crate) user: User,
    pub(crate) truth: Truth,
    pub(crate) plan: Plan,
    pub(crate) planned: crate::systematic::Progress,
    pub(crate) asked: BTreeMap<u64, Asker>,
    pub(crate) turn_is_due: bool,
    /// Whether chance still does harm.
    pub(crate) chaos: bool,
    pub(crate) crash_in_undo: bool,
    pub(crate) coverage: Coverage,
    pub(crate) messages: u64,
    pub(crate) faults: u64,
    trace: Option<Vec<String>>,
    failure: Option<String>,
    done: bool,
}

/// Tells a line of the history, when anybody listens.
macro_rules! tell {
    ($world:expr, $($text:tt)*) => {
        if $world.is_told() {
            let line = format!($($text)*);
            $world.tell_line(&line);
        }
    };
}
pub(crate) use tell;

impl World {
    /// Runs the world of a seed to its end.
    pub fn run(seed: u64, options: Options) -> End {
        let mut world = World::new(seed, options);
        world.begin();
        while !world.done && world.failure.is_none() {
            let Some(((time, _), event)) = world.events.pop_first() else { break };
            world.now = time;
            world.happen(event);
        }
        End {
            coverage: world.coverage,
            failure: world.failure,
            trace: world.trace.unwrap_or_default(),
            messages: world.messages,
            commands: world.user.given(),
            faults: world.faults,
        }
    }

    fn new(seed: u64, options: Options) -> World {
        let mut lot = Lot::new(seed);
        let cloud = CloudId(lot.uuid());
        World {
            now: 0,
            events: BTreeMap::new(),
            serial: 0,

            books: Books::new(cloud),
            hosts: Vec::new(),
            user: User::default(),
            truth: Truth::default(),
            plan: options.plan,
            planned: crate::systematic::Progress::default(),
            asked: BTreeMap::new(),
            turn_is_due: false,
            chaos: false,
            crash_in_undo: false,
            coverage: Coverage::default(),
            messages: 0,
            faults: 0,
            trace: options.trace.then(Vec::new),
            failure: None,
            done: false,
            lot,
        }
    }

    fn begin(&mut self) {
        self.books.start(0);
        self.make_hosts();
        self.give_setup();
        self.books.back_up();
        for host in 0..self.hosts.len() {
            self.after(0, Event::AgentStarts { host });
        }
        self.after(5_000, Event::Timer);
        match self.plan {
            Plan::Chance => {
                self.chaos = true;
                self.plan_user();
                self.plan_faults();
                self.after(CHAOS_MS, Event::Heal);
            }
            Plan::One(_) => self.begin_systematic(),
        }
    }

    /// Something shall happen so much later.
    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        let serial = self.next_serial();
        self.events.insert((self.now + ms, serial), event);
    }

    /// A number never given before in this world.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(message) => self.arrives(message),
            Event::TaskEnds { host, task } => self.task_ends(host, task),
            Event::Answer { host, run, call, outcome } => {
                tell!(self, "host {host}: call {call:?} ended: {outcome:?}");
                self.tell_node(host, run, &Input::Ended { call, outcome });
            }
            Event::Look { host, run, ask } => self.look(host, run, ask),
            Event::Looked { host, run, seen, ask } => {
                let input = seen.map_or_else(
                    || Input::Unseen { ask, why: "libvirtd does not answer".to_owned() },
                    |seen| Input::Observed(*seen),
                );
                self.tell_node(host, run, &input);
            }
            Event::Tick { host, run } => self.tick_node(host, run),
            Event::Poll { host, run } => self.poll(host, run),
            Event::Turn => self.turn(),
            Event::Timer => self.timer(),
            Event::User => self.user_acts(),
            Event::Again(index) => self.user_asks_again(index),
            Event::Fault => self.something_breaks(),
            Event::AgentCrashes { host, run } => {
                if self.hosts[host].agent.as_ref().is_some_and(|agent| agent.run == run) {
                    self.crash_agent(host);
                }
            }
            Event::AgentStarts { host } => self.start_agent(host),
            Event::HostBoots { host } => self.boot_host(host),
            Event::ControllerStarts => self.start_controller(),
            Event::Heal => self.heal(),
            Event::Check => self.check_end(),
        }
    }

    fn arrives(&mut self, message: Message) {
        if self.is_partitioned(message.host()) {
            return;
        }
        match message {
            Message::ToController(host, run, message) => self.controller_hears(host, run, message),
            Message::ToAgent(host, run, message) => self.agent_hears(host, run, message),
        }
    }

    pub(crate) fn is_told(&self) -> bool {
        self.trace.is_some()
    }

    pub(crate) fn tell_line(&mut self, line: &str) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} {line}", now));
        }
    }

    /// The world is wrong; it ends here.
    pub(crate) fn fail(&mut self, what: String) {
        tell!(self, "WRONG: {what}");
        self.failure.get_or_insert(what);
    }

    /// The world is right; it ends here.
    pub(crate) fn end_well(&mut self) {
        self.done = true;
    }
}
