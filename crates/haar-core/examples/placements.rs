//! How fast the fleet places guests: 100, 1,000 and 10,000 hypervisors of four sizes, 80 % full, four
//! flavors, creates and deletes mixed; decide and apply, job and address included, in memory on one core.
//!
//! Prints one JSON line per size. One answer in a hundred is compared with a search over all hypervisors;
//! a difference ends the program with an error. Run it with `--release`; numbers on the command line are
//! the sizes to run instead. Deliberately absent: the commit, which is the store's to measure.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_macros,
    reason = "a measurement reads the clock and prints; the core does neither"
)]

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use haar_core::fence::{MonoMs, WallMs};
use haar_core::flavor::FlavorSpec;
use haar_core::fleet::Fleet;
use haar_core::fleet::change::Decision;
use haar_core::fleet::command::{Alive, Command, Env};
use haar_core::guest::{GuestSpec, RestartPolicy};
use haar_core::hypervisor::{HypervisorSpec, Inventory};
use haar_core::id::{CloudId, FlavorId, GuestId, HypervisorId, ImageId, Kind, NetworkId, SubnetId};
use haar_core::image::{Format, ImageData, ImageSpec, Source};
use haar_core::name::Name;
use haar_core::network::{Gateway, NetworkSpec, Reach, SubnetSpec};
use haar_core::order::{Claim, Complete, GuestReport, Hello, Phase, Power, Report};
use haar_core::refusal::Refusal;
use haar_core::units::{MiB, Resources};
use uuid::Uuid;

/// CPUs and GiB of memory; disk is ten times the memory.
const HOSTS: [(u32, u64); 4] = [(16, 64), (32, 128), (64, 256), (96, 384)];
const FLAVORS: [(u32, u64); 4] = [(1, 2), (2, 4), (4, 16), (8, 32)];
const NETWORKS: u128 = 4;
const MEASURED: u64 = 20_000;
/// Creates, then as many deletes.
const BATCH: u64 = 100;

struct Everyone;

impl Alive for Everyone {
    fn is_alive(&self, _: HypervisorId) -> bool {
        true
    }
}

fn id(kind: u128, number: u128) -> Uuid {
    // Spread, as random ids are, so that ids do not follow the order of their making.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    uuid::Builder::from_random_bytes((spread ^ kind).to_be_bytes()).into_uuid()
}

fn name(text: &str) -> Name {
    Name::new(text).expect("names made here are labels")
}

fn resources((cpu, memory): (u32, u64)) -> Resources {
    Resources { cpu, memory: MiB(memory << 10), disk: MiB((memory * 10) << 10) }
}

struct Bench {
    fleet: Fleet,
    lot: u128,
    made: u128,
    dice: u64,
    guests: VecDeque<GuestId>,
    version: u64,
}

impl Bench {
    fn new(hosts: u128) -> Result<Bench, Refusal> {
        let fleet = Fleet::new(CloudId(id(0, 1)));
        let mut bench = Bench { fleet, lot: 0, made: 0, dice: 42, guests: VecDeque::new(), version: 0 };
        bench.nouns()?;
        for number in 0..hosts {
            bench.host(number)?;
        }
        let mut capacity = 0;
        let mut used = 0;
        for host in bench.fleet.hypervisors() {
            capacity += host.total.memory.0;
        }
        while used * 10 < capacity * 8 {
            let guest = bench.create()?.0;
            used += bench.fleet.guest(guest).map_or(0, |guest| guest.resources.memory.0);
        }
        Ok(bench)
    }

    fn ask(&mut self, command: &Command) -> Result<Decision, Refusal> {
        self.lot += 1;
        let lot = id(9, self.lot).as_u128();
        let env = Env { now: MonoMs(0), wall: WallMs(0), lot, alive: &Everyone };
        let decision = self.fleet.decide(command, &env)?;
        self.fleet.apply(&decision);
        Ok(decision)
    }

