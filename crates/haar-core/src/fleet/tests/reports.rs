//! Reports: each phase in each state, late ones, repeated ones, and what a host says by itself.

use super::*;
use crate::guest::GoalBy;
use crate::id::Kind;

#[test]
fn a_settled_create_is_done_and_provisioned() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    let order = cloud.guest(guest(1)).order;
    let decision = cloud.tell(guest(1), Phase::Settled, Power::Running);
    let made = cloud.guest(guest(1));
    assert_eq!((made.state, made.provisioned), (State::Running, Some(order)));
    assert_eq!(cloud.last_job(guest(1)).status, Status::Done);
    assert!(decision.effects.contains(&Effect::WakeJob(made.job.unwrap())));
    assert!(!decision.effects.contains(&Effect::WakeHypervisor(host(1))), "nothing new for the host");
}

#[test]
fn a_stale_report_changes_nothing() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    let old = cloud.says(guest(1), Phase::Working, Power::Off);
    cloud.tell(guest(1), Phase::Settled, Power::Running);
    let repeated = cloud.guest(guest(1)).observed.1;
    for version in [old.version, repeated] {
        let says = GuestReport { version, ..old.clone() };
        let report = cloud.report(host(1), vec![says]);
        assert!(cloud.yes(Command::Report(report)).changes.is_empty());
    }
}

#[test]
fn a_report_of_another_incarnation_is_refused() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    let says = cloud.says(guest(1), Phase::Gone, Power::Absent);
    let old = cloud.report(host(1), vec![says]);
    cloud.join(host(1), 7);
    assert_eq!(cloud.host(host(1)).incarnation, 1, "the same lot is the same ledger");
    cloud.join(host(1), 8);
    assert_eq!(cloud.host(host(1)).incarnation, 2);
    assert!(matches!(cloud.no(Command::Report(old)), Refusal::StaleIncarnation { given: 1, present: 2, .. }));
    let never = Report { incarnation: 0, ..cloud.report(host(1), vec![]) };
    assert_eq!(cloud.no(Command::Report(never)).code(), "stale_incarnation");
}

#[test]
fn a_report_of_an_earlier_life_or_another_host_changes_nothing() {
    let mut cloud = Cloud::with_hosts(2);
    cloud.create(1).unwrap();
    let first = cloud.says(guest(1), Phase::Settled, Power::Running);
    cloud.tell(guest(1), failed(), Power::Absent);
    cloud.create(1).unwrap();
    assert_eq!(cloud.place(guest(1)), host(2));
    // lab1 speaks late of the life it had; lab2 would have to speak of its own.
    let late = cloud.report(host(1), vec![GuestReport { version: 900, ..first.clone() }]);
    assert!(cloud.yes(Command::Report(late)).changes.is_empty());
    let wrong_life = cloud.report(host(2), vec![GuestReport { version: 901, ..first.clone() }]);
    assert!(cloud.yes(Command::Report(wrong_life)).changes.is_empty());
    let gone = GuestReport { version: 902, phase: Phase::Gone, ..first };
    let late = cloud.report(host(1), vec![gone]);
    assert!(cloud.yes(Command::Report(late)).changes.is_empty());
}

#[test]
fn a_late_report_of_a_guest_that_is_gone_books_nothing() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    let late = cloud.says(guest(1), Phase::Settled, Power::Running);
    cloud.yes(Command::Delete(Kind::Guest, guest(1).0, None));
    cloud.tell(guest(1), Phase::Gone, Power::Absent);
    let report = cloud.report(host(1), vec![late]);
    assert!(cloud.yes(Command::Report(report)).changes.is_empty());
}

#[test]
fn an_answer_to_an_older_order_ends_no_job() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    let old = cloud.says(guest(1), Phase::Settled, Power::Running);
    cloud.act(guest(1), GuestAction::Shutdown).unwrap();
    let report = cloud.report(host(1), vec![old]);
    cloud.yes(Command::Report(report));
    assert_eq!(cloud.last_job(guest(1)).status, Status::New);
    cloud.tell(guest(1), Phase::Settled, Power::Off);
    assert_eq!(cloud.last_job(guest(1)).status, Status::Done);
    assert_eq!(cloud.guest(guest(1)).state, State::Stopped);
}

