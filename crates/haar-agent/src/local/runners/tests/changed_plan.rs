//! A file of actions that is another one after a restart: no job goes on with what it does not mean any more.

use super::*;

/// The plan with one action's stages, each with its service, in place of its own.
fn with(action: &str, stages: &[(&str, &str)]) -> Plan {
    let mut text = plan_text();
    let stage = |(service, method): &(&str, &str)| json!({"service": service, "method": method});
    text["actions"][action] = json!({"stages": stages.iter().map(stage).collect::<Vec<_>>()});
    Plan::parse(&text.to_string()).unwrap()
}

#[test]
fn what_waits_for_stages_that_are_gone_ends_with_a_reason_and_removes_nothing() {
    for action in ["start", "delete"] {
        let mut bench = Bench::with_guest();
        bench.act("reboot").unwrap();
        let waiting = bench.act(action).unwrap();
        bench.restart_with(with(action, &[]));
        let (status, message) = bench.status(waiting);
        assert!(status == Status::Error && message.contains("configured any more"), "{action}: {message}");
        assert_eq!(bench.runners.guests().count(), 1, "{action}");
        assert!(bench.calls.is_empty());
    }
}

#[test]
fn a_job_that_waited_takes_the_stages_of_now() {
    let mut bench = Bench::with_guest();
    bench.act("reboot").unwrap();
    let waiting = bench.act("start").unwrap();
    bench.restart_with(with("start", &[("disk", "Warm"), ("vm", "Run")]));
    assert_eq!(bench.methods(), ["Warm"]);
    bench.well(2);
    assert_eq!(bench.status(waiting).0, Status::Complete);
}

#[test]
fn a_job_under_way_does_not_go_on_with_other_stages() {
    let mut bench = Bench::with_guest();
    let gone = bench.act("delete").unwrap();
    bench.well(1);
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.restart_with(with("delete", &[("disk", "Wipe"), ("vm", "Remove")]));
    let (status, message) = bench.status(gone);
    assert!(status == Status::Error && message.contains("changed while it was under way"), "{message}");
    assert_eq!((bench.calls.len(), bench.runners.guests().count()), (0, 1));
}

#[test]
fn a_create_whose_stages_were_changed_is_taken_back_where_it_had_begun() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    bench.restart_with(with("create", &[("vm", "Define"), ("disk", "Disks")]));
    assert_eq!(bench.methods(), ["Wipe"], "the virtual machine was not begun");
    bench.well(1);
    assert_eq!((bench.status(job).0, bench.state()), (Status::Error, "error"));
    bench.act("delete").unwrap();
    assert_eq!(bench.runners.guests().count(), 0);
}

#[test]
fn a_create_without_stages_any_more_is_taken_back_too() {
    let mut bench = Bench::new();
    bench.create(guest()).unwrap();
    bench.restart_with(with("create", &[]));
    assert_eq!(bench.methods(), ["Wipe"]);
}

#[test]
fn what_cannot_be_taken_back_by_the_stages_of_now_is_remembered() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    bench.fail("boom");
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.restart_with(with("delete", &[("vm", "Remove")]));
    let (status, message) = bench.status(job);
    assert!(status == Status::Error && message.starts_with("boom; it could not be taken back"), "{message}");
    let refused = bench.act("delete").unwrap();
    let (status, message) = bench.status(refused);
    assert!(status == Status::Error && message.contains("`disk`"), "{message}");
    bench.restart();
    bench.act("delete").unwrap();
    assert_eq!(bench.methods(), ["Wipe"], "with the old file it can be deleted");
}
