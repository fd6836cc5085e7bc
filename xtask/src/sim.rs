//! `cargo xtask sim`: many simulated worlds, each named by its seed.
//!
//! Only builds and runs the world's own program in release; what it prints and how it ends is its business.

use anyhow::{Result, bail};

use crate::run;

pub(crate) const HELP: &str = "\
cargo xtask sim [--seeds N] [--from S]

Runs N simulated worlds with the seeds S, S+1, …: both brains, the real batch function, faults by seed.
A seed that fails prints its trace and ends the run. What else the program takes: `-- --help`.";

/// The options whose value must be a number.
const NUMBERS: &[&str] = &["--seeds", "--from"];

/// The command.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let arguments = arguments.strip_prefix(&["--".to_owned()]).unwrap_or(arguments);
    check(arguments)?;
    let mut world = run::cargo();
    world.args(["run", "--quiet", "--release", "--package", "haar-world", "--"]).args(arguments);
    run::shown(&mut world)
}

/// Refuses a bad number at once rather than after the build.
fn check(arguments: &[String]) -> Result<()> {
    let mut words = arguments.iter();
    while let Some(word) = words.next().filter(|word| NUMBERS.contains(&word.as_str())) {
        match words.next().map(|value| value.parse::<u64>()) {
            Some(Ok(_)) => {}
            _ => bail!("{word} takes a number\n\n{HELP}"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(line: &str) -> bool {
        check(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).is_ok()
    }

    #[test]
    fn a_seed_that_is_no_number_is_refused_before_anything_is_built() {
        assert!(checked("--seeds 100 --from 7"));
        assert!(checked(""));
        assert!(!checked("--seeds many"));
        assert!(!checked("--seeds 5 --from"));
    }
}
