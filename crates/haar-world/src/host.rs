//! A machine as it really is: domains, disks, and sub-agents that do one thing at a time for each guest.
//!
//! It remembers what brains may forget: whether a disk has held data, and which life it is of. Its hands make
//! things so and may be asked twice; they refuse what belongs to another life.

use std::collections::{BTreeMap, VecDeque};

use haar_core::fence::Fence;
use haar_core::hypervisor::Inventory;
use haar_core::id::{GuestId, HypervisorId};
use haar_core::job::Stage;
use haar_core::node::{CallId, Fault, Node, Observation, OffReason, Outcome, Seen, StageCall};
use haar_core::order::{Claim, Power};
use haar_core::units::{MiB, Resources};

/// A machine.
#[derive(Debug)]
pub(crate) struct Host {
    /// Its record in the books.
    pub(crate) id: HypervisorId,
    /// Whether it is powered on.
    pub(crate) up: bool,
    /// Broken for good: it never comes back.
    pub(crate) dead: bool,
    /// Nothing gets through to the controller or back until then.
    pub(crate) partitioned_until: u64,
    /// What it has for guests.
    pub(crate) total: Resources,
    /// Domains by guest.
    pub(crate) domains: BTreeMap<GuestId, Domain>,
    /// Disks by guest.
    pub(crate) disks: BTreeMap<GuestId, Volume>,
    /// Seed disks by guest.
    pub(crate) seeds: BTreeMap<GuestId, Fence>,
    /// Domains of somebody else.
    pub(crate) strangers: Vec<String>,
    /// The agent's ledger as bytes on the disk.
    pub(crate) ledger: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
    /// The agent's process, when there is one.
    pub(crate) agent: Option<Agent>,
    /// Counts processes: an answer to an earlier one is heard by nobody.
    pub(crate) runs: u64,
    /// What the sub-agents are at, and what waits.
    pub(crate) work: BTreeMap<(GuestId, Hand), VecDeque<Task>>,
    /// How often each deed was done.
    pub(crate) deeds: BTreeMap<(GuestId, Fence), u32>,
}

/// An agent's process.
#[derive(Debug)]
pub(crate) struct Agent {
    /// Which process.
    pub(crate) run: u64,
    /// Its brain.
    pub(crate) node: Node,
    /// Virtual time of its start.
    pub(crate) started: u64,
    /// When it is ticked next.
    pub(crate) tick_at: Option<u64>,
}

/// A virtual machine as libvirt knows it.
#[derive(Debug, Clone)]
pub(crate) struct Domain {
    /// Which life it is of.
    pub(crate) life: Fence,
    /// What it does.
    pub(crate) power: Power,
    /// Why it is off.
    pub(crate) reason: OffReason,
    /// The mark on it.
    pub(crate) claim: Claim,
}

/// A guest's disk.
#[derive(Debug, Clone)]
pub(crate) struct Volume {
    /// Which life it is of.
    pub(crate) life: Fence,
    /// Whether a guest has run on it.
    pub(crate) held_data: bool,
    /// Its size.
    pub(crate) size: MiB,
    /// The mark beside it.
    pub(crate) claim: Claim,
}

/// Who does a stage: each serves one call at a time for one guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hand {
    /// The agent itself; dies with it.
    Agent,
    /// The storage sub-agent.
    Storage,
    /// The libvirt sub-agent.
    Libvirt,
}

impl Hand {
    /// Who does this stage.
    pub(crate) fn of(stage: Stage) -> Hand {
        match stage {
            Stage::Seed | Stage::Unseed | Stage::Network => Hand::Agent,
            Stage::Image | Stage::Disks | Stage::Undisk => Hand::Storage,
            _ => Hand::Libvirt,
        }
    }
}

/// A call with its fate.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// Names it in the world's events.
    pub(crate) id: u64,
    /// Which process asked.
    pub(crate) run: u64,
    /// What it asked for.
    pub(crate) call: StageCall,
    /// What becomes of it.
    pub(crate) fate: Fate,
    /// How long it takes once it is begun, in milliseconds.
    pub(crate) lasts_ms: u64,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is done and answered.
    Done,
    /// It answers that it goes on.
    Progress,
    /// It fails and has done nothing.
    FailBefore(Fault),
    /// It fails and has done all.
    FailAfter(Fault),
    /// It is done after its deadline; the hands could not cancel it.
    Late,
    /// The hands cancelled it after its deadline; whether it had its effect is only known here.
    Cancelled {
        /// It had.
        effect: bool,
    },
}

