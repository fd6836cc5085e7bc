//! Host networking, first cut: a bridge per network with the gateways' addresses, and NAT where asked.
//!
//! Every call is "make it so". Bridges carry the cloud's id in their names; nothing else on the host is
//! touched. Routing is switched on only when a network asks for NAT, and never off again: others may rely on it.

pub mod bridge;
pub(crate) mod keep;
pub mod nft;

pub(crate) use keep::Networks;

use haar_core::id::CloudId;
use haar_core::order::NetworkOrder;
use haar_core::ruleset;

/// Why the host's network could not be made so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a change of a link or an address.
    #[error("cannot {doing} bridge {bridge}: {source}")]
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
    let bridges = bridge::Bridges::open()?;
    for network in networks {
        bridges.ensure(&network.bridge, &network.gateways).await?;
    }
    forward_where_asked(networks)?;
    nft::load(&ruleset::compile(cloud, networks)).await
}

/// Removes the bridges of this cloud that no network of `keep` needs and nothing is plugged into, and the rules
/// if no network is left.
///
/// # Errors
/// As [`ensure`].
pub async fn prune(cloud: CloudId, keep: &[NetworkOrder]) -> Result<(), Error> {
    let bridges = bridge::Bridges::open()?;
    let prefix = format!("hr{}-", &cloud.0.simple().to_string()[..4]);
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
    let rules = if keep.is_empty() { ruleset::remove(cloud) } else { ruleset::compile(cloud, keep) };
    nft::load(&rules).await
}

fn forward_where_asked(networks: &[NetworkOrder]) -> Result<(), Error> {
    let asked = |v4: bool| {
        networks.iter().any(|n| n.nat && n.gateways.iter().any(|(address, _)| address.is_ipv4() == v4))
    };
    for (needed, path) in [
        (asked(true), "/proc/sys/net/ipv4/ip_forward"),
        (asked(false), "/proc/sys/net/ipv6/conf/all/forwarding"),
    ] {
        if needed {
            std::fs::write(path, "1\n").map_err(|source| Error::Forwarding { path, source })?;
        }
    }
    Ok(())
}
