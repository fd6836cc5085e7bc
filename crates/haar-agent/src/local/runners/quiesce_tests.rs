//! Snapshots of a guest that may run, on a host in memory: every kind of guest, broken in every way at every call.

use std::sync::Arc;

use haar_api::agent::{Guest, Status, go};
use haar_core::fence::WallMs;
use serde_json::{Value, json};

use super::*;

const G: Uuid = Uuid::from_u128(0x0101);
const JOB: Uuid = Uuid::from_u128(0x0202);

/// A host with one guest on it.
#[derive(Debug, Clone, Default)]
struct Host {
    is_up: bool,
    is_paused: bool,
    has_agent: bool,
    is_qcow2: bool,
    is_frozen: bool,
    /// What the storage says when it is asked for room; None: there is some.
    no_room: Option<&'static str>,
    /// Names with their orders.
    snapshots: Vec<(String, String)>,
    calls: Vec<String>,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    /// A no, and nothing was done.
    No,
    /// A no, but it was done.
    NoAfter,
    UnheardBefore,
    /// The sub-agent falls when it has frozen the guest by itself.
    UnheardMidway,
    UnheardAfter,
    KilledBefore,
    /// The sub-agent falls with the agent.
    KilledMidway,
    KilledAfter,
}

const BREAKS: [Break; 8] = [
    Break::No,
    Break::NoAfter,
    Break::UnheardBefore,
    Break::UnheardMidway,
    Break::UnheardAfter,
    Break::KilledBefore,
    Break::KilledMidway,
    Break::KilledAfter,
];

impl Break {
    fn kills(self) -> bool {
        matches!(self, Break::KilledBefore | Break::KilledMidway | Break::KilledAfter)
    }

    fn comes_before(self) -> bool {
        matches!(self, Break::No | Break::UnheardBefore | Break::KilledBefore)
    }

    fn is_midway(self) -> bool {
        matches!(self, Break::UnheardMidway | Break::KilledMidway)
    }

    /// What the agent is told.
    fn outcome(self) -> Outcome {
        match self {
            Break::No | Break::NoAfter => failed("no", Why::Other),
            _ => failed("no answer", Why::Unheard),
        }
    }
}

fn failed(message: &str, why: Why) -> Outcome {
    Outcome::Failed { message: message.to_owned(), why }
}

impl Host {
    fn act(&mut self, call: &Call) -> Outcome {
        self.calls.push(call.method.clone());
        let told = |value: Value| Outcome::Told(value);
        if !self.is_up && matches!(&*call.method, "Libvirt.Freeze" | "Libvirt.Suspend" | "Libvirt.Snapshot") {
            return failed("the domain is shutoff", Why::Other);
        }
        let params = match &call.params {
            Params::Any(params) => params.clone(),
            Params::Snapshot(_) if call.method == "ImageStore.VerifySnapshot" => {
                return self.no_room.map_or(Outcome::Done, |words| failed(words, Why::Other));
            }
            Params::Snapshot(request) => return self.take(request),
            other => panic!("{other:?}"),
        };
        match &*call.method {
            "Libvirt.Status" => {
                let state = if self.is_paused { "paused" } else { "running" };
                told(json!({"guest": {"state": if self.is_up { state } else { "shutoff" }}}))
            }
            "Libvirt.Freeze" => {
                assert!(!self.is_frozen, "frozen twice");
                assert_eq!(params["args"]["thaw_after_s"], "60");
                self.is_frozen = self.has_agent;
                told(json!({"agent": if self.has_agent { "answers" } else { "absent" }}))
            }
            "Libvirt.Thaw" => {
                self.is_frozen = false;
                told(json!({}))
            }
            "Libvirt.Suspend" | "Libvirt.Resume" => {
                let limit = (call.method == "Libvirt.Suspend").then(|| json!("60"));
                assert_eq!(params["args"].get("resume_after_s"), limit.as_ref());
                self.is_paused = call.method == "Libvirt.Suspend";
                told(json!({}))
            }
            "ImageStore.ListSnapshots" => {
                let wire = |(name, order): &(String, String)| json!({"id": format!("guests/x/disk-0@{name}"), "haar": {"order": order}});
                told(json!({"snapshots": self.snapshots.iter().map(wire).collect::<Vec<_>>()}))
            }
            method => {
                let (name, order) =
                    params["name"].as_str().unwrap().strip_prefix("haar:").unwrap().split_once('@').unwrap();
                let snapshot = (name.to_owned(), order.to_owned());
                assert_eq!(params["devices"], json!(["vda", "vdb"]));
                self.snapshots.retain(|standing| *standing != snapshot);
                if method == "Libvirt.Snapshot" {
                    self.snapshots.push(snapshot);
                }
                told(json!({}))
            }
        }
    }

