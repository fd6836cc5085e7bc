//! The plain nouns: made once, changed under `If-Match`, removed only when nobody uses them.

use super::*;
use crate::address::bridge_name;
use crate::firewall::{Action, FwGroupSpec, FwRule, Protocol};
use crate::id::{FwGroupId, Kind, TokenId};
use crate::token::Role;

const GROUP: FwGroupId = FwGroupId(Uuid::from_u128(0x6f));

fn group_spec(text: &str, of: Option<FwGroupId>) -> FwGroupSpec {
    let rule = FwRule {
        source: None,
        group: of,
        protocol: Protocol::Tcp,
        ports: Some((22, 22)),
        action: Action::Accept,
    };
    FwGroupSpec {
        name: name(text),
        project: Name::default_project(),
        metadata: BTreeMap::new(),
        rules: vec![rule],
    }
}

fn create_all(text: &str, number: u128) -> Vec<Command> {
    let id = Uuid::from_u128(0xaaaa_0000 + number);
    vec![
        Command::CreateHypervisor(id.into(), hypervisor_spec(text)),
        Command::CreateFlavor(id.into(), flavor_spec(text, 1, 512, 1024)),
        Command::CreateImage(id.into(), image_spec(text)),
        Command::CreateNetwork(id.into(), network_spec(text)),
        Command::CreateSubnet(id.into(), subnet_spec(text, NETWORK, "10.7.0"), Gateway::Said),
        Command::CreateFwGroup(id.into(), group_spec(text, None)),
    ]
}

#[test]
fn the_same_create_twice_is_once_and_another_names_the_fields() {
    let mut cloud = Cloud::with_hosts(0);
    for (command, other) in create_all("one", 1).into_iter().zip(create_all("two", 1)) {
        assert_eq!(cloud.yes(command.clone()).answer.outcome, Outcome::Created);
        assert!(cloud.yes(command).changes.is_empty());
        assert!(matches!(cloud.no(other), Refusal::Differs { fields, .. } if fields == ["name"]));
    }
}

#[test]
fn a_name_is_taken_once_per_kind_and_project_and_free_again_after() {
    let mut cloud = Cloud::with_hosts(0);
    for command in create_all("one", 1) {
        cloud.yes(command);
    }
    let mut second = create_all("one", 2);
    second.remove(4);
    for command in second {
        assert!(matches!(cloud.no(command), Refusal::NameTaken { .. }));
    }
    let id: FlavorId = Uuid::from_u128(0xaaaa_0001).into();
    let found = cloud.fleet.find(Kind::Flavor, &Name::default_project(), &name("one"));
    assert_eq!(found, Some(id.0));
    cloud.yes(Command::SetFlavor(id, flavor_spec("uno", 1, 512, 1024), None));
    assert_eq!(cloud.fleet.find(Kind::Flavor, &Name::default_project(), &name("one")), None);
    cloud.yes(Command::CreateFlavor(Uuid::from_u128(9).into(), flavor_spec("one", 1, 512, 1024)));
}

#[test]
fn what_is_in_use_is_not_removed_and_by_whom_is_said() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.yes(Command::CreateFwGroup(GROUP, group_spec("web", None)));
    for number in 1..=5 {
        let spec = GuestSpec { fwgroup: Some(GROUP), ..guest_spec(number) };
        cloud.yes(Command::CreateGuest(guest(number), Box::new(spec), None));
    }
    let used = [
        (Kind::Flavor, FLAVOR.0, 3, 2),
        (Kind::Image, IMAGE.0, 3, 3),
        (Kind::Network, NETWORK.0, 3, 3),
        (Kind::Subnet, SUBNET.0, 3, 2),
        (Kind::FwGroup, GROUP.0, 3, 2),
        (Kind::Hypervisor, host(1).0, 3, 2),
    ];
    for (kind, id, named, others) in used {
        match cloud.no(Command::Delete(kind, id, None)) {
            Refusal::InUse { users, more, .. } => assert_eq!((users.len(), more), (named, others), "{kind}"),
            other => panic!("{other}"),
        }
    }
    for number in 1..=5 {
        cloud.yes(Command::Delete(Kind::Guest, guest(number).0, None));
        cloud.tell(guest(number), Phase::Gone, Power::Absent);
    }
    let order = [Kind::Hypervisor, Kind::FwGroup, Kind::Subnet, Kind::Network, Kind::Flavor, Kind::Image];
    for kind in order {
        let (_, id, ..) = used.into_iter().find(|(used, ..)| *used == kind).unwrap();
        cloud.yes(Command::Delete(kind, id, None));
        assert_eq!(cloud.no(Command::Delete(kind, id, None)).code(), "not_found");
    }
}

