//! The runners by themselves: each rule of theirs, in the domain's words.

use serde_json::json;

mod changed_plan;

use super::record::{Step, Work};
use super::*;
use haar_api::agent::{Guest, Status, go};
use haar_core::fence::WallMs;

const G: Uuid = Uuid::from_u128(0x0101);

/// The runners with a clock and a counter for ids, and what is under way.
struct Bench {
    runners: Runners,
    calls: Vec<Call>,
    ids: u128,
    now: i64,
}

fn plan() -> Plan {
    Plan::parse(&plan_text().to_string()).unwrap()
}

fn plan_text() -> serde_json::Value {
    let one = |method: &str| json!({"stages": [{"service": "vm", "method": method}]});
    json!({
        "actions": {
            "create": {"stages": [
                {"service": "disk", "method": "Disks"}, {"service": "vm", "method": "Define"},
                {"service": "vm", "method": "Run"}]},
            "delete": {"stages": [{"service": "vm", "method": "Remove"}, {"service": "disk", "method": "Wipe"}]},
            "fetchImage": one("Fetch"), "deleteImage": one("Forget"), "start": one("Run"), "reboot": one("Reboot"), "rollbackSnapshot": one("Rollback"),
        },
        "services": {"vm": {"port": 1}, "disk": {"port": 2}},
        "limits": {"queue": 3, "jobs": 5},
    })
}

fn guest() -> Guest {
    go::from_value(json!({"id": G.to_string(), "memory": 1, "cpu": 1, "metadata": {"a": "1"}})).unwrap()
}

impl Bench {
    fn new() -> Bench {
        let runners = Runners::restore(Arc::new(plan()), Records::default());
        Bench { runners, calls: Vec::new(), ids: 1000, now: 0 }
    }

    /// With the guest made and nothing under way.
    fn with_guest() -> Bench {
        let mut bench = Bench::new();
        bench.create(guest()).unwrap();
        bench.well(3);
        assert_eq!(bench.state(), "create");
        bench
    }

    fn give(&mut self, input: Input) -> Result<Answer, Refused> {
        self.now += 1;
        let decision = self.runners.decide(input, &Env { now: WallMs(self.now) })?;
        self.runners.apply(decision.changes);
        self.calls.extend(decision.calls);
        Ok(decision.answer)
    }

    fn id(&mut self) -> Uuid {
        self.ids += 1;
        Uuid::from_u128(self.ids)
    }

    fn create(&mut self, guest: Guest) -> Result<Uuid, Refused> {
        let job = self.id();
        queued(self.give(Input::Create { guest: Box::new(guest), job })?)
    }

    fn act(&mut self, action: &str) -> Result<Uuid, Refused> {
        let job = self.id();
        queued(self.give(Input::Act { guest: G, action: action.into(), job })?)
    }

    /// Ends the one call under way.
    fn end(&mut self, outcome: impl FnOnce(&Call) -> Outcome) -> Call {
        assert_eq!(self.calls.len(), 1, "{:?}", self.calls);
        let call = self.calls.remove(0);
        let outcome = outcome(&call);
        self.give(Input::Ended { seq: call.seq, step: call.step.clone(), outcome }).unwrap();
        call
    }

    /// Ends so many calls well.
    fn well(&mut self, times: usize) {
        for _ in 0..times {
            self.end(echo);
        }
    }

    fn fail(&mut self, message: &'static str) {
        self.end(|_| Outcome::Failed { message: message.into(), why: Why::Other });
    }

    fn methods(&self) -> Vec<&str> {
        self.calls.iter().map(|call| call.method.as_str()).collect()
    }

    fn status(&self, job: Uuid) -> (Status, &str) {
        let job = self.runners.job(job).unwrap();
        (job.status, job.message.as_str())
    }

    fn state(&self) -> &str {
        &self.runners.guest(G).unwrap().guest.state
    }

    /// As after a kill and a start, with the same records.
    fn restart(&mut self) {
        self.restart_with(plan());
    }

    /// The same with another file of actions.
    fn restart_with(&mut self, plan: Plan) {
        self.runners = Runners::restore(Arc::new(plan), self.runners.records.clone());
        self.calls.clear();
        self.give(Input::Boot).unwrap();
    }
}