    fn nouns(&mut self) -> Result<(), Refusal> {
        let image = ImageId(id(1, 1));
        let project = Name::default_project();
        let metadata = BTreeMap::new();
        self.ask(&Command::CreateImage(
            image,
            ImageSpec {
                name: name("image"),
                project: project.clone(),
                metadata: metadata.clone(),
                format: Format::Qcow2,
                source: Source::Upload,
            },
        ))?;
        let data = ImageData { sha256: "a".repeat(64), file_bytes: 1, virtual_bytes: 1 };
        self.ask(&Command::ImageReady(image, data))?;
        for (index, size) in FLAVORS.into_iter().enumerate() {
            let spec = FlavorSpec {
                name: name(&format!("flavor-{index}")),
                project: project.clone(),
                metadata: metadata.clone(),
                image: Some(image),
                resources: resources(size),
            };
            self.ask(&Command::CreateFlavor(FlavorId(id(2, index as u128)), spec))?;
        }
        for number in 0..NETWORKS {
            let network = NetworkId(id(3, number));
            let spec = NetworkSpec {
                name: name(&format!("network-{number}")),
                project: project.clone(),
                metadata: metadata.clone(),
                nat: true,
                reach: Reach::All,
            };
            self.ask(&Command::CreateNetwork(network, spec))?;
            let first = number * 16;
            let parsed = |text: String| text.parse().expect("addresses made here are right");
            let spec = SubnetSpec {
                name: name(&format!("subnet-{number}")),
                project: project.clone(),
                metadata: metadata.clone(),
                network,
                cidr: format!("10.{first}.0.0/12").parse().expect("ranges made here are right"),
                gateway: Some(parsed(format!("10.{first}.0.1"))),
                start: parsed(format!("10.{first}.0.2")),
                end: parsed(format!("10.{}.255.254", first + 15)),
                dns: Vec::new(),
            };
            self.ask(&Command::CreateSubnet(SubnetId(id(4, number)), spec, Gateway::Said))?;
        }
        Ok(())
    }

    fn host(&mut self, number: u128) -> Result<(), Refusal> {
        let hypervisor = HypervisorId(id(5, number));
        let total = resources(HOSTS[(number % 4) as usize]);
        let spec = HypervisorSpec {
            name: name(&format!("host-{number}")),
            project: Name::default_project(),
            metadata: BTreeMap::new(),
            ip: None,
            netmask: None,
            gateway: None,
            mac: None,
            subnets: BTreeMap::new(),
            overcommit: None,
            cordon: None,
        };
        self.ask(&Command::CreateHypervisor(hypervisor, spec))?;
        let inventory = Inventory::default();
        self.ask(&Command::Hello(Hello { hypervisor, lot: 1, inventory: inventory.clone(), total }))?;
        let complete = Complete { epoch: 1, holds: Vec::new(), strangers: Vec::new(), inventory, total };
        self.report(hypervisor, Vec::new(), Some(complete))
    }

    fn report(
        &mut self,
        hypervisor: HypervisorId,
        guests: Vec<GuestReport>,
        complete: Option<Complete>,
    ) -> Result<(), Refusal> {
        let seen = self.fleet.fence();
        self.ask(&Command::Report(Report { hypervisor, incarnation: 1, seen, guests, complete })).map(|_| ())
    }

    fn dice(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }

    /// A new guest; the time is that of decide and apply.
    fn create(&mut self) -> Result<(GuestId, Duration), Refusal> {
        self.made += 1;
        let guest = GuestId(id(6, self.made));
        let flavor = FlavorId(id(2, u128::from(self.dice(4))));
        let network = NetworkId(id(3, u128::from(self.dice(NETWORKS as u64))));
        let spec = GuestSpec {
            name: name(&format!("guest-{}", self.made)),
            project: Name::default_project(),
            metadata: BTreeMap::new(),
            kind: String::new(),
            flavor,
            image: None,
            network,
            subnet: None,
            address: None,
            fwgroup: None,
            mac: None,
            hypervisor: None,
            require: BTreeMap::new(),
            restart: RestartPolicy::default(),
            ssh_keys: Vec::new(),
            user_data: None,
            start: true,
        };
        let command = Command::CreateGuest(guest, Box::new(spec), None);
        let began = Instant::now();
        self.ask(&command)?;
        let took = began.elapsed();
        self.guests.push_back(guest);
        Ok((guest, took))
    }