#[test]
fn a_failed_guest_still_uses_what_it_names() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.create(1).unwrap();
    cloud.tell(guest(1), failed(), Power::Absent);
    assert_eq!(cloud.no(Command::Delete(Kind::Flavor, FLAVOR.0, None)).code(), "in_use");
    cloud.yes(Command::Delete(Kind::Hypervisor, host(1).0, None));
}

#[test]
fn a_stale_revision_changes_no_noun() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.yes(Command::CreateFwGroup(GROUP, group_spec("web", None)));
    let stale = Some(999);
    let commands = [
        Command::SetHypervisor(host(1), hypervisor_spec("lab1"), stale),
        Command::SetFlavor(FLAVOR, flavor_spec("small", 1, 1024, 1024), stale),
        Command::SetImage(IMAGE, image_spec("debian"), stale),
        Command::SetNetwork(NETWORK, network_spec("lan"), stale),
        Command::SetSubnet(SUBNET, subnet_spec("lan-a", NETWORK, "10.0.0"), stale),
        Command::SetFwGroup(GROUP, group_spec("web", None), stale),
        Command::SetConfig(BTreeMap::new(), stale),
        Command::Delete(Kind::Hypervisor, host(1).0, stale),
        Command::Delete(Kind::Flavor, FLAVOR.0, stale),
        Command::Delete(Kind::Image, IMAGE.0, stale),
        Command::Delete(Kind::Network, NETWORK.0, stale),
        Command::Delete(Kind::Subnet, SUBNET.0, stale),
        Command::Delete(Kind::FwGroup, GROUP.0, stale),
    ];
    for command in commands {
        assert!(matches!(cloud.no(command), Refusal::Stale { expected: 999, .. }));
    }
    let known = cloud.fleet.flavor(FLAVOR).unwrap().revision;
    let decision = cloud.yes(Command::SetFlavor(FLAVOR, flavor_spec("tiny", 1, 512, 1024), Some(known)));
    assert_eq!(cloud.fleet.flavor(FLAVOR).unwrap().revision, decision.fence.revision);
}

#[test]
fn subnets_that_one_hypervisor_would_route_both_never_overlap() {
    let mut cloud = Cloud::with_hosts(0);
    let other = NetworkId(Uuid::from_u128(0x2f));
    let subnet = SubnetId(Uuid::from_u128(0x5c));
    cloud.yes(Command::CreateNetwork(other, network_spec("other")));
    let same_range =
        |network| Command::CreateSubnet(subnet, subnet_spec("again", network, "10.0.0"), Gateway::Said);
    assert_eq!(cloud.no(same_range(NETWORK)).code(), "bad_subnet");
    let words = cloud.no(same_range(other)).to_string();
    assert!(words.contains("`again` (10.0.0.0/24)") && words.contains("`lan-a` (10.0.0.0/24)"), "{words}");
    // Without NAT the gateways alone would be two routes to one range.
    let without_nat = NetworkSpec { nat: false, ..network_spec("other") };
    cloud.yes(Command::SetNetwork(other, without_nat, None));
    assert_eq!(cloud.no(same_range(other)).code(), "bad_subnet");
    let lone = SubnetSpec { gateway: None, ..subnet_spec("again", other, "10.0.0") };
    cloud.yes(Command::CreateSubnet(subnet, lone, Gateway::Said));
    // Nor may they come to overlap by a gateway, by turning NAT on, or by growing.
    let set = Command::SetSubnet(subnet, subnet_spec("again", other, "10.0.0"), None);
    assert_eq!(cloud.no(set).code(), "bad_subnet");
    assert_eq!(cloud.no(Command::SetNetwork(other, network_spec("other"), None)).code(), "bad_subnet");
    let third = SubnetId(Uuid::from_u128(0x5d));
    cloud.yes(Command::CreateSubnet(third, subnet_spec("third", other, "10.3.0"), Gateway::Said));
    let mut grown = subnet_spec("third", other, "10.3.0");
    grown.cidr = "10.0.0.0/14".parse().unwrap();
    assert_eq!(cloud.no(Command::SetSubnet(third, grown, None)).code(), "bad_subnet");
}