#[test]
fn a_failed_create_of_an_older_order_does_not_release_what_a_delete_waits_for() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    let old = cloud.says(guest(1), failed(), Power::Absent);
    cloud.yes(Command::Delete(Kind::Guest, guest(1).0, None));
    let report = cloud.report(host(1), vec![old]);
    cloud.yes(Command::Report(report));
    assert!(cloud.guest(guest(1)).place.is_some());
    assert_eq!(cloud.guest(guest(1)).goal, Goal::Gone);
}

/// What each phase makes of a guest that runs, is being started, or is being deleted: state, open job.
#[test]
fn each_phase_and_each_state() {
    let lost = || Phase::Lost { message: "disk is missing".into() };
    let local = || Phase::Local { goal: Goal::Stopped };
    type Case = (&'static str, Phase, Power, Option<(State, Goal, bool)>);
    let cases: Vec<Case> = vec![
        ("running", Phase::Working, Power::Off, Some((State::Stopped, Goal::Running, false))),
        ("running", Phase::Settled, Power::Paused, Some((State::Paused, Goal::Running, false))),
        ("running", failed(), Power::Running, Some((State::Running, Goal::Running, false))),
        ("running", lost(), Power::Absent, Some((State::Lost, Goal::Running, false))),
        ("running", Phase::Gone, Power::Absent, Some((State::Lost, Goal::Running, false))),
        ("running", local(), Power::Off, Some((State::Stopped, Goal::Stopped, false))),
        ("starting", Phase::Working, Power::Off, Some((State::Stopped, Goal::Running, true))),
        ("starting", Phase::Settled, Power::Running, Some((State::Running, Goal::Running, false))),
        ("starting", failed(), Power::Off, Some((State::Stopped, Goal::Running, false))),
        ("starting", lost(), Power::Absent, Some((State::Lost, Goal::Running, false))),
        ("starting", Phase::Gone, Power::Absent, Some((State::Lost, Goal::Running, false))),
        ("starting", local(), Power::Off, Some((State::Stopped, Goal::Stopped, false))),
        ("deleting", Phase::Working, Power::Running, Some((State::Deleting, Goal::Gone, true))),
        ("deleting", Phase::Settled, Power::Running, Some((State::Deleting, Goal::Gone, true))),
        ("deleting", failed(), Power::Off, Some((State::Deleting, Goal::Gone, false))),
        ("deleting", lost(), Power::Absent, Some((State::Deleting, Goal::Gone, true))),
        ("deleting", Phase::Gone, Power::Absent, None),
        ("deleting", local(), Power::Off, Some((State::Deleting, Goal::Gone, true))),
        ("creating", Phase::Working, Power::Absent, Some((State::Creating, Goal::Running, true))),
        ("creating", Phase::Settled, Power::Running, Some((State::Running, Goal::Running, false))),
        ("creating", failed(), Power::Absent, Some((State::Failed, Goal::Running, false))),
        ("creating", lost(), Power::Absent, Some((State::Lost, Goal::Running, false))),
        ("creating", Phase::Gone, Power::Absent, Some((State::Failed, Goal::Running, false))),
        ("creating", local(), Power::Off, Some((State::Stopped, Goal::Stopped, false))),
    ];
    for (state, phase, power, wanted) in cases {
        let mut cloud = Cloud::with_hosts(1);
        let id = guest(1);
        cloud.create(1).unwrap();
        if state != "creating" {
            cloud.tell(id, Phase::Settled, Power::Running);
        }
        if state == "starting" {
            cloud.act(id, GuestAction::Shutdown).unwrap();
            cloud.tell(id, Phase::Settled, Power::Off);
            cloud.act(id, GuestAction::Start).unwrap();
        }
        if state == "deleting" {
            cloud.yes(Command::Delete(Kind::Guest, id.0, None));
        }
        cloud.tell(id, phase.clone(), power);
        let found = cloud.fleet.guest(id).map(|guest| {
            let open = guest.job.and_then(|job| cloud.fleet.job(job)).is_some_and(|job| !job.status.ended());
            (guest.state, guest.goal, open)
        });
        assert_eq!(found, wanted, "{state}: {phase:?}, {power:?}");
    }
}

#[test]
fn a_local_power_action_holds_until_a_newer_goal() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    let local = cloud.says(guest(1), Phase::Local { goal: Goal::Stopped }, Power::Off);
    let mut late = cloud.clone();
    let report = cloud.report(host(1), vec![local.clone()]);
    let decision = cloud.yes(Command::Report(report));
    let followed = cloud.guest(guest(1));
    assert_eq!(
        (followed.goal, followed.goal_by, followed.order),
        (Goal::Stopped, GoalBy::Local, decision.fence)
    );
    // A goal that was set meanwhile is newer than what the host did by itself.
    late.act(guest(1), GuestAction::Reboot).unwrap();
    let report = late.report(host(1), vec![local]);
    late.yes(Command::Report(report));
    assert_eq!((late.guest(guest(1)).goal, late.guest(guest(1)).goal_by), (Goal::Running, GoalBy::User));
    assert_eq!(late.last_job(guest(1)).status, Status::New);
}

