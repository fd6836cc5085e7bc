//! A stage that takes or removes a snapshot of a guest that may be running: what is asked of whom, and what is taken back.
//!
//! ```text
//!  Look ── off ──────────────────────────────▶ Take ──▶ next stage
//!    ├──── paused already ───────────────────▶ Take ──▶ next stage
//!    ├──── runs ──▶ Freeze ── has an agent ──▶ Take ──▶ Release ──▶ next stage, or the job's end
//!    │                └─ has none ─▶ Suspend ─▶ Take ──▶ Release ──▶ next stage, or the job's end
//!    └──── up, on qcow2 ──▶ Names ──▶ Room ──▶ Inside ──▶ next stage
//!                                                └─ failed ─▶ Release ──▶ Drop ──▶ the job's end
//!
//!  Look ── off, or not on qcow2 ─▶ the plain stage     one that removes a snapshot
//!    └──── up, on qcow2 ─────────▶ Forget ──▶ next stage
//! ```
//! Only QEMU writes into the qcow2 files of a guest that is up; the libvirt sub-agent freezes it by itself meanwhile,
//! and may fall before it has thawed it. It promises: a guest that was frozen or suspended here is let go on, whatever
//! fails, also when the agent was killed and started with another file of actions; and by the libvirt sub-agent when
//! this one does not come back.
//! Deliberately absent: more than one try of what failed; how long letting go is tried is the hands'.

use std::collections::BTreeMap;
use std::time::Duration;

use haar_api::agent::{Disk, Guest, GuestRequest};
use haar_api::rpc::libvirt::inner_name;
use haar_api::rpc::{SnapshotRequest, SnapshotWant};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::decide::Draft;
use super::input::{Call, Outcome, Params, Why};
use super::record::{Change, JobRecord, Owner, Step, Work};
use crate::local::action;
use crate::local::config::{STAGE_LIMIT, Stage};

/// After so many seconds the libvirt sub-agent lets a guest go on by itself, the longest it takes.
const LET_GO_AFTER_S: u32 = 60;
/// How long a snapshot of a guest that is held may take: well before that.
const HELD: Duration = Duration::from_secs(40);

/// In the place of an order: whoever's it is.
const ANY_ORDER: &str = "*";

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// How the guest is.
    Look,
    /// Whether the name is free; QEMU does not know.
    Names,
    /// Whether there is room for what it keeps; QEMU asks nobody.
    Room,
    /// QEMU takes it.
    Inside,
    /// QEMU removes it again.
    Drop,
    /// QEMU removes one, whoever took it.
    Forget,
    /// The file systems come to rest.
    Freeze,
    /// The processors stand still.
    Suspend,
    /// The storage takes it.
    Take(Hold),
    /// What was held is let go on.
    Release(Hold, Then),
}

/// Why a guest writes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hold {
    Off,
    /// By somebody else.
    Paused,
    Frozen,
    Suspended,
}

/// What comes when it was let go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Then {
    Next,
    /// The agent was killed meanwhile: from the beginning. What stands is found by its order.
    Again,
    Fail,
    /// QEMU may have taken it.
    Drop,
}

/// What follows from an answer.
enum Turn {
    Go(Phase),
    /// With what the job will say in the end.
    Back(Phase, String),
    Next,
    /// The stage as it stands in the plan.
    Plain,
    Fail(String),
}

impl Turn {
    /// What follows from a look when a snapshot is removed: nothing is held for that.
    fn of_removal(self) -> Turn {
        match self {
            Turn::Go(Phase::Names) => Turn::Go(Phase::Forget),
            Turn::Go(Phase::Freeze | Phase::Take(_)) => Turn::Plain,
            other => other,
        }
    }
}

impl Phase {
    /// Whether it takes something back.
    pub(crate) fn takes_back(self) -> bool {
        matches!(self, Phase::Drop | Phase::Release(..))
    }

    /// Whether it lets a guest go on that is held.
    pub(crate) fn lets_go(self) -> bool {
        matches!(self, Phase::Release(..))
    }

    /// Whether a guest is held for as long as it takes.
    pub(crate) fn holds(self) -> bool {
        matches!(self, Phase::Take(Hold::Frozen | Hold::Suspended))
    }

