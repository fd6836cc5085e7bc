//! Names that come over the wire, checked before any path is made from them.
//!
//! An id is a UUID in its one canonical form and a volume is `guests/<guest id>/disk-<index>`: nothing that
//! passes here can hold a separator or leave the root folder, and no two spellings mean the same thing.

use haar_api::rpc::{Fault, FaultCode};
use uuid::Uuid;

/// Disks a guest may have: `vda` to `vdx`; the letter after is left for the seed disk.
pub(super) const MAX_DISKS: usize = 24;

/// Checks that `id` is a UUID in lower case with hyphens; `what` names it in the refusal.
pub(crate) fn check_id(what: &str, id: &str) -> Result<(), Fault> {
    let canonical = Uuid::try_parse(id).is_ok_and(|uuid| uuid.hyphenated().to_string() == id);
    if canonical {
        return Ok(());
    }
    let shown: String = id.chars().take(64).collect();
    Err(invalid(format!("{what} id {shown:?} is no UUID in lower case with hyphens")))
}

/// What a volume or dataset name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dataset {
    /// `guests/<guest id>`
    Guest(String),
    /// `guests/<guest id>/disk-<index>`
    Disk(String, usize),
}

/// Reads a name of the back end.
pub(super) fn parse_dataset(name: &str) -> Result<Dataset, Fault> {
    let shown: String = name.chars().take(128).collect();
    let unknown =
        || invalid(format!("{shown:?} is no volume; a volume's name is guests/<guest id>/disk-<index>"));
    let mut parts = name.split('/');
    let (Some("guests"), Some(guest)) = (parts.next(), parts.next()) else { return Err(unknown()) };
    check_id("guest", guest).map_err(|_| unknown())?;
    let Some(disk) = parts.next() else { return Ok(Dataset::Guest(guest.to_owned())) };
    let index = disk.strip_prefix("disk-").and_then(|index| index.parse::<usize>().ok());
    match index {
        // Written back and compared, so that "disk-+1" and "disk-01" are not second names of disk 1.
        Some(index) if index < MAX_DISKS && disk == disk_name(index) && parts.next().is_none() => {
            Ok(Dataset::Disk(guest.to_owned(), index))
        }
        _ => Err(unknown()),
    }
}

/// Longest name of a snapshot; a file name holds it with what the back end adds.
const MAX_SNAPSHOT_NAME: usize = 128;

/// Reads `<dataset>[@<name>]`.
pub(super) fn parse_snapshot(id: &str) -> Result<(Dataset, Option<String>), Fault> {
    let (dataset, name) = match id.split_once('@') {
        Some((dataset, name)) => (dataset, Some(name)),
        None => (id, None),
    };
    let unknown = |_| {
        let shown: String = id.chars().take(200).collect();
        invalid(format!(
            "{shown:?} is not a valid dataset; one is guests/<guest id> or guests/<guest id>/disk-<index>, and a \
             snapshot of it ends in @<name>"
        ))
    };
    let dataset = parse_dataset(dataset).map_err(unknown)?;
    name.map(check_snapshot_name).transpose()?;
    Ok((dataset, name.map(ToOwned::to_owned)))
}

/// Checks a snapshot's name, which becomes a part of a file's name and of an address.
pub(super) fn check_snapshot_name(name: &str) -> Result<(), Fault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:.".contains(&byte);
    if (1..=MAX_SNAPSHOT_NAME).contains(&name.len())
        && name.bytes().all(allowed)
        // Lost from an address that a proxy tidies up.
        && !name.bytes().all(|byte| byte == b'.')
    {
        return Ok(());
    }
    let shown: String = name.chars().take(64).collect();
    Err(invalid(format!(
        "{shown:?} is not a valid snapshot name; use 1 to {MAX_SNAPSHOT_NAME} letters, digits, \"_\", \"-\", \":\" \
         and \".\", not only dots"
    )))
}

/// Checks a fence, which is written beside a snapshot's name.
pub(super) fn check_order(order: &str) -> Result<(), Fault> {
    if order.len() <= 40 && order.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Ok(());
    }
    Err(invalid("an order is written as epoch.revision, in digits".to_owned()))
}

