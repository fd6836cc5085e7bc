//! A decision in the making: the books as they are, the changes so far on top, and the next fence.
//!
//! Everything a rule must not forget is done in one place when the draft is finished: waking hypervisors
//! and waiting clients, dropping blobs nobody refers to any more, and forgetting old jobs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::Fleet;
use super::change::{Change, Decision, Effect, Record};
use super::command::{Answer, Env, Outcome};
use crate::fence::{Fence, Revision};
use crate::guest::Guest;
use crate::id::{GuestId, HypervisorId, JobId, Kind, NetworkId, SubnetId};
use crate::job::Job;
use crate::name::Name;
use crate::network::{Network, SubnetSpec};
use crate::refusal::Refusal;

/// Ended jobs kept besides each guest's last one.
pub(super) const MOST_SPARE_JOBS: usize = 10_000;

/// See the file's head.
pub(super) struct Draft<'a> {
    /// The books as they are.
    pub(super) fleet: &'a Fleet,
    /// Time, lots and liveness.
    pub(super) env: &'a Env<'a>,
    /// The fence of this decision, if it changes anything.
    pub(super) fence: Fence,
    changes: Vec<Change>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(fleet: &'a Fleet, env: &'a Env<'a>) -> Draft<'a> {
        let fence = Fence::new(fleet.fence.epoch, fleet.fence.revision + 1);
        Draft { fleet, env, fence, changes: Vec::new() }
    }

    /// The revision of this decision, if it changes anything.
    pub(super) fn revision(&self) -> Revision {
        self.fence.revision
    }

    /// Adds a change; of the same record the last one counts.
    pub(super) fn put(&mut self, record: Record) {
        let (kind, id) = (record.kind(), record.id());
        let same = |change: &&mut Change| matches!(change, Change::Put(present) if present.kind() == kind && present.id() == id);
        match self.changes.iter_mut().find(same) {
            Some(change) => *change = Change::Put(record),
            None => self.changes.push(Change::Put(record)),
        }
    }

    /// Adds a guest as it shall be, unless it is so already.
    pub(super) fn put_guest(&mut self, guest: Guest) {
        if self.guest(guest.id) != Some(&guest) {
            self.put(Record::Guest(Arc::new(guest)));
        }
    }

    /// Adds a job as it shall be, unless it is so already.
    pub(super) fn put_job(&mut self, job: Job) {
        if self.job(job.id) != Some(&job) {
            self.put(Record::Job(Arc::new(job)));
        }
    }

    /// Adds any other change.
    pub(super) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Removes a guest's record.
    pub(super) fn remove_guest(&mut self, id: GuestId) {
        self.changes.retain(|change| {
            !matches!(change, Change::Put(record) if record.kind() == Kind::Guest && record.id() == id.0)
        });
        if self.fleet.guests.contains_key(&id) {
            self.changes.push(Change::Delete(Kind::Guest, id.0));
        }
    }

    /// A guest as it is with the changes so far.
    pub(super) fn guest(&self, id: GuestId) -> Option<&Guest> {
        for change in &self.changes {
            match change {
                Change::Put(Record::Guest(guest)) if guest.id == id => return Some(guest),
                Change::Delete(Kind::Guest, gone) if *gone == id.0 => return None,
                _ => {}
            }
        }
        self.fleet.guests.get(&id).map(AsRef::as_ref)
    }

    /// A job as it is with the changes so far.
    pub(super) fn job(&self, id: JobId) -> Option<&Job> {
        let changed = self.changes.iter().find_map(|change| match change {
            Change::Put(Record::Job(job)) if job.id == id => Some(job.as_ref()),
            _ => None,
        });
        changed.or_else(|| self.fleet.jobs.get(&id).map(AsRef::as_ref))
    }

    /// The job a guest waits for, if it has not ended.
    pub(super) fn open_job(&self, guest: &Guest) -> Option<&Job> {
        guest.job.and_then(|id| self.job(id)).filter(|job| !job.status.ended())
    }

    /// The guests changed so far.
    pub(super) fn changed_guests(&self) -> impl Iterator<Item = &Guest> {
        self.changes.iter().filter_map(|change| match change {
            Change::Put(Record::Guest(guest)) => Some(guest.as_ref()),
            _ => None,
        })
    }

    /// A new job's id, from the command's lot.
    pub(super) fn new_job_id(&self) -> JobId {
        let mut lot = self.env.lot;
        loop {
            let id = JobId(uuid::Builder::from_random_bytes(lot.to_be_bytes()).into_uuid());
            if self.job(id).is_none() {
                return id;
            }
            lot = lot.wrapping_add(1);
        }
    }

    /// Refuses a name that another record of this kind and project has.
    pub(super) fn name_is_free(
        &self,
        kind: Kind,
        id: Uuid,
        project: &Name,
        name: &Name,
    ) -> Result<(), Refusal> {
        match self.fleet.index.find(kind, project, name) {
            Some(holder) if holder != id => {
                Err(Refusal::NameTaken { kind, name: name.clone(), project: project.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Ends the draft.
    pub(super) fn finish(mut self, kind: Kind, id: Uuid, outcome: Outcome, job: Option<JobId>) -> Decision {
        self.drop_blobs();
        self.forget_jobs();
        let fence = if self.changes.is_empty() { self.fleet.fence } else { self.fence };
        let effects = self.effects();
        let answer = Answer { kind, id, outcome, job, fence };
        Decision { fence, changes: self.changes, effects, answer }
    }

    /// Ends a draft that changed nothing or something.
    pub(super) fn finish_as_it_is(self, kind: Kind, id: Uuid) -> Decision {
        let outcome = if self.changes.is_empty() { Outcome::Same } else { Outcome::Changed };
        self.finish(kind, id, outcome, None)
    }

    fn drop_blobs(&mut self) {
        let mut gone: BTreeMap<String, u32> = BTreeMap::new();
        for change in &self.changes {
            let Change::Delete(Kind::Guest, id) = change else { continue };
            let guest = self.fleet.guests.get(&GuestId(*id));
            if let Some(hash) = guest.and_then(|guest| guest.spec.user_data.clone()) {
                *gone.entry(hash).or_default() += 1;
            }
        }
        for (hash, users) in gone {
            if self.fleet.index.blobs.get(&hash) == Some(&users) {
                self.changes.push(Change::DropBlob(hash));
            }
        }
    }

    /// Each decision that begins a job forgets up to two of the oldest ended ones beyond the limit.
    fn forget_jobs(&mut self) {
        let spare = &self.fleet.index.spare_jobs;
        let begins = self.changes.iter().any(|change| {
            matches!(change, Change::Put(Record::Job(job)) if !self.fleet.jobs.contains_key(&job.id))
        });
        if begins && spare.len() > MOST_SPARE_JOBS {
            for (_, job) in spare.iter().take(2) {
                self.changes.push(Change::Delete(Kind::Job, job.0));
            }
        }
    }

    fn effects(&self) -> Vec<Effect> {
        let (mut effects, mut known) = (Vec::new(), BTreeSet::new());
        let mut wake = |effect: Effect| {
            if known.insert(effect) {
                effects.push(effect);
            }
        };
        for change in &self.changes {
            for hypervisor in self.hosts_touched(change) {
                wake(Effect::WakeHypervisor(hypervisor));
            }
            if let Change::Put(Record::Job(job)) = change {
                wake(Effect::WakeJob(job.id));
            }
        }
        for change in &self.changes {
            let Change::Put(Record::Job(job)) = change else { continue };
            if let Some(hypervisor) = asked_again(self.fleet.jobs.get(&job.id).map(AsRef::as_ref), job) {
                wake(Effect::WakeHypervisor(hypervisor));
            }
        }
        effects
    }

    /// The hypervisors whose desired set a change touches.
    fn hosts_touched(&self, change: &Change) -> Vec<HypervisorId> {
        let fleet = self.fleet;
        match change {
            Change::Put(Record::Guest(guest)) => {
                newly_ordered(fleet.guests.get(&guest.id).map(AsRef::as_ref), guest)
            }
            Change::Delete(Kind::Guest, id) => {
                let place = fleet.guests.get(&GuestId(*id)).and_then(|guest| guest.place);
                place.map(|place| place.hypervisor).into_iter().collect()
            }
            Change::Put(Record::Hypervisor(record)) => {
                let before = fleet.hypervisors.get(&record.id);
                let lists_others = before.is_some_and(|before| before.spec.subnets != record.spec.subnets);
                lists_others.then_some(record.id).into_iter().collect()
            }
            Change::Put(Record::Network(network)) => {
                let ordered = |network: &Network| (network.spec.nat, network.spec.reach);
                let before = fleet.networks.get(&network.id);
                if before.is_some_and(|before| ordered(before) == ordered(network)) {
                    return Vec::new();
                }
                self.hosts_of(network.id)
            }
            Change::Put(Record::Subnet(subnet)) => {
                let before = fleet.subnets.get(&subnet.id);
                if before.is_some_and(|before| is_ordered_alike(&before.spec, &subnet.spec)) {
                    return Vec::new();
                }
                self.hosts_of(subnet.spec.network)
            }
            Change::Delete(Kind::Subnet, id) => fleet
                .subnets
                .get(&SubnetId(*id))
                .map(|subnet| self.hosts_of(subnet.spec.network))
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// The hypervisors with guests of a network: its bridges, gateways and NAT are among their orders.
    fn hosts_of(&self, network: NetworkId) -> Vec<HypervisorId> {
        let fleet = self.fleet;
        let Some(members) = fleet.index.of_network.get(&network) else { return Vec::new() };
        let hosts = fleet.index.on_hypervisor.iter();
        hosts
            .filter(|(_, guests)| guests.iter().any(|id| members.contains(id)))
            .map(|(host, _)| *host)
            .collect()
    }
}

/// Whether two subnets mean the same to a hypervisor.
fn is_ordered_alike(one: &SubnetSpec, other: &SubnetSpec) -> bool {
    let ordered = |spec: &SubnetSpec| (spec.network, spec.cidr, spec.gateway);
    ordered(one) == ordered(other) && one.dns == other.dns
}

/// The hypervisor whose overdue step this change of a job asks for once more.
pub(super) fn asked_again(before: Option<&Job>, now: &Job) -> Option<HypervisorId> {
    let is_asked = !now.status.ended() && before.is_some_and(|before| now.tries > before.tries);
    is_asked.then_some(now.hypervisor)?
}

/// The hypervisors whose desired set this change of a guest touches.
fn newly_ordered(before: Option<&Guest>, now: &Guest) -> Vec<HypervisorId> {
    let seen = |guest: &Guest| (guest.place, guest.order);
    if before.map(seen) == Some(seen(now)) {
        return Vec::new();
    }
    let places = [before.and_then(|guest| guest.place), now.place];
    let mut hypervisors: Vec<HypervisorId> =
        places.into_iter().flatten().map(|place| place.hypervisor).collect();
    hypervisors.dedup();
    hypervisors
}

/// A refusal of one field.
pub(super) fn bad_field(field: &'static str, problem: impl Into<String>) -> Refusal {
    Refusal::BadField { field, problem: problem.into() }
}

/// A refusal for what is not there.
pub(super) fn not_found(kind: Kind, id: impl std::fmt::Display) -> Refusal {
    Refusal::NotFound { kind, reference: id.to_string(), closest: None }
}

/// Refuses when the caller knows another revision than the present one.
pub(super) fn is_current(
    kind: Kind,
    name: &Name,
    found: Revision,
    if_match: Option<Revision>,
) -> Result<(), Refusal> {
    match if_match {
        Some(expected) if expected != found => {
            Err(Refusal::Stale { kind, reference: name.to_string(), expected, found })
        }
        _ => Ok(()),
    }
}

/// Refuses when anybody is named; the first three are.
pub(super) fn unused(
    kind: Kind,
    name: &Name,
    users: impl Iterator<Item = (Kind, Name)>,
) -> Result<(), Refusal> {
    let mut first = Vec::new();
    let mut more = 0;
    for (user_kind, user) in users {
        if first.len() < 3 {
            first.push(format!("{user_kind} `{user}`"));
        } else {
            more += 1;
        }
    }
    if first.is_empty() {
        return Ok(());
    }
    Err(Refusal::InUse { kind, reference: name.to_string(), users: first, more })
}

/// Refuses labels nobody could work with.
pub(super) fn check_labels(field: &'static str, labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > 64 {
        return Err(bad_field(field, format!("{} labels; at most 64 are allowed", labels.len())));
    }
    for (key, value) in labels {
        let plain = |text: &str| !text.chars().any(char::is_control);
        if key.is_empty() || key.len() > 128 || !plain(key) {
            return Err(bad_field(field, format!("the key {key:?} must have 1 to 128 printable characters")));
        }
        if value.len() > 1024 || !plain(value) {
            return Err(bad_field(
                field,
                format!("the value of `{key}` must have at most 1024 printable characters"),
            ));
        }
    }
    Ok(())
}

/// The words of the fields in which two specs differ.
macro_rules! differing {
    ($left:expr, $right:expr; $($field:ident => $word:literal),* $(,)?) => {{
        let (left, right) = ($left, $right);
        let mut words: Vec<&'static str> = Vec::new();
        $(if left.$field != right.$field { words.push($word); })*
        words
    }};
}
pub(super) use differing;

/// What a create of an id that exists comes to: the same again, or a refusal naming the fields.
pub(super) fn created_again(
    draft: Draft<'_>,
    kind: Kind,
    id: Uuid,
    name: &Name,
    fields: Vec<&'static str>,
) -> Result<Decision, Refusal> {
    if fields.is_empty() {
        return Ok(draft.finish(kind, id, Outcome::Same, None));
    }
    Err(Refusal::Differs { kind, reference: name.to_string(), fields })
}
