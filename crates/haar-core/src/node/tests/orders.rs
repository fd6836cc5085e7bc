//! Fences, goals, lives and deeds.

use super::*;

#[test]
fn an_older_desired_set_is_refused_whole() {
    let mut rig = Rig::running();
    let set = rig.set(4, vec![order(6, 5, Goal::Gone)]);
    assert_eq!(rig.try_give(&Input::Desired(set)), Err(Refused::Stale { given: fence(4), seen: fence(5) }));
    assert!(rig.idle());
}

#[test]
fn a_set_for_another_hypervisor_or_cloud_is_refused() {
    let mut rig = Rig::running();
    let mut set = rig.set(9, vec![order(9, 5, Goal::Gone)]);
    set.hypervisor = HypervisorId(Uuid::from_u128(99));
    assert!(matches!(rig.try_give(&Input::Desired(set.clone())), Err(Refused::OtherHypervisor(_))));
    set.hypervisor = HYPERVISOR;
    set.cloud = CloudId(Uuid::from_u128(98));
    assert!(matches!(rig.try_give(&Input::Desired(set)), Err(Refused::OtherCloud(_))));
}

#[test]
fn no_order_is_taken_before_the_welcome_and_the_first_look() {
    let mut rig = Rig::fresh(Vec::new());
    let set = rig.set(5, vec![order(5, 5, Goal::Running)]);
    assert_eq!(rig.node.feed_since(), None);
    assert_eq!(rig.try_give(&Input::Desired(set.clone())), Err(Refused::NotReady));
    rig.give(Input::Welcome { incarnation: 1 });
    assert_eq!(rig.node.feed_since(), Some(Fence::default()));
    rig.give(Input::Desired(set));
    assert_eq!(rig.node.feed_since(), Some(fence(5)));
}

#[test]
fn absence_is_never_an_order() {
    let mut rig = Rig::running();
    let set = rig.set(9, Vec::new());
    rig.give(Input::Desired(set));
    rig.look_later();
    assert!(rig.idle());
    assert_eq!(rig.record().stand, Stand::Settled);
}

#[test]
fn an_older_order_of_a_guest_is_ignored_even_in_a_newer_set() {
    let mut rig = Rig::running();
    rig.feed(order(8, 5, Goal::Stopped));
    rig.run();
    let set = rig.set(9, vec![order(7, 5, Goal::Running)]);
    rig.give(Input::Desired(set));
    assert!(rig.idle());
    assert_eq!(rig.record().fence(), fence(8));
}

#[test]
fn each_goal_runs_its_pipeline_on_a_made_guest() {
    let cases = [
        (Goal::Stopped, vec![Stage::Inspect, Stage::Shutdown], Power::Off),
        (Goal::Off, vec![Stage::Inspect, Stage::Poweroff], Power::Off),
        (Goal::Gone, REMOVE.to_vec(), Power::Absent),
        (Goal::Running, vec![Stage::Inspect, Stage::Network, Stage::Start], Power::Running),
    ];
    for (goal, stages, power) in cases {
        let mut rig = Rig::running();
        rig.feed(order(9, 5, goal));
        assert_eq!(rig.run(), stages, "{goal:?}");
        assert_eq!(rig.said().power, power, "{goal:?}");
        let phase = if goal == Goal::Gone { Phase::Gone } else { Phase::Settled };
        assert_eq!(rig.phase(), phase);
        assert_eq!(rig.said().order, fence(9));
    }
}

#[test]
fn gone_while_a_create_runs_waits_for_the_call_and_then_removes_all() {
    for done in 0..CREATE.len() {
        let mut rig = Rig::ready();
        rig.feed(order(5, 5, Goal::Running));
        for _ in 0..done {
            rig.end(Outcome::Done);
        }
        let under_way = rig.node.call_of(web());
        rig.feed(order(6, 5, Goal::Gone));
        assert_eq!(rig.node.call_of(web()), under_way);
        rig.end(Outcome::Done);
        assert_eq!(rig.run(), REMOVE);
        assert_eq!(rig.phase(), Phase::Gone);
    }
}

#[test]
fn a_removal_that_fails_is_never_given_up() {
    let mut rig = Rig::running();
    rig.feed(order(6, 5, Goal::Gone));
    for _ in 0..20 {
        rig.end(fault("failed", true));
        assert_eq!(rig.phase(), Phase::Working);
        rig.later(300_000);
        assert_eq!(rig.stage(), Stage::Poweroff);
    }
    assert_eq!(rig.run(), REMOVE);
    assert_eq!(rig.phase(), Phase::Gone);
}

#[test]
fn gone_for_a_guest_that_was_never_here_still_looks_for_it() {
    let mut rig = Rig::ready();
    rig.feed(order(6, 5, Goal::Gone));
    assert_eq!(rig.run(), REMOVE);
    assert_eq!(rig.phase(), Phase::Gone);
}

#[test]
fn a_tombstone_beats_a_restored_order() {
    let mut rig = Rig::running();
    rig.feed(order(6, 5, Goal::Gone));
    rig.run();
    let said = rig.said().version;
    let mut set = rig.set(7, vec![order(6, 5, Goal::Running)]);
    set.fence = Fence::new(2, 7);
    set.guests[0].order = Fence::new(2, 7);
    rig.give(Input::Desired(set));
    assert!(rig.idle());
    assert_eq!(rig.phase(), Phase::Gone);
    assert!(rig.said().version > said, "and it is said again");
    assert_eq!(rig.said().order, Fence::new(2, 7));
}