fn queued(answer: Answer) -> Result<Uuid, Refused> {
    match answer {
        Answer::Queued { job, .. } => Ok(job),
        other => panic!("{other:?}"),
    }
}

fn echo(call: &Call) -> Outcome {
    match &call.params {
        Params::Guest(sent) => Outcome::Guest { sent: sent.clone(), got: Some(sent.clone()) },
        _ => Outcome::Done,
    }
}

fn answer_with(change: impl FnOnce(&mut Guest)) -> impl FnOnce(&Call) -> Outcome {
    |call| {
        let Params::Guest(sent) = &call.params else { panic!("{call:?}") };
        let mut got = sent.clone();
        change(&mut got);
        Outcome::Guest { sent: sent.clone(), got: Some(got) }
    }
}

#[test]
fn a_stage_gets_the_guest_that_the_one_before_gave() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    bench.end(answer_with(|guest| guest.image = "made".into()));
    let Params::Guest(sent) = &bench.calls[0].params else { panic!() };
    assert_eq!((bench.methods(), sent.image.as_str()), (vec!["Define"], "made"));
    bench.well(1);
    bench.end(answer_with(|guest| guest.state = "running".into()));
    assert_eq!((bench.status(job), bench.state()), ((Status::Complete, ""), "running"));
}

#[test]
fn a26_a_stage_can_clear_what_an_earlier_one_has_set() {
    let mut bench = Bench::with_guest();
    bench.act("start").unwrap();
    bench.end(answer_with(|guest| guest.image = "set".into()));
    bench.act("start").unwrap();
    bench.end(answer_with(|guest| (guest.image, guest.state) = (String::new(), String::new())));
    let guest = &bench.runners.guest(G).unwrap().guest;
    assert_eq!(
        (guest.image.as_str(), guest.state.as_str()),
        ("", "create"),
        "but a state is never unlearned"
    );
}

#[test]
fn one_at_a_time_in_the_order_asked() {
    let mut bench = Bench::with_guest();
    let jobs = [bench.act("start").unwrap(), bench.act("reboot").unwrap(), bench.act("start").unwrap()];
    assert_eq!(bench.methods(), ["Run"]);
    bench.well(1);
    assert_eq!(bench.methods(), ["Reboot"]);
    bench.well(2);
    assert!(jobs.into_iter().all(|job| bench.status(job).0 == Status::Complete));
}

#[test]
fn a11_past_the_bound_there_is_a_no() {
    let mut bench = Bench::with_guest();
    for _ in 0..4 {
        bench.act("start").unwrap();
    }
    assert!(matches!(bench.act("start"), Err(Refused::QueueFull { waiting: 3, .. })));
    bench.well(1);
    bench.act("start").unwrap();
}

#[test]
fn a05_a_stage_that_gives_no_guest_or_another_one_fails() {
    type Lie = fn(&Call) -> Outcome;
    let no_guest: Lie = |call| match echo(call) {
        Outcome::Guest { sent, .. } => Outcome::Guest { sent, got: None },
        other => other,
    };
    let other: Lie = |call| answer_with(|guest| guest.id = Uuid::nil().to_string())(call);
    let kind: Lie = |call| answer_with(|guest| guest.kind = "container".into())(call);
    for (lie, words) in [(no_guest, "without the guest"), (other, "another guest"), (kind, "another type")] {
        let mut bench = Bench::with_guest();
        let job = bench.act("start").unwrap();
        bench.end(lie);
        let (status, message) = bench.status(job);
        assert!(status == Status::Error && message.contains(words), "{message}");
        assert_eq!(bench.runners.guests().count(), 1);
        assert_eq!(bench.runners.guest(G).unwrap().guest.id, G.to_string());
    }
}

#[test]
fn a07_labels_patched_while_a_stage_runs_stay_as_they_were_patched() {
    let mut bench = Bench::with_guest();
    bench.act("start").unwrap();
    let patch = [("a".into(), None), ("b".into(), Some("2".into()))].into();
    bench.give(Input::PatchGuest { guest: G, patch }).unwrap();
    bench.end(answer_with(|guest| {
        guest.state = "running".into();
        guest.metadata.insert("made".into(), "here".into());
    }));
    let guest = &bench.runners.guest(G).unwrap().guest;
    let labels: Vec<&str> = guest.metadata.keys().map(String::as_str).collect();
    assert_eq!((labels, guest.state.as_str()), (vec!["b", "made"], "running"));
}

