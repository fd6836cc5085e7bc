//! The router that leads out, and its interface in our subnet.
//!
//! A router of ours without a way out gets one; somebody else's must have one. An interface is known by
//! its port, which is also how it is taken away again.

use haar_cloud::name::Owner;
use haar_cloud::state::Kind;
use haar_cloud::{Error, Result};
use serde::Deserialize;
use serde_json::json;

use crate::client::{Ask, Client, Service, path, query};
use crate::ground::network::{self, Port};
use crate::ground::outside;
use crate::thing::{Marked, Site, Thing, Whose};

const COLLECTION: &str = "routers";

#[derive(Debug, Deserialize)]
pub(crate) struct Router {
    #[serde(flatten)]
    thing: Thing,
    external_gateway_info: Option<Gateway>,
}

#[derive(Debug, Deserialize)]
struct Gateway {
    network_id: String,
}

impl Marked for Router {
    fn thing(&self) -> &Thing {
        &self.thing
    }
}

/// What a port of a router says it is, with a plain, a distributed and a highly available router.
pub(crate) fn is_interface(port: &Port) -> bool {
    ["network:router_interface", "network:ha_router_replicated_interface"]
        .iter()
        .any(|owner| port.device_owner.starts_with(owner))
}

/// The routers of this name in our project.
pub(crate) async fn named(client: &Client, name: &str) -> Result<Vec<Router>> {
    let project = client.project().await?;
    let path = query(&path(&[COLLECTION]), &[("name", name), ("project_id", &project)]);
    client.list(Ask::get(Service::Network, path).about("router", name), "routers").await
}

/// Makes it or finds it, with a way out; its id.
pub(crate) async fn settle(site: &Site<'_>) -> Result<String> {
    let found = site.find(Kind::Router, named(site.client, site.name()).await?).await?;
    let Some((router, whose)) = found else {
        let gateway = json!({"network_id": outside::network(site.client, &site.deployment.ground).await?});
        let body = json!({"router": {
            "name": site.name(),
            "admin_state_up": true,
            "external_gateway_info": gateway,
        }});
        return site.make(Kind::Router, COLLECTION, "router", body).await;
    };
    match whose {
        Whose::Ours => {
            site.repair_tag(Kind::Router, COLLECTION, &router.thing).await?;
            if !leads_there(site, &router).await? {
                lead_out(site, &router.thing.id).await?;
            }
        }
        Whose::Theirs if router.external_gateway_info.is_none() => {
            let message = "it is not this deployment's and leads nowhere; give it a gateway, or deploy under another name";
            let what = format!("router {}", site.name());
            return Err(Error::Conflict { what, message: message.to_owned() });
        }
        Whose::Theirs if !leads_there(site, &router).await? => {
            let message = "it is not this deployment's and leads to another external network than the one that was named; name its own, or deploy under another name";
            let what = format!("router {}", site.name());
            return Err(Error::Conflict { what, message: message.to_owned() });
        }
        Whose::Theirs => {}
    }
    Ok(router.thing.id)
}

/// Whether it leads to the external network that was named; any will do where none was. Addresses of another one could
/// not be used behind it.
async fn leads_there(site: &Site<'_>, router: &Router) -> Result<bool> {
    let Some(gateway) = &router.external_gateway_info else { return Ok(false) };
    let ground = &site.deployment.ground;
    if ground.external_network.is_none() && site.client.settings().external_network.is_none() {
        return Ok(true);
    }
    Ok(gateway.network_id == outside::network(site.client, ground).await?)
}

async fn lead_out(site: &Site<'_>, router: &str) -> Result<()> {
    let gateway = json!({"network_id": outside::network(site.client, &site.deployment.ground).await?});
    let body = json!({"router": {"external_gateway_info": gateway}});
    let ask = Ask::put(Service::Network, path(&[COLLECTION, router]), body);
    site.client.done(ask.about("router", site.name())).await
}

/// Gives the router an interface in the subnet, unless it has one.
pub(crate) async fn settle_interface(
    site: &Site<'_>,
    router: &str,
    network: &str,
    subnet: &str,
) -> Result<()> {
    let name = site.name();
    let is_ours = |port: &Port| {
        is_interface(port)
            && port.network_id == network
            && port.fixed_ips.iter().any(|address| address.subnet_id == subnet)
    };
    let port = network::ports(site.client, router).await?.into_iter().find(is_ours);
    if let Some(port) = port {
        let owner = site.deployment.id.owner_by_tags(port.thing.marks());
        let entry = site.journal.find(Kind::RouterInterface, name).await?;
        if owner == Owner::Us || entry.as_ref().is_some_and(|entry| entry.is_ours()) {
            let entry = site.journal.plan(Kind::RouterInterface, name).await?;
            site.journal.made(entry, &port.thing.id).await?;
            return site.repair_tag(Kind::RouterInterface, "ports", &port.thing).await;
        }
        return site.journal.reuse(Kind::RouterInterface, name, &port.thing.id).await.map(drop);
    }
    let create = async {
        #[derive(Deserialize)]
        struct Interface {
            port_id: String,
        }
        let path = path(&[COLLECTION, router, "add_router_interface"]);
        let ask = Ask::put(Service::Network, path, json!({"subnet_id": subnet}));
        let made: Interface = site.client.whole(ask.about("router interface", name)).await?;
        Ok(made.port_id)
    };
    let (_, port) = site.journal.make(Kind::RouterInterface, name, create).await?;
    site.tag(Kind::RouterInterface, "ports", &port).await
}

/// Asks that an interface is taken away, by the id of its port.
pub(crate) async fn delete_interface(client: &Client, port: &str) -> Result<()> {
    let ask = Ask::get(Service::Network, path(&["ports", port])).about("router interface", port);
    let found: Port = client.object(ask, "port").await?;
    if !is_interface(&found) {
        let why = format!("it belongs to `{}`", found.device_owner);
        return Err(Error::BadInput { what: "the router interface", value: port.to_owned(), why });
    }
    let path = path(&[COLLECTION, &found.device_id, "remove_router_interface"]);
    let ask = Ask::put(Service::Network, path, json!({"port_id": port}));
    client.done(ask.about("router interface", port)).await
}
