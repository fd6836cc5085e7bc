//! The cloud as a whole: status, capacity, check, and the gauges that count the same things.

use std::collections::BTreeMap;

use haar_api::v1::{
    CapacityView, FaultView, FenceText, HypervisorCapacity, JobsView, ResourcesView, StrangerView,
    SubnetCapacity,
};
use haar_core::fence::WallMs;
use haar_core::fleet::check::Fault;
use haar_core::job::{Job, Status};
use haar_core::units::{MiB, Resources};

use super::look::{Look, left, resources};

/// An hour.
const HOUR_MS: i64 = 3_600_000;

/// Hypervisors by state; `cordoned` counts them besides.
pub(crate) fn hypervisors(look: &Look<'_>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for record in look.fleet.hypervisors() {
        *counts.entry(look.hypervisor_state(record).to_owned()).or_default() += 1;
        if record.spec.cordon.is_some() {
            *counts.entry("cordoned".to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Guests by state.
pub(crate) fn guests(look: &Look<'_>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for guest in look.fleet.guests() {
        *counts.entry(look.guest_state(guest).to_owned()).or_default() += 1;
    }
    counts
}

/// Jobs at a glance.
pub(crate) fn jobs(look: &Look<'_>, now: WallMs) -> JobsView {
    let mut view = JobsView::default();
    let mut last: Option<&Job> = None;
    for job in look.fleet.jobs() {
        if !job.status.ended() {
            view.running += 1;
            let age = u64::try_from(now.0.saturating_sub(job.created_at.0)).unwrap_or(0);
            view.oldest_ms = view.oldest_ms.max(age);
            continue;
        }
        let lately = job.finished_at.is_some_and(|end| now.0.saturating_sub(end.0) <= HOUR_MS);
        if job.status == Status::Error && lately {
            view.failed_last_hour += 1;
            last = last.filter(|last| last.finished_at >= job.finished_at).or(Some(job));
        }
    }
    view.last_failed = last.map(|job| job.id);
    view
}

/// What there is in all, what may be promised of it, and what is.
pub(crate) fn total_promised_and_used(look: &Look<'_>) -> [ResourcesView; 3] {
    let [mut total, mut promised, mut used] = [Resources::default(); 3];
    for record in look.fleet.hypervisors() {
        total = plus(total, record.total);
        promised = plus(promised, look.promised(record));
        used = plus(used, look.fleet.used(record.id));
    }
    [total, promised, used].map(resources)
}

/// What there is, what is promised, what is left.
pub(crate) fn capacity(look: &Look<'_>) -> CapacityView {
    let (mut total, mut promised, mut used, mut free) = Default::default();
    let mut by_hypervisor = Vec::new();
    for record in look.fleet.hypervisors() {
        let state = look.hypervisor_state(record);
        let (its_promised, its_used) = (look.promised(record), look.fleet.used(record.id));
        let its_free = left(its_promised, its_used);
        total = plus(total, record.total);
        promised = plus(promised, its_promised);
        used = plus(used, its_used);
        if state == "alive" && record.spec.cordon.is_none() {
            free = plus(free, its_free);
        }
        by_hypervisor.push(HypervisorCapacity {
            hypervisor: record.id,
            hypervisor_name: record.spec.name.to_string(),
            state: state.to_owned(),
            cordoned: record.spec.cordon.is_some(),
            total: resources(record.total),
            promised: resources(its_promised),
            used: resources(its_used),
            free: resources(its_free),
        });
    }
    CapacityView {
        total: resources(total),
        promised: resources(promised),
        used: resources(used),
        free: resources(free),
        hypervisors: hypervisors(look),
        guests: guests(look),
        by_hypervisor,
        by_subnet: subnets(look),
        revision: FenceText(look.fleet.fence()),
    }
}

fn subnets(look: &Look<'_>) -> Vec<SubnetCapacity> {
    let one = |(id, name): (_, String)| {
        let (used, total) = look.addresses(id);
        SubnetCapacity { subnet: id, subnet_name: name, used, total }
    };
    look.fleet.subnets().map(|subnet| one((subnet.id, subnet.spec.name.to_string()))).collect()
}

/// Domains that are in no book.
pub(crate) fn strangers(look: &Look<'_>) -> Vec<StrangerView> {
    let on_each = look.fleet.hypervisors().flat_map(|record| {
        record.strangers.iter().map(|domain| StrangerView {
            hypervisor: record.id,
            hypervisor_name: record.spec.name.to_string(),
            domain: domain.clone(),
        })
    });
    on_each.collect()
}

/// A broken rule of the books.
pub(crate) fn fault(fault: &Fault) -> FaultView {
    let rule = match fault {
        Fault::SharedAddress { .. } => "shared_address",
        Fault::SharedMac { .. } => "shared_mac",
        Fault::SharedName { .. } => "shared_name",
        Fault::AddressOutside { .. } => "address_outside",
        Fault::DeadReference { .. } => "dead_reference",
        Fault::Oversold { .. } => "oversold",
        Fault::Miscounted { .. } => "miscounted",
        Fault::Index(_) => "index",
        Fault::FutureFence { .. } => "future_fence",
        Fault::OrphanJob(_) => "orphan_job",
        Fault::Stuck(_) => "stuck",
        Fault::WrongState { .. } => "wrong_state",
    };
    FaultView { rule: rule.to_owned(), message: fault.to_string() }
}

/// How much a check compares, by noun.
pub(crate) fn compared(look: &Look<'_>) -> BTreeMap<String, u64> {
    let fleet = look.fleet;
    let addresses = fleet.subnets().map(|subnet| look.addresses(subnet.id).0).sum();
    BTreeMap::from([
        ("guests".to_owned(), fleet.guests().count() as u64),
        ("hypervisors".to_owned(), fleet.hypervisors().count() as u64),
        ("addresses".to_owned(), addresses),
        ("networks".to_owned(), fleet.networks().count() as u64),
        ("jobs".to_owned(), fleet.jobs().count() as u64),
    ])
}

fn plus(one: Resources, other: Resources) -> Resources {
    Resources {
        cpu: one.cpu.saturating_add(other.cpu),
        memory: MiB(one.memory.0.saturating_add(other.memory.0)),
        disk: MiB(one.disk.0.saturating_add(other.disk.0)),
    }
}