#[test]
fn listed_networks_may_overlap_until_one_hypervisor_would_have_both() {
    let mut cloud = Cloud::with_hosts(2);
    let listed = |text| NetworkSpec { reach: Reach::Listed, ..network_spec(text) };
    cloud.yes(Command::SetNetwork(NETWORK, listed("lan"), None));
    let (other, subnet) = (NetworkId(Uuid::from_u128(0x2f)), SubnetId(Uuid::from_u128(0x5c)));
    cloud.yes(Command::CreateNetwork(other, listed("other")));
    cloud.yes(Command::CreateSubnet(subnet, subnet_spec("other-a", other, "10.0.0"), Gateway::Said));
    let list = |number: u128, subnets: &[SubnetId]| {
        let mut spec = hypervisor_spec(&format!("lab{number}"));
        spec.subnets.extend(subnets.iter().map(|id| (*id, String::new())));
        Command::SetHypervisor(host(number), spec, None)
    };
    cloud.yes(list(1, &[SUBNET]));
    cloud.yes(list(2, &[subnet]));
    assert_eq!(cloud.no(list(1, &[SUBNET, subnet])).code(), "bad_subnet");
    assert_eq!(cloud.no(Command::SetNetwork(other, network_spec("other"), None)).code(), "bad_subnet");
    cloud.yes(list(1, &[]));
    cloud.yes(list(1, &[subnet]));
}

#[test]
fn a_subnet_keeps_the_addresses_in_use_and_its_network() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    let spec = || subnet_spec("lan-a", NETWORK, "10.0.0");
    let set = |spec| Command::SetSubnet(SUBNET, spec, None);
    let moved = SubnetSpec { start: "10.0.0.11".parse().unwrap(), ..spec() };
    assert_eq!(cloud.no(set(moved)).code(), "address_unavailable");
    let gateway = SubnetSpec { gateway: Some("10.0.0.10".parse().unwrap()), ..spec() };
    assert_eq!(cloud.no(set(gateway)).code(), "address_unavailable");
    let narrow = || SubnetSpec { end: "10.0.0.12".parse().unwrap(), ..spec() };
    let decision = cloud.yes(set(narrow()));
    assert_eq!(decision.effects, [], "nothing of it concerns a host");
    assert_eq!(cloud.fleet.addresses(SUBNET).total, 3);
    assert_eq!(cloud.fleet.desired_revision(host(1)), cloud.fleet.fence().revision);
    let elsewhere = SubnetSpec { network: NetworkId(Uuid::nil()), ..spec() };
    assert_eq!(cloud.no(set(elsewhere)).code(), "bad_field");
}

#[test]
fn a_host_hears_at_once_what_becomes_of_its_networks() {
    let mut cloud = Cloud::with_hosts(2);
    cloud.running(1);
    let subnet = SubnetId(Uuid::from_u128(0x5c));
    let wakes = [Effect::WakeHypervisor(host(1))];
    let new = Command::CreateSubnet(subnet, subnet_spec("lan-b", NETWORK, "10.3.0"), Gateway::Said);
    assert_eq!(cloud.yes(new).effects, wakes);
    let moved =
        SubnetSpec { gateway: Some("10.3.0.2".parse().unwrap()), ..subnet_spec("lan-b", NETWORK, "10.3.0") };
    assert_eq!(cloud.yes(Command::SetSubnet(subnet, moved.clone(), None)).effects, wakes);
    let renamed = SubnetSpec { name: name("lan-c"), ..moved };
    assert_eq!(cloud.yes(Command::SetSubnet(subnet, renamed, None)).effects, []);
    assert_eq!(cloud.yes(Command::Delete(Kind::Subnet, subnet.0, None)).effects, wakes);
    let without_nat = || NetworkSpec { nat: false, ..network_spec("lan") };
    assert_eq!(cloud.yes(Command::SetNetwork(NETWORK, without_nat(), None)).effects, wakes);
    let labelled = NetworkSpec { metadata: [("a".to_owned(), "b".to_owned())].into(), ..without_nat() };
    assert_eq!(cloud.yes(Command::SetNetwork(NETWORK, labelled, None)).effects, []);
    let mut listing = hypervisor_spec("lab2");
    listing.subnets.insert(SUBNET, "br0".to_owned());
    let listed = cloud.yes(Command::SetHypervisor(host(2), listing, None));
    assert_eq!(listed.effects, [Effect::WakeHypervisor(host(2))]);
}

