//! Images: core ⇄ wire.

use std::sync::Arc;

use haar_api::v1::{ImageCreate, ImageFormat, ImagePatch, ImageView};
use haar_core::fence::Revision;
use haar_core::fleet::Fleet;
use haar_core::fleet::command::Command;
use haar_core::id::Kind;
use haar_core::image::{Format, Image, ImageSpec, Source};
use haar_core::name::Name;
use haar_core::refusal::Refusal;
use uuid::Uuid;

use super::look::Look;
use super::{Makeable, Noun, project, time};

/// The noun.
pub(crate) struct Images;

/// The format's word on the wire.
pub(crate) fn format(format: Format) -> ImageFormat {
    match format {
        Format::Qcow2 => ImageFormat::Qcow2,
        Format::Raw => ImageFormat::Raw,
    }
}

impl Noun for Images {
    const KIND: Kind = Kind::Image;
    type Record = Image;
    type View = ImageView;

    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<Image>> {
        fleet.image(id.into())
    }

    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<Image>> + '_> {
        Box::new(fleet.images_from(id.map(Into::into)))
    }

    fn id(record: &Image) -> Uuid {
        record.id.0
    }

    fn name(record: &Image) -> (Option<&Name>, Option<&Name>) {
        (Some(&record.spec.name), Some(&record.spec.project))
    }

    fn revision(record: &Image) -> Revision {
        record.revision
    }

    fn view(record: &Image, _: &Look<'_>) -> ImageView {
        let spec = record.spec.clone();
        let data = record.data.as_ref();
        let known = |bytes: u64| (bytes > 0).then_some(bytes);
        let (url, pinned) = match spec.source {
            Source::Upload => (None, None),
            Source::Url { url, sha256 } => (Some(url), Some(sha256)),
        };
        ImageView {
            id: record.id,
            name: spec.name,
            project: spec.project,
            metadata: spec.metadata,
            format: format(spec.format),
            state: if data.is_some() || url.is_some() { "ready" } else { "empty" }.to_owned(),
            url,
            sha256: data.map(|data| data.sha256.clone()).or(pinned),
            file_bytes: data.and_then(|data| known(data.file_bytes)),
            virtual_bytes: data.and_then(|data| known(data.virtual_bytes)),
            revision: record.revision,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
        }
    }
}

impl Makeable for Images {
    type Create = ImageCreate;
    type Patch = ImagePatch;

    fn create(id: Uuid, body: ImageCreate, _: &Look<'_>) -> Result<Command, Refusal> {
        let bad = |field, problem: &str| Err(Refusal::BadField { field, problem: problem.to_owned() });
        let source = match (body.url, body.sha256) {
            (None, None) => Source::Upload,
            (Some(url), Some(sha256)) => Source::Url { url, sha256 },
            (Some(_), None) => {
                return bad("sha256", "an image from an address needs the SHA-256 its bytes must have");
            }
            (None, Some(_)) => {
                return bad("sha256", "goes with `url`; for an upload give it as `?sha256=` with the data");
            }
        };
        let spec = ImageSpec {
            name: Name::new(body.name)?,
            project: project(body.project)?,
            metadata: body.metadata,
            format: match body.format {
                ImageFormat::Qcow2 => Format::Qcow2,
                ImageFormat::Raw => Format::Raw,
            },
            source,
        };
        Ok(Command::CreateImage(id.into(), spec))
    }

    fn set(
        record: &Image,
        patch: ImagePatch,
        if_match: Option<Revision>,
        _: &Look<'_>,
    ) -> Result<Command, Refusal> {
        let mut spec = record.spec.clone();
        if let Some(name) = patch.name {
            spec.name = Name::new(name)?;
        }
        spec.metadata = patch.metadata.unwrap_or(spec.metadata);
        Ok(Command::SetImage(record.id, spec, if_match))
    }
}
