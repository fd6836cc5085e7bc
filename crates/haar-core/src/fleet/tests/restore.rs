//! After a restore: nothing is given out before the hosts have told what they hold, what they hold is
//! booked, and nothing is ever booked twice.

use super::*;
use crate::guest::{GoalBy, Owner};
use crate::id::Kind;
use crate::refusal::Cause;

/// The books go back to an earlier copy; the hosts do not. Then a new epoch begins.
fn restore(cloud: &Cloud, backup: &Cloud) -> Cloud {
    let mut restored = backup.clone();
    restored.version = cloud.version;
    restored.lot = cloud.lot;
    restored.polls = cloud.polls.clone();
    let past = restored.report(host(1), Vec::new());
    let report = Report { seen: cloud.fleet.fence(), ..past };
    if cloud.fleet.fence() > restored.fleet.fence() {
        assert!(matches!(restored.no(Command::Report(report)), Refusal::BooksRestored { .. }));
    }
    restored.yes(Command::BeginEpoch(cloud.fleet.epoch() + 1));
    assert_eq!(restored.fleet.epoch(), 2);
    restored
}

fn report_of(cloud: &mut Cloud, id: HypervisorId, guests: Vec<GuestReport>) -> Decision {
    let report = cloud.report(id, guests);
    cloud.yes(Command::Report(report))
}

#[test]
fn a_report_that_has_seen_a_newer_fence_than_the_books_is_refused() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    let newer = Fence::new(1, cloud.fleet.fence().revision + 1);
    let says = cloud.says(guest(1), Phase::Working, Power::Absent);
    let by_seen = Report { seen: newer, ..cloud.report(host(1), vec![]) };
    let by_order = cloud.report(host(1), vec![GuestReport { order: newer, ..says.clone() }]);
    let by_life = cloud.report(host(1), vec![GuestReport { life: newer, ..says.clone() }]);
    let by_deed = cloud.report(host(1), vec![GuestReport { deed: Some(newer), ..says }]);
    let mut by_epoch = cloud.complete_report(host(1), &[]);
    by_epoch.complete.as_mut().unwrap().epoch = 2;
    for report in [by_seen, by_order, by_life, by_deed, by_epoch] {
        assert!(matches!(cloud.no(Command::Report(report)), Refusal::BooksRestored { .. }));
    }
}

#[test]
fn nothing_is_given_out_before_every_host_of_the_network_has_reported_or_is_lost() {
    let backup = Cloud::with_hosts(3);
    let mut cloud = restore(&backup, &backup);
    let causes = |refusal: Refusal| match refusal {
        Refusal::NoRoom { reasons, .. } => reasons.iter().map(|r| r.cause).collect::<Vec<_>>(),
        other => panic!("{other}"),
    };
    assert_eq!(causes(cloud.create(1).unwrap_err()), [Cause::NotReported]);
    cloud.complete(host(1), &[]);
    let refusal = cloud.create(1).unwrap_err();
    assert_eq!(causes(refusal), [Cause::NotReported, Cause::NetworkNotReported]);
    cloud.complete(host(2), &[]);
    cloud.polls.0.remove(&host(3));
    assert_eq!(cloud.create(1).unwrap_err().code(), "no_room");
    cloud.yes(Command::DeclareLost(host(3)));
    cloud.create(1).unwrap();
    assert_eq!(cloud.place(guest(1)), host(1));
}

#[test]
fn a_listed_network_waits_only_for_the_hosts_that_have_it() {
    let mut backup = Cloud::with_hosts(2);
    let network = NetworkId(Uuid::from_u128(0x2f));
    let subnet = SubnetId(Uuid::from_u128(0x5c));
    let spec = NetworkSpec { reach: Reach::Listed, ..network_spec("racks") };
    backup.yes(Command::CreateNetwork(network, spec));
    backup.yes(Command::CreateSubnet(subnet, subnet_spec("rack-a", network, "10.1.0"), Gateway::Said));
    let mut listing = hypervisor_spec("lab1");
    listing.subnets.insert(subnet, String::new());
    backup.yes(Command::SetHypervisor(host(1), listing, None));
    let mut cloud = restore(&backup, &backup);
    cloud.complete(host(1), &[]);
    let spec = GuestSpec { network, ..guest_spec(1) };
    cloud.yes(Command::CreateGuest(guest(1), Box::new(spec), None));
    assert_eq!(cloud.create(2).unwrap_err().code(), "no_room");
}

