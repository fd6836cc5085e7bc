//! An agent's report: feed → core.
//!
//! An item that is newer than this release is left out and counted; the rest of the report holds.

use haar_api::feed::{
    Item, PowerWord, Report, ReportClaim, ReportComplete, ReportGuest, ReportPhase, ReportStep, StageWord,
    StepWord,
};
use haar_core::id::HypervisorId;
use haar_core::job::{Stage, StepState};
use haar_core::order::{self, Claim, Complete, GuestReport, Phase, Power, StepReport};
use haar_core::refusal::Refusal;

use super::feed::{goal_in, resources_in};
use super::hypervisor::inventory_in;

/// The report in the core's words.
///
/// # Errors
/// What cannot be told to the core: too many guests, absurd sizes.
pub(crate) fn report(hypervisor: HypervisorId, report: Report) -> Result<order::Report, Refusal> {
    if report.guests.len() > order::Report::MOST_GUESTS {
        let problem = format!(
            "it reports on {} guests; at most {} go into one report",
            report.guests.len(),
            order::Report::MOST_GUESTS
        );
        return Err(Refusal::BadField { field: "guests", problem });
    }
    let mut guests = Vec::new();
    for item in report.guests {
        match item {
            Item::Known(known) => guests.push(guest(known)?),
            Item::Unsupported(item) => {
                tracing::warn!(%hypervisor, id = ?item.id, reason = item.reason, "a reported guest cannot be read");
            }
        }
    }
    for item in &report.unsupported {
        tracing::warn!(%hypervisor, id = %item.id, reason = item.reason, "the agent is too old for an order");
    }
    Ok(order::Report {
        hypervisor,
        incarnation: report.incarnation,
        seen: report.seen.0,
        guests,
        complete: report.complete.map(complete).transpose()?,
    })
}

fn complete(complete: ReportComplete) -> Result<Complete, Refusal> {
    Ok(Complete {
        epoch: complete.epoch,
        holds: complete.holds,
        strangers: complete.strangers,
        inventory: inventory_in(complete.inventory),
        total: resources_in(complete.total)?,
    })
}

fn guest(report: ReportGuest) -> Result<GuestReport, Refusal> {
    Ok(GuestReport {
        id: report.id,
        life: report.life.0,
        order: report.order.0,
        version: report.version,
        phase: phase(report.phase),
        power: power(report.power),
        provisioned: report.provisioned,
        deed: report.deed.map(|deed| deed.0),
        steps: report.steps.into_iter().map(step).collect(),
        claim: claim(report.claim)?,
    })
}

fn claim(claim: ReportClaim) -> Result<Claim, Refusal> {
    Ok(Claim {
        name: claim.name,
        project: claim.project,
        resources: resources_in(claim.resources)?,
        flavor: claim.flavor,
        image: claim.image,
        network: claim.network,
        subnet: claim.subnet,
        mac: claim.mac,
        address: claim.address,
    })
}

fn phase(phase: ReportPhase) -> Phase {
    match phase {
        ReportPhase::Working => Phase::Working,
        ReportPhase::Settled => Phase::Settled,
        ReportPhase::Failed { stage: at, code, message } => Phase::Failed { stage: stage(at), code, message },
        ReportPhase::Lost { message } => Phase::Lost { message },
        ReportPhase::Gone => Phase::Gone,
        ReportPhase::Local { goal } => Phase::Local { goal: goal_in(goal) },
    }
}

fn power(power: PowerWord) -> Power {
    match power {
        PowerWord::Running => Power::Running,
        PowerWord::Off => Power::Off,
        PowerWord::Paused => Power::Paused,
        PowerWord::Absent => Power::Absent,
        PowerWord::Unknown => Power::Unknown,
    }
}

fn step(step: ReportStep) -> StepReport {
    let state = match step.state {
        StepWord::Waiting => StepState::Waiting,
        StepWord::Running => StepState::Running,
        StepWord::Done => StepState::Done,
        StepWord::Failed => StepState::Failed,
        StepWord::Undone => StepState::Undone,
    };
    StepReport { stage: stage(step.stage), state, message: step.message }
}

fn stage(stage: StageWord) -> Stage {
    match stage {
        StageWord::Place => Stage::Place,
        StageWord::Image => Stage::Image,
        StageWord::Disks => Stage::Disks,
        StageWord::Seed => Stage::Seed,
        StageWord::Network => Stage::Network,
        StageWord::Define => Stage::Define,
        StageWord::Start => Stage::Start,
        StageWord::Shutdown => Stage::Shutdown,
        StageWord::Poweroff => Stage::Poweroff,
        StageWord::Reboot => Stage::Reboot,
        StageWord::Undefine => Stage::Undefine,
        StageWord::Unseed => Stage::Unseed,
        StageWord::Undisk => Stage::Undisk,
        StageWord::Inspect => Stage::Inspect,
        StageWord::Undo => Stage::Undo,
        StageWord::Release => Stage::Release,
    }
}
