//! Hypervisors: make, change, remove, greet, and give up.

use std::sync::Arc;

use super::change::{Change, Record};
use super::command::{Decided, Outcome};
use super::draft::{Draft, bad_field, check_labels, created_again, differing, is_current, not_found, unused};
use super::guest::release_failed;
use super::{job, subnet};
use crate::fence::Revision;
use crate::guest::{Goal, GoalBy, Guest, Owner, State};
use crate::hypervisor::{Hypervisor, HypervisorSpec, Inventory};
use crate::id::{HypervisorId, Kind};
use crate::job::Failure;
use crate::name::Name;
use crate::order::Hello;
use crate::refusal::Refusal;
use crate::token::Role;
use crate::units::Resources;

/// Guests settled by one decision when a hypervisor is declared lost: with their jobs they fit one commit.
pub(super) const LOST_AT_ONCE: usize = 16;
/// How far the incarnations of two epochs lie apart.
const STEP: u64 = 1_000_000;

pub(super) fn create(mut draft: Draft<'_>, id: HypervisorId, spec: &HypervisorSpec) -> Decided {
    if let Some(present) = draft.fleet.hypervisor(id) {
        let name = present.spec.name.clone();
        let fields = differing!(&present.spec, spec; name => "name", project => "project",
            metadata => "metadata", ip => "ip", netmask => "netmask", gateway => "gateway", mac => "mac",
            subnets => "subnets", overcommit => "overcommit", cordon => "cordon");
        return created_again(draft, Kind::Hypervisor, id.0, &name, fields);
    }
    check(&draft, id, spec)?;
    let wall = draft.env.wall;
    draft.put(Record::Hypervisor(Arc::new(Hypervisor {
        id,
        spec: spec.clone(),
        incarnation: 0,
        lot: 0,
        reported_epoch: None,
        known_epoch: draft.fence.epoch,
        total: Resources::default(),
        inventory: Inventory::default(),
        strangers: Vec::new(),
        revision: draft.revision(),
        observed_revision: draft.revision(),
        created_at: wall,
        updated_at: wall,
    })));
    Ok(draft.finish(Kind::Hypervisor, id.0, Outcome::Created, None))
}

pub(super) fn set(
    mut draft: Draft<'_>,
    id: HypervisorId,
    spec: &HypervisorSpec,
    if_match: Option<Revision>,
) -> Decided {
    let present = draft.fleet.hypervisor(id).ok_or_else(|| not_found(Kind::Hypervisor, id))?;
    is_current(Kind::Hypervisor, &present.spec.name, present.revision, if_match)?;
    check(&draft, id, spec)?;
    for guest in draft.fleet.guests_on(id) {
        let Some(place) = guest.place else { continue };
        let was_listed = present.spec.subnets.contains_key(&place.subnet);
        if was_listed && !spec.subnets.contains_key(&place.subnet) {
            return Err(bad_field(
                "subnets",
                format!("guest `{}` has its address from a subnet that would go", guest.spec.name),
            ));
        }
    }
    if present.spec != *spec {
        let changed = Hypervisor {
            spec: spec.clone(),
            revision: draft.revision(),
            updated_at: draft.env.wall,
            ..Hypervisor::clone(present)
        };
        draft.put(Record::Hypervisor(Arc::new(changed)));
    }
    Ok(draft.finish_as_it_is(Kind::Hypervisor, id.0))
}

/// Removes a hypervisor without guests, and the tokens that speak for it.
pub(super) fn delete(mut draft: Draft<'_>, id: HypervisorId, if_match: Option<Revision>) -> Decided {
    let present = draft.fleet.hypervisor(id).ok_or_else(|| not_found(Kind::Hypervisor, id))?;
    is_current(Kind::Hypervisor, &present.spec.name, present.revision, if_match)?;
    let pinned =
        draft.fleet.guests().filter(|guest| guest.spec.hypervisor == Some(id) && guest.place.is_none());
    let guests = draft.fleet.guests_on(id).chain(pinned);
    let guests = guests.map(|guest| (Kind::Guest, guest.spec.name.clone()));
    unused(Kind::Hypervisor, &present.spec.name, guests)?;
    if draft.fleet.index.unheard.contains(&id) {
        return Err(Refusal::Unheard(present.spec.name.clone()));
    }
    let fleet = draft.fleet;
    let own = || fleet.tokens().filter(|token| token.role == Role::Agent { hypervisor: id });
    if own().count() > 64 {
        let tokens = own().map(|token| (Kind::Token, token.name.clone()));
        unused(Kind::Hypervisor, &present.spec.name, tokens)?;
    }
    for token in own() {
        draft.push(Change::Delete(Kind::Token, token.id.0));
    }
    draft.push(Change::Delete(Kind::Hypervisor, id.0));
    Ok(draft.finish(Kind::Hypervisor, id.0, Outcome::Deleted, None))
}

/// An agent with this ledger joins. The same lot is the same ledger and keeps its incarnation; another one
/// gets a greater one.
pub(super) fn hello(mut draft: Draft<'_>, hello: &Hello) -> Decided {
    let id = hello.hypervisor;
    let present = draft.fleet.hypervisor(id).ok_or_else(|| not_found(Kind::Hypervisor, id))?;
    let mut changed = Hypervisor::clone(present);
    if present.incarnation == 0 || present.lot != hello.lot {
        changed.incarnation = next_incarnation(present.incarnation, &draft);
        changed.lot = hello.lot;
    }
    match hello.inventory.blind() {
        // The machine is what it was; only nobody can be sure of it now.
        Some(why) if present.total != Resources::default() => {
            changed.inventory.accel = Inventory::UNAVAILABLE.to_owned();
            changed.inventory.accel_reason = job::shortened(why);
        }
        _ => {
            changed.inventory = hello.inventory.clone();
            changed.total = hello.total;
        }
    }
    put_if_seen_anew(&mut draft, present, changed);
    Ok(draft.finish_as_it_is(Kind::Hypervisor, id.0))
}

