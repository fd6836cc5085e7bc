//! Carrying out a stage: one call of the node becomes calls to sub-agents, a seed disk or a bridge.
//!
//! Every stage is "make it so" and may be asked twice. It answers within its deadline, or later when a call to a
//! sub-agent is overdue and it is not sure yet that it has ended.

mod built_in;
mod guest;
mod image;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_api::rpc::{self, FaultCode};
use haar_core::id::CloudId;
use haar_core::job::Stage;
use haar_core::node::{Fault, Outcome, StageCall};

use crate::call::{Ended, SubAgent};
use crate::link::Link;
use crate::net::Networks;

pub(crate) use guest::netmask;

/// Everything a stage can lay hands on.
pub(crate) struct Hands<L> {
    pub(crate) cloud: CloudId,
    pub(crate) storage: SubAgent,
    pub(crate) libvirt: SubAgent,
    pub(crate) networks: Networks,
    /// Where seed disks lie; QEMU's user can pass it.
    pub(crate) seeds: PathBuf,
    pub(crate) link: Arc<L>,
}

/// How a stage went, before it is told to the node.
type Went = Result<Outcome, Ended>;

/// When a stage must have answered.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

impl<L: Link> Hands<L> {
    /// Carries out a stage, whatever comes of it.
    pub(crate) async fn carry_out(&self, call: &StageCall) -> Outcome {
        let deadline = Deadline(Instant::now() + Duration::from_millis(call.deadline_ms));
        let went = match call.stage {
            Stage::Image => self.image(call, deadline).await,
            Stage::Disks => self.disks(call, deadline).await,
            Stage::Seed => self.seed(call, deadline).await,
            Stage::Network => self.network(call).await,
            Stage::Define => self.define(call, deadline).await,
            Stage::Start => self.start(call, deadline).await,
            Stage::Shutdown => self.shutdown(call, deadline).await,
            Stage::Poweroff => self.on_guest("Libvirt.Poweroff", call, deadline).await,
            Stage::Reboot => self.on_guest("Libvirt.Reboot", call, deadline).await,
            Stage::Undefine => self.on_guest("Libvirt.Delete", call, deadline).await,
            Stage::Undisk => self.undisk(call, deadline).await,
            Stage::Unseed => self.unseed(call).await,
            Stage::Inspect => self.inspect(call, deadline).await,
            Stage::Place | Stage::Undo | Stage::Release => Err(not_here(call.stage)),
        };
        match went {
            Ok(outcome) => outcome,
            Err(Ended::Cancelled) => Outcome::Cancelled,
            Err(Ended::Fault(fault)) => Outcome::Failed(node_fault(&fault)),
        }
    }
}

fn not_here(stage: Stage) -> Ended {
    let text = format!("the stage `{}` is the controller's, not a hypervisor's", stage.as_str());
    Ended::Fault(rpc::Fault::new(FaultCode::Invalid, text))
}

/// What a part of the order is missing that only the controller can send.
fn not_told(what: &str) -> Ended {
    let text = format!("the controller has not told this hypervisor the guest's {what} yet");
    Ended::Fault(rpc::Fault::new(FaultCode::Unavailable, text))
}

fn node_fault(fault: &rpc::Fault) -> Fault {
    Fault {
        code: fault.code.as_str().to_owned(),
        message: fault.message.clone(),
        may_pass: fault.code.may_pass(),
    }
}
