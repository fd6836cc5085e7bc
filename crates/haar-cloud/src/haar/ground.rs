//! What guests stand on: a firewall group, a network with NAT, and a subnet of it.
//!
//! Each is found by its name, or made. What is found and is not ours is used and left alone. Networks of a Haar
//! cloud do not share addresses, so that a deployment takes a free part of the range asked for, and another one
//! has room beside it. A network that is there with a range outside is named, and not changed under its guests.

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{
    List, MOST_LIMIT, NetworkCreate, NetworkView, Ref, SubnetCreate, SubnetListQuery, SubnetView,
};
use ipnet::{IpNet, Ipv4Net};

use super::label::{derived_id, is_ours, label, marks};
use super::{HaarCloud, fault, firewall};
use crate::journal::Journal;
use crate::provider::Deployment;
use crate::state::Kind;
use crate::{Error, Result};

/// How long the prefix of a deployment's range is, if no shorter one is asked for: room for a thousand guests.
const PREFIX: u8 = 22;
/// The most name servers of a subnet.
const MOST_NAME_SERVERS: usize = 3;

/// What [`deploy`] makes where nothing is.
pub(super) fn needed(deployment: &Deployment) -> Vec<(Kind, String)> {
    let group = (!deployment.ground.ports.is_empty()).then_some(Kind::SecurityGroup);
    let kinds = group.into_iter().chain([Kind::Network, Kind::Subnet]);
    kinds.map(|kind| (kind, deployment.name.to_string())).collect()
}

/// Makes all of it, or finds it.
pub(super) async fn deploy(cloud: &HaarCloud, deployment: &Deployment, journal: &Journal) -> Result<()> {
    deployment.ground.check()?;
    if !deployment.ground.ports.is_empty() {
        firewall::ensure(cloud, deployment, journal).await?;
    }
    let network = ensure_network(cloud, deployment, journal).await?;
    ensure_subnet(cloud, deployment, journal, &network).await
}

async fn ensure_network(cloud: &HaarCloud, deployment: &Deployment, journal: &Journal) -> Result<String> {
    let name = deployment.name.as_str();
    let networks: Vec<NetworkView> = cloud.all::<t::NetworkList, _>("network", Some(&label(name))).await?;
    if let Some(network) = networks.first() {
        let id = network.id.to_string();
        let is_ours = is_ours(deployment.id, Kind::Network, name, &network.metadata)?;
        keep(journal, Kind::Network, name, &id, is_ours).await?;
        return Ok(id);
    }
    let body = NetworkCreate {
        name: label(name),
        project: Some(cloud.project.clone()),
        metadata: marks(deployment.id, name),
        nat: true,
        ..NetworkCreate::default()
    };
    let id = derived_id(deployment.id, Kind::Network).to_string();
    let create = async {
        let made = cloud.ask::<t::NetworkPut>("network", &id, &body).await?;
        Ok(made.id.to_string())
    };
    journal.make(Kind::Network, name, create).await.map(|(_, id)| id)
}

async fn ensure_subnet(
    cloud: &HaarCloud,
    deployment: &Deployment,
    journal: &Journal,
    network: &str,
) -> Result<()> {
    let name = deployment.name.as_str();
    let subnets = subnets_of(cloud, network).await?;
    if let Some(subnet) = fitting(deployment, &subnets)? {
        let is_ours = is_ours(deployment.id, Kind::Subnet, name, &subnet.metadata)?;
        return keep(journal, Kind::Subnet, name, &subnet.id.to_string(), is_ours).await;
    }
    let ground = &deployment.ground;
    let range = free_range(cloud, ground.cidr).await?;
    let gateway = if range.contains(&ground.gateway) { Some(ground.gateway) } else { range.hosts().next() };
    let dns = ground.dns.iter().take(MOST_NAME_SERVERS).map(ToString::to_string);
    let body = SubnetCreate {
        name: label(name),
        project: Some(cloud.project.clone()),
        metadata: marks(deployment.id, name),
        network: Ref::from(network),
        cidr: range.to_string(),
        gateway: Some(gateway.map(|gateway| gateway.to_string())),
        dns: dns.collect(),
        ..SubnetCreate::default()
    };
    let id = derived_id(deployment.id, Kind::Subnet).to_string();
    let create = async {
        let made = cloud.ask::<t::SubnetPut>("subnet", &id, &body).await?;
        Ok(made.id.to_string())
    };
    journal.make(Kind::Subnet, name, create).await.map(drop)
}

