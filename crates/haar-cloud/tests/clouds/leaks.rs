//! A thousand spawns in a cloud where much goes wrong, by tasks that are dropped and processes that die:
//! nothing that exists is ever missing from the record, and in the end nothing is left.
//!
//! A process is a runtime of its own that ends in the midst of everything. What goes wrong and when comes
//! from a seed; one that failed stays in the list.

use std::sync::Arc;
use std::time::Duration;

use haar_cloud::fake::{Build, Fake};
use haar_cloud::name::{DeploymentId, ResourceName};
use haar_cloud::provider::Ground;
use haar_cloud::space::Request;
use haar_cloud::state::{Kind, Record};
use haar_cloud::{Cloud, SpawnOrder};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep, sleep_until, timeout};

const PROCESSES: u64 = 25;
const SPAWNS: u64 = 40;

/// Numbers by lot.
struct Lot(u64);

impl Lot {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn build(&mut self) -> Build {
        match self.below(10) {
            0 => Build::Fails("No valid host was found. "),
            1 => Build::Fails("no kernel"),
            2 => Build::At(None),
            seconds => Build::After(Duration::from_secs(seconds * 3)),
        }
    }
}

struct World {
    fake: Arc<Fake>,
    folder: tempfile::TempDir,
    name: ResourceName,
    /// Where the last process's clock was.
    clock: Option<Instant>,
}

impl World {
    fn cloud(&self) -> Cloud {
        Cloud::new(self.fake.clone(), &self.name, self.folder.path()).unwrap()
    }

    /// A runtime at the time of the cloud: each has a clock of its own, and the cloud's goes on.
    fn runtime(&self) -> Runtime {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        if let Some(clock) = self.clock {
            runtime.block_on(async { sleep_until(clock).await });
        }
        runtime
    }

    /// Runs a process until its work is done, or until it dies.
    fn process(&mut self, dies_after: Option<Duration>, work: impl AsyncFnOnce(Cloud)) {
        let runtime = self.runtime();
        runtime.block_on(async {
            let work = work(self.cloud());
            match dies_after {
                Some(limit) => drop(timeout(limit, work).await),
                None => work.await,
            }
            self.clock = Some(Instant::now());
        });
        // Here every task of it ends wherever it is.
        drop(runtime);
    }

    /// Whatever the cloud has of ours is on record, by its id or by its name.
    fn nothing_is_forgotten(&self, when: &str) {
        let runtime = self.runtime();
        let _at_its_time = runtime.enter();
        let Some(record) = self.cloud().journal().store().load().unwrap() else {
            assert_eq!(self.fake.left(), ["server alice"], "{when}: there is no record");
            return;
        };
        let found = self.fake.with(|world| world.marked(record.deployment()));
        for (kind, name, id) in found {
            assert!(knows(&record, kind, &name, &id), "{when}: {kind} {name} ({id}) is not on record");
        }
    }
}

fn knows(record: &Record, kind: Kind, name: &str, id: &str) -> bool {
    let mut entries = record.entries().filter(|entry| entry.kind == kind);
    entries.any(|entry| match entry.cloud_id() {
        Some(known) => known == id,
        // An address is named by itself, its note by its server.
        None => entry.name == name || kind == Kind::FloatingIp,
    })
}

async fn one_spawn(cloud: Cloud, mut lot: Lot) {
    sleep(Duration::from_millis(lot.below(60_000))).await;
    let order = SpawnOrder {
        external: lot.below(3) == 0,
        ttd: Duration::from_secs(lot.below(3) * 20),
        // More than a small one has: it boots from a volume.
        disk_gb: if lot.below(5) == 0 { 30 } else { 0 },
        ..SpawnOrder::new("debian-12", "debian", if lot.below(4) == 0 { "large" } else { "small" })
    };
    let patience = match lot.below(2) {
        0 => Duration::from_millis(lot.below(40_000)),
        _ => Duration::from_secs(3600),
    };
    let Ok(Ok(server)) = timeout(patience, cloud.spawn(order, || {})).await else { return };
    let work = Request { ram_mb: 1, ..Request::default() };
    match lot.below(3) {
        0 => drop(timeout(Duration::from_millis(lot.below(3000)), server.destroy()).await),
        1 if server.allocate(&work).is_ok() => server.release(&work),
        _ => {}
    }
}

fn run(seed: u64) {
    let mut lot = Lot(seed);
    let mut world = World {
        fake: Arc::new(Fake::default()),
        folder: crate::bench::folder(),
        name: "a".parse().unwrap(),
        clock: None,
    };
    let alice = DeploymentId::random();
    let fake = Arc::clone(&world.fake);
    world.process(None, async |_| drop(fake.with(|world| world.put(Kind::Server, "alice", Some(alice), ""))));
    for number in 0..PROCESSES {
        let fake = Arc::clone(&world.fake);
        fake.draw_faults(seed + number, 60, Duration::from_millis(1500));
        fake.with(|world| world.build = lot.build());
        let lots: Vec<Lot> = (0..SPAWNS).map(|_| Lot(seed ^ lot.below(u64::MAX >> 33))).collect();
        let dies_after = Duration::from_millis(lot.below(150_000));
        let tears_down = number % 10 == 9;
        world.process(Some(dies_after), async |cloud| {
            // Much goes wrong, so a deploy may need another one.
            while cloud.deploy(Ground::default()).await.is_err() {
                sleep(Duration::from_secs(1)).await;
            }
            let spawns = lots.into_iter().map(|lot| one_spawn(cloud.clone(), lot));
            let spawns = futures_util::future::join_all(spawns);
            if tears_down {
                let tear_down = async {
                    sleep(Duration::from_secs(20)).await;
                    cloud.tear_down().await
                };
                drop(tokio::join!(spawns, tear_down));
            } else {
                spawns.await;
            }
            cloud.settled().await;
        });
        world.nothing_is_forgotten(&format!("seed {seed}, process {number}"));
    }
    world.fake.be_good();
    world.process(None, async |cloud| {
        cloud.deploy(Ground::default()).await.unwrap();
        cloud.tear_down().await.unwrap();
    });
    let runtime = world.runtime();
    let _at_its_time = runtime.enter();
    assert_eq!(world.fake.left(), ["server alice"], "seed {seed}");
    assert_eq!(std::fs::read_dir(world.folder.path()).unwrap().count(), 0, "seed {seed}: files are left");
}

#[test]
fn after_a_thousand_spawns_failures_and_kills_nothing_is_left() {
    // Another seed can be tried by the variable.
    match std::env::var("HAAR_CLOUD_SEED") {
        Ok(seed) => run(seed.parse().unwrap()),
        Err(_) => run(2026),
    }
}