#[test]
fn a_newer_life_removes_the_older_one_first() {
    let mut rig = Rig::running();
    rig.feed(order(9, 9, Goal::Running));
    let first = rig.calls.last().unwrap();
    assert_eq!((first.stage, first.order.life), (Stage::Poweroff, fence(5)));
    let stages = rig.run();
    assert_eq!(stages[..4], REMOVE);
    assert_eq!(stages[4..], CREATE);
    assert_eq!(rig.calls.last().unwrap().order.life, fence(9));
    assert_eq!(rig.phase(), Phase::Settled);
}

#[test]
fn a_newer_life_waits_for_the_call_of_the_older_one() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    let under_way = rig.node.call_of(web());
    rig.feed(order(9, 9, Goal::Running));
    assert_eq!(rig.node.call_of(web()), under_way);
    rig.end(Outcome::Done);
    assert_eq!(rig.stage(), Stage::Poweroff);
    assert_eq!(rig.calls.last().unwrap().order.life, fence(5));
    rig.run();
    assert_eq!(rig.phase(), Phase::Settled);
}

#[test]
fn an_older_life_is_ignored() {
    let mut rig = Rig::running();
    let set = rig.set(9, vec![order(9, 4, Goal::Gone)]);
    rig.give(Input::Desired(set));
    assert!(rig.idle());
    assert_eq!(rig.record().life, fence(5));
}

fn reboot(revision: u64) -> GuestOrder {
    let deed = Deed { kind: DeedKind::Reboot, fence: fence(revision) };
    GuestOrder { deed: Some(deed), ..order(revision, 5, Goal::Running) }
}

#[test]
fn a_reboot_is_done_once_per_fence() {
    let mut rig = Rig::running();
    rig.feed(reboot(8));
    assert_eq!(rig.run(), [Stage::Inspect, Stage::Reboot]);
    assert_eq!(rig.said().deed, Some(fence(8)));
    rig.feed(reboot(8));
    rig.feed(GuestOrder { order: fence(9), ..reboot(8) });
    assert!(!rig.run().contains(&Stage::Reboot));
    rig.feed(reboot(10));
    assert!(rig.run().contains(&Stage::Reboot));
}

#[test]
fn a_reboot_cut_short_by_a_crash_of_the_agent_is_not_repeated() {
    let mut rig = Rig::running();
    rig.feed(reboot(8));
    rig.end(Outcome::Done);
    assert_eq!(rig.stage(), Stage::Reboot);
    rig.restart();
    rig.look();
    assert!(!rig.run().contains(&Stage::Reboot));
    assert_eq!((rig.phase(), rig.said().deed), (Phase::Settled, Some(fence(8))));
}

#[test]
fn a_reboot_is_not_repeated_when_the_ledger_was_lost() {
    let mut rig = Rig::fresh(vec![seen(5, Power::Running)]);
    rig.give(Input::Welcome { incarnation: 2 });
    rig.feed(reboot(8));
    assert!(!rig.run().contains(&Stage::Reboot));
    assert_eq!((rig.phase(), rig.said().deed), (Phase::Settled, Some(fence(8))));
}

#[test]
fn a_reboot_of_a_guest_that_is_off_is_a_start() {
    let mut rig = Rig::running();
    rig.feed(order(7, 5, Goal::Off));
    rig.run();
    rig.feed(reboot(8));
    assert_eq!(rig.run(), [Stage::Inspect, Stage::Network, Stage::Start]);
    assert_eq!(rig.said().deed, Some(fence(8)));
}

#[test]
fn a_reboot_that_fails_is_asked_only_once() {
    let mut rig = Rig::running();
    rig.feed(reboot(8));
    rig.end(Outcome::Done);
    rig.end(Outcome::Cancelled);
    assert!(matches!(rig.phase(), Phase::Failed { stage: Stage::Reboot, .. }));
    rig.later(600_000);
    assert!(rig.idle());
}

#[test]
fn a_shutdown_that_the_guest_ignores_fails_and_leaves_it_running() {
    let mut rig = Rig::running();
    rig.feed(order(8, 5, Goal::Stopped));
    rig.end(Outcome::Done);
    rig.end(fault("invalid", false));
    assert!(matches!(rig.phase(), Phase::Failed { stage: Stage::Shutdown, .. }));
    assert!(rig.idle());
    assert!(rig.record().provisioned);
}

#[test]
fn calls_carry_image_network_and_what_the_ledger_knows() {
    let mut rig = Rig::running();
    rig.feed(order(8, 5, Goal::Stopped));
    let call = rig.calls.last().unwrap();
    assert!(call.order.provisioned, "though the order says otherwise");
    assert_eq!(call.image.as_ref().map(|image| image.id), Some(call.order.image));
    assert_eq!(call.network.as_ref().map(|network| network.id), Some(call.order.network));
}

#[test]
fn a_local_power_order_holds_until_a_newer_fence() {
    let mut rig = Rig::running();
    rig.give(Input::Local { guest: web(), goal: Goal::Off });
    assert_eq!(rig.run(), [Stage::Inspect, Stage::Poweroff]);
    assert_eq!(rig.phase(), Phase::Local { goal: Goal::Off });
    rig.feed(order(5, 5, Goal::Running));
    assert!(rig.idle(), "the same order changes nothing");
    rig.feed(order(9, 5, Goal::Running));
    assert_eq!(rig.run(), [Stage::Inspect, Stage::Network, Stage::Start]);
    assert_eq!(rig.phase(), Phase::Settled);
}

#[test]
fn a_local_delete_is_refused() {
    let mut rig = Rig::running();
    let given = rig.try_give(&Input::Local { guest: web(), goal: Goal::Gone });
    assert_eq!(given, Err(Refused::NotLocal(web())));
    let stranger = GuestId(Uuid::from_u128(404));
    let given = rig.try_give(&Input::Local { guest: stranger, goal: Goal::Off });
    assert_eq!(given, Err(Refused::NoSuchGuest(stranger)));
}
