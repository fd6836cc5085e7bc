//! The life of one server, as a value: its room, its running commands, its idle time, its health, its end.
//!
//! ```text
//!            last work given back, or last command ended
//!     in use ────────────────────────────────────────────▶ idle ─ ttd over at a tick ─▶ leaving ─▶ gone
//!        ▲ └────────────────── destroy ────────────────────┼───── destroy ────────────────▲ │
//!        └──────── work taken, or command begun ───────────┘                              └─┘ destroy failed
//! ```
//!
//! Whether a server is taken or goes is decided here, in one place and one order, so nothing is ever
//! promised on a server that leaves. A server that was never used does not count down. Time is a duration
//! since any fixed start, brought by the caller. Deliberately absent: timers, and the destroying itself.

use std::time::Duration;

use crate::space::{NoRoom, Request, Space};

/// The life of one server.
#[derive(Debug, Clone)]
pub struct Life {
    space: Space,
    ttd: Option<Duration>,
    commands: u32,
    idle_since: Option<Duration>,
    bad: Option<Bad>,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Up,
    Leaving,
    /// It should leave, and the cloud did not do it.
    Stuck,
    Gone,
}

#[derive(Debug, Clone)]
struct Bad {
    since: Duration,
    problem: Option<String>,
}

/// What is to be done about idle time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Tick {
    /// Nothing, until something else happens.
    Nothing,
    /// Look again at this time.
    LookAt(Duration),
    /// It idled for long enough: it is leaving now, and the caller destroys it.
    Destroy,
}

/// What is to be done to destroy it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Destruction {
    /// The caller destroys it. This many commands are cut off.
    Begin {
        /// Commands that were running.
        commands: u32,
    },
    /// Somebody is at it, or it is gone.
    AlreadyBegun,
}

impl Life {
    /// A server that just came up; `ttd` is how long it may idle, 0 is for ever.
    #[must_use]
    pub fn new(space: Space, ttd: Duration) -> Self {
        Self {
            space,
            ttd: (!ttd.is_zero()).then_some(ttd),
            commands: 0,
            idle_since: None,
            bad: None,
            phase: Phase::Up,
        }
    }

    /// How many such items still fit; none on a server that leaves.
    #[must_use]
    pub fn room_for(&self, request: &Request) -> u64 {
        if self.is_destroyed() { 0 } else { self.space.room_for(request) }
    }

    /// What is used of it.
    #[must_use]
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Takes room for one item, and stops the countdown. From then on it only goes when it is told to.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing has changed.
    pub fn allocate(&mut self, request: &Request) -> Result<(), NoRoom> {
        self.still_up()?;
        self.space.allocate(request)?;
        self.idle_since = None;
        Ok(())
    }

    /// Gives room back. With the last of it the countdown begins. A server without anything in use is left
    /// as it is.
    pub fn release(&mut self, now: Duration, request: &Request) {
        if self.space.is_empty() {
            return;
        }
        self.space.release(request);
        self.rest(now);
    }

    /// A command begins on it, which stops the countdown.
    ///
    /// # Errors
    /// [`NoRoom::Destroyed`].
    pub fn command_began(&mut self) -> Result<(), NoRoom> {
        self.still_up()?;
        self.commands += 1;
        self.idle_since = None;
        Ok(())
    }

    /// A command ended, however. With the last of them, and nothing else in use, the countdown begins anew.
    pub fn command_ended(&mut self, now: Duration) {
        if self.commands > 0 {
            self.commands -= 1;
            self.rest(now);
        }
    }

    /// Begins the countdown anew, if nothing is in use.
    pub fn rest(&mut self, now: Duration) {
        if self.commands == 0 && self.space.is_empty() {
            self.idle_since = Some(now);
        }
    }

    /// Looks whether it idled for long enough.
    pub fn tick(&mut self, now: Duration) -> Tick {
        match self.leaves_at() {
            None => Tick::Nothing,
            Some(at) if now < at => Tick::LookAt(at),
            Some(_) => {
                self.leave(now);
                Tick::Destroy
            }
        }
    }

    /// Marks it as bad: something does not work. With a problem it is so for good; the last one counts.
    pub fn gone_bad(&mut self, now: Duration, problem: Option<&str>) {
        let bad = self.bad.get_or_insert(Bad { since: now, problem: None });
        if let Some(problem) = problem {
            bad.problem = Some(problem.to_owned());
        }
    }

    /// Takes it for good again. Whether it is: not when it leaves, nor with a problem that is for good.
    #[must_use]
    pub fn not_bad(&mut self) -> bool {
        if self.is_destroyed() || self.permanent_problem().is_some() {
            return false;
        }
        self.bad = None;
        true
    }

