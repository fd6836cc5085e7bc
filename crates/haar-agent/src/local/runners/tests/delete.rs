//! Deleting a guest, and what waits behind that.

use super::*;

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
fn a_delete_that_fails_leaves_the_guest_and_what_waits_goes_on() {
    let mut bench = Bench::with_guest();
    bench.act("delete").unwrap();
    bench.act("start").unwrap();
    bench.fail("busy");
    assert_eq!((bench.methods(), bench.runners.guests().count()), (vec!["Run"], 1));
}
