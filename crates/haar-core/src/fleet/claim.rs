//! What a hypervisor holds that the books do not know: after a restore, or after it was declared lost and
//! came back (design §11.2).
//!
//! It is booked as `claimed`: it holds address, MAC and resources, and is not touched until an operator
//! adopts or deletes it. Nothing is ever double-booked: when address or MAC belong to another guest, or the
//! guest is booked elsewhere, the holder's record stays and the claim is named among the hypervisor's
//! strangers, with the reason.
//! Claims are taken only until the hypervisor has told of everything it has, and only from reports of this
//! epoch: afterwards a report of an unknown guest is old news of one that is gone.

use super::draft::Draft;
use super::guest::release_failed;
use super::report::{put_seen, state_of};
use super::{job, report};
use crate::guest::{Goal, GoalBy, Guest, GuestSpec, Owner, Place, RestartPolicy, State};
use crate::hypervisor::Hypervisor;
use crate::id::{GuestId, HypervisorId, Kind};
use crate::ipam::Pool;
use crate::job::Failure;
use crate::name::Name;
use crate::order::{Claim, Complete, GuestReport, Phase, Power, Report};

/// Claims that cannot be booked, in words, to be named among a hypervisor's strangers.
#[derive(Debug, Default)]
pub(super) struct Strangers(Vec<(GuestId, String)>);

impl Strangers {
    fn note(&mut self, seen: &GuestReport, why: &str) {
        let words = format!("guest {} ({}): {why}", seen.claim.name, seen.id);
        self.0.push((seen.id, words));
    }

    /// Adds what is new to those known.
    pub(super) fn add_to(&self, known: &mut Vec<String>) {
        for (_, words) in &self.0 {
            if !known.contains(words) {
                known.push(words.clone());
            }
        }
    }

    /// After a complete report: the domains it names, and of the noted claims those still held.
    pub(super) fn with_those_of(
        &self,
        complete: &Complete,
        known: &[String],
        draft: &Draft<'_>,
        hypervisor: HypervisorId,
    ) -> Vec<String> {
        let mut all: Vec<String> =
            complete.strangers.iter().take(report::MOST_STRANGERS).map(|name| job::shortened(name)).collect();
        for held in complete.holds.iter().take(100_000) {
            let guest = draft.guest(*held);
            if guest.and_then(|guest| guest.place).is_some_and(|place| place.hypervisor == hypervisor) {
                continue;
            }
            let new = self.0.iter().find(|(id, _)| id == held).map(|(_, words)| words.clone());
            let text = held.to_string();
            let old = || known.iter().find(|words| words.contains(&text)).cloned();
            let words = new.or_else(old);
            all.push(words.unwrap_or_else(|| format!("guest {held}: not booked on this hypervisor")));
            if all.len() >= report::MOST_STRANGERS {
                break;
            }
        }
        all
    }
}

/// Whether a hypervisor may still tell what the books do not know.
fn may_claim(draft: &Draft<'_>, record: &Hypervisor, report: &Report) -> bool {
    let epoch = draft.fence.epoch;
    report.seen.epoch == epoch && record.reported_epoch != Some(epoch)
}

/// Whether something of the guest is on the host.
fn is_there(seen: &GuestReport) -> bool {
    match seen.phase {
        Phase::Gone => false,
        Phase::Failed { .. } => seen.provisioned || !matches!(seen.power, Power::Absent),
        _ => true,
    }
}

/// Books a guest that the books do not have, or not as holding anything.
pub(super) fn book(
    draft: &mut Draft<'_>,
    record: &Hypervisor,
    report: &Report,
    seen: &GuestReport,
    present: Option<&Guest>,
    strangers: &mut Strangers,
) {
    if !may_claim(draft, record, report) || !is_there(seen) {
        return;
    }
    if let Some(why) = conflict(draft, seen) {
        return strangers.note(seen, &why);
    }
    let place = place_of(record.id, seen);
    let mut guest = match present {
        Some(present) => present.clone(),
        None => unknown(draft, seen),
    };
    guest.spec.network = seen.claim.network;
    guest.image = seen.claim.image;
    guest.resources = seen.claim.resources;
    guest.mac = seen.claim.mac;
    guest.place = Some(place);
    guest.goal = goal_of(seen, alive(guest.goal));
    guest.goal_by = GoalBy::Local;
    guest.order = seen.order;
    guest.deed = None;
    guest.provisioned = seen.provisioned.then_some(seen.life);
    guest.state = State::Claimed;
    guest.reason = "found on its hypervisor; adopt or delete it".to_owned();
    guest.owner = Owner::Claimed;
    guest.observed = (report.incarnation, seen.version);
    put_seen(draft, guest);
}

