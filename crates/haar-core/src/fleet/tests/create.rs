//! Making guests: one decision takes place, address, MAC and resources, or names what is in the way.

use super::super::change::Change;
use super::super::command::Blob;
use super::*;
use crate::ipam::AddressCount;
use crate::refusal::Cause;

fn with(number: u128, change: impl FnOnce(&mut GuestSpec)) -> Command {
    let mut spec = guest_spec(number);
    change(&mut spec);
    Command::CreateGuest(guest(number), Box::new(spec), None)
}

fn reasons(refusal: Refusal) -> Vec<(Cause, usize, String, String)> {
    let Refusal::NoRoom { reasons, .. } = refusal else { panic!("{refusal}") };
    reasons.into_iter().map(|r| (r.cause, r.count, r.best.to_string(), r.detail)).collect()
}

#[test]
fn nothing_is_placed_on_a_hypervisor_whose_agent_cannot_see_it_until_it_can() {
    let mut cloud = Cloud::with_hosts(1);
    let hello =
        |inventory: Inventory, total| Command::Hello(Hello { hypervisor: host(1), lot: 7, inventory, total });
    let blind = Inventory {
        accel: Inventory::UNAVAILABLE.to_owned(),
        accel_reason: "libvirtd is gone".to_owned(),
        ..Inventory::default()
    };
    cloud.yes(hello(blind, Resources::default()));
    let Refusal::NoRoom { reasons, .. } = cloud.create(1).unwrap_err() else { panic!("no reasons") };
    assert_eq!((reasons[0].cause, reasons[0].detail.as_str()), (Cause::Blind, "libvirtd is gone"));
    assert_eq!(cloud.host(host(1)).total, total(), "the machine is what it was");
    cloud.yes(hello(Inventory::default(), total()));
    cloud.create(1).unwrap();
}

#[test]
fn a_create_takes_place_address_mac_and_resources_at_once() {
    let mut cloud = Cloud::with_hosts(1);
    let decision = cloud.create(1).unwrap();
    let made = cloud.guest(guest(1));
    let place = made.place.unwrap();
    assert_eq!(decision.answer.outcome, Outcome::Created);
    assert_eq!((made.order, place.life), (decision.fence, decision.fence));
    assert_eq!(place.address.to_string(), "10.0.0.10");
    assert_eq!(made.mac, Mac::of_guest(guest(1), 0));
    assert_eq!(cloud.fleet.used(host(1)).memory, MiB(1024));
    assert_eq!(cloud.fleet.addresses(SUBNET), AddressCount { used: 1, total: 241 });
    assert_eq!(cloud.last_job(guest(1)).status, Status::New);
    assert_eq!(cloud.fleet.desired_revision(host(1)), decision.fence.revision);
    assert!(cloud.effects.contains(&Effect::WakeHypervisor(host(1))));
}

#[test]
fn asking_twice_is_asking_once() {
    let mut cloud = Cloud::with_hosts(1);
    let job = cloud.create(1).unwrap().answer.job;
    let again = cloud.create(1).unwrap();
    assert_eq!((again.answer.outcome, again.answer.job), (Outcome::Same, job));
    assert!(again.changes.is_empty());
    let other = cloud.no(with(1, |spec| {
        spec.start = false;
        spec.kind = "vm".to_owned();
    }));
    assert!(matches!(other, Refusal::Differs { fields, .. } if fields == ["type", "start"]));
}

#[test]
fn the_emptiest_hypervisor_is_taken_and_equals_by_id() {
    let mut cloud = Cloud::with_hosts(3);
    for number in 1..=4 {
        cloud.create(number).unwrap();
    }
    let places: Vec<_> = (1..=4).map(|number| cloud.place(guest(number))).collect();
    assert_eq!(places, [host(1), host(2), host(3), host(1)]);
}

