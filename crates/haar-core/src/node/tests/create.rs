//! Making guests, failing to, and taking back what was made.

use super::*;
use crate::job::StepState;

#[test]
fn a_create_runs_its_stages_in_order_and_settles() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    assert_eq!(rig.run(), CREATE);
    assert_eq!(rig.phase(), Phase::Settled);
    assert_eq!(rig.said().power, Power::Running);
    assert!(rig.record().provisioned);
}

#[test]
fn a_create_that_shall_not_start_leaves_the_guest_off() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Stopped));
    assert_eq!(rig.run(), CREATE[..5]);
    assert_eq!((rig.phase(), rig.said().power), (Phase::Settled, Power::Off));
}

#[test]
fn begun_is_in_the_ledger_before_the_first_call() {
    let rig = Rig::ready();
    let set = rig.set(5, vec![order(5, 5, Goal::Running)]);
    let decision = rig.node.decide(&Input::Desired(set), &Env { now: rig.now }).unwrap();
    assert!(decision.effects.iter().any(|effect| matches!(effect, Effect::Call(_))));
    let begun = |change: &LedgerChange| matches!(change, LedgerChange::Put(LedgerRecord::Guest(r)) if r.made == Made::Begun);
    assert!(decision.changes.iter().any(begun));
}

#[test]
fn every_stage_that_fails_for_good_is_undone_too_in_reverse() {
    for failing in 0..CREATE.len() {
        let mut rig = Rig::ready();
        rig.feed(order(5, 5, Goal::Running));
        for _ in 0..failing {
            rig.end(Outcome::Done);
        }
        rig.end(fault("no_space", false));
        let undone = rig.run();
        let expected = crate::pipeline::undo_of(Pipeline::Create.steps(), failing);
        assert_eq!(undone, expected, "after {:?}", CREATE[failing]);
        let Phase::Failed { stage, code, .. } = rig.phase() else { panic!("{:?}", rig.phase()) };
        assert_eq!((stage, code.as_str()), (CREATE[failing], "no_space"));
        assert!(!rig.record().holds());
        let states: Vec<StepState> = rig.said().steps.iter().map(|step| step.state).collect();
        assert_eq!(states[failing], StepState::Failed);
    }
}

#[test]
fn a_fault_that_may_pass_is_tried_three_times() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    for attempt in 1..=2 {
        rig.end(fault("unavailable", true));
        assert!(rig.idle(), "the next try waits");
        rig.later(60_000);
        assert_eq!(rig.stage(), Stage::Image, "attempt {attempt}");
    }
    rig.end(fault("unavailable", true));
    assert!(matches!(rig.phase(), Phase::Failed { .. }));
    rig.later(600_000);
    assert!(rig.idle());
}

#[test]
fn a_fetch_in_progress_is_asked_again_and_its_bytes_are_told() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    for done in 1..=5 {
        rig.end(Outcome::Progress { done, total: 10 });
        assert!(rig.idle());
        assert_eq!(rig.said().steps[0].message, format!("{done} of 10 bytes"));
        rig.later(2_000);
        assert_eq!(rig.stage(), Stage::Image);
    }
    rig.end(Outcome::Done);
    assert_eq!(rig.stage(), Stage::Disks);
}

#[test]
fn a_fetch_that_stands_still_fails_in_the_end() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    for _ in 0..400 {
        if rig.idle() {
            break;
        }
        rig.end(Outcome::Progress { done: 3, total: 10 });
        rig.later(2_000);
    }
    let Phase::Failed { code, .. } = rig.phase() else { panic!("{:?}", rig.phase()) };
    assert_eq!(code, "timed_out");
}

#[test]
fn an_overdue_call_blocks_only_its_guest_until_the_hands_answer() {
    let mut rig = Rig::ready();
    let other = GuestOrder { id: GuestId(Uuid::from_u128(11)), ..order(5, 5, Goal::Running) };
    let set = rig.set(5, vec![order(5, 5, Goal::Running), other]);
    rig.give(Input::Desired(set));
    let hung = rig.node.call_of(web()).unwrap();
    for _ in 0..6 {
        let call = rig.node.call_of(GuestId(Uuid::from_u128(11))).unwrap();
        rig.give(Input::Ended { call, outcome: Outcome::Done });
        rig.later(60_000);
    }
    assert_eq!(rig.node.call_of(web()), Some(hung), "no second call before the first has ended");
    assert!(rig.node.guest(GuestId(Uuid::from_u128(11))).unwrap().provisioned);
    rig.end(Outcome::Cancelled);
    rig.later(60_000);
    assert_ne!(rig.node.call_of(web()), Some(hung));
    assert_eq!(rig.stage(), Stage::Image);
}

#[test]
fn an_undo_that_fails_is_tried_without_end_and_said_so() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    rig.end(Outcome::Done);
    rig.end(fault("no_space", false));
    for _ in 0..20 {
        assert_eq!(rig.stage(), Stage::Undisk);
        rig.end(fault("invalid", false));
        assert_eq!(rig.phase(), Phase::Working);
        let undo = rig.said().steps.iter().find(|step| step.stage == Stage::Undo).cloned().unwrap();
        assert!(undo.message.contains("invalid it was"), "{}", undo.message);
        rig.later(300_000);
    }
    rig.run();
    assert!(matches!(rig.phase(), Phase::Failed { .. }));
}

#[test]
fn a_create_goes_on_after_a_crash_of_the_agent() {
    for done in 0..CREATE.len() {
        let mut rig = Rig::ready();
        rig.feed(order(5, 5, Goal::Running));
        for _ in 0..done {
            rig.end(Outcome::Done);
        }
        rig.restart();
        assert!(rig.idle(), "nothing before the host was looked at");
        rig.look();
        assert_eq!(rig.run(), CREATE);
        assert_eq!(rig.phase(), Phase::Settled);
    }
}

#[test]
fn an_undo_goes_on_after_a_crash_of_the_agent() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    rig.end(Outcome::Done);
    rig.end(fault("no_space", false));
    rig.restart();
    rig.look();
    assert_eq!(rig.run(), REMOVE, "everything that may have been begun");
    assert!(matches!(rig.phase(), Phase::Failed { stage: Stage::Disks, .. }));
}

#[test]
fn a_failed_create_seen_on_the_host_after_all_is_taken_back_again() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    rig.end(fault("no_space", false));
    rig.host = vec![seen(5, Power::Running)];
    rig.look_later();
    assert_eq!(rig.run(), REMOVE);
}

#[test]
fn what_was_undone_counts_as_undone_when_it_is_another_lifes() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    rig.end(Outcome::Done);
    rig.end(fault("conflict", false));
    assert_eq!(rig.stage(), Stage::Undisk);
    rig.end(fault("conflict", false));
    assert!(matches!(rig.phase(), Phase::Failed { stage: Stage::Disks, .. }));
}
