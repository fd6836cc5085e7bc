//! Golden files of the XML, each also judged by libvirt's own schema; and what is refused.
//!
//! `HAAR_UPDATE_GOLDEN=1` writes the files anew. `HAAR_LIVE=1` makes a missing `virt-xml-validate` a failure.

#[path = "../../../haar/tests/left_out/mod.rs"]
mod left_out;

use std::path::{Path, PathBuf};
use std::process::Command;

use haar_api::rpc::DiskExtra;

use super::*;
use crate::describe::Described;

const ID: &str = "0b6f0d5c-1d5b-4e0f-9a53-0d9c1f6ad001";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn assert_golden(name: &str, schema: &str, actual: &str) {
    let path = golden(name);
    if std::env::var_os("HAAR_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(actual, expected, "{name} differs; HAAR_UPDATE_GOLDEN=1 writes it anew");
    match Command::new("virt-xml-validate").arg(&path).arg(schema).output() {
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{name} is no valid {schema}: {words}");
        }
        Err(error) => {
            let name = format!("haar-libvirt {name} judged by libvirt's schema");
            left_out::left_out(&name, &format!("virt-xml-validate does not run: {error}"));
        }
    }
}

fn target(accel: Accel) -> Target {
    // More than any guest here has nics.
    let filtered = vec![if accel == Accel::Test { Filtered::No } else { Filtered::Yes }; 4];
    let console = Console {
        socket: "/run/haar/console/g.console".into(),
        log: "/var/lib/haar/log/console/g.log".into(),
    };
    Target { accel, arch: "x86_64", uuid: Some(ID.into()), console, filtered }
}

fn disk(source: &str, format: &str) -> Disk {
    let haar = Some(DiskExtra { format: format.into(), ..DiskExtra::default() });
    Disk { source: source.into(), haar, ..Disk::default() }
}

fn ours() -> Guest {
    let haar = GuestExtra {
        cloud: "cloud-1".into(),
        name: "web".into(),
        order: "1.7".into(),
        life: "1.5".into(),
        claim: "{\"name\":\"web\"}".into(),
        seed: "/var/lib/haar/seeds/g.img".into(),
        ..GuestExtra::default()
    };
    Guest {
        id: ID.into(),
        kind: "kvm".into(),
        memory: 512,
        cpu: 2,
        disks: vec![
            disk("/var/lib/haar/storage/disks/g/disk-0.qcow2", "qcow2"),
            disk("/dev/zvol/p/g-1", "raw"),
        ],
        nics: vec![Nic {
            network: "hb-1".into(),
            mac: "02:00:00:00:00:01".into(),
            model: "e1000".into(),
            address: "10.0.0.5,fd00::5".into(),
            ..Nic::default()
        }],
        haar: Some(haar),
        ..Guest::default()
    }
}

fn foreign() -> Guest {
    let nic = |mac: &str, name: &str| Nic {
        name: name.into(),
        network: "br0".into(),
        mac: mac.into(),
        model: "virtio".into(),
        ..Nic::default()
    };
    Guest {
        id: ID.into(),
        kind: "kvm".into(),
        memory: 256,
        cpu: 1,
        disks: vec![Disk { source: "/dev/zvol/mistify/guests/g/disk-0".into(), ..Disk::default() }],
        nics: vec![nic("02:00:00:00:00:01", "eth0"), nic("02:00:00:00:00:02", "")],
        metadata: [("foo".to_owned(), "bar".to_owned())].into(),
        ..Guest::default()
    }
}

fn hostile() -> Guest {
    let mut guest = ours();
    let words = "<&\"'></haar:claim>]]>";
    guest.metadata = [(format!("k{words}"), format!("v{words}\nnext line"))].into();
    guest.disks[0].source = format!("/disks/{words}");
    if let Some(extra) = &mut guest.haar {
        extra.name = words.into();
        extra.claim = format!("{{\"text\":\"{words}\"}}\n");
        extra.seed = format!("/seeds/{words}");
        extra.provisioned = true;
    }
    guest
}

fn buses() -> Guest {
    let disks = ["virtio", "sata", "scsi"].map(|bus| Disk { bus: bus.into(), ..disk("/d", "raw") });
    Guest { disks: disks.into(), ..ours() }
}

fn diskless() -> Guest {
    Guest { disks: vec![], nics: vec![], ..ours() }
}

#[test]
fn v1_v4_v5_domains_are_as_the_golden_files_and_valid() {
    let cases = [
        ("ours-kvm.xml", ours(), Accel::Kvm),
        ("ours-tcg.xml", ours(), Accel::Tcg),
        ("hostile.xml", hostile(), Accel::Tcg),
        ("diskless.xml", diskless(), Accel::Tcg),
        ("buses.xml", buses(), Accel::Tcg),
        ("foreign.xml", foreign(), Accel::Kvm),
        ("test-driver.xml", ours(), Accel::Test),
    ];
    for (name, guest, accel) in cases {
        assert_golden(name, "domain", &domain(&guest, &target(accel)).unwrap());
    }
}

