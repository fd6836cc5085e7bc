//! The host's network on real parts: a network namespace of the test's own, netlink and nft.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../haar/tests/left_out/mod.rs"]
mod left_out;

use std::process::Command;

use haar_agent::net;
use haar_core::id::CloudId;
use haar_core::order::NetworkOrder;
use haar_core::{address, ruleset};
use nix::sched::{CloneFlags, unshare};
use uuid::Uuid;

/// Runs the case on a thread in a network namespace of its own, which ends with the thread.
/// Without root there are no namespaces: said plainly, and left out.
fn in_own_namespace(case: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        return left_out::left_out(&format!("haar-agent {name}"), "network namespaces need root");
    }
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        case();
    })
    .join()
    .unwrap();
}

fn run(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn network(cloud: CloudId, id: u128, nat: bool, gateways: &[(&str, u8)]) -> NetworkOrder {
    let id = Uuid::from_u128(id << 96).into();
    let gateways = gateways.iter().map(|(a, p)| (a.parse().unwrap(), *p)).collect();
    NetworkOrder { id, bridge: address::bridge_name(cloud, id), gateways, nat }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_network_becomes_a_bridge_with_its_gateways_and_nat_twice_over() {
    in_own_namespace(|| {
        let cloud = CloudId(Uuid::from_u128(0xabcd << 112));
        let networks = [
            network(cloud, 0x11, true, &[("10.77.0.1", 24), ("fd00:77::1", 64)]),
            network(cloud, 0x12, false, &[("10.78.0.1", 24)]),
        ];
        for _ in 0..2 {
            block_on(net::ensure(cloud, &networks)).unwrap();
            let addresses = run("ip", &["-brief", "address", "show", &networks[0].bridge]);
            assert!(addresses.contains("10.77.0.1/24") && addresses.contains("fd00:77::1/64"), "{addresses}");
            let rules = run("nft", &["list", "table", "inet", &ruleset::table_name(cloud)]);
            assert_eq!(rules.matches("masquerade").count(), 2, "{rules}");
        }
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");
    });
}

#[test]
fn a_changed_gateway_replaces_the_old_address() {
    in_own_namespace(|| {
        let cloud = CloudId(Uuid::from_u128(0xabcd << 112));
        block_on(net::ensure(cloud, &[network(cloud, 1, false, &[("10.77.0.1", 24)])])).unwrap();
        let changed = network(cloud, 1, false, &[("10.77.0.254", 24)]);
        block_on(net::ensure(cloud, std::slice::from_ref(&changed))).unwrap();
        let addresses = run("ip", &["-brief", "address", "show", &changed.bridge]);
        assert!(addresses.contains("10.77.0.254/24") && !addresses.contains("10.77.0.1/24"), "{addresses}");
    });
}

#[test]
fn pruning_removes_only_bridges_and_rules_of_this_cloud() {
    in_own_namespace(|| {
        let ours = CloudId(Uuid::from_u128(0xabcd << 112));
        let other = CloudId(Uuid::from_u128(0x1234 << 112));
        let mine = network(ours, 1, true, &[("10.77.0.1", 24)]);
        let theirs = network(other, 1, true, &[("10.78.0.1", 24)]);
        block_on(net::ensure(ours, std::slice::from_ref(&mine))).unwrap();
        block_on(net::ensure(other, std::slice::from_ref(&theirs))).unwrap();
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        block_on(net::prune(ours, &[])).unwrap();
        let links = run("ip", &["-brief", "link"]);
        assert!(
            !links.contains(&mine.bridge) && links.contains(&theirs.bridge) && links.contains("br0"),
            "{links}"
        );
        let tables = run("nft", &["list", "tables"]);
        assert!(!tables.contains(&ruleset::table_name(ours)), "{tables}");
        assert!(tables.contains(&ruleset::table_name(other)), "{tables}");
    });
}

#[test]
fn a_bridge_that_something_is_plugged_into_is_not_pruned() {
    in_own_namespace(|| {
        let cloud = CloudId(Uuid::from_u128(0xabcd << 112));
        let network = network(cloud, 1, false, &[("10.77.0.1", 24)]);
        block_on(net::ensure(cloud, std::slice::from_ref(&network))).unwrap();
        run("ip", &["link", "add", "port0", "type", "veth"]);
        run("ip", &["link", "set", "port0", "master", &network.bridge]);
        block_on(net::prune(cloud, &[])).unwrap();
        assert!(run("ip", &["-brief", "link"]).contains(&network.bridge));
        run("ip", &["link", "del", "port0"]);
        block_on(net::prune(cloud, &[])).unwrap();
        assert!(!run("ip", &["-brief", "link"]).contains(&network.bridge));
    });
}

#[test]
fn a_strangers_link_of_that_name_is_left_alone() {
    in_own_namespace(|| {
        let cloud = CloudId(Uuid::from_u128(0xabcd << 112));
        let wanted = network(cloud, 1, false, &[("10.77.0.1", 24)]);
        run("ip", &["link", "add", &wanted.bridge, "type", "veth"]);
        let error = block_on(net::ensure(cloud, std::slice::from_ref(&wanted))).unwrap_err();
        assert!(matches!(error, net::Error::NotABridge(_)), "{error}");
        assert!(run("ip", &["-d", "link", "show", &wanted.bridge]).contains("veth"));
    });
}

fn cloud() -> CloudId {
    CloudId(Uuid::from_u128(0xabcd << 112))
}

#[test]
fn a_bridge_the_operator_named_keeps_its_addresses_and_gets_none() {
    in_own_namespace(|| {
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        run("ip", &["link", "set", "br0", "up"]);
        run("ip", &["address", "add", "192.168.7.10/24", "dev", "br0"]);
        let named =
            NetworkOrder { bridge: "br0".into(), ..network(cloud(), 1, false, &[("192.168.7.1", 24)]) };
        block_on(net::ensure(cloud(), std::slice::from_ref(&named))).unwrap();
        block_on(net::prune(cloud(), &[])).unwrap();
        let addresses = run("ip", &["-brief", "address", "show", "br0"]);
        assert!(addresses.contains("192.168.7.10/24"), "{addresses}");
        assert!(!addresses.contains("192.168.7.1/24"), "{addresses}");
    });
}

#[test]
fn a_bridge_the_operator_named_is_neither_made_nor_switched_on() {
    in_own_namespace(|| {
        let named = NetworkOrder { bridge: "br0".into(), ..network(cloud(), 1, false, &[]) };
        let ensure = || block_on(net::ensure(cloud(), std::slice::from_ref(&named))).unwrap_err();
        let error = ensure();
        assert!(matches!(error, net::Error::NoBridge(_)), "{error}");
        run("ip", &["link", "add", "br0", "type", "bridge"]);
        let error = ensure();
        assert!(matches!(error, net::Error::BridgeDown(_)), "{error}");
        assert!(run("ip", &["-brief", "link", "show", "br0"]).contains("DOWN"));
    });
}

#[test]
fn a_range_the_host_routes_elsewhere_is_refused_and_keeps_no_other_network_waiting() {
    in_own_namespace(|| {
        run("ip", &["link", "add", "lan0", "type", "bridge"]);
        run("ip", &["link", "set", "lan0", "up"]);
        run("ip", &["address", "add", "10.77.0.10/16", "dev", "lan0"]);
        let taken = network(cloud(), 1, true, &[("10.77.3.1", 24)]);
        let free = network(cloud(), 2, true, &[("10.78.0.1", 24)]);
        let error = block_on(net::ensure(cloud(), &[taken.clone(), free.clone()])).unwrap_err();
        assert!(matches!(error, net::Error::RangeTaken { .. }), "{error}");
        let words = error.to_string();
        assert!(words.contains("10.77.0.0/16") && words.contains("lan0"), "{words}");
        let links = run("ip", &["-brief", "address"]);
        assert!(!links.contains(&taken.bridge), "{links}");
        assert!(links.contains(&free.bridge) && links.contains("10.78.0.1/24"), "{links}");
        let rules = run("nft", &["list", "table", "inet", &ruleset::table_name(cloud())]);
        assert!(rules.contains("10.78.0.0/24") && !rules.contains("10.77.3.0/24"), "{rules}");
    });
}

#[test]
fn a_network_in_force_stays_so_when_a_route_comes_later() {
    in_own_namespace(|| {
        let mine = network(cloud(), 1, true, &[("10.77.3.1", 24)]);
        block_on(net::ensure(cloud(), std::slice::from_ref(&mine))).unwrap();
        run("ip", &["link", "add", "lan0", "type", "bridge"]);
        run("ip", &["link", "set", "lan0", "up"]);
        run("ip", &["address", "add", "10.77.0.10/16", "dev", "lan0"]);
        block_on(net::ensure(cloud(), std::slice::from_ref(&mine))).unwrap();
    });
}

#[test]
fn links_with_an_advertised_default_route_keep_listening_when_routing_begins() {
    in_own_namespace(|| {
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", "wan0", "type", "veth", "peer", "name", "router0"]);
        for link in ["wan0", "router0"] {
            run("ip", &["link", "set", link, "up"]);
        }
        run("ip", &["-6", "route", "add", "default", "via", "fe80::1", "dev", "wan0", "proto", "ra"]);
        let accepts = |link: &str| {
            let path = format!("/proc/sys/net/ipv6/conf/{link}/accept_ra");
            std::fs::read_to_string(path).unwrap().trim().to_owned()
        };
        for link in ["wan0", "router0"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/accept_ra"), "1").unwrap();
        }
        let routed = network(cloud(), 1, true, &[("fd00:77::1", 64)]);
        block_on(net::ensure(cloud(), std::slice::from_ref(&routed))).unwrap();
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap().trim(), "1");
        assert_eq!(accepts("wan0"), "2");
        assert_eq!(accepts("router0"), "1", "without such a route nothing is changed");
    });
}

/// A machine of its own behind a veth pair: its end there is `eth0`, the near end is named by the case.
struct Machine {
    name: String,
}

impl Machine {
    fn behind(near: &str, address: &str, gateway: &str) -> Machine {
        // These names are the whole machine's.
        let machine = Machine { name: format!("haar-test-{}-{near}", std::process::id()) };
        let name = &machine.name;
        run("ip", &["netns", "add", name]);
        run("ip", &["link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", name]);
        run("ip", &["link", "set", near, "up"]);
        for words in [
            vec!["link", "set", "lo", "up"],
            vec!["link", "set", "eth0", "up"],
            vec!["address", "add", address, "dev", "eth0"],
            vec!["route", "add", "default", "via", gateway],
        ] {
            run("ip", &[&["-n", name], &words[..]].concat());
        }
        machine
    }

    fn reaches(&self, address: &str) -> bool {
        let words = ["netns", "exec", &self.name, "ping", "-c", "1", "-W", "1", address];
        let ping = Command::new("ip").args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output();
        ping.unwrap().status.success()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be gone with its namespace already.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

#[test]
fn guests_reach_the_outside_and_nobody_outside_reaches_them() {
    in_own_namespace(|| {
        if Command::new("ping").arg("-V").output().is_err() {
            let name = "haar-agent guests_reach_the_outside_and_nobody_outside_reaches_them";
            return left_out::left_out(name, "there is no ping");
        }
        let nat = network(cloud(), 1, true, &[("10.77.0.1", 24)]);
        let lone = network(cloud(), 2, false, &[("10.78.0.1", 24)]);
        block_on(net::ensure(cloud(), &[nat.clone(), lone.clone()])).unwrap();
        let guest = Machine::behind("port1", "10.77.0.5/24", "10.77.0.1");
        let other = Machine::behind("port2", "10.78.0.5/24", "10.78.0.1");
        run("ip", &["link", "set", "port1", "master", &nat.bridge]);
        run("ip", &["link", "set", "port2", "master", &lone.bridge]);
        let outside = Machine::behind("wan0", "192.0.2.9/24", "192.0.2.1");
        run("ip", &["address", "add", "192.0.2.1/24", "dev", "wan0"]);
        let third = Machine::behind("wan1", "198.51.100.9/24", "198.51.100.1");
        run("ip", &["address", "add", "198.51.100.1/24", "dev", "wan1"]);
        assert!(guest.reaches("10.77.0.1"), "its gateway");
        assert!(guest.reaches("192.0.2.9"), "the outside, by NAT");
        assert!(!outside.reaches("10.77.0.5"), "the outside begins no talk with a guest");
        assert!(
            !outside.reaches("10.78.0.5") && !other.reaches("192.0.2.9"),
            "without NAT nothing is routed"
        );
        assert!(!guest.reaches("10.78.0.5"), "networks are apart");
        assert!(third.reaches("192.0.2.9"), "what is not Haar's is not judged");
    });
}

#[test]
fn a_foreign_chain_that_drops_what_is_forwarded_is_named() {
    in_own_namespace(|| {
        block_on(net::ensure(cloud(), &[network(cloud(), 1, true, &[("10.77.0.1", 24)])])).unwrap();
        assert_eq!(net::forward_drops(Some(cloud())).unwrap(), []);
        run("nft", &["add", "table", "inet", "strict"]);
        let chain = "add chain inet strict forward { type filter hook forward priority 0; policy drop; }";
        run("nft", &[chain]);
        let drops = net::forward_drops(Some(cloud())).unwrap();
        assert_eq!(drops.len(), 1, "{drops:?}");
        assert!(drops[0].to_string().contains("chain forward of table inet strict"), "{}", drops[0]);
        for remedy in &drops[0].remedy {
            run("sh", &["-c", remedy]);
        }
        assert_eq!(net::forward_drops(Some(cloud())).unwrap(), []);
    });
}
