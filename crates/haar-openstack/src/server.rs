//! Servers: asking for one, looking at it, its console, and its address that others can reach.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use haar_cloud::name::Owner;
use haar_cloud::provider::{Deployment, NewServer, ServerOrder, ServerView};
use haar_cloud::state::Kind;
use haar_cloud::{Error, Journal, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Ask, Client, Service, path, query};
use crate::ground::{self, Footing, network, outside};
use crate::thing::{Site, Thing};
use crate::volume;

pub(crate) mod told;

pub(crate) use told::Server;

/// The group that every project has, and which lets its servers reach each other.
const DEFAULT_GROUP: &str = "default";

/// Asks for a server.
pub(crate) async fn create(
    client: &Client,
    deployment: &Deployment,
    order: &ServerOrder,
    journal: &Journal,
) -> Result<NewServer> {
    #[derive(Deserialize)]
    struct Told {
        id: String,
        #[serde(rename = "adminPass")]
        admin_password: Option<String>,
    }
    let footing = ground::footing(deployment, journal).await?;
    let volume = volume::of(order, journal).await?;
    let body = body(deployment, order, &footing, volume.as_deref());
    let ask = Ask::post(Service::Compute, path(&["servers"]), body).about("server", &order.name);
    let Told { id, admin_password } = client.object(ask, "server").await?;
    Ok(NewServer { id, admin_password: admin_password.filter(|password| !password.is_empty()) })
}

fn body(deployment: &Deployment, order: &ServerOrder, footing: &Footing, volume: Option<&str>) -> Value {
    let (key, value) = deployment.id.metadata();
    let networks: Vec<Value> = footing.networks.iter().map(|id| json!({"uuid": id})).collect();
    let mut server = json!({
        "name": order.name,
        "flavorRef": order.flavor.id,
        "key_name": deployment.name.as_str(),
        "config_drive": deployment.ground.config_drive,
        "user_data": STANDARD.encode(&order.user_data),
        "metadata": {key: value},
        "networks": networks,
    });
    if let Some(group) = &footing.security_group {
        server["security_groups"] = json!([{"name": group}, {"name": DEFAULT_GROUP}]);
    }
    match (order.volume_gb, volume) {
        (None, _) => server["imageRef"] = order.image.id.as_str().into(),
        (Some(_), Some(volume)) => {
            server["block_device_mapping_v2"] = boot_from(json!({"uuid": volume, "source_type": "volume"}));
        }
        // Where we cannot make it, Nova is asked to.
        (Some(volume_gb), None) => {
            let image = &order.image.id;
            server["block_device_mapping_v2"] =
                boot_from(json!({"uuid": image, "source_type": "image", "volume_size": volume_gb}));
        }
    }
    json!({"server": server})
}

/// A volume as the disk to boot from, which goes with the server.
fn boot_from(mut device: Value) -> Value {
    device["boot_index"] = 0.into();
    device["destination_type"] = "volume".into();
    device["delete_on_termination"] = true.into();
    json!([device])
}

/// A server as it is now.
pub(crate) async fn view(client: &Client, id: &str) -> Result<ServerView> {
    let ask = Ask::get(Service::Compute, path(&["servers", id])).about("server", id);
    let server: Server = client.object(ask, "server").await?;
    Ok(server.into_view())
}

/// Every server of the project.
pub(crate) async fn all(client: &Client) -> Result<Vec<Server>> {
    client.list(Ask::get(Service::Compute, "/servers/detail").about("server", ""), "servers").await
}

/// What a server has written to its console; the end of it, where the cloud keeps no more.
pub(crate) async fn console(client: &Client, id: &str) -> Result<String> {
    let path = path(&["servers", id, "action"]);
    let ask =
        Ask::post(Service::Compute, path, json!({"os-getConsoleOutput": {}})).about("console of server", id);
    client.object(ask, "output").await
}

/// An address that others can reach.
#[derive(Debug, Deserialize)]
pub(crate) struct FloatingIp {
    #[serde(flatten)]
    pub(crate) thing: Thing,
    pub(crate) floating_ip_address: IpAddr,
    pub(crate) port_id: Option<String>,
}

/// Gives a server a new address. Asked again after an answer that was lost, it finds the one it made.
pub(crate) async fn add_address(
    client: &Client,
    deployment: &Deployment,
    server: &ServerView,
    journal: &Journal,
) -> Result<IpAddr> {
    let site = Site { client, deployment, journal };
    let (port, inside) = way_in(client, deployment, server).await?;
    if let Some(address) = made_before(&site, &port).await? {
        let entry = journal.plan(Kind::FloatingIp, &server.name).await?;
        journal.made(entry, &address.thing.id).await?;
        return Ok(address.floating_ip_address);
    }
    let outside = outside::network(client, &deployment.ground).await?;
    let body = json!({"floatingip": {
        "floating_network_id": outside,
        "port_id": port,
        "fixed_ip_address": inside,
        "description": deployment.id.tag(),
    }});
    let mut address = None;
    let create = async {
        let ask =
            Ask::post(Service::Network, path(&["floatingips"]), body).about("floating IP of", &server.name);
        let made: FloatingIp = client.object(ask, "floatingip").await?;
        address = Some(made.floating_ip_address);
        Ok(made.thing.id)
    };
    let (_, id) = journal.make(Kind::FloatingIp, &server.name, create).await?;
    site.tag(Kind::FloatingIp, "floatingips", &id).await?;
    address.ok_or_else(|| Error::NotFound { kind: "floating IP".to_owned(), name: id })
}

/// The port and address of a server that an external address leads to: in our range, else its first one.
async fn way_in(client: &Client, deployment: &Deployment, server: &ServerView) -> Result<(String, IpAddr)> {
    let ports = network::ports(client, &server.id).await?;
    let addresses: Vec<(String, IpAddr)> = ports
        .into_iter()
        .flat_map(|port| {
            let id = port.thing.id;
            port.fixed_ips.into_iter().map(move |address| (id.clone(), address.ip_address))
        })
        .filter(|(_, address)| address.is_ipv4())
        .collect();
    let in_range = |(_, address): &&(String, IpAddr)| match address {
        IpAddr::V4(address) => deployment.ground.cidr.contains(address),
        IpAddr::V6(_) => false,
    };
    addresses.iter().find(in_range).or(addresses.first()).cloned().ok_or_else(|| Error::NotFound {
        kind: "address".to_owned(),
        name: format!("of server {}, which has none that could be made reachable", server.name),
    })
}

async fn made_before(site: &Site<'_>, port: &str) -> Result<Option<FloatingIp>> {
    let path = query(&path(&["floatingips"]), &[("port_id", port)]);
    let ask = Ask::get(Service::Network, path).about("floating IP", port);
    let there: Vec<FloatingIp> = site.client.list(ask, "floatingips").await?;
    let is_ours = |address: &FloatingIp| {
        address.port_id.as_deref() == Some(port)
            && site.deployment.id.owner_by_tags(address.thing.marks()) == Owner::Us
    };
    Ok(there.into_iter().find(is_ours))
}
