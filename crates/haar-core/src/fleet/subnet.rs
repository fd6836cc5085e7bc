//! Subnets: make, change, remove. Addresses in use always stay inside.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::change::{Change, Record};
use super::command::{Decided, Outcome};
use super::draft::{Draft, bad_field, check_labels, created_again, differing, is_current, not_found, unused};
use crate::address::Cidr;
use crate::fence::Revision;
use crate::hypervisor::Hypervisor;
use crate::id::{Kind, NetworkId, SubnetId};
use crate::ipam::{Pool, Unavailable, check_subnet, usable};
use crate::network::{BadSubnet, Gateway, Network, Reach, Subnet, SubnetSpec};
use crate::refusal::Refusal;

pub(super) fn create(mut draft: Draft<'_>, id: SubnetId, spec: &SubnetSpec, gateway: Gateway) -> Decided {
    let spec = &match gateway {
        Gateway::Said => spec.clone(),
        Gateway::Left => with_gateway(&draft, id, spec),
    };
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

/// The spec with the gateway it has already, or the one that is chosen for it.
fn with_gateway(draft: &Draft<'_>, id: SubnetId, spec: &SubnetSpec) -> SubnetSpec {
    let as_left = SubnetSpec { gateway: None, ..spec.clone() };
    if let Some(present) = draft.fleet.subnet(id) {
        // Asked again, it is the same subnet, whatever became of its gateway since.
        return SubnetSpec { gateway: present.spec.gateway, ..as_left };
    }
    let has_nat = draft.fleet.network(spec.network).is_some_and(|network| network.spec.nat);
    let chosen = SubnetSpec { gateway: has_nat.then(|| usable(spec.cidr).0), ..spec.clone() };
    match check_subnet(&chosen) {
        // Where the gateway would take the only address, the guest has it.
        Err(BadSubnet::Empty { .. }) => as_left,
        _ => chosen,
    }
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
    refuse_overlap(draft, id, spec, network)?;
    draft.name_is_free(Kind::Subnet, id.0, &spec.project, &spec.name)?;
    let Some(pool) = draft.fleet.index.pools.get(&id) else { return Ok(()) };
    for (address, guest) in pool.held() {
        let why = match Pool::usable(spec, address) {
            Ok(()) => continue,
            Err(Unavailable::Reserved) if spec.gateway == Some(address) => not_the_gateway(pool, spec),
            Err(Unavailable::Reserved) => "and would be the network's or the broadcast address".to_owned(),
            Err(_) => "and would lie outside the range".to_owned(),
        };
        let name = draft.fleet.guest(guest).map_or(guest.to_string(), |guest| guest.spec.name.to_string());
        return Err(Refusal::AddressUnavailable { address, why: format!("is held by guest `{name}` {why}") });
    }
    Ok(())
}

/// Why a guest's address is no gateway, and which one could be.
fn not_the_gateway(pool: &Pool, spec: &SubnetSpec) -> String {
    let instead = pool.last_free(spec).map(|free| format!("; take a free one as gateway, such as {free}"));
    format!("and cannot be the gateway too{}", instead.unwrap_or_default())
}

/// Refuses a range that meets another one of the same network, or of a network that can be on the same
/// hypervisor when its bridges have addresses of both: two routes to one range are none.
pub(super) fn refuse_overlap(
    draft: &Draft<'_>,
    id: SubnetId,
    spec: &SubnetSpec,
    network: &Network,
) -> Result<(), Refusal> {
    let fleet = draft.fleet;
    let others = fleet.subnets().filter(|other| other.id != id);
    for other in others.filter(|other| share(spec.cidr, other.spec.cidr)) {
        let is_routed = |network: &Network, gateway: bool| network.spec.nat || gateway;
        let meets = other.spec.network == network.id
            || fleet.network(other.spec.network).is_some_and(|theirs| {
                is_routed(network, spec.gateway.is_some())
                    && is_routed(theirs, other.spec.gateway.is_some())
                    && can_meet(draft, network, theirs)
            });
        if meets {
            return Err(overlap(spec, &other.spec));
        }
    }
    Ok(())
}

/// Refuses subnets of networks of the reach `listed` that overlap and would now be on one hypervisor.
pub(super) fn refuse_listing(draft: &Draft<'_>, listed: &BTreeMap<SubnetId, String>) -> Result<(), Refusal> {
    let fleet = draft.fleet;
    let networks: BTreeSet<NetworkId> =
        listed.keys().filter_map(|id| fleet.subnet(*id)).map(|subnet| subnet.spec.network).collect();
    let reaches_listed =
        |id: &NetworkId| fleet.network(*id).is_some_and(|network| network.spec.reach == Reach::Listed);
    let networks = networks.into_iter().filter(reaches_listed);
    let routed: Vec<&SubnetSpec> = networks
        .flat_map(|network| fleet.subnets_of(network))
        .map(|subnet| &subnet.spec)
        .filter(|spec| spec.gateway.is_some())
        .collect();
    for (at, one) in routed.iter().enumerate() {
        let rest = &routed[at + 1..];
        if let Some(other) = rest.iter().find(|other| share(one.cidr, other.cidr)) {
            return Err(overlap(one, other));
        }
    }
    Ok(())
}

fn share(one: Cidr, other: Cidr) -> bool {
    one.net().contains(&other.net()) || other.net().contains(&one.net())
}

fn overlap(one: &SubnetSpec, other: &SubnetSpec) -> Refusal {
    let (name, cidr) = (one.name.clone(), one.cidr);
    BadSubnet::Overlap { name, cidr, other: other.name.clone(), other_cidr: other.cidr }.into()
}

/// Whether one hypervisor can have both networks: always when one is everywhere, else when some hypervisor
/// lists subnets of both.
fn can_meet(draft: &Draft<'_>, one: &Network, other: &Network) -> bool {
    if one.spec.reach == Reach::All || other.spec.reach == Reach::All {
        return true;
    }
    let fleet = draft.fleet;
    let lists = |record: &Hypervisor, network: &Network| {
        let mut subnets = record.spec.subnets.keys().filter_map(|id| fleet.subnet(*id));
        subnets.any(|subnet| subnet.spec.network == network.id)
    };
    fleet.hypervisors().any(|record| lists(record, one) && lists(record, other))
}
