//! The placement index: host slots, bitmaps in blocks of 64, and per demand the best of each block.
//!
//! `apply` keeps it up to date eagerly and nobody stores it. A search ANDs bitmaps, takes the least lower
//! bound of the blocks, and asks [`judge`] of the host found; a no clears that host's bit and the search
//! goes on. So the answer is the best of *all* hosts that pass, the same as asking everyone.
//! A block's best is a lower bound under any further mask, hence one index per demand is enough for every
//! network and label. Slots are arbitrary; ties are decided by id, so two boards of the same books answer
//! alike however they came to be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::{Load, Request, Score, judge, shortage, standing, used_share};
use crate::fleet::command::Alive;
use crate::hypervisor::Hypervisor;
use crate::id::{HypervisorId, SubnetId};
use crate::units::Resources;

const BLOCK: usize = 64;
/// Distinct demands with an index of their own; a demand beyond them is looked up by a scan.
const MOST_INDEXED: usize = 64;

type Bits = Vec<u64>;

/// A host's place in the order of the policy, apart from where the guest failed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    share: u64,
    id: HypervisorId,
}

/// No host: worse than any.
const NOBODY: Key = Key { share: u64::MAX, id: HypervisorId(Uuid::max()) };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Host {
    id: HypervisorId,
    load: Load,
    open: bool,
    share: u64,
}

impl Host {
    fn key(&self) -> Key {
        Key { share: self.share, id: self.id }
    }
}

/// Resources as a key: a distinct demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Demand(u64, u64, u32);

impl Demand {
    fn of(resources: Resources) -> Demand {
        Demand(resources.disk.0, resources.memory.0, resources.cpu)
    }
}

/// Who has room for one demand.
#[derive(Debug, Clone)]
struct Fitting {
    demand: Resources,
    flavors: u32,
    fit: Bits,
    best: Vec<Key>,
}

/// The index over all hypervisors.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    slots: BTreeMap<HypervisorId, usize>,
    hosts: Vec<Option<Host>>,
    vacant: BTreeSet<usize>,
    listing: BTreeMap<SubnetId, BTreeSet<usize>>,
    labels: BTreeMap<String, BTreeMap<String, BTreeSet<usize>>>,
    fittings: BTreeMap<Demand, Fitting>,
    beyond: BTreeMap<Demand, u32>,
}

impl Board {
    /// A hypervisor is now so; `before` is what its record was.
    pub(crate) fn put(&mut self, before: Option<&Hypervisor>, record: &Hypervisor, load: Load, epoch: u64) {
        let slot = self.slot_for(record.id);
        let labels_changed = before.is_none_or(|before| before.spec.metadata != record.spec.metadata);
        let subnets_changed = before.is_none_or(|before| before.spec.subnets != record.spec.subnets);
        if let Some(before) = before {
            if labels_changed {
                self.unlabel(before, slot);
            }
            if subnets_changed {
                self.unlist(before, slot);
            }
        }
        if labels_changed {
            for (key, value) in &record.spec.metadata {
                let values = self.labels.entry(key.clone()).or_default();
                values.entry(value.clone()).or_default().insert(slot);
            }
        }
        if subnets_changed {
            for subnet in record.spec.subnets.keys() {
                self.listing.entry(*subnet).or_default().insert(slot);
            }
        }
        let open = standing(record, epoch).is_none();
        self.set(slot, Some(Host { id: record.id, load, open, share: used_share(load) }));
    }

    /// A hypervisor's promises changed.
    pub(crate) fn set_used(&mut self, id: HypervisorId, used: Resources) {
        let Some(&slot) = self.slots.get(&id) else { return };
        let Some(mut host) = self.hosts[slot] else { return };
        host.load.used = used;
        host.share = used_share(host.load);
        self.set(slot, Some(host));
    }

    /// A hypervisor is no more.
    pub(crate) fn remove(&mut self, record: &Hypervisor) {
        let Some(slot) = self.slots.remove(&record.id) else { return };
        self.unlabel(record, slot);
        self.unlist(record, slot);
        self.set(slot, None);
        self.vacant.insert(slot);
    }

    /// A flavor with these resources is there: keep an index for its demand.
    pub(crate) fn add_demand(&mut self, demand: Resources) {
        let key = Demand::of(demand);
        if let Some(fitting) = self.fittings.get_mut(&key) {
            fitting.flavors += 1;
        } else if self.fittings.len() < MOST_INDEXED {
            let fitting = Fitting::build(demand, &self.hosts);
            self.fittings.insert(key, fitting);
        } else {
            *self.beyond.entry(key).or_default() += 1;
        }
    }