#[test]
fn each_filter_says_why_and_comes_in_its_order() {
    let mut cloud = Cloud::with_hosts(1);
    let no = |cloud: &mut Cloud, change: fn(&mut GuestSpec)| reasons(cloud.no(with(1, change)));
    cloud.yes(Command::CreateHypervisor(host(2), hypervisor_spec("lab2")));
    let spec = HypervisorSpec { cordon: Some("new fans".into()), ..hypervisor_spec("lab1") };
    cloud.yes(Command::SetHypervisor(host(1), spec, None));
    assert_eq!(
        no(&mut cloud, |_| {}),
        [
            (Cause::NeverJoined, 1, "lab2".into(), "its agent has not joined yet".into()),
            (Cause::Cordoned, 1, "lab1".into(), "cordoned: new fans".into()),
        ]
    );
    cloud.polls.0.clear();
    assert_eq!(no(&mut cloud, |_| {})[1].0, Cause::Silent);
    cloud.join(host(2), 1);
    assert_eq!(no(&mut cloud, |_| {})[1].0, Cause::NotReported);
    cloud.complete(host(2), &[]);
    cloud.yes(Command::SetHypervisor(host(1), hypervisor_spec("lab1"), None));
    cloud.polls.0.insert(host(1));
    let label = no(&mut cloud, |spec| {
        spec.require.insert("gpu".into(), "yes".into());
    });
    assert_eq!(label, [(Cause::Label, 2, "lab1".into(), "lacks gpu=yes".into())]);
    let asked = no(&mut cloud, |spec| {
        spec.hypervisor = Some(host(2));
        spec.require.insert("gpu".into(), "yes".into());
    });
    assert_eq!(asked[0], (Cause::NotAsked, 1, "lab1".into(), "`lab2` was asked for".into()));
    assert_eq!(asked[1].0, Cause::Label);
}

#[test]
fn what_is_missing_is_told_in_numbers_of_the_nearest() {
    let mut cloud = Cloud::with_hosts(2);
    cloud.running(1);
    let sizes = [
        ("disk", 1, 1024, 200 << 10, Cause::Disk, "100 GiB free of 100 GiB"),
        ("memory", 1, 8 * 1024 + 1, 1024, Cause::Memory, "8 GiB free of 8 GiB"),
        ("cpu", 17, 1024, 1024, Cause::Cpu, "16 cpu free of 16"),
        ("all", 17, 9 << 10, 200 << 10, Cause::Disk, "100 GiB free of 100 GiB"),
    ];
    for (index, (text, cpu, memory, disk, cause, detail)) in sizes.into_iter().enumerate() {
        let flavor = FlavorId(Uuid::from_u128(0xf000 + index as u128));
        cloud.yes(Command::CreateFlavor(flavor, flavor_spec(text, cpu, memory, disk)));
        let no = reasons(cloud.no(with(2, |spec| spec.flavor = flavor)));
        assert_eq!(no, [(cause, 2, "lab2".to_owned(), detail.to_owned())]);
    }
}

#[test]
fn a_hypervisor_is_filled_to_the_brim_and_not_beyond() {
    let mut cloud = Cloud::with_hosts(1);
    for number in 1..=8 {
        cloud.create(number).unwrap();
    }
    let no = reasons(cloud.create(9).unwrap_err());
    assert_eq!(no, [(Cause::Memory, 1, "lab1".into(), "0 MiB free of 8 GiB".into())]);
    assert_eq!(cloud.fleet.oversold(), []);
}

#[test]
fn overcommit_of_the_hypervisor_goes_before_that_of_the_cluster() {
    let mut cloud = Cloud::with_hosts(2);
    let settings = [("overcommit.memory".to_owned(), "0.5".to_owned())];
    cloud.yes(Command::SetConfig(settings.into(), None));
    let own = crate::units::Overcommit { cpu: 400, memory: 200, disk: 100 };
    let spec = HypervisorSpec { overcommit: Some(own), ..hypervisor_spec("lab2") };
    cloud.yes(Command::SetHypervisor(host(2), spec, None));
    let flavor = FlavorId(Uuid::from_u128(0xf00));
    cloud.yes(Command::CreateFlavor(flavor, flavor_spec("large", 1, 5 << 10, 1024)));
    for number in 1..=3 {
        cloud.yes(with(number, |spec| spec.flavor = flavor));
        assert_eq!(cloud.place(guest(number)), host(2));
    }
    assert_eq!(reasons(cloud.no(with(4, |spec| spec.flavor = flavor)))[0].3, "4 GiB free of 4 GiB");
}