    /// Where a job goes on that the agent's end left here.
    fn resumed(self) -> Phase {
        match self {
            Phase::Freeze => Phase::Release(Hold::Frozen, Then::Again),
            Phase::Suspend => Phase::Release(Hold::Suspended, Then::Again),
            Phase::Take(hold @ (Hold::Frozen | Hold::Suspended)) => Phase::Release(hold, Then::Again),
            // The sub-agent ends with the agent, perhaps before it has thawed what it froze.
            Phase::Inside => Phase::Release(Hold::Frozen, Then::Again),
            // It may be off by now, and then the storage finds what QEMU took.
            Phase::Names | Phase::Room | Phase::Forget => Phase::Look,
            // Asked twice these are as asked once.
            other => other,
        }
    }

    /// Nothing is there that was to be there.
    fn failed(self, why: Why, words: String, before: &str) -> Turn {
        match self {
            Phase::Look if why == Why::Absent => Turn::Go(Phase::Take(Hold::Off)),
            // A storage of somebody else's keeps its own books.
            Phase::Room if is_unknown_method(&words) => Turn::Go(Phase::Inside),
            Phase::Inside if why.may_be_done() => Turn::Back(Phase::Release(Hold::Frozen, Then::Drop), words),
            Phase::Freeze if why.may_be_done() => Turn::Back(Phase::Release(Hold::Frozen, Then::Fail), words),
            Phase::Suspend if why.may_be_done() => {
                Turn::Back(Phase::Release(Hold::Suspended, Then::Fail), words)
            }
            Phase::Take(hold @ (Hold::Frozen | Hold::Suspended)) => {
                Turn::Back(Phase::Release(hold, Then::Fail), words)
            }
            // What QEMU did not want to take it does not want to remove either.
            Phase::Drop if why == Why::Absent || words == before => Turn::Fail(before.to_owned()),
            Phase::Drop => Turn::Fail(format!("{before}; it could not be taken back: {words}")),
            // A guest that is gone or off is not held.
            Phase::Release(_, then) if matches!(why, Why::Absent | Why::Unfit) => then.turn(before),
            Phase::Release(_, then) => then.held(before, &words),
            _ => Turn::Fail(words),
        }
    }
}

impl Then {
    fn turn(self, before: &str) -> Turn {
        match self {
            Then::Next => Turn::Next,
            Then::Again => Turn::Go(Phase::Look),
            Then::Fail => Turn::Fail(before.to_owned()),
            Then::Drop => Turn::Go(Phase::Drop),
        }
    }

    /// What comes when it could not be let go on.
    fn held(self, before: &str, words: &str) -> Turn {
        let held = format!("the guest could not be let go on: {words}");
        match self {
            Then::Next => Turn::Fail(format!("the snapshot stands, but {held}")),
            Then::Again => Turn::Fail(held),
            Then::Fail => Turn::Fail(format!("{before}; {held}")),
            Then::Drop => Turn::Back(Phase::Drop, format!("{before}; {held}")),
        }
    }
}

