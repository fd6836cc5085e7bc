//! Flavors: core ⇄ wire.

use std::sync::Arc;

use haar_api::v1::{FlavorCreate, FlavorPatch, FlavorView};
use haar_core::fence::Revision;
use haar_core::flavor::{Flavor, FlavorSpec};
use haar_core::fleet::Fleet;
use haar_core::fleet::command::Command;
use haar_core::id::Kind;
use haar_core::name::Name;
use haar_core::refusal::Refusal;
use haar_core::units::{MiB, Resources};
use uuid::Uuid;

use super::look::Look;
use super::{Makeable, Noun, project, resolve_some, time};

/// The noun.
pub(crate) struct Flavors;

impl Noun for Flavors {
    const KIND: Kind = Kind::Flavor;
    type Record = Flavor;
    type View = FlavorView;

    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<Flavor>> {
        fleet.flavor(id.into())
    }

    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<Flavor>> + '_> {
        Box::new(fleet.flavors_from(id.map(Into::into)))
    }

    fn id(record: &Flavor) -> Uuid {
        record.id.0
    }

    fn name(record: &Flavor) -> (Option<&Name>, Option<&Name>) {
        (Some(&record.spec.name), Some(&record.spec.project))
    }

    fn revision(record: &Flavor) -> Revision {
        record.revision
    }

    fn view(record: &Flavor, look: &Look<'_>) -> FlavorView {
        let spec = record.spec.clone();
        FlavorView {
            id: record.id,
            image_name: look.name_some(Kind::Image, spec.image.map(|image| image.0)),
            name: spec.name,
            project: spec.project,
            metadata: spec.metadata,
            image: spec.image,
            cpu: spec.resources.cpu,
            memory: spec.resources.memory.0,
            disk: spec.resources.disk.0,
            revision: record.revision,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
        }
    }
}

impl Makeable for Flavors {
    type Create = FlavorCreate;
    type Patch = FlavorPatch;

    fn create(id: Uuid, body: FlavorCreate, look: &Look<'_>) -> Result<Command, Refusal> {
        let project = project(body.project)?;
        let spec = FlavorSpec {
            name: Name::new(body.name)?,
            image: resolve_some(look.fleet, Kind::Image, body.image.as_ref(), &project)?,
            project,
            metadata: body.metadata,
            resources: Resources { cpu: body.cpu, memory: MiB(body.memory), disk: MiB(body.disk) },
        };
        Ok(Command::CreateFlavor(id.into(), spec))
    }

    fn set(
        record: &Flavor,
        patch: FlavorPatch,
        if_match: Option<Revision>,
        look: &Look<'_>,
    ) -> Result<Command, Refusal> {
        let mut spec = record.spec.clone();
        if let Some(name) = patch.name {
            spec.name = Name::new(name)?;
        }
        if let Some(image) = patch.image {
            spec.image = resolve_some(look.fleet, Kind::Image, image.as_ref(), &spec.project)?;
        }
        spec.metadata = patch.metadata.unwrap_or(spec.metadata);
        spec.resources.cpu = patch.cpu.unwrap_or(spec.resources.cpu);
        spec.resources.memory = patch.memory.map_or(spec.resources.memory, MiB);
        spec.resources.disk = patch.disk.map_or(spec.resources.disk, MiB);
        Ok(Command::SetFlavor(record.id, spec, if_match))
    }
}
