//! Tests of the fleet: one small cloud that knows the API, and cases in the domain's words.
//!
//! [`Cloud::ask`] decides twice (same answer, to the byte), applies, and then wants the books to be without
//! fault: so every case also proves that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::Fleet;
use super::change::{Decision, Effect};
use super::command::{Alive, Command, Decided, Env, GuestAction, Outcome};
use crate::address::Mac;
use crate::fence::{Fence, MonoMs, WallMs};
use crate::flavor::FlavorSpec;
use crate::guest::{Goal, Guest, GuestSpec, RestartPolicy, State};
use crate::hypervisor::{Hypervisor, HypervisorSpec, Inventory};
use crate::id::{CloudId, FlavorId, GuestId, HypervisorId, ImageId, JobId, NetworkId, SubnetId};
use crate::image::{Format, ImageData, ImageSpec, Source};
use crate::job::{Job, Status};
use crate::name::Name;
use crate::network::{Gateway, NetworkSpec, Reach, SubnetSpec};
use crate::order::{Claim, Complete, GuestReport, Hello, Phase, Power, Report};
use crate::refusal::Refusal;
use crate::units::{MiB, Resources};

mod actions;
mod check;
mod create;
mod jobs;
mod nouns;
mod property;
mod reports;
mod restore;

pub(super) const FLAVOR: FlavorId = FlavorId(Uuid::from_u128(0xf1));
pub(super) const IMAGE: ImageId = ImageId(Uuid::from_u128(0x1a));
pub(super) const NETWORK: NetworkId = NetworkId(Uuid::from_u128(0x2e));
pub(super) const SUBNET: SubnetId = SubnetId(Uuid::from_u128(0x5b));
pub(super) const STEP_MS: u64 = 120_000;

pub(super) fn host(number: u128) -> HypervisorId {
    HypervisorId(Uuid::from_u128(0x4000 + number))
}

pub(super) fn guest(number: u128) -> GuestId {
    GuestId(Uuid::from_u128(0x9000 + number))
}

pub(super) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Those who poll.
#[derive(Debug, Clone, Default)]
pub(super) struct Polls(pub(super) BTreeSet<HypervisorId>);

impl Alive for Polls {
    fn is_alive(&self, hypervisor: HypervisorId) -> bool {
        self.0.contains(&hypervisor)
    }
}

/// A cloud under test.
#[derive(Debug, Clone)]
pub(super) struct Cloud {
    pub(super) fleet: Fleet,
    pub(super) now: u64,
    pub(super) polls: Polls,
    pub(super) lot: u128,
    pub(super) version: u64,
    pub(super) effects: Vec<Effect>,
}

impl Cloud {
    /// An image, a flavor (1 cpu, 1 GiB, 10 GiB), a network with one subnet, and this many hypervisors
    /// (4 cpu, 8 GiB, 100 GiB) that joined and reported.
    pub(super) fn with_hosts(hosts: u128) -> Cloud {
        let mut cloud = Cloud {
            fleet: Fleet::new(CloudId(Uuid::from_u128(0xc1))),
            now: 1_000_000,
            polls: Polls::default(),
            lot: 0,
            version: 0,
            effects: Vec::new(),
        };
        cloud.yes(Command::CreateImage(IMAGE, image_spec("debian")));
        let data = ImageData { sha256: "a".repeat(64), file_bytes: 1 << 20, virtual_bytes: 1 << 30 };
        cloud.yes(Command::ImageReady(IMAGE, data));
        cloud.yes(Command::CreateFlavor(FLAVOR, flavor_spec("small", 1, 1024, 10 << 10)));
        cloud.yes(Command::CreateNetwork(NETWORK, network_spec("lan")));
        cloud.yes(Command::CreateSubnet(SUBNET, subnet_spec("lan-a", NETWORK, "10.0.0"), Gateway::Said));
        for number in 1..=hosts {
            cloud.add_host(number);
        }
        cloud
    }

    pub(super) fn add_host(&mut self, number: u128) {
        let id = host(number);
        self.yes(Command::CreateHypervisor(id, hypervisor_spec(&format!("lab{number}"))));
        self.join(id, 7);
        self.complete(id, &[]);
    }

    pub(super) fn join(&mut self, id: HypervisorId, lot: u64) {
        self.polls.0.insert(id);
        self.yes(Command::Hello(Hello {
            hypervisor: id,
            lot,
            inventory: Inventory::default(),
            total: total(),
        }));
    }

    pub(super) fn complete(&mut self, id: HypervisorId, holds: &[GuestId]) -> Decision {
        let report = self.complete_report(id, holds);
        self.yes(Command::Report(report))
    }