#[test]
fn the_fence_of_the_first_create_stays() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    let first = cloud.guest(guest(1)).provisioned;
    cloud.act(guest(1), GuestAction::Reboot).unwrap();
    cloud.tell(guest(1), Phase::Settled, Power::Running);
    assert_eq!(cloud.guest(guest(1)).provisioned, first);
}

#[test]
fn a_create_that_a_report_calls_provisioned_never_gives_back_its_place() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    let mut says = cloud.says(guest(1), failed(), Power::Off);
    says.provisioned = true;
    let report = cloud.report(host(1), vec![says]);
    cloud.yes(Command::Report(report));
    let kept = cloud.guest(guest(1));
    assert!(kept.place.is_some() && kept.provisioned.is_some());
    assert_eq!(kept.state, State::Stopped);
}

#[test]
fn a_complete_report_frees_nothing_by_what_it_leaves_out() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    cloud.complete(host(1), &[]);
    assert!(cloud.guest(guest(1)).place.is_some());
    assert_eq!(cloud.guest(guest(1)).state, State::Running);
}

#[test]
fn a_complete_report_tells_what_the_host_has() {
    let mut cloud = Cloud::with_hosts(1);
    let mut report = cloud.complete_report(host(1), &[]);
    let complete = report.complete.as_mut().unwrap();
    complete.total = Resources { cpu: 2, memory: MiB(4096), disk: MiB(50 << 10) };
    complete.strangers = vec!["someones-vm".to_owned()];
    complete.inventory.host = "lab1.example".to_owned();
    let repeated = report.clone();
    cloud.yes(Command::Report(report));
    assert_eq!(cloud.host(host(1)).total.cpu, 2);
    assert_eq!(cloud.host(host(1)).strangers, ["someones-vm"]);
    assert_eq!(cloud.host(host(1)).inventory.host, "lab1.example");
    assert!(cloud.yes(Command::Report(repeated)).changes.is_empty(), "the same again is no news");
}

#[test]
fn a_report_is_bounded() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    let says = cloud.says(guest(1), Phase::Working, Power::Absent);
    let report = cloud.report(host(1), vec![says; Report::MOST_GUESTS + 1]);
    assert_eq!(cloud.no(Command::Report(report)).code(), "bad_field");
}

