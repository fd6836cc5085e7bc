//! Guests: core ⇄ wire.

use std::sync::Arc;

use haar_api::v1::{
    CandidateView, CandidatesView, FenceText, GuestCreate, GuestPatch, GuestRestart, GuestView,
};
use haar_core::address::bridge_name;
use haar_core::fence::Revision;
use haar_core::fleet::Fleet;
use haar_core::fleet::command::{self, Blob, Command};
use haar_core::guest::{GoalBy, Guest, GuestSpec, Owner, RestartPolicy};
use haar_core::id::Kind;
use haar_core::name::Name;
use haar_core::refusal::Refusal;
use haar_core::schedule::{Candidate, Score};
use haar_core::units::Resources;
use uuid::Uuid;

use super::look::{Look, resources};
use super::{Makeable, Noun, address_some, project, resolve, resolve_some, time};

/// The noun.
pub(crate) struct Guests;

/// The most user-data, bytes.
const MOST_USER_DATA: usize = 64 << 10;

fn restart_in(restart: GuestRestart) -> RestartPolicy {
    match restart {
        GuestRestart::Never => RestartPolicy::Never,
        GuestRestart::OnFailure => RestartPolicy::OnFailure,
        GuestRestart::Always => RestartPolicy::Always,
    }
}

/// The policy's word on the wire.
pub(crate) fn restart_out(restart: RestartPolicy) -> GuestRestart {
    match restart {
        RestartPolicy::Never => GuestRestart::Never,
        RestartPolicy::OnFailure => GuestRestart::OnFailure,
        RestartPolicy::Always => GuestRestart::Always,
    }
}

fn blob(text: Option<String>) -> Result<Option<Blob>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    if text.len() > MOST_USER_DATA {
        let problem = format!("it has {} bytes; at most {MOST_USER_DATA} are allowed", text.len());
        return Err(Refusal::BadField { field: "user_data", problem });
    }
    let bytes = text.into_bytes();
    Ok(Some(Blob { sha256: crate::auth::sha256(&bytes), bytes }))
}

/// The bridge it is plugged into on its hypervisor; without records to tell, the cloud's own.
fn bridge(guest: &Guest, look: &Look<'_>) -> Option<String> {
    let (fleet, network) = (look.fleet, guest.spec.network);
    let hypervisor = fleet.hypervisor(guest.place?.hypervisor);
    let listed = fleet.network(network).zip(hypervisor).map(|(network, on)| fleet.bridge_on(network, on));
    Some(listed.unwrap_or_else(|| bridge_name(fleet.config().cloud, network)))
}

/// What is asked of a guest, and its user-data.
pub(crate) fn spec(body: GuestCreate, look: &Look<'_>) -> Result<(GuestSpec, Option<Blob>), Refusal> {
    let fleet = look.fleet;
    let project = project(body.project)?;
    let blob = blob(body.user_data)?;
    let spec = GuestSpec {
        name: Name::new(body.name)?,
        metadata: body.metadata,
        kind: body.kind,
        flavor: resolve(fleet, Kind::Flavor, &body.flavor, &project)?.into(),
        image: resolve_some(fleet, Kind::Image, body.image.as_ref(), &project)?,
        network: resolve(fleet, Kind::Network, &body.network, &project)?.into(),
        subnet: resolve_some(fleet, Kind::Subnet, body.subnet.as_ref(), &project)?,
        address: address_some("ip", body.ip.as_ref())?,
        fwgroup: resolve_some(fleet, Kind::FwGroup, body.fwgroup.as_ref(), &project)?,
        mac: body.mac.map(|mac| mac.parse()).transpose()?,
        hypervisor: resolve_some(fleet, Kind::Hypervisor, body.hypervisor.as_ref(), &project)?,
        project,
        require: body.require,
        restart: restart_in(body.restart),
        ssh_keys: body.ssh_keys,
        user_data: blob.as_ref().map(|blob| blob.sha256.clone()),
        start: body.start,
    };
    Ok((spec, blob))
}

