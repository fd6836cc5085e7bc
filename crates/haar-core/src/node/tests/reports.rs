//! Versions, acknowledgements, incarnations and complete reports.

use super::*;

fn take_all(rig: &mut Rig) {
    for report in rig.node.reports() {
        rig.give(Input::Taken(report));
    }
}

#[test]
fn a_report_is_sent_again_until_it_was_taken() {
    let mut rig = Rig::running();
    let first = rig.node.reports();
    assert!(!first.is_empty());
    rig.later(RESEND_MS);
    assert_eq!(rig.node.reports(), first);
    take_all(&mut rig);
    assert_eq!(rig.node.reports(), vec![]);
    let mut stale = first;
    rig.feed(order(8, 5, Goal::Off));
    rig.give(Input::Taken(stale.remove(0)));
    assert!(!rig.node.reports().is_empty(), "an old acknowledgement takes nothing newer");
}

#[test]
fn versions_count_upwards_across_restarts() {
    let mut rig = Rig::running();
    let before = rig.said().version;
    rig.restart();
    rig.look();
    assert!(rig.said().version > before);
    assert_eq!(rig.node.record().incarnation, Some(1), "the same ledger is the same incarnation");
}

#[test]
fn a_complete_report_comes_after_a_start_and_rests_on_a_look() {
    let mut rig = Rig::running();
    take_all(&mut rig);
    rig.restart();
    assert!(rig.node.reports().iter().all(|report| report.complete.is_none()));
    rig.look();
    let set = rig.set(5, vec![order(5, 5, Goal::Running)]);
    rig.give(Input::Desired(set));
    let complete = rig.node.reports().pop().unwrap().complete.unwrap();
    assert_eq!((complete.epoch, complete.holds), (1, vec![web()]));
}

#[test]
fn a_new_epoch_asks_for_a_fresh_look_before_the_complete_report() {
    let mut rig = Rig::running();
    take_all(&mut rig);
    let mut set = rig.set(1, Vec::new());
    set.fence = Fence::new(2, 1);
    rig.give(Input::Desired(set));
    assert!(rig.node.reports().iter().all(|report| report.complete.is_none()));
    assert!(!rig.node.reports().is_empty(), "everything is said again");
    rig.look();
    let complete = rig.node.reports().pop().unwrap().complete.unwrap();
    assert_eq!(complete.epoch, 2);
}

#[test]
fn a_complete_report_waits_until_all_others_were_taken() {
    let mut rig = Rig::ready();
    let guests =
        (100..150).map(|n| GuestOrder { id: GuestId(Uuid::from_u128(n)), ..order(5, 5, Goal::Running) });
    let set = rig.set(5, guests.collect());
    rig.give(Input::Desired(set));
    rig.look();
    let reports = rig.node.reports();
    assert_eq!(reports.len(), 4);
    assert!(reports.iter().all(|report| report.guests.len() <= Report::MOST_GUESTS));
    assert!(reports.iter().all(|report| report.complete.is_none()));
    take_all(&mut rig);
    let complete = rig.node.reports().pop().unwrap().complete.unwrap();
    assert_eq!(complete.holds.len(), 50);
    take_all(&mut rig);
    assert_eq!(rig.node.reports(), vec![]);
}

#[test]
fn a_complete_report_comes_regularly() {
    let mut rig = Rig::running();
    take_all(&mut rig);
    rig.later(COMPLETE_EVERY_MS);
    rig.look();
    assert!(rig.node.reports().pop().unwrap().complete.is_some());
}

#[test]
fn a_refused_incarnation_says_hello_again_with_the_same_lot() {
    let mut rig = Rig::running();
    rig.give(Input::NotWelcome { incarnation: 9 });
    assert_eq!(rig.node.hello(), None, "another incarnation than ours");
    rig.give(Input::NotWelcome { incarnation: 1 });
    assert_eq!(rig.node.hello().unwrap().lot, 77);
    assert_eq!(rig.node.reports(), vec![]);
    assert_eq!(rig.node.feed_since(), None);
    rig.give(Input::Welcome { incarnation: 4 });
    assert!(rig.node.reports().iter().all(|report| report.incarnation == 4));
    assert!(rig.node.reports().iter().any(|report| !report.guests.is_empty()));
}

#[test]
fn nothing_is_said_before_the_boot_is_in_the_ledger() {
    let node = Node::new(HYPERVISOR, 1);
    assert_eq!((node.hello(), node.reports().len(), node.next_due()), (None, 0, None));
}

#[test]
fn tombstones_are_bounded_and_the_oldest_go_first() {
    let mut rig = Rig::running();
    rig.feed(order(6, 5, Goal::Gone));
    rig.run();
    let gone = rig.record().clone();
    let guest = |n: usize| GuestId(Uuid::from_u128(1000 + n as u128));
    for n in 0..MOST_TOMBSTONES + 3 {
        let tombstone = GuestRecord { id: guest(n), buried: n as u64 + 1, ..gone.clone() };
        rig.node.guests.insert(guest(n), Box::new(Entry::new(tombstone)));
    }
    rig.node.head.record.buried = MOST_TOMBSTONES as u64 + 3;
    rig.feed(order(7, 7, Goal::Gone));
    rig.run();
    assert_eq!(rig.node.guests.len(), MOST_TOMBSTONES);
    assert!(rig.node.guest(guest(3)).is_none() && rig.node.guest(guest(4)).is_some());
    assert!(rig.node.guest(web()).is_some());
}

#[test]
fn a_ledger_record_survives_its_encoding() {
    let rig = Rig::running();
    for record in rig.ledger.values() {
        let text = serde_json::to_string(record).unwrap();
        assert_eq!(serde_json::from_str::<LedgerRecord>(&text).unwrap(), *record);
    }
    assert!(Node::restore(Vec::new()).is_none());
}
