//! Looking over what a client sends before anything is made of it: guests, image ids, snapshot names.
//!
//! What gets through here goes to sub-agents, into paths and into libvirt's XML; they check and escape for
//! themselves. Refused here is what cannot be meant.

use std::net::IpAddr;

use haar_api::agent::{Disk, Guest};
use haar_api::rpc::Nic;
use haar_core::address::Mac;
use uuid::Uuid;

const MOST_MEMORY_MIB: u64 = 64 << 20;
const MOST_CPUS: u32 = 4096;
const MOST_DISKS: usize = 64;
const MOST_NICS: usize = 32;
const MOST_DISK_MIB: u64 = 1 << 40;
const MOST_TEXT: usize = 4096;
/// Labels of one guest, or of the hypervisor.
pub(crate) const MOST_LABELS: usize = 1000;
/// The kernel's limit on the name of a network device.
const MOST_BRIDGE: usize = 15;

/// The id in its canonical form; None: it is not one.
pub(crate) fn id(text: &str) -> Option<Uuid> {
    let plain = text.strip_prefix("urn:uuid:").unwrap_or(text);
    let id = Uuid::try_parse(plain).ok().filter(|_| plain.len() == 36)?;
    (!id.is_nil()).then_some(id)
}

/// The MACs of a guest's nics, as far as they are any.
pub(crate) fn macs(guest: &Guest) -> impl Iterator<Item = Mac> {
    guest.nics.iter().filter_map(|nic| nic.mac.parse().ok())
}

/// Writes the MACs of a new guest in the one form that sub-agents know; what is none is left to [`guest`].
pub(crate) fn tidy(guest: &mut Guest) {
    for nic in &mut guest.nics {
        if let Ok(mac) = nic.mac.parse::<Mac>() {
            nic.mac = mac.to_string();
        }
    }
}

/// Whether a new guest can be meant.
///
/// # Errors
/// What cannot, and what would.
pub(crate) fn guest(guest: &Guest) -> Result<(), String> {
    is_word("type", &guest.kind, 32)?;
    if !guest.image.is_empty() {
        image_id(&guest.image).map_err(|why| format!("image: {why}"))?;
    }
    let is_vm = !guest.is_container();
    if guest.memory > MOST_MEMORY_MIB || (is_vm && guest.memory == 0) {
        return Err(format!("memory: must be from 1 to {MOST_MEMORY_MIB} MiB"));
    }
    if guest.cpu > MOST_CPUS || (is_vm && guest.cpu == 0) {
        return Err(format!("cpu: must be from 1 to {MOST_CPUS}"));
    }
    if guest.disks.len() > MOST_DISKS || guest.nics.len() > MOST_NICS {
        return Err(format!("at most {MOST_DISKS} disks and {MOST_NICS} nics are possible"));
    }
    if guest.metadata.len() > MOST_LABELS {
        return Err(format!("metadata: at most {MOST_LABELS} labels are possible"));
    }
    for (index, one) in guest.disks.iter().enumerate() {
        disk(one).map_err(|why| format!("disks[{index}].{why}"))?;
    }
    for (index, one) in guest.nics.iter().enumerate() {
        nic(one).map_err(|why| format!("nics[{index}].{why}"))?;
    }
    let macs: Vec<Option<Mac>> = guest.nics.iter().map(|nic| nic.mac.parse().ok()).collect();
    let twice = macs.iter().enumerate().find(|(at, mac)| mac.is_some() && macs[..*at].contains(mac));
    match twice {
        Some((index, _)) => Err(format!("nics[{index}].mac: is that of another nic of the guest")),
        None => Ok(()),
    }
}

fn disk(disk: &Disk) -> Result<(), String> {
    if disk.image.is_empty() && disk.size == 0 {
        return Err("size: must be above 0 where there is no image".to_owned());
    }
    if disk.size > MOST_DISK_MIB {
        return Err(format!("size: must be at most {MOST_DISK_MIB} MiB"));
    }
    if !disk.image.is_empty() {
        image_id(&disk.image).map_err(|why| format!("image: {why}"))?;
    }
    is_word("bus", &disk.bus, 32)?;
    is_word("device", &disk.device, 32)?;
    is_text("volume", &disk.volume)?;
    is_text("source", &disk.source)
}

