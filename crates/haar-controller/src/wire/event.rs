//! Changes of the books → events of `/v1/events`.
//!
//! Events are written before the books they tell of are published; names made in the same commit come
//! from the scribe. Counts that are derived (a hypervisor's guests, a subnet's addresses) are as of the
//! commit before. A large object is left out of its event.

use haar_api::v1::{EventView, FenceText};
use haar_core::fence::Fence;
use haar_core::fleet::Fleet;
use haar_core::fleet::change::{Change, Record};
use haar_core::id::Kind;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::look::{Fresh, Look};
use super::{Noun, config, flavor, fwgroup, guest, hypervisor, image, job, network, subnet, token};
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
}

impl Scribe {
    /// Another commit begins.
    pub(crate) fn clear(&mut self) {
        self.fresh.clear();
        self.made.clear();
        self.before.clear();
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
                    self.fresh.remove(&(*kind, *id));
                    self.before.remove(&(*kind, *id));
                }
                _ => {}
            }
        }
    }

    /// The event of one change of the decision noted last; cursors and blobs are the books' own matter.
    pub(crate) fn event(
        &self,
        change: &Change,
        fence: Fence,
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
            change: word.to_owned(),
            revision: FenceText(fence),
            object,
        };
        let written = raw(&view);
        if written.get().len() <= MOST_DATA {
            return Some(written);
        }
        view.object = None;
        Some(raw(&view))
    }
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
    match kind {
        Kind::Config => true,
        Kind::Token => fleet.token(id.into()).is_some(),
        Kind::Hypervisor => fleet.hypervisor(id.into()).is_some(),
        Kind::Image => fleet.image(id.into()).is_some(),
        Kind::Flavor => fleet.flavor(id.into()).is_some(),
        Kind::Network => fleet.network(id.into()).is_some(),
        Kind::Subnet => fleet.subnet(id.into()).is_some(),
        Kind::FwGroup => fleet.fwgroup(id.into()).is_some(),
        Kind::Guest => fleet.guest(id.into()).is_some(),
        Kind::Job => fleet.job(id.into()).is_some(),
    }
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