impl Draft<'_> {
    /// Takes up a job that the agent's end left open in such a stage.
    pub(super) fn resume_quiesced(&mut self, mut job: JobRecord, at: usize, phase: Phase) {
        job.again = true;
        job.step = Step::Quiesce(at, phase.resumed());
        self.go_on(job);
    }

    /// The stage's answer.
    pub(super) fn quiesced(&mut self, mut job: JobRecord, at: usize, phase: Phase, outcome: Outcome) {
        let turn = match outcome {
            // Whether it was there the first time nobody knows.
            Outcome::Failed { why: Why::Absent, .. } if phase == Phase::Forget && job.again => Turn::Next,
            Outcome::Failed { message, why } => phase.failed(why, message, &job.message),
            Outcome::Told(told) => self.told(&job, phase, &told),
            Outcome::Done | Outcome::Guest { .. } => self.told(&job, phase, &Value::Null),
        };
        let looks_to_remove = phase == Phase::Look && action::removes(&job.action);
        match if looks_to_remove { turn.of_removal() } else { turn } {
            Turn::Next => self.next(job, at + 1),
            Turn::Plain => {
                self.put_at(&mut job, Step::Forward(at));
                self.go_on(job);
            }
            Turn::Fail(message) => self.failed(job, at + 1, message),
            Turn::Go(phase) => {
                job.step = Step::Quiesce(at, phase);
                self.go_on(job);
            }
            Turn::Back(phase, message) => {
                (job.step, job.message) = (Step::Quiesce(at, phase), message);
                self.go_on(job);
            }
        }
    }

    fn told(&self, job: &JobRecord, phase: Phase, told: &Value) -> Turn {
        match phase {
            Phase::Look => {
                let is_inside = self.facts(job).is_some_and(|(guest, asked)| inside(guest, asked).is_some());
                match (told["guest"]["state"].as_str().unwrap_or_default(), is_inside) {
                    ("running" | "blocked" | "paused" | "suspended", true) => Turn::Go(Phase::Names),
                    ("running" | "blocked", false) => Turn::Go(Phase::Freeze),
                    ("paused" | "suspended", false) => Turn::Go(Phase::Take(Hold::Paused)),
                    _ => Turn::Go(Phase::Take(Hold::Off)),
                }
            }
            Phase::Names => match self.facts(job).and_then(|(_, asked)| taken(told, asked, &order(job))) {
                None => Turn::Go(Phase::Room),
                Some(id) => Turn::Fail(format!("snapshot {id} exists; delete it first or use another name")),
            },
            Phase::Room => Turn::Go(Phase::Inside),
            Phase::Inside | Phase::Forget => Turn::Next,
            Phase::Drop => Turn::Fail(job.message.clone()),
            Phase::Freeze if told["agent"] == "answers" => Turn::Go(Phase::Take(Hold::Frozen)),
            Phase::Freeze => Turn::Go(Phase::Suspend),
            Phase::Suspend => Turn::Go(Phase::Take(Hold::Suspended)),
            Phase::Take(hold @ (Hold::Frozen | Hold::Suspended)) => {
                Turn::Go(Phase::Release(hold, Then::Next))
            }
            Phase::Take(Hold::Off | Hold::Paused) => Turn::Next,
            Phase::Release(_, then) => then.turn(&job.message),
        }
    }

    fn facts<'a>(&'a self, job: &'a JobRecord) -> Option<(&'a Guest, &'a SnapshotRequest)> {
        match (&job.work, job.owner) {
            (Work::Snapshot(request), Owner::Guest(id)) => Some((&self.guest(id)?.guest, request)),
            _ => None,
        }
    }

    /// Whether the stage holds the guest still meanwhile.
    pub(super) fn is_quiesced(&self, job: &JobRecord, stage: &Stage) -> bool {
        stage.quiesce.is_some() && self.facts(job).is_some_and(|(guest, _)| !guest.is_container())
    }

    /// The call of a phase; None when the guest is not there any more.
    fn quiesce_call(&self, job: &JobRecord, stage: &Stage, phase: Phase) -> Option<Call> {
        let (guest, asked) = self.facts(job)?;
        let libvirt = job.held_by.clone().or_else(|| stage.quiesce.clone())?;
        let on_guest = |method: &str| {
            let limit = match phase {
                Phase::Freeze => Some("thaw_after_s"),
                Phase::Suspend => Some("resume_after_s"),
                _ => None,
            };
            let args =
                limit.map(|limit| (limit.to_owned(), LET_GO_AFTER_S.to_string())).into_iter().collect();
            let request = GuestRequest { guest, action: &job.action, args: &args };
            (libvirt.clone(), method.to_owned(), stage.timeout, Params::Any(value(&request)))
        };
        let on_disks = |method: &str| {
            let name = match phase {
                Phase::Forget => inner_name(name_of(asked), ANY_ORDER),
                _ => inner_name(&asked.dest, &order(job)),
            };
            let devices = inside(guest, asked).unwrap_or_default();
            let params = json!({"guest": value(guest), "name": name, "devices": devices});
            (libvirt.clone(), method.to_owned(), stage.timeout, Params::Any(params))
        };
        let (service, method, timeout, params) = match phase {
            Phase::Look => on_guest("Libvirt.Status"),
            Phase::Freeze => on_guest("Libvirt.Freeze"),
            Phase::Suspend => on_guest("Libvirt.Suspend"),
            Phase::Release(Hold::Frozen, _) => on_guest("Libvirt.Thaw"),
            Phase::Release(..) => on_guest("Libvirt.Resume"),
            Phase::Inside => on_disks("Libvirt.Snapshot"),
            Phase::Drop | Phase::Forget => on_disks("Libvirt.DropSnapshot"),
            Phase::Names => {
                let dataset = SnapshotRequest { id: asked.id.clone(), ..SnapshotRequest::default() };
                let method = "ImageStore.ListSnapshots".to_owned();
                (stage.service.clone(), method, stage.timeout, Params::Any(value(&dataset)))
            }
            Phase::Room => {
                let method = "ImageStore.VerifySnapshot".to_owned();
                (stage.service.clone(), method, stage.timeout, Params::Snapshot(ordered(job, asked, true)))
            }
            Phase::Take(hold) => {
                let timeout = if phase.holds() { stage.timeout.min(HELD) } else { stage.timeout };
                let params = Params::Snapshot(ordered(job, asked, hold != Hold::Off));
                (stage.service.clone(), stage.method.clone(), timeout, params)
            }
        };
        Some(Call {
            seq: job.seq,
            step: job.step.clone(),
            owner: job.owner,
            action: job.action.clone(),
            service,
            method,
            args: stage.args.clone(),
            timeout,
            params,
        })
    }

    /// Calls what such a stage is at, or ends the job when that cannot be called.
    pub(super) fn call_quiesced(&mut self, mut job: JobRecord, stage: Option<&Stage>, phase: Phase) {
        // What takes something back needs no plan, which may be another one since the agent's start.
        let taking_back = || job.held_by.clone().filter(|_| phase.takes_back()).map(letting_go);
        let stage = stage.filter(|stage| stage.quiesce.is_some()).cloned().or_else(taking_back);
        if phase == Phase::Look {
            job.held_by = stage.as_ref().and_then(|stage| stage.quiesce.clone());
        }
        match stage.and_then(|stage| self.quiesce_call(&job, &stage, phase)) {
            Some(call) => {
                job.updated_at = self.now;
                self.calls.push(call);
                self.changes.push(Change::PutJob(Box::new(job)));
            }
            None => {
                let message = format!("the action `{}` has no such stage any more", job.action);
                self.failed(job, 0, message);
            }
        }
    }
}