#[test]
fn a_complete_report_of_an_earlier_epoch_opens_nothing() {
    let backup = Cloud::with_hosts(1);
    let old = backup.complete_report(host(1), &[]);
    let mut cloud = restore(&backup, &backup);
    cloud.yes(Command::Report(old.clone()));
    assert_eq!(cloud.create(1).unwrap_err().code(), "no_room");
    // Nor one that says the new epoch without having seen an order of it.
    let mut unseen = old.clone();
    unseen.complete.as_mut().unwrap().epoch = 2;
    cloud.yes(Command::Report(unseen));
    assert_eq!(cloud.create(1).unwrap_err().code(), "no_room");
    // Nor one that was read in the earlier epoch and sent in this one.
    let read_before = Report { seen: cloud.fleet.fence(), ..old };
    cloud.yes(Command::Report(read_before));
    assert_eq!(cloud.create(1).unwrap_err().code(), "no_room");
}

#[test]
fn what_a_host_holds_and_the_books_lost_is_booked_as_claimed() {
    let backup = Cloud::with_hosts(2);
    let mut cloud = backup.clone();
    cloud.running(1);
    let held = cloud.says(guest(1), Phase::Settled, Power::Running);
    let before = cloud.guest(guest(1)).clone();
    let mut cloud = restore(&cloud, &backup);
    report_of(&mut cloud, host(1), vec![held.clone()]);
    let claimed = cloud.guest(guest(1));
    assert_eq!((claimed.state, claimed.owner), (State::Claimed, Owner::Claimed));
    assert_eq!((claimed.place, claimed.mac), (before.place, before.mac));
    assert_eq!(cloud.fleet.used(host(1)), before.resources);
    let refusal = cloud.act(guest(1), GuestAction::Shutdown).unwrap_err();
    assert!(refusal.to_string().contains("adopt it first"), "{refusal}");
    cloud.complete(host(1), &[guest(1)]);
    cloud.complete(host(2), &[]);
    // Its address is held.
    cloud.create(2).unwrap();
    assert_ne!(cloud.guest(guest(2)).place.unwrap().address, before.place.unwrap().address);
    // Once everything is told, a report of an unknown guest is old news.
    let mut late = held;
    late.id = guest(77);
    assert!(report_of(&mut cloud, host(1), vec![late]).changes.is_empty());
    // It can be deleted by an operator's word, under an order of this epoch.
    cloud.yes(Command::Delete(Kind::Guest, guest(1).0, None));
    let order = &cloud.fleet.desired(host(1)).unwrap().guests[0];
    assert_eq!((order.goal, order.order.epoch), (Goal::Gone, 2));
    cloud.tell(guest(1), Phase::Gone, Power::Absent);
    assert_eq!(cloud.fleet.guest(guest(1)), None);
}

#[test]
fn a_message_from_before_the_restore_claims_nothing() {
    let backup = Cloud::with_hosts(1);
    let mut cloud = backup.clone();
    cloud.running(1);
    let held = cloud.says(guest(1), Phase::Settled, Power::Running);
    let old = cloud.report(host(1), vec![held]);
    let mut cloud = restore(&cloud, &backup);
    assert!(cloud.yes(Command::Report(old)).changes.is_empty());
    assert_eq!(cloud.fleet.guest(guest(1)), None);
}