impl Noun for Guests {
    const KIND: Kind = Kind::Guest;
    type Record = Guest;
    type View = GuestView;

    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<Guest>> {
        fleet.guest(id.into())
    }

    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<Guest>> + '_> {
        Box::new(fleet.guests_from(id.map(Into::into)))
    }

    fn id(record: &Guest) -> Uuid {
        record.id.0
    }

    fn name(record: &Guest) -> (Option<&Name>, Option<&Name>) {
        (Some(&record.spec.name), Some(&record.spec.project))
    }

    fn revision(record: &Guest) -> Revision {
        record.revision
    }

    fn view(record: &Guest, look: &Look<'_>) -> GuestView {
        let spec = record.spec.clone();
        let hypervisor = record.place.map(|place| place.hypervisor);
        let subnet = record.place.map(|place| place.subnet).or(spec.subnet);
        GuestView {
            id: record.id,
            metadata: spec.metadata,
            kind: spec.kind,
            flavor: spec.flavor,
            hypervisor,
            network: spec.network,
            subnet,
            fwgroup: spec.fwgroup,
            mac: record.mac,
            ip: record.place.map(|place| place.address),
            bridge: bridge(record, look),
            name: spec.name,
            project: spec.project,
            flavor_name: look.name(Kind::Flavor, spec.flavor.0),
            hypervisor_name: look.name_some(Kind::Hypervisor, hypervisor.map(|id| id.0)),
            network_name: look.name(Kind::Network, spec.network.0),
            subnet_name: look.name_some(Kind::Subnet, subnet.map(|id| id.0)),
            fwgroup_name: look.name_some(Kind::FwGroup, spec.fwgroup.map(|id| id.0)),
            image: record.image,
            image_name: look.name(Kind::Image, record.image.0),
            resources: resources(record.resources),
            goal: record.goal.as_str().to_owned(),
            goal_by: match record.goal_by {
                GoalBy::User => "user",
                GoalBy::Local => "local",
                GoalBy::Undo => "undo",
            }
            .to_owned(),
            state: look.guest_state(record).to_owned(),
            reason: record.reason.clone(),
            owner: match record.owner {
                Owner::Controller => "controller",
                Owner::Claimed => "claimed",
            }
            .to_owned(),
            provisioned: record.provisioned.is_some(),
            restart: restart_out(spec.restart),
            start: spec.start,
            require: spec.require,
            ssh_keys: spec.ssh_keys,
            life: record.place.map(|place| FenceText(place.life)),
            user_data: spec.user_data,
            job: record.job,
            revision: record.revision,
            observed_revision: record.observed_revision,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
        }
    }
}

impl Makeable for Guests {
    type Create = GuestCreate;
    type Patch = GuestPatch;

    fn create(id: Uuid, body: GuestCreate, look: &Look<'_>) -> Result<Command, Refusal> {
        let (spec, blob) = spec(body, look)?;
        Ok(Command::CreateGuest(id.into(), Box::new(spec), blob))
    }

    fn set(
        record: &Guest,
        patch: GuestPatch,
        if_match: Option<Revision>,
        look: &Look<'_>,
    ) -> Result<Command, Refusal> {
        let project = &record.spec.project;
        let fwgroup = patch
            .fwgroup
            .map(|group| resolve_some(look.fleet, Kind::FwGroup, group.as_ref(), project))
            .transpose()?;
        let changes = command::GuestPatch {
            name: patch.name.map(Name::new).transpose()?,
            metadata: patch.metadata,
            restart: patch.restart.map(restart_in),
            fwgroup,
        };
        Ok(Command::SetGuest(record.id, changes, if_match))
    }
}

/// Every hypervisor's yes or no.
pub(crate) fn candidates(wants: Resources, found: Vec<Candidate>) -> CandidatesView {
    let items = found.into_iter().map(|candidate| {
        let (fits, score, cause, detail) = match candidate.verdict {
            Ok(score) => (true, words(score), None, String::new()),
            Err(no) => (false, String::new(), Some(no.cause.as_str().to_owned()), no.detail),
        };
        CandidateView {
            hypervisor: candidate.hypervisor,
            hypervisor_name: candidate.name.to_string(),
            fits,
            score,
            cause,
            detail,
        }
    });
    CandidatesView { wants: resources(wants), items: items.collect() }
}

/// A score for a person: the used share is the sum of three, in 1/2^20.
fn words(score: Score) -> String {
    let percent = score.used_share * 100 / (3 << 20);
    let failed = if score.failed_before { ", making this guest failed there before" } else { "" };
    format!("{percent} % used{failed}")
}
