//! The board against asking everyone: random hosts, random changes, every request compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::board::Board;
use super::{Load, Request, judge, standing, used_share};
use crate::fence::WallMs;
use crate::fleet::command::Alive;
use crate::hypervisor::{Hypervisor, HypervisorSpec, Inventory};
use crate::id::{HypervisorId, SubnetId};
use crate::name::Name;
use crate::units::{MiB, Resources};

struct Polls(BTreeSet<HypervisorId>);

impl Alive for Polls {
    fn is_alive(&self, hypervisor: HypervisorId) -> bool {
        self.0.contains(&hypervisor)
    }
}

const SUBNETS: [SubnetId; 2] = [SubnetId(Uuid::from_u128(1)), SubnetId(Uuid::from_u128(2))];

fn id(number: u16) -> HypervisorId {
    HypervisorId(Uuid::from_u128(u128::from(number) * 7919 % 65_521))
}

fn demand(kind: u8) -> Resources {
    let factor = u64::from(kind % 4) + 1;
    Resources { cpu: u32::from(kind % 4) + 1, memory: MiB(factor * 1024), disk: MiB(factor * 10_240) }
}

fn record(number: u16, traits: u8) -> Hypervisor {
    let mut metadata = BTreeMap::new();
    if traits & 1 != 0 {
        metadata.insert("disk".to_owned(), "fast".to_owned());
    }
    let mut subnets = BTreeMap::new();
    for (index, subnet) in SUBNETS.into_iter().enumerate() {
        if traits & (2 << index) != 0 {
            subnets.insert(subnet, String::new());
        }
    }
    Hypervisor {
        id: id(number),
        spec: HypervisorSpec {
            name: Name::new(format!("h{number}")).unwrap(),
            project: Name::default_project(),
            metadata,
            ip: None,
            netmask: None,
            gateway: None,
            mac: None,
            subnets,
            overcommit: None,
            cordon: (traits & 0x70 == 0x70).then(String::new),
        },
        incarnation: u64::from(traits & 0xe0 != 0xe0),
        lot: 0,
        reported_epoch: Some(u64::from(traits & 0x90 != 0x90)),
        known_epoch: 1,
        total: Resources { cpu: 8, memory: MiB(8192), disk: MiB(81_920) },
        inventory: Inventory::default(),
        strangers: Vec::new(),
        revision: 0,
        observed_revision: 0,
        created_at: WallMs(0),
        updated_at: WallMs(0),
    }
}

#[derive(Debug, Clone)]
enum Event {
    Put { host: u16, traits: u8 },
    Use { host: u16, eighths: u8 },
    Remove { host: u16 },
    Demand { kind: u8, add: bool },
    Alive { host: u16, alive: bool },
    Ask { kind: u8, traits: u8, host: u16 },
}

fn event(hosts: u16) -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..hosts, any::<u8>()).prop_map(|(host, traits)| Event::Put { host, traits }),
        6 => (0..hosts, 0..9u8).prop_map(|(host, eighths)| Event::Use { host, eighths }),
        1 => (0..hosts).prop_map(|host| Event::Remove { host }),
        1 => (0..4u8, any::<bool>()).prop_map(|(kind, add)| Event::Demand { kind, add }),
        2 => (0..hosts, any::<bool>()).prop_map(|(host, alive)| Event::Alive { host, alive }),
        6 => (0..4u8, any::<u8>(), 0..hosts).prop_map(|(kind, traits, host)| Event::Ask { kind, traits, host }),
    ]
}

#[derive(Default)]
struct Twin {
    board: Board,
    records: BTreeMap<HypervisorId, Arc<Hypervisor>>,
    loads: BTreeMap<HypervisorId, Load>,
    demands: BTreeMap<u8, u32>,
    polls: BTreeSet<HypervisorId>,
}