#[test]
fn a_host_declared_lost_gives_up_its_guests_and_its_old_ledger() {
    let mut cloud = Cloud::with_hosts(2);
    cloud.running(1);
    cloud.create(3).unwrap();
    cloud.create(5).unwrap();
    let on_first: Vec<_> = [1, 3, 5].into_iter().filter(|n| cloud.place(guest(*n)) == host(1)).collect();
    assert_eq!(on_first, [1, 5]);
    cloud.running(7);
    assert_eq!(cloud.place(guest(7)), host(2));
    cloud.running(9);
    assert_eq!(cloud.place(guest(9)), host(1));
    cloud.yes(Command::Delete(Kind::Guest, guest(9).0, None));
    assert!(matches!(cloud.no(Command::DeclareLost(host(1))), Refusal::StillAlive(_)));
    let says = cloud.says(guest(1), Phase::Settled, Power::Running);
    let old = cloud.report(host(1), vec![says]);
    cloud.polls.0.remove(&host(1));
    cloud.yes(Command::DeclareLost(host(1)));
    assert_eq!((cloud.guest(guest(1)).state, cloud.guest(guest(1)).place), (State::Lost, None));
    assert_eq!((cloud.guest(guest(5)).state, cloud.guest(guest(5)).place), (State::Failed, None));
    assert_eq!(cloud.last_job(guest(5)).error.as_ref().unwrap().code, "hypervisor_lost");
    assert_eq!(cloud.fleet.guest(guest(9)), None);
    assert_eq!(cloud.host(host(1)).total, Resources::default());
    assert_eq!(cloud.no(Command::Report(old)).code(), "stale_incarnation");
    assert_eq!(cloud.yes(Command::DeclareLost(host(1))).answer.outcome, Outcome::Same);
}

#[test]
fn nobody_is_declared_lost_before_silence_means_something() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.polls.0.clear();
    cloud.now = cloud.fleet.config().liveness_ttl_ms() - 1;
    assert!(matches!(cloud.no(Command::DeclareLost(host(1))), Refusal::StillAlive(_)));
    cloud.now += 1;
    cloud.yes(Command::DeclareLost(host(1)));
}

#[test]
fn a_full_host_is_declared_lost_in_slices_that_fit_a_commit() {
    let mut cloud = Cloud::with_hosts(1);
    let flavor = FlavorId(Uuid::from_u128(0xf9));
    cloud.yes(Command::CreateFlavor(flavor, flavor_spec("tiny", 1, 16, 1100)));
    let settings = [("overcommit.cpu".to_owned(), "100".to_owned())];
    cloud.yes(Command::SetConfig(settings.into(), None));
    for number in 1..=70 {
        let spec = GuestSpec { flavor, ..guest_spec(number) };
        cloud.yes(Command::CreateGuest(guest(number), Box::new(spec), None));
    }
    cloud.polls.0.clear();
    let mut turns = 0;
    while cloud.yes(Command::DeclareLost(host(1))).answer.outcome != Outcome::Same {
        turns += 1;
        assert!(turns < 10, "it never ends");
    }
    assert_eq!(turns, 5);
    assert_eq!(cloud.fleet.guests_on(host(1)).count(), 0);
    assert_eq!(cloud.fleet.addresses(SUBNET).used, 0);
}

#[test]
fn a_host_that_comes_back_from_the_dead_is_claimed_before_anything_is_given_out_on_it() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    let held = cloud.says(guest(1), Phase::Settled, Power::Running);
    cloud.polls.0.clear();
    cloud.yes(Command::DeclareLost(host(1)));
    cloud.join(host(1), 7);
    assert!(cloud.host(host(1)).incarnation > 1, "its old reports stay refused");
    assert_eq!(cloud.create(2).unwrap_err().code(), "no_room");
    let report = cloud.report(host(1), vec![held]);
    cloud.yes(Command::Report(report));
    assert_eq!(cloud.guest(guest(1)).state, State::Claimed);
    cloud.complete(host(1), &[guest(1)]);
    cloud.create(2).unwrap();
    assert_ne!(cloud.guest(guest(2)).place.unwrap().address, cloud.guest(guest(1)).place.unwrap().address);
    cloud.act(guest(1), GuestAction::Adopt).unwrap();
    assert_eq!((cloud.guest(guest(1)).state, cloud.guest(guest(1)).goal), (State::Running, Goal::Running));
}
