//! What every world begins with: some hosts, sizes, images, networks; and specs for what users make.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use haar_core::firewall::{Action, FwGroupSpec, FwRule, Protocol};
use haar_core::flavor::FlavorSpec;
use haar_core::fleet::command::Command;
use haar_core::guest::{GuestSpec, RestartPolicy};
use haar_core::hypervisor::HypervisorSpec;
use haar_core::id::{FlavorId, FwGroupId, HypervisorId, ImageId, NetworkId, SubnetId};
use haar_core::image::{Format, ImageData, ImageSpec, Source};
use haar_core::name::Name;
use haar_core::network::{Gateway, NetworkSpec, Reach, SubnetSpec};
use haar_core::units::{MiB, Resources};

use crate::host::Host;
use crate::world::{Asker, World};

/// The ids of what a world begins with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stock {
    pub(crate) flavors: Vec<FlavorId>,
    /// A flavor larger than any host.
    pub(crate) giant: Option<FlavorId>,
    /// A flavor that names no image.
    pub(crate) bare: Option<FlavorId>,
    pub(crate) images: Vec<ImageId>,
    /// An image whose bytes never come.
    pub(crate) unready: Option<ImageId>,
    /// An image larger than every flavor's disk.
    pub(crate) large: Option<ImageId>,
    pub(crate) networks: Vec<NetworkId>,
    pub(crate) fwgroup: Option<FwGroupId>,
}

pub(crate) fn name(text: impl Into<String>) -> Name {
    Name::new(text).expect("the world's names are DNS labels")
}

impl World {
    pub(crate) fn make_hosts(&mut self) {
        let count = self.lot.between(3, 5);
        for _ in 0..count {
            let id = HypervisorId(self.lot.uuid());
            let total = Resources {
                cpu: 4,
                memory: MiB(256 * self.lot.between(4, 12)),
                disk: MiB(1024 * self.lot.between(8, 40)),
            };
            self.hosts.push(Host::new(id, total));
        }
    }

    pub(crate) fn give_setup(&mut self) {
        let mut commands = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            commands.push(Command::CreateHypervisor(host.id, hypervisor_spec(&format!("host-{number}"))));
        }
        self.stock_images(&mut commands);
        self.stock_flavors(&mut commands);
        self.stock_networks(&mut commands);
        let step = if self.lot.one_in(2) { "15000" } else { "60000" };
        let values = BTreeMap::from([
            ("job.step_ms".to_owned(), step.to_owned()),
            ("liveness.ttl_ms".to_owned(), "15000".to_owned()),
        ]);
        commands.push(Command::SetConfig(values, None));
        for command in commands {
            self.submit(command, Asker::Setup);
        }
        while self.has_turn_due() {
            self.turn();
        }
    }

    fn stock_images(&mut self, commands: &mut Vec<Command>) {
        let mut image = |world: &mut World, text: &str, source: Source, data: Option<u64>| {
            let id = ImageId(world.lot.uuid());
            let spec = ImageSpec {
                name: name(text),
                project: Name::default_project(),
                metadata: BTreeMap::new(),
                format: Format::Qcow2,
                source,
            };
            commands.push(Command::CreateImage(id, spec));
            if let Some(virtual_bytes) = data {
                let data = ImageData { sha256: "ab".repeat(32), file_bytes: 1 << 20, virtual_bytes };
                commands.push(Command::ImageReady(id, data));
            }
            id
        };
        let url = Source::Url { url: "https://images.example/tiny".to_owned(), sha256: "cd".repeat(32) };
        let first = image(self, "tiny", Source::Upload, Some(256 << 20));
        let second = image(self, "far", url, None);
        let large = image(self, "large", Source::Upload, Some(1 << 50));
        let unready = image(self, "unready", Source::Upload, None);
        let stock = &mut self.user.stock;
        stock.images = vec![first, second];
        stock.large = Some(large);
        stock.unready = Some(unready);
    }

    fn stock_flavors(&mut self, commands: &mut Vec<Command>) {
        let image = self.user.stock.images.first().copied();
        let mut flavor = |world: &mut World, text: &str, image, cpu, memory, disk| {
            let id = FlavorId(world.lot.uuid());
            let resources = Resources { cpu, memory: MiB(memory), disk: MiB(disk) };
            commands.push(Command::CreateFlavor(id, flavor_spec(text, image, resources)));
            id
        };
        let flavors = vec![
            flavor(self, "small", image, 1, 256, 1024),
            flavor(self, "medium", image, 2, 512, 2048),
            flavor(self, "big", image, 4, 1024, 4096),
        ];
        let giant = flavor(self, "giant", image, 64, 1 << 20, 1 << 20);
        let bare = flavor(self, "bare", None, 1, 256, 1024);
        let stock = &mut self.user.stock;
        (stock.flavors, stock.giant, stock.bare) = (flavors, Some(giant), Some(bare));
    }

    fn stock_networks(&mut self, commands: &mut Vec<Command>) {
        for number in 1..=2_u8 {
            let id = NetworkId(self.lot.uuid());
            commands.push(Command::CreateNetwork(id, network_spec(&format!("net-{number}"))));
            let subnet = SubnetId(self.lot.uuid());
            commands.push(Command::CreateSubnet(
                subnet,
                subnet_spec(&format!("sub-{number}"), id, number),
                Gateway::Said,
            ));
            self.user.stock.networks.push(id);
        }
        let fwgroup = FwGroupId(self.lot.uuid());
        commands.push(Command::CreateFwGroup(fwgroup, fwgroup_spec("web", Protocol::Tcp)));
        self.user.stock.fwgroup = Some(fwgroup);
    }
}

pub(crate) fn hypervisor_spec(text: &str) -> HypervisorSpec {
    HypervisorSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        ip: None,
        netmask: None,
        gateway: None,
        mac: None,
        subnets: BTreeMap::new(),
        overcommit: None,
        cordon: None,
    }
}

pub(crate) fn flavor_spec(text: &str, image: Option<ImageId>, resources: Resources) -> FlavorSpec {
    FlavorSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        image,
        resources,
    }
}

pub(crate) fn network_spec(text: &str) -> NetworkSpec {
    NetworkSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        nat: true,
        reach: Reach::All,
    }
}

/// Few addresses, so that they are given again soon: 10.0.x.0/28 from .2 to .9.
pub(crate) fn subnet_spec(text: &str, network: NetworkId, third: u8) -> SubnetSpec {
    let at = |last| IpAddr::V4(Ipv4Addr::new(10, 0, third, last));
    SubnetSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        network,
        cidr: format!("10.0.{third}.0/28").parse().expect("a range"),
        gateway: Some(at(1)),
        start: at(2),
        end: at(9),
        dns: vec![at(1)],
    }
}

pub(crate) fn fwgroup_spec(text: &str, protocol: Protocol) -> FwGroupSpec {
    FwGroupSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        rules: vec![FwRule {
            source: None,
            group: None,
            protocol,
            ports: Some((80, 80)),
            action: Action::Accept,
        }],
    }
}

pub(crate) fn guest_spec(text: &str, flavor: FlavorId, network: NetworkId) -> GuestSpec {
    GuestSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        kind: "vm".to_owned(),
        flavor,
        image: None,
        network,
        subnet: None,
        address: None,
        fwgroup: None,
        mac: None,
        hypervisor: None,
        require: BTreeMap::new(),
        restart: RestartPolicy::OnFailure,
        ssh_keys: Vec::new(),
        user_data: None,
        start: true,
    }
}
