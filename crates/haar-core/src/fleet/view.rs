//! Reading the books: by id, by name, in id order from anywhere.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use uuid::Uuid;

use super::Fleet;
use crate::config::ClusterConfig;
use crate::fence::{Fence, MonoMs, Revision};
use crate::firewall::FwGroup;
use crate::flavor::Flavor;
use crate::guest::Guest;
use crate::hypervisor::Hypervisor;
use crate::id::{
    FlavorId, FwGroupId, GuestId, HypervisorId, ImageId, JobId, Kind, NetworkId, SubnetId, TokenId,
};
use crate::image::Image;
use crate::ipam::AddressCount;
use crate::job::Job;
use crate::name::Name;
use crate::network::{Network, Subnet};
use crate::refusal::Refusal;
use crate::schedule::Load;
use crate::token::Token;
use crate::units::Resources;

macro_rules! readers {
    ($($one:ident $all:ident $from:ident $id:ty => $record:ty),* $(,)?) => {$(
        #[doc = concat!("One of the ", stringify!($all), ".")]
        pub fn $one(&self, id: $id) -> Option<&Arc<$record>> {
            self.$all.get(&id)
        }

        #[doc = concat!("All ", stringify!($all), ", in id order.")]
        pub fn $all(&self) -> impl DoubleEndedIterator<Item = &Arc<$record>> {
            self.$all.values()
        }

        #[doc = concat!("The ", stringify!($all), " after this id, in id order: a page begins here.")]
        pub fn $from(&self, after: Option<$id>) -> impl DoubleEndedIterator<Item = &Arc<$record>> {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            self.$all.range((start, Bound::Unbounded)).map(|(_, record)| record)
        }
    )*};
}

impl Fleet {
    readers! {
        token tokens tokens_from TokenId => Token,
        hypervisor hypervisors hypervisors_from HypervisorId => Hypervisor,
        image images images_from ImageId => Image,
        flavor flavors flavors_from FlavorId => Flavor,
        network networks networks_from NetworkId => Network,
        subnet subnets subnets_from SubnetId => Subnet,
        fwgroup fwgroups fwgroups_from FwGroupId => FwGroup,
        guest guests guests_from GuestId => Guest,
        job jobs jobs_from JobId => Job,
    }

    /// The fence of the last decision.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The present epoch.
    pub fn epoch(&self) -> u64 {
        self.fence.epoch
    }

    /// Settings of the whole cluster.
    pub fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// Who has this name. Tokens lie in the default project; configuration and jobs have no names.
    pub fn find(&self, kind: Kind, project: &Name, name: &Name) -> Option<Uuid> {
        self.index.find(kind, project, name)
    }

    /// The refusal of a name that nothing of this kind has in these projects, with the one that comes closest.
    pub fn no_such_name(&self, kind: Kind, projects: &[&Name], name: &Name) -> Refusal {
        let names = projects.iter().flat_map(|project| self.index.names(kind, project));
        let closest = name.closest(names).cloned();
        Refusal::NotFound { kind, reference: name.to_string(), closest }
    }

    /// The token with this hash (SHA-256 of the secret, lower-case hex).
    pub fn token_by_hash(&self, hash: &str) -> Option<&Arc<Token>> {
        self.token(*self.index.token_hashes.get(hash)?)
    }

    /// The guests with a place on a hypervisor, in id order.
    pub fn guests_on(&self, hypervisor: HypervisorId) -> impl Iterator<Item = &Arc<Guest>> {
        let ids = self.index.on_hypervisor.get(&hypervisor).into_iter().flatten();
        ids.filter_map(|id| self.guest(*id))
    }

    /// How many guests name a firewall group.
    pub fn members_of(&self, group: FwGroupId) -> usize {
        self.index.of_fwgroup.get(&group).map_or(0, BTreeSet::len)
    }

    /// The subnets of a network, in id order.
    pub fn subnets_of(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Subnet>> {
        let ids = self.index.subnets_of.get(&network).into_iter().flatten();
        ids.filter_map(|id| self.subnet(*id))
    }

    /// Whether any guest's user-data is this blob (SHA-256, lower-case hex).
    pub fn blob_in_use(&self, sha256: &str) -> bool {
        self.index.blobs.contains_key(sha256)
    }

    /// At most 64 jobs whose step is overdue, the longest first, each with the deadline it missed.
    pub fn overdue(&self, now: MonoMs) -> Vec<(JobId, MonoMs)> {
        let late = self.index.due.iter().take_while(|(due, _)| *due <= now);
        late.take(64).map(|(due, job)| (*job, *due)).collect()
    }

    /// The next deadline of any job.
    pub fn next_due(&self) -> Option<MonoMs> {
        self.index.due.first().map(|(due, _)| *due)
    }

    /// The revision at which a hypervisor's desired set last changed; after a load, that of the load.
    pub fn desired_revision(&self, hypervisor: HypervisorId) -> Revision {
        self.index.desired.of(hypervisor)
    }

    /// What is promised to guests on a hypervisor.
    pub fn used(&self, hypervisor: HypervisorId) -> Resources {
        self.index.used(hypervisor)
    }

    /// How many addresses of a subnet are held, and how many there are.
    pub fn addresses(&self, subnet: SubnetId) -> AddressCount {
        self.index.pools.get(&subnet).map_or(AddressCount { used: 0, total: 0 }, |pool| pool.count())
    }

    /// What may be promised on a hypervisor, overcommit included, and what is.
    pub(super) fn load_of(&self, record: &Hypervisor) -> Load {
        let overcommit = record.spec.overcommit.unwrap_or_else(|| self.config.overcommit());
        Load { capacity: overcommit.of(record.total), used: self.index.used(record.id) }
    }
}
