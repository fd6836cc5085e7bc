//! Runs worlds: `haar-world --seeds 2000 --from 0`, or one of them told line by line: `haar-world --trace 17`.

use std::process::ExitCode;

use haar_world::systematic;
use haar_world::{Options, Plan, Tally, World, run_seeds};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let position = arguments.iter().position(|argument| argument == name)?;
        arguments.get(position + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = number("--trace") {
        return tell(World::run(seed, Options { trace: true, ..Options::default() }));
    }
    if let Some(index) = number("--trace-step") {
        let Some(once) = systematic::all().get(index as usize).copied() else {
            eprintln!("there are {} steps", systematic::all().len());
            return ExitCode::FAILURE;
        };
        println!("{once:?}");
        return tell(World::run(index, Options { trace: true, plan: Plan::One(once) }));
    }
    let (first, count) = (number("--from").unwrap_or(0), number("--seeds").unwrap_or(2000));
    let most = number("--failures").unwrap_or(20);
    let tally = run_seeds(first, count, most as usize);
    let steps_failed =
        if arguments.iter().any(|argument| argument == "--no-steps") { 0 } else { run_steps() };
    print_tally(&tally, first, count);
    let complete = count < 2000 || tally.coverage.missing().is_empty();
    if tally.failures.is_empty() && steps_failed == 0 && complete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn tell(end: haar_world::End) -> ExitCode {
    for line in &end.trace {
        println!("{line}");
    }
    println!("{} messages, {} commands, {} faults", end.messages, end.commands, end.faults);
    match end.failure {
        Some(failure) => {
            println!("failed: {failure}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn run_steps() -> usize {
    let mut failed = 0;
    for (index, once) in systematic::all().into_iter().enumerate() {
        let end = World::run(index as u64, Options { trace: false, plan: Plan::One(once) });
        if let Some(failure) = end.failure {
            println!("step {index} {once:?}: {failure}");
            failed += 1;
        }
    }
    println!("{} steps failed once each, {failed} of them wrongly", systematic::all().len());
    failed
}

fn print_tally(tally: &Tally, first: u64, count: u64) {
    for (name, times) in tally.coverage.iter() {
        println!("{times:>9} {name}");
    }
    for missing in tally.coverage.missing() {
        println!("  NEVER   {missing}");
    }
    let (messages, commands, faults) = tally.least;
    println!("at least {messages} messages, {commands} commands, {faults} faults in a world");
    for (seed, failure) in &tally.failures {
        println!("seed {seed}: {failure}");
    }
    println!("{count} seeds from {first}: {} failed", tally.failures.len());
}
