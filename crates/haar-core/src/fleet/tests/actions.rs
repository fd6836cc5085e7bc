//! What a user asks of a guest that is there: each state and each request.

use super::*;
use crate::guest::{GoalBy, Owner};
use crate::id::Kind;

const ALL: [GuestAction; 6] = [
    GuestAction::Start,
    GuestAction::Shutdown,
    GuestAction::Poweroff,
    GuestAction::Reboot,
    GuestAction::Recreate,
    GuestAction::Adopt,
];

/// A guest brought into each state, by name.
fn in_state(state: &str) -> Cloud {
    let mut cloud = Cloud::with_hosts(2);
    cloud.create(1).unwrap();
    let id = guest(1);
    match state {
        "creating" => return cloud,
        "failed" => {
            cloud.tell(id, failed(), Power::Absent);
            return cloud;
        }
        _ => {}
    }
    cloud.tell(id, Phase::Settled, Power::Running);
    match state {
        "running" => {}
        "stopped" => {
            cloud.act(id, GuestAction::Shutdown).unwrap();
            cloud.tell(id, Phase::Settled, Power::Off);
        }
        "paused" => drop(cloud.tell(id, Phase::Settled, Power::Paused)),
        "starting" => {
            cloud.act(id, GuestAction::Shutdown).unwrap();
            cloud.tell(id, Phase::Settled, Power::Off);
            cloud.act(id, GuestAction::Start).unwrap();
        }
        "stopping" => drop(cloud.act(id, GuestAction::Shutdown).unwrap()),
        "lost" => drop(cloud.tell(id, Phase::Lost { message: "disk is missing".into() }, Power::Absent)),
        "lost, holding nothing" => {
            cloud.polls.0.remove(&host(1));
            cloud.yes(Command::DeclareLost(host(1)));
        }
        "deleting" => drop(cloud.yes(Command::Delete(Kind::Guest, id.0, None))),
        other => panic!("{other}"),
    }
    cloud
}

/// `job`: accepted with a job; `same`: already so; otherwise the refusal's code.
fn outcome(decided: Decided) -> String {
    match decided {
        Err(refusal) => refusal.code().to_owned(),
        Ok(decision) => match (decision.answer.outcome, decision.answer.job) {
            (Outcome::Same, _) => "same".to_owned(),
            (_, Some(_)) => "job".to_owned(),
            (outcome, None) => format!("{outcome:?}"),
        },
    }
}

#[test]
fn each_state_and_each_request() {
    let no = "wrong_state";
    let table = [
        //                        start   shutdown poweroff reboot  recreate adopt
        ("creating", ["busy", "busy", "busy", "busy", "busy", "same"]),
        ("failed", [no, no, no, no, no, "same"]),
        ("running", ["same", "job", "job", "job", no, "same"]),
        ("stopped", ["job", "same", "same", no, no, "same"]),
        ("paused", ["job", no, "job", no, no, "same"]),
        ("starting", ["same", "busy", "busy", "busy", "busy", "same"]),
        ("stopping", ["busy", "same", "job", "busy", "busy", "same"]),
        ("lost", [no, no, no, no, "job", "same"]),
        ("lost, holding nothing", [no, no, no, no, "job", "same"]),
        ("deleting", [no, no, no, no, no, "same"]),
    ];
    for (state, wanted) in table {
        for (action, wanted) in ALL.into_iter().zip(wanted) {
            let mut cloud = in_state(state);
            assert_eq!(outcome(cloud.act(guest(1), action)), wanted, "{state}, {action:?}");
        }
        // A delete is always accepted.
        let mut cloud = in_state(state);
        let deleted = cloud.yes(Command::Delete(Kind::Guest, guest(1).0, None));
        let wanted = if state == "deleting" { Outcome::Same } else { Outcome::Deleted };
        assert_eq!(deleted.answer.outcome, wanted, "{state}, delete");
        let holds = cloud.fleet.place_of(guest(1)).is_some();
        assert_eq!(holds, cloud.fleet.guest(guest(1)).is_some(), "{state}: without a place it goes at once");
    }
}

#[test]
fn a_delete_supersedes_a_running_job() {
    let mut cloud = in_state("starting");
    let superseded = cloud.guest(guest(1)).job.unwrap();
    let job = cloud.yes(Command::Delete(Kind::Guest, guest(1).0, None)).answer.job.unwrap();
    let failure = cloud.job(superseded).error.as_ref().unwrap();
    assert_eq!(failure.message, "superseded by delete");
    assert_eq!(cloud.job(job).status, Status::New);
    assert!(cloud.effects.contains(&Effect::WakeJob(superseded)));
}

#[test]
fn record_address_and_resources_go_only_when_the_node_says_so() {
    let mut cloud = in_state("running");
    let id = guest(1);
    cloud.yes(Command::Delete(Kind::Guest, id.0, None));
    cloud.tell(id, Phase::Working, Power::Running);
    assert!(cloud.fleet.place_of(id).is_some());
    assert_eq!(cloud.fleet.addresses(SUBNET).used, 1);
    let job = cloud.guest(id).job.unwrap();
    cloud.tell(id, Phase::Gone, Power::Absent);
    assert_eq!(cloud.fleet.guest(id), None);
    assert_eq!(cloud.fleet.addresses(SUBNET).used, 0);
    assert_eq!(cloud.fleet.used(host(1)), Resources::default());
    assert_eq!(cloud.job(job).status, Status::Done);
}

