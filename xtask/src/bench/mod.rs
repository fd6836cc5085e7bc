//! `cargo xtask bench`: what Haar costs, each figure beside its yardstick from the same run.
//!
//! Every bench is a program of its own (an example of the crate it measures, built in release) that prints
//! one JSON line per figure and fails when an answer it got was wrong. Here they are run in order, their
//! lines are put in a readable order and held against the goals. A goal that is missed is said, and is no
//! failure: figures are for people to judge, on a machine that other things use too.

mod figure;
mod goals;
mod idle;
mod openstack;
mod placements;
mod start;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use self::figure::Figure;
use crate::{packages, run};

pub(crate) const HELP: &str = "\
cargo xtask bench [NAME...]

Prints one JSON line per figure on stdout, and on stderr whether it meets its goal. Runs all benches or
those named:
  placements  guests placed per second by the core with 100, 1,000 and 10,000 hypervisors
  creates     durable guest creates per second through HTTP, beside bare one-record commits
  memory      the controller's resident memory with 100,000 guests, beside the bytes of its records
  clone       a guest disk's clone at 1 and 20 GiB, beside qemu-img create -b
  snapshot    snapshot, rollback and clone at 20 GiB, beside 1 GiB, on each storage back end (root for reflink and zfs)
  rest        the agent's REST: 1,000 actions over 100 guests, the list of 1,000 guests, a snapshot's download
  idle        memory and processor time of an agent that has nothing to do, with 100 domains (libvirt's test driver)
  ssh         1,000 commands over ssh beside the program ssh with ControlMaster, 1 GiB there and back beside sftp
  openstack   100 servers at once in a real OpenStack, and the tear-down of 50, beside bare calls (tests/openstack)
  start       a guest from create to running, beside virsh define and start (root, libvirtd)
Ends with 0 unless a bench could not run or got a wrong answer; a missed goal is only said.";

/// How a bench is run: it hands each of its figures to the function.
type Run = fn(&mut dyn FnMut(Figure)) -> Result<()>;

const BENCHES: &[(&str, Run)] = &[
    ("placements", placements::measure),
    ("creates", |each| example("haar-controller", "bench_creates", each)),
    ("memory", |each| example("haar-controller", "bench_memory", each)),
    ("clone", |each| example("haar-subagents", "bench_clone", each)),
    ("snapshot", |each| example("haar-subagents", "bench_snapshot", each)),
    ("rest", |each| example("haar-agent", "bench_rest", each)),
    ("idle", idle::measure),
    ("ssh", ssh),
    ("openstack", openstack::measure),
    ("start", start::measure),
];

/// The command.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    if let Some(unknown) = arguments.iter().find(|word| BENCHES.iter().all(|(name, _)| name != word)) {
        bail!("there is no bench `{unknown}`\n\n{HELP}");
    }
    let mut figures: Vec<Figure> = Vec::new();
    let mut failed = Vec::new();
    for (name, measure) in BENCHES {
        if !arguments.is_empty() && !arguments.iter().any(|word| word == name) {
            continue;
        }
        let began = Instant::now();
        eprintln!("== {name}");
        let outcome = measure(&mut |mut figure: Figure| {
            let goals = goals::judge(&figure, &figures);
            figure.judged(&goals);
            println!("{figure}");
            for goal in goals {
                eprintln!("   {goal}");
            }
            figures.push(figure);
        });
        // The others are measured all the same.
        match outcome {
            Ok(()) => eprintln!("   {name}: {:.0} s", began.elapsed().as_secs_f32()),
            Err(error) => {
                eprintln!("   {name} FAILED: {error:#}");
                failed.push(*name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("could not measure: {}", failed.join(", "));
    }
    Ok(())
}

/// Both sides of ssh come from Debian; nothing of it is turned on.
fn ssh(each: &mut dyn FnMut(Figure)) -> Result<()> {
    packages::install(&packages::of(&["openssh-server", "openssh-client"])?)?;
    example("haar-ssh", "bench_ssh", each)
}

/// Runs an example whose lines are figures.
fn example(package: &str, name: &str, each: &mut dyn FnMut(Figure)) -> Result<()> {
    lines(package, name, &mut |line| Figure::parse(line).map(&mut *each))
}

/// Builds an example in release, runs it, and hands over each of its lines; those that `take` finds to be
/// no figure are shown.
fn lines(package: &str, name: &str, take: &mut dyn FnMut(&str) -> Option<()>) -> Result<()> {
    build(package, name)?;
    let words = example_words(package, name);
    read(run::cargo().arg("run").args(words), &format!("the example `{name}` of {package}"), take)
}

/// Builds an example in release.
fn build(package: &str, name: &str) -> Result<()> {
    run::shown(run::cargo().arg("build").args(example_words(package, name)))
}

fn example_words<'a>(package: &'a str, name: &'a str) -> [&'a str; 6] {
    ["--quiet", "--release", "--package", package, "--example", name]
}

/// Runs a program and hands over each of its lines; those that `take` finds to be no figure are shown.
fn read(program: &mut Command, what: &str, take: &mut dyn FnMut(&str) -> Option<()>) -> Result<()> {
    program.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = run::Running(program.spawn().context("cannot start cargo")?);
    let printed = running.0.stdout.take().context("the example has no output")?;
    let mut count = 0;
    for line in BufReader::new(printed).lines() {
        let line = line?;
        match take(&line) {
            Some(()) => count += 1,
            None => eprintln!("   {line}"),
        }
    }
    let status = running.0.wait()?;
    if !status.success() {
        bail!("{what} ended with {status}; its words are above");
    }
    if count == 0 {
        bail!("{what} printed no figure");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bench_is_in_the_help() {
        for (name, _) in BENCHES {
            assert!(HELP.contains(&format!("\n  {name} ")), "{name}");
        }
    }

    #[test]
    fn an_unknown_bench_is_refused() {
        assert!(main(&["everything".to_owned()]).is_err());
    }
}
