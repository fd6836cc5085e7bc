//! The check finds what is broken: each fault is put into the books by hand, as a broken store would.

use super::super::change::Record;
use super::super::check::Fault;
use super::*;
use crate::guest::Place;

fn put(cloud: &mut Cloud, id: GuestId, change: impl FnOnce(&mut Guest)) {
    let mut guest = cloud.guest(id).clone();
    change(&mut guest);
    cloud.fleet.restore(Record::Guest(Arc::new(guest)));
}

fn two_guests() -> Cloud {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    cloud.running(2);
    cloud
}

fn place(cloud: &Cloud, number: u128) -> Place {
    cloud.guest(guest(number)).place.unwrap()
}

#[test]
fn one_address_or_mac_or_name_twice_is_found() {
    let mut cloud = two_guests();
    let first = cloud.guest(guest(1)).clone();
    put(&mut cloud, guest(2), |guest| {
        guest.place = first.place;
        guest.mac = first.mac;
        guest.spec.name = first.spec.name.clone();
    });
    let faults = cloud.fleet.check();
    assert!(faults.iter().any(|fault| matches!(fault, Fault::SharedAddress { .. })), "{faults:?}");
    assert!(faults.iter().any(|fault| matches!(fault, Fault::SharedMac { .. })), "{faults:?}");
    assert!(faults.iter().any(|fault| matches!(fault, Fault::SharedName { .. })), "{faults:?}");
}

#[test]
fn an_address_that_is_never_handed_out_is_found() {
    let mut cloud = two_guests();
    let address = "10.0.0.1".parse().unwrap();
    let moved = Place { address, ..place(&cloud, 1) };
    put(&mut cloud, guest(1), |guest| guest.place = Some(moved));
    assert_eq!(cloud.fleet.check(), [Fault::AddressOutside { guest: guest(1), address }]);
}

#[test]
fn dead_references_are_found() {
    let mut cloud = two_guests();
    put(&mut cloud, guest(1), |guest| {
        guest.spec.flavor = FlavorId(Uuid::nil());
        guest.image = ImageId(Uuid::nil());
        guest.job = Some(JobId(Uuid::nil()));
        guest.spec.fwgroup = Some(Uuid::nil().into());
        guest.spec.subnet = Some(SubnetId(Uuid::nil()));
    });
    let dead = cloud.fleet.check();
    assert_eq!(dead.len(), 5, "{dead:?}");
    assert!(dead.iter().all(|fault| matches!(fault, Fault::DeadReference { .. })));
    let mut cloud = two_guests();
    let elsewhere = Place { hypervisor: host(7), ..place(&cloud, 1) };
    put(&mut cloud, guest(1), |guest| guest.place = Some(elsewhere));
    assert!(matches!(cloud.fleet.check()[..], [Fault::DeadReference { .. }]));
}

#[test]
fn a_fence_of_the_future_is_found() {
    let mut cloud = two_guests();
    let fence = Fence::new(9, 9);
    put(&mut cloud, guest(1), |guest| guest.order = fence);
    assert!(matches!(cloud.fleet.check()[..], [Fault::FutureFence { .. }]));
}

#[test]
fn a_job_nobody_waits_for_and_a_guest_nothing_will_end_are_found() {
    let mut cloud = two_guests();
    let job = cloud.guest(guest(1)).job.unwrap();
    let open = Job { status: Status::Working, guest: guest(9), ..cloud.job(job).clone() };
    cloud.fleet.restore(Record::Job(Arc::new(open)));
    assert_eq!(cloud.fleet.check(), [Fault::OrphanJob(job)]);
    let mut cloud = two_guests();
    put(&mut cloud, guest(1), |guest| guest.state = State::Creating);
    assert_eq!(cloud.fleet.check(), [Fault::Stuck(guest(1))]);
}

#[test]
fn a_state_that_contradicts_the_record_is_found() {
    let broken: [fn(&mut Guest); 4] = [
        |guest| guest.state = State::Failed,
        |guest| guest.place = None,
        |guest| guest.goal = Goal::Gone,
        |guest| guest.state = State::Deleting,
    ];
    for change in broken {
        let mut cloud = two_guests();
        put(&mut cloud, guest(1), change);
        assert!(matches!(cloud.fleet.check()[..], [Fault::WrongState { .. }]), "{:?}", cloud.fleet.check());
    }
}

#[test]
fn an_index_that_is_not_what_the_records_say_is_found() {
    let mut cloud = two_guests();
    cloud.fleet.index.on_hypervisor.clear();
    cloud.fleet.index.due.insert((MonoMs(1), JobId(Uuid::nil())));
    assert_eq!(cloud.fleet.check(), [Fault::Index("guests by hypervisor, jobs by deadline".to_owned())]);
    let mut cloud = two_guests();
    cloud.fleet.board.set_used(host(1), Resources::default());
    assert!(matches!(cloud.fleet.check()[..], [Fault::Index(_)]));
}

#[test]
fn a_host_that_shrank_is_oversold_but_the_books_are_right() {
    let mut cloud = two_guests();
    let mut report = cloud.complete_report(host(1), &[guest(1), guest(2)]);
    report.complete.as_mut().unwrap().total = Resources { cpu: 4, memory: MiB(1024), disk: MiB(100 << 10) };
    cloud.yes(Command::Report(report));
    assert!(matches!(cloud.fleet.oversold()[..], [Fault::Oversold { .. }]));
    assert_eq!(cloud.create(3).unwrap_err().code(), "no_room");
}

#[test]
fn every_fault_reads_as_a_sentence() {
    let faults = [
        Fault::OrphanJob(JobId(Uuid::nil())).to_string(),
        Fault::Index("addresses".to_owned()).to_string(),
        Fault::WrongState { guest: guest(1), state: State::Failed, why: "it holds a place" }.to_string(),
    ];
    assert!(faults[2].ends_with("is failed but it holds a place"), "{faults:?}");
    assert!(faults.iter().all(|text| !text.contains('{')));
}
