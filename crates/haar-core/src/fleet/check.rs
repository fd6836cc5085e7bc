//! The books have a check: one function lists every broken invariant. Tests, tools and the running product
//! call the same one. An empty list means that all is well.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Fleet;
use super::change::Record;
use super::index::{Index, plus};
use crate::address::Mac;
use crate::fence::Fence;
use crate::guest::{Goal, Guest, Owner, State};
use crate::id::{GuestId, HypervisorId, JobId, Kind, NetworkId, SubnetId};
use crate::ipam::Pool;
use crate::name::Name;
use crate::schedule::standing;
use crate::units::Resources;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Two guests hold one address of a subnet.
    #[error("guests {first} and {second} both hold {address}")]
    SharedAddress {
        /// One.
        first: GuestId,
        /// The other.
        second: GuestId,
        /// The address.
        address: IpAddr,
    },
    /// Two guests have one MAC address in a network.
    #[error("guests {first} and {second} both have MAC address {mac}")]
    SharedMac {
        /// One.
        first: GuestId,
        /// The other.
        second: GuestId,
        /// The address.
        mac: Mac,
    },
    /// Two records of a kind have one name in a project.
    #[error("two {kind}s are named `{name}` in project `{project}`")]
    SharedName {
        /// What.
        kind: Kind,
        /// The name.
        name: Name,
        /// The project.
        project: Name,
    },
    /// A guest's address is none that its subnet hands out.
    #[error("guest {guest} holds {address}, which its subnet does not hand out")]
    AddressOutside {
        /// The guest.
        guest: GuestId,
        /// The address.
        address: IpAddr,
    },
    /// A record refers to what is not there.
    #[error("{what} refers to {kind} {reference}, which is not in the books")]
    DeadReference {
        /// Who refers.
        what: String,
        /// To what kind.
        kind: Kind,
        /// Its id.
        reference: String,
    },
    /// More is promised than may be.
    #[error("hypervisor {hypervisor} has {used} promised of {capacity}")]
    Oversold {
        /// Which.
        hypervisor: HypervisorId,
        /// What is promised.
        used: Resources,
        /// What may be.
        capacity: Resources,
    },
    /// The promises noted are not the sum of the guests'.
    #[error("hypervisor {hypervisor} has {noted} noted as promised; its guests take {counted}")]
    Miscounted {
        /// Which.
        hypervisor: HypervisorId,
        /// What is noted.
        noted: Resources,
        /// What the guests take.
        counted: Resources,
    },
    /// An index is not what the records say.
    #[error("the index of {0} is not what the records say")]
    Index(String),
    /// A fence of the future.
    #[error("{what} has fence {fence}, newer than the books ({books})")]
    FutureFence {
        /// Who.
        what: String,
        /// Its fence.
        fence: Fence,
        /// The books'.
        books: Fence,
    },
    /// An open job whose guest is not there or waits for another.
    #[error("job {0} is open, but no guest waits for it")]
    OrphanJob(JobId),
    /// A guest being made, without a job, a place or a hypervisor that could still tell.
    #[error("guest {0} is being made, but nothing will ever end that")]
    Stuck(GuestId),
    /// A state that contradicts what the record holds.
    #[error("guest {guest} is {} but {why}", state.as_str())]
    WrongState {
        /// The guest.
        guest: GuestId,
        /// Its state.
        state: State,
        /// What contradicts it.
        why: &'static str,
    },
}

impl Fleet {
    /// Every fault in the books; none when all is well. Takes as long as loading them.
    pub fn check(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.check_holdings(&mut faults);
        self.check_names(&mut faults);
        for guest in self.guests() {
            self.check_guest(guest, &mut faults);
        }
        self.check_jobs(&mut faults);
        self.check_promises(&mut faults);
        self.check_references(&mut faults);
        self.check_index(&mut faults);
        faults
    }

    fn check_holdings(&self, faults: &mut Vec<Fault>) {
        let mut addresses: BTreeMap<(SubnetId, IpAddr), GuestId> = BTreeMap::new();
        let mut macs: BTreeMap<(NetworkId, Mac), GuestId> = BTreeMap::new();
        for guest in self.guests() {
            let second = guest.id;
            if let Some(first) = macs.insert((guest.spec.network, guest.mac), second) {
                faults.push(Fault::SharedMac { first, second, mac: guest.mac });
            }
            let Some(place) = guest.place else { continue };
            let address = place.address;
            if let Some(first) = addresses.insert((place.subnet, address), second) {
                faults.push(Fault::SharedAddress { first, second, address });
            }
        }
    }