#[test]
fn a_claim_never_takes_what_another_guest_holds() {
    let mut backup = Cloud::with_hosts(2);
    backup.running(1);
    let first = backup.guest(guest(1)).clone();
    let mut cloud = backup.clone();
    cloud.running(2);
    let held = cloud.says(guest(2), Phase::Settled, Power::Running);
    let on = cloud.place(guest(2));
    assert_eq!(on, host(2));
    let mut cloud = restore(&cloud, &backup);
    let address = first.place.unwrap().address;
    let mut same_address = held.clone();
    same_address.claim.address = address;
    let mut same_mac = held.clone();
    same_mac.claim.mac = first.mac;
    same_mac.version += 1;
    let mut outside = held.clone();
    outside.claim.address = "10.0.0.1".parse().unwrap();
    for (says, why) in [
        (same_address, "is held by guest `web-1`"),
        (same_mac, "belongs to guest `web-1`"),
        (outside, "is none that subnet"),
    ] {
        report_of(&mut cloud, on, vec![says]);
        assert_eq!(cloud.fleet.guest(guest(2)), None);
        let strangers = cloud.host(on).strangers.join("\n");
        assert!(strangers.contains(why), "{strangers}");
    }
    cloud.complete(on, &[guest(2)]);
    assert!(cloud.host(on).strangers[0].contains("web-2"), "still named while it is there");
    cloud.complete(on, &[]);
    assert!(cloud.host(on).strangers.is_empty());
}

#[test]
fn two_claims_of_one_address_in_one_report_book_one() {
    let backup = Cloud::with_hosts(1);
    let mut cloud = backup.clone();
    cloud.running(1);
    let first = cloud.says(guest(1), Phase::Settled, Power::Running);
    let mut second = GuestReport { id: guest(2), ..first.clone() };
    second.claim.mac = Mac::of_guest(guest(2), 0);
    let mut third = GuestReport { id: guest(3), ..first.clone() };
    third.claim.address = "10.0.0.99".parse().unwrap();
    let mut fourth = third.clone();
    fourth.id = guest(4);
    fourth.claim.mac = Mac::of_guest(guest(4), 0);
    fourth.claim.address = "10.0.0.98".parse().unwrap();
    let mut cloud = restore(&cloud, &backup);
    report_of(&mut cloud, host(1), vec![first, second, third, fourth]);
    let booked: Vec<_> = cloud.fleet.guests().map(|g| g.id).collect();
    assert_eq!(booked, [guest(1), guest(4)]);
    assert_eq!(cloud.guest(guest(4)).spec.name.as_str(), "web-1-00000000", "the name was taken by then");
    assert_eq!(cloud.host(host(1)).strangers.len(), 2);
}

#[test]
fn the_same_guest_on_two_hosts_stays_where_the_books_have_it() {
    let mut backup = Cloud::with_hosts(2);
    backup.create(1).unwrap();
    backup.tell(guest(1), failed(), Power::Absent);
    let mut cloud = backup.clone();
    // After the backup it was made on lab2; before the restore is noticed, somebody makes it on lab1.
    cloud.create(1).unwrap();
    cloud.tell(guest(1), Phase::Settled, Power::Running);
    let held = cloud.says(guest(1), Phase::Settled, Power::Running);
    assert_eq!(cloud.place(guest(1)), host(2));
    let mut books = backup.clone();
    books.polls.0.remove(&host(2));
    books.create(1).unwrap();
    assert_eq!(books.place(guest(1)), host(1));
    books.polls.0.insert(host(2));
    let mut cloud = restore(&cloud, &books);
    report_of(&mut cloud, host(2), vec![held]);
    assert_eq!(cloud.place(guest(1)), host(1));
    assert!(cloud.host(host(2)).strangers[0].contains("booked on hypervisor `lab1`"));
}

#[test]
fn a_ledgers_gone_beats_a_restored_record() {
    let mut backup = Cloud::with_hosts(1);
    backup.running(1);
    let mut cloud = backup.clone();
    cloud.yes(Command::Delete(Kind::Guest, guest(1).0, None));
    let gone = cloud.says(guest(1), Phase::Gone, Power::Absent);
    let mut cloud = restore(&cloud, &backup);
    assert_eq!(cloud.guest(guest(1)).goal, Goal::Running, "the books no longer know of the delete");
    report_of(&mut cloud, host(1), vec![gone]);
    assert_eq!(cloud.fleet.guest(guest(1)), None);
}

