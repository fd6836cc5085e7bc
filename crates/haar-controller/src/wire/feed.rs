//! The desired set and hello: core ⇄ feed.

use haar_api::feed::{
    AddressWithPrefix, DeedWord, Feed, FeedDeed, FeedGuest, FeedImage, FeedNetwork, FeedStream, GoalWord,
    Hello, Item, VERSION, Welcome,
};
use haar_api::v1::{FenceText, ResourcesView};
use haar_core::guest::{Deed, DeedKind, Goal};
use haar_core::hypervisor::Hypervisor;
use haar_core::id::{HypervisorId, ImageId};
use haar_core::order::{self, DesiredSet, GuestOrder, ImageOrder, NetworkOrder};
use haar_core::refusal::Refusal;
use haar_core::units::{MiB, Resources};

use super::hypervisor::inventory_in;
use super::image::format;
use super::look::{Look, resources};

/// The whole desired set, the ids of all images there are, and the streams somebody waits for.
pub(crate) fn feed(set: DesiredSet, catalogue: Vec<ImageId>, streams: Vec<FeedStream>) -> Feed {
    Feed {
        version: VERSION,
        fence: FenceText(set.fence),
        cloud: set.cloud,
        hypervisor: set.hypervisor,
        guests: set.guests.into_iter().map(|order| Item::Known(guest(order))).collect(),
        images: set.images.into_iter().map(|order| Item::Known(image(order))).collect(),
        catalogue: Some(catalogue),
        networks: set.networks.into_iter().map(|order| Item::Known(network(order))).collect(),
        streams: streams.into_iter().map(Item::Known).collect(),
    }
}

fn guest(order: GuestOrder) -> FeedGuest {
    FeedGuest {
        id: order.id,
        name: order.name,
        project: order.project,
        order: FenceText(order.order),
        life: FenceText(order.life),
        goal: goal_out(order.goal),
        deed: order.deed.map(deed),
        provisioned: order.provisioned,
        restart: super::guest::restart_out(order.restart),
        job: order.job,
        flavor: order.flavor,
        image: order.image,
        resources: resources(order.resources),
        network: order.network,
        subnet: order.subnet,
        mac: order.mac,
        address: order.address,
        prefix: order.prefix,
        gateway: order.gateway,
        dns: order.dns,
        ssh_keys: order.ssh_keys,
        user_data: order.user_data,
    }
}

fn deed(deed: Deed) -> FeedDeed {
    let DeedKind::Reboot = deed.kind;
    FeedDeed { kind: DeedWord::Reboot, fence: FenceText(deed.fence) }
}

fn image(order: ImageOrder) -> FeedImage {
    FeedImage {
        id: order.id,
        format: format(order.format),
        sha256: order.sha256,
        file_bytes: order.file_bytes,
        url: order.url,
    }
}

fn network(order: NetworkOrder) -> FeedNetwork {
    let gateways = order.gateways.into_iter();
    FeedNetwork {
        id: order.id,
        bridge: order.bridge,
        gateways: gateways.map(|(address, prefix)| AddressWithPrefix { address, prefix }).collect(),
        nat: order.nat,
    }
}

fn goal_out(goal: Goal) -> GoalWord {
    match goal {
        Goal::Running => GoalWord::Running,
        Goal::Stopped => GoalWord::Stopped,
        Goal::Off => GoalWord::Off,
        Goal::Gone => GoalWord::Gone,
    }
}

/// A goal in the core's words.
pub(crate) fn goal_in(goal: GoalWord) -> Goal {
    match goal {
        GoalWord::Running => Goal::Running,
        GoalWord::Stopped => Goal::Stopped,
        GoalWord::Off => Goal::Off,
        GoalWord::Gone => Goal::Gone,
    }
}

/// Resources in the core's words.
///
/// # Errors
/// More CPUs than a number of the core holds.
pub(crate) fn resources_in(view: ResourcesView) -> Result<Resources, Refusal> {
    let cpu = u32::try_from(view.cpu).map_err(|_| Refusal::BadField {
        field: "cpu",
        problem: format!("{} is more than any machine has", view.cpu),
    })?;
    Ok(Resources { cpu, memory: MiB(view.memory), disk: MiB(view.disk) })
}

/// An agent's first word.
///
/// # Errors
/// What cannot be told to the core.
pub(crate) fn hello(hypervisor: HypervisorId, hello: Hello) -> Result<order::Hello, Refusal> {
    Ok(order::Hello {
        hypervisor,
        lot: hello.lot,
        inventory: inventory_in(hello.inventory),
        total: resources_in(hello.total)?,
    })
}

/// The answer to it.
pub(crate) fn welcome(record: &Hypervisor, look: &Look<'_>) -> Welcome {
    Welcome {
        version: VERSION,
        cloud: look.fleet.config().cloud,
        hypervisor: record.id,
        name: record.spec.name.to_string(),
        incarnation: record.incarnation,
        fence: FenceText(look.fleet.fence()),
        ttl_ms: look.liveness.ttl_ms(),
    }
}