impl Fate {
    /// The name for the coverage.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Fate::Done => "done",
            Fate::Progress => "progress",
            Fate::FailBefore(_) => "failed_before",
            Fate::FailAfter(_) => "failed_after",
            Fate::Late => "late_success",
            Fate::Cancelled { .. } => "cancelled",
        }
    }

    /// Whether the world changes by it.
    pub(crate) fn has_effect(&self) -> bool {
        matches!(self, Fate::Done | Fate::FailAfter(_) | Fate::Late | Fate::Cancelled { effect: true })
    }
}

impl Host {
    /// A machine with nothing on it.
    pub(crate) fn new(id: HypervisorId, total: Resources) -> Host {
        Host {
            id,
            up: true,
            dead: false,
            partitioned_until: 0,
            total,
            domains: BTreeMap::new(),
            disks: BTreeMap::new(),
            seeds: BTreeMap::new(),
            strangers: Vec::new(),
            ledger: BTreeMap::new(),
            agent: None,
            runs: 0,
            work: BTreeMap::new(),
            deeds: BTreeMap::new(),
        }
    }

    /// What a look at it shows now.
    pub(crate) fn look(&self, ask: u64) -> Observation {
        let mut ids: Vec<GuestId> = self.domains.keys().chain(self.disks.keys()).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        Observation {
            ask,
            guests: ids.into_iter().filter_map(|id| self.see(id)).collect(),
            strangers: self.strangers.clone(),
            inventory: Inventory::default(),
            total: self.total,
        }
    }

    fn see(&self, id: GuestId) -> Option<Seen> {
        let domain = self.domains.get(&id);
        let disk = self.disks.get(&id);
        let life = domain.map(|domain| domain.life).or(disk.map(|disk| disk.life))?;
        Some(Seen {
            id,
            life,
            domain: domain.is_some(),
            disks: disk.is_some_and(|disk| disk.life == life),
            power: domain.map_or(Power::Absent, |domain| domain.power),
            reason: domain.map_or(OffReason::Unknown, |domain| domain.reason),
            claim: domain.map(|domain| domain.claim.clone()).or(disk.map(|disk| disk.claim.clone())),
        })
    }

    /// Does what a call asks for. `Outcome::Done`, or a fault and nothing done.
    pub(crate) fn make_so(&mut self, call: &StageCall) -> Outcome {
        let made = match call.stage {
            Stage::Disks => self.make_disks(call),
            Stage::Seed => {
                self.seeds.insert(call.order.id, call.order.life);
                Ok(())
            }
            Stage::Define => self.define(call),
            Stage::Start => self.start(call),
            Stage::Shutdown => self.power_off(call, OffReason::Shutdown),
            Stage::Poweroff => self.power_off(call, OffReason::Destroyed),
            Stage::Reboot => self.reboot(call),
            Stage::Undefine => self.undefine(call),
            Stage::Unseed => self.unseed(call),
            Stage::Undisk => self.remove_disks(call),
            Stage::Inspect => self.inspect(call),
            _ => Ok(()),
        };
        match made {
            Ok(()) => Outcome::Done,
            Err(fault) => Outcome::Failed(fault),
        }
    }

    fn make_disks(&mut self, call: &StageCall) -> Result<(), Fault> {
        let order = &call.order;
        if let Some(disk) = self.disks.get(&order.id) {
            return same_life(disk.life, order.life);
        }
        if order.provisioned {
            return Err(fault("lost", "its disk is missing"));
        }
        let held: u64 = self.disks.values().map(|disk| disk.size.0).sum();
        if held + order.resources.disk.0 > self.total.disk.0 {
            return Err(fault("no_space", "the disks are full"));
        }
        let disk =
            Volume { life: order.life, held_data: false, size: order.resources.disk, claim: order.claim() };
        self.disks.insert(order.id, disk);
        Ok(())
    }

    fn define(&mut self, call: &StageCall) -> Result<(), Fault> {
        let order = &call.order;
        if let Some(domain) = self.domains.get(&order.id) {
            return same_life(domain.life, order.life);
        }
        if order.provisioned {
            return Err(fault("lost", "its domain is missing"));
        }
        let domain =
            Domain { life: order.life, power: Power::Off, reason: OffReason::Unknown, claim: order.claim() };
        self.domains.insert(order.id, domain);
        Ok(())
    }