impl Twin {
    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Put { host, traits } => {
                let record = record(host, traits);
                let load = self.loads.get(&record.id).copied();
                let load = load.unwrap_or(Load { capacity: record.total, used: Resources::default() });
                let before = self.records.insert(record.id, Arc::new(record.clone()));
                self.loads.insert(record.id, load);
                self.polls.insert(record.id);
                self.board.put(before.as_deref(), &record, load, 1);
            }
            Event::Use { host, eighths } => {
                let Some(load) = self.loads.get_mut(&id(host)) else { return Ok(()) };
                let part = u64::from(eighths);
                load.used =
                    Resources { cpu: u32::from(eighths), memory: MiB(part * 1024), disk: MiB(part * 10_240) };
                self.board.set_used(id(host), load.used);
            }
            Event::Remove { host } => {
                if let Some(record) = self.records.remove(&id(host)) {
                    self.loads.remove(&record.id);
                    self.board.remove(&record);
                }
            }
            Event::Demand { kind, add: true } => {
                *self.demands.entry(kind).or_default() += 1;
                self.board.add_demand(demand(kind));
            }
            Event::Demand { kind, add: false } => {
                let count = self.demands.entry(kind).or_default();
                if *count > 0 {
                    *count -= 1;
                    self.board.drop_demand(demand(kind));
                }
            }
            Event::Alive { host, alive: true } => drop(self.polls.insert(id(host))),
            Event::Alive { host, alive: false } => drop(self.polls.remove(&id(host))),
            Event::Ask { kind, traits, host } => self.ask(kind, traits, host)?,
        }
        Ok(())
    }

    fn ask(&self, kind: u8, traits: u8, host: u16) -> Result<(), TestCaseError> {
        let fast = [("disk".to_owned(), "fast".to_owned())].into();
        let none = BTreeMap::new();
        let avoid = [id(host), id(host / 2), id(host / 3)];
        let request = Request {
            demand: demand(kind),
            asked: (traits & 0xf0 == 0xf0).then_some(id(host)),
            require: if traits & 1 != 0 { &fast } else { &none },
            avoid: if traits & 2 != 0 { &avoid } else { &[] },
            listed_only: traits & 4 != 0,
            subnets: vec![(SUBNETS[0], traits & 8 != 0), (SUBNETS[1], true)],
            unheard: (traits & 0x3f == 0x3f).then_some(id(host)),
            epoch: 1,
        };
        let polls = Polls(self.polls.clone());
        let answers = self.records.values().filter_map(|record| {
            let score = judge(&request, record, self.loads[&record.id], &polls).ok()?;
            Some((score.failed_before, used_share(self.loads[&record.id]), record.id))
        });
        let wanted = answers.min().map(|(_, _, id)| id);
        prop_assert_eq!(self.board.choose(&request, &self.records, &polls), wanted);
        Ok(())
    }

    fn faults(&self) -> Vec<String> {
        let open = |record: &Hypervisor| standing(record, 1).is_none();
        let expected = self.records.values().map(|r| (r.id, (self.loads[&r.id], open(r)))).collect();
        self.board.faults(&expected)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_board_answers_as_asking_everyone_does(
        hosts in proptest::collection::vec((0..32u8, 0..9u8), 200),
        events in proptest::collection::vec(event(200), 1..300),
    ) {
        let mut twin = Twin::default();
        // Full blocks from the start: only then is a block's best often one that the mask leaves out.
        for (host, (traits, eighths)) in (0..).zip(hosts) {
            twin.happen(&Event::Put { host, traits })?;
            twin.happen(&Event::Use { host, eighths })?;
        }
        for kind in 0..3 {
            twin.happen(&Event::Demand { kind, add: true })?;
        }
        for (index, event) in events.iter().enumerate() {
            twin.happen(event)?;
            if index % 50 == 0 {
                prop_assert_eq!(twin.faults(), Vec::<String>::new());
            }
        }
        prop_assert_eq!(twin.faults(), Vec::<String>::new());
    }

    #[test]
    fn small_clouds_with_many_ties_too(events in proptest::collection::vec(event(9), 1..300)) {
        let mut twin = Twin::default();
        for event in &events {
            twin.happen(event)?;
            prop_assert_eq!(twin.faults(), Vec::<String>::new());
        }
    }
}

#[test]
fn demands_beyond_the_limit_are_found_by_a_scan() {
    let mut twin = Twin::default();
    for number in 0..100 {
        twin.happen(&Event::Put { host: number, traits: 2 }).unwrap();
    }
    for number in 0..80 {
        let wanted = Resources { cpu: 1, memory: MiB(100 + number), disk: MiB(1) };
        twin.board.add_demand(wanted);
    }
    let ask = |traits| twin.ask(3, traits, 5).unwrap();
    ask(0b1010);
    ask(0b0110);
    let mut board = twin.board.clone();
    for number in 0..80 {
        board.drop_demand(Resources { cpu: 1, memory: MiB(100 + number), disk: MiB(1) });
    }
    assert!(twin.faults().is_empty());
}
