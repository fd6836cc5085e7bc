//! Subnets: make, change, remove. Addresses in use always stay inside.

use std::sync::Arc;

use super::change::{Change, Record};
use super::command::{Decided, Outcome};
use super::draft::{Draft, bad_field, check_labels, created_again, differing, is_current, not_found, unused};
use crate::address::Cidr;
use crate::fence::Revision;
use crate::id::{Kind, NetworkId, SubnetId};
use crate::ipam::{Pool, Unavailable, check_subnet};
use crate::network::{BadSubnet, Subnet, SubnetSpec};
use crate::refusal::Refusal;

pub(super) fn create(mut draft: Draft<'_>, id: SubnetId, spec: &SubnetSpec) -> Decided {
    if let Some(present) = draft.fleet.subnet(id) {
        let name = present.spec.name.clone();
        let fields = differing!(&present.spec, spec; name => "name", project => "project",
            metadata => "metadata", network => "network", cidr => "cidr", gateway => "gateway",
            start => "start", end => "end", dns => "dns");
        return created_again(draft, Kind::Subnet, id.0, &name, fields);
    }
    check(&draft, id, spec)?;
    let wall = draft.env.wall;
    draft.put(Record::Subnet(Arc::new(Subnet {
        id,
        spec: spec.clone(),
        revision: draft.revision(),
        created_at: wall,
        updated_at: wall,
    })));
    Ok(draft.finish(Kind::Subnet, id.0, Outcome::Created, None))
}

pub(super) fn set(
    mut draft: Draft<'_>,
    id: SubnetId,
    spec: &SubnetSpec,
    if_match: Option<Revision>,
) -> Decided {
    let present = draft.fleet.subnet(id).ok_or_else(|| not_found(Kind::Subnet, id))?;
    is_current(Kind::Subnet, &present.spec.name, present.revision, if_match)?;
    if spec.network != present.spec.network {
        return Err(bad_field("network", "a subnet keeps its network; make another subnet"));
    }
    check(&draft, id, spec)?;
    if present.spec != *spec {
        let changed = Subnet {
            spec: spec.clone(),
            revision: draft.revision(),
            updated_at: draft.env.wall,
            ..Subnet::clone(present)
        };
        draft.put(Record::Subnet(Arc::new(changed)));
    }
    Ok(draft.finish_as_it_is(Kind::Subnet, id.0))
}

pub(super) fn delete(mut draft: Draft<'_>, id: SubnetId, if_match: Option<Revision>) -> Decided {
    let present = draft.fleet.subnet(id).ok_or_else(|| not_found(Kind::Subnet, id))?;
    is_current(Kind::Subnet, &present.spec.name, present.revision, if_match)?;
    let guests = draft.fleet.guest_names(draft.fleet.index.of_subnet.get(&id));
    let listing = draft.fleet.hypervisors().filter(|record| record.spec.subnets.contains_key(&id));
    let listing = listing.map(|record| (Kind::Hypervisor, record.spec.name.clone()));
    unused(Kind::Subnet, &present.spec.name, guests.chain(listing))?;
    draft.push(Change::Delete(Kind::Subnet, id.0));
    Ok(draft.finish(Kind::Subnet, id.0, Outcome::Deleted, None))
}

fn check(draft: &Draft<'_>, id: SubnetId, spec: &SubnetSpec) -> Result<(), Refusal> {
    check_labels("metadata", &spec.metadata)?;
    let network = draft.fleet.network(spec.network).ok_or_else(|| not_found(Kind::Network, spec.network))?;
    check_subnet(spec)?;
    refuse_overlap(draft, id, spec.cidr, spec.network, network.spec.nat)?;
    draft.name_is_free(Kind::Subnet, id.0, &spec.project, &spec.name)?;
    let held = draft.fleet.index.pools.get(&id);
    for (address, guest) in held.into_iter().flat_map(Pool::held) {
        let why = match Pool::usable(spec, address) {
            Ok(()) => continue,
            Err(Unavailable::Reserved) => "would be a network, broadcast or gateway address",
            Err(_) => "would lie outside the range",
        };
        let name = draft.fleet.guest(guest).map_or(guest.to_string(), |guest| guest.spec.name.to_string());
        return Err(Refusal::AddressUnavailable {
            address,
            why: format!("is held by guest `{name}` and {why}"),
        });
    }
    Ok(())
}

/// Refuses a range that meets another one of the same network or, with NAT, of any network with NAT.
pub(super) fn refuse_overlap(
    draft: &Draft<'_>,
    id: SubnetId,
    cidr: Cidr,
    network: NetworkId,
    nat: bool,
) -> Result<(), Refusal> {
    let has_nat = |id: NetworkId| draft.fleet.network(id).is_some_and(|network| network.spec.nat);
    for other in draft.fleet.subnets().filter(|other| other.id != id) {
        let meets = other.spec.network == network || (nat && has_nat(other.spec.network));
        let other_cidr = other.spec.cidr;
        let shares = cidr.net().contains(&other_cidr.net()) || other_cidr.net().contains(&cidr.net());
        if meets && shares {
            return Err(BadSubnet::Overlap { cidr, other: other.spec.name.clone(), other_cidr }.into());
        }
    }
    Ok(())
}
