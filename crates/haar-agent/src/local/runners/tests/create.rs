//! Making a guest: asked again, taken back when it fails, and what it takes for itself.

use super::*;

#[test]
fn a09_a_failed_create_is_taken_back_in_reverse_and_can_be_deleted_or_made_anew() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    bench.well(2);
    bench.fail("boom");
    assert_eq!(bench.methods(), ["Remove"]);
    bench.end(|_| Outcome::Failed { message: "no such domain".into(), why: Why::Absent });
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.fail("busy");
    assert_eq!(bench.status(job), (Status::Error, "boom; it could not be taken back: busy"));
    assert_eq!(bench.state(), "error");

    bench.create(guest()).unwrap();
    bench.fail("boom");
    assert_eq!(bench.methods(), ["Wipe"], "only what had begun");
    bench.well(1);
    let gone = bench.act("delete").unwrap();
    assert!(bench.calls.is_empty(), "nothing of it is left");
    assert_eq!(bench.status(gone), (Status::Complete, ""));
    assert!(bench.runners.guest(G).is_none());
}

#[test]
fn a09_a_delete_goes_where_taking_back_has_failed_and_nowhere_else() {
    let mut bench = Bench::new();
    bench.create(guest()).unwrap();
    bench.well(1);
    bench.fail("boom");
    bench.well(1);
    bench.fail("busy");
    assert_eq!(bench.act("start"), Err(Refused::NotMade(G)));
    bench.act("delete").unwrap();
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.well(1);
    assert!(bench.runners.guest(G).is_none());
}

#[test]
fn a_create_on_somebody_elses_name_takes_nothing_of_theirs_back() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    let waiting = bench.act("poweroff");
    assert_eq!(waiting, Err(Refused::NotConfigured("poweroff".into())));
    let waiting = bench.act("reboot").unwrap();
    bench.well(1);
    bench.end(|_| Outcome::Failed { message: "conflict: a domain exists".into(), why: Why::Foreign });
    assert_eq!(bench.methods(), ["Wipe"], "the domain is not ours");
    bench.well(1);
    assert_eq!(bench.status(job), (Status::Error, "conflict: a domain exists"));
    assert!(bench.status(waiting).1.contains("could not be made") && bench.calls.is_empty());
    bench.act("delete").unwrap();
    assert!(bench.calls.is_empty() && bench.runners.guest(G).is_none());
}

#[test]
fn a08_the_same_guest_again_is_the_same_request_and_another_of_its_id_is_refused() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    assert_eq!(bench.create(guest()), Ok(job));
    bench.well(3);
    assert_eq!(bench.create(guest()), Ok(job));
    assert_eq!(bench.create(Guest { memory: 2, ..guest() }), Err(Refused::Exists(G)));
    assert!(bench.calls.is_empty());
}

#[test]
fn the_same_guest_again_is_refused_while_it_is_being_deleted() {
    let mut bench = Bench::with_guest();
    bench.act("delete").unwrap();
    assert_eq!(bench.create(guest()), Err(Refused::BeingDeleted(G)));
    bench.well(2);
    bench.create(guest()).unwrap();
    assert_eq!(bench.methods(), ["Disks"]);
}

#[test]
fn the_same_guest_again_has_a_job_in_the_log_however_old_it_is() {
    let mut bench = Bench::with_guest();
    let made = bench.runners.guest(G).unwrap().create_job;
    for _ in 0..6 {
        bench.act("start").unwrap();
        bench.well(1);
    }
    assert!(bench.runners.job(made).is_none());
    let again = bench.create(guest()).unwrap();
    assert_eq!(bench.status(again), (Status::Complete, ""));
    assert_eq!((bench.create(guest()), bench.calls.len()), (Ok(again), 0));
}

#[test]
fn a_mac_is_one_guests() {
    let with_mac = |id: u128, mac: &str| Guest {
        id: Uuid::from_u128(id).to_string(),
        nics: vec![haar_api::rpc::Nic { mac: mac.into(), ..Default::default() }],
        ..guest()
    };
    let mut bench = Bench::new();
    let first = Uuid::from_u128(1);
    let act = |bench: &mut Bench, action: &str| {
        let job = bench.id();
        bench.give(Input::Act { guest: first, action: action.into(), job }).unwrap();
    };
    bench.create(with_mac(1, "02:00:00:00:00:01")).unwrap();
    bench.well(3);
    let refused = bench.create(with_mac(2, "02-00-00-00-00-01"));
    let mac = "02:00:00:00:00:01".parse().unwrap();
    assert_eq!(refused, Err(Refused::MacTaken { mac, guest: first }));
    bench.create(with_mac(2, "02:00:00:00:00:02")).unwrap();
    bench.well(3);
    act(&mut bench, "delete");
    bench.well(2);
    bench.create(with_mac(3, "02:00:00:00:00:01")).unwrap();
}

#[test]
fn what_is_held_while_a_create_is_taken_back_is_deleted_later() {
    let mut bench = Bench::new();
    bench.create(guest()).unwrap();
    bench.well(2);
    bench.fail("boom");
    bench.well(1);
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.end(|_| Outcome::Failed { message: "conflict: its disk is in use".into(), why: Why::Foreign });
    assert_eq!(bench.state(), "error");
    bench.act("delete").unwrap();
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.well(1);
    assert_eq!(bench.runners.guests().count(), 0);
}

#[test]
fn thousands_that_wait_for_a_guest_that_cannot_be_made_end_at_once() {
    let mut text = plan_text();
    text["limits"] = json!({"queue": 3000, "jobs": 6000});
    let mut bench = Bench::new();
    bench.restart_with(Plan::parse(&text.to_string()).unwrap());
    bench.create(guest()).unwrap();
    let jobs: Vec<Uuid> = (0..3000).map(|_| bench.act("start").unwrap()).collect();
    bench.fail("boom");
    bench.well(1);
    for job in jobs {
        let (status, message) = bench.status(job);
        assert!(status == Status::Error && message.contains("could not be made"), "{message}");
    }
}

#[test]
fn an_undo_goes_on_after_a_restart() {
    let mut bench = Bench::new();
    let job = bench.create(guest()).unwrap();
    bench.well(1);
    bench.fail("boom");
    bench.well(1);
    bench.restart();
    assert_eq!(bench.methods(), ["Wipe"]);
    bench.well(1);
    assert_eq!((bench.status(job), bench.state()), ((Status::Error, "boom"), "error"));
}