fn nic(nic: &Nic) -> Result<(), String> {
    is_word("name", &nic.name, 32)?;
    is_word("network", &nic.network, MOST_BRIDGE)?;
    is_word("model", &nic.model, 32)?;
    is_word("device", &nic.device, MOST_BRIDGE)?;
    if !nic.mac.is_empty() && nic.mac.parse::<Mac>().is_err() {
        return Err("mac: is no MAC address; write it as 02:00:00:00:00:01".to_owned());
    }
    for (name, text) in [("address", &nic.address), ("gateway", &nic.gateway)] {
        // `<nil>` is how the seed's controller writes that there is none.
        if !text.is_empty() && text != "<nil>" && text.parse::<IpAddr>().is_err() {
            return Err(format!("{name}: is no IP address"));
        }
    }
    let is_hex =
        nic.netmask.len().is_multiple_of(8) && nic.netmask.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex && nic.netmask != "<nil>" && nic.netmask.parse::<IpAddr>().is_err() {
        return Err("netmask: is no netmask; write it as 255.255.255.0".to_owned());
    }
    let vlans = nic.vlans.as_deref().unwrap_or_default();
    if vlans.len() > 4094 || vlans.iter().any(|tag| *tag > 4094) {
        return Err("vlans: tags go up to 4094".to_owned());
    }
    Ok(())
}

/// Whether this may be an image's id.
///
/// # Errors
/// What it may be.
pub(crate) fn image_id(id: &str) -> Result<(), String> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    if id.is_empty() || id.len() > 128 || !id.bytes().all(is_fine) || id.starts_with(['.', '-']) {
        return Err(
            "must be 1 to 128 letters, digits or `-_.:@`, beginning with a letter or digit".to_owned()
        );
    }
    Ok(())
}

/// Whether this may be a snapshot's name.
///
/// # Errors
/// What it may be.
pub(crate) fn snapshot_name(name: &str) -> Result<(), String> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let only_dots = || name.bytes().all(|byte| byte == b'.');
    if name.len() > 128 || !name.bytes().all(is_fine) || only_dots() {
        return Err(
            "a snapshot's name must be 1 to 128 letters, digits or `-_.:`, and not only dots".to_owned()
        );
    }
    Ok(())
}

fn is_word(name: &str, text: &str, most: usize) -> Result<(), String> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    if text.len() > most || !text.bytes().all(is_fine) {
        return Err(format!("{name}: must be at most {most} letters, digits or `-_.:@`"));
    }
    Ok(())
}