#[test]
fn networks_are_as_the_golden_files_and_valid() {
    use Switch::{Bridge, OpenVswitch};
    for (name, vlans, switch) in [
        ("network-plain.xml", None, OpenVswitch),
        ("network-access.xml", Some(vec![7]), OpenVswitch),
        ("network-trunk.xml", Some(vec![7, 8]), OpenVswitch),
        ("network-bridge.xml", None, Bridge),
    ] {
        let nic = Nic { vlans, ..foreign().nics[0].clone() };
        assert_golden(name, "network", &network(&nic, switch).unwrap());
    }
    let tagged = Nic { vlans: Some(vec![7]), ..foreign().nics[0].clone() };
    assert_eq!(network(&tagged, Bridge).unwrap_err().code, FaultCode::Invalid);
}

#[test]
fn what_was_written_is_read_back_to_the_letter() {
    for guest in [ours(), hostile(), diskless()] {
        let read = Described::parse(&domain(&guest, &target(Accel::Tcg)).unwrap()).unwrap();
        let (wrote, found) = (guest.haar.unwrap(), read.guest.haar.unwrap());
        let kept = |e: &GuestExtra| {
            (
                e.cloud.clone(),
                e.name.clone(),
                e.order.clone(),
                e.life.clone(),
                e.claim.clone(),
                e.provisioned,
                e.seed.clone(),
            )
        };
        assert_eq!(kept(&found), kept(&wrote));
        assert_eq!(found.console_socket, "/run/haar/console/g.console");
        assert_eq!((read.guest.memory, read.guest.cpu), (512, 2));
        assert_eq!(read.guest.metadata, guest.metadata);
        let sources = |disks: &[Disk]| disks.iter().map(|disk| disk.source.clone()).collect::<Vec<_>>();
        assert_eq!(sources(&read.guest.disks), sources(&guest.disks), "the seed is no disk");
    }
}

#[test]
fn a_strangers_domain_has_no_haar_even_with_an_element_of_the_same_name() {
    let xml = "<domain><name>s</name><metadata><x:guest xmlns:x='urn:other'><x:owner/></x:guest></metadata></domain>";
    let read = Described::parse(xml).unwrap();
    assert_eq!(read.guest.haar, None);
    assert!(!read.written_here);
    let foreign = Described::parse(&domain(&foreign(), &target(Accel::Kvm)).unwrap()).unwrap();
    assert_eq!(foreign.guest.haar, None);
    assert!(foreign.written_here);
    assert_eq!(foreign.networks, ["02:00:00:00:00:01", "02:00:00:00:00:02"]);
}

#[test]
fn an_incomplete_or_hostile_guest_is_invalid() {
    let nic = |mac: &str, network: &str| {
        let nic = Nic { mac: mac.into(), network: network.into(), ..Nic::default() };
        Guest { nics: vec![nic], ..ours() }
    };
    let mut cases: Vec<(&str, Guest)> = vec![
        ("no memory", Guest { memory: 0, ..ours() }),
        ("no cpu", Guest { cpu: 0, ..ours() }),
        ("relative source", Guest { disks: vec![disk("disk.qcow2", "qcow2")], ..ours() }),
        ("unknown format", Guest { disks: vec![disk("/d", "vmdk")], ..ours() }),
        ("no format", Guest { disks: vec![Disk { source: "/d".into(), ..Disk::default() }], ..ours() }),
        ("no mac", nic("", "br0")),
        ("no bridge", nic("02:00:00:00:00:01", "")),
        ("hostile bridge", nic("02:00:00:00:00:01", "b'/><x")),
        ("long bridge", nic("02:00:00:00:00:01", "sixteen-letters-")),
        ("hostile mac", nic("02:00:00:00:00:0'", "br0")),
        ("newline in a source", Guest { disks: vec![disk("/d\n", "raw")], ..ours() }),
    ];
    let mut claim = ours();
    claim.haar.as_mut().unwrap().claim = "\0".into();
    cases.push(("NUL in the claim", claim));
    for (what, guest) in cases {
        let fault = domain(&guest, &target(Accel::Tcg)).unwrap_err();
        assert_eq!(fault.code, FaultCode::Invalid, "{what}");
    }
}

#[test]
fn v6_disks_past_the_alphabet_have_two_letters_and_each_bus_its_own_names() {
    let names: Vec<_> = [0, 25, 26, 51, 52, 701, 702].map(|index| disk_device('v', index)).into();
    assert_eq!(names, ["vda", "vdz", "vdaa", "vdaz", "vdba", "vdzz", "vdaaa"]);
    let on = |bus: &str| Disk { bus: bus.into(), ..disk("/d", "raw") };
    let places = disk_places(&["", "sata", "virtio", "scsi"].map(on)).unwrap();
    let places: Vec<_> = places.iter().map(|(bus, device)| (*bus, device.as_str())).collect();
    assert_eq!(places, [("virtio", "vda"), ("sata", "sda"), ("virtio", "vdb"), ("scsi", "sdb")]);
    assert_eq!(disk_places(&[on("ide'/>")]).unwrap_err().code, FaultCode::Invalid);
}
