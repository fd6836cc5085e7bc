//! What is derived from the records: who uses what, names, addresses, MACs, promises, deadlines, blobs.
//!
//! Every function here takes a record as it was and as it is, and leaves the index as if it had been built
//! from the present records alone, in whatever order they came; [`Fleet::check`](super::Fleet::check)
//! compares it with exactly that. Nothing here is stored.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::address::Mac;
use crate::fence::{MonoMs, Revision};
use crate::firewall::FwGroup;
use crate::flavor::Flavor;
use crate::guest::Guest;
use crate::hypervisor::Hypervisor;
use crate::id::{
    FlavorId, FwGroupId, GuestId, HypervisorId, ImageId, JobId, Kind, NetworkId, SubnetId, TokenId,
};
use crate::image::Image;
use crate::ipam::Pool;
use crate::job::Job;
use crate::name::Name;
use crate::network::{Network, Subnet};
use crate::token::Token;
use crate::units::{MiB, Resources};

type Users<K, V = GuestId> = BTreeMap<K, BTreeSet<V>>;

/// See the file's head.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    names: BTreeMap<Kind, BTreeMap<Name, BTreeMap<Name, Uuid>>>,
    pub(super) on_hypervisor: Users<HypervisorId>,
    pub(super) of_flavor: Users<FlavorId>,
    pub(super) of_image: Users<ImageId>,
    pub(super) of_network: Users<NetworkId>,
    pub(super) of_subnet: Users<SubnetId>,
    pub(super) of_fwgroup: Users<FwGroupId>,
    pub(super) subnets_of: Users<NetworkId, SubnetId>,
    pub(super) pools: BTreeMap<SubnetId, Pool>,
    macs: BTreeMap<NetworkId, BTreeMap<Mac, GuestId>>,
    used: BTreeMap<HypervisorId, Resources>,
    /// Open jobs, the first to be overdue first.
    pub(super) due: BTreeSet<(MonoMs, JobId)>,
    /// Ended jobs that are no guest's last one, the oldest first.
    pub(super) spare_jobs: BTreeSet<(Revision, JobId)>,
    pub(super) blobs: BTreeMap<String, u32>,
    pub(super) token_hashes: BTreeMap<String, TokenId>,
    /// Hypervisors of which the books may not know all they hold, since a restore.
    pub(super) unheard: BTreeSet<HypervisorId>,
    pub(super) desired: DesiredRevisions,
}

/// When each hypervisor's desired set last changed.
#[derive(Debug, Clone, Default)]
pub(super) struct DesiredRevisions {
    all: Revision,
    by_hypervisor: BTreeMap<HypervisorId, Revision>,
}

/// Two of the same books may differ in when they learned of them.
impl PartialEq for DesiredRevisions {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl DesiredRevisions {
    pub(super) fn of(&self, hypervisor: HypervisorId) -> Revision {
        self.by_hypervisor.get(&hypervisor).copied().unwrap_or_default().max(self.all)
    }

    pub(super) fn all_changed(&mut self, revision: Revision) {
        self.all = self.all.max(revision);
    }

    pub(super) fn clear(&mut self, revision: Revision) {
        *self = DesiredRevisions { all: revision, by_hypervisor: BTreeMap::new() };
    }

    pub(super) fn changed(&mut self, hypervisor: HypervisorId, revision: Revision) {
        self.by_hypervisor.insert(hypervisor, revision);
    }
}

fn insert<K: Ord, V: Ord>(map: &mut Users<K, V>, key: K, user: V) {
    map.entry(key).or_default().insert(user);
}

fn remove<K: Ord, V: Ord>(map: &mut Users<K, V>, key: &K, user: &V) {
    if let Some(users) = map.get_mut(key) {
        users.remove(user);
        if users.is_empty() {
            map.remove(key);
        }
    }
}

fn moved<K: Ord + Copy>(map: &mut Users<K>, old: Option<K>, new: Option<K>, guest: GuestId) {
    if old == new {
        return;
    }
    if let Some(key) = old {
        remove(map, &key, &guest);
    }
    if let Some(key) = new {
        insert(map, key, guest);
    }
}

impl Index {
    pub(super) fn find(&self, kind: Kind, project: &Name, name: &Name) -> Option<Uuid> {
        self.names.get(&kind)?.get(project)?.get(name).copied()
    }