/// The same guest as one the books have elsewhere. Of two lives the newer one counts: it began only after the
/// other had ended, so the books are restored ones. An older one is of the past, and only named.
pub(super) fn found_elsewhere(
    draft: &mut Draft<'_>,
    record: &Hypervisor,
    report: &Report,
    seen: &GuestReport,
    booked: &Guest,
    strangers: &mut Strangers,
) {
    if !may_claim(draft, record, report) || !is_there(seen) {
        return;
    }
    let Some(place) = booked.place else { return };
    if seen.life > place.life {
        if let Some(why) = conflict(draft, seen) {
            return strangers.note(seen, &why);
        }
        job::end_badly(draft, booked, superseded());
        return book(draft, record, report, seen, Some(booked), strangers);
    }
    let name = draft.fleet.hypervisor(place.hypervisor).map(|record| record.spec.name.to_string());
    let name = name.unwrap_or_else(|| place.hypervisor.to_string());
    strangers.note(seen, &format!("the same guest is booked on hypervisor `{name}`"));
}

fn superseded() -> Failure {
    Failure {
        code: "superseded".to_owned(),
        message: "the books were restored, and a hypervisor has a newer life of the guest".to_owned(),
        next: "look at the guest as it is now".to_owned(),
    }
}

/// The host has a newer life of the guest than the books: they are restored.
pub(super) fn newer_life(
    draft: &mut Draft<'_>,
    report: &Report,
    seen: &GuestReport,
    before: Guest,
    strangers: &mut Strangers,
) {
    if !is_there(seen) {
        job::end_badly(draft, &before, superseded());
        return match before.goal_by {
            GoalBy::Undo => release_failed(draft, &before, before.reason.clone()),
            _ => draft.remove_guest(before.id),
        };
    }
    if let Some(why) = conflict(draft, seen) {
        return strangers.note(seen, &why);
    }
    let Some(place) = before.place else { return };
    job::end_badly(draft, &before, superseded());
    let mut guest = before;
    guest.spec.network = seen.claim.network;
    guest.image = seen.claim.image;
    guest.resources = seen.claim.resources;
    guest.mac = seen.claim.mac;
    guest.place = Some(place_of(place.hypervisor, seen));
    guest.goal = goal_of(seen, alive(guest.goal));
    guest.goal_by = GoalBy::Local;
    guest.deed = None;
    guest.provisioned = seen.provisioned.then_some(seen.life);
    // Whatever the books made of the earlier life says nothing of this one.
    guest.state = State::Creating;
    guest.state = state_of(&guest, seen.power);
    guest.reason = String::new();
    guest.observed = (report.incarnation, seen.version);
    if guest.owner == Owner::Claimed {
        guest.state = State::Claimed;
        guest.order = seen.order;
    } else {
        guest.order = draft.fence;
        guest.revision = draft.revision();
    }
    put_seen(draft, guest);
}

/// News of a claimed guest: noted, nothing ordered.
pub(super) fn follow(draft: &mut Draft<'_>, seen: &GuestReport, mut guest: Guest) {
    if !is_there(seen) {
        return draft.remove_guest(guest.id);
    }
    guest.goal = goal_of(seen, guest.goal);
    guest.order = guest.order.max(seen.order);
    if let Phase::Lost { message } = &seen.phase {
        guest.reason = job::shortened(message);
    }
    put_seen(draft, guest);
}

/// A claim rests on the host's word alone: what a complete report no longer holds is not claimed.
pub(super) fn drop_unheld(draft: &mut Draft<'_>, hypervisor: HypervisorId, holds: &[GuestId]) {
    let fleet = draft.fleet;
    let claims = fleet.guests_on(hypervisor).filter(|guest| {
        guest.owner == Owner::Claimed && guest.goal != Goal::Gone && !holds.contains(&guest.id)
    });
    let ids: Vec<GuestId> = claims.map(|guest| guest.id).take(Report::MOST_GUESTS).collect();
    for id in ids {
        let still_here = draft.guest(id).and_then(|guest| guest.place);
        if still_here.is_some_and(|place| place.hypervisor == hypervisor) {
            draft.remove_guest(id);
        }
    }
}

/// The first complete report since a restore: a create from before it that the host does not hold was told
/// nobody in this epoch, so nothing of it will be made. It gives back its place. True when none is left.
pub(super) fn end_unmade(draft: &mut Draft<'_>, hypervisor: HypervisorId, holds: &[GuestId]) -> bool {
    let fleet = draft.fleet;
    let unmade = fleet.guests_on(hypervisor).filter(|guest| {
        let is_old = guest.place.is_some_and(|place| place.life.epoch < fleet.fence.epoch);
        let is_create = guest.provisioned.is_none() && guest.goal != Goal::Gone;
        is_old && is_create && guest.owner == Owner::Controller && !holds.contains(&guest.id)
    });
    let ids: Vec<GuestId> = unmade.map(|guest| guest.id).collect();
    for id in ids.iter().take(Report::MOST_GUESTS) {
        let Some(guest) = draft.guest(*id).cloned() else { continue };
        if guest.place.is_none_or(|place| place.hypervisor != hypervisor) {
            continue;
        }
        let reason = "nothing of it is on its hypervisor since the books were restored".to_owned();
        let failure = Failure {
            code: "gone".to_owned(),
            message: reason.clone(),
            next: "make it anew, or delete it".to_owned(),
        };
        job::end_badly(draft, &guest, failure);
        release_failed(draft, &guest, reason);
    }
    ids.len() <= Report::MOST_GUESTS
}

