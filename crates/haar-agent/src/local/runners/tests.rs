//! The runners by themselves: each rule of theirs, in the domain's words.

use serde_json::json;

mod changed_plan;
mod create;
mod delete;
mod job;

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
