//! Networks: make, change, remove.
//!
//! Subnets of one network never share addresses, and neither do those of two networks that one hypervisor can
//! have, when it has an address of both or routes them by NAT. Networks that are listed on different hypervisors
//! may overlap, and so may subnets without a gateway: they never meet.

use std::sync::Arc;

use super::change::{Change, Record};
use super::command::{Decided, Outcome};
use super::draft::{Draft, bad_field, check_labels, created_again, differing, is_current, not_found, unused};
use super::subnet;
use crate::fence::Revision;
use crate::id::{Kind, NetworkId};
use crate::network::{Network, NetworkSpec, Reach};
use crate::refusal::Refusal;

pub(super) fn create(mut draft: Draft<'_>, id: NetworkId, spec: &NetworkSpec) -> Decided {
    if let Some(present) = draft.fleet.network(id) {
        let name = present.spec.name.clone();
        let fields = differing!(&present.spec, spec; name => "name", project => "project",
            metadata => "metadata", nat => "nat", reach => "reach");
        return created_again(draft, Kind::Network, id.0, &name, fields);
    }
    check(&draft, id, spec)?;
    let wall = draft.env.wall;
    draft.put(Record::Network(Arc::new(Network {
        id,
        spec: spec.clone(),
        revision: draft.revision(),
        created_at: wall,
        updated_at: wall,
    })));
    Ok(draft.finish(Kind::Network, id.0, Outcome::Created, None))
}

pub(super) fn set(
    mut draft: Draft<'_>,
    id: NetworkId,
    spec: &NetworkSpec,
    if_match: Option<Revision>,
) -> Decided {
    let present = draft.fleet.network(id).ok_or_else(|| not_found(Kind::Network, id))?;
    is_current(Kind::Network, &present.spec.name, present.revision, if_match)?;
    check(&draft, id, spec)?;
    let reaches_more = spec.reach == Reach::All && present.spec.reach == Reach::Listed;
    if reaches_more || (spec.nat && !present.spec.nat) {
        let changed = Network { spec: spec.clone(), ..Network::clone(present) };
        for subnet in draft.fleet.subnets_of(id) {
            subnet::refuse_overlap(&draft, subnet.id, &subnet.spec, &changed)?;
        }
    }
    if spec.reach == Reach::Listed && present.spec.reach == Reach::All {
        guests_are_listed(&draft, id)?;
    }
    if present.spec != *spec {
        let changed = Network {
            spec: spec.clone(),
            revision: draft.revision(),
            updated_at: draft.env.wall,
            ..Network::clone(present)
        };
        draft.put(Record::Network(Arc::new(changed)));
    }
    Ok(draft.finish_as_it_is(Kind::Network, id.0))
}

pub(super) fn delete(mut draft: Draft<'_>, id: NetworkId, if_match: Option<Revision>) -> Decided {
    let present = draft.fleet.network(id).ok_or_else(|| not_found(Kind::Network, id))?;
    is_current(Kind::Network, &present.spec.name, present.revision, if_match)?;
    let subnets = draft.fleet.subnets_of(id).map(|subnet| (Kind::Subnet, subnet.spec.name.clone()));
    let guests = draft.fleet.guest_names(draft.fleet.index.of_network.get(&id));
    unused(Kind::Network, &present.spec.name, subnets.chain(guests))?;
    draft.push(Change::Delete(Kind::Network, id.0));
    Ok(draft.finish(Kind::Network, id.0, Outcome::Deleted, None))
}

fn check(draft: &Draft<'_>, id: NetworkId, spec: &NetworkSpec) -> Result<(), Refusal> {
    check_labels("metadata", &spec.metadata)?;
    draft.name_is_free(Kind::Network, id.0, &spec.project, &spec.name)
}

/// A network may only shrink to the listed hypervisors if its guests are on such.
fn guests_are_listed(draft: &Draft<'_>, id: NetworkId) -> Result<(), Refusal> {
    for guest in draft.fleet.index.of_network.get(&id).into_iter().flatten() {
        let Some(guest) = draft.fleet.guest(*guest) else { continue };
        let Some(place) = guest.place else { continue };
        let Some(hypervisor) = draft.fleet.hypervisor(place.hypervisor) else { continue };
        if !hypervisor.spec.subnets.contains_key(&place.subnet) {
            return Err(bad_field(
                "reach",
                format!(
                    "guest `{}` is on hypervisor `{}`, which does not list its subnet; list it there first",
                    guest.spec.name, hypervisor.spec.name
                ),
            ));
        }
    }
    Ok(())
}
