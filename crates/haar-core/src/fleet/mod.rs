//! The controller's brain: the books of the whole cloud as one plain value.
//!
//! [`Fleet::decide`] reads and may refuse; [`Fleet::apply`] changes and cannot fail; only an engine calls
//! the latter, after the decision is durable. Everything but the records themselves is derived by `apply`
//! and never stored: who uses what, free addresses, the placement index, jobs by deadline.
//! The rules are functions in the nouns' files here; this file only holds the books and hands out work.
//!
//! ```text
//! Command ─▶ decide ─▶ Decision { changes, effects, answer } ─▶ (commit) ─▶ apply ─▶ (act)
//!               └────▶ Refusal
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::ClusterConfig;
use crate::fence::{Fence, MonoMs, WallMs};
use crate::firewall::FwGroup;
use crate::flavor::Flavor;
use crate::guest::Guest;
use crate::hypervisor::Hypervisor;
use crate::id::{
    CloudId, FlavorId, FwGroupId, GuestId, HypervisorId, ImageId, JobId, Kind, NetworkId, SubnetId, TokenId,
};
use crate::image::Image;
use crate::job::Job;
use crate::network::{Network, Subnet};
use crate::schedule::board::Board;
use crate::token::Token;

pub mod change;
pub mod command;

pub mod capacity;
pub mod check;
mod view;

mod draft;
mod index;

mod action;
mod claim;
mod config;
mod desired;
mod flavor;
mod fwgroup;
mod guest;
mod hypervisor;
mod image;
mod job;
mod network;
mod placing;
mod report;
mod subnet;
mod token;

#[cfg(test)]
mod tests;

use change::{Change, Decision, Record};
use command::{Answer, Command, Decided, Env, Outcome};
use draft::{Draft, asked_again};
use index::Index;

/// The books of the whole cloud.
#[derive(Debug, Clone)]
pub struct Fleet {
    fence: Fence,
    config: Arc<ClusterConfig>,
    tokens: BTreeMap<TokenId, Arc<Token>>,
    hypervisors: BTreeMap<HypervisorId, Arc<Hypervisor>>,
    images: BTreeMap<ImageId, Arc<Image>>,
    flavors: BTreeMap<FlavorId, Arc<Flavor>>,
    networks: BTreeMap<NetworkId, Arc<Network>>,
    subnets: BTreeMap<SubnetId, Arc<Subnet>>,
    fwgroups: BTreeMap<FwGroupId, Arc<FwGroup>>,
    guests: BTreeMap<GuestId, Arc<Guest>>,
    jobs: BTreeMap<JobId, Arc<Job>>,
    index: Index,
    board: Board,
}

impl Fleet {
    /// Empty books of a new cloud, at fence (1, 0); its settings are not stored yet. For tests and worlds.
    pub fn new(cloud: CloudId) -> Fleet {
        let config =
            ClusterConfig { cloud, values: BTreeMap::new(), revision: 0, updated_at: WallMs::default() };
        Fleet {
            fence: Fence::new(1, 0),
            config: Arc::new(config),
            tokens: BTreeMap::new(),
            hypervisors: BTreeMap::new(),
            images: BTreeMap::new(),
            flavors: BTreeMap::new(),
            networks: BTreeMap::new(),
            subnets: BTreeMap::new(),
            fwgroups: BTreeMap::new(),
            guests: BTreeMap::new(),
            jobs: BTreeMap::new(),
            index: Index::default(),
            board: Board::default(),
        }
    }

    /// Books to load records into, at fence (0, 0): [`Fleet::restore`], then [`Fleet::restored`].
    pub fn empty() -> Fleet {
        Fleet { fence: Fence::default(), ..Fleet::new(CloudId(uuid::Uuid::nil())) }
    }

