//! The world test: both brains and the real batch function, hosts that remember the truth, a network that
//! drops, delays, repeats and reorders, and everything that can crash, by seed.
//!
//! [`World::run`] runs one world; [`run_seeds`] many, on two threads. At every moment the truth must hold; at
//! the end, when all is healed and quiet, the books must equal it. Deliberately absent: any rule of the
//! product; a shell here queues, commits and answers, and that is all.

mod agent;
mod books;
mod controller;
pub mod coverage;
mod ending;
mod faults;
pub mod guards;
mod host;
mod lot;
mod net;
mod records;
mod setup;
pub mod systematic;
mod truth;
mod user;
mod world;

pub use world::{End, Options, Plan, World};

use coverage::Coverage;

/// What many worlds came to.
#[derive(Debug, Default)]
pub struct Tally {
    /// What was reached in all of them.
    pub coverage: Coverage,
    /// The seeds that failed, in ascending order, with what was wrong.
    pub failures: Vec<(u64, String)>,
    /// The fewest messages, commands and faults of any world.
    pub least: (u64, u64, u64),
}

/// Runs worlds of `count` seeds from `first` on, on two threads, and stops after `most_failures`.
pub fn run_seeds(first: u64, count: u64, most_failures: usize) -> Tally {
    let run = |offset: u64| {
        let mut tally = Tally { least: (u64::MAX, u64::MAX, u64::MAX), ..Tally::default() };
        for seed in (first + offset..first + count).step_by(2) {
            let end = World::run(seed, Options::default());
            tally.coverage.merge(&end.coverage);
            tally.least = least(tally.least, (end.messages, end.commands, end.faults));
            if let Some(failure) = end.failure {
                tally.failures.push((seed, failure));
                if tally.failures.len() >= most_failures {
                    break;
                }
            }
        }
        tally
    };
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        let one = run(0);
        (one, other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let mut tally = one;
    tally.coverage.merge(&other.coverage);
    tally.least = least(tally.least, other.least);
    tally.failures.extend(other.failures);
    tally.failures.sort();
    tally
}

fn least(one: (u64, u64, u64), other: (u64, u64, u64)) -> (u64, u64, u64) {
    (one.0.min(other.0), one.1.min(other.1), one.2.min(other.2))
}
