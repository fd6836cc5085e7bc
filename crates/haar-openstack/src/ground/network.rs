//! The network of the servers, and its subnet.
//!
//! On a server of this cloud nothing is made: the network whose subnet has the wanted range is the first
//! one of new servers, and every other that our own server is in comes after it. Elsewhere a network is
//! made, or used, by its name. A subnet that differs from what is wanted is told, and never used as it is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use haar_cloud::state::Kind;
use haar_cloud::{Error, Result};
use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::json;

use crate::client::{Ask, Client, Service, path, query};
use crate::thing::{Marked, Site, Thing, Whose};

const NETWORKS: &str = "networks";
const SUBNETS: &str = "subnets";

#[derive(Debug, Deserialize)]
pub(crate) struct Subnet {
    #[serde(flatten)]
    thing: Thing,
    pub(crate) network_id: String,
    cidr: String,
    gateway_ip: Option<IpAddr>,
    #[serde(default)]
    dns_nameservers: Vec<IpAddr>,
}

impl Marked for Subnet {
    fn thing(&self) -> &Thing {
        &self.thing
    }
}

/// A port, as far as anybody here needs it.
#[derive(Debug, Deserialize)]
pub(crate) struct Port {
    #[serde(flatten)]
    pub(crate) thing: Thing,
    pub(crate) network_id: String,
    #[serde(default)]
    pub(crate) device_id: String,
    #[serde(default)]
    pub(crate) device_owner: String,
    #[serde(default)]
    pub(crate) fixed_ips: Vec<FixedIp>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FixedIp {
    pub(crate) subnet_id: String,
    pub(crate) ip_address: IpAddr,
}

/// The ports of a device.
pub(crate) async fn ports(client: &Client, device: &str) -> Result<Vec<Port>> {
    let path = query(&path(&["ports"]), &[("device_id", device)]);
    client.list(Ask::get(Service::Network, path).about("port", device), "ports").await
}

/// The networks that servers of ours may be put in by this name: an administrator's list has everybody's,
/// and one that leads out is for routers.
pub(crate) async fn named(client: &Client, name: &str) -> Result<Vec<Thing>> {
    #[derive(Deserialize)]
    struct Network {
        #[serde(flatten)]
        thing: Thing,
        project_id: Option<String>,
        #[serde(default)]
        shared: bool,
        #[serde(default, rename = "router:external")]
        external: bool,
    }
    let project = client.project().await?;
    let path = query(&path(&[NETWORKS]), &[("name", name)]);
    let ask = Ask::get(Service::Network, path).about("network", name);
    let there: Vec<Network> = client.list(ask, "networks").await?;
    let may_be = |network: &Network| {
        let ours = network.project_id.as_deref().is_none_or(|owner| owner == project);
        (ours || network.shared) && !network.external
    };
    Ok(there.into_iter().filter(may_be).map(|network| network.thing).collect())
}

/// Makes it or finds it; its id.
pub(crate) async fn settle(site: &Site<'_>) -> Result<String> {
    match site.find(Kind::Network, named(site.client, site.name()).await?).await? {
        Some((network, whose)) => {
            if whose == Whose::Ours {
                site.repair_tag(Kind::Network, NETWORKS, &network).await?;
            }
            Ok(network.id)
        }
        None => {
            let body = json!({"network": {"name": site.name(), "admin_state_up": true}});
            site.make(Kind::Network, NETWORKS, "network", body).await
        }
    }
}

/// The subnets of a network.
pub(crate) async fn subnets(client: &Client, network: &str) -> Result<Vec<Subnet>> {
    let path = query(&path(&[SUBNETS]), &[("network_id", network)]);
    client.list(Ask::get(Service::Network, path).about("subnet", network), "subnets").await
}

/// Makes the network's subnet, or finds the one that is as wanted; its id.
pub(crate) async fn settle_subnet(site: &Site<'_>, network: &str) -> Result<String> {
    let ground = &site.deployment.ground;
    let there = subnets(site.client, network).await?;
    let is_wanted = |subnet: &Subnet| subnet.cidr.parse::<Ipv4Net>() == Ok(ground.cidr.trunc());
    let ranges: Vec<String> = there.iter().map(|subnet| subnet.cidr.clone()).collect();
    let wanted: Vec<Subnet> = there.into_iter().filter(is_wanted).collect();
    if wanted.is_empty() && !ranges.is_empty() {
        let message = format!(
            "network {network} has {} and not {}; deploy with that range, or under another name",
            ranges.join(", "),
            ground.cidr.trunc()
        );
        return Err(Error::Conflict { what: format!("subnet {}", site.name()), message });
    }
    match site.find(Kind::Subnet, wanted).await? {
        Some((subnet, whose)) => {
            check_gateway(site, &subnet)?;
            if whose == Whose::Ours {
                site.repair_tag(Kind::Subnet, SUBNETS, &subnet.thing).await?;
                repair_name_servers(site, &subnet).await?;
            }
            Ok(subnet.thing.id)
        }
        None => {
            let body = json!({"subnet": {
                "name": site.name(),
                "network_id": network,
                "ip_version": 4,
                "cidr": ground.cidr.trunc().to_string(),
                "gateway_ip": ground.gateway,
                "dns_nameservers": ground.dns,
            }});
            site.make(Kind::Subnet, SUBNETS, "subnet", body).await
        }
    }
}

fn check_gateway(site: &Site<'_>, subnet: &Subnet) -> Result<()> {
    let wanted = site.deployment.ground.gateway;
    if subnet.gateway_ip == Some(IpAddr::V4(wanted)) {
        return Ok(());
    }
    let there = subnet.gateway_ip.map_or("no gateway".to_owned(), |gateway| format!("the gateway {gateway}"));
    let message = format!("it has {there} and not {wanted}; deploy with that, or under another name");
    Err(Error::Conflict { what: format!("subnet {} ({})", site.name(), subnet.thing.id), message })
}

async fn repair_name_servers(site: &Site<'_>, subnet: &Subnet) -> Result<()> {
    let wanted = &site.deployment.ground.dns;
    if subnet.dns_nameservers == *wanted {
        return Ok(());
    }
    let body = json!({"subnet": {"dns_nameservers": wanted}});
    let ask = Ask::put(Service::Network, path(&[SUBNETS, &subnet.thing.id]), body);
    site.client.done(ask.about("subnet", site.name())).await
}

/// The networks of our own server, the one with the wanted range first.
///
/// # Errors
/// [`Error::BadInput`] where none has it; nothing was made.
pub(crate) async fn of_server(site: &Site<'_>, server: &str) -> Result<Vec<String>> {
    let wanted = site.deployment.ground.cidr.trunc();
    let (mut first, mut others, mut ranges) = (None, Vec::new(), Vec::new());
    for port in ports(site.client, server).await? {
        for address in &port.fixed_ips {
            let ask = Ask::get(Service::Network, path(&[SUBNETS, &address.subnet_id]));
            let subnet: Subnet =
                site.client.object(ask.about("subnet", &address.subnet_id), "subnet").await?;
            if subnet.cidr.parse::<Ipv4Net>() == Ok(wanted) {
                first = Some(subnet.network_id.clone());
            }
            ranges.push(subnet.cidr);
        }
        others.push(port.network_id);
    }
    let Some(first) = first else {
        let why = format!("this server of the cloud is in {}: one of them it must be", ranges.join(", "));
        return Err(Error::BadInput { what: "the range of addresses", value: wanted.to_string(), why });
    };
    // A server may have several ports in one network.
    let mut known = BTreeSet::from([first.clone()]);
    others.retain(|network| known.insert(network.clone()));
    site.journal.reuse(Kind::Network, &first, &first).await?;
    Ok(std::iter::once(first).chain(others).collect())
}