    pub(super) fn names(&self, kind: Kind, project: &Name) -> impl Iterator<Item = &Name> {
        self.names.get(&kind).and_then(|projects| projects.get(project)).into_iter().flat_map(BTreeMap::keys)
    }

    pub(super) fn used(&self, hypervisor: HypervisorId) -> Resources {
        self.used.get(&hypervisor).copied().unwrap_or_default()
    }

    pub(super) fn mac_holder(&self, network: NetworkId, mac: Mac) -> Option<GuestId> {
        self.macs.get(&network)?.get(&mac).copied()
    }

    pub(super) fn pool_mut(&mut self, subnet: SubnetId) -> &mut Pool {
        self.pools.entry(subnet).or_default()
    }

    pub(super) fn token_changed(&mut self, old: Option<&Token>, new: Option<&Token>) {
        let project = Name::default_project();
        let name = |token: &Token| (project.clone(), token.name.clone());
        let id = old.or(new).map(|token| token.id.0).unwrap_or_default();
        self.renamed(Kind::Token, old.map(name), new.map(name), id);
        if let Some(old) = old {
            self.token_hashes.remove(&old.hash);
        }
        if let Some(new) = new {
            self.token_hashes.insert(new.hash.clone(), new.id);
        }
    }

    pub(super) fn hypervisor_changed(
        &mut self,
        old: Option<&Hypervisor>,
        new: Option<&Hypervisor>,
        revision: Revision,
    ) {
        let name = |record: &Hypervisor| (record.spec.project.clone(), record.spec.name.clone());
        let Some(id) = old.or(new).map(|record| record.id) else { return };
        self.renamed(Kind::Hypervisor, old.map(name), new.map(name), id.0);
        if new.is_none() {
            self.desired.by_hypervisor.remove(&id);
            return;
        }
        // The bridges it lists are part of its orders.
        if old.map(|record| &record.spec.subnets) != new.map(|record| &record.spec.subnets) {
            self.desired.changed(id, revision);
        }
    }

    pub(super) fn image_changed(&mut self, old: Option<&Image>, new: Option<&Image>, revision: Revision) {
        let name = |record: &Image| (record.spec.project.clone(), record.spec.name.clone());
        let Some(id) = old.or(new).map(|record| record.id) else { return };
        self.renamed(Kind::Image, old.map(name), new.map(name), id.0);
        let is_ordered_anew =
            old.map(|image| &image.data) != new.map(|image| &image.data) && self.of_image.contains_key(&id);
        // Of a removed one every hypervisor may have a base that can go.
        if is_ordered_anew || new.is_none() {
            self.desired.all_changed(revision);
        }
    }

    pub(super) fn flavor_changed(&mut self, old: Option<&Flavor>, new: Option<&Flavor>) {
        let name = |record: &Flavor| (record.spec.project.clone(), record.spec.name.clone());
        let id = old.or(new).map(|record| record.id.0).unwrap_or_default();
        self.renamed(Kind::Flavor, old.map(name), new.map(name), id);
    }

    pub(super) fn network_changed(
        &mut self,
        old: Option<&Network>,
        new: Option<&Network>,
        revision: Revision,
    ) {
        let name = |record: &Network| (record.spec.project.clone(), record.spec.name.clone());
        let Some(id) = old.or(new).map(|record| record.id) else { return };
        self.renamed(Kind::Network, old.map(name), new.map(name), id.0);
        if self.of_network.contains_key(&id) {
            self.desired.all_changed(revision);
        }
    }

