//! Guests: make, make anew, change. What is done with one that is there is in `action`.
//!
//! A create is one decision: checks, placement, address, MAC and job. The guest's order and life are the
//! fence of that decision.

use std::net::IpAddr;

use super::Fleet;
use super::change::Change;
use super::command::{Blob, Decided, GuestPatch, Outcome};
use super::draft::{Draft, bad_field, check_labels, differing, is_current, not_found};
use super::{image::is_sha256, job, placing};
use crate::fence::{Fence, Revision};
use crate::guest::{Goal, GoalBy, Guest, GuestSpec, Owner, Place, State};
use crate::id::{GuestId, HypervisorId, ImageId, Kind};
use crate::image::Image;
use crate::job::Action;
use crate::name::Name;
use crate::refusal::Refusal;
use crate::units::{MiB, Resources};

/// The largest user-data, in bytes.
pub(super) const MOST_USER_DATA: usize = 64 << 10;
/// Hypervisors remembered on which making a guest failed.
const MOST_AVOIDED: usize = 16;

/// What a spec comes to, once checked.
pub(super) struct Checked {
    pub(super) image: ImageId,
    pub(super) resources: Resources,
}

pub(super) fn create(draft: Draft<'_>, id: GuestId, spec: &GuestSpec, blob: Option<&Blob>) -> Decided {
    let fleet = draft.fleet;
    if let Some(present) = fleet.guest(id) {
        return create_again(draft, present, spec, blob);
    }
    let checked = check(&draft, id, spec)?;
    let mut draft = draft;
    keep_blob(&mut draft, spec, blob)?;
    let mac = placing::mac(&draft, id, spec)?;
    let wall = draft.env.wall;
    let guest = Guest {
        id,
        spec: spec.clone(),
        image: checked.image,
        resources: checked.resources,
        mac,
        place: None,
        goal: Goal::Running,
        goal_by: GoalBy::User,
        order: Fence::default(),
        deed: None,
        provisioned: None,
        state: State::Creating,
        reason: String::new(),
        owner: Owner::Controller,
        observed: (0, 0),
        job: None,
        avoid: Vec::new(),
        revision: draft.revision(),
        observed_revision: draft.revision(),
        created_at: wall,
        updated_at: wall,
    };
    make(draft, guest, Action::Create, Outcome::Created)
}

/// The same id again: the same body is the same request, and one whose making failed is made anew.
fn create_again(draft: Draft<'_>, present: &Guest, spec: &GuestSpec, blob: Option<&Blob>) -> Decided {
    let fields = differing(&present.spec, spec);
    if !fields.is_empty() {
        return Err(Refusal::Differs { kind: Kind::Guest, reference: present.spec.name.to_string(), fields });
    }
    if present.goal == Goal::Gone {
        return Err(wrong_state(present, "wait until it is gone, then ask again"));
    }
    if is_failed(present) {
        let mut draft = draft;
        keep_blob(&mut draft, spec, blob)?;
        return make_anew(draft, present, Action::Create);
    }
    let job = draft.open_job(present).map(|job| job.id);
    Ok(draft.finish(Kind::Guest, present.id.0, Outcome::Same, job))
}

/// Whether its making failed and it holds nothing.
pub(super) fn is_failed(guest: &Guest) -> bool {
    guest.state == State::Failed && guest.place.is_none()
}

/// Places a guest that holds nothing, with what its flavor and image are now.
pub(super) fn make_anew(draft: Draft<'_>, present: &Guest, action: Action) -> Decided {
    let checked = check(&draft, present.id, &present.spec)?;
    let guest = Guest { image: checked.image, resources: checked.resources, ..present.clone() };
    make(draft, guest, action, Outcome::Changed)
}

/// Places the guest, gives it an address, and begins the job.
fn make(mut draft: Draft<'_>, guest: Guest, action: Action, outcome: Outcome) -> Decided {
    let found = placing::find(&draft, &guest.spec, guest.resources, &guest.avoid)?;
    let mut guest = guest;
    guest.place = Some(Place {
        hypervisor: found.hypervisor,
        subnet: found.subnet,
        address: found.address,
        life: draft.fence,
    });
    if guest.spec.address.is_none() {
        draft.push(Change::Cursor(found.subnet, found.address));
    }
    begin_life(draft, guest, action, outcome)
}

