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

use std::io::ErrorKind;
use std::net::IpAddr;
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode, Nic};
use haar_subagents::kit::program;
use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt::nwfilter::NWFilter;

use crate::connection::fault;
use crate::domain;
use crate::tree::Element;

/// What the filters' names begin with.
const PREFIX: &str = "haar-1-";

/// How long ebtables may take to answer.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// What each kind of nic may send, beside what all must not: the words name [`ALLOWED`].
///
/// One chain each, without any below it: libvirt runs ebtables for every chain and every rule, which is what a start
/// with filters waits for.
const FILTERS: [(&str, &[&str]); 4] = [
    ("guest", &["any"]),
    ("guest-v4", &["v4", "v6-local"]),
    ("guest-v6", &["v6", "v6-local"]),
    ("guest-v4-v6", &["v4", "v6", "v6-local"]),
];

/// What no guest may send: another MAC, a DHCP server's answers, a router's advertisements.
const REFUSED: [&str; 5] = [
    "<mac match='no' srcmacaddr='$MAC'/>",
    "<arp match='no' arpsrcmacaddr='$MAC'/>",
    "<ip protocol='udp' srcportstart='67'/>",
    "<ipv6 protocol='udp' srcportstart='547'/>",
    "<ipv6 protocol='icmpv6' type='134'/>",
];

/// What a nic may send, by the words of [`FILTERS`]; nothing else goes out.
const ALLOWED: [(&str, &[&str]); 4] = [
    ("any", &["<mac protocolid='arp'/>", "<mac protocolid='ipv4'/>", "<mac protocolid='ipv6'/>"]),
    (
        "v4",
        &[
            "<arp arpsrcipaddr='$HAAR_V4'/>",
            "<arp arpsrcipaddr='0.0.0.0'/>",
            "<ip srcipaddr='$HAAR_V4'/>",
            "<ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' protocol='udp' srcportstart='68' dstportstart='67'/>",
        ],
    ),
    ("v6", &["<ipv6 srcipaddr='$HAAR_V6'/>"]),
    ("v6-local", &["<ipv6 srcipaddr='fe80::' srcipmask='10'/>", "<ipv6 srcipaddr='::' srcipmask='128'/>"]),
];

/// Whether a nic can be held to its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filtered {
    Yes,
    No,
}

/// Whether this host can filter frames: asked until it can.
#[derive(Debug)]
pub(crate) struct Frames {
    is_test_driver: bool,
    can: OnceLock<()>,
}

impl Frames {
    pub(crate) fn new(is_test_driver: bool) -> Frames {
        Frames { is_test_driver, can: OnceLock::new() }
    }

    /// Whether they can, with the filters known to libvirt.
    ///
    /// # Errors
    /// `unavailable` when that cannot be told, or they should and cannot just now.
    pub(crate) fn can_be_filtered(&self, connection: &Connect) -> Result<bool, Fault> {
        if self.is_test_driver {
            return Ok(false);
        }
        let unavailable = |why: &dyn std::fmt::Display| {
            let message = format!("the guest's frames cannot be filtered just now, ask again: {why}");
            Fault::new(FaultCode::Unavailable, message)
        };
        match self.missing() {
            Ok(None) => {}
            Ok(Some(reason)) => {
                tracing::warn!(reason, "a guest is not held to its MAC and addresses");
                return Ok(false);
            }
            Err(error) => return Err(unavailable(&error)),
        }
        if !is_supported(connection)? {
            tracing::warn!("libvirt has no network filters: a guest is not held to its MAC and addresses");
            return Ok(false);
        }
        ensure(connection).map(|()| true).map_err(|fault| unavailable(&fault))
    }

    /// Why ebtables cannot be used, if so.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(crate) fn missing(&self) -> std::io::Result<Option<String>> {
        if self.is_test_driver || self.can.get().is_some() {
            return Ok(None);
        }
        let missing = probe("ebtables", PROBE_LIMIT)?;
        if missing.is_none() {
            // Another call may have been first, with the same answer.
            let _ = self.can.set(());
        }
        Ok(missing)
    }
}

fn probe(program: &str, limit: Duration) -> std::io::Result<Option<String>> {
    match program::run(program, &["-t", "nat", "-L"], Stdio::null(), limit, || true) {
        Ok(_) => Ok(None),
        Err(program::Error::NotInstalled(_)) => Ok(Some("ebtables is not there: install it".to_owned())),
        Err(program::Error::Failed { words, .. }) => {
            Ok(Some(format!("ebtables does not work with this kernel: {words}")))
        }
        Err(error @ program::Error::TooLong { .. }) => Err(std::io::Error::new(ErrorKind::TimedOut, error)),
        Err(error) => Err(std::io::Error::other(error.in_full())),
    }
}

