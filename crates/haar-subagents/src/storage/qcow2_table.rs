//! The table of snapshots inside a qcow2 file, read by ourselves: no lock is asked and no program started.
//!
//! What has not our prefix is nobody's. Deliberately absent: writing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use haar_api::rpc::libvirt::INNER_PREFIX;

use super::backend::Taken;
use super::qcow2_map::Level1;

/// QEMU's own limits.
const MOST_SNAPSHOTS: u32 = 65_536;
const MOST_EXTRA: usize = 1024;
/// Bytes of an entry before its extra data.
const ENTRY: usize = 40;

/// Whether there is no snapshot at all.
pub(super) fn is_empty(file: &File) -> io::Result<bool> {
    Ok(place(file)?.0 == 0)
}

/// Our snapshots, oldest first.
pub(super) fn read(file: &File) -> io::Result<Vec<Taken>> {
    Ok(entries(file)?.into_iter().map(|(taken, _)| taken).collect())
}

/// Where the tables of a snapshot begin; none when it is gone.
pub(super) fn level1(file: &File, wanted: &Taken) -> io::Result<Option<Level1>> {
    Ok(entries(file)?.into_iter().find(|(taken, _)| taken == wanted).map(|(_, level1)| level1))
}

fn entries(file: &File) -> io::Result<Vec<(Taken, Level1)>> {
    let (count, mut offset) = place(file)?;
    let size_now = bytes_at::<8>(file, 24).map(u64::from_be_bytes)?;
    let mut taken = Vec::new();
    for _ in 0..count {
        let entry = bytes_at::<ENTRY>(file, offset)?;
        let id_length = usize::from(u16_of(&entry[12..14]));
        let name_length = usize::from(u16_of(&entry[14..16]));
        let (seconds, nanoseconds) = (u32_of(&entry[16..20]), u32_of(&entry[20..24]));
        let extra_length = u32_of(&entry[36..40]) as usize;
        if extra_length > MOST_EXTRA {
            return Err(damaged());
        }
        let mut rest = vec![0; extra_length + id_length + name_length];
        file.read_exact_at(&mut rest, offset + ENTRY as u64)?;
        // Version 3 writes the size then; before that a disk with snapshots could not be resized.
        let size_bytes = rest[..extra_length].get(8..16).map_or(size_now, u64_of);
        let id = String::from_utf8_lossy(&rest[extra_length..extra_length + id_length]);
        let name = std::str::from_utf8(&rest[extra_length + id_length..]).ok();
        if let Some(name) = name.and_then(|name| name.strip_prefix(INNER_PREFIX)) {
            let (name, order) = name.split_once('@').unwrap_or((name, ""));
            let found = Taken {
                name: name.to_owned(),
                order: order.to_owned(),
                size_bytes,
                created_s: u64::from(seconds),
                identity: format!("{id}-{seconds}-{nanoseconds}"),
            };
            taken.push((found, (u64_of(&entry[..8]), u32_of(&entry[8..12]))));
        }
        offset += (ENTRY + rest.len()).next_multiple_of(8) as u64;
    }
    Ok(taken)
}

/// How many snapshots there are, and where the table begins.
fn place(file: &File) -> io::Result<(u32, u64)> {
    let head = bytes_at::<12>(file, 60)?;
    let count = u32_of(&head[..4]);
    if count > MOST_SNAPSHOTS { Err(damaged()) } else { Ok((count, u64_of(&head[4..]))) }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its table of snapshots is damaged")
}

fn bytes_at<const N: usize>(file: &File, offset: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn u16_of(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |number, byte| number << 8 | u16::from(*byte))
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
