//! Measures the controller's resident memory with 100,000 guests, beside the bytes of the records it holds.
//!
//! The guests are made as users make them, through HTTP, and reported running by their hosts' agents. Then the
//! controller is ended, and another process loads the store, serves, and is measured once its memory has
//! settled. Events and blobs stay on the disk and do not count as records. One JSON line. A number on the
//! command line is another count of guests.

mod bench_stage;

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench_stage::{Outcome, Stage};
use haar_api::client::Client;
use haar_api::endpoint::Nothing;
use haar_api::feed::{self, FeedGuest, Item, PowerWord, Report, ReportClaim, ReportGuest, ReportPhase};
use haar_api::table;
use haar_api::v1::FenceText;
use haar_controller::{Config, records};
use haar_store::{Disk, Options, RedbDisk};
use serde_json::json;
use tokio::task::JoinSet;

const GUESTS: usize = 100_000;
const CLIENTS: usize = 64;
/// The first word of the process that is measured.
const SERVE: &str = "--serve";
const LIMIT: Duration = Duration::from_secs(60);
const MIB: f64 = 1_048_576.0;

#[tokio::main]
async fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [word, folder] if word == SERVE => serve(Path::new(folder)).await,
        [] => measure(GUESTS).await,
        [count] => measure(count.parse()?).await,
        _ => Err("give nothing, or a number of guests".into()),
    }
}

async fn measure(guests: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let stage = Stage::begin(folder.path(), Options::default()).await?;
    let created = stage.create(CLIENTS, move |begun, _| begun < guests).await?;
    report_running(&stage, guests).await?;
    let (flushes, commits) = stage.flushes_and_commits().await?;
    stage.end().await;
    if created.ids.len() != guests {
        return Err(format!("{} guests were made instead of {guests}", created.ids.len()).into());
    }
    let (count, bytes) = stored(&folder.path().join("store.redb"))?;
    let (resident, most) = resident(folder.path())?;
    let round = |number: f64| (number * 10.0).round() / 10.0;
    println!(
        "{}",
        json!({
            "name": "memory", "value": round(resident / MIB), "unit": "MiB", "guests": guests,
            "yardstick": "bytes of the records as stored", "yardstick_value": round(bytes / MIB),
            "ratio": round(resident / bytes), "records": count, "peak_mib": round(most / MIB),
            "bytes_per_guest": (resident / guests as f64).round(),
            "creates_per_second": (guests as f64 / created.took.as_secs_f64()).round(),
            "flushes_per_commit": (flushes as f64 / commits as f64 * 100.0).round() / 100.0,
            "read": "resident set of a controller that has just loaded this store: the working and the published \
                     books, indexes, the store's cache and the program; running guests with their ended jobs",
        })
    );
    Ok(())
}

/// Has every host report all its guests running.
async fn report_running(stage: &Stage, guests: usize) -> Outcome<()> {
    let mut hosts = JoinSet::new();
    for (agent, incarnation) in &stage.agents {
        hosts.spawn(report_host(agent.clone(), *incarnation));
    }
    let mut reported = 0;
    while let Some(done) = hosts.join_next().await {
        reported += done??;
    }
    if reported != guests {
        return Err(format!("the hosts were told of {reported} guests instead of {guests}").into());
    }
    Ok(())
}

async fn report_host(agent: Client, incarnation: u64) -> Outcome<usize> {
    let feed = agent.request::<table::AgentFeed>(&[]).limit(LIMIT).send(&Nothing).await?.value;
    let orders: Vec<FeedGuest> = feed.guests.into_iter().filter_map(Item::known).collect();
    for part in orders.chunks(haar_core::order::Report::MOST_GUESTS) {
        let report = Report {
            version: feed::VERSION,
            incarnation,
            seen: feed.fence,
            guests: part.iter().map(|order| Item::Known(running(order))).collect(),
            complete: None,
            unsupported: Vec::new(),
        };
        agent.request::<table::AgentReport>(&[]).limit(LIMIT).send(&report).await?;
    }
    Ok(orders.len())
}

fn running(order: &FeedGuest) -> ReportGuest {
    ReportGuest {
        id: order.id,
        life: order.life,
        order: order.order,
        version: 1,
        phase: ReportPhase::Settled,
        power: PowerWord::Running,
        provisioned: true,
        deed: None::<FenceText>,
        steps: Vec::new(),
        claim: ReportClaim {
            name: order.name.clone(),
            project: order.project.clone(),
            resources: order.resources,
            flavor: order.flavor,
            image: order.image,
            network: order.network,
            subnet: order.subnet,
            mac: order.mac,
            address: order.address,
        },
    }
}

/// Records of the books and their bytes.
fn stored(path: &Path) -> Outcome<(u64, f64)> {
    let (mut count, mut bytes) = (0, 0);
    RedbDisk::open(path, Options::default())?.load(
        &[records::EVENTS, records::BLOBS],
        &mut |_, key, value| {
            count += 1;
            bytes += key.len() + value.len();
        },
    )?;
    Ok((count, bytes as f64))
}

/// The process that is measured: serves until its input ends.
async fn serve(folder: &Path) -> Outcome<()> {
    let config = Config::new(folder, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let running = haar_controller::start(config, async {
        let _ = ended.await;
    })
    .await?;
    println!("{}", running.addr);
    running.wait().await;
    Ok(())
}

/// A process that is ended with this value.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes that a controller on this folder has resident once that has settled, and the most it ever had.
fn resident(folder: &Path) -> Outcome<(f64, f64)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(SERVE).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut served = Served(command.spawn()?);
    let output = served.0.stdout.take().ok_or("the process has no output")?;
    let mut address = String::new();
    BufReader::new(output).read_line(&mut address)?;
    if address.trim().parse::<SocketAddr>().is_err() {
        return Err("the controller did not start on the store".into());
    }
    let began = Instant::now();
    let mut before = status(served.0.id(), "VmRSS:")?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = status(served.0.id(), "VmRSS:")?;
        // The first check of the books goes on in the background.
        if (now - before).abs() < MIB || began.elapsed() > LIMIT {
            return Ok((now, status(served.0.id(), "VmHWM:")?));
        }
        before = now;
    }
}

/// A field of `/proc/<id>/status`, in bytes.
fn status(process: u32, field: &str) -> Outcome<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).ok_or("/proc has no such field")?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024.0)
}
