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
    let mut is_full = false;
    // What alone is more than a commit takes is the last one taken, so that whoever fails knows whose it is.
    while outcomes.len() < MOST_COMMANDS && !is_full {
        let Some((_, command)) = queue.front() else { break };
        let decided = working.decide(command, &env());
        if let Ok(decision) = &decided
            && !decision.changes.is_empty()
        {
            let with_it = cost.plus(commit.cost(decision));
            let fits = with_it.fits(limits);
            if !decisions.is_empty() && !fits {
                break;
            }
            is_full = !fits;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::*;
    use crate::fence::{MonoMs, WallMs};
    use crate::flavor::FlavorSpec;
    use crate::fleet::command::Alive;
    use crate::id::{CloudId, FlavorId, HypervisorId, ImageId};
    use crate::name::Name;
    use crate::units::{MiB, Resources};

    struct Nobody;

    impl Alive for Nobody {
        fn is_alive(&self, _: HypervisorId) -> bool {
            false
        }
    }

    /// Remembers what it was given; fails when told to.
    #[derive(Default)]
    struct Store {
        most_ops: usize,
        commits: Vec<(usize, Fence, Fence)>,
        fails: bool,
    }

    impl Commit for Store {
        type Error = &'static str;

        fn cost(&self, decision: &Decision) -> Cost {
            Cost { ops: decision.changes.len(), bytes: 1 }
        }

        fn limits(&self) -> Cost {
            Cost { ops: self.most_ops, bytes: 1000 }
        }

        fn commit(&mut self, decisions: &[Decision], expected: Fence, new: Fence) -> Result<(), Self::Error> {
            self.commits.push((decisions.len(), expected, new));
            if self.fails { Err("the disk is gone") } else { Ok(()) }
        }
    }

    fn fleet() -> Fleet {
        Fleet::new(CloudId(Uuid::from_u128(1)))
    }

    /// A flavor; with `broken`, one that is refused.
    fn flavor(number: u128, broken: bool) -> Command {
        let spec = FlavorSpec {
            name: Name::new(format!("f{number}")).unwrap(),
            project: Name::default_project(),
            metadata: BTreeMap::new(),
            image: broken.then_some(ImageId(Uuid::from_u128(9))),
            resources: Resources { cpu: 1, memory: MiB(512), disk: MiB(1024) },
        };
        Command::CreateFlavor(FlavorId(Uuid::from_u128(number)), spec)
    }

    fn queue(commands: impl IntoIterator<Item = Command>) -> VecDeque<(u64, Command)> {
        commands.into_iter().enumerate().map(|(place, command)| (place as u64, command)).collect()
    }

    fn env() -> Env<'static> {
        Env { now: MonoMs(0), wall: WallMs(0), lot: 0, alive: &Nobody }
    }

    #[test]
    fn many_decisions_go_in_one_commit_each_with_its_own_revision() {
        let (mut working, mut store) = (fleet(), Store { most_ops: 100, ..Store::default() });
        let mut queue = queue((0..10).map(|number| flavor(number, false)));
        let outcomes = turn(&mut working, &mut queue, env, &mut store).unwrap();
        assert_eq!(store.commits, [(10, Fence::new(1, 0), Fence::new(1, 10))]);
        let fences: Vec<u64> = outcomes.iter().map(|(_, d)| d.as_ref().unwrap().fence.revision).collect();
        assert_eq!(fences, (1..=10).collect::<Vec<_>>());
        // The published fleet takes the same decisions and is the same.
        let mut published = fleet();
        outcomes.iter().for_each(|(_, decided)| published.apply(decided.as_ref().unwrap()));
        assert_eq!((published.fence(), published.flavors().count()), (working.fence(), 10));
    }

    #[test]
    fn a_commit_takes_no_more_than_its_limits_and_the_rest_waits() {
        let (mut working, mut store) = (fleet(), Store { most_ops: 3, ..Store::default() });
        let mut queue = queue((0..7).map(|number| flavor(number, false)));
        let mut tickets = Vec::new();
        while !queue.is_empty() {
            let outcomes = turn(&mut working, &mut queue, env, &mut store).unwrap();
            tickets.extend(outcomes.into_iter().map(|(ticket, _)| ticket));
        }
        assert_eq!(tickets, (0..7).collect::<Vec<_>>(), "in order, none twice");
        assert_eq!(store.commits.iter().map(|(count, ..)| *count).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(store.commits[1], (3, Fence::new(1, 3), Fence::new(1, 6)));
    }

    #[test]
    fn what_is_alone_too_large_is_for_the_store_to_judge() {
        let (mut working, mut store) = (fleet(), Store { most_ops: 0, ..Store::default() });
        let mut queue = queue((0..2).map(|number| flavor(number, false)));
        assert_eq!(turn(&mut working, &mut queue, env, &mut store).unwrap().len(), 1);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn refusals_and_repeats_between_cost_nothing_and_see_what_came_before() {
        let (mut working, mut store) = (fleet(), Store { most_ops: 2, ..Store::default() });
        let mut queue =
            queue([flavor(1, false), flavor(2, true), flavor(1, false), flavor(3, false), flavor(4, true)]);
        let outcomes = turn(&mut working, &mut queue, env, &mut store).unwrap();
        assert_eq!(store.commits, [(2, Fence::new(1, 0), Fence::new(1, 2))]);
        assert_eq!(outcomes.len(), 5);
        assert!(outcomes[1].1.is_err() && outcomes[4].1.is_err());
        let again = outcomes[2].1.as_ref().unwrap();
        assert_eq!((again.changes.len(), again.fence), (0, Fence::new(1, 1)));
    }

    #[test]
    fn nothing_to_change_is_no_commit() {
        let (mut working, mut store) = (fleet(), Store { most_ops: 9, ..Store::default() });
        let mut queue = queue([flavor(2, true)]);
        assert_eq!(turn(&mut working, &mut queue, env, &mut store).unwrap().len(), 1);
        assert_eq!(turn(&mut working, &mut queue, env, &mut store).unwrap().len(), 0);
        assert!(store.commits.is_empty());
    }

    #[test]
    fn a_failed_commit_tells_nobody_anything_and_leaves_the_rest_in_the_queue() {
        let (mut working, mut store) = (fleet(), Store { most_ops: 2, fails: true, ..Store::default() });
        let mut queue = queue((0..3).map(|number| flavor(number, false)));
        assert_eq!(turn(&mut working, &mut queue, env, &mut store), Err("the disk is gone"));
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn a_turn_is_bounded() {
        let (mut working, mut store) = (fleet(), Store { most_ops: 9, ..Store::default() });
        let mut queue = queue((0..MOST_COMMANDS as u128 + 5).map(|number| flavor(number, true)));
        assert_eq!(turn(&mut working, &mut queue, env, &mut store).unwrap().len(), MOST_COMMANDS);
        assert_eq!(queue.len(), 5);
    }
}