    /// Acts, or goes wrong. What lets the guest go on is asked again by the hands, and then goes well.
    fn go_wrong(&mut self, call: &Call, how: Option<Break>) -> Outcome {
        let Some(how) = how else { return self.act(call) };
        if !how.comes_before() {
            self.act(call);
        }
        if how.is_midway() && call.method == "Libvirt.Snapshot" {
            self.is_frozen = self.has_agent;
        }
        if call.step.lets_go() && !how.kills() { self.act(call) } else { how.outcome() }
    }

    fn take(&mut self, request: &haar_api::rpc::SnapshotRequest) -> Outcome {
        let want = request.haar.clone().unwrap();
        let snapshot = (request.dest.clone(), want.order);
        let is_still = self.is_frozen || self.is_paused || !self.is_up;
        assert!(is_still || !want.quiet, "the storage is told that a guest is quiet that is not: {self:?}");
        if self.snapshots.contains(&snapshot) {
            return Outcome::Done;
        }
        if self.snapshots.iter().any(|(name, _)| *name == request.dest) {
            return failed("conflict: it exists", Why::Foreign);
        }
        if self.is_up && (!want.quiet || self.is_qcow2) {
            return failed("conflict: QEMU holds it", Why::Foreign);
        }
        self.snapshots.push(snapshot);
        Outcome::Done
    }
}

fn plan() -> Arc<Plan> {
    let text = json!({
        "actions": {
            "create": {"stages": [{"service": "libvirt", "method": "Define"}]},
            "createSnapshot": {"stages": [
                {"service": "storage", "method": "ImageStore.CreateSnapshot", "quiesce": "libvirt"}]},
            "deleteSnapshot": {"stages": [
                {"service": "storage", "method": "ImageStore.DeleteSnapshot", "quiesce": "libvirt"}]},
        },
        "services": {"libvirt": {"port": 1}, "storage": {"port": 2}},
    });
    Arc::new(Plan::parse(&text.to_string()).unwrap())
}

struct World {
    runners: Runners,
    calls: Vec<Call>,
}

impl World {
    fn with_guest(host: &Host) -> World {
        let mut world = World { runners: Runners::restore(plan(), Records::default()), calls: Vec::new() };
        let disk = |device: &str| {
            let format = if host.is_qcow2 { "qcow2" } else { "raw" };
            json!({"device": device, "size": 1, "haar": {"format": format}})
        };
        let guest = json!({"id": G.to_string(), "memory": 1, "cpu": 1, "disks": [disk("vda"), disk("vdb")]});
        let guest: Guest = go::from_value(guest).unwrap();
        world.give(Input::Create { guest: Box::new(guest), job: Uuid::from_u128(1) });
        let call = world.calls.remove(0);
        let Params::Guest(sent) = call.params else { panic!("{call:?}") };
        let outcome = Outcome::Guest { sent: sent.clone(), got: Some(sent) };
        world.give(Input::Ended { seq: call.seq, step: call.step, outcome });
        world
    }