    /// The first decision of an empty store: the cloud's settings, and with them its id, at fence (1, 1).
    pub fn founding(cloud: CloudId, wall: WallMs) -> Decision {
        let fence = Fence::new(1, 1);
        let config =
            ClusterConfig { cloud, values: BTreeMap::new(), revision: fence.revision, updated_at: wall };
        Decision {
            fence,
            changes: vec![Change::Put(Record::Config(Arc::new(config)))],
            effects: Vec::new(),
            answer: Answer { kind: Kind::Config, id: cloud.0, outcome: Outcome::Created, job: None, fence },
        }
    }

    /// What comes of a command. Reads only: the same books, command and environment give the same answer,
    /// to the byte.
    ///
    /// # Errors
    /// A [`Refusal`](crate::refusal::Refusal) with the facts; nothing changed.
    pub fn decide(&self, command: &Command, env: &Env<'_>) -> Decided {
        let draft = Draft::new(self, env);
        match command {
            Command::CreateHypervisor(id, spec) => hypervisor::create(draft, *id, spec),
            Command::CreateFlavor(id, spec) => flavor::create(draft, *id, spec),
            Command::CreateImage(id, spec) => image::create(draft, *id, spec),
            Command::CreateNetwork(id, spec) => network::create(draft, *id, spec),
            Command::CreateSubnet(id, spec, gateway) => subnet::create(draft, *id, spec, *gateway),
            Command::CreateFwGroup(id, spec) => fwgroup::create(draft, *id, spec),
            Command::CreateToken { id, name, role, hash } => token::create(draft, *id, name, *role, hash),
            Command::CreateGuest(id, spec, blob) => guest::create(draft, *id, spec, blob.as_ref()),

            Command::SetHypervisor(id, spec, if_match) => hypervisor::set(draft, *id, spec, *if_match),
            Command::SetFlavor(id, spec, if_match) => flavor::set(draft, *id, spec, *if_match),
            Command::SetImage(id, spec, if_match) => image::set(draft, *id, spec, *if_match),
            Command::SetNetwork(id, spec, if_match) => network::set(draft, *id, spec, *if_match),
            Command::SetSubnet(id, spec, if_match) => subnet::set(draft, *id, spec, *if_match),
            Command::SetFwGroup(id, spec, if_match) => fwgroup::set(draft, *id, spec, *if_match),
            Command::SetGuest(id, patch, if_match) => guest::set(draft, *id, patch, *if_match),
            Command::SetConfig(values, if_match) => config::set(draft, values, *if_match),
            Command::ImageReady(id, data) => image::ready(draft, *id, data),

            Command::Delete(kind, id, if_match) => match kind {
                Kind::Hypervisor => hypervisor::delete(draft, (*id).into(), *if_match),
                Kind::Flavor => flavor::delete(draft, (*id).into(), *if_match),
                Kind::Image => image::delete(draft, (*id).into(), *if_match),
                Kind::Network => network::delete(draft, (*id).into(), *if_match),
                Kind::Subnet => subnet::delete(draft, (*id).into(), *if_match),
                Kind::FwGroup => fwgroup::delete(draft, (*id).into(), *if_match),
                Kind::Token => token::delete(draft, (*id).into(), *if_match),
                Kind::Guest => action::delete(draft, (*id).into(), *if_match),
                Kind::Config | Kind::Job => Err(draft::bad_field(
                    "kind",
                    format!(
                        "a {kind} cannot be deleted; settings are removed by an empty value, jobs go by themselves"
                    ),
                )),
            },

            Command::Act(id, action, if_match) => action::act(draft, *id, *action, *if_match),
            Command::RetryJob(id) => action::retry(draft, *id),

            Command::Hello(hello) => hypervisor::hello(draft, hello),
            Command::Report(report) => report::take(draft, report),
            Command::Overdue(id, due) => job::overdue(draft, *id, *due),
            Command::DeclareLost(id) => hypervisor::declare_lost(draft, *id),
            Command::BeginEpoch(least) => config::begin_epoch(draft, *least),
        }
    }

    /// Takes a decision that is durable. Cannot fail; a decision without changes changes nothing.
    pub fn apply(&mut self, decision: &Decision) {
        if decision.changes.is_empty() {
            return;
        }
        let new_epoch = decision.fence.epoch != self.fence.epoch;
        self.fence = decision.fence;
        for change in &decision.changes {
            self.change(change);
        }
        if new_epoch {
            self.begin_epoch();
        }
    }

