//! The host's network on real parts: a network namespace of the test's own, netlink and nft.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

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
        assert!(std::env::var_os("HAAR_LIVE").is_none(), "live tests need root");
        println!("left out: network namespaces need root");
        return;
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