/// Begins a life of a guest on the place it has.
pub(super) fn begin_life(
    mut draft: Draft<'_>,
    mut guest: Guest,
    action: Action,
    outcome: Outcome,
) -> Decided {
    guest.goal = wanted(&guest.spec);
    guest.goal_by = GoalBy::User;
    guest.order = draft.fence;
    guest.deed = None;
    guest.provisioned = None;
    guest.state = State::Creating;
    guest.reason = String::new();
    guest.owner = Owner::Controller;
    guest.observed = (0, 0);
    guest.revision = draft.revision();
    guest.observed_revision = draft.revision();
    guest.updated_at = draft.env.wall;
    let job = job::begin(&mut draft, &guest, action);
    guest.job = Some(job);
    let id = guest.id;
    draft.put_guest(guest);
    Ok(draft.finish(Kind::Guest, id.0, outcome, Some(job)))
}

fn wanted(spec: &GuestSpec) -> Goal {
    if spec.start { Goal::Running } else { Goal::Stopped }
}

/// A guest whose making failed gives back its place; the record stays, holding nothing. The hypervisor is
/// tried last the next time.
pub(super) fn release_failed(draft: &mut Draft<'_>, guest: &Guest, reason: String) {
    let mut avoid = guest.avoid.clone();
    if let Some(place) = guest.place {
        avoid.retain(|id| *id != place.hypervisor);
        avoid.push(place.hypervisor);
    }
    let excess = avoid.len().saturating_sub(MOST_AVOIDED);
    avoid.drain(..excess);
    draft.put_guest(Guest {
        place: None,
        goal: wanted(&guest.spec),
        goal_by: GoalBy::User,
        deed: None,
        provisioned: None,
        state: State::Failed,
        reason,
        observed: (0, 0),
        avoid,
        order: draft.fence,
        observed_revision: draft.revision(),
        updated_at: draft.env.wall,
        ..guest.clone()
    });
}

pub(super) fn set(
    mut draft: Draft<'_>,
    id: GuestId,
    patch: &GuestPatch,
    if_match: Option<Revision>,
) -> Decided {
    let present = draft.fleet.guest(id).ok_or_else(|| not_found(Kind::Guest, id))?;
    is_current(Kind::Guest, &present.spec.name, present.revision, if_match)?;
    if present.goal == Goal::Gone {
        return Err(wrong_state(present, "it can no longer be changed"));
    }
    let mut changed = Guest::clone(present);
    if let Some(name) = &patch.name {
        draft.name_is_free(Kind::Guest, id.0, &present.spec.project, name)?;
        changed.spec.name = name.clone();
    }
    if let Some(metadata) = &patch.metadata {
        check_labels("metadata", metadata)?;
        changed.spec.metadata = metadata.clone();
    }
    if let Some(fwgroup) = patch.fwgroup {
        if let Some(group) = fwgroup.filter(|group| draft.fleet.fwgroup(*group).is_none()) {
            return Err(not_found(Kind::FwGroup, group));
        }
        changed.spec.fwgroup = fwgroup;
    }
    if let Some(restart) = patch.restart.filter(|restart| *restart != present.spec.restart) {
        changed.spec.restart = restart;
        // The node takes it with a newer order only; a claimed guest is not touched before its adoption.
        if present.owner == Owner::Controller && present.place.is_some() {
            changed.order = draft.fence;
        }
    }
    if changed.spec != present.spec {
        changed.revision = draft.revision();
        changed.updated_at = draft.env.wall;
        draft.put_guest(changed);
    }
    Ok(draft.finish_as_it_is(Kind::Guest, id.0))
}

pub(super) fn check(draft: &Draft<'_>, id: GuestId, spec: &GuestSpec) -> Result<Checked, Refusal> {
    let fleet = draft.fleet;
    if !matches!(spec.kind.as_str(), "" | "vm") {
        return Err(bad_field("type", format!("`{}` is not supported; leave it out or say `vm`", spec.kind)));
    }
    check_labels("metadata", &spec.metadata)?;
    check_labels("require", &spec.require)?;
    check_ssh_keys(&spec.ssh_keys)?;
    draft.name_is_free(Kind::Guest, id.0, &spec.project, &spec.name)?;
    let flavor = fleet.flavor(spec.flavor).ok_or_else(|| not_found(Kind::Flavor, spec.flavor))?;
    let image = spec.image.or(flavor.spec.image);
    let image = image.ok_or_else(|| Refusal::NoImage { guest: spec.name.clone() })?;
    let image = fleet.image(image).ok_or_else(|| not_found(Kind::Image, image))?;
    check_image(image, flavor.spec.resources.disk)?;
    fleet.network(spec.network).ok_or_else(|| not_found(Kind::Network, spec.network))?;
    if let Some(asked) = spec.subnet {
        let subnet = fleet.subnet(asked).ok_or_else(|| not_found(Kind::Subnet, asked))?;
        if subnet.spec.network != spec.network {
            let name = &subnet.spec.name;
            return Err(bad_field("subnet", format!("subnet `{name}` belongs to another network")));
        }
    }
    if let Some(group) = spec.fwgroup.filter(|group| fleet.fwgroup(*group).is_none()) {
        return Err(not_found(Kind::FwGroup, group));
    }
    if let Some(asked) = spec.hypervisor.filter(|asked| fleet.hypervisor(*asked).is_none()) {
        return Err(not_found(Kind::Hypervisor, asked));
    }
    Ok(Checked { image: image.id, resources: flavor.spec.resources })
}

