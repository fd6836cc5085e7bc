//! What a project has to offer, and what it has: flavors, images, limits, and everything of a deployment.

use haar_cloud::Result;
use haar_cloud::flavor::Flavor;
use haar_cloud::image::Image;
use haar_cloud::name::{DeploymentId, Owner, ResourceName};
use haar_cloud::provider::Found;
use haar_cloud::quota::{LimitOf, Quota, Usage, limit};
use haar_cloud::state::Kind;
use jiff::Timestamp;
use serde::Deserialize;

use crate::client::{Ask, Client, Service, path, query};
use crate::ground::{key_pair, network, router};
use crate::server;
use crate::thing::{Marked, Thing, Whose};
use crate::volume;

/// Every flavor this project can have.
pub(crate) async fn flavors(client: &Client) -> Result<Vec<Flavor>> {
    #[derive(Deserialize)]
    struct Told {
        id: String,
        name: String,
        vcpus: u32,
        ram: u64,
        disk: u64,
    }
    let ask = Ask::get(Service::Compute, "/flavors/detail").about("flavor", "");
    let told: Vec<Told> = client.list(ask, "flavors").await?;
    let flavor = |told: Told| Flavor {
        id: told.id,
        name: told.name,
        cores: told.vcpus,
        ram_mb: told.ram,
        disk_gb: told.disk,
    };
    Ok(told.into_iter().map(flavor).collect())
}

/// Every image that is ready to be used.
pub(crate) async fn images(client: &Client) -> Result<Vec<Image>> {
    #[derive(Deserialize)]
    struct Told {
        id: String,
        name: Option<String>,
        status: String,
        created_at: Option<Timestamp>,
        #[serde(default)]
        min_disk: u64,
        #[serde(default)]
        min_ram: u64,
        /// Bytes of the file.
        size: Option<u64>,
        /// Bytes that a disk of it has, where the cloud has looked.
        virtual_size: Option<u64>,
    }
    let path = query("/images", &[("status", "active")]);
    let told: Vec<Told> = client.list(Ask::get(Service::Image, path).about("image", ""), "images").await?;
    let image = |told: Told| Image {
        id: told.id,
        name: told.name.unwrap_or_default(),
        created_at: told.created_at,
        // Nova refuses an image that is larger than the flavor's disk, whatever the image says of itself.
        min_disk_gb: told.min_disk.max(gb(told.virtual_size.or(told.size).unwrap_or_default())),
        min_ram_mb: told.min_ram,
    };
    Ok(told.into_iter().filter(|told| told.status == "active").map(image).collect())
}

/// Bytes as the whole GB they take.
fn gb(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30)
}

/// Limits and use, as Nova and, where it is there, Cinder count them.
pub(crate) async fn quota(client: &Client) -> Result<Quota> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Absolute {
        max_total_instances: i64,
        max_total_cores: i64,
        #[serde(rename = "maxTotalRAMSize")]
        max_ram: i64,
        total_instances_used: i64,
        total_cores_used: i64,
        #[serde(rename = "totalRAMUsed")]
        ram_used: i64,
    }
    #[derive(Deserialize)]
    struct Limits {
        absolute: Absolute,
    }
    let ask = Ask::get(Service::Compute, "/limits").about("limits", "of Nova");
    let Limits { absolute } = client.object(ask, "limits").await?;
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let volumes = volumes(client).await?;
    Ok(Quota {
        limit_of: LimitOf::Project,
        max_instances: limit(absolute.max_total_instances),
        max_cores: limit(absolute.max_total_cores),
        max_ram_mb: limit(absolute.max_ram),
        max_volume_gb: limit(volumes.limit),
        used: Usage {
            instances: count(absolute.total_instances_used),
            cores: count(absolute.total_cores_used),
            ram_mb: count(absolute.ram_used),
            volume_gb: count(volumes.in_use) + count(volumes.reserved),
            unknown_flavors: 0,
        },
    })
}

/// The space of volumes; all 0 and without a limit in a cloud that has no volumes.
#[derive(Deserialize)]
struct Gigabytes {
    limit: i64,
    in_use: i64,
    reserved: i64,
}