    fn check_names(&self, faults: &mut Vec<Fault>) {
        let default = Name::default_project();
        let mut seen: BTreeSet<(Kind, Name, Name)> = BTreeSet::new();
        let mut note = |kind: Kind, project: &Name, name: &Name| {
            if !seen.insert((kind, project.clone(), name.clone())) {
                faults.push(Fault::SharedName { kind, name: name.clone(), project: project.clone() });
            }
        };
        self.tokens().for_each(|record| note(Kind::Token, &default, &record.name));
        self.hypervisors().for_each(|r| note(Kind::Hypervisor, &r.spec.project, &r.spec.name));
        self.images().for_each(|r| note(Kind::Image, &r.spec.project, &r.spec.name));
        self.flavors().for_each(|r| note(Kind::Flavor, &r.spec.project, &r.spec.name));
        self.networks().for_each(|r| note(Kind::Network, &r.spec.project, &r.spec.name));
        self.subnets().for_each(|r| note(Kind::Subnet, &r.spec.project, &r.spec.name));
        self.fwgroups().for_each(|r| note(Kind::FwGroup, &r.spec.project, &r.spec.name));
        self.guests().for_each(|r| note(Kind::Guest, &r.spec.project, &r.spec.name));
    }

    fn check_guest(&self, guest: &Guest, faults: &mut Vec<Fault>) {
        let id = guest.id;
        let mut contradicts = |why| faults.push(Fault::WrongState { guest: id, state: guest.state, why });
        match (guest.state, guest.place) {
            (State::Failed, Some(_)) => contradicts("it holds a place"),
            (State::Creating | State::Running | State::Stopped | State::Paused, None) => {
                contradicts("it holds no place");
            }
            (State::Deleting | State::Claimed, None) => contradicts("it holds no place"),
            _ => {}
        }
        if (guest.goal == Goal::Gone) != (guest.state == State::Deleting) {
            contradicts("its goal says otherwise");
        }
        let waits = guest.job.and_then(|job| self.job(job)).is_some_and(|job| !job.status.ended());
        // One that was never provisioned may wait without a job: given up while its host owed a report, it is
        // settled by what the node tells next.
        if guest.state == State::Creating && !waits && guest.provisioned.is_some() {
            faults.push(Fault::Stuck(id));
        }
        let mut fences = vec![guest.order];
        fences.extend(guest.place.map(|place| place.life));
        fences.extend(guest.provisioned);
        fences.extend(guest.deed.map(|deed| deed.fence));
        for fence in fences.into_iter().filter(|fence| *fence > self.fence) {
            faults.push(Fault::FutureFence { what: format!("guest {id}"), fence, books: self.fence });
        }
        let subnet = guest.place.and_then(|place| self.subnet(place.subnet).map(|subnet| (place, subnet)));
        if let Some((place, subnet)) = subnet
            && Pool::usable(&subnet.spec, place.address).is_err()
        {
            faults.push(Fault::AddressOutside { guest: id, address: place.address });
        }
    }

    fn check_jobs(&self, faults: &mut Vec<Fault>) {
        for job in self.jobs() {
            if job.order > self.fence {
                let what = format!("job {}", job.id);
                faults.push(Fault::FutureFence { what, fence: job.order, books: self.fence });
            }
            let waits = self.guest(job.guest).is_some_and(|guest| guest.job == Some(job.id));
            if !job.status.ended() && !waits {
                faults.push(Fault::OrphanJob(job.id));
            }
        }
    }

    fn check_promises(&self, faults: &mut Vec<Fault>) {
        let mut counted: BTreeMap<HypervisorId, Resources> = BTreeMap::new();
        for guest in self.guests() {
            let Some(place) = guest.place else { continue };
            let sum = counted.entry(place.hypervisor).or_default();
            *sum = plus(*sum, guest.resources);
        }
        for record in self.hypervisors() {
            let hypervisor = record.id;
            let counted = counted.get(&hypervisor).copied().unwrap_or_default();
            let noted = self.used(hypervisor);
            if noted != counted {
                faults.push(Fault::Miscounted { hypervisor, noted, counted });
            }
        }
    }

    /// Hypervisors on which more is promised than may be. Not a fault of the books: a machine may have lost
    /// memory, a ratio may have been lowered, guests may have been found there.
    pub fn oversold(&self) -> Vec<Fault> {
        let loads = self.hypervisors().map(|record| (record.id, self.load_of(record)));
        let over = loads.filter(|(_, load)| {
            let (used, capacity) = (load.used, load.capacity);
            used.cpu > capacity.cpu || used.memory > capacity.memory || used.disk > capacity.disk
        });
        over.map(|(hypervisor, load)| Fault::Oversold {
            hypervisor,
            used: load.used,
            capacity: load.capacity,
        })
        .collect()
    }