    pub(super) fn subnet_changed(&mut self, old: Option<&Subnet>, new: Option<&Subnet>, revision: Revision) {
        let name = |record: &Subnet| (record.spec.project.clone(), record.spec.name.clone());
        let Some(id) = old.or(new).map(|record| record.id) else { return };
        self.renamed(Kind::Subnet, old.map(name), new.map(name), id.0);
        let (left, joined) = (old.map(|subnet| subnet.spec.network), new.map(|subnet| subnet.spec.network));
        if let Some(network) = left.filter(|_| left != joined) {
            remove(&mut self.subnets_of, &network, &id);
        }
        if let Some(network) = joined.filter(|_| left != joined) {
            insert(&mut self.subnets_of, network, id);
        }
        let pool = self.pool_mut(id);
        pool.set_range(new.map(|subnet| &subnet.spec));
        if pool.is_idle() {
            self.pools.remove(&id);
        }
        let in_use = |network: Option<NetworkId>| network.is_some_and(|id| self.of_network.contains_key(&id));
        if in_use(left) || in_use(joined) {
            self.desired.all_changed(revision);
        }
    }

    pub(super) fn fwgroup_changed(&mut self, old: Option<&FwGroup>, new: Option<&FwGroup>) {
        let name = |record: &FwGroup| (record.spec.project.clone(), record.spec.name.clone());
        let id = old.or(new).map(|record| record.id.0).unwrap_or_default();
        self.renamed(Kind::FwGroup, old.map(name), new.map(name), id);
    }

    /// Returns the hypervisors whose promises changed.
    pub(super) fn guest_changed(
        &mut self,
        old: Option<&Guest>,
        new: Option<&Guest>,
        revision: Revision,
    ) -> [Option<HypervisorId>; 2] {
        let Some(id) = old.or(new).map(|guest| guest.id) else { return [None, None] };
        if old.map(|g| (&g.spec.project, &g.spec.name)) != new.map(|g| (&g.spec.project, &g.spec.name)) {
            let name = |guest: &Guest| (guest.spec.project.clone(), guest.spec.name.clone());
            self.renamed(Kind::Guest, old.map(name), new.map(name), id.0);
        }
        moved(&mut self.of_flavor, old.map(|g| g.spec.flavor), new.map(|g| g.spec.flavor), id);
        moved(&mut self.of_image, old.map(|g| g.image), new.map(|g| g.image), id);
        moved(&mut self.of_network, old.map(|g| g.spec.network), new.map(|g| g.spec.network), id);
        let group = |guest: Option<&Guest>| guest.and_then(|guest| guest.spec.fwgroup);
        moved(&mut self.of_fwgroup, group(old), group(new), id);
        self.subnet_use_changed(old, new, id);
        self.mac_changed(old, new, id);
        self.blob_changed(old, new);
        self.place_changed(old, new, id, revision)
    }

    /// A guest uses the subnet it has its address from, and the one its address must come from.
    fn subnet_use_changed(&mut self, old: Option<&Guest>, new: Option<&Guest>, id: GuestId) {
        let subnets = |guest: Option<&Guest>| -> [Option<SubnetId>; 2] {
            let place = guest.and_then(|guest| guest.place).map(|place| place.subnet);
            [place, guest.and_then(|guest| guest.spec.subnet)]
        };
        let (before, after) = (subnets(old), subnets(new));
        if before == after {
            return;
        }
        for subnet in before.iter().flatten() {
            remove(&mut self.of_subnet, subnet, &id);
        }
        for subnet in after.into_iter().flatten() {
            insert(&mut self.of_subnet, subnet, id);
        }
    }

    fn mac_changed(&mut self, old: Option<&Guest>, new: Option<&Guest>, id: GuestId) {
        let key = |guest: &Guest| (guest.spec.network, guest.mac);
        if old.map(key) == new.map(key) {
            return;
        }
        if let Some((network, mac)) = old.map(key)
            && let Some(macs) = self.macs.get_mut(&network)
        {
            if macs.get(&mac) == Some(&id) {
                macs.remove(&mac);
            }
            if macs.is_empty() {
                self.macs.remove(&network);
            }
        }
        if let Some((network, mac)) = new.map(key) {
            self.macs.entry(network).or_default().entry(mac).or_insert(id);
        }
    }

    fn blob_changed(&mut self, old: Option<&Guest>, new: Option<&Guest>) {
        let blob = |guest: Option<&Guest>| guest.and_then(|guest| guest.spec.user_data.clone());
        let (before, after) = (blob(old), blob(new));
        if before == after {
            return;
        }
        if let Some(hash) = after {
            *self.blobs.entry(hash).or_default() += 1;
        }
        if let Some(hash) = before
            && let Some(count) = self.blobs.get_mut(&hash)
        {
            *count -= 1;
            if *count == 0 {
                self.blobs.remove(&hash);
            }
        }
    }

