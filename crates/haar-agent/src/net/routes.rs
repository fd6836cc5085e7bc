//! The host's own routes, as far as Haar must not take them over. Only read, never changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::Error;
use super::bridge::name_of;

/// A route of the main table, default routes left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// What it leads to.
    pub(super) range: IpNet,
    /// Through which link.
    pub(super) link: String,
    /// Whether that range is on the link itself, with no router between.
    pub(super) is_direct: bool,
}

impl Route {
    /// Whether a bridge with this range would draw traffic away that goes this way now.
    ///
    /// A wider range behind a router is no conflict: a narrower one beside it is what routing is for.
    pub(super) fn is_taken_over_by(&self, range: IpNet) -> bool {
        range.contains(&self.range) || (self.is_direct && self.range.contains(&range))
    }
}

/// The routes through all links but those whose names begin with `own`.
pub(super) async fn foreign(handle: &Handle, own: &str) -> Result<Vec<Route>, Error> {
    let names = names(handle).await?;
    let routes = all(handle).await?.into_iter().filter_map(|message| {
        let range = range_of(&message)?;
        let mut links = links_of(&message).filter_map(|index| names.get(&index));
        let link = links.find(|name| !name.starts_with(own))?.clone();
        Some(Route { range, link, is_direct: !has_gateway(&message) })
    });
    Ok(routes.filter(|route| route.range.prefix_len() > 0).collect())
}

/// The links through which a router's advertisement gave the host its IPv6 default route.
pub(super) async fn advertised_by(handle: &Handle) -> Result<Vec<String>, Error> {
    let names = names(handle).await?;
    let mut links: Vec<String> = Vec::new();
    for message in all(handle).await? {
        let header = &message.header;
        if header.protocol == RouteProtocol::Ra && header.destination_prefix_length == 0 {
            links.extend(links_of(&message).filter_map(|index| names.get(&index).cloned()));
        }
    }
    links.sort();
    links.dedup();
    Ok(links)
}

async fn names(handle: &Handle) -> Result<BTreeMap<u32, String>, Error> {
    let links: Vec<_> = handle.link().get().execute().try_collect().await.map_err(Error::Routes)?;
    Ok(links.iter().filter_map(|link| Some((link.header.index, name_of(link)?))).collect())
}

/// Every unicast route of the main table.
async fn all(handle: &Handle) -> Result<Vec<RouteMessage>, Error> {
    let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let mut routes = Vec::new();
    for family in [v4, v6] {
        let found: Vec<_> =
            handle.route().get(family).execute().try_collect().await.map_err(Error::Routes)?;
        routes.extend(found);
    }
    routes.retain(|route| {
        route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.kind == RouteType::Unicast
    });
    Ok(routes)
}

fn range_of(message: &RouteMessage) -> Option<IpNet> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    IpNet::new(address, message.header.destination_prefix_length).ok()
}

fn links_of(message: &RouteMessage) -> impl Iterator<Item = u32> + '_ {
    message.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    })
}

fn has_gateway(message: &RouteMessage) -> bool {
    message.attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_traffic_goes_to_now_is_taken_over() {
        let route = |range: &str, is_direct| Route {
            range: range.parse().unwrap(),
            link: "eth0".to_owned(),
            is_direct,
        };
        let wanted: IpNet = "10.77.0.0/24".parse().unwrap();
        assert!(route("10.77.0.0/24", true).is_taken_over_by(wanted));
        assert!(route("10.77.0.128/25", false).is_taken_over_by(wanted));
        assert!(route("10.0.0.0/8", true).is_taken_over_by(wanted));
        assert!(!route("10.0.0.0/8", false).is_taken_over_by(wanted), "a wider range behind a router");
        assert!(!route("10.78.0.0/24", true).is_taken_over_by(wanted));
        assert!(!route("fd00::/8", true).is_taken_over_by(wanted));
    }
}
