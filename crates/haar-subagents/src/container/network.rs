//! A container's network: a namespace of its own, and for each interface a pair of ends, one inside, one on a bridge.
//!
//! ```text
//!   bridge of the guest's network ── hv<11 hex digits> ═══ eth0, with the MAC and address given ── namespace
//! ```
//!
//! Made anew at each start, so that there is one way only; what an earlier run left is taken away first. Deliberately
//! absent: VLAN trunks, which are refused, and rules against forged addresses, which the firewall is for.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use haar_api::rpc::{self, Fault, FaultCode, Nic};
use sha2::{Digest as _, Sha256};

use super::folders::Folders;
use super::program;

/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";
/// How the seed's controller writes that there is no address (`mistify-wire` §1.9).
const NONE: &str = "<nil>";
/// Interfaces a container may have.
pub(super) const MAX_NICS: usize = 16;

/// The name of a container's namespace.
pub(super) fn namespace(tag: &str, id: &str) -> String {
    format!("haar-{tag}-{id}")
}

/// The containers that have a namespace.
pub(super) fn ids(tag: &str) -> Vec<String> {
    let prefix = format!("haar-{tag}-");
    let names = fs::read_dir(NAMED)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix(&prefix).map(ToOwned::to_owned)).collect()
}

/// The host's end of an interface.
pub(super) fn device(tag: &str, id: &str, index: usize) -> String {
    let hash = Sha256::digest(format!("{tag}/{id}/{index}"));
    format!("hv{}", &hex::encode(hash)[..11])
}

/// The name of an interface inside.
pub(super) fn inside(nic: &Nic, index: usize) -> String {
    if nic.name.is_empty() { format!("eth{index}") } else { nic.name.clone() }
}

/// Refuses interfaces that cannot be made.
pub(super) fn check(nics: &[Nic]) -> Result<(), Fault> {
    if nics.is_empty() || nics.len() > MAX_NICS {
        return Err(invalid(format!("a container has 1 to {MAX_NICS} nics, not {}", nics.len())));
    }
    for (index, nic) in nics.iter().enumerate() {
        let wrong = |field: &str, what: &str| Err(invalid(format!("nics[{index}].{field} {what}")));
        if !is_name(&nic.network) {
            return wrong("network", "must be the name of a bridge on this host");
        }
        if !is_name(&inside(nic, index)) || inside(nic, index) == "lo" {
            return wrong(
                "name",
                "must be an interface's name of at most 15 letters, digits, \".\", \"-\" and \"_\"",
            );
        }
        if nics[..index].iter().enumerate().any(|(other, one)| inside(one, other) == inside(nic, index)) {
            return wrong("name", "is another interface's too");
        }
        if !nic.mac.is_empty() && !is_mac(&nic.mac) {
            return wrong("mac", "must be six pairs of hex digits with colons, and no group's address");
        }
        // The seed's controller writes the first VLAN where it means none.
        if nic.vlans.as_ref().is_some_and(|tags| !tags.is_empty() && tags.as_slice() != rpc::UNTAGGED) {
            return wrong("vlans", "cannot be had by a container; give it a network of its own instead");
        }
        let address = address(nic).map_err(|why| invalid(format!("nics[{index}].{why}")))?;
        if let Some(gateway) = gateway(nic) {
            match (gateway.parse::<IpAddr>(), address) {
                (Ok(gateway), Some((own, _))) if gateway.is_ipv4() == own.is_ipv4() => {}
                _ => return wrong("gateway", "must be an address of the same kind as nics' address"),
            }
        }
    }
    Ok(())
}