#[test]
fn a09_a_failed_create_is_taken_back_in_reverse_and_can_be_deleted_or_made_anew() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    bench.well(2);
    bench.fail("boom");
    assert_eq!(bench.methods(), ["Remove"]);
    bench.end(|_| Outcome::Failed { message: "no such domain".into(), why: Why::Absent });
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.fail("busy");
    assert_eq!(bench.status(job), (Status::Error, "boom; it could not be taken back: busy"));
    assert_eq!(bench.state(), "error");

    bench.create(guest()).unwrap();
    bench.fail("boom");
    assert_eq!(bench.methods(), ["Wipe"], "only what had begun");
    bench.well(1);
    let gone = bench.act("delete").unwrap();
    assert!(bench.calls.is_empty(), "nothing of it is left");
    assert_eq!(bench.status(gone), (Status::Complete, ""));
    assert!(bench.runners.guest(G).is_none());
}

#[test]
fn a09_a_delete_goes_where_taking_back_has_failed_and_nowhere_else() {
    let mut bench = Bench::new();
    bench.create(guest()).unwrap();
    bench.well(1);
    bench.fail("boom");
    bench.well(1);
    bench.fail("busy");
    assert_eq!(bench.act("start"), Err(Refused::NotMade(G)));
    bench.act("delete").unwrap();
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.well(1);
    assert!(bench.runners.guest(G).is_none());
}

#[test]
fn a_create_on_somebody_elses_name_takes_nothing_of_theirs_back() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    let waiting = bench.act("poweroff");
    assert_eq!(waiting, Err(Refused::NotConfigured("poweroff".into())));
    let waiting = bench.act("reboot").unwrap();
    bench.well(1);
    bench.end(|_| Outcome::Failed { message: "conflict: a domain exists".into(), why: Why::Foreign });
    assert_eq!(bench.methods(), ["Wipe"], "the domain is not ours");
    bench.well(1);
    assert_eq!(bench.status(job), (Status::Error, "conflict: a domain exists"));
    assert!(bench.status(waiting).1.contains("could not be made") && bench.calls.is_empty());
    bench.act("delete").unwrap();
    assert!(bench.calls.is_empty() && bench.runners.guest(G).is_none());
}

#[test]
fn a08_the_same_guest_again_is_the_same_request_and_another_of_its_id_is_refused() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    assert_eq!(bench.create(guest()), Ok(job));
    bench.well(3);
    assert_eq!(bench.create(guest()), Ok(job));
    assert_eq!(bench.create(Guest { memory: 2, ..guest() }), Err(Refused::Exists(G)));
    assert!(bench.calls.is_empty());
}

#[test]
fn the_same_guest_again_is_refused_while_it_is_being_deleted() {
    let mut bench = Bench::with_guest();
    bench.act("delete").unwrap();
    assert_eq!(bench.create(guest()), Err(Refused::BeingDeleted(G)));
    bench.well(2);
    bench.create(guest()).unwrap();
    assert_eq!(bench.methods(), ["Disks"]);
}

#[test]
fn the_same_guest_again_has_a_job_in_the_log_however_old_it_is() {
    let mut bench = Bench::with_guest();
    let made = bench.runners.guest(G).unwrap().create_job;
    for _ in 0..6 {
        bench.act("start").unwrap();
        bench.well(1);
    }
    assert!(bench.runners.job(made).is_none());
    let again = bench.create(guest()).unwrap();
    assert_eq!(bench.status(again), (Status::Complete, ""));
    assert_eq!((bench.create(guest()), bench.calls.len()), (Ok(again), 0));
}