/// A stage of a plan that knows it no more, to let a guest go on.
fn letting_go(libvirt: String) -> Stage {
    Stage {
        service: libvirt.clone(),
        method: String::new(),
        args: BTreeMap::new(),
        timeout: STAGE_LIMIT,
        quiesce: Some(libvirt),
    }
}

/// A request with the order that takes the snapshot: the job's id as a number, so that no other job's is the same.
fn ordered(job: &JobRecord, asked: &SnapshotRequest, quiet: bool) -> SnapshotRequest {
    SnapshotRequest { haar: Some(SnapshotWant { order: order(job), quiet }), ..asked.clone() }
}

/// Whether a sub-agent says that it has no such method, in the words of the kits there are.
fn is_unknown_method(words: &str) -> bool {
    words.contains("can't find") || words.contains("unknown method")
}

fn order(job: &JobRecord) -> String {
    job.id.as_u128().to_string()
}

/// The names in the guest of the disks that are asked for, when all of them are qcow2 files.
pub(super) fn inside<'a>(guest: &'a Guest, asked: &SnapshotRequest) -> Option<Vec<&'a str>> {
    let dataset = asked.id.split('@').next().unwrap_or_default();
    let one = dataset.rsplit_once("/disk-").map(|(_, index)| index.parse::<usize>().ok());
    let disks: Vec<&Disk> = match one {
        None => guest.disks.iter().collect(),
        Some(index) => guest.disks.get(index?).into_iter().collect(),
    };
    let is_qcow2 = |disk: &&Disk| !disk.device.is_empty() && disk.haar.get("format") == Some(&json!("qcow2"));
    let is_inside = !disks.is_empty() && disks.iter().all(is_qcow2);
    is_inside.then(|| disks.into_iter().map(|disk| disk.device.as_str()).collect())
}

/// The name of the snapshot that is to be removed.
fn name_of(asked: &SnapshotRequest) -> &str {
    asked.id.split_once('@').map_or("", |(_, name)| name)
}

/// A snapshot of the name that is another order's.
fn taken<'a>(told: &'a Value, asked: &SnapshotRequest, order: &str) -> Option<&'a str> {
    let snapshots = told["snapshots"].as_array().into_iter().flatten();
    let mut others = snapshots.filter(|snapshot| snapshot["haar"]["order"] != order);
    others.find_map(|snapshot| {
        let id = snapshot["id"].as_str()?;
        id.rsplit_once('@').is_some_and(|(_, name)| name == asked.dest).then_some(id)
    })
}

fn value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("guests and requests hold only what JSON can say")
}
