//! Group commit: takes what waits, decides each in turn, commits the lot once.
//!
//! Generic over the commit, so that worlds and the product run the same. Deliberately absent: queues,
//! threads, answers and effects; the caller has them.

use std::collections::VecDeque;

use crate::fence::Fence;
use crate::fleet::Fleet;
use crate::fleet::change::Decision;
use crate::fleet::command::{Command, Decided, Env};

/// Commands taken in one turn at most, whatever the limits: refusals cost nothing, but take time.
pub const MOST_COMMANDS: usize = 1024;

/// What decisions take of one commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Operations.
    pub ops: usize,
    /// Bytes.
    pub bytes: usize,
}

impl Cost {
    fn plus(self, other: Cost) -> Cost {
        Cost { ops: self.ops.saturating_add(other.ops), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn fits(self, limits: Cost) -> bool {
        self.ops <= limits.ops && self.bytes <= limits.bytes
    }
}

/// Makes decisions durable.
pub trait Commit {
    /// Why it could not.
    type Error;

    /// What this decision takes of one commit.
    fn cost(&self, decision: &Decision) -> Cost;

    /// How much one commit may hold.
    fn limits(&self) -> Cost;

    /// Makes all of these durable, in order, or none; the fence moves from `expected` to `new` with them.
    ///
    /// # Errors
    /// Nobody may be told yes; what took effect is unknown until the store is read again.
    fn commit(&mut self, decisions: &[Decision], expected: Fence, new: Fence) -> Result<(), Self::Error>;
}

/// Takes from the queue's front as many as fit one commit, decides each in turn on `working`, applies it
/// there, and commits the lot once. A decision that is alone too large is committed alone, for the store to
/// judge.
///
/// Ok: what each command came to, in order; to be applied to the published fleet, answered, acted on.
/// Decisions without changes and refusals need no commit.
///
/// # Errors
/// The commit's: nobody taken may be told yes, and refusals may rest on what was not committed, so nobody
/// may be told anything but "unknown". `working` is no longer to be trusted: read the store again. What is
/// still in the queue was not taken.
pub fn turn<'e, T, C: Commit>(
    working: &mut Fleet,
    queue: &mut VecDeque<(T, Command)>,
    mut env: impl FnMut() -> Env<'e>,
    commit: &mut C,
) -> Result<Vec<(T, Decided)>, C::Error> {
    let expected = working.fence();
    let limits = commit.limits();
    let mut cost = Cost::default();
    let mut decisions: Vec<Decision> = Vec::new();
    let mut outcomes: Vec<(T, Decided)> = Vec::new();
    while outcomes.len() < MOST_COMMANDS {
        let Some((_, command)) = queue.front() else { break };
        let decided = working.decide(command, &env());
        if let Ok(decision) = &decided
            && !decision.changes.is_empty()
        {
            let with_it = cost.plus(commit.cost(decision));
            if !decisions.is_empty() && !with_it.fits(limits) {
                break;
            }
            cost = with_it;
            working.apply(decision);
            decisions.push(decision.clone());
        }
        if let Some((ticket, _)) = queue.pop_front() {
            outcomes.push((ticket, decided));
        }
    }
    if !decisions.is_empty() {
        commit.commit(&decisions, expected, working.fence())?;
    }
    Ok(outcomes)
}