#[test]
fn a_mac_is_one_guests() {
    let with_mac = |id: u128, mac: &str| Guest {
        id: Uuid::from_u128(id).to_string(),
        nics: vec![haar_api::rpc::Nic { mac: mac.into(), ..Default::default() }],
        ..guest()
    };
    let mut bench = Bench::new();
    let first = Uuid::from_u128(1);
    let act = |bench: &mut Bench, action: &str| {
        let job = bench.id();
        bench.give(Input::Act { guest: first, action: action.into(), job }).unwrap();
    };
    bench.create(with_mac(1, "02:00:00:00:00:01")).unwrap();
    bench.well(3);
    let refused = bench.create(with_mac(2, "02-00-00-00-00-01"));
    let mac = "02:00:00:00:00:01".parse().unwrap();
    assert_eq!(refused, Err(Refused::MacTaken { mac, guest: first }));
    bench.create(with_mac(2, "02:00:00:00:00:02")).unwrap();
    bench.well(3);
    act(&mut bench, "delete");
    bench.well(2);
    bench.create(with_mac(3, "02:00:00:00:00:01")).unwrap();
}

#[test]
fn labels_that_are_too_many_can_be_made_fewer_but_not_more() {
    let mut bench = Bench::with_guest();
    bench.act("start").unwrap();
    bench.end(answer_with(|guest| {
        guest.metadata = (0..1500).map(|key| (key.to_string(), "v".into())).collect();
    }));
    let mut patch = |key: &str, value: Option<&str>| {
        let patch = [(key.to_owned(), value.map(str::to_owned))].into();
        bench.give(Input::PatchGuest { guest: G, patch }).map(drop)
    };
    assert!(matches!(patch("more", Some("v")), Err(Refused::TooManyLabels(1501))));
    assert_eq!((patch("1", None), patch("2", Some("other"))), (Ok(()), Ok(())));
}

#[test]
fn a12_a13_a_deleted_guest_is_gone_when_its_job_is_complete_and_what_waits_ends_with_a_reason() {
    let mut bench = Bench::with_guest();
    let gone = bench.act("delete").unwrap();
    let waiting = [bench.act("start").unwrap(), bench.act("delete").unwrap()];
    bench.well(1);
    let last = bench.calls.remove(0);
    let ended = Input::Ended { seq: last.seq, step: last.step.clone(), outcome: echo(&last) };
    let decision = bench.runners.decide(ended, &Env { now: WallMs(99) }).unwrap();
    let dropped = decision.changes.iter().position(|change| *change == Change::DropGuest(G)).unwrap();
    let complete = |change: &Change| matches!(change, Change::PutJob(job) if job.status == Status::Complete);
    assert!(dropped < decision.changes.iter().position(complete).unwrap(), "in one commit, the guest first");
    bench.runners.apply(decision.changes);
    assert!(bench.runners.guest(G).is_none() && bench.calls.is_empty());
    assert_eq!(bench.status(gone).0, Status::Complete);
    for job in waiting {
        let (status, message) = bench.status(job);
        assert!(status == Status::Error && message.contains(&gone.to_string()), "{message}");
    }
}

#[test]
fn a_guest_that_was_made_is_not_gone_while_something_holds_it() {
    let mut bench = Bench::with_guest();
    let held = bench.act("delete").unwrap();
    bench.well(1);
    bench.end(|_| Outcome::Failed { message: "conflict: its disk is in use".into(), why: Why::Foreign });
    assert_eq!(bench.status(held), (Status::Error, "conflict: its disk is in use"));
    assert_eq!(bench.runners.guests().count(), 1);
    let gone = bench.act("delete").unwrap();
    bench.well(2);
    assert_eq!((bench.status(gone).0, bench.runners.guests().count()), (Status::Complete, 0));
}

#[test]
fn what_is_held_while_a_create_is_taken_back_is_deleted_later() {
    let mut bench = Bench::new();
    bench.create(guest()).unwrap();
    bench.well(2);
    bench.fail("boom");
    bench.well(1);
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.end(|_| Outcome::Failed { message: "conflict: its disk is in use".into(), why: Why::Foreign });
    assert_eq!(bench.state(), "error");
    bench.act("delete").unwrap();
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.well(1);
    assert_eq!(bench.runners.guests().count(), 0);
}

#[test]
fn thousands_that_wait_for_a_guest_that_cannot_be_made_end_at_once() {
    let mut text = plan_text();
    text["limits"] = json!({"queue": 3000, "jobs": 6000});
    let mut bench = Bench::new();
    bench.restart_with(Plan::parse(&text.to_string()).unwrap());
    bench.create(guest()).unwrap();
    let jobs: Vec<Uuid> = (0..3000).map(|_| bench.act("start").unwrap()).collect();
    bench.fail("boom");
    bench.well(1);
    for job in jobs {
        let (status, message) = bench.status(job);
        assert!(status == Status::Error && message.contains("could not be made"), "{message}");
    }
}