#[test]
fn a_listed_network_is_only_where_its_subnets_are_listed() {
    let mut cloud = Cloud::with_hosts(2);
    let network = NetworkId(Uuid::from_u128(0x2f));
    let subnet = SubnetId(Uuid::from_u128(0x5c));
    let empty = SubnetId(Uuid::from_u128(0x5d));
    let spec = NetworkSpec { reach: Reach::Listed, ..network_spec("racks") };
    cloud.yes(Command::CreateNetwork(network, spec));
    let want = |number| with(number, |spec: &mut GuestSpec| spec.network = network);
    assert_eq!(reasons(cloud.no(want(1)))[0].3, "the network has no subnet");
    cloud.yes(Command::CreateSubnet(subnet, subnet_spec("rack-a", network, "10.1.0"), Gateway::Said));
    assert_eq!(reasons(cloud.no(want(1)))[0].3, "lists none of the network's subnets");
    let listing = |list: &[SubnetId]| HypervisorSpec {
        subnets: list.iter().map(|id| (*id, "br-rack".to_owned())).collect(),
        ..hypervisor_spec("lab2")
    };
    let listed = cloud.yes(Command::SetHypervisor(host(2), listing(&[subnet]), None));
    assert_eq!(cloud.fleet.desired_revision(host(2)), listed.fence.revision, "its bridges are its orders'");
    cloud.yes(want(1));
    assert_eq!(cloud.place(guest(1)), host(2));
    assert_eq!(cloud.fleet.desired(host(2)).unwrap().networks[0].bridge, "br-rack");
    let mut one = subnet_spec("rack-b", network, "10.2.0");
    one.end = one.start;
    cloud.yes(Command::CreateSubnet(empty, one, Gateway::Said));
    cloud.yes(Command::SetHypervisor(host(2), listing(&[subnet, empty]), None));
    cloud.yes(with(2, |spec| {
        spec.network = network;
        spec.subnet = Some(empty);
    }));
    let full = reasons(cloud.no(with(3, |spec| {
        spec.network = network;
        spec.subnet = Some(empty);
    })));
    assert_eq!(full.iter().map(|r| r.0).collect::<Vec<_>>(), [Cause::NoSubnet, Cause::NoAddress]);
    // A subnet that a guest has its address from cannot be taken off its hypervisor.
    let refusal = cloud.no(Command::SetHypervisor(host(2), listing(&[empty]), None));
    assert!(matches!(refusal, Refusal::BadField { field: "subnets", .. }));
}

#[test]
fn an_address_asked_for_is_given_or_refused_with_the_reason() {
    let mut cloud = Cloud::with_hosts(1);
    let ask = |number, text: &'static str| {
        with(number, move |spec: &mut GuestSpec| spec.address = Some(text.parse().unwrap()))
    };
    cloud.yes(ask(1, "10.0.0.20"));
    assert_eq!(cloud.guest(guest(1)).place.unwrap().address.to_string(), "10.0.0.20");
    for (text, why) in [
        ("10.0.0.20", "is held by guest `web-1`"),
        ("10.0.0.1", "lies outside what subnet `lan-a` hands out"),
        ("10.9.0.1", "lies in none of the network's subnets"),
    ] {
        let refusal = cloud.no(ask(2, text)).to_string();
        assert!(refusal.contains(why), "{refusal}");
    }
    // The next one given by itself does not begin after an address somebody asked for.
    cloud.create(3).unwrap();
    assert_eq!(cloud.guest(guest(3)).place.unwrap().address.to_string(), "10.0.0.10");
}

#[test]
fn a_mac_is_unique_in_its_network() {
    let mut cloud = Cloud::with_hosts(1);
    let own = Mac::of_guest(guest(2), 0);
    cloud.yes(with(1, |spec| spec.mac = Some(own)));
    let refusal = cloud.no(with(3, |spec| spec.mac = Some(own)));
    assert!(matches!(refusal, Refusal::MacTaken { holder, .. } if holder == name("web-1")));
    cloud.create(2).unwrap();
    assert_eq!(cloud.guest(guest(2)).mac, Mac::of_guest(guest(2), 1));
}