/// Why a claim cannot be booked without double-booking.
fn conflict(draft: &Draft<'_>, seen: &GuestReport) -> Option<String> {
    let Claim { subnet, address, mac, network, .. } = seen.claim;
    let name_of = |id: GuestId| draft.guest(id).map_or(id.to_string(), |guest| guest.spec.name.to_string());
    let holder = draft.fleet.index.pools.get(&subnet).and_then(|pool| pool.holder(address));
    let others = || draft.changed_guests().filter(|guest| guest.id != seen.id);
    let pending = others()
        .find(|guest| guest.place.is_some_and(|place| (place.subnet, place.address) == (subnet, address)));
    let holder = holder.filter(|holder| *holder != seen.id).or(pending.map(|guest| guest.id));
    if let Some(holder) = holder {
        return Some(format!("its address {address} is held by guest `{}`", name_of(holder)));
    }
    let holder = draft.fleet.index.mac_holder(network, mac).filter(|holder| *holder != seen.id);
    let pending = others().find(|guest| (guest.spec.network, guest.mac) == (network, mac));
    if let Some(holder) = holder.or(pending.map(|guest| guest.id)) {
        return Some(format!("its MAC address {mac} belongs to guest `{}`", name_of(holder)));
    }
    let record = draft.fleet.subnet(subnet)?;
    if record.spec.network != network || Pool::usable(&record.spec, address).is_err() {
        return Some(format!("its address {address} is none that subnet `{}` hands out", record.spec.name));
    }
    None
}

fn place_of(hypervisor: HypervisorId, seen: &GuestReport) -> Place {
    Place { hypervisor, subnet: seen.claim.subnet, address: seen.claim.address, life: seen.life }
}

fn goal_of(seen: &GuestReport, otherwise: Goal) -> Goal {
    match seen.power {
        Power::Running => Goal::Running,
        Power::Off => Goal::Stopped,
        _ => otherwise,
    }
}

/// Of a life that the books did not know they have not ordered that it go.
fn alive(goal: Goal) -> Goal {
    if goal == Goal::Gone { Goal::Running } else { goal }
}

fn unknown(draft: &Draft<'_>, seen: &GuestReport) -> Guest {
    let claim = &seen.claim;
    let wall = draft.env.wall;
    Guest {
        id: seen.id,
        spec: GuestSpec {
            name: free_name(draft, seen.id, claim),
            project: claim.project.clone(),
            metadata: std::collections::BTreeMap::new(),
            kind: String::new(),
            flavor: claim.flavor,
            image: Some(claim.image),
            network: claim.network,
            subnet: None,
            address: None,
            fwgroup: None,
            mac: None,
            hypervisor: None,
            require: std::collections::BTreeMap::new(),
            restart: RestartPolicy::default(),
            ssh_keys: Vec::new(),
            user_data: None,
            start: true,
        },
        image: claim.image,
        resources: claim.resources,
        mac: claim.mac,
        place: None,
        goal: Goal::Running,
        goal_by: GoalBy::Local,
        order: seen.order,
        deed: None,
        provisioned: None,
        state: State::Claimed,
        reason: String::new(),
        owner: Owner::Claimed,
        observed: (0, 0),
        job: None,
        avoid: Vec::new(),
        revision: draft.revision(),
        observed_revision: draft.revision(),
        created_at: wall,
        updated_at: wall,
    }
}

/// Its name, or one made of it and its id when another guest has that by now.
fn free_name(draft: &Draft<'_>, id: GuestId, claim: &Claim) -> Name {
    let taken = |name: &Name| {
        draft.name_is_free(Kind::Guest, id.0, &claim.project, name).is_err()
            || draft.changed_guests().any(|guest| {
                guest.id != id && guest.spec.project == claim.project && guest.spec.name == *name
            })
    };
    if !taken(&claim.name) {
        return claim.name.clone();
    }
    // A whole id without dashes would itself be a UUID and no name: hence the word before it.
    let whole = format!("claimed-{}", id.0.simple());
    let head: String = claim.name.as_str().chars().take(54).collect();
    let short = format!("{}-{}", head.trim_end_matches('-'), &id.0.simple().to_string()[..8]);
    let candidates = [short, whole];
    let mut names = candidates.into_iter().filter_map(|text| Name::new(text).ok());
    names.find(|name| !taken(name)).unwrap_or_else(|| claim.name.clone())
}