#[test]
fn a_delete_that_fails_leaves_the_guest_and_what_waits_goes_on() {
    let mut bench = Bench::with_guest();
    bench.act("delete").unwrap();
    bench.act("start").unwrap();
    bench.fail("busy");
    assert_eq!((bench.methods(), bench.runners.guests().count()), (vec!["Run"], 1));
}

#[test]
fn what_waits_can_be_cancelled_and_nothing_else() {
    let mut bench = Bench::with_guest();
    let (runs, waits) = (bench.act("start").unwrap(), bench.act("reboot").unwrap());
    assert_eq!(bench.give(Input::Cancel { job: runs }), Err(Refused::HasBegun(runs)));
    bench.give(Input::Cancel { job: waits }).unwrap();
    assert_eq!(bench.status(waits), (Status::Error, "cancelled before it began"));
    assert_eq!(bench.give(Input::Cancel { job: waits }), Err(Refused::HasEnded(waits)));
    bench.well(1);
    assert!(bench.calls.is_empty());
}

#[test]
fn a14_the_log_keeps_the_newest_ended_jobs_and_lists_each_owners_own() {
    let mut bench = Bench::with_guest();
    let jobs: Vec<Uuid> = (0..7)
        .map(|_| {
            let job = bench.act("start").unwrap();
            bench.well(1);
            job
        })
        .collect();
    let listed = bench.runners.jobs(Some(Owner::Guest(G)), 100);
    let ids: Vec<String> = listed.iter().map(|job| job.id.clone()).collect();
    let newest: Vec<String> = jobs.iter().rev().take(5).map(Uuid::to_string).collect();
    assert_eq!(ids, newest);
    assert_eq!(bench.runners.jobs(Some(Owner::Agent), 100), []);
    assert_eq!(bench.runners.jobs(None, 2).len(), 2);
}

#[test]
fn a17_each_step_writes_the_records_it_is_about_and_no_other() {
    let mut bench = Bench::with_guest();
    for _ in 0..4 {
        bench.act("start").unwrap();
        bench.well(1);
    }
    bench.act("start").unwrap();
    let call = bench.calls.remove(0);
    let ended = Input::Ended { seq: call.seq, step: call.step.clone(), outcome: echo(&call) };
    let decision = bench.runners.decide(ended, &Env { now: WallMs(99) }).unwrap();
    let about: Vec<u64> = decision
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::PutJob(job) => Some(job.seq),
            _ => None,
        })
        .collect();
    assert_eq!(about, [call.seq]);
    assert!(decision.changes.len() <= 3, "the guest, the job, and the one that is dropped for it");
}

#[test]
fn a03_after_a_restart_what_may_be_asked_again_is_and_the_rest_ends_with_a_reason() {
    let mut bench = Bench::with_guest();
    let (start, reboot, last) =
        (bench.act("start").unwrap(), bench.act("reboot").unwrap(), bench.act("start").unwrap());
    bench.restart();
    assert_eq!(bench.methods(), ["Run"], "asked again");
    bench.well(1);
    assert_eq!((bench.status(start).0, bench.methods()), (Status::Complete, vec!["Reboot"]));
    bench.restart();
    assert_eq!(bench.methods(), ["Run"], "what waited goes on");
    let (status, message) = bench.status(reboot);
    assert!(status == Status::Error && message.contains("not known whether"), "{message}");
    bench.well(1);
    assert_eq!(bench.status(last).0, Status::Complete);
}

#[test]
fn an_undo_goes_on_after_a_restart() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    bench.well(1);
    bench.fail("boom");
    bench.well(1);
    bench.restart();
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.well(1);
    assert_eq!((bench.status(job), bench.state()), ((Status::Error, "boom"), "error"));
}

