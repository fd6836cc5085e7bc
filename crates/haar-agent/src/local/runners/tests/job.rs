//! Jobs: their order, their bound, their log, and what becomes of them when the agent ends.

use super::*;

#[test]
fn one_at_a_time_in_the_order_asked() {
    let mut bench = Bench::with_guest();
    let jobs = [bench.act("start").unwrap(), bench.act("reboot").unwrap(), bench.act("start").unwrap()];
    assert_eq!(bench.methods(), ["Run"]);
    bench.well(1);
    assert_eq!(bench.methods(), ["Reboot"]);
    bench.well(2);
    assert!(jobs.into_iter().all(|job| bench.status(job).0 == Status::Complete));
}

#[test]
fn a11_past_the_bound_there_is_a_no() {
    let mut bench = Bench::with_guest();
    for _ in 0..4 {
        bench.act("start").unwrap();
    }
    assert!(matches!(bench.act("start"), Err(Refused::QueueFull { waiting: 3, .. })));
    bench.well(1);
    bench.act("start").unwrap();
}

#[test]
fn what_waits_can_be_cancelled_and_nothing_else() {
    let mut bench = Bench::with_guest();
    let (runs, waits) = (bench.act("start").unwrap(), bench.act("reboot").unwrap());
    assert_eq!(bench.give(Input::Cancel { job: runs }), Err(Refused::HasBegun(runs)));
    bench.give(Input::Cancel { job: waits }).unwrap();
    assert_eq!(bench.status(waits), (Status::Error, "cancelled before it began"));
    assert_eq!(bench.give(Input::Cancel { job: waits }), Err(Refused::HasEnded(waits)));
    bench.well(1);
    assert!(bench.calls.is_empty());
}

#[test]
fn a14_the_log_keeps_the_newest_ended_jobs_and_lists_each_owners_own() {
    let mut bench = Bench::with_guest();
    let jobs: Vec<Uuid> = (0..7)
        .map(|_| {
            let job = bench.act("start").unwrap();
            bench.well(1);
            job
        })
        .collect();
    let listed = bench.runners.jobs(Some(Owner::Guest(G)), 100);
    let ids: Vec<String> = listed.iter().map(|job| job.id.clone()).collect();
    let newest: Vec<String> = jobs.iter().rev().take(5).map(Uuid::to_string).collect();
    assert_eq!(ids, newest);
    assert_eq!(bench.runners.jobs(Some(Owner::Agent), 100), []);
    assert_eq!(bench.runners.jobs(None, 2).len(), 2);
}

#[test]
fn a17_each_step_writes_the_records_it_is_about_and_no_other() {
    let mut bench = Bench::with_guest();
    for _ in 0..4 {
        bench.act("start").unwrap();
        bench.well(1);
    }
    bench.act("start").unwrap();
    let call = bench.calls.remove(0);
    let ended = Input::Ended { seq: call.seq, step: call.step.clone(), outcome: echo(&call) };
    let decision = bench.runners.decide(ended, &Env { now: WallMs(99) }).unwrap();
    let about: Vec<u64> = decision
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::PutJob(job) => Some(job.seq),
            _ => None,
        })
        .collect();
    assert_eq!(about, [call.seq]);
    assert!(decision.changes.len() <= 3, "the guest, the job, and the one that is dropped for it");
}

#[test]
fn a03_after_a_restart_what_may_be_asked_again_is_and_the_rest_ends_with_a_reason() {
    let mut bench = Bench::with_guest();
    let (start, reboot, last) =
        (bench.act("start").unwrap(), bench.act("reboot").unwrap(), bench.act("start").unwrap());
    bench.restart();
    assert_eq!(bench.methods(), ["Run"], "asked again");
    bench.well(1);
    assert_eq!((bench.status(start).0, bench.methods()), (Status::Complete, vec!["Reboot"]));
    bench.restart();
    assert_eq!(bench.methods(), ["Run"], "what waited goes on");
    let (status, message) = bench.status(reboot);
    assert!(status == Status::Error && message.contains("not known whether"), "{message}");
    bench.well(1);
    assert_eq!(bench.status(last).0, Status::Complete);
}

#[test]
fn what_is_done_with_one_image_holds_up_no_other_and_there_is_a_bound() {
    let mut bench = Bench::new();
    let ask = |bench: &mut Bench, action: &str, id: &str| {
        let request = haar_api::rpc::ImageRequest { id: id.into(), ..Default::default() };
        let job = bench.id();
        let input = Input::Image { action: action.into(), request: Box::new(request), job };
        bench.give(input).map(|_| job)
    };
    let fetch = ask(&mut bench, "fetchImage", "one").unwrap();
    let delete = ask(&mut bench, "deleteImage", "one").unwrap();
    ask(&mut bench, "fetchImage", "two").unwrap();
    assert_eq!(bench.methods(), ["Fetch", "Fetch"], "the deletion waits for the fetch of the same image");
    assert_eq!((bench.status(fetch).0, bench.status(delete).0), (Status::Running, Status::Queued));
    ask(&mut bench, "fetchImage", "three").unwrap();
    assert!(matches!(ask(&mut bench, "fetchImage", "four"), Err(Refused::QueueFull { waiting: 3, .. })));
    assert_eq!(bench.runners.job(delete).unwrap().job().guest_id, "agent");
}

#[test]
fn work_on_snapshots_waits_its_turn_like_any_other() {
    let mut bench = Bench::with_guest();
    bench.act("start").unwrap();
    let job = bench.id();
    let request = haar_api::rpc::SnapshotRequest::default();
    let input = Input::Snapshot { guest: G, action: "rollbackSnapshot".into(), request, job };
    bench.give(input).unwrap();
    assert_eq!(bench.methods(), ["Run"]);
    bench.well(1);
    assert_eq!(bench.methods(), ["Rollback"]);
    assert!(matches!(bench.runners.job(job).unwrap().work, Work::Snapshot(_)));
}
