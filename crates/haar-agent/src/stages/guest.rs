//! The stages of the libvirt sub-agent, and an order as the sub-agents' wire says it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use haar_api::rpc::{self, Fault, FaultCode};
use haar_core::id::CloudId;
use haar_core::node::{Outcome, StageCall};

use super::{Deadline, Hands, Went, not_told};
use crate::call::Ended;
use crate::claim;
use crate::link::Link;

/// Between two looks whether a guest has powered off.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After this many looks the power button is pressed again: a guest that boots does not hear it yet.
const PRESS_AGAIN: u32 = 20;
/// A look may take this long.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// The order as sub-agents are told it; without bridge and seed.
pub(super) fn rpc_guest(cloud: CloudId, call: &StageCall) -> rpc::Guest {
    let order = &call.order;
    let image = order.image.to_string();
    rpc::Guest {
        id: order.id.to_string(),
        kind: "kvm".to_owned(),
        image: image.clone(),
        memory: order.resources.memory.0,
        cpu: order.resources.cpu,
        disks: vec![rpc::Disk {
            bus: "virtio".to_owned(),
            device: "vda".to_owned(),
            size: order.resources.disk.0,
            image,
            ..rpc::Disk::default()
        }],
        haar: Some(rpc::GuestExtra {
            cloud: cloud.to_string(),
            name: order.name.to_string(),
            order: order.order.to_string(),
            life: order.life.to_string(),
            provisioned: order.provisioned,
            claim: claim::encode(&order.claim()),
            accel: "auto".to_owned(),
            ..rpc::GuestExtra::default()
        }),
        ..rpc::Guest::default()
    }
}

fn nic(call: &StageCall) -> Result<rpc::Nic, Ended> {
    let order = &call.order;
    let network = call.network.as_ref().ok_or_else(|| not_told("network"))?;
    Ok(rpc::Nic {
        name: "eth0".to_owned(),
        network: network.bridge.clone(),
        model: "virtio".to_owned(),
        mac: order.mac.to_string(),
        address: order.address.to_string(),
        netmask: netmask(order.address, order.prefix),
        gateway: order.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        ..rpc::Nic::default()
    })
}

/// Dotted for v4, the prefix's length for v6.
pub(crate) fn netmask(address: IpAddr, prefix: u8) -> String {
    match address {
        IpAddr::V4(_) => {
            let zeros = 32_u32.saturating_sub(u32::from(prefix));
            Ipv4Addr::from(u32::MAX.checked_shl(zeros).unwrap_or(0)).to_string()
        }
        IpAddr::V6(_) => prefix.to_string(),
    }
}

impl<L: Link> Hands<L> {
    /// The domain is defined, with the disks as they are.
    pub(super) async fn define(&self, call: &StageCall, deadline: Deadline) -> Went {
        let mut guest = rpc_guest(self.cloud, call);
        guest.nics = vec![nic(call)?];
        guest.disks = self.made_disks(call, deadline).await?;
        if let Some(extra) = &mut guest.haar {
            extra.seed = self.seed_path(call).to_string_lossy().into_owned();
        }
        self.libvirt_change("Libvirt.CreateGuest", guest, deadline).await
    }

    /// The domain runs.
    pub(super) async fn start(&self, call: &StageCall, deadline: Deadline) -> Went {
        self.on_guest("Libvirt.Run", call, deadline).await
    }

    /// One call on the guest's domain.
    pub(super) async fn on_guest(&self, method: &str, call: &StageCall, deadline: Deadline) -> Went {
        self.libvirt_change(method, rpc_guest(self.cloud, call), deadline).await
    }

    async fn libvirt_change(&self, method: &str, guest: rpc::Guest, deadline: Deadline) -> Went {
        let request = rpc::GuestRequest { guest: Some(guest), ..rpc::GuestRequest::default() };
        let _: rpc::GuestResponse = self.libvirt.change(method, &request, deadline.left()).await?;
        Ok(Outcome::Done)
    }

    /// The guest was asked to power off, and did.
    pub(super) async fn shutdown(&self, call: &StageCall, deadline: Deadline) -> Went {
        let mut looks = 0_u32;
        loop {
            if looks.is_multiple_of(PRESS_AGAIN) {
                self.on_guest("Libvirt.Shutdown", call, deadline).await?;
            }
            let state = self.status(call, deadline.left()).await?.state;
            if matches!(state.as_str(), "shutoff" | "crashed") {
                return Ok(Outcome::Done);
            }
            looks += 1;
            if deadline.left() <= LOOK_EVERY {
                let seconds = call.deadline_ms / 1000;
                let text = format!("the guest was asked to power off and still runs after {seconds} s");
                return Err(Fault::new(FaultCode::Unavailable, text).into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Domain and disks of this life are there.
    pub(super) async fn inspect(&self, call: &StageCall, deadline: Deadline) -> Went {
        self.status(call, deadline.left()).await?;
        let request = rpc::VolumeRequest { id: format!("guests/{}", call.order.id), size: 0 };
        let limit = deadline.left().min(LOOK_LIMIT);
        let found: rpc::VolumeResponse = self.storage.ask("ImageStore.ListVolumes", &request, limit).await?;
        let life = call.order.life.to_string();
        let of_this_life =
            |volume: &rpc::Volume| volume.haar.as_ref().is_some_and(|extra| extra.life == life);
        if found.volumes.iter().any(of_this_life) {
            return Ok(Outcome::Done);
        }
        let text = format!("the disks of guest {} are not on this host", call.order.id);
        Err(Fault::new(FaultCode::Lost, text).into())
    }

    async fn status(&self, call: &StageCall, left: Duration) -> Result<rpc::Guest, Fault> {
        let guest = rpc_guest(self.cloud, call);
        let request = rpc::GuestRequest { guest: Some(guest), ..rpc::GuestRequest::default() };
        let answer: rpc::GuestResponse =
            self.libvirt.ask("Libvirt.Status", &request, left.min(LOOK_LIMIT)).await?;
        Ok(answer.guest.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_netmask_is_dotted() {
        let v4 = "10.0.0.1".parse().unwrap();
        assert_eq!(netmask(v4, 24), "255.255.255.0");
        assert_eq!(netmask(v4, 0), "0.0.0.0");
        assert_eq!(netmask(v4, 32), "255.255.255.255");
        assert_eq!(netmask("fd00::1".parse().unwrap(), 64), "64");
    }
}
