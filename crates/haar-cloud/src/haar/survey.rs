//! What the cloud has of a deployment, by mark or by name, and how it is deleted.

use std::collections::BTreeMap;

use haar_api::client::ClientError;
use haar_api::endpoint::{Endpoint, Nothing};
use haar_api::table as t;
use haar_api::v1::{FwGroupView, GuestView, NetworkView, SubnetView};

use super::ask::id_of;
use super::label::{full_name, given_name, label};
use super::{HaarCloud, fault};
use crate::name::{DeploymentId, Owner, ResourceName};
use crate::provider::Found;
use crate::state::Kind;
use crate::{Error, Result};

/// Everything of it.
pub(super) async fn find(
    cloud: &HaarCloud,
    name: &ResourceName,
    id: Option<DeploymentId>,
) -> Result<Vec<Found>> {
    let look = Look { name, label: label(name.as_str()), id };
    let guests: Vec<GuestView> = cloud.all::<t::GuestList, _>("server", None).await?;
    let subnets: Vec<SubnetView> = cloud.all::<t::SubnetList, _>("subnet", None).await?;
    let networks: Vec<NetworkView> = cloud.all::<t::NetworkList, _>("network", None).await?;
    let groups: Vec<FwGroupView> = cloud.all::<t::FwGroupList, _>("firewall group", None).await?;
    let servers = guests.iter().map(|it| (Kind::Server, it.name.as_str(), it.id.to_string(), &it.metadata));
    let subnets = subnets.iter().map(|it| (Kind::Subnet, it.name.as_str(), it.id.to_string(), &it.metadata));
    let networks =
        networks.iter().map(|it| (Kind::Network, it.name.as_str(), it.id.to_string(), &it.metadata));
    let groups =
        groups.iter().map(|it| (Kind::SecurityGroup, it.name.as_str(), it.id.to_string(), &it.metadata));
    let all = servers.chain(subnets).chain(networks).chain(groups);
    Ok(all.filter_map(|(kind, name, id, labels)| look.found(kind, name, id, labels)).collect())
}

/// What is looked for.
struct Look<'a> {
    name: &'a ResourceName,
    label: String,
    id: Option<DeploymentId>,
}

impl Look<'_> {
    fn found(&self, kind: Kind, name: &str, id: String, labels: &BTreeMap<String, String>) -> Option<Found> {
        let full = full_name(labels, name);
        let ours = self.id.is_some_and(|us| us.owner_by_metadata(labels) == Owner::Us);
        let is_called_so = match kind {
            Kind::Server => self.name.resembles_server(full),
            // What was given a name is called so by that alone: two names may have one label.
            _ => given_name(labels).map_or(name == self.label, |given| given == self.name.as_str()),
        };
        (ours || is_called_so).then(|| Found { kind, name: full.to_owned(), id, ours })
    }
}

/// Asks for the end of something.
pub(super) async fn delete(cloud: &HaarCloud, kind: Kind, id: &str) -> Result<()> {
    match kind {
        Kind::Server => ask::<t::GuestDelete>(cloud, kind, id).await,
        Kind::Subnet => ask::<t::SubnetDelete>(cloud, kind, id).await,
        Kind::Network => ask::<t::NetworkDelete>(cloud, kind, id).await,
        Kind::SecurityGroup => ask::<t::FwGroupDelete>(cloud, kind, id).await,
        // Nothing of the kind is ever made here.
        _ => Err(Error::NotFound { kind: kind.to_string(), name: id.to_owned() }),
    }
}

async fn ask<E: Endpoint<Body = Nothing>>(cloud: &HaarCloud, kind: Kind, id: &str) -> Result<()> {
    let kind = kind.to_string();
    let path = id_of(&kind, id)?;
    let sent: Result<(), ClientError> = cloud.client.request::<E>(&[&path]).send_only(&Nothing).await;
    sent.map_err(|error| fault::error(&kind, id, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::haar::label::marks;

    #[test]
    fn what_is_called_so_is_found_and_only_what_is_marked_is_ours() {
        let (us, them) = (DeploymentId::random(), DeploymentId::random());
        let name = ResourceName::parse("a b").unwrap();
        let look = Look { name: &name, label: label(name.as_str()), id: Some(us) };
        let found = |kind, label: &str, labels| {
            let found = look.found(kind, label, "1".to_owned(), &labels);
            found.map(|found| (found.name, found.ours))
        };
        let named = |ours| Some(("a b".to_owned(), ours));
        assert_eq!(found(Kind::Network, "a-b", marks(us, "a b")), named(true));
        assert_eq!(found(Kind::Network, "a-b", marks(them, "a b")), named(false));
        assert_eq!(found(Kind::Network, "a-b", BTreeMap::new()), Some(("a-b".to_owned(), false)));
        assert_eq!(found(Kind::Network, "a-b", marks(them, "a-b")), None);
        let server = format!("a b-{}", uuid::Uuid::new_v4());
        assert_eq!(found(Kind::Server, "x", marks(us, &server)), Some((server.clone(), true)));
        assert_eq!(found(Kind::Server, "x", marks(them, &server)), Some((server, false)));
        assert_eq!(found(Kind::Server, "a-b-web", BTreeMap::new()), None);
    }
}
