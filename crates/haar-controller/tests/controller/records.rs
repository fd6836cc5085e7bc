//! Stored records of every kind, as the first release wrote them, still load to the same values.

use std::net::IpAddr;
use std::path::PathBuf;

use haar_controller::events::Ring;
use haar_controller::records::{self, CURSORS, EVENTS, Loaded, META, decode, encode, table};
use haar_core::id::{Kind, SubnetId};
use uuid::Uuid;

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim_end().as_bytes().to_vec()
}

#[test]
fn every_kind_of_record_loads_and_is_written_as_it_was() {
    for kind in Kind::ALL {
        let bytes = golden(&kind.to_string());
        let id = Uuid::from_u128(match kind {
            Kind::Config => 1,
            Kind::Token => 2,
            Kind::Hypervisor => 3,
            Kind::Image => 4,
            Kind::Flavor => 5,
            Kind::Network => 6,
            Kind::Subnet => 7,
            Kind::FwGroup => 8,
            Kind::Guest => 9,
            Kind::Job => 10,
        });
        let loaded = decode(table(kind), id.as_bytes(), &bytes).unwrap_or_else(|error| panic!("{error}"));
        let Loaded::Record(record) = loaded else { panic!("{kind} is a record") };
        assert_eq!(record.kind(), kind);
        let written: serde_json::Value = serde_json::from_slice(&encode(&record)).unwrap();
        let kept: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(written, kept, "{kind}");
    }
}

#[test]
fn what_the_shell_keeps_loads_too() {
    let subnet = Uuid::from_u128(7);
    let address: IpAddr = "10.77.0.12".parse().unwrap();
    let cursor = decode(CURSORS, subnet.as_bytes(), &golden("cursor")).unwrap();
    assert_eq!(cursor, Loaded::Cursor(SubnetId(subnet), address));
    let ring = decode(META, records::RING, &golden("ring")).unwrap();
    assert_eq!(ring, Loaded::Ring(Ring { end: 17, capacity: 100_000 }));
    assert_eq!(EVENTS.0, 20);
}

#[test]
fn a_record_that_does_not_parse_is_named_with_kind_and_id() {
    let id = Uuid::from_u128(9);
    for (value, word) in [
        (&b"{"[..], "EOF"),
        (b"{\"v\":2,\"record\":{}}", "version 2"),
        (b"{\"record\":{}}", "missing field `v`"),
        (b"{\"v\":1,\"record\":{}}", "missing field"),
    ] {
        let message = decode(table(Kind::Guest), id.as_bytes(), value).unwrap_err().to_string();
        assert!(message.contains("guest") && message.contains(&id.to_string()), "{message}");
        assert!(message.contains(word), "{word} in {message}");
    }
    let elsewhere = decode(table(Kind::Guest), Uuid::from_u128(8).as_bytes(), &golden("guest")).unwrap_err();
    assert!(elsewhere.to_string().contains("it says that it is"), "{elsewhere}");
    assert!(
        decode(haar_store::Kind(99), id.as_bytes(), b"{}").unwrap_err().to_string().contains("no such kind")
    );
}

#[test]
fn fields_of_a_later_release_are_ignored() {
    let mut value: serde_json::Value = serde_json::from_slice(&golden("flavor")).unwrap();
    value["record"]["colour"] = "red".into();
    let id = Uuid::from_u128(5);
    assert!(decode(table(Kind::Flavor), id.as_bytes(), value.to_string().as_bytes()).is_ok());
}
