//! Firewall groups: make, change, remove.

use std::sync::Arc;

use super::change::{Change, Record};
use super::command::{Decided, Outcome};
use super::draft::{Draft, check_labels, created_again, differing, is_current, not_found, unused};
use crate::fence::Revision;
use crate::firewall::{FwGroup, FwGroupSpec, check_rules};
use crate::id::{FwGroupId, Kind};
use crate::refusal::Refusal;

pub(super) fn create(mut draft: Draft<'_>, id: FwGroupId, spec: &FwGroupSpec) -> Decided {
    if let Some(present) = draft.fleet.fwgroup(id) {
        let name = present.spec.name.clone();
        let fields = differing!(&present.spec, spec; name => "name", project => "project",
            metadata => "metadata", rules => "rules");
        return created_again(draft, Kind::FwGroup, id.0, &name, fields);
    }
    check(&draft, id, spec)?;
    let wall = draft.env.wall;
    draft.put(Record::FwGroup(Arc::new(FwGroup {
        id,
        spec: spec.clone(),
        revision: draft.revision(),
        created_at: wall,
        updated_at: wall,
    })));
    Ok(draft.finish(Kind::FwGroup, id.0, Outcome::Created, None))
}

pub(super) fn set(
    mut draft: Draft<'_>,
    id: FwGroupId,
    spec: &FwGroupSpec,
    if_match: Option<Revision>,
) -> Decided {
    let present = draft.fleet.fwgroup(id).ok_or_else(|| not_found(Kind::FwGroup, id))?;
    is_current(Kind::FwGroup, &present.spec.name, present.revision, if_match)?;
    check(&draft, id, spec)?;
    if present.spec != *spec {
        let changed = FwGroup {
            spec: spec.clone(),
            revision: draft.revision(),
            updated_at: draft.env.wall,
            ..FwGroup::clone(present)
        };
        draft.put(Record::FwGroup(Arc::new(changed)));
    }
    Ok(draft.finish_as_it_is(Kind::FwGroup, id.0))
}

pub(super) fn delete(mut draft: Draft<'_>, id: FwGroupId, if_match: Option<Revision>) -> Decided {
    let present = draft.fleet.fwgroup(id).ok_or_else(|| not_found(Kind::FwGroup, id))?;
    is_current(Kind::FwGroup, &present.spec.name, present.revision, if_match)?;
    let names = |group: &&Arc<FwGroup>| group.spec.rules.iter().any(|rule| rule.group == Some(id));
    let groups = draft.fleet.fwgroups().filter(|group| group.id != id).filter(names);
    let groups = groups.map(|group| (Kind::FwGroup, group.spec.name.clone()));
    let guests = draft.fleet.guest_names(draft.fleet.index.of_fwgroup.get(&id));
    unused(Kind::FwGroup, &present.spec.name, guests.chain(groups))?;
    draft.push(Change::Delete(Kind::FwGroup, id.0));
    Ok(draft.finish(Kind::FwGroup, id.0, Outcome::Deleted, None))
}

fn check(draft: &Draft<'_>, id: FwGroupId, spec: &FwGroupSpec) -> Result<(), Refusal> {
    check_labels("metadata", &spec.metadata)?;
    check_rules(&spec.rules)?;
    for group in spec.rules.iter().filter_map(|rule| rule.group) {
        if group != id && draft.fleet.fwgroup(group).is_none() {
            return Err(not_found(Kind::FwGroup, group));
        }
    }
    draft.name_is_free(Kind::FwGroup, id.0, &spec.project, &spec.name)
}
