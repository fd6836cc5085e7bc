//! libvirt network filters that hold a guest to its own MAC and its own addresses.
//!
//! Promised: a guest cannot send from another MAC, nor ARP or IP from another address than those it was given; nor
//! answer as a DHCP server or an IPv6 router, nor send any other kind of frame (tagged ones, spanning tree). Addresses
//! are given as parameters, so that nothing is learnt from the guest and one without DHCP is not held up. Link-local
//! IPv6 sources, and what DHCP and duplicate address detection send before there is an address, pass.
//! Deliberately absent: what may come in (firewall groups are the agent's), and IPv6 neighbour advertisements for
//! another's address, which ebtables cannot look into.
//!
//! The filters are shared by every guest of the host and carry a version in their names, for libvirt puts a changed
//! filter into force for running guests at once.

use std::net::IpAddr;
use std::process::Command;

use haar_api::rpc::{Fault, Nic};
use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt::nwfilter::NWFilter;

use crate::connection::fault;
use crate::tree::Element;

/// What the filters' names begin with.
const PREFIX: &str = "haar-1-";

/// Name, chain, and what is in it; those that others refer to come first.
///
/// The names of chains begin with their protocol, as libvirt demands; its table has no room for long ones.
const FILTERS: [(&str, &str, &str); 13] = [
    (
        "mac",
        "mac",
        "<rule action='return' direction='out' priority='300'><mac srcmacaddr='$MAC'/></rule>
  <rule action='drop' direction='out' priority='500'><mac/></rule>",
    ),
    (
        "arp-mac",
        "arp-hm",
        "<rule action='drop' direction='out' priority='300'><arp match='no' arpsrcmacaddr='$MAC'/></rule>",
    ),
    (
        "arp-v4",
        "arp-hi",
        "<rule action='return' direction='out' priority='300'><arp arpsrcipaddr='$HAAR_V4'/></rule>
  <rule action='return' direction='out' priority='400'><arp arpsrcipaddr='0.0.0.0'/></rule>
  <rule action='drop' direction='out' priority='500'/>",
    ),
    ("arp-none", "arp-hn", "<rule action='drop' direction='out' priority='500'/>"),
    (
        "v4-server",
        "ipv4-hs",
        "<rule action='drop' direction='out' priority='300'><ip protocol='udp' srcportstart='67'/></rule>",
    ),
    (
        "v4",
        "ipv4-hi",
        "<rule action='return' direction='out' priority='300'><ip srcipaddr='$HAAR_V4'/></rule>
  <rule action='return' direction='out' priority='400'><ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' \
         protocol='udp' srcportstart='68' dstportstart='67'/></rule>
  <rule action='drop' direction='out' priority='500'/>",
    ),
    ("v4-none", "ipv4-hn", "<rule action='drop' direction='out' priority='500'/>"),
    (
        "v6-server",
        "ipv6-hs",
        "<rule action='drop' direction='out' priority='300'><ipv6 protocol='icmpv6' type='134'/></rule>
  <rule action='drop' direction='out' priority='300'><ipv6 protocol='udp' srcportstart='547'/></rule>",
    ),
    (
        "v6",
        "ipv6-hi",
        "<rule action='return' direction='out' priority='300'><ipv6 srcipaddr='$HAAR_V6'/></rule>
  <rule action='return' direction='out' priority='400'><ipv6 srcipaddr='fe80::' srcipmask='10'/></rule>
  <rule action='return' direction='out' priority='400'><ipv6 srcipaddr='::' srcipmask='128'/></rule>
  <rule action='drop' direction='out' priority='500'/>",
    ),
    (
        "v6-none",
        "ipv6-hn",
        "<rule action='return' direction='out' priority='400'><ipv6 srcipaddr='fe80::' srcipmask='10'/></rule>
  <rule action='return' direction='out' priority='400'><ipv6 srcipaddr='::' srcipmask='128'/></rule>
  <rule action='drop' direction='out' priority='500'/>",
    ),
    ("guest", "root", ""),
    ("guest-v4", "root", "arp-v4 v4 v6-none"),
    ("guest-v4-v6", "root", "arp-v4 v4 v6"),
];

/// A guest with IPv6 addresses alone.
const ONLY_V6: (&str, &str, &str) = ("guest-v6", "root", "arp-none v4-none v6");

/// What every guest is held to.
const EVERY: [&str; 4] = ["mac", "arp-mac", "v4-server", "v6-server"];

/// What comes after the chains: the three protocols pass, nothing else goes out.
const REST: &str = "<rule action='accept' direction='out' priority='900'><mac protocolid='arp'/></rule>
  <rule action='accept' direction='out' priority='900'><mac protocolid='ipv4'/></rule>
  <rule action='accept' direction='out' priority='900'><mac protocolid='ipv6'/></rule>
  <rule action='drop' direction='out' priority='1000'/>";

/// Whether a nic can be held to its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filtered {
    Yes,
    No,
}