/// The address and the bits of its network; none for an interface without.
fn address(nic: &Nic) -> Result<Option<(IpAddr, u32)>, &'static str> {
    if nic.address.is_empty() || nic.address == NONE {
        return Ok(None);
    }
    let address: IpAddr =
        nic.address.parse().map_err(|_| "address must be an IP address without prefix length")?;
    let wrong = "netmask must be a netmask such as 255.255.255.0, or the bits of the network";
    let most = if address.is_ipv4() { 32 } else { 128 };
    if let Ok(bits) = nic.netmask.parse::<u32>() {
        return if bits <= most { Ok(Some((address, bits))) } else { Err(wrong) };
    }
    let mask = match nic.netmask.parse::<IpAddr>() {
        Ok(IpAddr::V4(mask)) if address.is_ipv4() => u128::from(u32::from(mask)) << 96,
        Ok(IpAddr::V6(mask)) if address.is_ipv6() => u128::from(mask),
        // The seed's form, ffffff00.
        Err(_) if nic.netmask.len() == 8 => {
            u128::from(u32::from_str_radix(&nic.netmask, 16).map_err(|_| wrong)?) << 96
        }
        _ => return Err(wrong),
    };
    if mask.leading_ones() + mask.trailing_zeros() < 128 {
        return Err(wrong);
    }
    Ok(Some((address, mask.leading_ones())))
}

/// The gateway, as it is written; none for an interface without.
fn gateway(nic: &Nic) -> Option<&str> {
    Some(nic.gateway.as_str()).filter(|gateway| !gateway.is_empty() && *gateway != NONE)
}

/// Makes the namespace and its interfaces, whatever was there before. The nics have been checked.
pub(super) fn up(folders: &Folders, tag: &str, id: &str, nics: &[Nic]) -> Result<(), Fault> {
    for nic in nics {
        if !Path::new("/sys/class/net").join(&nic.network).join("bridge").is_dir() {
            let text = format!("there is no bridge {} on this host; make the network first", nic.network);
            return Err(Fault::new(FaultCode::Unavailable, text));
        }
    }
    down(folders, tag, id, nics.len())?;
    let namespace = namespace(tag, id);
    ip(folders, &["netns", "add", &namespace])?;
    ip(folders, &["-n", &namespace, "link", "set", "lo", "up"])?;
    for (index, nic) in nics.iter().enumerate() {
        let made = connect(folders, &namespace, &device(tag, id, index), nic, index);
        if let Err(fault) = made {
            // The fault that matters is the first; what is left is looked for at the next start again.
            let _ = down(folders, tag, id, nics.len());
            return Err(fault);
        }
    }
    Ok(())
}

fn connect(folders: &Folders, namespace: &str, device: &str, nic: &Nic, index: usize) -> Result<(), Fault> {
    let inside = inside(nic, index);
    let mtu = fs::read_to_string(Path::new("/sys/class/net").join(&nic.network).join("mtu"));
    let mtu = mtu.ok().and_then(|mtu| mtu.trim().parse::<u32>().ok()).unwrap_or(1500).to_string();
    let mut add =
        vec!["link", "add", device, "mtu", &mtu, "type", "veth", "peer", "name", &inside, "mtu", &mtu];
    if !nic.mac.is_empty() {
        add.extend(["address", &nic.mac]);
    }
    add.extend(["netns", namespace]);
    ip(folders, &add)?;
    ip(folders, &["link", "set", device, "master", &nic.network, "up"])?;
    if let Ok(Some((address, bits))) = address(nic) {
        let address = format!("{address}/{bits}");
        let mut add = vec!["-n", namespace, "address", "add", &address, "dev", &inside];
        if nic.address.contains(':') {
            add.push("nodad");
        }
        ip(folders, &add)?;
    }
    ip(folders, &["-n", namespace, "link", "set", &inside, "up"])?;
    if let Some(gateway) = gateway(nic) {
        // Further interfaces may have gateways too; the first is the way out.
        // Not 0, which IPv6 takes for its default, 1024.
        let metric = (100 + index).to_string();
        let add = ["route", "add", "default", "via", gateway, "dev", &inside, "metric", &metric];
        ip(folders, &[&["-n", namespace][..], &add[..]].concat())?;
    }
    Ok(())
}

/// Takes the namespace and its interfaces away; what is not there is fine.
pub(super) fn down(folders: &Folders, tag: &str, id: &str, nics: usize) -> Result<(), Fault> {
    for index in 0..nics.max(1) {
        let device = device(tag, id, index);
        let is_there = || Path::new("/sys/class/net").join(&device).exists();
        if is_there()
            && let Err(fault) = ip(folders, &["link", "delete", &device])
            // It goes by itself with its other end.
            && is_there()
        {
            return Err(fault);
        }
    }
    let namespace = namespace(tag, id);
    if Path::new(NAMED).join(&namespace).exists() {
        ip(folders, &["netns", "delete", &namespace])?;
    }
    Ok(())
}

