//! `cargo xtask test`: everything a change must pass, in one command, at home and in CI.
//!
//! Stages run in order and the first that fails ends the run. Plain `cargo test` is used, never another
//! runner: one way to run the tests, and nothing to install. A test that cannot run on this machine
//! writes a line to the file `$HAAR_LEFT_OUT` and passes; these lines are printed at the end.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{image, libvirt, packages, run, tidy};

pub(crate) const HELP: &str = "\
cargo xtask test [STAGE...]

Installs what the tests need, then runs the stages (all, or those named):
  packages  tidy  format  clippy  build  test
As root, `test` includes the live tests: they get HAAR_LIVE=1, HAAR_TEST_IMAGE (the tiny guest image),
HAAR_BIN_DIR (the built programs) and a running libvirtd. Otherwise they are named and left out.";

/// A stage: its name and what it does.
type Stage = (&'static str, fn() -> Result<()>);

const STAGES: &[Stage] = &[
    ("packages", install),
    ("tidy", tidy::check),
    ("format", || cargo(&["fmt", "--all", "--check"])),
    ("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("build", || cargo(&["build", "--workspace", "--all-targets"])),
    ("test", tests),
];

/// The command.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    if let Some(unknown) = arguments.iter().find(|word| STAGES.iter().all(|(name, _)| name != word)) {
        bail!("there is no stage `{unknown}`\n\n{HELP}");
    }
    let is_chosen = |stage: &&Stage| arguments.is_empty() || arguments.iter().any(|word| word == stage.0);
    let chosen: Vec<&Stage> = STAGES.iter().filter(is_chosen).collect();
    let began = Instant::now();
    let mut times = Vec::new();
    for (number, (name, run_stage)) in chosen.iter().enumerate() {
        eprintln!("\n== {name}");
        let stage_began = Instant::now();
        if let Err(error) = run_stage() {
            let rest: Vec<&str> = chosen[number + 1..].iter().map(|(name, _)| *name).collect();
            let after =
                if rest.is_empty() { String::new() } else { format!("; not run: {}", rest.join(", ")) };
            return Err(error
                .context(format!("FAILED at `{name}` after {:.0} s{after}", began.elapsed().as_secs_f32())));
        }
        times.push(format!("{name} {:.1} s", stage_began.elapsed().as_secs_f32()));
    }
    eprintln!("\nPASSED in {:.0} s: {}", began.elapsed().as_secs_f32(), times.join(", "));
    Ok(())
}

fn install() -> Result<()> {
    // Without root only what building takes: the live tests are left out anyway.
    packages::install(&packages::set(if run::is_root() { "test" } else { "build" })?)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run::shown(run::cargo().args(arguments))
}

fn tests() -> Result<()> {
    let top = tidy::top()?;
    let scratch = run::Scratch::inside(&std::env::temp_dir())?;
    let left_out = scratch.path().join("left-out");
    let mut command = run::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).env("HAAR_LEFT_OUT", &left_out);
    command.env("HAAR_BIN_DIR", run::target_folder()?.join("debug"));
    let is_live = run::is_root();
    let daemons = if is_live {
        command.env("HAAR_LIVE", "1").env("HAAR_TEST_IMAGE", image::build()?.path);
        Some(libvirt::ensure()?)
    } else {
        command.env_remove("HAAR_LIVE");
        None
    };
    let outcome = run::shown(&mut command);
    drop(daemons);
    let live = if is_live { Vec::new() } else { live_tests(&top)? };
    say_what_was_left_out(&left_out, &live);
    outcome
}

fn say_what_was_left_out(file: &Path, live: &[String]) {
    let lines = std::fs::read_to_string(file).unwrap_or_default();
    if lines.is_empty() && live.is_empty() {
        return;
    }
    eprintln!("\nleft out:");
    for line in lines.lines() {
        eprintln!("  {line}");
    }
    for name in live {
        eprintln!("  {name}: live tests need root");
    }
}

/// The names of the tests in files that ask for `HAAR_LIVE`.
fn live_tests(top: &Path) -> Result<Vec<String>> {
    let listed = run::quietly(
        run::command("grep")
            .args(["-rl", "--include=*.rs", concat!("HAAR_", "LIVE"), "crates"])
            .current_dir(top),
    );
    // grep finds nothing, and fails, while there is no live test.
    let Ok(files) = listed else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for file in files.lines() {
        let text = std::fs::read_to_string(top.join(file)).with_context(|| format!("cannot read {file}"))?;
        names.extend(test_names(&text).into_iter().map(|name| format!("{file} {name}")));
    }
    names.sort();
    Ok(names)
}

/// The functions that follow a test attribute.
fn test_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut follows_attribute = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            follows_attribute = true;
        } else if let Some((_, after)) = line.split_once("fn ").filter(|_| follows_attribute) {
            names.extend(after.split('(').next().map(str::to_owned));
            follows_attribute = false;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_known_by_their_attribute() {
        let text = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn two() {}\n";
        assert_eq!(test_names(text), ["one", "two"]);
    }

    #[test]
    fn an_unknown_stage_is_refused() {
        assert!(main(&["everything".to_owned()]).is_err());
    }
}
