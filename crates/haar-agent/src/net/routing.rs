//! Switching routing on, where a network asks for NAT, without costing the host its own routes.

use haar_core::order::NetworkOrder;

use super::bridge::Bridges;
use super::{Error, routes};

const V4: &str = "/proc/sys/net/ipv4/ip_forward";
const V6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

/// Routes the families for which some network asks for NAT.
pub(super) async fn forward_where_asked(bridges: &Bridges, networks: &[NetworkOrder]) -> Result<(), Error> {
    let asked = |v4: bool| {
        networks.iter().any(|n| n.nat && n.gateways.iter().any(|(address, _)| address.is_ipv4() == v4))
    };
    if asked(true) && !is_on(V4) {
        switch_on(V4)?;
    }
    if asked(false) && !is_on(V6) {
        keep_advertisements(bridges).await?;
        switch_on(V6)?;
    }
    Ok(())
}

fn is_on(path: &str) -> bool {
    // What cannot be read is written, and that says why not.
    std::fs::read_to_string(path).is_ok_and(|value| value.trim() != "0")
}

fn switch_on(path: &'static str) -> Result<(), Error> {
    std::fs::write(path, "1\n").map_err(|source| Error::Forwarding { path, source })?;
    tracing::info!(path, "routing was off and is on now, for NAT; rules of Haar judge only its own bridges");
    Ok(())
}

/// The kernel drops advertised default routes when routing begins, unless told otherwise link by link.
async fn keep_advertisements(bridges: &Bridges) -> Result<(), Error> {
    for link in routes::advertised_by(&bridges.handle).await? {
        let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
        // Zero: the kernel does not listen on this link, some program does, and it goes on doing so.
        let listens = std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1");
        if listens {
            std::fs::write(&path, "2\n").map_err(|source| Error::Advertisements { link, source })?;
        }
    }
    Ok(())
}
