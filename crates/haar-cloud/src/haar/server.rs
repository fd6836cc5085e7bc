//! Guests as servers: made, looked at, listened to.

use std::time::Duration;

use haar_api::client::ClientError;
use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{GuestCreate, GuestRestart, GuestView, JobView, LogQuery, Ref};
use uuid::Uuid;

use super::ask::id_of;
use super::label::{full_name, guest_id, label, marks};
use super::{HaarCloud, fault};
use crate::journal::Journal;
use crate::name::DeploymentId;
use crate::provider::{Deployment, NewServer, ServerOrder, ServerState, ServerView};
use crate::state::Kind;
use crate::{Error, Result};

/// What of a console's end is read: more than a boot writes.
const CONSOLE_BYTES: u64 = 1 << 20;
/// How long a console may take to come whole.
const CONSOLE_LIMIT: Duration = Duration::from_secs(30);
/// Where the firmware shows the id of a machine; that of a guest is the guest's.
const FIRMWARE_ID: &str = "/sys/class/dmi/id/product_uuid";
/// Where cloud-init notes for everybody what instance it is.
const CLOUD_INIT_ID: &str = "/var/lib/cloud/data/instance-id";

/// Asks for a guest in what [`super::ground`] made.
pub(super) async fn create(
    cloud: &HaarCloud,
    deployment: &Deployment,
    order: &ServerOrder,
    journal: &Journal,
) -> Result<NewServer> {
    if let Some(wanted) = order.volume_gb {
        return Err(Error::BadInput {
            what: "the disk of",
            value: format!("{wanted} GB"),
            why: format!(
                "a guest has its flavor's disk, and {} has {} GB: take a flavor with more",
                order.flavor.name, order.flavor.disk_gb
            ),
        });
    }
    let on_record = |kind| journal.find(kind, deployment.name.as_str());
    let id_of_entry = |entry: Option<crate::state::Entry>| entry?.cloud_id().map(|id| Ref(id.to_owned()));
    let network = id_of_entry(on_record(Kind::Network).await?).ok_or_else(|| Error::NotFound {
        kind: Kind::Network.to_string(),
        name: deployment.name.to_string(),
    })?;
    let body = GuestCreate {
        name: label(&order.name),
        project: Some(cloud.project.clone()),
        metadata: marks(deployment.id, &order.name),
        kind: String::new(),
        flavor: Ref(order.flavor.id.clone()),
        image: Some(Ref(order.image.id.clone())),
        network,
        subnet: id_of_entry(on_record(Kind::Subnet).await?),
        ip: None,
        fwgroup: id_of_entry(on_record(Kind::SecurityGroup).await?),
        mac: None,
        hypervisor: None,
        require: [].into(),
        restart: GuestRestart::OnFailure,
        ssh_keys: vec![deployment.public_key.trim().to_owned()],
        user_data: Some(order.user_data.clone()),
        start: true,
    };
    let id = guest_id(&order.name).to_string();
    let made = cloud.ask::<t::GuestPut>("server", &id, &body).await;
    let guest = made.map_err(|error| of_order(error, order))?;
    Ok(NewServer { id: guest.id.to_string(), admin_password: None })
}

/// The errors of an order name the server as it was asked for.
fn of_order(error: Error, order: &ServerOrder) -> Error {
    let what = format!("server {}", order.name);
    match error {
        Error::Conflict { message, .. } => Error::Conflict { what, message },
        Error::Refused { status, message, .. } => Error::Refused { what, status, message },
        Error::Transient { message, retry_after, .. } => Error::Transient { what, message, retry_after },
        other => other,
    }
}

/// A guest as it is now, with what its job says while it is being made and when that failed.
pub(super) async fn show(cloud: &HaarCloud, id: &str) -> Result<ServerView> {
    let guest: GuestView = cloud.ask::<t::GuestShow>("server", id, &Nothing).await?;
    let job = match (guest.state.as_str(), guest.job) {
        ("creating" | "failed", Some(job)) => {
            let asked = cloud.ask::<t::JobShow>("job", &job.to_string(), &Nothing).await;
            // Old jobs are forgotten; what the guest itself says will do.
            asked.map(Some).or_else(|error| if error.is_not_found() { Ok(None) } else { Err(error) })?
        }
        _ => None,
    };
    Ok(view(&guest, job.as_ref()))
}

/// Every guest of the project.
pub(super) async fn list(cloud: &HaarCloud) -> Result<Vec<ServerView>> {
    let guests: Vec<GuestView> = cloud.all::<t::GuestList, _>("server", None).await?;
    Ok(guests.iter().map(|guest| view(guest, None)).collect())
}

