//! What is to be done about a container, from what is wanted and what is seen; pure.
//!
//! ```text
//!             Never     Watched      Alive        Ended
//!   Run       Start     Leave        Leave        Again or Rest, by the policy
//!   Restart   Restart   Leave        Restart      Restart
//!   Stop      Rest      Leave        End          Rest
//!   Gone      Remove    Leave        Remove       Remove
//! ```
//!
//! `Watched` is the moment in which a monitor has begun or ends: who looks again sees another thing. At any other one, a
//! container that was held to be saved is first let go.

use serde::{Deserialize, Serialize};

/// What is wanted of a container; written before anything is done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Goal {
    /// It runs.
    Run,
    /// It ends, if it runs, and then runs.
    Restart,
    /// It does not.
    Stop,
    /// It is removed.
    Gone,
}

/// What follows when a container ends by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Restart {
    /// Nothing.
    Never,
    /// It is run again unless its code is 0.
    #[default]
    OnFailure,
    /// It is run again.
    Always,
}

/// What became of the present run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// It was not begun.
    Never,
    /// A monitor has it, and there is no process.
    Watched,
    /// Its process runs.
    Alive,
    /// It ended with this code; None when nobody saw it, as after a restart of the host.
    Ended(Option<i32>),
}

/// All that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) goal: Goal,
    pub(super) restart: Restart,
    pub(super) run: Run,
    /// Whether it was held for a moment by who then had no time to let it go.
    pub(super) is_held: bool,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Leave,
    /// Begin the present run.
    Start,
    /// Begin another run, after a pause.
    Again,
    /// End it if it runs, and begin another run.
    Restart,
    /// End it.
    End,
    /// Take away what only a running one needs.
    Rest,
    /// Remove it.
    Remove,
    /// Let it go on.
    LetGo,
}

/// The table above.
pub(super) fn step(seen: Seen) -> Step {
    match (seen.goal, seen.run) {
        (_, run) if seen.is_held && run != Run::Watched => Step::LetGo,
        (_, Run::Watched) | (Goal::Run, Run::Alive) => Step::Leave,
        (Goal::Gone, _) => Step::Remove,
        (Goal::Restart, _) => Step::Restart,
        (Goal::Stop, Run::Alive) => Step::End,
        (Goal::Stop, _) => Step::Rest,
        (Goal::Run, Run::Never) => Step::Start,
        (Goal::Run, Run::Ended(code)) if is_wanted_again(seen.restart, code) => Step::Again,
        (Goal::Run, Run::Ended(_)) => Step::Rest,
    }
}

fn is_wanted_again(restart: Restart, code: Option<i32>) -> bool {
    match restart {
        Restart::Never => false,
        // An end nobody saw was not a good one.
        Restart::OnFailure => code != Some(0),
        Restart::Always => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds() {
        use Goal::{Gone, Stop};
        let runs = [Run::Never, Run::Watched, Run::Alive, Run::Ended(Some(0)), Run::Ended(None)];
        for (goal, steps) in [
            (Goal::Run, [Step::Start, Step::Leave, Step::Leave, Step::Rest, Step::Again]),
            (Goal::Restart, [Step::Restart, Step::Leave, Step::Restart, Step::Restart, Step::Restart]),
            (Stop, [Step::Rest, Step::Leave, Step::End, Step::Rest, Step::Rest]),
            (Gone, [Step::Remove, Step::Leave, Step::Remove, Step::Remove, Step::Remove]),
        ] {
            for (run, wanted) in runs.into_iter().zip(steps) {
                let seen = Seen { goal, restart: Restart::OnFailure, run, is_held: false };
                assert_eq!(step(seen), wanted, "{goal:?} {run:?}");
                let first = if run == Run::Watched { Step::Leave } else { Step::LetGo };
                assert_eq!(step(Seen { is_held: true, ..seen }), first, "{goal:?} {run:?}");
            }
        }
    }

    #[test]
    fn the_policy_says_what_an_end_means() {
        for (restart, code, again) in [
            (Restart::Never, Some(1), false),
            (Restart::Never, None, false),
            (Restart::OnFailure, Some(0), false),
            (Restart::OnFailure, Some(137), true),
            (Restart::OnFailure, None, true),
            (Restart::Always, Some(0), true),
        ] {
            let seen = Seen { goal: Goal::Run, restart, run: Run::Ended(code), is_held: false };
            assert_eq!(step(seen) == Step::Again, again, "{restart:?} {code:?}");
        }
    }
}