#[test]
fn a_newer_order_than_the_books_have_becomes_an_order_of_this_epoch() {
    let mut backup = Cloud::with_hosts(1);
    backup.running(1);
    let mut cloud = backup.clone();
    cloud.act(guest(1), GuestAction::Shutdown).unwrap();
    let off = cloud.says(guest(1), Phase::Settled, Power::Off);
    let mut cloud = restore(&cloud, &backup);
    let decision = report_of(&mut cloud, host(1), vec![off]);
    let followed = cloud.guest(guest(1));
    assert_eq!((followed.goal, followed.goal_by), (Goal::Stopped, GoalBy::Local));
    assert_eq!(followed.order, decision.fence);
    assert_eq!(followed.state, State::Stopped);
}

#[test]
fn a_restored_create_that_was_settled_long_ago_is_not_taken_back() {
    let mut backup = Cloud::with_hosts(1);
    backup.create(1).unwrap();
    let mut cloud = backup.clone();
    cloud.tell(guest(1), Phase::Settled, Power::Running);
    let settled = cloud.says(guest(1), Phase::Settled, Power::Running);
    let mut cloud = restore(&cloud, &backup);
    cloud.miss_all_deadlines(guest(1));
    assert_eq!(cloud.last_job(guest(1)).status, Status::Error);
    report_of(&mut cloud, host(1), vec![settled]);
    let kept = cloud.guest(guest(1));
    assert_eq!((kept.state, kept.goal), (State::Running, Goal::Running));
    assert!(kept.provisioned.is_some());
}

#[test]
fn a_newer_life_on_the_same_host_is_taken_over() {
    let mut backup = Cloud::with_hosts(1);
    backup.running(1);
    let mut cloud = backup.clone();
    cloud.tell(guest(1), Phase::Lost { message: "gone".into() }, Power::Absent);
    cloud.act(guest(1), GuestAction::Recreate).unwrap();
    cloud.tell(guest(1), Phase::Settled, Power::Running);
    let newer = cloud.says(guest(1), Phase::Settled, Power::Running);
    let mut gone = newer.clone();
    gone.phase = Phase::Gone;
    let mut cloud = restore(&cloud, &backup);
    let mut other = cloud.clone();
    report_of(&mut cloud, host(1), vec![newer.clone()]);
    let taken = cloud.guest(guest(1));
    assert_eq!(taken.place.unwrap().life, newer.life);
    assert_eq!((taken.state, taken.order.epoch), (State::Running, 2));
    report_of(&mut other, host(1), vec![gone]);
    assert_eq!(other.fleet.guest(guest(1)), None);
}

#[test]
fn a_claim_that_the_complete_report_does_not_hold_is_dropped() {
    let backup = Cloud::with_hosts(1);
    let mut cloud = backup.clone();
    cloud.running(1);
    let held = cloud.says(guest(1), Phase::Settled, Power::Running);
    let mut cloud = restore(&cloud, &backup);
    report_of(&mut cloud, host(1), vec![held]);
    cloud.complete(host(1), &[]);
    assert_eq!(cloud.fleet.guest(guest(1)), None);
    assert_eq!(cloud.fleet.addresses(SUBNET).used, 0);
}

#[test]
fn a_claim_with_nouns_the_books_lost_is_held_and_can_be_deleted_but_not_adopted() {
    let backup = Cloud::with_hosts(1);
    let mut cloud = backup.clone();
    cloud.running(1);
    let mut held = cloud.says(guest(1), Phase::Settled, Power::Running);
    held.claim.network = NetworkId(Uuid::from_u128(0xd1));
    held.claim.subnet = SubnetId(Uuid::from_u128(0xd2));
    let mut cloud = restore(&cloud, &backup);
    report_of(&mut cloud, host(1), vec![held]);
    assert_eq!(cloud.fleet.used(host(1)).cpu, 1);
    assert_eq!(cloud.act(guest(1), GuestAction::Adopt).unwrap_err().code(), "wrong_state");
    cloud.yes(Command::Delete(Kind::Guest, guest(1).0, None));
    assert_eq!(cloud.fleet.desired(host(1)).unwrap().guests[0].goal, Goal::Gone);
    cloud.tell(guest(1), Phase::Gone, Power::Absent);
    assert_eq!(cloud.fleet.guest(guest(1)), None);
}