/// Puts what was seen of a hypervisor, if it differs.
pub(super) fn put_if_seen_anew(draft: &mut Draft<'_>, present: &Hypervisor, mut changed: Hypervisor) {
    if changed == *present {
        return;
    }
    changed.observed_revision = draft.revision();
    changed.updated_at = draft.env.wall;
    draft.put(Record::Hypervisor(Arc::new(changed)));
}

/// Above every earlier one. The same backup restored twice begins the same epoch twice, and then the same
/// number must not name two ledgers: after a restore a lot is added.
fn next_incarnation(present: u64, draft: &Draft<'_>) -> u64 {
    let restores = draft.fence.epoch.saturating_sub(1);
    let step = if restores == 0 { 1 } else { 1 + (draft.env.lot % u128::from(STEP)) as u64 };
    present.max(restores.saturating_mul(STEP)).saturating_add(step)
}

/// An operator says that the machine is dead. Its ledger's reports are refused from now on; guests to be
/// removed are, the others are `lost` and hold nothing.
///
/// At most [`LOST_AT_ONCE`] guests go at once, so that the decision fits one commit: ask again until the
/// answer is [`Outcome::Same`].
pub(super) fn declare_lost(mut draft: Draft<'_>, id: HypervisorId) -> Decided {
    let present = draft.fleet.hypervisor(id).ok_or_else(|| not_found(Kind::Hypervisor, id))?;
    // After a start nobody was heard yet: silence means something only after one TTL.
    let is_too_early = draft.env.now.0 < draft.fleet.config.liveness_ttl_ms();
    if draft.env.alive.is_alive(id) || (is_too_early && present.incarnation != 0) {
        return Err(Refusal::StillAlive(present.spec.name.clone()));
    }
    let nothing = Resources::default();
    let is_given_up = present.total == nothing
        && present.reported_epoch.is_none()
        && present.known_epoch == draft.fence.epoch;
    if !is_given_up {
        let given_up = Hypervisor {
            incarnation: match present.incarnation {
                0 => 0,
                incarnation => next_incarnation(incarnation, &draft),
            },
            reported_epoch: None,
            known_epoch: draft.fence.epoch,
            total: nothing,
            strangers: Vec::new(),
            ..Hypervisor::clone(present)
        };
        put_if_seen_anew(&mut draft, present, given_up);
    }
    let fleet = draft.fleet;
    for guest in fleet.guests_on(id).take(LOST_AT_ONCE) {
        lose_guest(&mut draft, guest, &present.spec.name);
    }
    Ok(draft.finish_as_it_is(Kind::Hypervisor, id.0))
}

fn lose_guest(draft: &mut Draft<'_>, guest: &Guest, hypervisor: &Name) {
    let words = format!("hypervisor `{hypervisor}` was declared lost");
    if guest.goal == Goal::Gone && guest.goal_by != GoalBy::Undo {
        job::end_well(draft, guest);
        draft.remove_guest(guest.id);
        return;
    }
    job::end_badly(
        draft,
        guest,
        Failure {
            code: "hypervisor_lost".to_owned(),
            message: words.clone(),
            next: "make the guest anew elsewhere with recreate, or delete it".to_owned(),
        },
    );
    // One that was never finished has lost nothing: it is `failed`, and a retry places it anew.
    let unfinished = guest.provisioned.is_none() && guest.owner == Owner::Controller;
    if unfinished {
        release_failed(draft, guest, words);
        return;
    }
    draft.put_guest(Guest {
        place: None,
        state: State::Lost,
        reason: words,
        order: draft.fence,
        observed: (0, 0),
        observed_revision: draft.revision(),
        updated_at: draft.env.wall,
        ..guest.clone()
    });
}

fn check(draft: &Draft<'_>, id: HypervisorId, spec: &HypervisorSpec) -> Result<(), Refusal> {
    check_labels("metadata", &spec.metadata)?;
    if spec.subnets.len() > 64 {
        return Err(bad_field("subnets", "a hypervisor lists at most 64 subnets"));
    }
    for (listed, bridge) in &spec.subnets {
        if draft.fleet.subnet(*listed).is_none() {
            return Err(not_found(Kind::Subnet, listed));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if bridge.len() > 15 || !bridge.chars().all(plain) {
            return Err(bad_field(
                "subnets",
                format!("`{bridge}` is no bridge name; use at most 15 letters, digits, dots or dashes"),
            ));
        }
    }
    if draft.fleet.hypervisor(id).is_none_or(|present| present.spec.subnets != spec.subnets) {
        subnet::refuse_listing(draft, &spec.subnets)?;
    }
    if let Some(overcommit) = spec.overcommit {
        for hundredths in [overcommit.cpu, overcommit.memory, overcommit.disk] {
            if !(10..=10_000).contains(&hundredths) {
                return Err(bad_field("overcommit", "give ratios from 0.1 to 100"));
            }
        }
    }
    if spec.cordon.as_ref().is_some_and(|why| why.len() > 256 || why.chars().any(char::is_control)) {
        return Err(bad_field("cordon", "give at most 256 printable characters"));
    }
    draft.name_is_free(Kind::Hypervisor, id.0, &spec.project, &spec.name)
}