    fn give(&mut self, input: Input) {
        let decision = self.runners.decide(input, &Env { now: WallMs(1) }).unwrap();
        self.runners.apply(decision.changes);
        self.calls.extend(decision.calls);
    }

    /// Takes a snapshot; the call at this place goes wrong in this way. Gives the call, if there was one.
    fn snapshot(&mut self, host: &mut Host, breaks: Option<(usize, Break)>) -> Option<Call> {
        let request = haar_api::rpc::SnapshotRequest {
            id: format!("guests/{G}"),
            dest: "s1".to_owned(),
            ..Default::default()
        };
        self.give(Input::Snapshot { guest: G, action: "createSnapshot".to_owned(), request, job: JOB });
        let mut broken = None;
        for at in 1.. {
            let Some(call) = self.calls.pop() else { break };
            assert!(at < 30, "it does not end: {:?}", host.calls);
            let how = breaks.filter(|(place, _)| *place == at).map(|(_, how)| how);
            if how.is_some() {
                broken = Some(call.clone());
            }
            let outcome = host.go_wrong(&call, how);
            if how.is_some_and(Break::kills) {
                self.runners = Runners::restore(plan(), self.runners.records.clone());
                self.give(Input::Boot);
            } else {
                self.give(Input::Ended { seq: call.seq, step: call.step, outcome });
            }
        }
        broken
    }

    fn job(&self) -> (Status, &str) {
        let job = self.runners.job(JOB).unwrap();
        (job.status, job.message.as_str())
    }
}

fn hosts() -> impl Iterator<Item = Host> {
    (0..16_u8).map(|bits| Host {
        is_up: bits & 1 != 0,
        is_paused: bits & 3 == 3,
        has_agent: bits & 4 != 0,
        is_qcow2: bits & 8 != 0,
        ..Host::default()
    })
}

#[test]
fn a_guest_is_snapshot_however_it_is_and_goes_on_afterwards() {
    for before in hosts() {
        let mut host = before.clone();
        let mut world = World::with_guest(&host);
        world.snapshot(&mut host, None);
        assert_eq!(world.job(), (Status::Complete, ""), "{host:?}");
        assert_eq!((host.is_frozen, host.is_paused), (false, before.is_paused), "{host:?}");
        assert_eq!(host.snapshots.len(), 1, "{host:?}");
        let how = match (before.is_up, before.is_qcow2, before.is_paused, before.has_agent) {
            (false, ..) => "ImageStore.CreateSnapshot",
            (true, true, ..) => "ImageStore.ListSnapshots ImageStore.VerifySnapshot Libvirt.Snapshot",
            (true, false, true, _) => "ImageStore.CreateSnapshot",
            (true, false, false, true) => "Libvirt.Freeze ImageStore.CreateSnapshot Libvirt.Thaw",
            (true, false, false, false) => {
                "Libvirt.Freeze Libvirt.Suspend ImageStore.CreateSnapshot Libvirt.Resume"
            }
        };
        assert_eq!(host.calls.join(" "), format!("Libvirt.Status {how}"));
    }
}

#[test]
fn whatever_breaks_at_any_call_a_guest_is_let_go_on_and_the_job_tells_the_truth() {
    for before in hosts() {
        for how in BREAKS {
            for at in 1.. {
                let mut host = before.clone();
                let mut world = World::with_guest(&host);
                let Some(broken) = world.snapshot(&mut host, Some((at, how))) else { break };
                let place = format!("{how:?} at {}: {:?} {host:?}", broken.method, world.job());
                let (status, message) = world.job();
                assert!(status.has_ended(), "{place}");
                assert!(!message.contains("let go on"), "{place}");
                assert_eq!((host.is_frozen, host.is_paused), (false, before.is_paused), "{place}");
                if how.kills() {
                    assert_eq!((status, host.snapshots.len()), (Status::Complete, 1), "{place}");
                }
                let is_late = broken.method == "ImageStore.CreateSnapshot" && !how.comes_before();
                if status == Status::Error && !is_late {
                    assert!(host.snapshots.is_empty(), "{place}");
                }
                if status == Status::Complete {
                    assert_eq!(host.snapshots.len(), 1, "{place}");
                }
            }
        }
    }
}