    /// A flavor with these resources is no more.
    pub(crate) fn drop_demand(&mut self, demand: Resources) {
        let key = Demand::of(demand);
        if let Some(fitting) = self.fittings.get_mut(&key) {
            fitting.flavors -= 1;
            if fitting.flavors == 0 {
                self.fittings.remove(&key);
            }
        } else if let Some(count) = self.beyond.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.beyond.remove(&key);
            }
        }
    }

    /// What is promised on a hypervisor and what may be.
    pub(crate) fn load(&self, id: HypervisorId) -> Option<Load> {
        let slot = self.slots.get(&id)?;
        self.hosts[*slot].map(|host| host.load)
    }

    /// The best hypervisor of all that pass every filter.
    pub(crate) fn choose(
        &self,
        request: &Request<'_>,
        records: &BTreeMap<HypervisorId, Arc<Hypervisor>>,
        alive: &dyn Alive,
    ) -> Option<HypervisorId> {
        let ask = |id: HypervisorId| -> Option<Score> {
            judge(request, records.get(&id)?, self.load(id)?, alive).ok()
        };
        if request.unheard.is_some() || !request.subnets.iter().any(|(_, has_free)| *has_free) {
            return None;
        }
        if let Some(asked) = request.asked {
            return ask(asked).map(|score| score.hypervisor);
        }
        let fitting = match self.fittings.get(&Demand::of(request.demand)) {
            Some(fitting) => Cow::Borrowed(fitting),
            None => Cow::Owned(Fitting::build(request.demand, &self.hosts)),
        };
        let mut mask = self.mask(request, &fitting.fit);
        // Where it failed before comes last of all, so these are kept apart and asked at the end.
        let failed_before: BTreeSet<HypervisorId> = request.avoid.iter().copied().collect();
        for slot in failed_before.iter().filter_map(|id| self.slots.get(id)) {
            mask[slot / BLOCK] &= !(1 << (slot % BLOCK));
        }
        let passes = |id| ask(id).is_some();
        self.best_in(mask, &fitting, passes)
            .or_else(|| failed_before.iter().filter_map(|id| ask(*id)).min().map(|score| score.hypervisor))
    }

    /// The least key among the masked hosts that pass.
    fn best_in(
        &self,
        mut mask: Bits,
        fitting: &Fitting,
        passes: impl Fn(HypervisorId) -> bool,
    ) -> Option<HypervisorId> {
        let mut bounds: Vec<Key> = Vec::with_capacity(mask.len());
        for (block, bits) in mask.iter().enumerate() {
            let bound = match bits.count_ones() {
                0 => NOBODY,
                1..=8 => self.least_of(block, *bits),
                _ => fitting.best[block],
            };
            bounds.push(bound);
        }
        loop {
            let (block, bound) = bounds.iter().enumerate().min_by_key(|(_, bound)| **bound)?;
            if *bound == NOBODY {
                return None;
            }
            let least = self.least_of(block, mask[block]);
            if least > *bound {
                // The bound was loose: this block's best is not in the mask. Put it back where it belongs.
                bounds[block] = least;
                continue;
            }
            if passes(least.id) {
                return Some(least.id);
            }
            let slot = self.slots.get(&least.id)?;
            mask[block] &= !(1 << (slot % BLOCK));
            bounds[block] = self.least_of(block, mask[block]);
        }
    }

    /// The hosts that can pass the filters which have an index.
    fn mask(&self, request: &Request<'_>, fit: &[u64]) -> Bits {
        let mut mask = fit.to_vec();
        for (key, value) in request.require {
            let slots = self.labels.get(key).and_then(|values| values.get(value));
            keep_only(&mut mask, slots.into_iter());
        }
        if request.listed_only {
            let open = request.subnets.iter().filter(|(_, has_free)| *has_free);
            keep_only(&mut mask, open.filter_map(|(subnet, _)| self.listing.get(subnet)));
        }
        mask
    }

    fn least_of(&self, block: usize, bits: u64) -> Key {
        least(&self.hosts, block, bits)
    }

    fn slot_for(&mut self, id: HypervisorId) -> usize {
        if let Some(slot) = self.slots.get(&id) {
            return *slot;
        }
        let slot = match self.vacant.pop_first() {
            Some(slot) => slot,
            None => {
                self.hosts.push(None);
                let blocks = self.hosts.len().div_ceil(BLOCK);
                for fitting in self.fittings.values_mut() {
                    fitting.fit.resize(blocks, 0);
                    fitting.best.resize(blocks, NOBODY);
                }
                self.hosts.len() - 1
            }
        };
        self.slots.insert(id, slot);
        slot
    }

    fn set(&mut self, slot: usize, host: Option<Host>) {
        self.hosts[slot] = host;
        for fitting in self.fittings.values_mut() {
            fitting.update(&self.hosts, slot);
        }
    }

    fn unlabel(&mut self, record: &Hypervisor, slot: usize) {
        for (key, value) in &record.spec.metadata {
            let Some(values) = self.labels.get_mut(key) else { continue };
            if let Some(slots) = values.get_mut(value) {
                slots.remove(&slot);
                if slots.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.labels.remove(key);
            }
        }
    }

    fn unlist(&mut self, record: &Hypervisor, slot: usize) {
        for subnet in record.spec.subnets.keys() {
            let Some(slots) = self.listing.get_mut(subnet) else { continue };
            slots.remove(&slot);
            if slots.is_empty() {
                self.listing.remove(subnet);
            }
        }
    }

    /// What is wrong with the index, given what each hypervisor should have and whether it should be open.
    pub(crate) fn faults(&self, expected: &BTreeMap<HypervisorId, (Load, bool)>) -> Vec<String> {
        let mut faults = Vec::new();
        if self.slots.keys().ne(expected.keys()) {
            faults.push("the board has other hypervisors than the books".to_owned());
        }
        for (id, slot) in &self.slots {
            let host = self.hosts.get(*slot).copied().flatten();
            let want = expected.get(id);
            let same = host.zip(want).is_some_and(|(host, (load, open))| {
                host.id == *id && host.load == *load && host.open == *open && host.share == used_share(*load)
            });
            if !same {
                faults.push(format!("the board has hypervisor {id} as {host:?}, the books as {want:?}"));
            }
        }
        for fitting in self.fittings.values() {
            let fresh = Fitting::build(fitting.demand, &self.hosts);
            if fresh.fit != fitting.fit || fresh.best != fitting.best {
                faults.push(format!("the board's index for {} is not what its hosts say", fitting.demand));
            }
        }
        faults
    }
}