    /// An old guest goes: the order, and the hypervisor's word that nothing is left.
    fn delete(&mut self) -> Result<(), Refusal> {
        let place = self.dice(self.guests.len() as u64) as usize;
        self.guests.swap(0, place);
        let Some(guest) = self.guests.pop_front() else { return Ok(()) };
        self.ask(&Command::Delete(Kind::Guest, guest.0, None))?;
        let Some(record) = self.fleet.guest(guest) else { return Ok(()) };
        let Some(place) = record.place else { return Ok(()) };
        self.version += 1;
        let claim = Claim {
            name: record.spec.name.clone(),
            project: record.spec.project.clone(),
            resources: record.resources,
            flavor: record.spec.flavor,
            image: record.image,
            network: record.spec.network,
            subnet: place.subnet,
            mac: record.mac,
            address: place.address,
        };
        let gone = GuestReport {
            id: guest,
            life: place.life,
            order: record.order,
            version: self.version,
            phase: Phase::Gone,
            power: Power::Absent,
            provisioned: false,
            deed: None,
            steps: Vec::new(),
            claim,
        };
        self.report(place.hypervisor, vec![gone], None)
    }

    /// The best hypervisor for a flavor, by looking at each.
    fn search(&self, demand: Resources) -> Option<HypervisorId> {
        let overcommit = self.fleet.config().overcommit();
        let scores = self.fleet.hypervisors().filter_map(|host| {
            let (used, all) = (self.fleet.used(host.id), overcommit.of(host.total));
            let fits = used.cpu + demand.cpu <= all.cpu
                && used.memory.0 + demand.memory.0 <= all.memory.0
                && used.disk.0 + demand.disk.0 <= all.disk.0;
            let share = |used: u64, all: u64| (used << 20) / all;
            let score = share(used.disk.0, all.disk.0)
                + share(used.memory.0, all.memory.0)
                + share(used.cpu.into(), all.cpu.into());
            fits.then_some((score, host.id))
        });
        scores.min().map(|(_, id)| id)
    }
}

/// CPU time of this thread in nanoseconds, where the system tells it: on a busy machine the clock on the
/// wall counts the others' work too.
fn cpu_ns() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok()
}

fn run(hosts: u128) -> Result<(), Box<dyn std::error::Error>> {
    let mut bench = Bench::new(hosts)?;
    let guests = bench.guests.len();
    let mut wall = Duration::ZERO;
    let mut cpu = 0;
    let mut deleting = 0;
    let mut worst = Duration::ZERO;
    for _ in 0..MEASURED / BATCH {
        let began = cpu_ns();
        for _ in 0..BATCH {
            let (_, took) = bench.create()?;
            wall += took;
            worst = worst.max(took);
        }
        let created = cpu_ns();
        for _ in 0..BATCH {
            bench.delete()?;
        }
        let deleted = cpu_ns();
        cpu += created.zip(began).map_or(0, |(end, start)| end - start);
        deleting += deleted.zip(created).map_or(0, |(end, start)| end - start);
        // One in a hundred is compared, outside of what is measured.
        let wanted: Vec<_> = FLAVORS.iter().map(|size| (*size, bench.search(resources(*size)))).collect();
        let (guest, _) = bench.create()?;
        let made = bench.fleet.guest(guest).ok_or("the guest just made is not there")?;
        let found = made.place.map(|place| place.hypervisor);
        let wanted = wanted.iter().find(|(size, _)| resources(*size) == made.resources);
        if wanted.and_then(|(_, host)| *host) != found {
            return Err("the placement differs from a search over all hypervisors".into());
        }
        bench.delete()?;
    }
    let faults = bench.fleet.check();
    if let Some(fault) = faults.first() {
        return Err(format!("{} faults in the books; the first: {fault}", faults.len()).into());
    }
    let wall_ns = wall.as_nanos() as u64 / MEASURED;
    let ns = if cpu > 0 { cpu / MEASURED } else { wall_ns };
    println!(
        "{{\"hypervisors\":{hosts},\"guests\":{guests},\"placements\":{MEASURED},\"placements_per_second\":{},\
         \"ns_per_placement\":{ns},\"wall_ns_per_placement\":{wall_ns},\"worst_wall_ns\":{},\
         \"ns_per_delete\":{},\"checked\":{}}}",
        1_000_000_000 / ns.max(1),
        worst.as_nanos(),
        deleting / MEASURED,
        MEASURED / BATCH,
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let asked: Vec<u128> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let sizes = if asked.is_empty() { vec![100, 1_000, 10_000] } else { asked };
    sizes.into_iter().try_for_each(run)
}