#[test]
fn a_name_that_another_order_took_is_refused_and_left_alone() {
    for before in hosts() {
        let mut host = Host { snapshots: vec![("s1".to_owned(), "7".to_owned())], ..before.clone() };
        let mut world = World::with_guest(&host);
        world.snapshot(&mut host, None);
        let (status, message) = world.job();
        assert!(status == Status::Error && message.contains("exists"), "{message}");
        assert_eq!(host.snapshots, [("s1".to_owned(), "7".to_owned())]);
        assert_eq!((host.is_frozen, host.is_paused), (false, before.is_paused), "{host:?}");
    }
}

#[test]
fn qemu_takes_none_for_which_the_storage_has_no_room_and_one_when_the_storage_knows_no_such_question() {
    let full = "no_space: 1 GiB are needed";
    let unknown = "rpc: can't find method ImageStore.VerifySnapshot";
    for (words, status, calls, stand) in [(full, Status::Error, 3, 0), (unknown, Status::Complete, 4, 1)] {
        let mut host = Host { is_up: true, is_qcow2: true, no_room: Some(words), ..Host::default() };
        let mut world = World::with_guest(&host);
        world.snapshot(&mut host, None);
        let message = if status == Status::Error { words } else { "" };
        assert_eq!((world.job(), host.calls.len()), ((status, message), calls), "{host:?}");
        assert_eq!(host.snapshots.len(), stand);
    }
}

#[test]
fn what_qemu_may_have_taken_is_removed_when_nobody_knows() {
    let mut host = Host { is_up: true, is_qcow2: true, ..Host::default() };
    let mut world = World::with_guest(&host);
    let broken = world.snapshot(&mut host, Some((4, Break::UnheardAfter))).unwrap();
    assert_eq!(broken.method, "Libvirt.Snapshot");
    assert_eq!(host.calls[4..], ["Libvirt.Thaw", "Libvirt.DropSnapshot"]);
    assert_eq!((world.job(), host.snapshots.len()), ((Status::Error, "no answer"), 0));
}

#[test]
fn one_disk_is_snapshot_inside_by_its_own_name() {
    let disks = json!({"disks": [{"device": "vda", "haar": {"format": "raw"}}, {"device": "vdb", "haar": {"format": "qcow2"}}]});
    let guest: Guest = go::from_value(disks).unwrap();
    let asked = |id: &str| haar_api::rpc::SnapshotRequest { id: id.to_owned(), ..Default::default() };
    let inside = |id: &str| super::quiesce::inside(&guest, &asked(id));
    assert_eq!(inside("guests/x/disk-1"), Some(vec!["vdb"]));
    assert_eq!(inside("guests/x/disk-1@s1"), Some(vec!["vdb"]));
    for other in ["guests/x/disk-0", "guests/x", "guests/x@s1", "guests/x/disk-2", "guests/x/disk-y"] {
        assert_eq!(inside(other), None, "{other}");
    }
}

/// A job that is to let its guest go on, and the runners that know of it.
fn releasing(host: &mut Host) -> (World, Call) {
    let mut world = World::with_guest(host);
    let request = haar_api::rpc::SnapshotRequest {
        id: format!("guests/{G}"),
        dest: "s1".to_owned(),
        ..Default::default()
    };
    world.give(Input::Snapshot { guest: G, action: "createSnapshot".to_owned(), request, job: JOB });
    loop {
        let call = world.calls.pop().expect("the guest is held at some time");
        if call.step.lets_go() {
            return (world, call);
        }
        let outcome = host.act(&call);
        world.give(Input::Ended { seq: call.seq, step: call.step, outcome });
    }
}

