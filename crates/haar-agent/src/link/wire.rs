//! The feed read into the core's orders, and the core's hello and reports written for the wire.

use haar_api::feed;
use haar_api::v1::{FenceText, GuestRestart, ImageFormat, InventoryView, ResourcesView};
use haar_core::guest::{Deed, DeedKind, Goal, RestartPolicy};
use haar_core::hypervisor::Inventory;
use haar_core::image::Format;
use haar_core::job::{Stage, StepState};
use haar_core::order::{
    Claim, Complete, DesiredSet, GuestOrder, GuestReport, Hello, ImageOrder, NetworkOrder, Phase, Power,
    Report,
};
use haar_core::units::{MiB, Resources};

use super::{Fed, StreamKind, Ticket, Unsupported};

/// Bytes of a log's end when nobody said how many.
const TAIL: u64 = 64 << 10;

/// Reads the feed; what is newer than this release comes out as unsupported, item by item.
pub(super) fn fed(feed: feed::Feed) -> Fed {
    let mut unsupported = Vec::new();
    let set = DesiredSet {
        fence: feed.fence.0,
        cloud: feed.cloud,
        hypervisor: feed.hypervisor,
        guests: known(feed.guests, &mut unsupported).into_iter().map(guest).collect(),
        images: known(feed.images, &mut unsupported).into_iter().map(image).collect(),
        networks: known(feed.networks, &mut unsupported).into_iter().map(network).collect(),
    };
    let streams = known(feed.streams, &mut unsupported).into_iter().map(ticket).collect();
    let catalogue = feed.catalogue.map(|images| images.into_iter().collect());
    Fed { set, streams, unsupported, catalogue }
}

fn known<T>(items: Vec<feed::Item<T>>, unsupported: &mut Vec<Unsupported>) -> Vec<T> {
    let mut known = Vec::with_capacity(items.len());
    for item in items {
        match item {
            feed::Item::Known(item) => known.push(item),
            feed::Item::Unsupported(item) => {
                tracing::warn!(id = ?item.id, reason = item.reason, "an item of the feed is not understood");
                unsupported.extend(item.id.map(|id| Unsupported { id, reason: item.reason }));
            }
        }
    }
    known
}

fn guest(guest: feed::FeedGuest) -> GuestOrder {
    GuestOrder {
        id: guest.id,
        name: guest.name,
        project: guest.project,
        order: guest.order.0,
        life: guest.life.0,
        goal: goal(guest.goal),
        deed: guest.deed.map(|deed| Deed { kind: deed_kind(deed.kind), fence: deed.fence.0 }),
        provisioned: guest.provisioned,
        restart: match guest.restart {
            GuestRestart::Never => RestartPolicy::Never,
            GuestRestart::OnFailure => RestartPolicy::OnFailure,
            GuestRestart::Always => RestartPolicy::Always,
        },
        job: guest.job,
        flavor: guest.flavor,
        image: guest.image,
        resources: resources(guest.resources),
        network: guest.network,
        subnet: guest.subnet,
        mac: guest.mac,
        address: guest.address,
        prefix: guest.prefix,
        gateway: guest.gateway,
        dns: guest.dns,
        ssh_keys: guest.ssh_keys,
        user_data: guest.user_data,
    }
}

fn goal(word: feed::GoalWord) -> Goal {
    match word {
        feed::GoalWord::Running => Goal::Running,
        feed::GoalWord::Stopped => Goal::Stopped,
        feed::GoalWord::Off => Goal::Off,
        feed::GoalWord::Gone => Goal::Gone,
    }
}

fn deed_kind(word: feed::DeedWord) -> DeedKind {
    match word {
        feed::DeedWord::Reboot => DeedKind::Reboot,
    }
}

fn resources(view: ResourcesView) -> Resources {
    Resources {
        cpu: u32::try_from(view.cpu).unwrap_or(u32::MAX),
        memory: MiB(view.memory),
        disk: MiB(view.disk),
    }
}

fn image(image: feed::FeedImage) -> ImageOrder {
    ImageOrder {
        id: image.id,
        format: match image.format {
            ImageFormat::Qcow2 => Format::Qcow2,
            ImageFormat::Raw => Format::Raw,
        },
        sha256: image.sha256,
        file_bytes: image.file_bytes,
        url: image.url,
    }
}

fn network(network: feed::FeedNetwork) -> NetworkOrder {
    let gateways = network.gateways.iter().map(|gateway| (gateway.address, gateway.prefix)).collect();
    NetworkOrder { id: network.id, bridge: network.bridge, gateways, nat: network.nat }
}

fn ticket(stream: feed::FeedStream) -> Ticket {
    let kind = match stream.kind {
        feed::StreamKind::Console => StreamKind::Console,
        feed::StreamKind::Log => StreamKind::Log { tail: stream.tail.unwrap_or(TAIL), follow: stream.follow },
    };
    Ticket { ticket: stream.ticket, guest: stream.guest, kind }
}

