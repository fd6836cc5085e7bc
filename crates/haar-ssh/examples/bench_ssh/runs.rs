//! Commands that do nothing: how many a second, and over how many connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use haar_ssh::{CancellationToken, Command, Pool};
use serde_json::json;

use crate::programs::Programs;
use crate::sshd::{Setup, Sshd};
use crate::{Outcome, rounded};

const RUNS: usize = 1000;
/// In how many parts each side does its runs, so that what else the machine does meets both alike.
const TURNS: usize = 5;
const COMMAND: &str = "true";

/// One figure for each number of commands at a time.
pub(crate) async fn measure() -> Outcome<()> {
    for at_a_time in [1, 10] {
        figure(at_a_time).await?;
    }
    Ok(())
}

async fn figure(at_a_time: usize) -> Outcome<()> {
    let sshd = Sshd::start(&Setup::default())?;
    let (pool, programs) = (sshd.pool(), Programs::on(&sshd)?);
    // Both begin with their connection up; the logins count as connections all the same.
    ours(&pool, 1, 1).await?;
    let mut our_connections = sshd.logins();
    programs.run(COMMAND)?;
    let mut their_connections = sshd.logins() - our_connections;
    let (mut our_time, mut their_time) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..TURNS {
        let before = sshd.logins();
        our_time += ours(&pool, at_a_time, RUNS / TURNS).await?;
        let between = sshd.logins();
        their_time += theirs(&programs, at_a_time, RUNS / TURNS)?;
        our_connections += between - before;
        their_connections += sshd.logins() - between;
    }
    let rate = |time: Duration| rounded(RUNS as f64 / time.as_secs_f64());
    let line = json!({
        "name": "ssh_runs", "value": rate(our_time), "unit": "runs/s", "at_a_time": at_a_time,
        "yardstick": "the program ssh with ControlMaster and ControlPersist", "yardstick_value": rate(their_time),
        "ratio": rounded(their_time.as_secs_f64() / our_time.as_secs_f64()), "runs": RUNS,
        "connections": our_connections, "yardstick_connections": their_connections,
        "read": "`true` run so often by the user's shell on loopback, the connection being up; MaxSessions 10",
    });
    println!("{line}");
    Ok(())
}

/// So many runs by the pool.
async fn ours(pool: &Pool, at_a_time: usize, runs: usize) -> Outcome<Duration> {
    let began = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for share in shares(at_a_time, runs) {
        workers.spawn(one_after_the_other(pool.clone(), share));
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(began.elapsed())
}

async fn one_after_the_other(pool: Pool, runs: usize) -> haar_ssh::Result<()> {
    let (command, never) = (Command::new(COMMAND), CancellationToken::new());
    for _ in 0..runs {
        let output = pool.run(&command, &never).await?;
        assert_eq!((output.status, output.stdout.as_slice()), (0, &b""[..]), "a wrong answer");
    }
    Ok(())
}

/// So many runs by the program.
fn theirs(programs: &Programs, at_a_time: usize, runs: usize) -> Outcome<Duration> {
    let failures = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for share in shares(at_a_time, runs) {
            let failures = &failures;
            scope.spawn(move || {
                for _ in 0..share {
                    failures.fetch_add(usize::from(programs.run(COMMAND).is_err()), Ordering::Relaxed);
                }
            });
        }
    });
    match failures.into_inner() {
        0 => Ok(began.elapsed()),
        failures => Err(format!("{failures} of {runs} runs of ssh failed").into()),
    }
}

/// How many runs each of those that work side by side does.
fn shares(at_a_time: usize, runs: usize) -> impl Iterator<Item = usize> {
    (0..at_a_time).map(move |worker| (runs + worker) / at_a_time)
}
