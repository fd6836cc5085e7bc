//! The record: every thing a deployment made, is about to make, or found and uses.
//!
//! ```text
//!   plan ─▶ planned ─ made ─▶ made ─ leaving ─▶ leaving ─ gone ─▶ (no entry)
//!              └──────────────── gone: it was never made ────────────▲
//!   reuse ─▶ reused ──────────────── gone: we let go of it ───────────┘
//! ```
//!
//! An entry is only forgotten by [`Record::gone`], said by somebody who looked. What is reused belongs to
//! somebody else and is never listed for destruction. Unknown fields of the same version are ignored.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Entry, EntryId, Error, Kind, Phase, ServerDetails};
use crate::Result;
use crate::name::{DeploymentId, ResourceName, host_name};

/// Everything a deployment made, is about to make, or found and uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    provider: String,
    name: ResourceName,
    deployment: DeploymentId,
    /// Older programs did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    created_at: Timestamp,
    #[serde(default)]
    tearing_down_since: Option<Timestamp>,
    next_entry: u64,
    entries: Vec<Entry>,
    /// Facts of the provider that are no things: the fingerprint of the key, the address range.
    #[serde(default)]
    facts: BTreeMap<String, String>,
}

impl Record {
    pub(super) fn new(provider: &str, name: &ResourceName, deployment: DeploymentId, now: Timestamp) -> Self {
        Self {
            version: super::VERSION,
            provider: provider.to_owned(),
            name: name.clone(),
            deployment,
            place: None,
            created_at: now,
            tearing_down_since: None,
            next_entry: 1,
            entries: Vec::new(),
            facts: BTreeMap::new(),
        }
    }

    /// The provider's name.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The resource name.
    #[must_use]
    pub fn name(&self) -> &ResourceName {
        &self.name
    }

    /// The id that everything of it carries in the cloud.
    #[must_use]
    pub fn deployment(&self) -> DeploymentId {
        self.deployment
    }

    /// The cloud, and what of it, that everything of it is in; see
    /// [`Provider::place`](crate::Provider::place). `None` where that was not noted.
    #[must_use]
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// Notes where everything of it is, for good.
    pub(crate) fn set_place(&mut self, place: &str) {
        self.place.get_or_insert_with(|| place.to_owned());
    }

    /// What cannot be in a record that this crate wrote, and would mix up two things.
    pub(super) fn damage(&self) -> Option<String> {
        let mut seen = BTreeSet::new();
        let twice = self.entries.iter().find(|entry| !seen.insert(entry.id));
        if let Some(entry) = twice {
            return Some(format!("it has two entries with the number {}", entry.id.0));
        }
        let newest = seen.last().filter(|newest| newest.0 >= self.next_entry)?;
        Some(format!("its next entry would be {}, but it already has one {}", self.next_entry, newest.0))
    }

    /// Every entry, the oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Whether nothing is on record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// An entry by its number.
    #[must_use]
    pub fn entry(&self, id: EntryId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }

    /// An entry by kind and name, that is not being destroyed.
    #[must_use]
    pub fn find(&self, kind: Kind, name: &str) -> Option<&Entry> {
        let stays = |entry: &&Entry| !matches!(entry.phase, Phase::Leaving { .. });
        self.entries.iter().filter(stays).find(|entry| entry.kind == kind && entry.name == name)
    }