/// The hello as it is sent.
pub(super) fn hello(hello: &Hello) -> feed::Hello {
    feed::Hello {
        version: feed::VERSION,
        lot: hello.lot,
        inventory: inventory(&hello.inventory),
        total: hello.total.into(),
    }
}

fn inventory(inventory: &Inventory) -> InventoryView {
    InventoryView {
        version: inventory.version.clone(),
        host: inventory.host.clone(),
        libvirt: inventory.libvirt.clone(),
        qemu: inventory.qemu.clone(),
        accel: inventory.accel.clone(),
        accel_reason: inventory.accel_reason.clone(),
        cpus: inventory.cpus,
        memory_mib: inventory.memory_mib,
        disk_free_mib: inventory.disk_free_mib,
    }
}

/// The report as it is sent.
pub(super) fn report(report: &Report, unsupported: &[Unsupported]) -> feed::Report {
    feed::Report {
        version: feed::VERSION,
        incarnation: report.incarnation,
        seen: FenceText(report.seen),
        guests: report.guests.iter().map(guest_report).map(feed::Item::Known).collect(),
        complete: report.complete.as_ref().map(complete),
        unsupported: unsupported
            .iter()
            .map(|item| feed::ReportUnsupported { id: item.id, reason: item.reason.clone() })
            .collect(),
    }
}

fn complete(complete: &Complete) -> feed::ReportComplete {
    feed::ReportComplete {
        epoch: complete.epoch,
        holds: complete.holds.clone(),
        strangers: complete.strangers.clone(),
        inventory: inventory(&complete.inventory),
        total: complete.total.into(),
    }
}

fn guest_report(report: &GuestReport) -> feed::ReportGuest {
    feed::ReportGuest {
        id: report.id,
        life: FenceText(report.life),
        order: FenceText(report.order),
        version: report.version,
        phase: phase(&report.phase),
        power: power(report.power),
        provisioned: report.provisioned,
        deed: report.deed.map(FenceText),
        steps: report
            .steps
            .iter()
            .map(|step| feed::ReportStep {
                stage: stage(step.stage),
                state: step_state(step.state),
                message: step.message.clone(),
            })
            .collect(),
        claim: claim(&report.claim),
    }
}

fn phase(phase: &Phase) -> feed::ReportPhase {
    match phase {
        Phase::Working => feed::ReportPhase::Working,
        Phase::Settled => feed::ReportPhase::Settled,
        Phase::Failed { stage: at, code, message } => {
            feed::ReportPhase::Failed { stage: stage(*at), code: code.clone(), message: message.clone() }
        }
        Phase::Lost { message } => feed::ReportPhase::Lost { message: message.clone() },
        Phase::Gone => feed::ReportPhase::Gone,
        Phase::Local { goal } => feed::ReportPhase::Local {
            goal: match goal {
                Goal::Running => feed::GoalWord::Running,
                Goal::Stopped => feed::GoalWord::Stopped,
                Goal::Off => feed::GoalWord::Off,
                Goal::Gone => feed::GoalWord::Gone,
            },
        },
    }
}

fn power(power: Power) -> feed::PowerWord {
    match power {
        Power::Running => feed::PowerWord::Running,
        Power::Off => feed::PowerWord::Off,
        Power::Paused => feed::PowerWord::Paused,
        Power::Absent => feed::PowerWord::Absent,
        Power::Unknown => feed::PowerWord::Unknown,
    }
}

fn claim(claim: &Claim) -> feed::ReportClaim {
    feed::ReportClaim {
        name: claim.name.clone(),
        project: claim.project.clone(),
        resources: claim.resources.into(),
        flavor: claim.flavor,
        image: claim.image,
        network: claim.network,
        subnet: claim.subnet,
        mac: claim.mac,
        address: claim.address,
    }
}

fn stage(stage: Stage) -> feed::StageWord {
    match stage {
        Stage::Place => feed::StageWord::Place,
        Stage::Image => feed::StageWord::Image,
        Stage::Disks => feed::StageWord::Disks,
        Stage::Seed => feed::StageWord::Seed,
        Stage::Network => feed::StageWord::Network,
        Stage::Define => feed::StageWord::Define,
        Stage::Start => feed::StageWord::Start,
        Stage::Shutdown => feed::StageWord::Shutdown,
        Stage::Poweroff => feed::StageWord::Poweroff,
        Stage::Reboot => feed::StageWord::Reboot,
        Stage::Undefine => feed::StageWord::Undefine,
        Stage::Unseed => feed::StageWord::Unseed,
        Stage::Undisk => feed::StageWord::Undisk,
        Stage::Inspect => feed::StageWord::Inspect,
        Stage::Undo => feed::StageWord::Undo,
        Stage::Release => feed::StageWord::Release,
    }
}

fn step_state(state: StepState) -> feed::StepWord {
    match state {
        StepState::Waiting => feed::StepWord::Waiting,
        StepState::Running => feed::StepWord::Running,
        StepState::Done => feed::StepWord::Done,
        StepState::Failed => feed::StepWord::Failed,
        StepState::Undone => feed::StepWord::Undone,
    }
}
