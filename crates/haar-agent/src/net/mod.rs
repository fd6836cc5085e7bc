//! Host networking, first cut: a bridge per network with the gateways' addresses, and NAT where asked.
//!
//! Every call is "make it so". Bridges carry the cloud's id in their names; nothing else on the host is
//! changed: a bridge that the operator named is only looked at, and a range that the host already routes
//! elsewhere is refused. Routing is switched on only when a network asks for NAT, after the rules are in force,
//! and never off again: others may rely on it.

pub mod bridge;
mod foreign;
pub(crate) mod keep;
pub mod nft;
mod routes;
mod routing;

pub use foreign::{ForwardDrop, forward_drops};
pub(crate) use keep::Networks;

use haar_core::address::bridge_name;
use haar_core::id::{CloudId, NetworkId};
use haar_core::order::NetworkOrder;
use haar_core::ruleset;
use ipnet::IpNet;

/// Why the host's network could not be made so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a change of a link or an address.
    #[error("cannot {doing} bridge {bridge}")]
    Link {
        /// What was tried.
        doing: &'static str,
        /// Which bridge.
        bridge: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// No talk with the kernel at all.
    #[error("cannot open a netlink socket; is this process root?")]
    Netlink(#[source] std::io::Error),
    /// The name is somebody else's.
    #[error("{0} exists and is no bridge; it is left alone, remove or rename it")]
    NotABridge(String),
    /// The operator named a bridge that is not there.
    #[error("there is no bridge {0} on this host; make it, or name another one for this hypervisor's subnet")]
    NoBridge(String),
    /// The operator named a bridge that is switched off.
    #[error("bridge {0} is down and not Haar's to switch on: ip link set {0} up")]
    BridgeDown(String),
    /// The host already reaches that range through another link.
    #[error(
        "the host already routes {taken} through {link}, and {range} of bridge {bridge} would take it over; \
         give the subnet another range, or remove that route"
    )]
    RangeTaken {
        /// The bridge that would get it.
        bridge: String,
        /// The range that is wanted.
        range: IpNet,
        /// The range that is routed.
        taken: IpNet,
        /// Where to.
        link: String,
    },
    /// The routes cannot be read.
    #[error("cannot read the host's routes")]
    Routes(#[source] rtnetlink::Error),
    /// Routing IPv6 would cost the host its own default route.
    #[error(
        "cannot have {link} go on taking IPv6 router advertisements (accept_ra=2); \
         with routing on, the host would lose its own default route"
    )]
    Advertisements {
        /// Which link.
        link: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// nft is missing or refused.
    #[error("nft refused the ruleset: {0}")]
    Nft(String),
    /// A kernel switch could not be set.
    #[error("cannot switch on routing ({path})")]
    Forwarding {
        /// Which switch.
        path: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Makes the bridges of these networks, and exactly their rules.
///
/// # Errors
/// The first thing that could not be made so; what was made stays and is taken up by the next call.
pub async fn ensure(cloud: CloudId, networks: &[NetworkOrder]) -> Result<(), Error> {
    let refused = make(cloud, networks).await?;
    refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}

/// As [`ensure`], but one network that cannot be made keeps no other from being made: answers which cannot.
///
/// # Errors
/// What concerns them all: netlink, the rules, or routing.
pub(crate) async fn make(
    cloud: CloudId,
    networks: &[NetworkOrder],
) -> Result<Vec<(NetworkId, Error)>, Error> {
    let bridges = bridge::Bridges::open()?;
    let (mut ruled, mut refused) = (Vec::new(), Vec::new());
    for network in networks {
        let name = &network.bridge;
        let is_ours = *name == bridge_name(cloud, network.id);
        let made = if is_ours {
            bridges.ensure(name, &network.gateways).await
        } else {
            bridges.is_usable(name).await
        };
        // What is somebody else's gets no rules either; what the kernel refused just now may have guests.
        if matches!(made, Ok(()) | Err(Error::Link { .. })) {
            ruled.push(network.clone());
        }
        refused.extend(made.err().map(|error| (network.id, error)));
    }
    nft::load(&ruleset::compile(cloud, &ruled)).await?;
    routing::forward_where_asked(&bridges, &ruled).await?;
    Ok(refused)
}

/// Removes the bridges of this cloud that no network of `keep` needs and nothing is plugged into, and the rules
/// if no network is left.
///
/// # Errors
/// As [`ensure`].
pub async fn prune(cloud: CloudId, keep: &[NetworkOrder]) -> Result<(), Error> {
    let bridges = bridge::Bridges::open()?;
    let prefix = bridge_prefix(cloud);
    for name in bridges.named(&prefix).await? {
        if keep.iter().any(|network| network.bridge == name) {
            continue;
        }
        if bridges.has_ports(&name).await? {
            tracing::warn!(
                bridge = name,
                "no guest known here needs it, yet something is plugged in: left alone"
            );
            continue;
        }
        bridges.remove(&name).await?;
    }
    if keep.is_empty() { nft::load(&ruleset::remove(cloud)).await } else { Ok(()) }
}

/// What the names of all bridges of this cloud begin with, and no other cloud's.
fn bridge_prefix(cloud: CloudId) -> String {
    format!("hr{}-", &cloud.0.simple().to_string()[..4])
}