    fn place_changed(
        &mut self,
        old: Option<&Guest>,
        new: Option<&Guest>,
        id: GuestId,
        revision: Revision,
    ) -> [Option<HypervisorId>; 2] {
        let (left, joined) = (old.and_then(|guest| guest.place), new.and_then(|guest| guest.place));
        if let Some(place) = left.or(joined)
            && left.map(|place| place.hypervisor) == joined.map(|place| place.hypervisor)
            && old.map(|guest| guest.order) != new.map(|guest| guest.order)
        {
            self.desired.changed(place.hypervisor, revision);
        }
        let resources = |guest: Option<&Guest>| guest.map(|guest| guest.resources).unwrap_or_default();
        let takes = (resources(old), resources(new));
        if left == joined && takes.0 == takes.1 {
            return [None, None];
        }
        if let (Some(guest), Some(place)) = (old, left) {
            let used = self.used.entry(place.hypervisor).or_default();
            *used = minus(*used, guest.resources);
            if *used == Resources::default() {
                self.used.remove(&place.hypervisor);
            }
            let pool = self.pool_mut(place.subnet);
            pool.give_back(place.address, id);
            if pool.is_idle() {
                self.pools.remove(&place.subnet);
            }
            self.desired.changed(place.hypervisor, revision);
        }
        if let (Some(guest), Some(place)) = (new, joined) {
            let used = self.used.entry(place.hypervisor).or_default();
            *used = plus(*used, guest.resources);
            self.pool_mut(place.subnet).take(place.address, id);
            self.desired.changed(place.hypervisor, revision);
        }
        let hosts = (left.map(|place| place.hypervisor), joined.map(|place| place.hypervisor));
        moved(&mut self.on_hypervisor, hosts.0, hosts.1, id);
        [hosts.0, hosts.1]
    }

    /// `wanted`: it is its guest's last job.
    pub(super) fn job_changed(&mut self, old: Option<&Job>, new: Option<&Job>, wanted: bool) {
        if let Some(old) = old {
            self.due.remove(&(old.due, old.id));
            self.spare_jobs.remove(&(old.revision, old.id));
        }
        let Some(new) = new else { return };
        if !new.status.ended() {
            self.due.insert((new.due, new.id));
        } else if !wanted {
            self.spare_jobs.insert((new.revision, new.id));
        }
    }

    /// Its guest turned to it or away from it.
    pub(super) fn job_wanted(&mut self, job: &Job, wanted: bool) {
        if wanted || !job.status.ended() {
            self.spare_jobs.remove(&(job.revision, job.id));
        } else {
            self.spare_jobs.insert((job.revision, job.id));
        }
    }

    fn renamed(&mut self, kind: Kind, old: Option<(Name, Name)>, new: Option<(Name, Name)>, id: Uuid) {
        if old == new {
            return;
        }
        let projects = self.names.entry(kind).or_default();
        if let Some((project, name)) = old
            && let Some(names) = projects.get_mut(&project)
        {
            if names.get(&name) == Some(&id) {
                names.remove(&name);
            }
            if names.is_empty() {
                projects.remove(&project);
            }
        }
        if let Some((project, name)) = new {
            projects.entry(project).or_default().entry(name).or_insert(id);
        }
        if projects.is_empty() {
            self.names.remove(&kind);
        }
    }
}

/// Adds; saturates.
pub(super) fn plus(left: Resources, right: Resources) -> Resources {
    Resources {
        cpu: left.cpu.saturating_add(right.cpu),
        memory: MiB(left.memory.0.saturating_add(right.memory.0)),
        disk: MiB(left.disk.0.saturating_add(right.disk.0)),
    }
}

/// Subtracts; stops at nothing.
pub(super) fn minus(left: Resources, right: Resources) -> Resources {
    Resources {
        cpu: left.cpu.saturating_sub(right.cpu),
        memory: MiB(left.memory.0.saturating_sub(right.memory.0)),
        disk: MiB(left.disk.0.saturating_sub(right.disk.0)),
    }
}