    /// What may exist in the cloud and has no id here: to be looked for by its name and our tag.
    pub fn unsettled(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.is_ours() && entry.cloud_id().is_none())
    }

    /// Everything of ours, in the order in which it can be destroyed.
    #[must_use]
    pub fn to_destroy(&self) -> Vec<&Entry> {
        let mut entries: Vec<&Entry> = self.entries.iter().filter(|entry| entry.is_ours()).collect();
        entries.sort_by_key(|entry| (entry.kind, entry.id));
        entries
    }

    /// The server with this host name, as its own operating system knows it.
    #[must_use]
    pub fn server_by_host_name(&self, host: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.kind == Kind::Server && host_name(&entry.name) == host)
    }

    /// Notes that something is about to be created. Asked twice for the same kind and name, it is the same
    /// entry: a retry is no second thing. One that is being destroyed does not count.
    ///
    /// # Errors
    /// [`Error::TearingDown`].
    pub fn plan(&mut self, kind: Kind, name: &str, now: Timestamp) -> Result<EntryId> {
        if self.tearing_down_since.is_some() {
            return Err(Error::TearingDown { name: self.name.to_string() }.into());
        }
        if let Some(entry) = self.find(kind, name) {
            return Ok(entry.id);
        }
        Ok(self.push(kind, name, Phase::Planned, now))
    }

    /// Notes something found that is used and not ours. Whoever says so has looked: another thing that was
    /// on record under this name is not there any more, and is forgotten.
    ///
    /// # Errors
    /// [`Error::TearingDown`].
    pub fn reuse(&mut self, kind: Kind, name: &str, cloud_id: &str, now: Timestamp) -> Result<EntryId> {
        let mut id = self.plan(kind, name, now)?;
        let known = self.entry(id).and_then(Entry::cloud_id);
        if known == Some(cloud_id) {
            return Ok(id);
        }
        if known.is_some() {
            self.gone(id);
            id = self.plan(kind, name, now)?;
        }
        if let Some(entry) = self.entry_mut(id) {
            entry.phase = Phase::Reused { cloud_id: cloud_id.to_owned() };
        }
        Ok(id)
    }

    /// Notes that it was created. Should it be leaving already, as a tear-down began meanwhile, it keeps
    /// leaving and now has an id to be destroyed by.
    ///
    /// # Errors
    /// [`Error::NoEntry`]: it was forgotten, and now exists; the caller destroys it.
    pub fn made(&mut self, id: EntryId, cloud_id: &str) -> Result<()> {
        let entry = self.entry_mut(id).ok_or(Error::NoEntry { id: id.0 })?;
        entry.phase = match entry.phase {
            Phase::Leaving { .. } => Phase::Leaving { cloud_id: Some(cloud_id.to_owned()) },
            _ => Phase::Made { cloud_id: cloud_id.to_owned() },
        };
        Ok(())
    }

    /// Notes something of ours that was found, and is not on record under this id: also beside an entry of
    /// the same name, which may be another thing.
    pub fn adopt(&mut self, kind: Kind, name: &str, cloud_id: &str, now: Timestamp) -> EntryId {
        self.push(kind, name, Phase::Made { cloud_id: cloud_id.to_owned() }, now)
    }

    /// Notes what is known of a server.
    ///
    /// # Errors
    /// [`Error::NoEntry`].
    pub fn describe_server(&mut self, id: EntryId, details: ServerDetails) -> Result<()> {
        self.entry_mut(id).ok_or(Error::NoEntry { id: id.0 })?.server = Some(details);
        Ok(())
    }

    /// Notes that it is about to be destroyed. What is not ours stays as it is.
    pub fn leaving(&mut self, id: EntryId) {
        if let Some(entry) = self.entry_mut(id).filter(|entry| entry.is_ours()) {
            entry.phase = Phase::Leaving { cloud_id: entry.cloud_id().map(str::to_owned) };
        }
    }

    /// Forgets an entry: the cloud said that it is not there, or we let go of what is not ours.
    pub fn gone(&mut self, id: EntryId) {
        self.entries.retain(|entry| entry.id != id);
    }

    /// Notes that everything is being torn down: nothing new is planned from now on.
    pub fn begin_tear_down(&mut self, now: Timestamp) {
        self.tearing_down_since.get_or_insert(now);
    }

    /// Whether it is being torn down.
    #[must_use]
    pub fn is_tearing_down(&self) -> bool {
        self.tearing_down_since.is_some()
    }

    /// Notes that a tear-down was given up, so that it can be deployed again: what is still on record is
    /// kept from now on, and the next deploy looks which of it is there.
    pub fn give_up_tear_down(&mut self) {
        self.tearing_down_since = None;
        for entry in &mut self.entries {
            entry.phase = match std::mem::replace(&mut entry.phase, Phase::Planned) {
                Phase::Leaving { cloud_id: Some(cloud_id) } => Phase::Made { cloud_id },
                Phase::Leaving { cloud_id: None } => Phase::Planned,
                stays => stays,
            };
        }
    }

    /// A fact that the provider noted.
    #[must_use]
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.facts.get(key).map(String::as_str)
    }

    /// Notes a fact.
    pub fn set_fact(&mut self, key: &str, value: &str) {
        self.facts.insert(key.to_owned(), value.to_owned());
    }

    fn push(&mut self, kind: Kind, name: &str, phase: Phase, since: Timestamp) -> EntryId {
        let id = EntryId(self.next_entry);
        self.next_entry += 1;
        self.entries.push(Entry { id, kind, name: name.to_owned(), phase, since, server: None });
        id
    }

    fn entry_mut(&mut self, id: EntryId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn record() -> Record {
        Record::new("openstack", &ResourceName::parse("a").unwrap(), DeploymentId::random(), NOW)
    }

    #[test]
    fn what_was_begun_and_not_finished_is_named() {
        let mut record = record();
        let network = record.plan(Kind::Network, "a", NOW).unwrap();
        let router = record.plan(Kind::Router, "a", NOW).unwrap();
        record.made(router, "r1").unwrap();
        let unsettled: Vec<EntryId> = record.unsettled().map(|entry| entry.id).collect();
        assert_eq!(unsettled, [network]);
        record.leaving(network);
        assert_eq!(record.unsettled().count(), 1, "still without an id, so still to be looked for");
    }

    #[test]
    fn a_plan_made_twice_is_one_thing() {
        let mut record = record();
        let first = record.plan(Kind::Network, "a", NOW).unwrap();
        record.made(first, "n1").unwrap();
        assert_eq!(record.plan(Kind::Network, "a", NOW).unwrap(), first);
        assert_eq!(record.entry(first).unwrap().cloud_id(), Some("n1"));
        record.gone(first);
        assert_ne!(record.plan(Kind::Network, "a", NOW).unwrap(), first, "a number is never used twice");
    }

    #[test]
    fn what_we_only_use_is_never_listed_for_destruction() {
        let mut record = record();
        let reused = record.reuse(Kind::Network, "theirs", "n9", NOW).unwrap();
        record.leaving(reused);
        assert!(record.to_destroy().is_empty());
        let made = record.plan(Kind::Router, "a", NOW).unwrap();
        record.made(made, "r1").unwrap();
        record.reuse(Kind::Router, "a", "r1", NOW).unwrap();
        assert_eq!(record.to_destroy().len(), 1, "found again, our own stays ours");
    }

    #[test]
    fn what_somebody_else_has_in_the_place_of_ours_is_what_is_used() {
        let mut record = record();
        let ours = record.plan(Kind::Network, "a", NOW).unwrap();
        record.made(ours, "n1").unwrap();
        for there in ["n2", "n3"] {
            let reused = record.reuse(Kind::Network, "a", there, NOW).unwrap();
            let entry = record.find(Kind::Network, "a").unwrap();
            assert_eq!((entry.id, entry.cloud_id(), entry.is_ours()), (reused, Some(there), false));
        }
        assert_eq!(record.entries().count(), 1);
    }

    #[test]
    fn things_are_destroyed_in_an_order_the_cloud_allows() {
        let mut record = record();
        for kind in [Kind::KeyPair, Kind::Network, Kind::Router, Kind::RouterInterface, Kind::Server] {
            record.plan(kind, "a", NOW).unwrap();
        }
        let kinds: Vec<Kind> = record.to_destroy().iter().map(|entry| entry.kind).collect();
        let order = [Kind::Server, Kind::RouterInterface, Kind::Router, Kind::Network, Kind::KeyPair];
        assert_eq!(kinds, order);
    }

    #[test]
    fn a_server_that_comes_while_all_is_torn_down_is_still_destroyed() {
        let mut record = record();
        let server = record.plan(Kind::Server, "a-1", NOW).unwrap();
        record.begin_tear_down(NOW);
        record.leaving(server);
        record.made(server, "s1").unwrap();
        assert_eq!(record.entry(server).unwrap().phase, Phase::Leaving { cloud_id: Some("s1".to_owned()) });
        assert!(record.plan(Kind::Server, "a-2", NOW).is_err());
        record.gone(server);
        assert!(record.made(server, "s1").is_err(), "who made what was forgotten is told so");
    }

    #[test]
    fn what_a_tear_down_left_over_is_kept_when_it_is_given_up() {
        let mut record = record();
        let network = record.plan(Kind::Network, "a", NOW).unwrap();
        record.made(network, "n1").unwrap();
        record.begin_tear_down(NOW);
        record.leaving(network);
        record.give_up_tear_down();
        assert_eq!(record.plan(Kind::Network, "a", NOW).unwrap(), network);
        assert_eq!(record.entry(network).unwrap().phase, Phase::Made { cloud_id: "n1".to_owned() });
    }

    #[test]
    fn something_new_of_a_name_is_not_taken_for_what_is_being_destroyed() {
        let mut record = record();
        let old = record.plan(Kind::FloatingIp, "a", NOW).unwrap();
        record.leaving(old);
        let new = record.plan(Kind::FloatingIp, "a", NOW).unwrap();
        record.made(new, "f2").unwrap();
        assert_ne!(old, new);
        assert_eq!(record.to_destroy().len(), 2);
    }

    #[test]
    fn a_server_is_found_by_the_name_it_gives_itself() {
        let mut record = record();
        let server = record.plan(Kind::Server, "wr-Foo_Bar-1", NOW).unwrap();
        assert_eq!(record.server_by_host_name("wr-foo-bar-1").unwrap().id, server);
        assert!(record.server_by_host_name("wr-Foo_Bar-1").is_none());
    }

    #[test]
    fn numbers_that_would_mix_up_two_things_are_damage() {
        let mut record = record();
        assert_eq!(record.damage(), None);
        record.plan(Kind::Network, "a", NOW).unwrap();
        record.plan(Kind::Router, "a", NOW).unwrap();
        assert_eq!(record.damage(), None);
        record.next_entry = 2;
        assert!(record.damage().unwrap().contains("next entry"));
        record.entries[1].id = record.entries[0].id;
        assert!(record.damage().unwrap().contains("two entries"));
    }

    #[test]
    fn a_record_of_version_1_can_be_read() {
        let golden = include_str!("../../tests/golden/state-v1.json");
        let record: Record = serde_json::from_str(golden).unwrap();
        assert_eq!(record.to_destroy().len(), 3);
        assert_eq!(record.unsettled().count(), 1);
        let again = format!("{}\n", serde_json::to_string_pretty(&record).unwrap());
        assert_eq!(again, golden, "what this version writes has changed: that needs version 2");
    }
}