#[test]
fn a_guest_that_cannot_be_let_go_on_is_told_of_and_one_that_is_off_is_not_held() {
    for (why, status, words) in [
        (Why::Other, Status::Error, "the snapshot stands, but the guest could not be let go on: no"),
        (Why::Unheard, Status::Error, "the snapshot stands, but the guest could not be let go on: no"),
        (Why::Absent, Status::Complete, ""),
        (Why::Unfit, Status::Complete, ""),
    ] {
        let mut host = Host { is_up: true, ..Host::default() };
        let (mut world, call) = releasing(&mut host);
        world.give(Input::Ended { seq: call.seq, step: call.step, outcome: failed("no", why) });
        assert_eq!(world.job(), (status, words), "{why:?}");
    }
}

#[test]
fn a_held_guest_is_let_go_on_by_the_service_that_holds_it_also_when_the_plan_knows_no_such_stage() {
    for stages in [json!([]), json!([{"service": "storage", "method": "ImageStore.CreateSnapshot"}])] {
        let mut host = Host { is_up: true, has_agent: true, ..Host::default() };
        let (world, _) = releasing(&mut host);
        let text = json!({
            "actions": {"createSnapshot": {"stages": stages}},
            "services": {"libvirt": {"port": 1}, "storage": {"port": 2}},
        });
        let plan = Arc::new(Plan::parse(&text.to_string()).unwrap());
        let runners = Runners::restore(plan, world.runners.records.clone());
        let mut world = World { runners, calls: Vec::new() };
        world.give(Input::Boot);
        let call = world.calls.pop().unwrap();
        assert_eq!((call.service.as_str(), call.method.as_str()), ("libvirt", "Libvirt.Thaw"));
        let outcome = host.act(&call);
        world.give(Input::Ended { seq: call.seq, step: call.step, outcome });
        assert!(world.job().0.has_ended() && !host.is_frozen);
    }
}

#[test]
fn a_snapshot_is_removed_by_the_qemu_that_has_the_files_open_and_else_by_the_storage() {
    for host in hosts() {
        let mut world = World::with_guest(&host);
        let request = haar_api::rpc::SnapshotRequest { id: format!("guests/{G}@s1"), ..Default::default() };
        world.give(Input::Snapshot { guest: G, action: "deleteSnapshot".to_owned(), request, job: JOB });
        let look = world.calls.pop().unwrap();
        let outcome = host.clone().act(&look);
        world.give(Input::Ended { seq: look.seq, step: look.step, outcome });
        let call = world.calls.pop().unwrap();
        if host.is_up && host.is_qcow2 {
            let Params::Any(params) = &call.params else { panic!("{call:?}") };
            let asked = (call.service.as_str(), call.method.as_str(), &params["name"], &params["devices"]);
            let devices = json!(["vda", "vdb"]);
            assert_eq!(asked, ("libvirt", "Libvirt.DropSnapshot", &json!("haar:s1@*"), &devices));
        } else {
            assert_eq!(
                (call.service.as_str(), call.method.as_str()),
                ("storage", "ImageStore.DeleteSnapshot")
            );
            assert!(matches!(&call.params, Params::Snapshot(asked) if asked.haar.is_none()), "{call:?}");
        }
        // It is gone, and the agent was killed before it heard so; or it was never there.
        for (is_again, status) in [(true, Status::Complete), (false, Status::Error)] {
            let mut world = World { runners: world.runners.clone(), calls: vec![call.clone()] };
            if is_again {
                world = World { runners: Runners::restore(plan(), world.runners.records), calls: Vec::new() };
                world.give(Input::Boot);
            }
            while let Some(call) = world.calls.pop() {
                let outcome = match &*call.method {
                    "Libvirt.Status" => host.clone().act(&call),
                    _ => failed("not found", Why::Absent),
                };
                world.give(Input::Ended { seq: call.seq, step: call.step, outcome });
            }
            assert_eq!(world.job().0, status, "{host:?} {is_again}");
        }
    }
}