/// Why frames cannot be filtered on this host, if so.
pub(crate) fn missing() -> Option<String> {
    match Command::new("ebtables").args(["-t", "nat", "-L"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "ebtables does not work with this kernel: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("ebtables does not run ({error}): install it")),
    }
}

/// Makes sure that libvirt knows the filters.
///
/// # Errors
/// libvirt's; `unavailable` or `failed` where it has no network filters.
pub(crate) fn ensure(connection: &Connect) -> Result<(), Fault> {
    let last = format!("{PREFIX}{}", ONLY_V6.0);
    if is_known(connection, &last)? {
        return Ok(());
    }
    for filter in FILTERS.iter().chain([&ONLY_V6]) {
        // Those of an earlier call that broke off are there already; two callers at once make the same.
        if !is_known(connection, &format!("{PREFIX}{}", filter.0))? {
            NWFilter::define_xml(connection, &definition(filter))
                .map_err(|e| fault("define the network filter", &e))?;
        }
    }
    Ok(())
}

fn is_known(connection: &Connect, name: &str) -> Result<bool, Fault> {
    match NWFilter::lookup_by_name(connection, name) {
        Ok(_) => Ok(true),
        Err(error) if error.code() == ErrorNumber::NoNwfilter => Ok(false),
        Err(error) => Err(fault("look for the network filter", &error)),
    }
}

/// The filter of a nic, as the domain's XML names it. A nic whose address is not known is held to its MAC alone.
pub(crate) fn reference(nic: &Nic) -> Element {
    let addresses = addresses(nic);
    let of = |is_v4: bool| addresses.iter().filter(move |address| address.is_ipv4() == is_v4);
    let name = match (of(true).next(), of(false).next()) {
        (None, None) => "guest",
        (Some(_), None) => "guest-v4",
        (None, Some(_)) => "guest-v6",
        (Some(_), Some(_)) => "guest-v4-v6",
    };
    let parameters = addresses.iter().map(|address| {
        let name = if address.is_ipv4() { "HAAR_V4" } else { "HAAR_V6" };
        Element::new("parameter").with("name", name).with("value", address.to_string())
    });
    Element::new("filterref").with("filter", format!("{PREFIX}{name}")).children(parameters)
}

/// The nic's addresses: one, or several with commas or spaces between, each with or without a prefix's length.
pub(crate) fn addresses(nic: &Nic) -> Vec<IpAddr> {
    let words = nic.address.split([',', ' ']).map(|word| word.split('/').next().unwrap_or_default());
    words.filter_map(|word| word.parse().ok()).collect()
}

fn definition(&(name, chain, inside): &(&str, &str, &str)) -> String {
    let body = if chain == "root" {
        let refer = |name: &str| format!("<filterref filter='{PREFIX}{name}'/>\n  ");
        let chains: String = EVERY.into_iter().chain(inside.split_whitespace()).map(refer).collect();
        chains + REST
    } else {
        inside.to_owned()
    };
    // libvirt knows a filter by both; a fixed one keeps a second definition from being a conflict.
    let uuid = uuid::Uuid::from_u128(
        0x6861_6172_0001_4000_8000_0000_0000_0000
            | name.bytes().fold(0, |sum, byte| sum << 6 ^ u128::from(byte)) & 0xffff_ffff_ffff,
    );
    format!("<filter name='{PREFIX}{name}' chain='{chain}'>\n  <uuid>{uuid}</uuid>\n  {body}\n</filter>\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_filter_is_valid_and_none_is_taken_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut uuids = BTreeSet::new();
        for filter in FILTERS.iter().chain([&ONLY_V6]) {
            let xml = definition(filter);
            let root = Element::parse(&xml).unwrap();
            assert!(uuids.insert(root.text_of("uuid").to_owned()), "{xml}");
            let path = folder.path().join("filter.xml");
            std::fs::write(&path, &xml).unwrap();
            match Command::new("virt-xml-validate").arg(&path).arg("nwfilter").output() {
                Ok(output) => {
                    assert!(output.status.success(), "{xml}{}", String::from_utf8_lossy(&output.stderr));
                }
                Err(error) => assert!(std::env::var_os("HAAR_LIVE").is_none(), "{error}"),
            }
        }
    }

    #[test]
    fn v11_a_nic_is_held_to_all_of_its_addresses() {
        let named = |address: &str| {
            let nic = Nic { address: address.into(), ..Nic::default() };
            let element = reference(&nic);
            let values =
                element.children.iter().map(|c| format!("{}={}", c.attribute("name"), c.attribute("value")));
            (element.attribute("filter").to_owned(), values.collect::<Vec<_>>().join(" "))
        };
        let told = |name: &str, values: &str| (format!("haar-1-{name}"), values.to_owned());
        assert_eq!(named(""), told("guest", ""));
        assert_eq!(named("by hand"), told("guest", ""));
        assert_eq!(named("10.0.0.5/24"), told("guest-v4", "HAAR_V4=10.0.0.5"));
        assert_eq!(named("fd00::5"), told("guest-v6", "HAAR_V6=fd00::5"));
        assert_eq!(
            named("10.0.0.5, 10.0.0.6,fd00::5/64"),
            told("guest-v4-v6", "HAAR_V4=10.0.0.5 HAAR_V4=10.0.0.6 HAAR_V6=fd00::5")
        );
    }
}