/// The subnet within the wanted range. A network that has only others will not do, whosever it is: its guests would
/// have addresses that nobody expects.
fn fitting<'a>(deployment: &Deployment, subnets: &'a [SubnetView]) -> Result<Option<&'a SubnetView>> {
    let wanted = IpNet::V4(deployment.ground.cidr.trunc());
    let within = subnets.iter().find(|subnet| range_of(subnet).is_some_and(|range| wanted.contains(&range)));
    if within.is_none() && !subnets.is_empty() {
        let ranges: Vec<String> = subnets.iter().map(|subnet| subnet.cidr.to_string()).collect();
        return Err(Error::Conflict {
            what: format!("network {}", label(deployment.name.as_str())),
            message: format!("its range is {}, and {wanted} was asked for", ranges.join(" and ")),
        });
    }
    Ok(within)
}

fn range_of(subnet: &SubnetView) -> Option<IpNet> {
    subnet.cidr.to_string().parse().ok()
}

/// A part of the wanted range that no network of the cloud has, in whatever project.
async fn free_range(cloud: &HaarCloud, wanted: Ipv4Net) -> Result<Ipv4Net> {
    let taken: Vec<SubnetView> = cloud.all_of_every_project::<t::SubnetList, _>("subnet").await?;
    let taken: Vec<IpNet> = taken.iter().filter_map(range_of).collect();
    free_part(wanted.trunc(), &taken).ok_or_else(|| Error::Conflict {
        what: format!("the range {}", wanted.trunc()),
        message: "other networks of the cloud have all of it, and none may share addresses".to_owned(),
    })
}

fn free_part(wanted: Ipv4Net, taken: &[IpNet]) -> Option<Ipv4Net> {
    let parts = wanted.subnets(wanted.prefix_len().max(PREFIX)).ok()?;
    let meets = |part: IpNet, other: &IpNet| part.contains(other) || other.contains(&part);
    parts.into_iter().find(|part| !taken.iter().any(|other| meets(IpNet::V4(*part), other)))
}

/// Every subnet of a network.
async fn subnets_of(cloud: &HaarCloud, network: &str) -> Result<Vec<SubnetView>> {
    let query = SubnetListQuery {
        limit: Some(MOST_LIMIT),
        network: Some(network.to_owned()),
        ..SubnetListQuery::default()
    };
    let sent = cloud.client.request::<t::SubnetList>(&[]).query(query).send(&Nothing).await;
    let page: List<SubnetView> = sent.map_err(|error| fault::error("network", network, error))?.value;
    Ok(page.items)
}

/// Notes what was found.
async fn keep(journal: &Journal, kind: Kind, name: &str, id: &str, is_ours: bool) -> Result<()> {
    if is_ours {
        journal.make(kind, name, async { Ok(id.to_owned()) }).await.map(drop)
    } else {
        journal.reuse(kind, name, id).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployments_stand_beside_each_other_in_the_range_they_ask_for() {
        let net = |text: &str| text.parse::<Ipv4Net>().unwrap();
        let taken =
            |ranges: &[&str]| ranges.iter().map(|range| range.parse().unwrap()).collect::<Vec<IpNet>>();
        for (wanted, others, expected) in [
            ("192.168.64.0/18", vec![], Some("192.168.64.0/22")),
            (
                "192.168.64.0/18",
                vec!["192.168.64.0/22", "192.168.68.7/32", "fd00::/8"],
                Some("192.168.72.0/22"),
            ),
            ("10.0.0.0/24", vec!["10.0.1.0/24"], Some("10.0.0.0/24")),
            ("10.0.0.0/24", vec!["10.0.0.128/25"], None),
            ("10.0.0.0/20", vec!["10.0.0.0/8"], None),
        ] {
            assert_eq!(free_part(net(wanted), &taken(&others)), expected.map(net), "{wanted} {others:?}");
        }
    }
}