/// The id of a dataset's snapshot.
pub(super) fn snapshot_id(dataset: &Dataset, name: &str) -> String {
    match dataset {
        Dataset::Guest(guest) => format!("guests/{guest}@{name}"),
        Dataset::Disk(guest, index) => format!("{}@{name}", volume_name(guest, *index)),
    }
}

/// The back end's name of a guest's disk.
pub(super) fn volume_name(guest: &str, index: usize) -> String {
    format!("guests/{guest}/{}", disk_name(index))
}

/// `disk-<index>`
pub(super) fn disk_name(index: usize) -> String {
    format!("disk-{index}")
}

/// The name the guest's kernel gives the disk: `vda`, `vdb`, …
pub(super) fn device_name(index: usize) -> String {
    let letter = u8::try_from(index).ok().filter(|&index| index < 26).map_or('?', |i| char::from(b'a' + i));
    format!("vd{letter}")
}

fn invalid(message: String) -> Fault {
    Fault::new(FaultCode::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11";

    #[test]
    fn only_a_canonical_uuid_is_an_id() {
        assert!(check_id("guest", ID).is_ok());
        for hostile in [
            "",
            ".",
            "..",
            "../../etc/passwd",
            "/etc/passwd",
            "0B5C0C5E-6F3E-4D69-9A57-1F2D9C0A3C11",
            "0b5c0c5e6f3e4d699a571f2d9c0a3c11",
            "{0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11}",
            "urn:uuid:0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11",
            "0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11/",
            "0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11\0",
            " 0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11",
        ] {
            assert_eq!(check_id("guest", hostile).unwrap_err().code, FaultCode::Invalid, "{hostile:?}");
        }
    }

    #[test]
    fn a_volume_has_one_name() {
        assert_eq!(parse_dataset(&volume_name(ID, 7)).unwrap(), Dataset::Disk(ID.to_owned(), 7));
        assert_eq!(parse_dataset(&format!("guests/{ID}")).unwrap(), Dataset::Guest(ID.to_owned()));
        for hostile in [
            "".to_owned(),
            "guests".to_owned(),
            "guests/..".to_owned(),
            format!("images/{ID}"),
            format!("/guests/{ID}"),
            format!("guests/{ID}/"),
            format!("guests/{ID}/.."),
            format!("guests/{ID}/owner.json"),
            format!("guests/{ID}/disk-"),
            format!("guests/{ID}/disk-+1"),
            format!("guests/{ID}/disk-01"),
            format!("guests/{ID}/disk-24"),
            format!("guests/{ID}/disk-0/x"),
            format!("guests/{ID}/../{ID}/disk-0"),
        ] {
            assert!(parse_dataset(&hostile).is_err(), "{hostile:?}");
        }
    }

    #[test]
    fn a_snapshots_name_leads_nowhere_else() {
        for name in ["a", "snap-1447891200", "A_z:0.9", "-rf", &"x".repeat(128)] {
            assert!(check_snapshot_name(name).is_ok(), "{name:?}");
            let id = format!("guests/{ID}/disk-1@{name}");
            let (dataset, parsed) = parse_snapshot(&id).unwrap();
            assert_eq!((snapshot_id(&dataset, name), parsed.as_deref()), (id, Some(name)));
        }
        for name in
            ["", ".", "..", "a/b", "../x", "a b", "a\0", "a@b", "ä", "a,b", "a\n", "*", &"x".repeat(300)]
        {
            assert_eq!(check_snapshot_name(name).unwrap_err().code, FaultCode::Invalid, "{name:?}");
            assert!(parse_snapshot(&format!("guests/{ID}@{name}")).is_err(), "{name:?}");
        }
        assert_eq!(parse_snapshot(&format!("guests/{ID}")).unwrap().1, None);
        assert!(parse_snapshot("@x").unwrap_err().message.contains("not a valid dataset"));
    }

    #[test]
    fn devices_are_named_by_position() {
        assert_eq!((device_name(0), device_name(23)), ("vda".to_owned(), "vdx".to_owned()));
    }
}
