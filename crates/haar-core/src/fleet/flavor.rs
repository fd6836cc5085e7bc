//! Flavors: make, change, remove. A guest keeps the resources it was made with.

use std::sync::Arc;

use super::change::Record;
use super::command::{Decided, Outcome};
use super::draft::{Draft, check_labels, created_again, differing, is_current, not_found, unused};
use crate::fence::Revision;
use crate::flavor::{Flavor, FlavorSpec, check_resources};
use crate::id::{FlavorId, Kind};
use crate::refusal::Refusal;

pub(super) fn create(mut draft: Draft<'_>, id: FlavorId, spec: &FlavorSpec) -> Decided {
    if let Some(present) = draft.fleet.flavor(id) {
        let name = present.spec.name.clone();
        let fields = differing!(&present.spec, spec; name => "name", project => "project",
            metadata => "metadata", image => "image", resources => "resources");
        return created_again(draft, Kind::Flavor, id.0, &name, fields);
    }
    check(&draft, id, spec)?;
    let wall = draft.env.wall;
    draft.put(Record::Flavor(Arc::new(Flavor {
        id,
        spec: spec.clone(),
        revision: draft.revision(),
        created_at: wall,
        updated_at: wall,
    })));
    Ok(draft.finish(Kind::Flavor, id.0, Outcome::Created, None))
}

pub(super) fn set(
    mut draft: Draft<'_>,
    id: FlavorId,
    spec: &FlavorSpec,
    if_match: Option<Revision>,
) -> Decided {
    let present = draft.fleet.flavor(id).ok_or_else(|| not_found(Kind::Flavor, id))?;
    is_current(Kind::Flavor, &present.spec.name, present.revision, if_match)?;
    check(&draft, id, spec)?;
    if present.spec != *spec {
        let changed = Flavor {
            spec: spec.clone(),
            revision: draft.revision(),
            updated_at: draft.env.wall,
            ..Flavor::clone(present)
        };
        draft.put(Record::Flavor(Arc::new(changed)));
    }
    Ok(draft.finish_as_it_is(Kind::Flavor, id.0))
}

pub(super) fn delete(mut draft: Draft<'_>, id: FlavorId, if_match: Option<Revision>) -> Decided {
    let present = draft.fleet.flavor(id).ok_or_else(|| not_found(Kind::Flavor, id))?;
    is_current(Kind::Flavor, &present.spec.name, present.revision, if_match)?;
    unused(Kind::Flavor, &present.spec.name, draft.fleet.guest_names(draft.fleet.index.of_flavor.get(&id)))?;
    draft.push(super::change::Change::Delete(Kind::Flavor, id.0));
    Ok(draft.finish(Kind::Flavor, id.0, Outcome::Deleted, None))
}

fn check(draft: &Draft<'_>, id: FlavorId, spec: &FlavorSpec) -> Result<(), Refusal> {
    check_labels("metadata", &spec.metadata)?;
    check_resources(spec.resources)?;
    if let Some(image) = spec.image
        && draft.fleet.image(image).is_none()
    {
        return Err(not_found(Kind::Image, image));
    }
    draft.name_is_free(Kind::Flavor, id.0, &spec.project, &spec.name)
}