    pub(super) fn complete_report(&self, id: HypervisorId, holds: &[GuestId]) -> Report {
        let complete = Complete {
            epoch: self.fleet.epoch(),
            holds: holds.to_vec(),
            strangers: Vec::new(),
            inventory: Inventory::default(),
            total: total(),
        };
        Report { complete: Some(complete), ..self.report(id, Vec::new()) }
    }

    pub(super) fn report(&self, id: HypervisorId, guests: Vec<GuestReport>) -> Report {
        let incarnation = self.fleet.hypervisor(id).unwrap().incarnation;
        Report { hypervisor: id, incarnation, seen: self.fleet.fence(), guests, complete: None }
    }

    pub(super) fn decide(&self, command: &Command) -> Decided {
        let env = Env { now: MonoMs(self.now), wall: WallMs(5), lot: self.lot, alive: &self.polls };
        let decided = self.fleet.decide(command, &env);
        assert_eq!(decided, self.fleet.decide(command, &env), "the same question, another answer");
        decided
    }

    #[expect(clippy::needless_pass_by_value, reason = "cases read better without a borrow")]
    pub(super) fn ask(&mut self, command: Command) -> Decided {
        let decided = self.decide(&command);
        self.lot += 1;
        if let Ok(decision) = &decided {
            let before = self.fleet.fence();
            let changed = !decision.changes.is_empty();
            assert_eq!(decision.fence > before, changed, "a new fence exactly when something changes");
            assert!(decision.changes.len() <= 100, "one decision must fit one commit");
            self.fleet.apply(decision);
            self.effects = decision.effects.clone();
        }
        let faults = self.fleet.check();
        assert_eq!(faults, Vec::new(), "after {command:?}");
        decided
    }

    pub(super) fn yes(&mut self, command: Command) -> Decision {
        let text = format!("{command:?}");
        self.ask(command).unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
    }

    pub(super) fn no(&mut self, command: Command) -> Refusal {
        let text = format!("{command:?}");
        self.ask(command).map(|decision| format!("{text}: {:?}", decision.answer)).unwrap_err()
    }

    pub(super) fn create(&mut self, number: u128) -> Decided {
        self.ask(Command::CreateGuest(guest(number), Box::new(guest_spec(number)), None))
    }

    /// Makes a guest and has its hypervisor settle it.
    pub(super) fn running(&mut self, number: u128) -> GuestId {
        self.create(number).unwrap();
        self.tell(guest(number), Phase::Settled, Power::Running);
        guest(number)
    }

    pub(super) fn act(&mut self, id: GuestId, action: GuestAction) -> Decided {
        self.ask(Command::Act(id, action, None))
    }

    pub(super) fn guest(&self, id: GuestId) -> &Guest {
        self.fleet.guest(id).unwrap()
    }

    pub(super) fn host(&self, id: HypervisorId) -> &Hypervisor {
        self.fleet.hypervisor(id).unwrap()
    }

    pub(super) fn place(&self, id: GuestId) -> HypervisorId {
        self.guest(id).place.unwrap().hypervisor
    }

    pub(super) fn last_job(&self, id: GuestId) -> &Job {
        self.job(self.guest(id).job.unwrap())
    }

    pub(super) fn job(&self, id: JobId) -> &Job {
        self.fleet.job(id).unwrap()
    }

    /// What a node says of a guest with the present order.
    pub(super) fn says(&mut self, id: GuestId, phase: Phase, power: Power) -> GuestReport {
        self.version += 1;
        let guest = self.guest(id);
        let life = guest.place.map_or(guest.order, |place| place.life);
        let provisioned = phase == Phase::Settled || guest.provisioned.is_some();
        GuestReport {
            id,
            life,
            order: guest.order,
            version: self.version,
            phase,
            power,
            provisioned,
            deed: None,
            steps: Vec::new(),
            claim: claim_of(guest),
        }
    }

    /// Its hypervisor reports it so.
    pub(super) fn tell(&mut self, id: GuestId, phase: Phase, power: Power) -> Decision {
        let hypervisor = self.place(id);
        let says = self.says(id, phase, power);
        let report = self.report(hypervisor, vec![says]);
        self.yes(Command::Report(report))
    }

    /// Time passes until a guest's open job is overdue, and the timer fires.
    pub(super) fn miss_deadline(&mut self, id: GuestId) -> Decision {
        self.now += STEP_MS;
        let (job, due) = *self
            .fleet
            .overdue(MonoMs(self.now))
            .iter()
            .find(|(job, _)| Some(*job) == self.guest(id).job)
            .expect("its job must be overdue");
        self.yes(Command::Overdue(job, due))
    }