    fn check_references(&self, faults: &mut Vec<Fault>) {
        let mut dead = |what: String, kind: Kind, reference: String, is_there: bool| {
            if !is_there {
                faults.push(Fault::DeadReference { what, kind, reference });
            }
        };
        for guest in self.guests() {
            let what = || format!("guest {}", guest.id);
            if let Some(place) = guest.place {
                let hypervisor = place.hypervisor;
                let is_there = self.hypervisor(hypervisor).is_some();
                dead(what(), Kind::Hypervisor, hypervisor.to_string(), is_there);
            }
            if let Some(job) = guest.job {
                dead(what(), Kind::Job, job.to_string(), self.job(job).is_some());
            }
            // What a claimed guest refers to may have been made after the backup.
            if guest.owner == Owner::Claimed {
                continue;
            }
            let spec = &guest.spec;
            dead(what(), Kind::Flavor, spec.flavor.to_string(), self.flavor(spec.flavor).is_some());
            dead(what(), Kind::Image, guest.image.to_string(), self.image(guest.image).is_some());
            dead(what(), Kind::Network, spec.network.to_string(), self.network(spec.network).is_some());
            if let Some(group) = spec.fwgroup {
                dead(what(), Kind::FwGroup, group.to_string(), self.fwgroup(group).is_some());
            }
            for subnet in [guest.place.map(|place| place.subnet), spec.subnet].into_iter().flatten() {
                dead(what(), Kind::Subnet, subnet.to_string(), self.subnet(subnet).is_some());
            }
        }
        for subnet in self.subnets() {
            let network = subnet.spec.network;
            let what = format!("subnet {}", subnet.id);
            dead(what, Kind::Network, network.to_string(), self.network(network).is_some());
        }
        for flavor in self.flavors() {
            let Some(image) = flavor.spec.image else { continue };
            let what = format!("flavor {}", flavor.id);
            dead(what, Kind::Image, image.to_string(), self.image(image).is_some());
        }
    }

    /// Compares every index with one built from the records alone.
    fn check_index(&self, faults: &mut Vec<Fault>) {
        let fresh = self.rebuilt();
        if self.index != fresh.index {
            faults.push(Fault::Index(differing(&self.index, &fresh.index)));
        }
        let expected = self
            .hypervisors()
            .map(|record| (record.id, (fresh.load_of(record), standing(record, self.fence.epoch).is_none())))
            .collect();
        faults.extend(self.board.faults(&expected).into_iter().map(Fault::Index));
    }

    /// The same books, with everything derived anew.
    fn rebuilt(&self) -> Fleet {
        let mut fresh = Fleet { fence: self.fence, ..Fleet::empty() };
        fresh.restore(Record::Config(Arc::clone(&self.config)));
        self.jobs().for_each(|record| fresh.restore(Record::Job(Arc::clone(record))));
        self.guests().for_each(|record| fresh.restore(Record::Guest(Arc::clone(record))));
        self.subnets().for_each(|record| fresh.restore(Record::Subnet(Arc::clone(record))));
        self.networks().for_each(|record| fresh.restore(Record::Network(Arc::clone(record))));
        self.flavors().for_each(|record| fresh.restore(Record::Flavor(Arc::clone(record))));
        self.images().for_each(|record| fresh.restore(Record::Image(Arc::clone(record))));
        self.fwgroups().for_each(|record| fresh.restore(Record::FwGroup(Arc::clone(record))));
        self.hypervisors().for_each(|record| fresh.restore(Record::Hypervisor(Arc::clone(record))));
        self.tokens().for_each(|record| fresh.restore(Record::Token(Arc::clone(record))));
        for (subnet, pool) in &self.index.pools {
            if let Some(address) = pool.cursor() {
                fresh.restore_cursor(*subnet, address);
            }
        }
        fresh
    }
}

/// Names the parts that differ.
fn differing(left: &Index, right: &Index) -> String {
    let parts = [
        ("guests by hypervisor", left.on_hypervisor == right.on_hypervisor),
        ("guests by flavor", left.of_flavor == right.of_flavor),
        ("guests by image", left.of_image == right.of_image),
        ("guests by network", left.of_network == right.of_network),
        ("guests by subnet", left.of_subnet == right.of_subnet),
        ("guests by fwgroup", left.of_fwgroup == right.of_fwgroup),
        ("subnets by network", left.subnets_of == right.subnets_of),
        ("addresses", left.pools == right.pools),
        ("jobs by deadline", left.due == right.due),
        ("ended jobs", left.spare_jobs == right.spare_jobs),
        ("blobs", left.blobs == right.blobs),
        ("tokens by hash", left.token_hashes == right.token_hashes),
        ("hypervisors unheard of", left.unheard == right.unheard),
    ];
    let names: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    if names.is_empty() { "names, MAC addresses or promises".to_owned() } else { names.join(", ") }
}