fn ip(folders: &Folders, words: &[&str]) -> Result<(), Fault> {
    program::run(Path::new("ip"), words, folders.work()).map(drop).map_err(|fault| match fault.code {
        FaultCode::Unavailable => Fault::new(fault.code, format!("{}; it is in iproute2", fault.message)),
        _ => fault,
    })
}

fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=15).contains(&name.len()) && name.bytes().all(inner) && name.as_bytes()[0].is_ascii_alphanumeric()
}

fn is_mac(mac: &str) -> bool {
    let pairs: Vec<&str> = mac.split(':').collect();
    let is_pair = |pair: &&str| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
    let first = u8::from_str_radix(pairs[0], 16).unwrap_or(1);
    pairs.len() == 6 && pairs.iter().all(is_pair) && first & 1 == 0
}

fn invalid(message: String) -> Fault {
    Fault::new(FaultCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic() -> Nic {
        Nic {
            network: "br0".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            address: "10.1.2.3".to_owned(),
            netmask: "255.255.255.0".to_owned(),
            gateway: "10.1.2.1".to_owned(),
            ..Nic::default()
        }
    }

    #[test]
    fn a_netmask_has_several_spellings() {
        for (netmask, bits) in [("255.255.255.0", 24), ("24", 24), ("ffffff00", 24), ("0.0.0.0", 0)] {
            let nic = Nic { netmask: netmask.to_owned(), ..nic() };
            assert_eq!(address(&nic).unwrap().unwrap().1, bits, "{netmask}");
        }
        let six = Nic { address: "fd00::2".to_owned(), netmask: "64".to_owned(), ..nic() };
        assert_eq!(address(&six).unwrap().unwrap().1, 64);
    }

    #[test]
    fn hostile_interfaces_are_refused() {
        type Break = fn(&mut Nic);
        let hostile: [(&str, Break); 15] = [
            ("network", |nic| nic.network = String::new()),
            ("network", |nic| nic.network = "../../etc".to_owned()),
            ("network", |nic| nic.network = "-n".to_owned()),
            ("network", |nic| nic.network = "x".repeat(16)),
            ("name", |nic| nic.name = "lo".to_owned()),
            ("name", |nic| nic.name = "a b".to_owned()),
            ("mac", |nic| nic.mac = "01:00:00:00:00:01".to_owned()),
            ("mac", |nic| nic.mac = "+1:00:00:00:00:01".to_owned()),
            ("mac", |nic| nic.mac = "02:00".to_owned()),
            ("address", |nic| nic.address = "10.1.2.3/24 dev lo".to_owned()),
            ("netmask", |nic| nic.netmask = "255.0.255.0".to_owned()),
            ("netmask", |nic| nic.netmask = "33".to_owned()),
            ("gateway", |nic| nic.gateway = "fd00::1".to_owned()),
            ("gateway", |nic| nic.gateway = "-x".to_owned()),
            ("vlans", |nic| nic.vlans = Some(vec![2])),
        ];
        assert_eq!(check(&[nic()]), Ok(()));
        for (field, break_it) in hostile {
            let mut broken = nic();
            break_it(&mut broken);
            let fault = check(&[broken.clone()]).unwrap_err();
            assert!(
                fault.code == FaultCode::Invalid && fault.message.contains(field),
                "{fault} for {broken:?}"
            );
        }
        let of_the_seed = Nic { gateway: "<nil>".to_owned(), vlans: Some(vec![1]), ..nic() };
        assert_eq!((check(std::slice::from_ref(&of_the_seed)), gateway(&of_the_seed)), (Ok(()), None));
        assert!(check(&[]).is_err() && check(&vec![nic(); MAX_NICS + 1]).is_err());
        let twice = Nic { name: "eth0".to_owned(), ..nic() };
        assert!(check(&[nic(), twice]).is_err(), "two of one name");
    }

    #[test]
    fn the_hosts_end_has_a_name_the_kernel_takes() {
        let name = device("0a1b2c3d", "0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11", 3);
        assert!(is_name(&name), "{name}");
    }
}