async fn volumes(client: &Client) -> Result<Gigabytes> {
    #[derive(Deserialize)]
    struct Set {
        gigabytes: Gigabytes,
    }
    if !client.has(Service::Volume).await? {
        return Ok(Gigabytes { limit: -1, in_use: 0, reserved: 0 });
    }
    let project = client.project().await?;
    let path = query(&path(&["os-quota-sets", &project]), &[("usage", "True")]);
    let ask = Ask::get(Service::Volume, path).about("quota", "of Cinder");
    let set: Set = client.object(ask, "quota_set").await?;
    Ok(set.gigabytes)
}

/// Everything that has a deployment's mark, or its name.
pub(crate) async fn survey(
    client: &Client,
    name: &ResourceName,
    id: Option<DeploymentId>,
) -> Result<Vec<Found>> {
    let mut found = servers(client, name, id).await?;
    let routers: Vec<Thing> = all(client, "routers", "routers").await?;
    for router in known(&routers, name, id) {
        let ports = network::ports(client, &router.id).await?;
        for port in ports.into_iter().filter(router::is_interface) {
            found.push(Found {
                kind: Kind::RouterInterface,
                name: name.to_string(),
                id: port.thing.id.clone(),
                ours: is_ours(router, id) || is_ours(&port.thing, id),
            });
        }
    }
    found.extend(known(&routers, name, id).map(|thing| as_found(Kind::Router, thing, id)));
    for (kind, collection, key) in [
        (Kind::Network, "networks", "networks"),
        (Kind::Subnet, "subnets", "subnets"),
        (Kind::SecurityGroup, "security-groups", "security_groups"),
    ] {
        let things: Vec<Thing> = all(client, collection, key).await?;
        found.extend(known(&things, name, id).map(|thing| as_found(kind, thing, id)));
    }
    found.extend(addresses(client, id).await?);
    found.extend(volume::found(client, name, id).await?);
    if let Some(whose) = key_pair::whose(client, name.as_str(), id).await? {
        let (name, ours) = (name.to_string(), whose == Whose::Ours);
        found.push(Found { kind: Kind::KeyPair, id: name.clone(), name, ours });
    }
    Ok(found)
}

/// Everything of a kind in our project: an administrator's lists have everybody's.
async fn all<T: serde::de::DeserializeOwned>(client: &Client, collection: &str, key: &str) -> Result<Vec<T>> {
    let project = client.project().await?;
    let path = query(&path(&[collection]), &[("project_id", &project)]);
    client.list(Ask::get(Service::Network, path).about(collection, ""), key).await
}

fn known<'a, T: Marked>(
    things: &'a [T],
    name: &ResourceName,
    id: Option<DeploymentId>,
) -> impl Iterator<Item = &'a T> {
    let name = name.clone();
    things.iter().filter(move |thing| thing.thing().name == name.as_str() || is_ours(thing.thing(), id))
}

fn is_ours(thing: &Thing, id: Option<DeploymentId>) -> bool {
    id.is_some_and(|id| id.owner_by_tags(thing.marks()) == Owner::Us)
}

fn as_found(kind: Kind, thing: &Thing, id: Option<DeploymentId>) -> Found {
    Found { kind, name: thing.name.clone(), id: thing.id.clone(), ours: is_ours(thing, id) }
}

async fn servers(client: &Client, name: &ResourceName, id: Option<DeploymentId>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for server in server::all(client).await? {
        let ours = id.is_some_and(|id| id.owner_by_metadata(&server.metadata) == Owner::Us);
        if ours || name.resembles_server(&server.name) {
            found.push(Found { kind: Kind::Server, name: server.name, id: server.id, ours });
        }
    }
    Ok(found)
}

/// An address has no name, so only its mark tells.
async fn addresses(client: &Client, id: Option<DeploymentId>) -> Result<Vec<Found>> {
    let all: Vec<server::FloatingIp> = all(client, "floatingips", "floatingips").await?;
    let found = |address: server::FloatingIp| Found {
        kind: Kind::FloatingIp,
        name: address.floating_ip_address.to_string(),
        id: address.thing.id,
        ours: true,
    };
    Ok(all.into_iter().filter(|address| is_ours(&address.thing, id)).map(found).collect())
}
