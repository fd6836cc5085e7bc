//! Each state of a guest against each input, told in a few words each: one rig knows the brain's API.

mod create;
mod host;
mod orders;
mod reports;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use uuid::Uuid;

use super::*;
use crate::address::Mac;
use crate::guest::{Deed, DeedKind, RestartPolicy};
use crate::id::{CloudId, FlavorId, ImageId, JobId, NetworkId, SubnetId};
use crate::image::Format;
use crate::job::Stage;
use crate::name::Name;
use crate::order::{Claim, DesiredSet, GuestOrder, ImageOrder, NetworkOrder, Phase};
use crate::pipeline::Pipeline;
use crate::units::MiB;

const HYPERVISOR: HypervisorId = HypervisorId(Uuid::from_u128(7));
const CLOUD: CloudId = CloudId(Uuid::from_u128(8));

/// The guest of most tests.
fn web() -> GuestId {
    GuestId(Uuid::from_u128(1))
}

fn fence(revision: u64) -> Fence {
    Fence::new(1, revision)
}

/// An order for `web`, made by `revision`, of the life `life`.
fn order(revision: u64, life: u64, goal: Goal) -> GuestOrder {
    GuestOrder {
        id: web(),
        name: Name::new("web").unwrap(),
        project: Name::default_project(),
        order: fence(revision),
        life: fence(life),
        goal,
        deed: None,
        provisioned: false,
        restart: RestartPolicy::OnFailure,
        job: Some(JobId(Uuid::from_u128(9))),
        flavor: FlavorId(Uuid::from_u128(2)),
        image: ImageId(Uuid::from_u128(3)),
        resources: Resources { cpu: 1, memory: MiB(256), disk: MiB(1024) },
        network: NetworkId(Uuid::from_u128(4)),
        subnet: SubnetId(Uuid::from_u128(5)),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)),
        prefix: 24,
        gateway: None,
        dns: Vec::new(),
        ssh_keys: vec!["ssh-ed25519 AAAA ana".to_owned()],
        user_data: None,
    }
}

fn claim() -> Claim {
    order(1, 1, Goal::Running).claim()
}

fn seen(life: u64, power: Power) -> Seen {
    Seen {
        id: web(),
        life: fence(life),
        domain: true,
        disks: true,
        power,
        reason: OffReason::Unknown,
        claim: Some(claim()),
    }
}

fn fault(code: &str, may_pass: bool) -> Outcome {
    Outcome::Failed(Fault { code: code.to_owned(), message: format!("{code} it was"), may_pass })
}

/// A node with its ledger, and what it asked for last.
struct Rig {
    node: Node,
    now: MonoMs,
    ledger: BTreeMap<(u8, Vec<u8>), LedgerRecord>,
    calls: Vec<StageCall>,
    asks: Vec<u64>,
    answered: u64,
    greetings: usize,
    host: Vec<Seen>,
}

impl Rig {
    /// Booted, welcomed, and an empty host seen.
    fn ready() -> Rig {
        let mut rig = Rig::fresh(Vec::new());
        rig.give(Input::Welcome { incarnation: 1 });
        rig.look();
        rig
    }

    fn fresh(host: Vec<Seen>) -> Rig {
        let mut rig = Rig {
            node: Node::new(HYPERVISOR, 77),
            now: MonoMs(1000),
            ledger: BTreeMap::new(),
            calls: Vec::new(),
            asks: Vec::new(),
            answered: 0,
            greetings: 0,
            host,
        };
        rig.give(Input::Boot);
        rig.look();
        rig
    }

    #[allow(clippy::needless_pass_by_value, reason = "the cases read better")]
    fn give(&mut self, input: Input) {
        self.try_give(&input).unwrap();
    }

    fn try_give(&mut self, input: &Input) -> Result<(), Refused> {
        let decision = self.node.decide(input, &Env { now: self.now })?;
        for change in &decision.changes {
            match change {
                LedgerChange::Put(record) => self.ledger.insert(change.key(), record.clone()),
                LedgerChange::Forget(_) => self.ledger.remove(&change.key()),
            };
        }
        self.node.apply(&decision);
        for effect in decision.effects {
            match effect {
                Effect::Call(call) => self.calls.push(*call),
                Effect::Observe { ask } => self.asks.push(ask),
                Effect::Hello => self.greetings += 1,
                Effect::Report => {}
            }
        }
        Ok(())
    }

