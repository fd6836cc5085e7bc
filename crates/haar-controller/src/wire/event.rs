//! Changes of the books → events of `/v1/events`.
//!
//! Events are written before the books they tell of are published; names made in the same commit come
//! from the scribe. Counts that are derived (a hypervisor's guests, a subnet's addresses) are as of the
//! commit before, so that no change of one is told. A large object is left out of its event. Which fields a change
//! touched is read off the two objects as shown.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use haar_api::v1::{EventView, FenceText};
use haar_core::fence::{Fence, WallMs};
use haar_core::fleet::Fleet;
use haar_core::fleet::change::{Change, Record};
use haar_core::id::Kind;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::look::{Fresh, Look};
use super::{Noun, config, flavor, fwgroup, guest, hypervisor, image, job, network, subnet, time, token};
use crate::events::MOST_DATA;
use crate::liveness::Liveness;

/// Writes the events of one commit.
#[derive(Debug, Default)]
pub(crate) struct Scribe {
    fresh: Fresh,
    /// What this commit has made, so that its next change is no second making.
    made: std::collections::HashSet<(Kind, Uuid)>,
    /// The last decision noted; a later one has other makings.
    before: std::collections::HashSet<(Kind, Uuid)>,
    /// What this commit has made or changed, as its last event showed it.
    shown: HashMap<(Kind, Uuid), Value>,
    /// Names of what this commit has deleted, where the published books have another or none.
    gone: Fresh,
}

impl Scribe {
    /// Another commit begins.
    pub(crate) fn clear(&mut self) {
        self.fresh.clear();
        self.made.clear();
        self.before.clear();
        self.shown.clear();
        self.gone.clear();
    }

    /// Takes notice of one decision's changes, in the order of the decisions.
    pub(crate) fn note(&mut self, changes: &[Change]) {
        self.before.extend(self.made.drain());
        for change in changes {
            match change {
                Change::Put(record) => {
                    let key = (record.kind(), record.id());
                    if let Some(name) = name(record) {
                        self.fresh.insert(key, name);
                    }
                    self.made.insert(key);
                }
                Change::Delete(kind, id) => {
                    let key = (*kind, *id);
                    self.gone.extend(self.fresh.remove(&key).map(|name| (key, name)));
                    self.before.remove(&key);
                    self.shown.remove(&key);
                }
                _ => {}
            }
        }
    }

    /// The event of one change of the decision noted last, made at `at`; cursors and blobs are the books' own matter.
    pub(crate) fn event(
        &mut self,
        change: &Change,
        (fence, at): (Fence, WallMs),
        fleet: &Fleet,
        liveness: &Liveness,
    ) -> Option<Box<RawValue>> {
        let look = Look { fleet, liveness, fresh: Some(&self.fresh) };
        let (kind, id, object) = match change {
            Change::Put(record) => (record.kind(), record.id(), Some(object(record, &look))),
            Change::Delete(kind, id) => (*kind, *id, None),
            Change::Cursor(..) | Change::PutBlob(_) | Change::DropBlob(_) => return None,
        };
        let known = self.before.contains(&(kind, id)) || is_published(fleet, kind, id);
        let word = match (&object, known) {
            (None, _) => "deleted",
            (Some(_), false) => "created",
            (Some(_), true) => "changed",
        };
        let mut view = EventView {
            kind: kind.to_string(),
            id,
            name: self.name(change, kind, id, &look),
            change: word.to_owned(),
            fields: object
                .as_ref()
                .map(|object| self.fields(kind, id, object, fleet, liveness))
                .unwrap_or_default(),
            at: Some(time(at)),
            revision: FenceText(fence),
            object,
        };
        let written = raw(&view);
        let object = view.object.take();
        self.shown.extend(object.map(|object| ((kind, id), object)));
        Some(if written.get().len() <= MOST_DATA { written } else { raw(&view) })
    }

    /// The name of what changed; a job has its guest's.
    fn name(&self, change: &Change, kind: Kind, id: Uuid, look: &Look<'_>) -> Option<String> {
        let name = match change {
            Change::Put(Record::Job(job)) => job.guest_name.to_string(),
            Change::Put(record) => name(record)?,
            _ => match self.gone.get(&(kind, id)) {
                Some(name) => name.clone(),
                None if kind == Kind::Job => look.fleet.job(id.into())?.guest_name.to_string(),
                None => look.name(kind, id),
            },
        };
        Some(name).filter(|name| !name.is_empty())
    }