fn is_text(name: &str, text: &str) -> Result<(), String> {
    if text.len() > MOST_TEXT || text.chars().any(char::is_control) {
        return Err(format!("{name}: must be at most {MOST_TEXT} bytes without control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use haar_api::agent::go;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn good() -> Guest {
        Guest {
            memory: 512,
            cpu: 1,
            nics: vec![Nic {
                network: "br0".into(),
                mac: "02:00:00:00:00:01".into(),
                netmask: "ffffff00".into(),
                gateway: "<nil>".into(),
                ..Nic::default()
            }],
            disks: vec![Disk { size: 10, ..Disk::default() }],
            ..Guest::default()
        }
    }

    #[test]
    fn ids_are_dashed_and_may_have_the_urn_prefix() {
        let canonical = "3f2b8c14-5d0e-4a57-9a43-6f1f7a1d2b90";
        for fine in [canonical, "3F2B8C14-5D0E-4A57-9A43-6F1F7A1D2B90", &format!("urn:uuid:{canonical}")] {
            assert_eq!(id(fine).unwrap().to_string(), canonical);
        }
        for bad in [
            "",
            "asdf",
            "3f2b8c145d0e4a579a436f1f7a1d2b90",
            &format!("{{{canonical}}}"),
            &Uuid::nil().to_string(),
        ] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_seeds_controller_sends_is_fine() {
        assert_eq!(guest(&good()), Ok(()));
        assert_eq!(guest(&Guest { kind: "container".into(), ..Guest::default() }), Ok(()));
    }

    #[test]
    fn a08_what_cannot_be_meant_is_refused_with_its_place() {
        type Spoil = fn(&mut Guest);
        let cases: [(&str, Spoil); 14] = [
            ("memory", |guest| guest.memory = 0),
            ("memory", |guest| guest.memory = u64::MAX),
            ("cpu", |guest| guest.cpu = 0),
            ("disks[0].size", |guest| guest.disks[0].size = 0),
            ("disks[0].image", |guest| guest.disks[0].image = "../../etc/passwd".into()),
            ("disks[0].source", |guest| guest.disks[0].source = "a\0b".into()),
            ("disks[0].bus", |guest| guest.disks[0].bus = "<virtio/>".into()),
            ("nics[0].mac", |guest| guest.nics[0].mac = "one".into()),
            ("nics[0].network", |guest| guest.nics[0].network = "$(reboot)".into()),
            ("nics[0].address", |guest| guest.nics[0].address = "10.0.0".into()),
            ("nics[0].vlans", |guest| guest.nics[0].vlans = Some(vec![5000])),
            ("nics[1].mac", |guest| guest.nics.push(guest.nics[0].clone())),
            ("nics[1].mac", |guest| {
                guest.nics.push(Nic { mac: "02-00-00-00-00-01".into(), ..guest.nics[0].clone() });
            }),
            ("metadata", |guest| {
                guest.metadata = (0..=MOST_LABELS).map(|key| (key.to_string(), "v".into())).collect();
            }),
        ];
        for (place, spoil) in cases {
            let mut bad = good();
            spoil(&mut bad);
            let why = guest(&bad).unwrap_err();
            assert!(why.starts_with(place), "{place}: {why}");
        }
    }

    #[test]
    fn macs_are_written_in_one_form_and_what_is_none_is_left_as_it_is() {
        for (given, form) in [
            ("02-00-00-00-00-0A", "02:00:00:00:00:0a"),
            ("0200.0000.000a", "02:00:00:00:00:0a"),
            ("02:00:00:00:00:0A", "02:00:00:00:00:0a"),
            ("", ""),
            ("one", "one"),
        ] {
            let mut given = Guest { nics: vec![Nic { mac: given.into(), ..Nic::default() }], ..good() };
            tidy(&mut given);
            assert_eq!(given.nics[0].mac, form);
        }
        let container = Guest { kind: "container".into(), nics: vec![Nic::default()], ..Guest::default() };
        assert_eq!(guest(&container), Ok(()), "a container's interface gets one of its own");
        let machine = Guest { nics: vec![Nic::default()], ..good() };
        assert_eq!(guest(&machine), Ok(()), "a stage before the one that needs it may fill it in");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let words = prop::sample::select(vec![
            "",
            "<x>",
            "../..",
            "br0",
            "02:00:00:00:00:01",
            "\u{0}",
            "é",
            "10.0.0.1",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            words.prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            let keys = [
                "id", "ID", "type", "nics", "disks", "memory", "cpu", "metadata", "mac", "size", "vlans",
                "haar",
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(prop::sample::select(keys.to_vec()), inner, 0..6)
                    .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_read_or_refused_and_what_is_read_is_written_the_same(value in any_json()) {
            if let Ok(read) = go::from_value::<Guest>(value) {
                let _ = guest(&read);
                let written = go::to_vec(&read).unwrap();
                prop_assert_eq!(go::from_slice::<Guest>(&written).unwrap(), read);
            }
        }
    }

    #[test]
    fn names_with_separators_are_refused() {
        for bad in ["", "a/b", "..", "a@b", "a b", "a\n", &"a".repeat(129)] {
            assert!(snapshot_name(bad).is_err(), "{bad}");
        }
        for fine in ["-r", ".daily"] {
            assert_eq!(snapshot_name(fine), Ok(()), "it always follows an @");
        }
        assert_eq!(snapshot_name("snap-1430000000"), Ok(()));
    }
}
