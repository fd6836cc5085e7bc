//! What is seen on the host: losses, finds, strangers, restarts by policy.

use super::*;

fn off(reason: OffReason) -> Seen {
    Seen { reason, ..seen(5, Power::Off) }
}

#[test]
fn a_missing_disk_or_domain_is_lost_and_never_rebuilt() {
    let parts = [
        vec![],
        vec![Seen { domain: false, power: Power::Absent, ..seen(5, Power::Off) }],
        vec![Seen { disks: false, ..seen(5, Power::Running) }],
    ];
    for host in parts {
        let mut rig = Rig::running();
        rig.host = host;
        rig.look_later();
        assert!(matches!(rig.phase(), Phase::Lost { .. }), "{:?}", rig.phase());
        assert!(rig.idle());
        rig.look_later();
        assert!(rig.idle());
    }
}

#[test]
fn a_host_that_stirs_is_looked_at_at_once() {
    let mut rig = Rig::running();
    rig.look();
    let asked = rig.asks.len();
    rig.host = vec![off(OffReason::Crashed)];
    rig.give(Input::Stirred);
    assert_eq!(rig.asks.len(), asked + 1);
    rig.look();
    assert_eq!(rig.run(), [Stage::Inspect, Stage::Network, Stage::Start], "no time has passed");
    rig.restart();
    let asked = rig.asks.len();
    rig.give(Input::Stirred);
    assert_eq!(rig.asks.len(), asked, "the first look is under way anyhow");
}

#[test]
fn a_start_that_finds_the_disk_missing_is_lost() {
    for (stage, code) in [(0, "not_found"), (0, "lost"), (2, "lost")] {
        let mut rig = Rig::running();
        rig.feed(order(8, 5, Goal::Running));
        for _ in 0..stage {
            rig.end(Outcome::Done);
        }
        rig.end(fault(code, false));
        assert!(matches!(rig.phase(), Phase::Lost { .. }), "{code} at {stage}");
        rig.later(600_000);
        assert!(rig.idle());
    }
}

#[test]
fn an_order_says_provisioned_and_the_host_is_blank() {
    let mut rig = Rig::ready();
    rig.feed(GuestOrder { provisioned: true, ..order(8, 5, Goal::Running) });
    assert_eq!(rig.stage(), Stage::Inspect);
    rig.end(fault("not_found", false));
    assert!(matches!(rig.phase(), Phase::Lost { .. }));
}

#[test]
fn what_was_lost_and_comes_back_is_taken_up_again() {
    let mut rig = Rig::running();
    rig.host.clear();
    rig.look_later();
    rig.host = vec![off(OffReason::Unknown)];
    rig.look_later();
    assert_eq!(rig.run(), [Stage::Inspect, Stage::Network, Stage::Start]);
    assert_eq!(rig.phase(), Phase::Settled);
}

#[test]
fn a_lost_guest_can_still_be_removed() {
    let mut rig = Rig::running();
    rig.host.clear();
    rig.look_later();
    rig.feed(order(9, 5, Goal::Gone));
    assert_eq!(rig.run(), REMOVE);
    assert_eq!(rig.phase(), Phase::Gone);
}

#[test]
fn a_guest_missing_from_the_ledger_is_taken_up_and_reported_with_its_life() {
    let mut rig = Rig::fresh(vec![seen(5, Power::Running)]);
    assert!(rig.idle());
    let said = rig.said();
    assert_eq!((said.life, said.order, said.power), (fence(5), Fence::default(), Power::Running));
    assert!(said.provisioned);
    assert_eq!(said.claim, claim());
    rig.give(Input::Welcome { incarnation: 3 });
    rig.feed(order(8, 5, Goal::Off));
    assert_eq!(rig.run(), [Stage::Inspect, Stage::Poweroff]);
}

#[test]
fn an_older_life_found_on_the_host_beats_an_older_order() {
    let mut rig = Rig::fresh(vec![seen(5, Power::Running)]);
    rig.give(Input::Welcome { incarnation: 3 });
    let set = rig.set(8, vec![order(4, 4, Goal::Gone)]);
    rig.give(Input::Desired(set));
    assert!(rig.idle());
    assert_eq!(rig.record().life, fence(5));
}