    /// The fields in which an object is otherwise than it was shown last.
    fn fields(
        &self,
        kind: Kind,
        id: Uuid,
        object: &Value,
        fleet: &Fleet,
        liveness: &Liveness,
    ) -> Vec<String> {
        if let Some(shown) = self.shown.get(&(kind, id)) {
            return changed(shown, object);
        }
        let before = published(fleet, kind, id);
        let before = before.map(|record| self::object(&record, &Look::new(fleet, liveness)));
        before.map(|before| changed(&before, object)).unwrap_or_default()
    }
}

/// The fields in which two objects differ, but for those that every change touches.
fn changed(before: &Value, after: &Value) -> Vec<String> {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else { return Vec::new() };
    let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let told = all.into_iter().filter(|field| !matches!(field.as_str(), "revision" | "updated_at"));
    told.filter(|field| before.get(*field) != after.get(*field)).cloned().collect()
}

fn raw(view: &EventView) -> Box<RawValue> {
    to_raw_value(view).expect("a view has string keys and serialises into memory, which does not fail")
}

fn name(record: &Record) -> Option<String> {
    let name = match record {
        Record::Config(_) | Record::Job(_) => return None,
        Record::Token(record) => &record.name,
        Record::Hypervisor(record) => &record.spec.name,
        Record::Image(record) => &record.spec.name,
        Record::Flavor(record) => &record.spec.name,
        Record::Network(record) => &record.spec.name,
        Record::Subnet(record) => &record.spec.name,
        Record::FwGroup(record) => &record.spec.name,
        Record::Guest(record) => &record.spec.name,
    };
    Some(name.to_string())
}

fn is_published(fleet: &Fleet, kind: Kind, id: Uuid) -> bool {
    published(fleet, kind, id).is_some()
}

/// A record as the published books have it.
fn published(fleet: &Fleet, kind: Kind, id: Uuid) -> Option<Record> {
    Some(match kind {
        Kind::Config => Record::Config(Arc::new(fleet.config().clone())),
        Kind::Token => Record::Token(Arc::clone(fleet.token(id.into())?)),
        Kind::Hypervisor => Record::Hypervisor(Arc::clone(fleet.hypervisor(id.into())?)),
        Kind::Image => Record::Image(Arc::clone(fleet.image(id.into())?)),
        Kind::Flavor => Record::Flavor(Arc::clone(fleet.flavor(id.into())?)),
        Kind::Network => Record::Network(Arc::clone(fleet.network(id.into())?)),
        Kind::Subnet => Record::Subnet(Arc::clone(fleet.subnet(id.into())?)),
        Kind::FwGroup => Record::FwGroup(Arc::clone(fleet.fwgroup(id.into())?)),
        Kind::Guest => Record::Guest(Arc::clone(fleet.guest(id.into())?)),
        Kind::Job => Record::Job(Arc::clone(fleet.job(id.into())?)),
    })
}

/// A record as its own path shows it.
fn object(record: &Record, look: &Look<'_>) -> Value {
    let shown = match record {
        Record::Config(record) => serde_json::to_value(config::view(record)),
        Record::Token(record) => serde_json::to_value(token::Tokens::view(record, look)),
        Record::Hypervisor(record) => serde_json::to_value(hypervisor::Hypervisors::view(record, look)),
        Record::Image(record) => serde_json::to_value(image::Images::view(record, look)),
        Record::Flavor(record) => serde_json::to_value(flavor::Flavors::view(record, look)),
        Record::Network(record) => serde_json::to_value(network::Networks::view(record, look)),
        Record::Subnet(record) => serde_json::to_value(subnet::Subnets::view(record, look)),
        Record::FwGroup(record) => serde_json::to_value(fwgroup::FwGroups::view(record, look)),
        Record::Guest(record) => serde_json::to_value(guest::Guests::view(record, look)),
        Record::Job(record) => serde_json::to_value(job::Jobs::view(record, look)),
    };
    shown.expect("a view has string keys and serialises into memory, which does not fail")
}