    /// The agent dies; another starts with the same ledger. Nothing was looked at yet.
    fn restart(&mut self) {
        self.node = Node::restore(self.ledger.values().cloned()).unwrap();
        self.calls.clear();
        self.asks.clear();
        self.give(Input::Boot);
    }

    /// Answers the last look asked for with what the host has.
    fn look(&mut self) {
        let Some(ask) = self.asks.last().copied() else { return };
        self.answered = ask;
        let guests = self.host.clone();
        self.give(Input::Observed(Observation {
            ask,
            guests,
            strangers: vec!["somebody-elses".to_owned()],
            inventory: Inventory::default(),
            total: Resources { cpu: 4, memory: MiB(4096), disk: MiB(10_000) },
        }));
    }

    /// Lets the regular look come, which fails.
    fn unseen(&mut self, why: &str) {
        self.later(OBSERVE_EVERY_MS);
        let Some(ask) = self.asks.last().copied() else { return };
        self.give(Input::Unseen { ask, why: why.to_owned() });
    }

    /// Lets the regular look come, and answers it, after one that was asked before.
    fn look_later(&mut self) {
        if self.asks.last() != Some(&self.answered) {
            self.look();
        }
        self.later(OBSERVE_EVERY_MS);
        self.look();
    }

    fn later(&mut self, ms: u64) {
        self.now = self.now.after(ms);
        self.give(Input::Tick);
    }

    fn set(&self, revision: u64, guests: Vec<GuestOrder>) -> DesiredSet {
        DesiredSet {
            fence: fence(revision),
            cloud: CLOUD,
            hypervisor: HYPERVISOR,
            guests,
            images: vec![ImageOrder {
                id: ImageId(Uuid::from_u128(3)),
                format: Format::Qcow2,
                sha256: "00".repeat(32),
                file_bytes: 0,
                url: None,
            }],
            networks: vec![NetworkOrder {
                id: NetworkId(Uuid::from_u128(4)),
                bridge: "haar1".to_owned(),
                gateways: Vec::new(),
                nat: true,
            }],
        }
    }

    fn feed(&mut self, order: GuestOrder) {
        let set = self.set(order.order.revision, vec![order]);
        self.give(Input::Desired(set));
    }

    /// The stage that is called now; fails the test when there is none, or more than one.
    fn stage(&self) -> Stage {
        assert!(self.node.call_of(web()).is_some(), "no call is under way");
        self.calls.last().unwrap().stage
    }

    fn idle(&self) -> bool {
        self.node.call_of(web()).is_none()
    }

    fn end(&mut self, outcome: Outcome) {
        let call = self.node.call_of(web()).expect("a call is under way");
        self.give(Input::Ended { call, outcome });
    }

    /// Ends calls well until none is left; the stages in order.
    fn run(&mut self) -> Vec<Stage> {
        let mut stages = Vec::new();
        while !self.idle() {
            stages.push(self.stage());
            self.end(Outcome::Done);
        }
        stages
    }

    /// A guest made and running, seen so by the host.
    fn running() -> Rig {
        let mut rig = Rig::ready();
        rig.feed(order(5, 5, Goal::Running));
        rig.run();
        rig.host = vec![seen(5, Power::Running)];
        rig.look_later();
        rig
    }

    fn record(&self) -> &GuestRecord {
        self.node.guest(web()).unwrap()
    }

    fn phase(&self) -> Phase {
        self.said().phase
    }

    fn said(&self) -> GuestReport {
        self.node.guests[&web()].said.clone().unwrap()
    }
}

const CREATE: [Stage; 6] =
    [Stage::Image, Stage::Disks, Stage::Seed, Stage::Network, Stage::Define, Stage::Start];
const REMOVE: [Stage; 4] = [Stage::Poweroff, Stage::Undefine, Stage::Unseed, Stage::Undisk];