#[test]
fn a_spec_that_cannot_be_is_refused() {
    let mut cloud = Cloud::with_hosts(1);
    let nowhere = Uuid::from_u128(0xdead);
    type Change = Box<dyn FnOnce(&mut GuestSpec)>;
    let cases: Vec<(&str, Change)> = vec![
        ("bad_field", Box::new(|s| s.kind = "container".into())),
        ("bad_field", Box::new(|s| s.ssh_keys = vec!["ssh-ed25519 AAAA\nssh-rsa BBBB".into()])),
        ("bad_field", Box::new(|s| s.ssh_keys = vec!["command=\"x\" ssh-rsa AAAA".into()])),
        ("bad_field", Box::new(|s| s.ssh_keys = vec!["ssh-rsa".into()])),
        ("bad_field", Box::new(|s| drop(s.metadata.insert(String::new(), "x".into())))),
        ("bad_field", Box::new(|s| s.user_data = Some("A".repeat(64)))),
        ("bad_field", Box::new(|s| s.user_data = Some("a".repeat(64)))),
        ("not_found", Box::new(move |s| s.flavor = FlavorId(nowhere))),
        ("not_found", Box::new(move |s| s.image = Some(ImageId(nowhere)))),
        ("not_found", Box::new(move |s| s.network = NetworkId(nowhere))),
        ("not_found", Box::new(move |s| s.subnet = Some(SubnetId(nowhere)))),
        ("not_found", Box::new(move |s| s.fwgroup = Some(nowhere.into()))),
        ("not_found", Box::new(move |s| s.hypervisor = Some(HypervisorId(nowhere)))),
    ];
    for (code, change) in cases {
        let refusal = cloud.no(with(1, change));
        assert_eq!(refusal.code(), code, "{refusal}");
    }
    cloud.yes(with(1, |s| s.ssh_keys = vec!["ssh-ed25519 AAAAC3Nza+/= me@home".into()]));
    let refusal = cloud.no(with(2, |s| s.name = name("web-1")));
    assert_eq!(refusal.code(), "name_taken");
    assert_eq!(cloud.yes(with(3, |s| s.project = name("other"))).answer.outcome, Outcome::Created);
}

#[test]
fn the_image_must_be_there_and_fit_the_disk() {
    let mut cloud = Cloud::with_hosts(1);
    let image = ImageId(Uuid::from_u128(0x1b));
    cloud.yes(Command::CreateImage(image, image_spec("big")));
    assert_eq!(cloud.no(with(1, |s| s.image = Some(image))).code(), "image_not_ready");
    let large = ImageData { sha256: "b".repeat(64), file_bytes: 9, virtual_bytes: (10 << 30) + 1 };
    cloud.yes(Command::ImageReady(image, large.clone()));
    let refusal = cloud.no(with(1, |s| s.image = Some(image)));
    assert!(matches!(refusal, Refusal::ImageTooLarge { image_mib: 10_241, disk_mib: 10_240, .. }));
    cloud.yes(Command::ImageReady(image, ImageData { virtual_bytes: 10 << 30, ..large }));
    cloud.yes(with(1, |s| s.image = Some(image)));
    let bare = FlavorId(Uuid::from_u128(0xf2));
    cloud.yes(Command::CreateFlavor(bare, FlavorSpec { image: None, ..flavor_spec("bare", 1, 512, 1024) }));
    assert_eq!(cloud.no(with(2, |s| s.flavor = bare)).code(), "no_image");
}

#[test]
fn user_data_is_kept_once_and_dropped_with_its_last_guest() {
    let mut cloud = Cloud::with_hosts(1);
    let hash = "c".repeat(64);
    let blob = |bytes: usize| Blob { sha256: hash.clone(), bytes: vec![7; bytes] };
    let want = |number: u128, blob: Option<Blob>| {
        let mut spec = guest_spec(number);
        spec.user_data = Some(hash.clone());
        Command::CreateGuest(guest(number), Box::new(spec), blob)
    };
    let puts =
        |decision: &Decision| decision.changes.iter().filter(|c| matches!(c, Change::PutBlob(_))).count();
    let drops =
        |decision: &Decision| decision.changes.iter().filter(|c| matches!(c, Change::DropBlob(_))).count();
    assert_eq!(cloud.no(want(1, Some(blob(65_537)))).code(), "bad_field");
    let wrong = Blob { sha256: "d".repeat(64), bytes: vec![1] };
    assert_eq!(cloud.no(want(1, Some(wrong))).code(), "bad_field");
    assert_eq!(puts(&cloud.yes(want(1, Some(blob(65_536))))), 1);
    assert_eq!(puts(&cloud.yes(want(2, Some(blob(3))))), 0);
    cloud.yes(want(3, None));
    for (number, dropped) in [(1, 0), (2, 0), (3, 1)] {
        cloud.yes(Command::Delete(crate::id::Kind::Guest, guest(number).0, None));
        assert_eq!(drops(&cloud.tell(guest(number), Phase::Gone, Power::Absent)), dropped);
    }
    assert!(!cloud.fleet.blob_in_use(&hash));
}