    pub(super) fn miss_all_deadlines(&mut self, id: GuestId) {
        for _ in 0..4 {
            self.miss_deadline(id);
        }
    }

    /// The same books, loaded from their records as after a restart.
    pub(super) fn restart(&mut self) {
        let cursors: Vec<_> =
            self.fleet.index.pools.iter().filter_map(|(id, pool)| Some((*id, pool.cursor()?))).collect();
        self.fleet = reloaded(&self.fleet, &cursors, MonoMs(self.now));
        assert_eq!(self.fleet.check(), Vec::new());
    }
}

/// What a store would give back: jobs without their deadlines, in the order of loading.
fn reloaded(fleet: &Fleet, cursors: &[(SubnetId, std::net::IpAddr)], now: MonoMs) -> Fleet {
    use super::change::Record;
    let mut loaded = Fleet::empty();
    loaded.restore(Record::Config(Arc::clone(&fleet.config)));
    fleet.tokens().for_each(|r| loaded.restore(Record::Token(Arc::clone(r))));
    fleet.hypervisors().for_each(|r| loaded.restore(Record::Hypervisor(Arc::clone(r))));
    fleet.images().for_each(|r| loaded.restore(Record::Image(Arc::clone(r))));
    fleet.flavors().for_each(|r| loaded.restore(Record::Flavor(Arc::clone(r))));
    fleet.networks().for_each(|r| loaded.restore(Record::Network(Arc::clone(r))));
    fleet.subnets().for_each(|r| loaded.restore(Record::Subnet(Arc::clone(r))));
    fleet.fwgroups().for_each(|r| loaded.restore(Record::FwGroup(Arc::clone(r))));
    fleet.guests().for_each(|r| loaded.restore(Record::Guest(Arc::clone(r))));
    for job in fleet.jobs() {
        loaded.restore(Record::Job(Arc::new(Job { due: MonoMs(0), ..Job::clone(job) })));
    }
    for (subnet, address) in cursors {
        loaded.restore_cursor(*subnet, *address);
    }
    loaded.restored(fleet.fence(), now);
    loaded
}

pub(super) fn total() -> Resources {
    Resources { cpu: 4, memory: MiB(8 << 10), disk: MiB(100 << 10) }
}

pub(super) fn claim_of(guest: &Guest) -> Claim {
    let place = guest.place;
    Claim {
        name: guest.spec.name.clone(),
        project: guest.spec.project.clone(),
        resources: guest.resources,
        flavor: guest.spec.flavor,
        image: guest.image,
        network: guest.spec.network,
        subnet: place.map_or(SUBNET, |place| place.subnet),
        mac: guest.mac,
        address: place.map_or("10.0.0.200".parse().unwrap(), |place| place.address),
    }
}

pub(super) fn image_spec(text: &str) -> ImageSpec {
    ImageSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        format: Format::Qcow2,
        source: Source::Upload,
    }
}

pub(super) fn flavor_spec(text: &str, cpu: u32, memory: u64, disk: u64) -> FlavorSpec {
    FlavorSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        image: Some(IMAGE),
        resources: Resources { cpu, memory: MiB(memory), disk: MiB(disk) },
    }
}

pub(super) fn network_spec(text: &str) -> NetworkSpec {
    NetworkSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        nat: true,
        reach: Reach::All,
    }
}

/// `10.0.0` stands for 10.0.0.0/24 with the gateway .1, handing out .10 to .250.
pub(super) fn subnet_spec(text: &str, network: NetworkId, net: &str) -> SubnetSpec {
    SubnetSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        network,
        cidr: format!("{net}.0/24").parse().unwrap(),
        gateway: Some(format!("{net}.1").parse().unwrap()),
        start: format!("{net}.10").parse().unwrap(),
        end: format!("{net}.250").parse().unwrap(),
        dns: vec!["9.9.9.9".parse().unwrap()],
    }
}

pub(super) fn hypervisor_spec(text: &str) -> HypervisorSpec {
    HypervisorSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        ip: None,
        netmask: None,
        gateway: None,
        mac: None,
        subnets: BTreeMap::new(),
        overcommit: None,
        cordon: None,
    }
}

pub(super) fn guest_spec(number: u128) -> GuestSpec {
    GuestSpec {
        name: name(&format!("web-{number}")),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        kind: String::new(),
        flavor: FLAVOR,
        image: None,
        network: NETWORK,
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
    }
}

pub(super) fn failed() -> Phase {
    use crate::job::Stage;
    Phase::Failed { stage: Stage::Disks, code: "no_space".to_owned(), message: "disk full".to_owned() }
}
