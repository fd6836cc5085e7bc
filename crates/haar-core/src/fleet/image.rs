//! Images: make, change, note their bytes, remove. Format and source never change.

use std::sync::Arc;

use super::change::{Change, Record};
use super::command::{Decided, Outcome};
use super::draft::{Draft, bad_field, check_labels, created_again, differing, is_current, not_found, unused};
use crate::fence::Revision;
use crate::id::{ImageId, Kind};
use crate::image::{Image, ImageData, ImageSpec, Source};
use crate::refusal::Refusal;

pub(super) fn create(mut draft: Draft<'_>, id: ImageId, spec: &ImageSpec) -> Decided {
    if let Some(present) = draft.fleet.image(id) {
        let name = present.spec.name.clone();
        let fields = differing!(&present.spec, spec; name => "name", project => "project",
            metadata => "metadata", format => "format", source => "source");
        return created_again(draft, Kind::Image, id.0, &name, fields);
    }
    check(&draft, id, spec)?;
    let wall = draft.env.wall;
    draft.put(Record::Image(Arc::new(Image {
        id,
        spec: spec.clone(),
        data: pinned(&spec.source),
        revision: draft.revision(),
        created_at: wall,
        updated_at: wall,
    })));
    Ok(draft.finish(Kind::Image, id.0, Outcome::Created, None))
}

pub(super) fn set(
    mut draft: Draft<'_>,
    id: ImageId,
    spec: &ImageSpec,
    if_match: Option<Revision>,
) -> Decided {
    let present = draft.fleet.image(id).ok_or_else(|| not_found(Kind::Image, id))?;
    is_current(Kind::Image, &present.spec.name, present.revision, if_match)?;
    if spec.format != present.spec.format {
        return Err(bad_field("format", "an image keeps its format; make another image"));
    }
    if spec.source != present.spec.source {
        return Err(bad_field("source", "an image keeps its source; make another image"));
    }
    check(&draft, id, spec)?;
    if present.spec != *spec {
        let changed = Image {
            spec: spec.clone(),
            revision: draft.revision(),
            updated_at: draft.env.wall,
            ..Image::clone(present)
        };
        draft.put(Record::Image(Arc::new(changed)));
    }
    Ok(draft.finish_as_it_is(Kind::Image, id.0))
}

/// The bytes are there. Other bytes than before only while no guest is of them, for its disks are.
pub(super) fn ready(mut draft: Draft<'_>, id: ImageId, data: &ImageData) -> Decided {
    let present = draft.fleet.image(id).ok_or_else(|| not_found(Kind::Image, id))?;
    if !is_sha256(&data.sha256) {
        return Err(bad_field("sha256", "give 64 lower-case hex digits"));
    }
    let differs = present.data.as_ref().is_some_and(|known| known.sha256 != data.sha256);
    if differs && matches!(present.spec.source, Source::Url { .. }) {
        return Err(bad_field("sha256", "the bytes do not hash to what the image's source is pinned to"));
    }
    if differs {
        let users = draft.fleet.guest_names(draft.fleet.index.of_image.get(&id));
        unused(Kind::Image, &present.spec.name, users)?;
    }
    if present.data.as_ref() != Some(data) {
        let changed = Image {
            data: Some(data.clone()),
            revision: draft.revision(),
            updated_at: draft.env.wall,
            ..Image::clone(present)
        };
        draft.put(Record::Image(Arc::new(changed)));
    }
    Ok(draft.finish_as_it_is(Kind::Image, id.0))
}

pub(super) fn delete(mut draft: Draft<'_>, id: ImageId, if_match: Option<Revision>) -> Decided {
    let present = draft.fleet.image(id).ok_or_else(|| not_found(Kind::Image, id))?;
    is_current(Kind::Image, &present.spec.name, present.revision, if_match)?;
    let guests = draft.fleet.guest_names(draft.fleet.index.of_image.get(&id));
    let flavors = draft.fleet.flavors().filter(|flavor| flavor.spec.image == Some(id));
    let flavors = flavors.map(|flavor| (Kind::Flavor, flavor.spec.name.clone()));
    unused(Kind::Image, &present.spec.name, guests.chain(flavors))?;
    draft.push(Change::Delete(Kind::Image, id.0));
    Ok(draft.finish(Kind::Image, id.0, Outcome::Deleted, None))
}

/// What is known of the bytes from the start: an address comes with its hash.
fn pinned(source: &Source) -> Option<ImageData> {
    match source {
        Source::Upload => None,
        Source::Url { sha256, .. } => {
            Some(ImageData { sha256: sha256.clone(), file_bytes: 0, virtual_bytes: 0 })
        }
    }
}

fn check(draft: &Draft<'_>, id: ImageId, spec: &ImageSpec) -> Result<(), Refusal> {
    check_labels("metadata", &spec.metadata)?;
    if let Source::Url { url, sha256 } = &spec.source {
        let known = ["http://", "https://", "file:///"].iter().any(|scheme| url.starts_with(scheme));
        let clean = url.len() <= 2048 && !url.chars().any(|c| c.is_control() || c.is_whitespace());
        if !known || !clean {
            return Err(bad_field(
                "source",
                "give an address that begins with http://, https:// or file:///, without spaces",
            ));
        }
        if !is_sha256(sha256) {
            return Err(bad_field("source", "its sha256 must be 64 lower-case hex digits"));
        }
    }
    draft.name_is_free(Kind::Image, id.0, &spec.project, &spec.name)
}

/// Whether a text is a SHA-256 in lower-case hex.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