#[test]
fn a_stale_if_match_changes_nothing() {
    let mut cloud = in_state("running");
    let old = cloud.guest(guest(1)).revision;
    cloud.act(guest(1), GuestAction::Shutdown).unwrap();
    for command in [
        Command::Act(guest(1), GuestAction::Poweroff, Some(old)),
        Command::Delete(Kind::Guest, guest(1).0, Some(old)),
        Command::SetGuest(guest(1), Default::default(), Some(old)),
    ] {
        assert!(matches!(cloud.no(command), Refusal::Stale { .. }));
    }
}

#[test]
fn a_lost_guest_is_made_anew_only_by_an_operators_word_under_a_new_life() {
    let mut cloud = in_state("lost");
    let before = cloud.guest(guest(1)).clone();
    assert!(before.provisioned.is_some());
    cloud.act(guest(1), GuestAction::Recreate).unwrap();
    let after = cloud.guest(guest(1));
    assert_eq!(after.provisioned, None);
    assert!(after.place.unwrap().life > before.place.unwrap().life);
    assert_eq!(after.place.unwrap().address, before.place.unwrap().address);
    assert_eq!(after.state, State::Creating);
    assert_eq!(after.observed, (0, 0), "a new life is told of from its first version on");
    // Its failing is a create's failing: the place is given back.
    cloud.tell(guest(1), failed(), Power::Absent);
    assert_eq!((cloud.guest(guest(1)).state, cloud.guest(guest(1)).place), (State::Failed, None));
}

#[test]
fn a_lost_guest_that_holds_nothing_is_placed_elsewhere() {
    let mut cloud = in_state("lost, holding nothing");
    cloud.act(guest(1), GuestAction::Recreate).unwrap();
    assert_eq!(cloud.place(guest(1)), host(2));
}

#[test]
fn a_reboot_is_a_deed_under_its_own_fence() {
    let mut cloud = in_state("running");
    let first = cloud.act(guest(1), GuestAction::Reboot).unwrap();
    assert_eq!(cloud.guest(guest(1)).deed.unwrap().fence, first.fence);
    assert_eq!(outcome(cloud.act(guest(1), GuestAction::Reboot)), "same");
    cloud.tell(guest(1), Phase::Settled, Power::Running);
    let second = cloud.act(guest(1), GuestAction::Reboot).unwrap();
    assert!(second.fence > first.fence);
    // Any other order forgets the deed.
    cloud.tell(guest(1), Phase::Settled, Power::Running);
    cloud.act(guest(1), GuestAction::Shutdown).unwrap();
    assert_eq!(cloud.guest(guest(1)).deed, None);
}

#[test]
fn what_may_change_while_it_lives() {
    use super::super::command::GuestPatch;
    let mut cloud = in_state("running");
    let order = cloud.guest(guest(1)).order;
    let patch = GuestPatch {
        name: Some(name("db")),
        metadata: Some([("role".to_owned(), "db".to_owned())].into()),
        ..GuestPatch::default()
    };
    cloud.yes(Command::SetGuest(guest(1), patch.clone(), None));
    assert_eq!(cloud.guest(guest(1)).order, order, "labels are no order");
    assert!(cloud.yes(Command::SetGuest(guest(1), patch, None)).changes.is_empty());
    let patch = GuestPatch { restart: Some(RestartPolicy::Always), ..GuestPatch::default() };
    cloud.yes(Command::SetGuest(guest(1), patch, None));
    assert!(cloud.guest(guest(1)).order > order, "the node takes the policy with a newer order only");
    assert!(cloud.effects.contains(&Effect::WakeHypervisor(host(1))));
    cloud.create(2).unwrap();
    let taken = GuestPatch { name: Some(name("db")), ..GuestPatch::default() };
    assert_eq!(cloud.no(Command::SetGuest(guest(2), taken, None)).code(), "name_taken");
    let group = GuestPatch { fwgroup: Some(Some(Uuid::nil().into())), ..GuestPatch::default() };
    assert_eq!(cloud.no(Command::SetGuest(guest(2), group, None)).code(), "not_found");
    cloud.yes(Command::Delete(Kind::Guest, guest(2).0, None));
    assert_eq!(cloud.no(Command::SetGuest(guest(2), GuestPatch::default(), None)).code(), "wrong_state");
}

#[test]
fn only_a_create_that_ended_in_error_is_tried_again() {
    let mut cloud = in_state("running");
    let job = cloud.guest(guest(1)).job.unwrap();
    assert_eq!(cloud.no(Command::RetryJob(job)).code(), "not_retryable");
    cloud.act(guest(1), GuestAction::Shutdown).unwrap();
    let job = cloud.guest(guest(1)).job.unwrap();
    assert_eq!(cloud.no(Command::RetryJob(job)).code(), "not_retryable");
    cloud.tell(guest(1), failed(), Power::Running);
    assert_eq!(cloud.no(Command::RetryJob(job)).code(), "wrong_state");
    assert_eq!(cloud.no(Command::RetryJob(Uuid::nil().into())).code(), "not_found");
    assert_eq!(cloud.guest(guest(1)).owner, Owner::Controller);
    assert_eq!(cloud.guest(guest(1)).goal_by, GoalBy::User);
}