impl Fitting {
    fn build(demand: Resources, hosts: &[Option<Host>]) -> Fitting {
        let blocks = hosts.len().div_ceil(BLOCK);
        let mut fitting = Fitting { demand, flavors: 1, fit: vec![0; blocks], best: vec![NOBODY; blocks] };
        for (slot, host) in hosts.iter().enumerate() {
            let Some(host) = host else { continue };
            if host.open && shortage(host.load, demand).is_none() {
                fitting.fit[slot / BLOCK] |= 1 << (slot % BLOCK);
                let best = &mut fitting.best[slot / BLOCK];
                *best = (*best).min(host.key());
            }
        }
        fitting
    }

    fn update(&mut self, hosts: &[Option<Host>], slot: usize) {
        let block = slot / BLOCK;
        let bit = 1 << (slot % BLOCK);
        let host = hosts[slot].as_ref();
        let key = host.filter(|host| host.open && shortage(host.load, self.demand).is_none()).map(Host::key);
        let before = self.fit[block];
        match key {
            Some(key) if key <= self.best[block] => {
                self.fit[block] |= bit;
                self.best[block] = key;
            }
            Some(_) => self.fit[block] |= bit,
            None => self.fit[block] &= !bit,
        }
        // The host may have been its block's best and got worse. Only then all 64 are looked at again.
        let was_in = before & bit != 0;
        let is_best = key == Some(self.best[block]);
        if was_in && !is_best && self.lost_its_best(hosts, block, slot) {
            self.best[block] = least(hosts, block, self.fit[block]);
        }
    }

    /// Whether the block's best key can be that of the host in this slot as it was before.
    fn lost_its_best(&self, hosts: &[Option<Host>], block: usize, slot: usize) -> bool {
        match hosts[slot] {
            Some(host) => self.best[block].id == host.id,
            None => true,
        }
    }
}

fn least(hosts: &[Option<Host>], block: usize, bits: u64) -> Key {
    let mut least = NOBODY;
    let mut left = bits;
    while left != 0 {
        let slot = block * BLOCK + left.trailing_zeros() as usize;
        left &= left - 1;
        if let Some(host) = &hosts[slot] {
            least = least.min(host.key());
        }
    }
    least
}

/// Keeps the bits that are in at least one of the sets.
fn keep_only<'a>(mask: &mut Bits, sets: impl Iterator<Item = &'a BTreeSet<usize>>) {
    let mut kept = vec![0u64; mask.len()];
    for slot in sets.flatten() {
        kept[slot / BLOCK] |= 1 << (slot % BLOCK);
    }
    for (word, keep) in mask.iter_mut().zip(kept) {
        *word &= keep;
    }
}
