//! From a guest's spec to a hypervisor, a subnet and an address, or to a no with reasons.

use std::net::IpAddr;

use super::Fleet;
use super::command::Env;
use super::draft::{Draft, bad_field, not_found};
use super::guest;
use crate::address::Mac;
use crate::guest::GuestSpec;
use crate::hypervisor::Hypervisor;
use crate::id::{GuestId, HypervisorId, Kind, NetworkId, SubnetId};
use crate::ipam::{Pool, Unavailable};
use crate::name::Name;
use crate::network::Reach;
use crate::refusal::Refusal;
use crate::schedule::{self, Candidate, No, Request, Score};
use crate::units::Resources;

/// What a guest is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) hypervisor: HypervisorId,
    pub(super) subnet: SubnetId,
    pub(super) address: IpAddr,
}

/// Finds a place: the best hypervisor of all that pass every filter, and the next address there.
pub(super) fn find(
    draft: &Draft<'_>,
    spec: &GuestSpec,
    demand: Resources,
    avoid: &[HypervisorId],
) -> Result<Found, Refusal> {
    let fleet = draft.fleet;
    let request = request(fleet, spec, demand, avoid)?;
    let chosen = fleet.board.choose(&request, &fleet.hypervisors, draft.env.alive);
    let record = chosen.and_then(|id| fleet.hypervisor(id));
    let subnet = record.and_then(|record| request.subnet_on(record));
    let next = subnet.and_then(|subnet| fleet.index.pools.get(&subnet)).and_then(Pool::next_free);
    match (record, subnet, spec.address.or(next)) {
        (Some(record), Some(subnet), Some(address)) => Ok(Found { hypervisor: record.id, subnet, address }),
        _ => Err(no_room(fleet, spec, &request, draft.env)),
    }
}

/// Translates a guest's spec into what placement asks.
fn request<'a>(
    fleet: &Fleet,
    spec: &'a GuestSpec,
    demand: Resources,
    avoid: &'a [HypervisorId],
) -> Result<Request<'a>, Refusal> {
    let network = fleet.network(spec.network).ok_or_else(|| not_found(Kind::Network, spec.network))?;
    let listed_only = network.spec.reach == Reach::Listed;
    Ok(Request {
        demand,
        asked: spec.hypervisor,
        require: &spec.require,
        avoid,
        listed_only,
        subnets: subnets(fleet, spec)?,
        unheard: unheard(fleet, spec.network, listed_only),
        epoch: fleet.fence.epoch,
    })
}

/// The subnets the address may come from, and whether each has one to give.
fn subnets(fleet: &Fleet, spec: &GuestSpec) -> Result<Vec<(SubnetId, bool)>, Refusal> {
    if let Some(address) = spec.address {
        return Ok(vec![(subnet_of(fleet, spec, address)?, true)]);
    }
    let has_free = |id: &SubnetId| fleet.index.pools.get(id).is_some_and(Pool::has_free);
    let own = fleet.index.subnets_of.get(&spec.network).into_iter().flatten();
    let wanted = own.filter(|id| spec.subnet.is_none_or(|asked| asked == **id));
    Ok(wanted.map(|id| (*id, has_free(id))).collect())
}

/// The subnet an address asked for lies in; refuses one that cannot be had.
fn subnet_of(fleet: &Fleet, spec: &GuestSpec, address: IpAddr) -> Result<SubnetId, Refusal> {
    let unavailable = |why: String| Err(Refusal::AddressUnavailable { address, why });
    let mut own = fleet.subnets_of(spec.network).filter(|subnet| subnet.spec.cidr.contains(address));
    let Some(subnet) = own.find(|subnet| spec.subnet.is_none_or(|asked| asked == subnet.id)) else {
        return unavailable("lies in none of the network's subnets that may be used".to_owned());
    };
    let pool = fleet.index.pools.get(&subnet.id);
    match pool.map_or(Err(Unavailable::Outside), |pool| pool.available(address)) {
        Ok(()) => Ok(subnet.id),
        Err(Unavailable::Outside) => unavailable(format!(
            "lies outside what subnet `{}` hands out ({} to {})",
            subnet.spec.name, subnet.spec.start, subnet.spec.end
        )),
        Err(Unavailable::Reserved) => {
            unavailable("is a network, broadcast or gateway address and never handed out".to_owned())
        }
        Err(Unavailable::Held(guest)) => {
            let name = fleet.guest(guest).map_or(guest.to_string(), |guest| guest.spec.name.to_string());
            unavailable(format!("is held by guest `{name}`; leave it out to get another"))
        }
    }
}