fn view(guest: &GuestView, job: Option<&JobView>) -> ServerView {
    let name = full_name(&guest.metadata, guest.name.as_str()).to_owned();
    let state = state(&guest.goal, &guest.state);
    let fault = (state == ServerState::Failed).then(|| fault::of_server(&name, &guest.reason, job));
    // No deployment asks here, so that none is "us": whose it is stands beside.
    let nobody = DeploymentId::from(Uuid::nil());
    ServerView {
        id: guest.id.to_string(),
        state,
        status: status(guest, job),
        fault,
        flavor: guest.flavor.to_string(),
        addresses: guest.ip.into_iter().collect(),
        external_addresses: Vec::new(),
        owner: nobody.owner_by_metadata(&guest.metadata),
        name,
    }
}

/// What is wanted counts once it is the end; else what was seen.
fn state(goal: &str, state: &str) -> ServerState {
    match (goal, state) {
        ("gone", _) | (_, "deleting") => ServerState::Leaving,
        (_, "creating") => ServerState::Building,
        (_, "running") => ServerState::Active,
        (_, "failed" | "lost") => ServerState::Failed,
        // Off, paused, claimed by another, or on a hypervisor that is silent: it is there.
        _ => ServerState::Inactive,
    }
}

/// The cloud's word, and what it is at: `creating: disks`, `unknown: lab2 is silent`.
fn status(guest: &GuestView, job: Option<&JobView>) -> String {
    let step = job.and_then(|job| job.steps.iter().find(|step| step.state == "running"));
    match (step, guest.reason.as_str()) {
        (Some(step), _) => format!("{}: {}", guest.state, step.stage),
        (None, "") => guest.state.clone(),
        (None, reason) => format!("{}: {reason}", guest.state),
    }
}

/// The end of the guest's serial console; nothing while it has none.
pub(super) async fn console(cloud: &HaarCloud, id: &str) -> Result<String> {
    let path = id_of("server", id)?;
    let query = LogQuery { tail: Some(CONSOLE_BYTES), ..LogQuery::default() };
    let read = async {
        let mut reader = cloud.client.request::<t::GuestLog>(&[&path]).query(query).stream(&Nothing).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let read = tokio::time::timeout(CONSOLE_LIMIT, read).await;
    match read.unwrap_or(Err(ClientError::Timeout(CONSOLE_LIMIT))) {
        Err(ClientError::Problem(problem)) if problem.code == "wrong_state" => Ok(String::new()),
        read => read.map_err(|error| fault::error("server", id, error)),
    }
}

/// The guest that this process runs in.
pub(super) async fn here(cloud: &HaarCloud) -> Result<Option<String>> {
    let read = |path| tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
    // The firmware's word comes first: what cloud-init noted may be of the guest that a disk was copied from.
    for path in [FIRMWARE_ID, CLOUD_INIT_ID] {
        let text = read(path).await.ok().and_then(std::result::Result::ok).unwrap_or_default();
        let Some(id) = id_in(&text) else { continue };
        match cloud.ask::<t::GuestShow>("server", &id.to_string(), &Nothing).await {
            Ok(guest) => return Ok(Some(guest.id.to_string())),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The id of a guest: alone in the firmware, and with the number of its life as cloud-init is told it.
fn id_in(text: &str) -> Option<Uuid> {
    const LENGTH: usize = 36;
    let text = text.trim();
    let (id, life) = text.split_at_checked(LENGTH)?;
    let is_life = |life: &str| life.parse::<u64>().is_ok();
    let is_whole = life.is_empty() || life.strip_prefix('-').is_some_and(is_life);
    Uuid::try_parse(id).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_id_is_read_from_firmware_and_from_what_cloud_init_noted() {
        let id = Uuid::new_v4();
        for text in [format!("{id}\n"), id.to_string().to_uppercase(), format!("{id}-3\n")] {
            assert_eq!(id_in(&text), Some(id), "{text}");
        }
        for text in [String::new(), "i-0000002a".to_owned(), format!("{id}-x"), format!("{id}3")] {
            assert_eq!(id_in(&text), None, "{text}");
        }
    }

    #[test]
    fn every_state_of_a_guest_is_one_of_a_server() {
        for (goal, seen, expected) in [
            ("running", "creating", ServerState::Building),
            ("running", "running", ServerState::Active),
            ("stopped", "stopped", ServerState::Inactive),
            ("running", "paused", ServerState::Inactive),
            ("running", "unknown", ServerState::Inactive),
            ("running", "claimed", ServerState::Inactive),
            ("running", "failed", ServerState::Failed),
            ("running", "lost", ServerState::Failed),
            ("gone", "running", ServerState::Leaving),
            ("running", "deleting", ServerState::Leaving),
        ] {
            assert_eq!(state(goal, seen), expected, "{goal} {seen}");
        }
    }
}