#[test]
fn strangers_are_reported_and_never_touched() {
    let mut rig = Rig::ready();
    let set = rig.set(5, Vec::new());
    rig.give(Input::Desired(set));
    rig.look();
    let reports = rig.node.reports();
    let complete = reports.last().unwrap().complete.as_ref().unwrap();
    assert_eq!(complete.strangers, ["somebody-elses"]);
    assert!(rig.calls.is_empty());
}

#[test]
fn a_disk_without_a_readable_mark_is_told_among_the_strangers() {
    let bare = Seen { domain: false, power: Power::Absent, claim: None, ..seen(5, Power::Off) };
    let mut rig = Rig::fresh(vec![bare]);
    rig.give(Input::Welcome { incarnation: 3 });
    let set = rig.set(5, Vec::new());
    rig.give(Input::Desired(set));
    rig.look();
    let report = rig.node.reports().pop().unwrap();
    let complete = report.complete.unwrap();
    assert_eq!(complete.holds, []);
    assert!(complete.strangers[1].contains(&web().to_string()));
    assert!(report.guests.is_empty());
}

#[test]
fn the_restart_policy_decides_by_the_reason() {
    use OffReason::{Crashed, Destroyed, Shutdown, Unknown};
    use RestartPolicy::{Always, Never, OnFailure};
    let again = [
        (OnFailure, Crashed),
        (OnFailure, Unknown),
        (Always, Crashed),
        (Always, Unknown),
        (Always, Shutdown),
        (Always, Destroyed),
    ];
    for policy in [Never, OnFailure, Always] {
        for reason in [Shutdown, Destroyed, Crashed, Unknown] {
            let mut rig = Rig::running();
            rig.feed(GuestOrder { restart: policy, ..order(8, 5, Goal::Running) });
            rig.run();
            rig.host = vec![off(reason)];
            rig.look_later();
            if again.contains(&(policy, reason)) {
                assert_eq!(
                    rig.run(),
                    [Stage::Inspect, Stage::Network, Stage::Start],
                    "{policy:?} {reason:?}"
                );
                assert_eq!(rig.phase(), Phase::Settled);
            } else {
                assert!(rig.idle(), "{policy:?} {reason:?}");
                assert_eq!(rig.phase(), Phase::Local { goal: Goal::Stopped }, "{policy:?} {reason:?}");
            }
        }
    }
}

#[test]
fn a_crash_loop_does_not_spin() {
    let mut rig = Rig::running();
    rig.host = vec![off(OffReason::Crashed)];
    let mut starts = 0;
    for _ in 0..3_600_000 / OBSERVE_EVERY_MS {
        rig.look_later();
        starts += rig.run().iter().filter(|stage| **stage == Stage::Start).count();
    }
    assert!((8..=20).contains(&starts), "{starts} starts in an hour");
}

#[test]
fn a_restart_by_policy_that_fails_is_tried_again_later() {
    let mut rig = Rig::running();
    rig.host = vec![off(OffReason::Crashed)];
    rig.look_later();
    rig.end(Outcome::Done);
    rig.end(fault("invalid", false));
    assert!(matches!(rig.phase(), Phase::Failed { stage: Stage::Network, .. }));
    rig.look_later();
    assert!(rig.idle(), "not at once again");
    rig.later(10_000);
    assert_eq!(rig.run(), [Stage::Inspect, Stage::Network, Stage::Start]);
}

#[test]
fn somebody_who_starts_a_stopped_guest_makes_that_the_goal() {
    let mut rig = Rig::running();
    rig.feed(order(8, 5, Goal::Stopped));
    rig.run();
    rig.host = vec![seen(5, Power::Running)];
    rig.look_later();
    assert_eq!(rig.phase(), Phase::Local { goal: Goal::Running });
    assert!(rig.idle());
}

#[test]
fn a_look_asked_before_a_call_ended_says_nothing_of_that_guest() {
    let mut rig = Rig::ready();
    rig.feed(order(5, 5, Goal::Running));
    rig.later(OBSERVE_EVERY_MS);
    rig.run();
    rig.look();
    assert_eq!(rig.phase(), Phase::Settled, "the look was asked while the guest was being made");
}

#[test]
fn a_look_that_failed_makes_power_unknown_and_nothing_lost() {
    let mut rig = Rig::running();
    rig.later(OBSERVE_EVERY_MS);
    let ask = *rig.asks.last().unwrap();
    rig.give(Input::Unseen { ask, why: "libvirtd is gone".to_owned() });
    assert_eq!((rig.phase(), rig.said().power), (Phase::Settled, Power::Unknown));
}

