//! What servers stand on, in the order in which each thing exists before what needs it.
//!
//! ```text
//!   key pair ─▶ security group, its rules ─▶ network ─▶ subnet ─▶ router to the outside ─▶ its interface
//!                                      └─ on a server of this cloud: the networks it is in, nothing made
//! ```
//!
//! Each is found, used or made by itself, so a deploy that broke off goes on where it was. What servers
//! need later is noted as facts of the record: the ids of networks and group. The networks of our own server
//! are looked up before anything is made, since a range that it is not in is an error.

use haar_cloud::provider::Deployment;
use haar_cloud::state::Kind;
use haar_cloud::{Journal, Result};

use crate::client::Client;
use crate::thing::Site;

pub(crate) mod key_pair;
pub(crate) mod network;
pub(crate) mod outside;
pub(crate) mod router;
pub(crate) mod security_group;

/// The facts of the record.
const NETWORKS: &str = "networks";
const SECURITY_GROUP: &str = "security_group";

/// Makes or finds everything; `here` is our own server, if we run on one.
pub(crate) async fn deploy(
    client: &Client,
    deployment: &Deployment,
    journal: &Journal,
    here: Option<&str>,
) -> Result<()> {
    deployment.ground.check()?;
    let site = Site { client, deployment, journal };
    let own = match here {
        Some(server) => Some(network::of_server(&site, server).await?),
        None => None,
    };
    key_pair::settle(&site).await?;
    let group = security_group::settle(&site).await?;
    let networks = match own {
        Some(networks) => networks,
        None => vec![around(&site).await?],
    };
    let networks = networks.join(",");
    let note = move |record: &mut haar_cloud::state::Record| {
        record.set_fact(NETWORKS, &networks);
        record.set_fact(SECURITY_GROUP, group.as_deref().unwrap_or_default());
        Ok(())
    };
    journal.change(note).await
}

/// A network of our own, with a way out; its id.
async fn around(site: &Site<'_>) -> Result<String> {
    let network = network::settle(site).await?;
    let subnet = network::settle_subnet(site, &network).await?;
    let router = router::settle(site).await?;
    router::settle_interface(site, &router, &network, &subnet).await?;
    Ok(network)
}

/// What a deploy makes where nothing is there yet; on a server of this cloud no network of its own.
pub(crate) fn needed(deployment: &Deployment, here: Option<&str>) -> Vec<(Kind, String)> {
    let group = (!deployment.ground.ports.is_empty()).then_some(Kind::SecurityGroup);
    let around = [Kind::Network, Kind::Subnet, Kind::Router, Kind::RouterInterface];
    let around = around.into_iter().filter(|_| here.is_none());
    let kinds = std::iter::once(Kind::KeyPair).chain(group).chain(around);
    kinds.map(|kind| (kind, deployment.name.to_string())).collect()
}

/// What a new server is put on.
pub(crate) struct Footing {
    /// Networks, the first one first.
    pub(crate) networks: Vec<String>,
    /// Our security group.
    pub(crate) security_group: Option<String>,
}

/// What the last deploy noted.
///
/// # Errors
/// [`haar_cloud::Error::NotFound`] where nothing was deployed.
pub(crate) async fn footing(deployment: &Deployment, journal: &Journal) -> Result<Footing> {
    let record = journal.on_disk(haar_cloud::state::Store::load).await?;
    let fact = |key: &str| record.as_ref()?.fact(key).filter(|fact| !fact.is_empty()).map(str::to_owned);
    let (networks, security_group) = (fact(NETWORKS), fact(SECURITY_GROUP));
    let Some(networks) = networks else {
        let name = format!("{}; deploy it first", deployment.name);
        return Err(haar_cloud::Error::NotFound { kind: "deployment".to_owned(), name });
    };
    Ok(Footing { networks: networks.split(',').map(str::to_owned).collect(), security_group })
}