#[test]
fn a_stage_of_the_past_changes_nothing() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    let first = bench.calls[0].clone();
    let failed = |call: &Call| Input::Ended {
        seq: call.seq,
        step: call.step.clone(),
        outcome: Outcome::Failed { message: "too late".into(), why: Why::Other },
    };
    bench.well(1);
    bench.give(failed(&first)).unwrap();
    assert_eq!((bench.status(job), bench.methods()), ((Status::Running, ""), vec!["Define"]));
    bench.well(1);
    let last = bench.calls[0].clone();
    bench.well(1);
    bench.give(failed(&last)).unwrap();
    assert_eq!((bench.status(job), bench.state()), ((Status::Complete, ""), "create"));
    let unknown = Input::Ended { seq: 999, step: Step::Forward(0), outcome: Outcome::Done };
    bench.give(unknown).unwrap();
    assert!(bench.calls.is_empty());
}

#[test]
fn a_guest_of_containers_has_its_own_actions_and_the_others_keep_theirs() {
    let mut bench = Bench::with_guest();
    let other = Uuid::from_u128(0x0202);
    let container = Guest { id: other.to_string(), kind: "container".into(), ..Guest::default() };
    let refused = bench.create(container).unwrap_err();
    assert_eq!(refused, Refused::NotConfigured("containerCreate".into()));
    assert!(bench.runners.guest(other).is_none(), "nothing is left of what was refused");
    bench.act("start").unwrap();
    assert_eq!(bench.methods(), ["Run"]);
}

#[test]
fn what_is_done_with_one_image_holds_up_no_other_and_there_is_a_bound() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, action: &str, id: &str| {
        let request = haar_api::rpc::ImageRequest { id: id.into(), ..Default::default() };
        let job = bench.id();
        let input = Input::Image { action: action.into(), request: Box::new(request), job };
        bench.give(input).map(|_| job)
    };
    let fetch = ask(&mut bench, "fetchImage", "one").unwrap();
    let delete = ask(&mut bench, "deleteImage", "one").unwrap();
    ask(&mut bench, "fetchImage", "two").unwrap();
    assert_eq!(bench.methods(), ["Fetch", "Fetch"], "the deletion waits for the fetch of the same image");
    assert_eq!((bench.status(fetch).0, bench.status(delete).0), (Status::Running, Status::Queued));
    ask(&mut bench, "fetchImage", "three").unwrap();
    assert!(matches!(ask(&mut bench, "fetchImage", "four"), Err(Refused::QueueFull { waiting: 3, .. })));
    assert_eq!(bench.runners.job(delete).unwrap().job().guest_id, "agent");
}

#[test]
fn work_on_snapshots_waits_its_turn_like_any_other() {
    let mut bench = Bench::with_guest();
    bench.act("start").unwrap();
    let job = bench.id();
    let request = haar_api::rpc::SnapshotRequest::default();
    let input = Input::Snapshot { guest: G, action: "rollbackSnapshot".into(), request, job };
    bench.give(input).unwrap();
    assert_eq!(bench.methods(), ["Run"]);
    bench.well(1);
    assert_eq!(bench.methods(), ["Rollback"]);
    assert!(matches!(bench.runners.job(job).unwrap().work, Work::Snapshot(_)));
}

#[test]
fn a_state_that_was_seen_is_taken_over_unless_something_is_done_with_the_guest() {
    let mut bench = Bench::with_guest();
    let seen = |state: &str, next_seq| Input::Seen { guest: G, state: state.into(), next_seq };
    let before = bench.runners.next_seq();
    bench.give(seen("crashed", before)).unwrap();
    assert_eq!(bench.state(), "crashed");
    bench.act("start").unwrap();
    bench.give(seen("shutoff", bench.runners.next_seq())).unwrap();
    assert_eq!(bench.state(), "crashed", "its job says what it is");
    bench.end(answer_with(|guest| guest.state = "running".into()));
    bench.give(seen("shutoff", before)).unwrap();
    assert_eq!(bench.state(), "running", "it was looked at before that job");
    bench.give(seen("shutoff", bench.runners.next_seq())).unwrap();
    assert_eq!(bench.state(), "shutoff");
    let next_seq = bench.runners.next_seq();
    bench.give(Input::Seen { guest: Uuid::from_u128(7), state: "running".into(), next_seq }).unwrap();
    assert_eq!(bench.runners.guests().count(), 1, "nobody else's guest is taken in");
}
