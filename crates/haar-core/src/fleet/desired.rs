//! The desired set of one hypervisor: complete orders that leave the hands no choices.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Fleet;
use super::placing::unheard_with;
use crate::address::bridge_name;
use crate::guest::{Goal, Guest};
use crate::hypervisor::Hypervisor;
use crate::id::{HypervisorId, ImageId, NetworkId};
use crate::image::Source;
use crate::network::{Network, Reach, Subnet};
use crate::order::{DesiredSet, GuestOrder, ImageOrder, NetworkOrder};

impl Fleet {
    /// All that one hypervisor shall have: every guest with a place on it, those to be removed included,
    /// with their images and networks.
    pub fn desired(&self, hypervisor: HypervisorId) -> Option<DesiredSet> {
        let record = self.hypervisor(hypervisor)?;
        let guests: Vec<GuestOrder> =
            self.guests_on(hypervisor).filter_map(|guest| self.guest_order(guest)).collect();
        let images: BTreeSet<ImageId> = guests.iter().map(|order| order.image).collect();
        let networks: BTreeSet<NetworkId> = guests.iter().map(|order| order.network).collect();
        let images = images.into_iter().filter_map(|id| self.image_order(id)).collect();
        let networks = networks.into_iter().filter_map(|id| self.network(id));
        let networks = networks.map(|network| self.network_order(network, record)).collect();
        let cloud = self.config.cloud;
        Some(DesiredSet { fence: self.fence, cloud, hypervisor, guests, images, networks })
    }

    fn guest_order(&self, guest: &Guest) -> Option<GuestOrder> {
        let place = guest.place?;
        if self.is_withheld(guest) {
            return None;
        }
        // Only of a claimed guest may the books lack the subnet; it can still be told to go.
        let subnet = self.subnet(place.subnet).map(|subnet| &subnet.spec);
        let alone = if place.address.is_ipv4() { 32 } else { 128 };
        Some(GuestOrder {
            id: guest.id,
            name: guest.spec.name.clone(),
            project: guest.spec.project.clone(),
            order: guest.order,
            life: place.life,
            goal: guest.goal,
            deed: guest.deed,
            provisioned: guest.provisioned.is_some(),
            restart: guest.spec.restart,
            job: guest.job,
            flavor: guest.spec.flavor,
            image: guest.image,
            resources: guest.resources,
            network: guest.spec.network,
            subnet: place.subnet,
            mac: guest.mac,
            address: place.address,
            prefix: subnet.map_or(alone, |subnet| subnet.cidr.net().prefix_len()),
            gateway: subnet.and_then(|subnet| subnet.gateway),
            dns: subnet.map(|subnet| subnet.dns.clone()).unwrap_or_default(),
            ssh_keys: guest.spec.ssh_keys.clone(),
            user_data: guest.spec.user_data.clone(),
        })
    }

    /// A create from before a restore is told only when every hypervisor of the network was heard: it may
    /// have ended since the backup, and its address be another's by now.
    fn is_withheld(&self, guest: &Guest) -> bool {
        let is_old = guest.place.is_some_and(|place| place.life.epoch < self.fence.epoch);
        let is_create = guest.provisioned.is_none() && guest.goal != Goal::Gone;
        is_old && is_create && unheard_with(self, guest.spec.network).is_some()
    }

    fn image_order(&self, id: ImageId) -> Option<ImageOrder> {
        let image = self.image(id)?;
        let data = image.data.as_ref()?;
        let url = match &image.spec.source {
            Source::Upload => None,
            Source::Url { url, .. } => Some(url.clone()),
        };
        Some(ImageOrder {
            id,
            format: image.spec.format,
            sha256: data.sha256.clone(),
            file_bytes: data.file_bytes,
            url,
        })
    }

    fn network_order(&self, network: &Network, record: &Hypervisor) -> NetworkOrder {
        let of_subnet = |subnet: &Subnet| Some((subnet.spec.gateway?, subnet.spec.cidr.net().prefix_len()));
        let gateways = self.subnets_of(network.id).filter_map(|subnet| of_subnet(subnet)).collect();
        NetworkOrder {
            id: network.id,
            bridge: self.bridge_on(network, record),
            gateways,
            nat: network.spec.nat,
        }
    }

    /// The name of a network's bridge on a hypervisor: the one it lists, if it lists one by name, else the
    /// cloud's own.
    pub fn bridge_on(&self, network: &Network, record: &Hypervisor) -> String {
        self.listed_bridge(network, record).unwrap_or_else(|| bridge_name(self.config.cloud, network.id))
    }

    /// The names of a network's bridges on all hypervisors that have it, without doubles; the cloud's own as
    /// long as no hypervisor names another. Asks every hypervisor when the reach is `listed`.
    pub fn bridges_of(&self, network: &Network) -> BTreeSet<String> {
        let lists = |record: &&Arc<Hypervisor>| {
            let mut subnets = self.subnets_of(network.id);
            subnets.any(|subnet| record.spec.subnets.contains_key(&subnet.id))
        };
        let mut names = BTreeSet::new();
        if network.spec.reach == Reach::Listed {
            names.extend(self.hypervisors().filter(lists).map(|record| self.bridge_on(network, record)));
        }
        if names.is_empty() {
            names.insert(bridge_name(self.config.cloud, network.id));
        }
        names
    }

    fn listed_bridge(&self, network: &Network, record: &Hypervisor) -> Option<String> {
        if network.spec.reach != Reach::Listed {
            return None;
        }
        let named = self.subnets_of(network.id).filter_map(|subnet| record.spec.subnets.get(&subnet.id));
        named.filter(|name| !name.is_empty()).last().cloned()
    }
}