#[test]
fn two_guests_of_one_blob_that_go_in_one_report_drop_it() {
    let mut cloud = Cloud::with_hosts(1);
    let hash = "c".repeat(64);
    for number in 1..=2 {
        let mut spec = guest_spec(number);
        spec.user_data = Some(hash.clone());
        let blob = Blob { sha256: hash.clone(), bytes: vec![1] };
        cloud.yes(Command::CreateGuest(guest(number), Box::new(spec), Some(blob)));
        cloud.yes(Command::Delete(crate::id::Kind::Guest, guest(number).0, None));
    }
    let gone = (1..=2).map(|number| cloud.says(guest(number), Phase::Gone, Power::Absent)).collect();
    let report = cloud.report(host(1), gone);
    let decision = cloud.yes(Command::Report(report));
    assert!(decision.changes.contains(&Change::DropBlob(hash)));
}

#[test]
fn a_failed_create_holds_nothing_and_avoids_that_hypervisor_next_time() {
    let mut cloud = Cloud::with_hosts(2);
    cloud.create(1).unwrap();
    cloud.tell(guest(1), failed(), Power::Absent);
    let failed_guest = cloud.guest(guest(1));
    assert_eq!((failed_guest.state, failed_guest.place), (State::Failed, None));
    assert_eq!(failed_guest.avoid, [host(1)]);
    assert_eq!(cloud.fleet.used(host(1)), Resources::default());
    assert_eq!(cloud.fleet.addresses(SUBNET).used, 0);
    let job = cloud.last_job(guest(1));
    let failure = job.error.as_ref().unwrap();
    assert_eq!((job.status, failure.code.as_str()), (Status::Error, "no_space"));
    assert!(failure.message.contains("disk full"));
    // Put again: the same body places it anew, elsewhere though lab1 is as empty and comes first.
    let again = cloud.create(1).unwrap();
    assert_eq!(again.answer.outcome, Outcome::Changed);
    assert_eq!(cloud.place(guest(1)), host(2));
    cloud.tell(guest(1), failed(), Power::Absent);
    // All have failed: then the failing ones are tried after all.
    cloud.yes(Command::RetryJob(cloud.guest(guest(1)).job.unwrap()));
    assert_eq!(cloud.place(guest(1)), host(1));
}

#[test]
fn a_dry_run_says_what_a_create_then_does() {
    let mut cloud = Cloud::with_hosts(3);
    cloud.running(1);
    cloud.polls.0.remove(&host(3));
    let env = Env { now: MonoMs(0), wall: WallMs(0), lot: 0, alive: &cloud.polls };
    let before = cloud.fleet.clone();
    let candidates = cloud.fleet.candidates(&guest_spec(2), &env).unwrap();
    let names: Vec<_> = candidates.iter().map(|c| (c.name.to_string(), c.verdict.is_ok())).collect();
    assert_eq!(names, [("lab2".into(), true), ("lab1".into(), true), ("lab3".into(), false)]);
    assert_eq!(before.fence(), cloud.fleet.fence());
    cloud.create(2).unwrap();
    assert_eq!(cloud.place(guest(2)), candidates[0].hypervisor);
}

#[test]
fn the_desired_set_is_complete() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    let desired = cloud.fleet.desired(host(1)).unwrap();
    let order = &desired.guests[0];
    assert_eq!((order.prefix, order.gateway), (24, Some("10.0.0.1".parse().unwrap())));
    assert_eq!(order.dns, ["9.9.9.9".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(desired.images[0].url, None);
    let network = &desired.networks[0];
    assert_eq!(network.gateways, [("10.0.0.1".parse().unwrap(), 24)]);
    assert_eq!(network.bridge, crate::address::bridge_name(desired.cloud, NETWORK));
    assert!(network.nat);
    cloud.yes(Command::Delete(crate::id::Kind::Guest, guest(1).0, None));
    assert_eq!(cloud.fleet.desired(host(1)).unwrap().guests[0].goal, Goal::Gone);
    assert_eq!(cloud.fleet.desired(host(9)), None);
}