#[test]
fn a_subnet_of_a_network_with_nat_gets_a_gateway_unless_it_says_its_own() {
    let mut cloud = Cloud::with_hosts(0);
    let (plain, subnet) = (NetworkId(Uuid::from_u128(0x2f)), SubnetId(Uuid::from_u128(0x5c)));
    cloud.yes(Command::CreateNetwork(plain, NetworkSpec { nat: false, ..network_spec("plain") }));
    let bare = |network| SubnetSpec { gateway: None, ..subnet_spec("new", network, "10.9.0") };
    let left = |network| Command::CreateSubnet(subnet, bare(network), Gateway::Left);
    let gateway = |cloud: &Cloud| cloud.fleet.subnet(subnet).unwrap().spec.gateway;
    cloud.yes(left(plain));
    assert_eq!(gateway(&cloud), None);
    // The same request is the same subnet, whatever became of it or of its network since.
    cloud.yes(Command::SetNetwork(plain, network_spec("plain"), None));
    assert!(cloud.yes(left(plain)).changes.is_empty());
    cloud.yes(Command::Delete(Kind::Subnet, subnet.0, None));
    cloud.yes(left(NETWORK));
    assert_eq!(gateway(&cloud), Some("10.9.0.1".parse().unwrap()));
    assert!(cloud.yes(left(NETWORK)).changes.is_empty());
    cloud.yes(Command::Delete(Kind::Subnet, subnet.0, None));
    cloud.yes(Command::CreateSubnet(subnet, bare(NETWORK), Gateway::Said));
    assert_eq!(gateway(&cloud), None);
    cloud.yes(Command::Delete(Kind::Subnet, subnet.0, None));
    let only = "10.9.0.1".parse().unwrap();
    let alone = SubnetSpec { start: only, end: only, ..bare(NETWORK) };
    cloud.yes(Command::CreateSubnet(subnet, alone, Gateway::Left));
    assert_eq!(gateway(&cloud), None, "the only address is a guest's");
}

#[test]
fn a_network_shrinks_to_listed_hosts_only_if_its_guests_are_on_such() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    let listed = || NetworkSpec { reach: Reach::Listed, ..network_spec("lan") };
    assert_eq!(cloud.no(Command::SetNetwork(NETWORK, listed(), None)).code(), "bad_field");
    let mut spec = hypervisor_spec("lab1");
    spec.subnets.insert(SUBNET, String::new());
    cloud.yes(Command::SetHypervisor(host(1), spec, None));
    cloud.yes(Command::SetNetwork(NETWORK, listed(), None));
    assert_eq!(cloud.no(Command::Delete(Kind::Subnet, SUBNET.0, None)).code(), "in_use");
}

#[test]
fn a_listed_bridge_is_shown_and_ordered_by_the_name_its_hypervisor_gave() {
    let mut cloud = Cloud::with_hosts(2);
    let listed = NetworkSpec { reach: Reach::Listed, ..network_spec("lan") };
    cloud.yes(Command::SetNetwork(NETWORK, listed, None));
    let bridges = |cloud: &Cloud| {
        let network = cloud.fleet.network(NETWORK).unwrap();
        cloud.fleet.bridges_of(network).into_iter().collect::<Vec<String>>()
    };
    let own = bridge_name(cloud.fleet.config().cloud, NETWORK);
    assert_eq!(bridges(&cloud), std::slice::from_ref(&own));
    for (number, bridge) in [(1, "br0"), (2, "")] {
        let mut spec = hypervisor_spec(&format!("lab{number}"));
        spec.subnets.insert(SUBNET, bridge.to_owned());
        cloud.yes(Command::SetHypervisor(host(number), spec, None));
    }
    assert_eq!(bridges(&cloud), ["br0".to_owned(), own]);
    let id = cloud.running(1);
    let place = cloud.place(id);
    let network = cloud.fleet.network(NETWORK).unwrap();
    let shown = cloud.fleet.bridge_on(network, cloud.host(place));
    assert_eq!(cloud.fleet.desired(place).unwrap().networks[0].bridge, shown);
}

