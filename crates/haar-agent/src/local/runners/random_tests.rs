//! The runners under whatever comes: a few guests, inputs and outcomes by lot, restarts in between.
//!
//! Held at every step: one call at a time for each owner and none for a guest that is not there; what is applied is
//! what would be restored; at the end every job has ended, in the order asked for each owner.

use std::collections::BTreeMap;
use std::sync::Arc;

use haar_api::agent::{Guest, Status, go};
use haar_core::fence::WallMs;
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;

const GUESTS: u128 = 3;
const KEPT: u32 = 20;

#[derive(Debug, Clone)]
enum Step {
    Create(u128),
    Act(u128, usize),
    Patch(u128, bool),
    Cancel(usize),
    /// Ends the call at this place among those under way, with this outcome.
    End(usize, u8),
    /// With the file of actions of this number.
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let guest = || 1..=GUESTS;
    prop_oneof![
        2 => guest().prop_map(Step::Create),
        4 => (guest(), 0..4_usize).prop_map(|(guest, action)| Step::Act(guest, action)),
        1 => (guest(), any::<bool>()).prop_map(|(guest, set)| Step::Patch(guest, set)),
        1 => (0..30_usize).prop_map(Step::Cancel),
        9 => (0..4_usize, 0..7_u8).prop_map(|(at, how)| Step::End(at, how)),
        1 => (0..4_usize).prop_map(Step::Restart),
    ]
}

/// The file of actions as it was at first, or changed: stages the other way round, fewer of them, or none.
fn plan(number: usize) -> Arc<Plan> {
    let stages = |methods: &[&str]| {
        let stage =
            |method: &&str| json!({"service": if method.len() > 5 {"a"} else {"b"}, "method": method});
        json!({"stages": methods.iter().map(stage).collect::<Vec<_>>()})
    };
    let mut text = json!({
        "actions": {"create": stages(&["Disks1", "Def", "Run"]), "delete": stages(&["Undef", "Undisk"]),
            "start": stages(&["Run"]), "reboot": stages(&["Hit"]), "poweroff": stages(&["Off", "Settle"])},
        "services": {"a": {"port": 1}, "b": {"port": 2}},
        "limits": {"queue": 4, "jobs": KEPT},
    });
    match number {
        1 => text["actions"]["create"] = stages(&["Def", "Disks1"]),
        2 => text["actions"]["delete"] = stages(&["Undisk"]),
        3 => text["actions"]["start"] = stages(&[]),
        _ => {}
    }
    Arc::new(Plan::parse(&text.to_string()).unwrap())
}

struct World {
    runners: Runners,
    calls: Vec<Call>,
    jobs: Vec<Uuid>,
    began: BTreeMap<Owner, u64>,
    now: i64,
}

impl World {
    fn give(&mut self, input: Input) {
        self.now += 1;
        let Ok(decision) = self.runners.decide(input, &Env { now: WallMs(self.now) }) else { return };
        self.runners.apply(decision.changes);
        self.calls.extend(decision.calls);
        self.check();
    }

    fn check(&mut self) {
        for (at, call) in self.calls.iter().enumerate() {
            assert!(
                self.calls[..at].iter().all(|other| other.owner != call.owner),
                "two at a time: {call:?}"
            );
            let Owner::Guest(id) = call.owner else { panic!("{call:?}") };
            assert!(self.runners.guest(id).is_some(), "called for nobody: {call:?}");
            let last = self.began.insert(call.owner, call.seq).unwrap_or(0);
            assert!(last <= call.seq, "out of order: {call:?}");
        }
        let restored = Runners::restore(Arc::clone(&self.runners.plan), self.runners.records.clone());
        assert_eq!((&restored.open, &restored.ended), (&self.runners.open, &self.runners.ended));
        assert!(self.runners.ended.len() <= KEPT as usize, "the log is bounded");
    }

    fn take(&mut self, step: &Step) {
        let job = Uuid::from_u128(1000 + self.jobs.len() as u128);
        match step {
            Step::Create(guest) => {
                let id = Uuid::from_u128(*guest).to_string();
                let guest: Guest = go::from_value(json!({"id": id})).unwrap();
                self.jobs.push(job);
                self.give(Input::Create { guest: Box::new(guest), job });
            }
            Step::Act(guest, action) => {
                let action = ["delete", "start", "reboot", "poweroff"][*action].to_owned();
                self.jobs.push(job);
                self.give(Input::Act { guest: Uuid::from_u128(*guest), action, job });
            }
            Step::Patch(guest, set) => {
                let patch = [("key".to_owned(), set.then(|| "value".to_owned()))].into();
                self.give(Input::PatchGuest { guest: Uuid::from_u128(*guest), patch });
            }
            Step::Cancel(at) => {
                if let Some(job) = self.jobs.get(*at).copied() {
                    self.give(Input::Cancel { job });
                }
            }
            Step::End(at, how) if *at < self.calls.len() => {
                let call = self.calls.remove(*at);
                let outcome = outcome(&call, *how);
                self.give(Input::Ended { seq: call.seq, step: call.step, outcome });
            }
            Step::End(..) => {}
            Step::Restart(number) => {
                self.runners = Runners::restore(plan(*number), self.runners.records.clone());
                self.calls.clear();
                self.give(Input::Boot);
            }
        }
    }
}

fn outcome(call: &Call, how: u8) -> Outcome {
    let Params::Guest(sent) = &call.params else { return Outcome::Done };
    match how {
        0 => Outcome::Failed { message: "boom".into(), why: Why::Other },
        1 => Outcome::Failed { message: "not found".into(), why: Why::Absent },
        2 => Outcome::Guest { sent: sent.clone(), got: None },
        6 => Outcome::Failed { message: "conflict: it is held".into(), why: Why::Foreign },
        _ => Outcome::Guest { sent: sent.clone(), got: Some(sent.clone()) },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_comes_every_job_ends_in_its_turn(steps in proptest::collection::vec(step(), 1..120)) {
        let runners = Runners::restore(plan(0), Records::default());
        let mut world = World { runners, calls: Vec::new(), jobs: Vec::new(), began: BTreeMap::new(), now: 0 };
        for step in &steps {
            world.take(step);
        }
        let mut left = 10_000;
        while !world.calls.is_empty() {
            world.take(&Step::End(0, 3));
            left -= 1;
            assert!(left > 0, "it does not end");
        }
        prop_assert!(world.runners.open.is_empty());
        prop_assert!(world.runners.jobs(None, 1000).iter().all(|job| job.status.has_ended()));
        for guest in world.runners.guests() {
            let made = world.runners.job(guest.create_job).is_none_or(|job| job.status == Status::Complete);
            prop_assert!(made || guest.guest.state == "error", "{guest:?}");
        }
    }
}
