//! Measures durable guest creates per second through HTTP, beside raw one-record commits of the same store.
//!
//! For each delay added to a flush (0, 1 and 10 ms) and 1, 16 and 64 clients: alternately one client's bare
//! commits of one record as large as a guest's, and creates through the whole controller, each run on a new
//! file with the same options. Every answer is checked, and after every run the books are read again from the
//! file and must hold exactly the guests that were answered with a yes. One JSON line per setting, of medians.
//! Flushes and commits are counted while nothing is under way, before and after each of several rounds; the
//! store flushes once more each time its file grows, so the median round tells a commit's own.

mod bench_stage;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use bench_stage::{Outcome, Stage};
use haar_controller::records;
use haar_core::id::Kind;
use haar_store::{Disk, Fence, Op, Options, RedbDisk};
use serde_json::{Value, json};
use uuid::Uuid;

const RUNS: usize = 3;
/// Rounds of creates in a run, after one that warms up: enough that a file which doubles does so in few of them.
const ROUNDS: usize = 9;
/// How long one round creates, and how long the yardstick commits.
const CREATE: Duration = Duration::from_millis(500);
const COMMIT: Duration = Duration::from_secs(1);
const DELAYS_MS: [u64; 3] = [0, 1, 10];
const CLIENTS: [usize; 3] = [1, 16, 64];
/// About what a guest's record takes.
const RECORD_BYTES: usize = 1_300;

/// What one run gave.
struct Run {
    creates_per_second: f64,
    flushes_per_commit: f64,
    creates_per_commit: f64,
    growth_flushes: f64,
    yardstick: f64,
}

/// What was counted in one round, or in several.
#[derive(Default)]
struct Count {
    creates: usize,
    seconds: f64,
    flushes: u64,
    commits: u64,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    for delay_ms in DELAYS_MS {
        for clients in CLIENTS {
            let mut runs = Vec::new();
            for _ in 0..RUNS {
                runs.push(run(delay_ms, clients).await?);
            }
            println!("{}", figure(delay_ms, clients, &runs));
        }
    }
    Ok(())
}

fn figure(delay_ms: u64, clients: usize, runs: &[Run]) -> Value {
    let value = median(runs, |run| run.creates_per_second);
    let yardstick = median(runs, |run| run.yardstick);
    json!({
        "name": "creates", "value": value.round(), "unit": "creates/s",
        "clients": clients, "flush_delay_ms": delay_ms,
        "yardstick": "raw one-record commits/s", "yardstick_value": yardstick.round(),
        "ratio": hundredths(value / yardstick),
        "flushes_per_commit": hundredths(median(runs, |run| run.flushes_per_commit)),
        "flushes_beyond_two_a_commit": median(runs, |run| run.growth_flushes),
        "creates_per_commit": hundredths(median(runs, |run| run.creates_per_commit)),
        "runs": RUNS,
        "read": "PUT /v1/guests/{id} until its 202, clients and server on the same processors; each create \
                 stores guest, job and events; the yardstick is one thread and one record",
    })
}

/// One run of both, each on a new file.
async fn run(delay_ms: u64, clients: usize) -> Outcome<Run> {
    let folder = tempfile::tempdir()?;
    let options = Options { flush_delay: Duration::from_millis(delay_ms), ..Options::default() };
    let raw = folder.path().join("raw.redb");
    let yardstick = tokio::task::spawn_blocking(move || raw_commits(&raw, options)).await??;

    let stage = Stage::begin(&folder.path().join("cloud"), options).await?;
    let mut ids = Vec::new();
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let (flushes, commits) = stage.flushes_and_commits().await?;
        let created = stage.create(clients, |_, elapsed| elapsed < CREATE).await?;
        let (flushes_after, commits_after) = stage.flushes_and_commits().await?;
        if round > 0 {
            rounds.push(Count {
                creates: created.ids.len(),
                seconds: created.took.as_secs_f64(),
                flushes: flushes_after - flushes,
                commits: commits_after - commits,
            });
        }
        ids.extend(created.ids);
    }
    stage.end().await;
    count_again(&folder.path().join("cloud/store.redb"), options, &ids)?;
    let all = rounds.iter().fold(Count::default(), |sum, round| Count {
        creates: sum.creates + round.creates,
        seconds: sum.seconds + round.seconds,
        flushes: sum.flushes + round.flushes,
        commits: sum.commits + round.commits,
    });
    Ok(Run {
        creates_per_second: all.creates as f64 / all.seconds,
        flushes_per_commit: median(&rounds, |round| round.flushes as f64 / round.commits as f64),
        creates_per_commit: all.creates as f64 / all.commits as f64,
        growth_flushes: all.flushes as f64 - 2.0 * all.commits as f64,
        yardstick,
    })
}

/// Bare commits of one record per second.
fn raw_commits(path: &Path, options: Options) -> Outcome<f64> {
    let mut disk = RedbDisk::open(path, options)?;
    let mut fence = Fence::default();
    let start = Instant::now();
    while start.elapsed() < COMMIT {
        let new = Fence { epoch: 1, revision: fence.revision + 1 };
        let key = Uuid::new_v4().as_bytes().to_vec();
        let op = Op::Put { kind: records::table(Kind::Guest), key, value: vec![b'x'; RECORD_BYTES] };
        disk.commit(&[op], fence, new)?;
        fence = new;
    }
    Ok(fence.revision as f64 / start.elapsed().as_secs_f64())
}

/// Reads the books again: they must hold exactly these guests.
fn count_again(path: &Path, options: Options, answered: &[Uuid]) -> Outcome<()> {
    let mut stored = BTreeSet::new();
    let mut disk = RedbDisk::open(path, options)?;
    disk.load(&[records::EVENTS, records::BLOBS], &mut |kind, key, _| {
        if kind == records::table(Kind::Guest) {
            stored.extend(Uuid::from_slice(key));
        }
    })?;
    let answered: BTreeSet<Uuid> = answered.iter().copied().collect();
    if stored != answered {
        let (more, fewer) = (stored.difference(&answered).count(), answered.difference(&stored).count());
        return Err(format!("the file has {more} guests nobody was promised and lacks {fewer}").into());
    }
    Ok(())
}

fn median<T>(runs: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