    /// Loads one stored record; any order will do.
    pub fn restore(&mut self, record: Record) {
        self.put(record);
    }

    /// Loads the last address handed out of a subnet; one of a subnet that is no more is forgotten.
    pub fn restore_cursor(&mut self, subnet: SubnetId, address: IpAddr) {
        self.index.pool_mut(subnet).set_cursor(address);
    }

    /// Ends the loading: these records are the books as of `fence`. Deadlines of open jobs begin anew.
    pub fn restored(&mut self, fence: Fence, now: MonoMs) {
        self.fence = fence;
        self.begin_epoch();
        let due = now.after(self.config.job_step_ms());
        let open: Vec<JobId> =
            self.jobs.values().filter(|job| !job.status.ended()).map(|job| job.id).collect();
        for id in open {
            let Some(job) = self.jobs.get(&id) else { continue };
            let renewed = Arc::new(Job { due, ..Job::clone(job) });
            self.put(Record::Job(renewed));
        }
        self.index.pools.retain(|_, pool| !pool.is_idle());
        self.index.desired.clear(fence.revision);
    }

    /// What depends on the present epoch is derived anew.
    fn begin_epoch(&mut self) {
        self.index.desired.all_changed(self.fence.revision);
        self.index.unheard.clear();
        let records: Vec<Arc<Hypervisor>> = self.hypervisors.values().cloned().collect();
        for record in records {
            self.note_hypervisor(Some(&record), &record);
        }
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Put(record) => self.put(record.clone()),
            Change::Delete(kind, id) => self.delete(*kind, *id),
            Change::Cursor(subnet, address) => self.index.pool_mut(*subnet).set_cursor(*address),
            // Blobs lie beside the books; who refers to them follows from the guests.
            Change::PutBlob(_) | Change::DropBlob(_) => {}
        }
    }

    fn put(&mut self, record: Record) {
        let revision = self.fence.revision;
        match record {
            Record::Config(config) => self.put_config(config),
            Record::Token(token) => {
                let before = self.tokens.insert(token.id, Arc::clone(&token));
                self.index.token_changed(before.as_deref(), Some(&token));
            }
            Record::Hypervisor(hypervisor) => {
                let before = self.hypervisors.insert(hypervisor.id, Arc::clone(&hypervisor));
                self.index.hypervisor_changed(before.as_deref(), Some(&hypervisor), revision);
                self.note_hypervisor(before.as_deref(), &hypervisor);
            }
            Record::Image(image) => {
                let before = self.images.insert(image.id, Arc::clone(&image));
                self.index.image_changed(before.as_deref(), Some(&image), revision);
            }
            Record::Flavor(flavor) => {
                let before = self.flavors.insert(flavor.id, Arc::clone(&flavor));
                self.index.flavor_changed(before.as_deref(), Some(&flavor));
                self.note_flavor(before.as_deref(), Some(&flavor));
            }
            Record::Network(network) => {
                let before = self.networks.insert(network.id, Arc::clone(&network));
                self.index.network_changed(before.as_deref(), Some(&network), revision);
            }
            Record::Subnet(subnet) => {
                let before = self.subnets.insert(subnet.id, Arc::clone(&subnet));
                self.index.subnet_changed(before.as_deref(), Some(&subnet), revision);
            }
            Record::FwGroup(fwgroup) => {
                let before = self.fwgroups.insert(fwgroup.id, Arc::clone(&fwgroup));
                self.index.fwgroup_changed(before.as_deref(), Some(&fwgroup));
            }
            Record::Guest(guest) => {
                let before = self.guests.insert(guest.id, Arc::clone(&guest));
                self.note_guest(before.as_deref(), Some(&guest));
            }
            Record::Job(job) => {
                let before = self.jobs.insert(job.id, Arc::clone(&job));
                if let Some(hypervisor) = asked_again(before.as_deref(), &job) {
                    // Its set says nothing new, and is sent all the same: whoever lost it gets it again.
                    self.index.desired.changed(hypervisor, revision);
                }
                let wanted = self.guests.get(&job.guest).is_some_and(|guest| guest.job == Some(job.id));
                self.index.job_changed(before.as_deref(), Some(&job), wanted);
            }
        }
    }

    fn delete(&mut self, kind: Kind, id: uuid::Uuid) {
        let revision = self.fence.revision;
        match kind {
            Kind::Config => {}
            Kind::Token => {
                let before = self.tokens.remove(&id.into());
                self.index.token_changed(before.as_deref(), None);
            }
            Kind::Hypervisor => {
                if let Some(before) = self.hypervisors.remove(&id.into()) {
                    self.index.hypervisor_changed(Some(&before), None, revision);
                    if self.index.unheard.remove(&before.id) {
                        self.index.desired.all_changed(revision);
                    }
                    self.board.remove(&before);
                }
            }
            Kind::Image => {
                let before = self.images.remove(&id.into());
                self.index.image_changed(before.as_deref(), None, revision);
            }
            Kind::Flavor => {
                let before = self.flavors.remove(&id.into());
                self.index.flavor_changed(before.as_deref(), None);
                self.note_flavor(before.as_deref(), None);
            }
            Kind::Network => {
                let before = self.networks.remove(&id.into());
                self.index.network_changed(before.as_deref(), None, revision);
            }
            Kind::Subnet => {
                let before = self.subnets.remove(&id.into());
                self.index.subnet_changed(before.as_deref(), None, revision);
            }
            Kind::FwGroup => {
                let before = self.fwgroups.remove(&id.into());
                self.index.fwgroup_changed(before.as_deref(), None);
            }
            Kind::Guest => {
                let before = self.guests.remove(&id.into());
                self.note_guest(before.as_deref(), None);
            }
            Kind::Job => {
                let before = self.jobs.remove(&id.into());
                self.index.job_changed(before.as_deref(), None, false);
            }
        }
    }

    /// Overcommit may have changed, and with it what every hypervisor may promise.
    fn put_config(&mut self, config: Arc<ClusterConfig>) {
        let before = std::mem::replace(&mut self.config, config);
        if before.overcommit() == self.config.overcommit() {
            return;
        }
        let records: Vec<Arc<Hypervisor>> = self.hypervisors.values().cloned().collect();
        for record in records {
            self.note_hypervisor(Some(&record), &record);
        }
    }

    fn note_hypervisor(&mut self, before: Option<&Hypervisor>, record: &Hypervisor) {
        if record.known_epoch == self.fence.epoch {
            if self.index.unheard.remove(&record.id) {
                // What was withheld for its sake is ordered now.
                self.index.desired.all_changed(self.fence.revision);
            }
        } else {
            self.index.unheard.insert(record.id);
        }
        let load = self.load_of(record);
        self.board.put(before, record, load, self.fence.epoch);
    }

    fn note_flavor(&mut self, before: Option<&Flavor>, now: Option<&Flavor>) {
        let (old, new) =
            (before.map(|flavor| flavor.spec.resources), now.map(|flavor| flavor.spec.resources));
        if old == new {
            return;
        }
        if let Some(demand) = new {
            self.board.add_demand(demand);
        }
        if let Some(demand) = old {
            self.board.drop_demand(demand);
        }
    }

    fn note_guest(&mut self, before: Option<&Guest>, now: Option<&Guest>) {
        let touched = self.index.guest_changed(before, now, self.fence.revision);
        for hypervisor in touched.into_iter().flatten() {
            self.board.set_used(hypervisor, self.index.used(hypervisor));
        }
        let (old, new) = (before.and_then(|guest| guest.job), now.and_then(|guest| guest.job));
        if old == new {
            return;
        }
        for (id, wanted) in [(old, false), (new, true)] {
            if let Some(job) = id.and_then(|id| self.jobs.get(&id)) {
                self.index.job_wanted(job, wanted);
            }
        }
    }
}
