//! The host's nftables ruleset as text: what a hypervisor's networks need, and nothing of anybody else's.
//!
//! The whole table is replaced in one transaction each time, so that the text alone says what is in force;
//! the table's name carries the cloud's, so that two instances on one host do not touch each other's.
//! Firewall groups are stored but not compiled yet (design §11.19).

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

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
    let mut ordered: Vec<&NetworkOrder> = networks.iter().filter(|network| network.nat).collect();
    ordered.sort_by_key(|network| network.id);
    text.push_str("\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n");
    for network in ordered {
        for range in ranges(network) {
            let family = if range.addr().is_ipv4() { "ip" } else { "ip6" };
            let bridge = &network.bridge;
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "\t\t{family} saddr {range} {family} daddr != {range} oifname != \"{bridge}\" masquerade"
            );
        }
    }
    text.push_str("\t}\n}\n");
    text
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

    fn network(id: u128, nat: bool, gateways: &[(&str, u8)]) -> NetworkOrder {
        NetworkOrder {
            id: Uuid::from_u128(id).into(),
            bridge: format!("hr0000-{id:08}"),
            gateways: gateways.iter().map(|(a, p)| (a.parse().unwrap(), *p)).collect(),
            nat,
        }
    }

    #[test]
    fn the_text_is_the_same_whatever_the_order_and_names_only_networks_with_nat() {
        let cloud = CloudId(Uuid::from_u128(0xabcd << 112));
        let one = network(1, true, &[("10.77.0.1", 24), ("fd00:77::1", 64)]);
        let two = network(2, false, &[("10.78.0.1", 24)]);
        let three = network(3, true, &[("10.79.0.1", 16)]);
        let text = compile(cloud, &[three.clone(), two.clone(), one.clone()]);
        assert_eq!(text, compile(cloud, &[one, two, three]));
        assert_eq!(
            text,
            "add table inet haar_abcd0000\n\
             delete table inet haar_abcd0000\n\
             table inet haar_abcd0000 {\n\
             \tchain postrouting {\n\
             \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
             \t\tip saddr 10.77.0.0/24 ip daddr != 10.77.0.0/24 oifname != \"hr0000-00000001\" masquerade\n\
             \t\tip6 saddr fd00:77::/64 ip6 daddr != fd00:77::/64 oifname != \"hr0000-00000001\" masquerade\n\
             \t\tip saddr 10.79.0.0/16 ip daddr != 10.79.0.0/16 oifname != \"hr0000-00000003\" masquerade\n\
             \t}\n}\n"
        );
    }
}
