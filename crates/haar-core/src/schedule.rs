//! Placement: which hypervisors could take a guest, which one does, and why the others cannot.
//!
//! The filters are the seed's candidate functions in their order (`mistify-wire` §1.7): alive, has a subnet
//! of the network with a free address, has the resources (disk, then memory, then CPU), then a spread.
//! [`judge`] is the whole rule for one hypervisor. The index in [`board`] only narrows down whom to ask and
//! in which order; it is made of the same filters, and the tests compare it with asking everyone.
//! Liveness comes in with the command and is asked of candidates only, in policy order.
//! Deliberately absent: affinity groups and N+1, which come with an issue of their own.

use std::collections::BTreeMap;

use crate::fleet::command::Alive;
use crate::hypervisor::Hypervisor;
use crate::id::{HypervisorId, SubnetId};
use crate::refusal::{Cause, Reason};
use crate::units::Resources;

pub(crate) mod board;
#[cfg(test)]
mod tests;

/// Where a guest would rather go: the smallest score wins, read from the top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// A hypervisor on which making this guest failed is tried last.
    pub failed_before: bool,
    /// The emptier, the better: the used shares of disk, memory and CPU, added, in 1/2^20.
    pub used_share: u64,
    /// Equals are taken in the order of their ids.
    pub hypervisor: HypervisorId,
}

/// One hypervisor's answer to a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which hypervisor.
    pub hypervisor: HypervisorId,
    /// Its name.
    pub name: crate::name::Name,
    /// Yes with its score, or no.
    pub verdict: Result<Score, No>,
}

/// A hypervisor's no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct No {
    /// The first filter that kept it away.
    pub cause: Cause,
    /// What it lacks or has, for a person.
    pub detail: String,
}

/// What a placement asks for, translated from guest, network and flavor into the little that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// What the guest takes.
    pub(crate) demand: Resources,
    /// The hypervisor it must be on.
    pub(crate) asked: Option<HypervisorId>,
    /// Labels the hypervisor must have.
    pub(crate) require: &'a BTreeMap<String, String>,
    /// Hypervisors on which making it failed.
    pub(crate) avoid: &'a [HypervisorId],
    /// Whether only hypervisors that list one of the subnets have the network.
    pub(crate) listed_only: bool,
    /// The subnets its address may come from, and whether each has a free address (the one asked for, if
    /// any).
    pub(crate) subnets: Vec<(SubnetId, bool)>,
    /// A hypervisor of the network that has not told what it holds since a restore.
    pub(crate) unheard: Option<HypervisorId>,
    /// The present epoch.
    pub(crate) epoch: u64,
}

/// What the index knows of a hypervisor's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// What may be promised, overcommit included.
    pub(crate) capacity: Resources,
    /// What is promised.
    pub(crate) used: Resources,
}

impl Request<'_> {
    /// Whether this hypervisor has that subnet.
    fn reaches(&self, record: &Hypervisor, subnet: SubnetId) -> bool {
        !self.listed_only || record.spec.subnets.contains_key(&subnet)
    }

    /// The first subnet with a free address that the hypervisor has.
    pub(crate) fn subnet_on(&self, record: &Hypervisor) -> Option<SubnetId> {
        let mut open = self.subnets.iter().filter(|(_, has_free)| *has_free);
        open.find(|(subnet, _)| self.reaches(record, *subnet)).map(|(subnet, _)| *subnet)
    }
}

/// The whole rule: may this hypervisor take the guest, and how gladly?
///
/// # Errors
/// The first filter that keeps it away.
pub(crate) fn judge(
    request: &Request<'_>,
    record: &Hypervisor,
    load: Load,
    alive: &dyn Alive,
) -> Result<Score, Cause> {
    if record.incarnation == 0 {
        return Err(Cause::NeverJoined);
    }
    if !alive.is_alive(record.id) {
        return Err(Cause::Silent);
    }
    if let Some(cause) = standing(record, request.epoch) {
        return Err(cause);
    }
    if request.asked.is_some_and(|asked| asked != record.id) {
        return Err(Cause::NotAsked);
    }
    let has_label = |(key, value): (&String, &String)| record.spec.metadata.get(key) == Some(value);
    if !request.require.iter().all(has_label) {
        return Err(Cause::Label);
    }
    if !request.subnets.iter().any(|(subnet, _)| request.reaches(record, *subnet)) {
        return Err(Cause::NoSubnet);
    }
    if request.subnet_on(record).is_none() {
        return Err(Cause::NoAddress);
    }
    if request.unheard.is_some() {
        return Err(Cause::NetworkNotReported);
    }
    if let Some(cause) = shortage(load, request.demand) {
        return Err(cause);
    }
    Ok(Score {
        failed_before: request.avoid.contains(&record.id),
        used_share: used_share(load),
        hypervisor: record.id,
    })
}

