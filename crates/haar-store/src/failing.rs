//! A disk that fails by script or by seed, for tests.
//!
//! To the caller a fault before the effect and one after it look alike, as they do on a real medium: the
//! answer is [`Error::OutcomeUnknown`], and only reading again tells. Same seed, same calls, same faults.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::memory::no_path;
use crate::{Disk, Error, Fence, Kind, Limits, Op, Pairs, Reader, Visit};

/// How a commit fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The outcome is unknown; nothing was written.
    BeforeEffect,
    /// The outcome is unknown; the commit took effect.
    AfterEffect,
    /// No space is left; nothing was written.
    Full,
}

/// How often a seeded plan fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Odds {
    /// One commit in this many fails; 0 means none.
    pub one_in: u64,
    /// After a failed commit the reopen fails up to this many times.
    pub failed_reopens: u64,
}

/// How many faults have happened, so that a test can show that it reached them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Fired {
    /// Commits failed before the effect.
    pub before_effect: u64,
    /// Commits failed after the effect.
    pub after_effect: u64,
    /// Commits refused for want of space.
    pub full: u64,
    /// Reopens failed.
    pub reopens: u64,
}

/// What shall fail. Clones share the plan, so that a test can steer a disk it has given away.
#[derive(Clone, Default, Debug)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Default, Debug)]
struct Plan {
    script: VecDeque<Option<Fault>>,
    seeded: Option<(u64, Odds)>,
    failing_reopens: u64,
    fired: Fired,
}

impl Faults {
    /// Nothing fails until [`push`](Faults::push) or [`fail_reopens`](Faults::fail_reopens) says so.
    pub fn none() -> Self {
        Self::default()
    }

    /// The n-th commit meets the n-th entry; after the last, none fails.
    pub fn scripted(script: impl IntoIterator<Item = Option<Fault>>) -> Self {
        let plan = Plan { script: script.into_iter().collect(), ..Plan::default() };
        Self(Arc::new(Mutex::new(plan)))
    }

    /// Commits and reopens fail by lot.
    pub fn seeded(seed: u64, odds: Odds) -> Self {
        Self(Arc::new(Mutex::new(Plan { seeded: Some((seed, odds)), ..Plan::default() })))
    }

    /// The next commit that the script does not cover yet fails so; `None` lets it pass.
    pub fn push(&self, fault: Option<Fault>) {
        self.plan().script.push_back(fault);
    }

    /// The next `times` reopens fail.
    pub fn fail_reopens(&self, times: u64) {
        self.plan().failing_reopens = times;
    }

    /// What has happened so far.
    pub fn fired(&self) -> Fired {
        self.plan().fired
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn next_fault(&mut self) -> Option<Fault> {
        let fault = match self.script.pop_front() {
            Some(scripted) => scripted,
            None => self.drawn_fault(),
        }?;
        match fault {
            Fault::BeforeEffect => self.fired.before_effect += 1,
            Fault::AfterEffect => self.fired.after_effect += 1,
            Fault::Full => self.fired.full += 1,
        }
        Some(fault)
    }

    fn drawn_fault(&mut self) -> Option<Fault> {
        let (state, odds) = self.seeded.as_mut()?;
        if odds.one_in == 0 || !draw(state).is_multiple_of(odds.one_in) {
            return None;
        }
        let fault = [Fault::BeforeEffect, Fault::AfterEffect, Fault::Full][(draw(state) % 3) as usize];
        self.failing_reopens = draw(state) % (odds.failed_reopens.saturating_add(1));
        Some(fault)
    }

    fn reopen_fails(&mut self) -> bool {
        if self.failing_reopens == 0 {
            return false;
        }
        self.failing_reopens -= 1;
        self.fired.reopens += 1;
        true
    }
}

/// One step of SplitMix64: small, well spread, and the same everywhere.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Another disk, failing as [`Faults`] say.
#[derive(Debug)]
pub struct FailingDisk<D> {
    disk: D,
    faults: Faults,
    failed: Arc<AtomicBool>,
}

impl<D: Disk> FailingDisk<D> {
    /// `disk`, failing as `faults` say.
    pub fn new(disk: D, faults: Faults) -> Self {
        Self { disk, faults, failed: Arc::default() }
    }

    /// The plan, to steer it or to ask what has happened.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    fn fail(&self, error: Error) -> Error {
        self.failed.store(true, Ordering::SeqCst);
        error
    }
}

impl<D: Disk> Disk for FailingDisk<D> {
    fn load(&mut self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error> {
        refuse_if(&self.failed)?;
        self.disk.load(skip, each)
    }

    fn commit(&mut self, ops: &[Op], expected: Fence, new: Fence) -> Result<(), Error> {
        refuse_if(&self.failed)?;
        let fault = self.faults.plan().next_fault();
        match fault {
            None => self.disk.commit(ops, expected, new),
            Some(Fault::BeforeEffect) => Err(self.fail(unknown())),
            Some(Fault::Full) => Err(self.fail(Error::Full { path: no_path() })),
            Some(Fault::AfterEffect) => {
                // A refusal is answered before anything is written, hence before anything could fail.
                self.disk.commit(ops, expected, new)?;
                Err(self.fail(unknown()))
            }
        }
    }

    fn limits(&self) -> Limits {
        self.disk.limits()
    }

    fn reopen(&mut self) -> Result<(), Error> {
        if self.faults.plan().reopen_fails() {
            let source = "a planned fault of the reopen".into();
            return Err(self.fail(Error::Io { doing: "open", path: no_path(), source }));
        }
        self.disk.reopen()?;
        self.failed.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(FailingReader { reader: self.disk.reader(), failed: Arc::clone(&self.failed) })
    }
}

struct FailingReader {
    reader: Box<dyn Reader>,
    failed: Arc<AtomicBool>,
}

impl Reader for FailingReader {
    fn scan(&self, kind: Kind, from_key: &[u8], limit: usize) -> Result<Pairs, Error> {
        refuse_if(&self.failed)?;
        self.reader.scan(kind, from_key, limit)
    }

    fn snapshot(&self, skip: &[Kind], each: &mut Visit<'_>) -> Result<Fence, Error> {
        refuse_if(&self.failed)?;
        self.reader.snapshot(skip, each)
    }
}

fn refuse_if(failed: &AtomicBool) -> Result<(), Error> {
    if failed.load(Ordering::SeqCst) { Err(Error::NeedsReopen { path: no_path() }) } else { Ok(()) }
}

fn unknown() -> Error {
    Error::OutcomeUnknown { path: no_path(), source: "a planned fault of the commit".into() }
}
