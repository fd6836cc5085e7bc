//! libvirt networks, one per MAC: only for callers that speak the seed's language alone
//! (`mistify-wire` §3.4). Haar's own guests hang on bridges that the agent makes.

use haar_api::rpc::{Fault, Nic};
use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt::network::Network;

use crate::connection::fault;
use crate::xml::{self, Switch};

/// Whether a network was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ensured {
    Made,
    Found,
}

/// Makes the nic's network, or leaves it when it is there; it is active and starts with libvirtd. A network that was
/// defined here and cannot be started is removed again.
///
/// # Errors
/// `invalid` when MAC or bridge is missing or malformed; libvirt's otherwise.
pub(crate) fn ensure(connection: &Connect, nic: &Nic, switch: Switch) -> Result<Ensured, Fault> {
    let xml = xml::network(nic, switch)?;
    if let Some(network) = find(connection, &nic.mac)? {
        return activate(&network).map(|()| Ensured::Found);
    }
    let network = Network::define_xml(connection, &xml).map_err(|e| fault("define the network", &e))?;
    activate(&network).inspect_err(|_| {
        // The reason is told; that something is left then is the lesser evil.
        let _ = network.undefine();
    })?;
    Ok(Ensured::Made)
}

fn activate(network: &Network) -> Result<(), Fault> {
    if !network.get_autostart().map_err(|e| fault("read the network", &e))? {
        network.set_autostart(true).map_err(|e| fault("set the network's autostart", &e))?;
    }
    if !network.is_active().map_err(|e| fault("read the network", &e))? {
        network.create().map_err(|e| fault("start the network", &e))?;
    }
    Ok(())
}

/// Removes the network of that name, active or not; an absent one is fine.
///
/// # Errors
/// libvirt's.
pub(crate) fn remove(connection: &Connect, name: &str) -> Result<(), Fault> {
    let Some(network) = find(connection, name)? else { return Ok(()) };
    if network.is_active().map_err(|e| fault("read the network", &e))? {
        network.destroy().map_err(|e| fault("stop the network", &e))?;
    }
    match network.undefine() {
        // A network that was only running is gone once stopped.
        Err(error) if error.code() != ErrorNumber::NoNetwork => Err(fault("remove the network", &error)),
        _ => Ok(()),
    }
}

fn find(connection: &Connect, name: &str) -> Result<Option<Network>, Fault> {
    match Network::lookup_by_name(connection, name) {
        Ok(network) => Ok(Some(network)),
        Err(error) if error.code() == ErrorNumber::NoNetwork => Ok(None),
        Err(error) => Err(fault("look for the network", &error)),
    }
}
