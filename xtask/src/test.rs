//! `cargo xtask test`: everything a change must pass, in one command, at home and in CI.
//!
//! Stages run in order and the first that fails ends the run. Plain `cargo test` is used, never another
//! runner: one way to run the tests, and nothing to install. A test that cannot run on this machine
//! writes a line to the file `$HAAR_LEFT_OUT` and passes; these lines are printed at the end. Under `HAAR_LIVE`
//! nothing may be left out but what needs a package that not every mirror has.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::image::WithAgent;
use crate::{image, libvirt, packages, run, tidy};

mod openstack;

pub(crate) const HELP: &str = "\
cargo xtask test [STAGE...]
cargo xtask test --only openstack

Installs what the tests need, then runs the stages (all, or those named):
  packages  tidy  format  clippy  build  test
As root, `test` includes the live tests: they get HAAR_LIVE=1, HAAR_TEST_IMAGE (the tiny guest image),
HAAR_TEST_AGENT_IMAGE (the same with a QEMU guest agent and NFS, or HAAR_TEST_AGENT_IMAGE_MISSING: why there is none),
HAAR_BIN_DIR (the built programs) and a running libvirtd. Otherwise they are left out, and named at the end.

--only openstack brings up a real OpenStack of Debian's packages on 127.0.0.1 (tests/openstack; as root it
installs them), runs the tests against it, and takes it down again. Its databases stay in the target folder,
so that the next time is quick. Where the packages are not to be had, it says so and ends well.";

/// A stage: its name and what it does.
type Stage = (&'static str, fn() -> Result<()>);

const STAGES: &[Stage] = &[
    ("packages", install),
    ("tidy", tidy::check),
    ("format", || component("rustfmt", &["fmt", "--all", "--check"])),
    ("clippy", || component("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    ("build", || cargo(&["build", "--workspace", "--all-targets"])),
    ("test", tests),
];

/// The command.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    if let [option, rest @ ..] = arguments
        && option == "--only"
    {
        return only(rest);
    }
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

/// What is run by itself, since it takes minutes and needs much of the machine.
fn only(names: &[String]) -> Result<()> {
    match names {
        [name] if name == "openstack" => openstack::main(),
        _ => bail!("`--only` knows openstack\n\n{HELP}"),
    }
}

fn install() -> Result<()> {
    // Without root nothing that runs guests: the live tests are left out anyway.
    packages::install(&packages::set(if run::is_root() { "test" } else { "check" })?)
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run::shown(run::cargo().args(arguments))
}

/// A stage of a component that not every toolchain has.
fn component(name: &str, arguments: &[&str]) -> Result<()> {
    let asked = run::cargo().args([arguments[0], "--version"]).output();
    if !asked.is_ok_and(|output| output.status.success()) {
        bail!("{}", missing(name, run::find("rustup").is_some()));
    }
    cargo(arguments)
}

fn missing(name: &str, has_rustup: bool) -> String {
    let how = if has_rustup { "install it" } else { "where rustup manages Rust, install it" };
    format!("this toolchain has no {name}; {how}: rustup component add {name}")
}

fn tests() -> Result<()> {
    let scratch = run::Scratch::inside(&std::env::temp_dir())?;
    let left_out = scratch.path().join("left-out");
    let mut command = run::cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).env("HAAR_LEFT_OUT", &left_out);
    command.env("HAAR_BIN_DIR", run::target_folder()?.join("debug"));
    let is_live = run::is_root();
    let daemons = if is_live {
        command.env("HAAR_LIVE", "1").env("HAAR_TEST_IMAGE", image::build()?.path);
        match image::build_with_agent()? {
            WithAgent::Made(image) => command.env("HAAR_TEST_AGENT_IMAGE", image.path),
            WithAgent::Missing(why) => command.env("HAAR_TEST_AGENT_IMAGE_MISSING", why),
        };
        Some(libvirt::ensure()?)
    } else {
        command.env_remove("HAAR_LIVE");
        None
    };
    let outcome = run::shown(&mut command);
    drop(daemons);
    say_what_was_left_out(&left_out)?;
    outcome
}

fn say_what_was_left_out(file: &Path) -> Result<()> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.context("what was left out cannot be read")?,
    };
    for line in left_out_lines(&text) {
        eprintln!("{line}");
    }
    Ok(())
}

/// What is printed: each test once, under a heading that counts them.
fn left_out_lines(text: &str) -> Vec<String> {
    let mut tests: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    tests.sort_unstable();
    tests.dedup();
    if tests.is_empty() {
        return Vec::new();
    }
    let heading = format!("\n{} left out:", tests.len());
    std::iter::once(heading).chain(tests.iter().map(|line| format!("  {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_counted_and_said_once() {
        assert!(left_out_lines("").is_empty());
        let lines = left_out_lines("haar b: no kvm\nhaar a: not root\nhaar b: no kvm\n");
        assert_eq!(lines, ["\n2 left out:", "  haar a: not root", "  haar b: no kvm"]);
    }

    #[test]
    fn a_missing_component_is_named_with_what_installs_it() {
        assert!(missing("clippy", true).ends_with("install it: rustup component add clippy"));
    }

    #[test]
    fn an_unknown_stage_is_refused() {
        assert!(main(&["everything".to_owned()]).is_err());
        for names in [&["--only"][..], &["--only", "aws"], &["--only", "openstack", "more"]] {
            let words: Vec<String> = names.iter().map(|word| (*word).to_owned()).collect();
            assert!(main(&words).unwrap_err().to_string().contains("knows openstack"));
        }
    }
}