fn check_image(image: &Image, disk: MiB) -> Result<(), Refusal> {
    let Some(data) = &image.data else {
        return Err(Refusal::ImageNotReady { image: image.spec.name.clone() });
    };
    let size = MiB::from_bytes_ceil(data.virtual_bytes);
    if size > disk {
        return Err(Refusal::ImageTooLarge {
            image: image.spec.name.clone(),
            image_mib: size.0,
            disk_mib: disk.0,
        });
    }
    Ok(())
}

/// Each key is one line as in `authorized_keys`, without options.
fn check_ssh_keys(keys: &[String]) -> Result<(), Refusal> {
    if keys.len() > 32 {
        return Err(bad_field("ssh_keys", format!("{} keys; at most 32 are allowed", keys.len())));
    }
    for (index, key) in keys.iter().enumerate() {
        let mut words = key.split(' ');
        let kind = words.next().unwrap_or_default();
        let body = words.next().unwrap_or_default();
        let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| kind.starts_with(prefix));
        let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        let sane = key.len() <= 8192 && !key.chars().any(char::is_control);
        if !known || body.is_empty() || !body.chars().all(base64) || !sane {
            return Err(bad_field(
                "ssh_keys",
                format!("key {} is not one line such as `ssh-ed25519 AAAA… comment`", index + 1),
            ));
        }
    }
    Ok(())
}

/// Keeps the user-data beside the books, unless it is there already.
fn keep_blob(draft: &mut Draft<'_>, spec: &GuestSpec, blob: Option<&Blob>) -> Result<(), Refusal> {
    let Some(hash) = &spec.user_data else {
        return match blob {
            None => Ok(()),
            Some(_) => Err(bad_field("user_data", "a blob came without its SHA-256 in the spec")),
        };
    };
    if !is_sha256(hash) {
        return Err(bad_field("user_data", "give its SHA-256 as 64 lower-case hex digits"));
    }
    let known = draft.fleet.index.blobs.contains_key(hash);
    let Some(blob) = blob else {
        return if known {
            Ok(())
        } else {
            Err(bad_field("user_data", "its bytes are not known; send them"))
        };
    };
    if blob.sha256 != *hash {
        return Err(bad_field("user_data", "the bytes do not have the SHA-256 that the spec names"));
    }
    if blob.bytes.len() > MOST_USER_DATA {
        let bytes = blob.bytes.len();
        return Err(bad_field("user_data", format!("{bytes} bytes; at most {MOST_USER_DATA} are allowed")));
    }
    if !known {
        draft.push(Change::PutBlob(blob.clone()));
    }
    Ok(())
}

/// The words of the fields in which two specs differ.
fn differing(left: &GuestSpec, right: &GuestSpec) -> Vec<&'static str> {
    differing!(left, right; name => "name", project => "project", metadata => "metadata", kind => "type",
        flavor => "flavor", image => "image", network => "network", subnet => "subnet", address => "ip",
        fwgroup => "fwgroup", mac => "mac", hypervisor => "hypervisor", require => "require",
        restart => "restart", ssh_keys => "ssh_keys", user_data => "user_data", start => "start")
}

/// A refusal because of the state a guest is in.
pub(super) fn wrong_state(guest: &Guest, next: impl Into<String>) -> Refusal {
    let state = if guest.goal == Goal::Gone { State::Deleting } else { guest.state };
    Refusal::WrongState { guest: guest.spec.name.clone(), state: state.as_str(), next: next.into() }
}

impl Fleet {
    /// Guests by name, for saying who uses something.
    pub(super) fn guest_names<'a>(
        &'a self,
        ids: Option<&'a std::collections::BTreeSet<GuestId>>,
    ) -> impl Iterator<Item = (Kind, Name)> + 'a {
        let guests = ids.into_iter().flatten().filter_map(|id| self.guest(*id));
        guests.map(|guest| (Kind::Guest, guest.spec.name.clone()))
    }

    /// The hypervisor that a guest is on, and its address, if it has a place.
    pub fn place_of(&self, guest: GuestId) -> Option<(HypervisorId, IpAddr)> {
        self.guest(guest)?.place.map(|place| (place.hypervisor, place.address))
    }
}