/// Makes sure that libvirt knows the filters.
///
/// # Errors
/// libvirt's; `unavailable` or `failed` where it has no network filters.
pub(crate) fn ensure(connection: &Connect) -> Result<(), Fault> {
    for (name, allowed) in FILTERS {
        // Those of an earlier call that broke off are there already; two callers at once make the same.
        if !is_known(connection, &format!("{PREFIX}{name}"))? {
            NWFilter::define_xml(connection, &definition(name, allowed))
                .map_err(|e| fault("define the network filter", &e))?;
        }
    }
    Ok(())
}

/// Whether a domain names one of ours by this.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Removes those filters that no domain of the host names. libvirt itself refuses only those of domains that run.
pub(crate) fn prune(connection: &Connect) -> Result<(), Fault> {
    let domains = domain::all(connection)?;
    for (name, _) in FILTERS {
        let name = format!("{PREFIX}{name}");
        if domains.iter().any(|found| found.described.filters.contains(&name)) {
            continue;
        }
        match NWFilter::lookup_by_name(connection, &name).and_then(|filter| filter.undefine()) {
            Ok(()) => tracing::info!(name, "no guest names this filter: removed"),
            Err(error) => tracing::debug!(name, %error, "the filter stays"),
        }
    }
    Ok(())
}

/// Whether this libvirt has network filters at all.
fn is_supported(connection: &Connect) -> Result<bool, Fault> {
    match NWFilter::lookup_by_name(connection, &format!("{PREFIX}{}", FILTERS[0].0)) {
        Err(error) if error.code() == ErrorNumber::NoSupport => Ok(false),
        Err(error) if error.code() != ErrorNumber::NoNwfilter => {
            Err(fault("look for the network filter", &error))
        }
        _ => Ok(true),
    }
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

fn definition(name: &str, allowed: &[&str]) -> String {
    let rule = |action: &str, priority: u32, what: &str| {
        format!("  <rule action='{action}' direction='out' priority='{priority}'>{what}</rule>\n")
    };
    let refused: String = REFUSED.iter().map(|what| rule("drop", 100, what)).collect();
    let is_allowed = |(word, _): &&(&str, &[&str])| allowed.contains(word);
    let allowed = ALLOWED.iter().filter(is_allowed).flat_map(|(_, rules)| *rules);
    let allowed: String = allowed.map(|what| rule("accept", 200, what)).collect();
    let rest = rule("drop", 900, "");
    // libvirt knows a filter by both; a fixed one keeps a second definition from being a conflict.
    let sum =
        name.bytes().fold(0_u128, |sum, byte| (sum << 7 ^ sum >> 40 ^ u128::from(byte)) & 0xffff_ffff_ffff);
    let uuid = uuid::Uuid::from_u128(0x6861_6172_0001_4000_8000_0000_0000_0000 | sum);
    format!(
        "<filter name='{PREFIX}{name}' chain='root'>\n  <uuid>{uuid}</uuid>\n{refused}{allowed}{rest}</filter>\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    #[test]
    fn every_filter_is_valid_and_none_is_taken_for_another() {
        let folder = tempfile::tempdir().unwrap();
        let mut uuids = BTreeSet::new();
        for (name, allowed) in FILTERS {
            assert!(allowed.iter().all(|word| ALLOWED.iter().any(|(known, _)| known == word)), "{name}");
            let xml = definition(name, allowed);
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

    #[tokio::test(flavor = "multi_thread")]
    async fn ebtables_that_is_missing_or_refuses_is_told_from_one_that_hangs() {
        tokio::task::spawn_blocking(told_from_one_that_hangs).await.unwrap();
    }

    fn told_from_one_that_hangs() {
        let limit = Duration::from_secs(60);
        assert_eq!(probe("true", limit).unwrap(), None);
        assert!(probe("/nonexistent/ebtables", limit).unwrap().unwrap().contains("install it"));
        assert!(probe("false", limit).unwrap().unwrap().contains("does not work"));
        let folder = tempfile::tempdir().unwrap();
        let hanging = folder.path().join("ebtables");
        std::fs::write(&hanging, "#!/bin/sh\nexec sleep 1000\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&hanging, mode).unwrap();
        let began = Instant::now();
        let hung = probe(hanging.to_str().unwrap(), Duration::from_millis(100)).unwrap_err();
        assert_eq!(hung.kind(), ErrorKind::TimedOut);
        assert!(began.elapsed() < limit);
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