#[test]
fn a_host_that_cannot_be_seen_is_told_so_and_told_again_once_it_is_seen() {
    let mut rig = Rig::running();
    let before = rig.node.greeting().unwrap();
    assert_eq!(before.inventory.blind(), None);
    rig.greetings = 0;
    rig.unseen("libvirtd is gone");
    let blind = rig.node.greeting().unwrap();
    assert_eq!((blind.inventory.blind(), blind.total), (Some("libvirtd is gone"), before.total));
    rig.unseen("libvirtd is gone");
    assert_eq!(rig.greetings, 1, "the same words are said once");
    rig.look_later();
    assert_eq!((rig.greetings, rig.node.greeting().unwrap()), (2, before));
    assert_eq!(rig.node.hello(), None, "the ledger is known all the while");
}

#[test]
fn an_agent_that_starts_blind_says_hello_and_does_nothing() {
    let mut rig = Rig::fresh(vec![seen(5, Power::Running)]);
    rig.restart();
    assert_eq!(rig.node.hello(), None, "before any look has ended");
    rig.unseen("libvirtd is gone");
    assert_eq!(rig.node.hello().unwrap().inventory.blind(), Some("libvirtd is gone"));
    rig.give(Input::Welcome { incarnation: 3 });
    rig.greetings = 0;
    rig.unseen("libvirtd is gone");
    assert_eq!(rig.greetings, 1, "a sign of life, as no feed is asked for");
    assert_eq!((rig.node.feed_since(), rig.calls.len()), (None, 0));
    rig.look_later();
    assert!(rig.node.feed_since().is_some());
}

#[test]
fn a_complete_report_waits_until_the_host_is_seen_again() {
    let mut rig = Rig::running();
    let is_complete = |rig: &Rig| rig.node.reports().iter().any(|report| report.complete.is_some());
    assert!(is_complete(&rig));
    rig.unseen("libvirtd is gone");
    assert!(!is_complete(&rig));
    rig.look_later();
    assert!(is_complete(&rig));
}

#[test]
fn a_look_that_is_slow_is_not_asked_twice_and_a_lost_one_is() {
    let mut rig = Rig::running();
    rig.later(OBSERVE_EVERY_MS);
    let asked = rig.asks.len();
    rig.later(LOOK_LOST_MS - 1);
    assert_eq!(rig.asks.len(), asked);
    rig.later(1);
    assert_eq!(rig.asks.len(), asked + 1);
}

#[test]
fn a_paused_guest_is_shown_as_such_is_left_alone_and_a_start_resumes_it() {
    let mut rig = Rig::running();
    rig.host = vec![seen(5, Power::Paused)];
    rig.look_later();
    assert_eq!((rig.phase(), rig.said().power), (Phase::Settled, Power::Paused));
    rig.later(3_600_000);
    rig.look();
    assert!(rig.idle());
    rig.feed(order(8, 5, Goal::Running));
    assert_eq!(rig.run(), [Stage::Inspect, Stage::Network, Stage::Start]);
    assert_eq!((rig.phase(), rig.said().power), (Phase::Settled, Power::Running));
}

#[test]
fn a_removed_guest_seen_on_the_host_after_all_is_removed_again() {
    let mut rig = Rig::running();
    rig.feed(order(9, 5, Goal::Gone));
    rig.run();
    rig.host = vec![seen(5, Power::Running)];
    rig.look_later();
    assert_eq!(rig.run(), REMOVE);
}

#[test]
fn the_remains_of_an_earlier_life_are_removed_before_the_next_is_used() {
    let mut rig = Rig::ready();
    rig.feed(order(9, 9, Goal::Running));
    rig.run();
    rig.host = vec![seen(5, Power::Off)];
    rig.look_later();
    let first = rig.calls.iter().rev().find(|call| call.stage == Stage::Poweroff).unwrap();
    assert_eq!(first.order.life, fence(5));
}

#[test]
fn a_guest_that_the_books_call_provisioned_is_lost_when_no_look_finds_it() {
    let mut rig = Rig::ready();
    rig.feed(GuestOrder { provisioned: true, ..order(8, 5, Goal::Running) });
    rig.end(fault("invalid", false));
    assert!(matches!(rig.phase(), Phase::Failed { stage: Stage::Inspect, .. }));
    rig.look_later();
    assert!(matches!(rig.phase(), Phase::Lost { .. }), "{:?}", rig.phase());
}