#[test]
fn incarnations_of_an_earlier_epoch_never_come_back() {
    let backup = Cloud::with_hosts(1);
    let mut cloud = backup.clone();
    cloud.join(host(1), 8);
    let lost = cloud.host(host(1)).incarnation;
    let mut cloud = restore(&cloud, &backup);
    cloud.join(host(1), 9);
    assert_ne!(cloud.host(host(1)).incarnation, lost);
}

#[test]
fn an_epoch_never_runs_over() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.yes(Command::BeginEpoch(7));
    assert_eq!(cloud.fleet.epoch(), 7);
    assert_eq!(cloud.fleet.desired_revision(host(1)), cloud.fleet.fence().revision, "all are told");
    assert_eq!(
        cloud.yes(Command::BeginEpoch(7)).answer.outcome,
        Outcome::Same,
        "one restore, many tell of it"
    );
    cloud.yes(Command::BeginEpoch(0));
    assert_eq!(cloud.fleet.epoch(), 8, "each restore is an epoch of its own");
    assert_eq!(cloud.no(Command::BeginEpoch(u64::MAX)).code(), "bad_field");
    assert_eq!(cloud.fleet.epoch(), 8);
}

#[test]
fn of_two_lives_on_two_hosts_the_newer_moves_the_booking() {
    let mut backup = Cloud::with_hosts(2);
    backup.running(1);
    assert_eq!(backup.place(guest(1)), host(1));
    let mut cloud = backup.clone();
    cloud.yes(Command::Delete(Kind::Guest, guest(1).0, None));
    cloud.tell(guest(1), Phase::Gone, Power::Absent);
    let spec = GuestSpec { hypervisor: Some(host(2)), ..guest_spec(1) };
    cloud.yes(Command::CreateGuest(guest(1), Box::new(spec), None));
    cloud.tell(guest(1), Phase::Settled, Power::Running);
    let newer = cloud.says(guest(1), Phase::Settled, Power::Unknown);
    // The books' last word was a delete of the earlier life: it says nothing of the newer one.
    backup.yes(Command::Delete(Kind::Guest, guest(1).0, None));
    let mut cloud = restore(&cloud, &backup);
    report_of(&mut cloud, host(2), vec![newer]);
    assert_eq!(cloud.place(guest(1)), host(2));
    assert_eq!((cloud.guest(guest(1)).state, cloud.guest(guest(1)).goal), (State::Claimed, Goal::Running));
    assert_eq!(cloud.fleet.used(host(1)), Resources::default());
}

#[test]
fn a_host_that_holds_what_cannot_be_booked_is_not_heard_yet() {
    let mut backup = Cloud::with_hosts(2);
    backup.running(1);
    let mut cloud = backup.clone();
    cloud.running(2);
    assert_eq!(cloud.place(guest(2)), host(2));
    let mut held = cloud.says(guest(2), Phase::Settled, Power::Running);
    held.claim.address = cloud.guest(guest(1)).place.unwrap().address;
    let mut cloud = restore(&cloud, &backup);
    cloud.complete(host(1), &[guest(1)]);
    report_of(&mut cloud, host(2), vec![held]);
    cloud.complete(host(2), &[guest(2)]);
    assert_eq!(cloud.create(3).unwrap_err().code(), "no_room");
    cloud.complete(host(2), &[]);
    cloud.create(3).unwrap();
}

#[test]
fn a_lost_guest_is_not_made_anew_while_another_host_may_have_it() {
    let mut backup = Cloud::with_hosts(2);
    backup.running(1);
    backup.tell(guest(1), Phase::Lost { message: "disk is missing".into() }, Power::Absent);
    let mut cloud = restore(&backup, &backup);
    cloud.complete(host(1), &[guest(1)]);
    assert_eq!(cloud.act(guest(1), GuestAction::Recreate).unwrap_err().code(), "wrong_state");
    cloud.complete(host(2), &[]);
    cloud.act(guest(1), GuestAction::Recreate).unwrap();
}
