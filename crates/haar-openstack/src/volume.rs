//! Volumes that servers boot from. They are made here and not by Nova, so that each is on record, and bears our
//! mark, before its server is asked for.
//!
//! A volume of Nova's bears nothing, and one whose server is deleted in the midst of its making stays for good.
//! Ours has the server's name and goes with it, by Nova, or else by whoever deletes what belongs to a server. A
//! request whose answer was lost is never sent again: the volume is looked for by its name. Deliberately absent:
//! a cloud without Cinder in its catalog, where Nova is asked as it is, and says no by itself.

use std::collections::BTreeMap;

use haar_cloud::name::{DeploymentId, Owner, ResourceName};
use haar_cloud::provider::{Deployment, Found, Prepared, ServerOrder};
use haar_cloud::state::{Entry, Kind};
use haar_cloud::{Error, Journal, Result};
use serde::Deserialize;
use serde_json::json;

use crate::client::{Ask, Client, Service, path, query};

/// A volume as Cinder tells of it.
#[derive(Debug, Deserialize)]
struct Volume {
    id: String,
    #[serde(default)]
    name: Option<String>,
    status: String,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

impl Volume {
    fn is_ours(&self, id: DeploymentId) -> bool {
        id.owner_by_metadata(&self.metadata) == Owner::Us
    }

    /// How far it is, for the server `name`.
    fn progress(&self, name: &str) -> Result<Prepared> {
        match self.status.as_str() {
            "available" | "reserved" | "attaching" | "in-use" => Ok(Prepared::Ready),
            "creating" | "downloading" => Ok(Prepared::Making(format!("its volume is {}", self.status))),
            status => {
                let message = format!("its volume {} is {status}", self.id);
                Err(Error::ServerFailed { server: name.to_owned(), message })
            }
        }
    }
}

/// Makes the volume that a server is to boot from, or looks how far it is.
pub(crate) async fn prepare(
    client: &Client,
    deployment: &Deployment,
    order: &ServerOrder,
    journal: &Journal,
) -> Result<Prepared> {
    let Some(volume_gb) = order.volume_gb else { return Ok(Prepared::Ready) };
    if !client.has(Service::Volume).await? {
        return Ok(Prepared::Ready);
    }
    let noted = journal.find(Kind::Volume, &order.name).await?;
    if let Some(id) = noted.as_ref().and_then(Entry::cloud_id) {
        let ask = Ask::get(Service::Volume, path(&["volumes", id])).about("volume", id);
        let volume: Volume = client.object(ask, "volume").await?;
        return volume.progress(&order.name);
    }
    if let Some(volume) = by_name(client, deployment, &order.name).await? {
        let entry = journal.plan(Kind::Volume, &order.name).await?;
        journal.made(entry, &volume.id).await?;
        return volume.progress(&order.name);
    }
    if noted.is_some() {
        return Err(Error::Transient {
            what: format!("volume {}", order.name),
            message: "it was asked for, the answer was lost, and it is not shown".to_owned(),
            retry_after: None,
        });
    }
    make(client, deployment, order, volume_gb, journal).await
}

/// The id of the volume on record for a server, if there is one.
pub(crate) async fn of(order: &ServerOrder, journal: &Journal) -> Result<Option<String>> {
    if order.volume_gb.is_none() {
        return Ok(None);
    }
    let entry = journal.find(Kind::Volume, &order.name).await?;
    Ok(entry.and_then(|entry| entry.cloud_id().map(str::to_owned)))
}

/// Volumes that bear our mark, or have the name of a server of ours.
pub(crate) async fn found(
    client: &Client,
    name: &ResourceName,
    id: Option<DeploymentId>,
) -> Result<Vec<Found>> {
    if !client.has(Service::Volume).await? {
        return Ok(Vec::new());
    }
    let ask = Ask::get(Service::Volume, path(&["volumes", "detail"])).about("volume", "");
    let all: Vec<Volume> = match client.list(ask, "volumes").await {
        // Whoever may not look at volumes has made none.
        Err(Error::Forbidden { .. }) => return Ok(Vec::new()),
        all => all?,
    };
    let found = all.into_iter().filter_map(|volume| {
        let ours = id.is_some_and(|id| volume.is_ours(id));
        let label = volume.name.filter(|name| !name.is_empty()).unwrap_or_else(|| volume.id.clone());
        let is_meant = ours || name.resembles_server(&label);
        is_meant.then_some(Found { kind: Kind::Volume, name: label, id: volume.id, ours })
    });
    Ok(found.collect())
}

async fn make(
    client: &Client,
    deployment: &Deployment,
    order: &ServerOrder,
    volume_gb: u64,
    journal: &Journal,
) -> Result<Prepared> {
    let (key, value) = deployment.id.metadata();
    let body = json!({"volume": {
        "name": order.name,
        "size": volume_gb,
        "imageRef": order.image.id,
        "metadata": {key: value},
    }});
    let create = async {
        let ask = Ask::post(Service::Volume, path(&["volumes"]), body).about("volume", &order.name);
        let made: Volume = client.object(ask, "volume").await?;
        Ok(made.id)
    };
    match journal.make(Kind::Volume, &order.name, create).await {
        Ok(_) => Ok(Prepared::Making("its volume is creating".to_owned())),
        Err(error) => {
            // Of a cloud that was busy it is asked again, once it does not show the volume.
            let is_busy = matches!(&error, Error::Transient { retry_after: Some(_), .. });
            if is_busy && let Some(entry) = journal.find(Kind::Volume, &order.name).await? {
                journal.gone(entry.id).await?;
            }
            Err(error)
        }
    }
}

async fn by_name(client: &Client, deployment: &Deployment, name: &str) -> Result<Option<Volume>> {
    let path = query(&path(&["volumes", "detail"]), &[("name", name)]);
    let ask = Ask::get(Service::Volume, path).about("volume", name);
    let all: Vec<Volume> = client.list(ask, "volumes").await?;
    let is_it = |volume: &Volume| volume.name.as_deref() == Some(name) && volume.is_ours(deployment.id);
    Ok(all.into_iter().find(is_it))
}