    /// Whether it is marked as bad.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.bad.is_some()
    }

    /// Since when it is bad, as an age; 0 when it is good.
    #[must_use]
    pub fn bad_for(&self, now: Duration) -> Duration {
        self.bad.as_ref().map(|bad| now.saturating_sub(bad.since)).unwrap_or_default()
    }

    /// The problem that is for good.
    #[must_use]
    pub fn permanent_problem(&self) -> Option<&str> {
        self.bad.as_ref()?.problem.as_deref()
    }

    /// Destroys it, whatever is in use. One that could not be destroyed can be asked again.
    pub fn destroy(&mut self, now: Duration) -> Destruction {
        match self.phase {
            Phase::Up | Phase::Stuck => {
                let commands = self.commands;
                self.leave(now);
                Destruction::Begin { commands }
            }
            Phase::Leaving | Phase::Gone => Destruction::AlreadyBegun,
        }
    }

    /// The cloud said that it is gone.
    pub fn destroyed(&mut self) {
        self.phase = Phase::Gone;
    }

    /// The cloud did not destroy it. It stays unusable, since nobody knows how much of it is left.
    pub fn destroy_failed(&mut self) {
        if self.phase == Phase::Leaving {
            self.phase = Phase::Stuck;
        }
    }

    /// Whether it is gone or to go.
    #[must_use]
    pub fn is_destroyed(&self) -> bool {
        self.phase != Phase::Up
    }

    /// Whether the cloud said that it is gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// When its idle time will be over, if it idles.
    #[must_use]
    pub fn idles_until(&self) -> Option<Duration> {
        self.leaves_at()
    }

    fn still_up(&self) -> Result<(), NoRoom> {
        if self.is_destroyed() { Err(NoRoom::Destroyed) } else { Ok(()) }
    }

    fn leaves_at(&self) -> Option<Duration> {
        self.still_up().ok()?;
        self.idle_since?.checked_add(self.ttd?)
    }

    /// What was in use ends with it: nothing is both taken and destroyed.
    fn leave(&mut self, now: Duration) {
        self.phase = Phase::Leaving;
        self.idle_since = None;
        self.commands = 0;
        self.space.clear();
        self.gone_bad(now, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Cores;

    const TTD: Duration = Duration::from_secs(2);

    fn life() -> Life {
        Life::new(Space::new(2, 100, 10), TTD)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn one_core() -> Request {
        Request { cores: Cores::whole(1), ram_mb: 1, disk_gb: 1 }
    }

    #[test]
    fn the_end_of_a_command_begins_the_countdown_anew() {
        let mut life = life();
        life.command_began().unwrap();
        life.command_ended(at(10));
        assert_eq!(life.tick(at(11)), Tick::LookAt(at(12)));
        life.command_began().unwrap();
        assert_eq!(life.tick(at(100)), Tick::Nothing, "a command is running");
        life.command_ended(at(100));
        assert_eq!(life.tick(at(102)), Tick::Destroy);
    }

    #[test]
    fn a_command_that_ends_while_work_is_there_begins_no_countdown() {
        let mut life = life();
        life.allocate(&one_core()).unwrap();
        life.command_began().unwrap();
        life.command_ended(at(1));
        assert_eq!(life.tick(at(100)), Tick::Nothing);
        life.release(at(100), &one_core());
        assert_eq!(life.tick(at(100)), Tick::LookAt(at(102)));
    }

    #[test]
    fn work_taken_in_the_last_moment_keeps_the_server() {
        let mut life = life();
        life.allocate(&one_core()).unwrap();
        life.release(at(0), &one_core());
        // The time is over, but nobody has looked yet.
        life.allocate(&one_core()).unwrap();
        assert_eq!(life.tick(at(50)), Tick::Nothing);
        assert!(!life.is_destroyed());
    }

    #[test]
    fn a_server_without_a_ttd_stays_for_ever() {
        let mut life = Life::new(Space::new(2, 100, 10), Duration::ZERO);
        life.allocate(&one_core()).unwrap();
        life.release(at(0), &one_core());
        assert_eq!(life.tick(Duration::MAX), Tick::Nothing);
    }

    #[test]
    fn nothing_fits_on_a_server_that_leaves_also_when_the_cloud_did_not_destroy_it() {
        let mut life = life();
        life.command_began().unwrap();
        life.allocate(&one_core()).unwrap();
        assert_eq!(life.destroy(at(1)), Destruction::Begin { commands: 1 });
        assert_eq!(life.destroy(at(1)), Destruction::AlreadyBegun);
        life.destroy_failed();
        assert_eq!(life.allocate(&one_core()), Err(NoRoom::Destroyed));
        assert_eq!(life.command_began(), Err(NoRoom::Destroyed));
        assert_eq!((life.room_for(&one_core()), life.space().is_empty()), (0, true));
        life.command_ended(at(2));
        life.release(at(2), &one_core());
        assert_eq!(life.tick(at(9)), Tick::Nothing);
        assert_eq!(life.destroy(at(9)), Destruction::Begin { commands: 0 });
        life.destroyed();
        assert!(life.is_gone() && life.destroy(at(9)) == Destruction::AlreadyBegun);
    }

    #[test]
    fn a_release_of_what_was_never_taken_does_not_make_it_older_or_younger() {
        let mut life = life();
        life.release(at(0), &one_core());
        assert_eq!(life.tick(at(100)), Tick::Nothing, "it was never used");
        life.allocate(&one_core()).unwrap();
        life.release(at(100), &one_core());
        life.release(at(101), &one_core());
        assert_eq!(life.tick(at(102)), Tick::Destroy);
    }
}