/// The name of a hypervisor that has the network and has not told what it holds since a restore.
pub(super) fn unheard_with(fleet: &Fleet, network: NetworkId) -> Option<Name> {
    let listed_only = fleet.network(network).is_some_and(|network| network.spec.reach == Reach::Listed);
    let id = unheard(fleet, network, listed_only)?;
    Some(fleet.hypervisor(id)?.spec.name.clone())
}

/// A hypervisor that has the network and of which the books may not know all it holds since a restore.
fn unheard(fleet: &Fleet, network: NetworkId, listed_only: bool) -> Option<HypervisorId> {
    let has_network = |id: &&HypervisorId| {
        let Some(record) = fleet.hypervisor(**id) else { return false };
        let listed = record.spec.subnets.keys();
        !listed_only || listed.into_iter().any(|subnet| is_of(fleet, *subnet, network))
    };
    fleet.index.unheard.iter().find(has_network).copied()
}

fn is_of(fleet: &Fleet, subnet: SubnetId, network: NetworkId) -> bool {
    fleet.subnet(subnet).is_some_and(|subnet| subnet.spec.network == network)
}

fn no_room(fleet: &Fleet, spec: &GuestSpec, request: &Request<'_>, env: &Env<'_>) -> Refusal {
    let noes = fleet.hypervisors().filter_map(|record| {
        let no = verdict(fleet, record, request, env).err()?;
        let nearness = schedule::nearness(no.cause, fleet.load_of(record));
        Some((no.cause, nearness, record.spec.name.clone(), no.detail))
    });
    let reasons = schedule::grouped(noes);
    Refusal::NoRoom { guest: spec.name.clone(), wants: request.demand, reasons }
}

fn verdict(fleet: &Fleet, record: &Hypervisor, request: &Request<'_>, env: &Env<'_>) -> Result<Score, No> {
    let load = fleet.load_of(record);
    let name_of =
        |id: HypervisorId| fleet.hypervisor(id).map_or(id.to_string(), |other| other.spec.name.to_string());
    schedule::judge(request, record, load, env.alive)
        .map_err(|cause| No { cause, detail: schedule::detail(cause, request, record, load, name_of) })
}

/// A guest's MAC address: the one asked for, else its own, with a counter when another has that.
pub(super) fn mac(draft: &Draft<'_>, id: GuestId, spec: &GuestSpec) -> Result<Mac, Refusal> {
    let holder = |mac: Mac| draft.fleet.index.mac_holder(spec.network, mac).filter(|holder| *holder != id);
    let Some(mac) = spec.mac else {
        let free = (0..1000).map(|counter| Mac::of_guest(id, counter)).find(|mac| holder(*mac).is_none());
        return free.ok_or_else(|| bad_field("mac", "no generated address is free; name one"));
    };
    match holder(mac).and_then(|holder| draft.fleet.guest(holder)) {
        Some(holder) => Err(Refusal::MacTaken { mac, holder: holder.spec.name.clone() }),
        None => Ok(mac),
    }
}

impl Fleet {
    /// Dry run: what each hypervisor says to this guest; first those that could take it in policy order,
    /// then the others in the order of the filters. Nothing is reserved.
    ///
    /// # Errors
    /// Every refusal a create of it would get, but for the room.
    pub fn candidates(&self, spec: &GuestSpec, env: &Env<'_>) -> Result<Vec<Candidate>, Refusal> {
        let draft = Draft::new(self, env);
        let nobody = GuestId(uuid::Uuid::nil());
        let checked = guest::check(&draft, nobody, spec)?;
        mac(&draft, nobody, spec)?;
        let request = request(self, spec, checked.resources, &[])?;
        let mut candidates: Vec<Candidate> = self
            .hypervisors()
            .map(|record| Candidate {
                hypervisor: record.id,
                name: record.spec.name.clone(),
                verdict: verdict(self, record, &request, env),
            })
            .collect();
        candidates.sort_by_key(|candidate| match &candidate.verdict {
            Ok(score) => (None, Some(*score), candidate.hypervisor),
            Err(no) => (Some(no.cause), None, candidate.hypervisor),
        });
        Ok(candidates)
    }
}