/// What keeps a hypervisor from taking any guest at all, besides silence.
pub(crate) fn standing(record: &Hypervisor, epoch: u64) -> Option<Cause> {
    if record.incarnation == 0 {
        return Some(Cause::NeverJoined);
    }
    if record.reported_epoch != Some(epoch) {
        return Some(Cause::NotReported);
    }
    if record.inventory.blind().is_some() {
        return Some(Cause::Blind);
    }
    record.spec.cordon.as_ref().map(|_| Cause::Cordoned)
}

/// Which resource does not suffice: disk, then memory, then CPU.
pub(crate) fn shortage(load: Load, demand: Resources) -> Option<Cause> {
    let Load { capacity, used } = load;
    if used.disk.0.saturating_add(demand.disk.0) > capacity.disk.0 {
        return Some(Cause::Disk);
    }
    if used.memory.0.saturating_add(demand.memory.0) > capacity.memory.0 {
        return Some(Cause::Memory);
    }
    (used.cpu.saturating_add(demand.cpu) > capacity.cpu).then_some(Cause::Cpu)
}

/// The used shares added, in 1/2^20; what is there to none counts as full.
pub(crate) fn used_share(load: Load) -> u64 {
    let share = |used: u64, capacity: u64| match capacity {
        0 => 1 << 20,
        _ => u64::try_from((u128::from(used) << 20) / u128::from(capacity)).unwrap_or(u64::MAX),
    };
    let Load { capacity, used } = load;
    share(used.disk.0, capacity.disk.0)
        .saturating_add(share(used.memory.0, capacity.memory.0))
        .saturating_add(share(u64::from(used.cpu), u64::from(capacity.cpu)))
}

/// What a hypervisor lacks or has, for a person; `name_of` names another hypervisor.
pub(crate) fn detail(
    cause: Cause,
    request: &Request<'_>,
    record: &Hypervisor,
    load: Load,
    name_of: impl Fn(HypervisorId) -> String,
) -> String {
    let Load { capacity, used } = load;
    match cause {
        Cause::NeverJoined => "its agent has not joined yet".to_owned(),
        Cause::Silent => "no word from its agent; is the machine up?".to_owned(),
        Cause::NotReported => "waiting for a complete report of what it holds".to_owned(),
        Cause::Blind => record.inventory.blind().unwrap_or_default().to_owned(),
        Cause::Cordoned => format!("cordoned: {}", record.spec.cordon.as_deref().unwrap_or_default()),
        Cause::NotAsked => match request.asked {
            Some(asked) => format!("`{}` was asked for", name_of(asked)),
            None => String::new(),
        },
        Cause::Label => {
            let missing: Vec<String> = request
                .require
                .iter()
                .filter(|(key, value)| record.spec.metadata.get(*key) != Some(value))
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("lacks {}", missing.join(", "))
        }
        Cause::NoSubnet if request.subnets.is_empty() => "the network has no subnet".to_owned(),
        Cause::NoSubnet => "lists none of the network's subnets".to_owned(),
        Cause::NoAddress => "every address of its subnets is held".to_owned(),
        Cause::NetworkNotReported => match request.unheard {
            Some(unheard) => format!("`{}` has not reported since the restore", name_of(unheard)),
            None => String::new(),
        },
        Cause::Disk => format!("{} free of {}", minus(capacity.disk, used.disk), capacity.disk),
        Cause::Memory => format!("{} free of {}", minus(capacity.memory, used.memory), capacity.memory),
        Cause::Cpu => {
            format!("{} cpu free of {}", capacity.cpu.saturating_sub(used.cpu), capacity.cpu)
        }
    }
}

/// How near a hypervisor came to passing the filter; more is nearer.
pub(crate) fn nearness(cause: Cause, load: Load) -> u64 {
    let Load { capacity, used } = load;
    match cause {
        Cause::Disk => capacity.disk.0.saturating_sub(used.disk.0),
        Cause::Memory => capacity.memory.0.saturating_sub(used.memory.0),
        Cause::Cpu => u64::from(capacity.cpu.saturating_sub(used.cpu)),
        _ => 0,
    }
}

fn minus(all: crate::units::MiB, part: crate::units::MiB) -> crate::units::MiB {
    crate::units::MiB(all.0.saturating_sub(part.0))
}

/// Groups the noes by cause, the most frequent first; equals in the order of the filters.
pub(crate) fn grouped(noes: impl Iterator<Item = (Cause, u64, crate::name::Name, String)>) -> Vec<Reason> {
    let mut groups: BTreeMap<Cause, (u64, Reason)> = BTreeMap::new();
    for (cause, nearness, name, detail) in noes {
        let reason = Reason { cause, count: 1, best: name, detail };
        match groups.get_mut(&cause) {
            None => {
                groups.insert(cause, (nearness, reason));
            }
            Some((best, present)) => {
                let count = present.count + 1;
                if nearness > *best {
                    *best = nearness;
                    *present = reason;
                }
                present.count = count;
            }
        }
    }
    let mut reasons: Vec<Reason> = groups.into_values().map(|(_, reason)| reason).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    reasons
}