    fn start(&mut self, call: &StageCall) -> Result<(), Fault> {
        self.inspect(call)?;
        if let Some(domain) = self.domains.get_mut(&call.order.id) {
            domain.power = Power::Running;
            domain.reason = OffReason::Unknown;
        }
        if let Some(disk) = self.disks.get_mut(&call.order.id) {
            disk.held_data = true;
        }
        Ok(())
    }

    fn power_off(&mut self, call: &StageCall, reason: OffReason) -> Result<(), Fault> {
        let Some(domain) = self.domains.get_mut(&call.order.id) else {
            return Ok(());
        };
        same_life(domain.life, call.order.life)?;
        if domain.power == Power::Running {
            domain.power = Power::Off;
            domain.reason = reason;
        }
        Ok(())
    }

    fn reboot(&mut self, call: &StageCall) -> Result<(), Fault> {
        self.inspect(call)?;
        if let Some(deed) = call.order.deed {
            *self.deeds.entry((call.order.id, deed.fence)).or_default() += 1;
        }
        Ok(())
    }

    fn undefine(&mut self, call: &StageCall) -> Result<(), Fault> {
        let Some(domain) = self.domains.get(&call.order.id) else { return Ok(()) };
        same_life(domain.life, call.order.life)?;
        if domain.power == Power::Running {
            return Err(fault("failed", "it still runs"));
        }
        self.domains.remove(&call.order.id);
        Ok(())
    }

    fn unseed(&mut self, call: &StageCall) -> Result<(), Fault> {
        let Some(life) = self.seeds.get(&call.order.id) else { return Ok(()) };
        same_life(*life, call.order.life)?;
        self.seeds.remove(&call.order.id);
        Ok(())
    }

    fn remove_disks(&mut self, call: &StageCall) -> Result<(), Fault> {
        let id = call.order.id;
        let Some(disk) = self.disks.get(&id) else { return Ok(()) };
        same_life(disk.life, call.order.life)?;
        if self.domains.get(&id).is_some_and(|domain| domain.power == Power::Running) {
            return Err(fault("failed", "its disk is in use"));
        }
        self.disks.remove(&id);
        Ok(())
    }

    fn inspect(&self, call: &StageCall) -> Result<(), Fault> {
        let order = &call.order;
        let missing = if order.provisioned { "lost" } else { "not_found" };
        let domain = self.domains.get(&order.id).ok_or_else(|| fault(missing, "its domain is missing"))?;
        let disk = self.disks.get(&order.id).ok_or_else(|| fault(missing, "its disk is missing"))?;
        same_life(domain.life, order.life)?;
        same_life(disk.life, order.life)
    }

    /// The call that this guest's hand is at, and the ones that wait, have nobody to answer to any more.
    pub(crate) fn crash_hand(&mut self, hand: Hand) -> Vec<Task> {
        let mut dropped = Vec::new();
        for ((_, of), tasks) in &mut self.work {
            if *of == hand {
                dropped.extend(tasks.drain(..));
            }
        }
        dropped
    }

    /// The power goes: agent and calls are gone, domains are off.
    pub(crate) fn crash(&mut self) {
        self.up = false;
        self.agent = None;
        self.work.clear();
        for domain in self.domains.values_mut() {
            if domain.power == Power::Running {
                domain.power = Power::Off;
                domain.reason = OffReason::Unknown;
            }
        }
    }

    /// A new disk and a new system: nothing of before is there.
    pub(crate) fn blank(&mut self) {
        self.domains.clear();
        self.disks.clear();
        self.seeds.clear();
        self.strangers.clear();
        self.ledger.clear();
        self.work.clear();
    }

    /// Whether no hand is at anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.work.values().all(VecDeque::is_empty)
    }

    /// Whether this process already has a call under way for this guest.
    pub(crate) fn has_call(&self, run: u64, guest: GuestId) -> Option<CallId> {
        let tasks = self.work.iter().filter(|((of, _), _)| *of == guest).flat_map(|(_, tasks)| tasks);
        tasks.filter(|task| task.run == run).map(|task| task.call.call).next()
    }
}

/// A fault that asking again does not mend.
pub(crate) fn fault(code: &str, message: &str) -> Fault {
    Fault {
        code: code.to_owned(),
        message: message.to_owned(),
        may_pass: matches!(code, "failed" | "unavailable"),
    }
}

fn same_life(found: Fence, wanted: Fence) -> Result<(), Fault> {
    if found == wanted { Ok(()) } else { Err(fault("conflict", "it belongs to another life")) }
}