#[test]
fn a_removed_image_is_told_to_every_hypervisor() {
    let mut cloud = Cloud::with_hosts(1);
    let old = ImageId(Uuid::from_u128(0x1b));
    cloud.yes(Command::CreateImage(old, image_spec("old")));
    assert!(cloud.fleet.desired_revision(host(1)) < cloud.fleet.fence().revision);
    cloud.yes(Command::Delete(Kind::Image, old.0, None));
    assert_eq!(cloud.fleet.desired_revision(host(1)), cloud.fleet.fence().revision);
}

#[test]
fn an_image_keeps_its_format_its_source_and_under_guests_its_bytes() {
    let mut cloud = Cloud::with_hosts(1);
    let raw = ImageSpec { format: Format::Raw, ..image_spec("debian") };
    assert_eq!(cloud.no(Command::SetImage(IMAGE, raw, None)).code(), "bad_field");
    let url = Source::Url { url: "https://example.org/i".into(), sha256: "b".repeat(64) };
    let moved = ImageSpec { source: url.clone(), ..image_spec("debian") };
    assert_eq!(cloud.no(Command::SetImage(IMAGE, moved, None)).code(), "bad_field");
    cloud.running(1);
    let other = ImageData { sha256: "c".repeat(64), file_bytes: 1, virtual_bytes: 1 };
    assert_eq!(cloud.no(Command::ImageReady(IMAGE, other.clone())).code(), "in_use");
    let pinned = ImageId(Uuid::from_u128(0x1c));
    cloud.yes(Command::CreateImage(pinned, ImageSpec { source: url, ..image_spec("pinned") }));
    assert_eq!(cloud.fleet.image(pinned).unwrap().data.as_ref().unwrap().sha256, "b".repeat(64));
    assert_eq!(cloud.no(Command::ImageReady(pinned, other)).code(), "bad_field");
    for (url, sha256) in
        [("ftp://x", "b".repeat(64)), ("http://a b", "b".repeat(64)), ("http://x", "B".repeat(64))]
    {
        let source = Source::Url { url: url.into(), sha256 };
        let spec = ImageSpec { source, ..image_spec("bad") };
        assert_eq!(cloud.no(Command::CreateImage(ImageId(Uuid::nil()), spec)).code(), "bad_field", "{url}");
    }
}

#[test]
fn tokens_are_found_by_hash_and_the_last_administrators_stays() {
    let mut cloud = Cloud::with_hosts(1);
    let id = |number| TokenId(Uuid::from_u128(number));
    let create = |number: u128, text: &str, role, digit: &str| Command::CreateToken {
        id: id(number),
        name: name(text),
        role,
        hash: digit.repeat(64),
    };
    cloud.yes(create(1, "root", Role::Admin, "1"));
    cloud.yes(create(2, "lab1", Role::Agent { hypervisor: host(1) }, "2"));
    assert_eq!(cloud.fleet.token_by_hash(&"2".repeat(64)).unwrap().id, id(2));
    assert_eq!(cloud.no(create(3, "twin", Role::Admin, "1")).code(), "bad_field");
    assert_eq!(cloud.no(create(3, "root", Role::Admin, "3")).code(), "name_taken");
    let nobody = Role::Agent { hypervisor: host(9) };
    assert_eq!(cloud.no(create(3, "lab9", nobody, "3")).code(), "not_found");
    assert_eq!(cloud.no(Command::Delete(Kind::Token, id(1).0, None)).code(), "bad_field");
    cloud.yes(create(3, "second", Role::Admin, "3"));
    cloud.yes(Command::Delete(Kind::Token, id(1).0, None));
    // A hypervisor's tokens go with it.
    cloud.yes(Command::Delete(Kind::Hypervisor, host(1).0, None));
    assert_eq!(cloud.fleet.token_by_hash(&"2".repeat(64)), None);
}

#[test]
fn settings_are_checked_kept_and_removed() {
    let mut cloud = Cloud::with_hosts(1);
    let set = |key: &str, value: &str| Command::SetConfig([(key.into(), value.into())].into(), None);
    assert_eq!(cloud.no(set("job.step_ms", "5")).code(), "bad_setting");
    cloud.yes(set("job.step_ms", "5000"));
    assert_eq!(cloud.fleet.config().job_step_ms(), 5000);
    cloud.yes(set("job.step_ms", ""));
    assert_eq!(cloud.fleet.config().job_step_ms(), STEP_MS);
    assert!(cloud.yes(set("job.step_ms", "")).changes.is_empty());
}

