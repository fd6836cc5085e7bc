//! The host's nftables ruleset as text: what a hypervisor's networks need, and nothing of anybody else's.
//!
//! The whole table is replaced in one transaction each time, so that the text alone says what is in force;
//! the table's name carries the cloud's, so that two instances on one host do not touch each other's.
//!
//! Once routing is on for NAT, whatever the host is told to forward it forwards. So what comes from or goes to
//! the cloud's own bridges is judged: within a bridge all passes, a network with NAT may begin talks with the
//! outside, and everything else is dropped. Traffic of others, bridges that the operator named included, is
//! left to others.
//! Firewall groups are stored but not compiled yet (design §11.19).

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::address::bridge_name;
use crate::id::CloudId;
use crate::order::NetworkOrder;

/// The table's name for this cloud.
pub fn table_name(cloud: CloudId) -> String {
    format!("haar_{}", &cloud.0.simple().to_string()[..8])
}

/// A batch for `nft -f -` that puts exactly these networks' rules in force. Same input, same text.
pub fn compile(cloud: CloudId, networks: &[NetworkOrder]) -> String {
    let table = table_name(cloud);
    // `add` before `delete` makes the delete succeed whether or not the table was there.
    let mut text = format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    let mut ordered: Vec<&NetworkOrder> = networks.iter().collect();
    ordered.sort_by_key(|network| network.id);
    let own: Vec<&NetworkOrder> =
        ordered.iter().copied().filter(|network| network.bridge == bridge_name(cloud, network.id)).collect();
    push_forward(&mut text, &own);
    push_postrouting(&mut text, &ordered);
    text.push_str("}\n");
    text
}

// Writing to a String cannot fail, here and below.
fn push_forward(text: &mut String, own: &[&NetworkOrder]) {
    // A set of no names is none.
    if own.is_empty() {
        return;
    }
    let quoted: Vec<String> = own.iter().map(|network| format!("\"{}\"", network.bridge)).collect();
    let all = quoted.join(", ");
    text.push_str("\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n");
    let _ = writeln!(text, "\t\tiifname != {{ {all} }} oifname != {{ {all} }} accept");
    text.push_str("\t\tct state established,related accept\n");
    for (network, bridge) in own.iter().zip(&quoted) {
        let _ = writeln!(text, "\t\tiifname {bridge} oifname {bridge} accept");
        if network.nat {
            let _ = writeln!(text, "\t\tiifname {bridge} oifname != {{ {all} }} accept");
        }
    }
    text.push_str("\t\tdrop\n\t}\n");
}

fn push_postrouting(text: &mut String, ordered: &[&NetworkOrder]) {
    text.push_str("\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n");
    for network in ordered.iter().filter(|network| network.nat) {
        for range in ranges(network) {
            let family = if range.addr().is_ipv4() { "ip" } else { "ip6" };
            let bridge = &network.bridge;
            let _ = writeln!(
                text,
                "\t\t{family} saddr {range} {family} daddr != {range} oifname != \"{bridge}\" masquerade"
            );
        }
    }
    text.push_str("\t}\n");
}

/// The batch that removes the table of this cloud, whether or not it is there.
pub fn remove(cloud: CloudId) -> String {
    let table = table_name(cloud);
    format!("add table inet {table}\ndelete table inet {table}\n")
}

fn ranges(network: &NetworkOrder) -> Vec<IpNet> {
    let range = |(address, prefix): &(IpAddr, u8)| IpNet::new(*address, *prefix).ok().map(|net| net.trunc());
    let mut ranges: Vec<IpNet> = network.gateways.iter().filter_map(range).collect();
    ranges.sort();
    ranges.dedup();
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const CLOUD: CloudId = CloudId(Uuid::from_u128(0xabcd << 112));

    fn network(id: u128, nat: bool, gateways: &[(&str, u8)]) -> NetworkOrder {
        let id = Uuid::from_u128(id << 96).into();
        NetworkOrder {
            id,
            bridge: bridge_name(CLOUD, id),
            gateways: gateways.iter().map(|(a, p)| (a.parse().unwrap(), *p)).collect(),
            nat,
        }
    }

    #[test]
    fn the_text_is_the_same_whatever_the_order_and_only_networks_with_nat_reach_the_outside() {
        let one = network(1, true, &[("10.77.0.1", 24), ("fd00:77::1", 64)]);
        let two = network(2, false, &[("10.78.0.1", 24)]);
        let text = compile(CLOUD, &[two.clone(), one.clone()]);
        assert_eq!(text, compile(CLOUD, &[one, two]));
        assert_eq!(
            text,
            "add table inet haar_abcd0000\n\
             delete table inet haar_abcd0000\n\
             table inet haar_abcd0000 {\n\
             \tchain forward {\n\
             \t\ttype filter hook forward priority filter; policy accept;\n\
             \t\tiifname != { \"hrabcd-00000001\", \"hrabcd-00000002\" } \
             oifname != { \"hrabcd-00000001\", \"hrabcd-00000002\" } accept\n\
             \t\tct state established,related accept\n\
             \t\tiifname \"hrabcd-00000001\" oifname \"hrabcd-00000001\" accept\n\
             \t\tiifname \"hrabcd-00000001\" oifname != { \"hrabcd-00000001\", \"hrabcd-00000002\" } accept\n\
             \t\tiifname \"hrabcd-00000002\" oifname \"hrabcd-00000002\" accept\n\
             \t\tdrop\n\
             \t}\n\
             \tchain postrouting {\n\
             \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
             \t\tip saddr 10.77.0.0/24 ip daddr != 10.77.0.0/24 oifname != \"hrabcd-00000001\" masquerade\n\
             \t\tip6 saddr fd00:77::/64 ip6 daddr != fd00:77::/64 oifname != \"hrabcd-00000001\" masquerade\n\
             \t}\n}\n"
        );
    }

    #[test]
    fn traffic_of_a_bridge_that_the_operator_named_is_not_judged() {
        let named = NetworkOrder { bridge: "br0".to_owned(), ..network(1, false, &[("192.168.1.1", 24)]) };
        let text = compile(CLOUD, &[named]);
        assert!(!text.contains("chain forward") && !text.contains("br0"), "{text}");
    }
}