#[test]
fn what_cannot_be_is_refused() {
    let mut cloud = Cloud::with_hosts(1);
    let id = Uuid::from_u128(0xbad);
    let mut bad_bridge = hypervisor_spec("x");
    bad_bridge.subnets.insert(SUBNET, "a bridge; rm".into());
    let mut dead_subnet = hypervisor_spec("x");
    dead_subnet.subnets.insert(SubnetId(id), String::new());
    let ratio = crate::units::Overcommit { cpu: 0, memory: 100, disk: 100 };
    let cases = [
        ("bad_resources", Command::CreateFlavor(id.into(), flavor_spec("x", 0, 512, 1024))),
        ("bad_field", Command::CreateHypervisor(id.into(), bad_bridge)),
        ("not_found", Command::CreateHypervisor(id.into(), dead_subnet)),
        (
            "bad_field",
            Command::CreateHypervisor(
                id.into(),
                HypervisorSpec { overcommit: Some(ratio), ..hypervisor_spec("x") },
            ),
        ),
        (
            "not_found",
            Command::CreateSubnet(id.into(), subnet_spec("x", NetworkId(id), "10.5.0"), Gateway::Said),
        ),
        ("not_found", Command::CreateFwGroup(id.into(), group_spec("x", Some(GROUP)))),
        ("bad_field", Command::Delete(Kind::Job, id, None)),
        ("bad_field", Command::Delete(Kind::Config, id, None)),
        ("not_found", Command::DeclareLost(HypervisorId(id))),
        ("not_found", Command::Act(GuestId(id), GuestAction::Start, None)),
    ];
    for (code, command) in cases {
        let text = format!("{command:?}");
        assert_eq!(cloud.no(command).code(), code, "{text}");
    }
}

#[test]
fn a_flavor_changes_only_the_guests_to_come() {
    let mut cloud = Cloud::with_hosts(1);
    cloud.running(1);
    cloud.yes(Command::SetFlavor(FLAVOR, flavor_spec("small", 2, 2048, 20 << 10), None));
    cloud.running(2);
    assert_eq!(cloud.guest(guest(1)).resources.cpu, 1);
    assert_eq!(cloud.guest(guest(2)).resources.cpu, 2);
    assert_eq!(cloud.fleet.used(host(1)).cpu, 3);
}

#[test]
fn the_capacity_counts_each_once() {
    let mut cloud = Cloud::with_hosts(3);
    cloud.running(1);
    cloud.create(2).unwrap();
    cloud.yes(Command::CreateHypervisor(host(9), hypervisor_spec("lab9")));
    cloud.polls.0.remove(&host(2));
    let spec = HypervisorSpec { cordon: Some(String::new()), ..hypervisor_spec("lab3") };
    cloud.yes(Command::SetHypervisor(host(3), spec, None));
    let env = Env { now: MonoMs(0), wall: WallMs(0), lot: 0, alive: &cloud.polls };
    let capacity = cloud.fleet.capacity(&env);
    let hypervisors = capacity.hypervisors;
    assert_eq!(
        (
            hypervisors.all,
            hypervisors.open,
            hypervisors.silent,
            hypervisors.cordoned,
            hypervisors.never_joined
        ),
        (4, 1, 1, 1, 1)
    );
    assert_eq!((capacity.guests.running, capacity.guests.unknown, capacity.guests.all), (1, 1, 2));
    assert_eq!(
        (capacity.total.cpu, capacity.promised.cpu, capacity.used.cpu, capacity.free.cpu),
        (12, 48, 2, 15)
    );
}

#[test]
fn the_first_decision_of_an_empty_store_founds_the_cloud() {
    let cloud = CloudId(Uuid::from_u128(0xc2));
    let mut fleet = Fleet::empty();
    let decision = Fleet::founding(cloud, WallMs(1));
    assert!(decision.fence > fleet.fence());
    fleet.apply(&decision);
    assert_eq!((fleet.fence(), fleet.config().cloud), (Fence::new(1, 1), cloud));
    assert_eq!(fleet.check(), Vec::new());
}
