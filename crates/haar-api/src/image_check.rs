//! Whether a file may become a base image, decided before QEMU opens it: at an upload by the controller, and
//! again on every hypervisor by the storage sub-agent, by the same rules.
//!
//! Promised: an accepted image names no other file (no backing file, no external data file), is what it is
//! labelled, is not encrypted, and holds every table and cluster it refers to. A check reads at most about as
//! many bytes as the file has.
//! Deliberately absent: refcounts (a base is never written to) and the content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

mod qcow2_header;

pub use qcow2_header::{Header, Unreadable, read as read_qcow2_header};

use qcow2_header::{incompatible, u32_at, u64_at};

/// Largest disk an image may describe: 64 TiB.
const MAX_VIRTUAL_BYTES: u64 = 64 << 40;
/// QEMU opens no larger level 1 table.
const MAX_L1_BYTES: u64 = 32 << 20;
/// QEMU opens no larger refcount table.
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// QEMU's own limits of the table of snapshots.
const MAX_SNAPSHOTS: u32 = 65_536;
const MAX_SNAPSHOT_EXTRA: u64 = 1024;
/// Where a table entry's offset stands.
const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const KNOWN_FEATURES: u64 = incompatible::DIRTY
    | incompatible::CORRUPT
    | incompatible::DATA_FILE
    | incompatible::COMPRESSION
    | incompatible::EXTENDED_L2;

/// Why a file is no base image, each with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// It has no bytes.
    #[error("the file is empty; check its source and import it again")]
    Empty,
    /// It begins as something else.
    #[error("labelled {labelled}, but it is {found}; {remedy}")]
    Mislabelled {
        /// The format told.
        labelled: &'static str,
        /// What it is.
        found: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// It does not begin as qcow2 and is nothing known.
    #[error("labelled qcow2, but it does not begin as one; if it is a raw disk, import it with format raw")]
    NotQcow2,
    /// A version of qcow2 nobody knows.
    #[error("qcow2 version {0} is unknown; convert it with qemu-img convert -O qcow2 and import that")]
    Version(u32),
    /// It leans on a backing file.
    #[error("it has a backing file; flatten it with qemu-img convert -O qcow2 and import that")]
    BackingFile,
    /// It keeps its data in another file.
    #[error("its data is in another file; flatten it with qemu-img convert -O qcow2 and import that")]
    DataFile,
    /// It needs a key.
    #[error("it is encrypted; decrypt it with qemu-img convert and import that")]
    Encrypted,
    /// Whoever wrote it did not close it.
    #[error("it was not closed cleanly; run qemu-img check -r all on the original and import that")]
    Unclean,
    /// It is marked corrupt.
    #[error("it is marked corrupt; run qemu-img check -r all on the original and import that")]
    Corrupt,
    /// It needs these unknown features (bits).
    #[error(
        "it uses unknown features (bits {0:#x}); convert it with qemu-img convert -O qcow2 and import that"
    )]
    Features(u64),
    /// A disk of so many bytes cannot be.
    #[error(
        "its virtual size of {0} bytes is not a multiple of 512 between 512 bytes and 64 TiB; make it anew"
    )]
    VirtualSize(u64),
    /// A field of the header or of a table is not sane.
    #[error("its {0} is not sane, the header is damaged; fetch or make the image anew")]
    Damaged(&'static str),
    /// The file ends before something it refers to.
    #[error("it is truncated: {what} ends at byte {end} and the file has {length}; fetch or make it anew")]
    Truncated {
        /// What lies beyond the end.
        what: &'static str,
        /// The byte it ends at.
        end: u64,
        /// Bytes of the file.
        length: u64,
    },
    /// A raw disk of so many bytes cannot be.
    #[error("its raw size of {0} bytes is not a multiple of 512, so it is truncated; fetch or make it anew")]
    RawSize(u64),
    /// The file system refuses.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
}

/// Beginnings that tell what a file really is: offset, bytes, name, what to do.
const BEGINNINGS: [(usize, &[u8], &str, &str); 16] = {
    const VMDK: &str = "make it qcow2 and import that:  qemu-img convert -f vmdk -O qcow2 FILE NEW.qcow2";
    const VDI: &str = "make it qcow2 and import that:  qemu-img convert -f vdi -O qcow2 FILE NEW.qcow2";
    const VHDX: &str = "make it qcow2 and import that:  qemu-img convert -f vhdx -O qcow2 FILE NEW.qcow2";
    const VHD: &str = "make it qcow2 and import that:  qemu-img convert -f vpc -O qcow2 FILE NEW.qcow2";
    const QED: &str = "make it qcow2 and import that:  qemu-img convert -f qed -O qcow2 FILE NEW.qcow2";
    const UNPACK: &str = "unpack it first and import what is inside";
    const SOURCE: &str = "check the image's source address";
    [
        (0, &qcow2_header::MAGIC, "a qcow2 image", "import it with format qcow2"),
        (0, b"KDMV", "a VMDK image", VMDK),
        (0, b"COWD", "a VMDK image", VMDK),
        (0, b"# Disk DescriptorFile", "a VMDK descriptor", VMDK),
        (64, &[0x7f, 0x10, 0xda, 0xbe], "a VDI image", VDI),
        (0, b"vhdxfile", "a VHDX image", VHDX),
        (0, b"conectix", "a VHD image", VHD),
        (0, b"QED\0", "a QED image", QED),
        (0, b"LUKS\xba\xbe", "an encrypted LUKS volume", "decrypt it and import that"),
        (0, &[0x1f, 0x8b], "compressed with gzip", UNPACK),
        (0, &[0xfd, b'7', b'z', b'X', b'Z', 0], "compressed with xz", UNPACK),
        (0, &[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd", UNPACK),
        (0, b"BZh", "compressed with bzip2", UNPACK),
        (0, b"PK\x03\x04", "a zip archive", UNPACK),
        (0, b"<!DOCTYPE", "a web page", SOURCE),
        (0, b"<html", "a web page", SOURCE),
    ]
};

/// Checks a file that claims to be a raw disk and answers the bytes a clone of it has.
///
/// # Errors
/// [`Flaw::Io`] when it cannot be read; every other [`Flaw`] is the image's own.
pub fn check_raw(file: &File) -> Result<u64, Flaw> {
    let length = length_of(file)?;
    refuse_known_beginning(file, "raw", length)?;
    match length {
        0 => Err(Flaw::Empty),
        length if !length.is_multiple_of(512) => Err(Flaw::RawSize(length)),
        length if length > MAX_VIRTUAL_BYTES => Err(Flaw::VirtualSize(length)),
        length => Ok(length),
    }
}

/// Checks a file that claims to be qcow2 and answers the bytes a clone of it has.
///
/// # Errors
/// [`Flaw::Io`] when it cannot be read; every other [`Flaw`] is the image's own.
pub fn check_qcow2(file: &File) -> Result<u64, Flaw> {
    examine(file).map(|(header, _)| header.size)
}

/// Checks it likewise and answers how many bytes it has at most when it is written out as a raw disk: a cluster that
/// several entries name is written for each of them.
///
/// # Errors
/// As [`check_qcow2`].
pub fn qcow2_data_bytes(file: &File) -> Result<u64, Flaw> {
    examine(file).map(|(header, clusters)| clusters.saturating_mul(header.cluster_bytes()))
}

/// The header of a sound image, and how many clusters of the disk are there.
fn examine(file: &File) -> Result<(Header, u64), Flaw> {
    let length = length_of(file)?;
    if length == 0 {
        return Err(Flaw::Empty);
    }
    let header = match read_qcow2_header(file) {
        Ok(header) => header,
        Err(Unreadable::Magic) => {
            refuse_known_beginning(file, "qcow2", length)?;
            return Err(Flaw::NotQcow2);
        }
        Err(Unreadable::Short) => return Err(Flaw::Truncated { what: "the header", end: 104, length }),
        Err(Unreadable::Version(version)) => return Err(Flaw::Version(version)),
        Err(Unreadable::Io(error)) => return Err(Flaw::Io(error)),
    };
    check_references(&header, file)?;
    check_numbers(&header)?;
    check_tables(&header, length)?;
    check_snapshots(&header, file, length)?;
    let clusters = walk(&header, file, length)?;
    Ok((header, clusters))
}

fn length_of(file: &File) -> Result<u64, Flaw> {
    file.metadata().map(|metadata| metadata.len()).map_err(Flaw::Io)
}

fn refuse_known_beginning(file: &File, labelled: &'static str, length: u64) -> Result<(), Flaw> {
    for (offset, bytes, found, remedy) in BEGINNINGS {
        if length < (offset + bytes.len()) as u64 {
            continue;
        }
        let mut present = vec![0_u8; bytes.len()];
        file.read_exact_at(&mut present, offset as u64).map_err(Flaw::Io)?;
        if present == bytes {
            return Err(Flaw::Mislabelled { labelled, found, remedy });
        }
    }
    Ok(())
}

/// Nothing may lead QEMU to another file or to a key.
fn check_references(header: &Header, file: &File) -> Result<(), Flaw> {
    if header.backing_offset != 0 || header.backing_length != 0 {
        return Err(Flaw::BackingFile);
    }
    if header.encryption != 0 {
        return Err(Flaw::Encrypted);
    }
    let features = header.incompatible;
    if features & !KNOWN_FEATURES != 0 {
        return Err(Flaw::Features(features & !KNOWN_FEATURES));
    }
    if features & incompatible::DATA_FILE != 0 {
        return Err(Flaw::DataFile);
    }
    if features & incompatible::CORRUPT != 0 {
        return Err(Flaw::Corrupt);
    }
    if features & incompatible::DIRTY != 0 {
        return Err(Flaw::Unclean);
    }
    // QEMU has subclusters only in clusters of 16 KiB and more.
    let least = if features & incompatible::EXTENDED_L2 == 0 { 9 } else { 14 };
    if !(least..=21).contains(&header.cluster_bits) {
        return Err(Flaw::Damaged("cluster size"));
    }
    match header.names_data_file(file) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Flaw::DataFile),
        Err(Unreadable::Io(error)) => Err(Flaw::Io(error)),
        Err(_) => Err(Flaw::Damaged("list of header extensions")),
    }
}

fn check_numbers(header: &Header) -> Result<(), Flaw> {
    let size = header.size;
    if size == 0 || !size.is_multiple_of(512) || size > MAX_VIRTUAL_BYTES {
        return Err(Flaw::VirtualSize(size));
    }
    let long_enough = header.version == 2 || (header.length >= 104 && header.length.is_multiple_of(8));
    if !long_enough || u64::from(header.length) > header.cluster_bytes() {
        return Err(Flaw::Damaged("header length"));
    }
    if header.refcount_order > 6 {
        return Err(Flaw::Damaged("refcount width"));
    }
    // 0 is deflate, 1 is zstd; a kind other than 0 must be announced by its feature bit.
    let announced = header.incompatible & incompatible::COMPRESSION != 0;
    if header.compression > 1 || announced != (header.compression != 0) {
        return Err(Flaw::Damaged("compression type"));
    }
    Ok(())
}

fn check_tables(header: &Header, length: u64) -> Result<(), Flaw> {
    let cluster = header.cluster_bytes();
    let covered_by_table = cluster * (cluster / header.l2_entry_bytes());
    let l1_bytes = u64::from(header.l1_entries) * 8;
    if u64::from(header.l1_entries) < header.size.div_ceil(covered_by_table) || l1_bytes > MAX_L1_BYTES {
        return Err(Flaw::Damaged("level 1 table's length"));
    }
    inside("the level 1 table", header.l1_offset, l1_bytes, cluster, length)?;
    let refcount_bytes = u64::from(header.refcount_clusters).saturating_mul(cluster);
    if refcount_bytes == 0 || refcount_bytes > MAX_REFCOUNT_TABLE_BYTES {
        return Err(Flaw::Damaged("refcount table's length"));
    }
    inside("the refcount table", header.refcount_offset, refcount_bytes, cluster, length)
}

/// QEMU reads the table of snapshots when it opens the image, whether anybody wants one or not.
fn check_snapshots(header: &Header, file: &File, length: u64) -> Result<(), Flaw> {
    const ENTRY: u64 = 40;
    const DAMAGED: Flaw = Flaw::Damaged("table of snapshots");
    if header.snapshots > MAX_SNAPSHOTS {
        return Err(DAMAGED);
    }
    let (cluster, mut offset) = (header.cluster_bytes(), header.snapshots_offset);
    for _ in 0..header.snapshots {
        let what = "the table of snapshots";
        inside(what, header.snapshots_offset, (offset - header.snapshots_offset) + ENTRY, cluster, length)?;
        let mut entry = [0_u8; ENTRY as usize];
        file.read_exact_at(&mut entry, offset).map_err(Flaw::Io)?;
        let (level1, level1_bytes) = (u64_at(&entry, 0), u64::from(u32_at(&entry, 8)) * 8);
        if level1_bytes > MAX_L1_BYTES {
            return Err(DAMAGED);
        }
        inside("a snapshot's level 1 table", level1, level1_bytes, cluster, length)?;
        let names = u32_at(&entry, 12);
        let (extra, names) =
            (u64::from(u32_at(&entry, 36)), u64::from(names >> 16) + u64::from(names & 0xffff));
        if extra > MAX_SNAPSHOT_EXTRA {
            return Err(DAMAGED);
        }
        let end = offset + ENTRY + extra + names;
        if end > length {
            return Err(Flaw::Truncated { what, end, length });
        }
        offset = end.next_multiple_of(8);
    }
    Ok(())
}

/// A table must begin on a cluster after the header's and end before the file does.
fn inside(what: &'static str, offset: u64, bytes: u64, cluster: u64, length: u64) -> Result<(), Flaw> {
    if offset < cluster || !offset.is_multiple_of(cluster) {
        return Err(Flaw::Damaged("table of offsets"));
    }
    let end = offset.checked_add(bytes).ok_or(Flaw::Damaged("table of offsets"))?;
    if end > length { Err(Flaw::Truncated { what, end, length }) } else { Ok(()) }
}

/// Every table and cluster the image refers to must lie inside the file. Answers how many clusters of the disk do.
fn walk(header: &Header, file: &File, length: u64) -> Result<u64, Flaw> {
    let mut clusters = 0_u64;
    let cluster = header.cluster_bytes();
    let entries_per_table = cluster / header.l2_entry_bytes();
    // A sound image has no more tables than clusters. Without this limit a few crafted bytes would have one
    // table read millions of times.
    let mut tables_left = length / cluster;
    let mut level1 = vec![0_u8; header.l1_entries as usize * 8];
    file.read_exact_at(&mut level1, header.l1_offset).map_err(Flaw::Io)?;
    let mut level2 = vec![0_u8; usize::try_from(cluster).map_err(|_| Flaw::Damaged("cluster size"))?];
    for (index, entry) in (0_u64..).zip(level1.chunks_exact(8)) {
        let offset = u64_at(entry, 0) & OFFSET_MASK;
        if offset == 0 {
            continue;
        }
        tables_left = tables_left.checked_sub(1).ok_or(Flaw::Damaged("level 1 table"))?;
        inside("a level 2 table", offset, cluster, cluster, length)?;
        file.read_exact_at(&mut level2, offset).map_err(Flaw::Io)?;
        let first_byte = index.saturating_mul(entries_per_table).saturating_mul(cluster);
        clusters = clusters.saturating_add(check_level2(header, &level2, first_byte, length)?);
    }
    Ok(clusters)
}

fn check_level2(header: &Header, table: &[u8], first_byte: u64, length: u64) -> Result<u64, Flaw> {
    let mut clusters = 0;
    let cluster = header.cluster_bytes();
    let entry_bytes = if header.l2_entry_bytes() == 8 { 8 } else { 16 };
    for (index, entry) in (0_u64..).zip(table.chunks_exact(entry_bytes)) {
        let entry = u64_at(entry, 0);
        if entry & COMPRESSED != 0 {
            check_compressed(header, entry, length)?;
            clusters += 1;
            continue;
        }
        let offset = entry & OFFSET_MASK;
        if offset == 0 {
            continue;
        }
        let guest_byte = first_byte.saturating_add(index.saturating_mul(cluster));
        // The disk's last cluster may be shorter, and with extended tables only the used parts of a
        // cluster need to be there.
        let needed = if entry_bytes == 16 { 1 } else { header.size.saturating_sub(guest_byte).min(cluster) };
        inside("a data cluster", offset, needed, cluster, length)?;
        clusters += 1;
    }
    Ok(clusters)
}

/// A compressed cluster names its first byte and its number of 512-byte sectors.
fn check_compressed(header: &Header, entry: u64, length: u64) -> Result<(), Flaw> {
    let offset_bits = 62 - (header.cluster_bits - 8);
    let offset = entry & ((1 << offset_bits) - 1);
    let sectors = ((entry & !(3 << 62)) >> offset_bits) + 1;
    let end = (offset & !511) + sectors * 512;
    // The last sector may be a part of one.
    if offset < header.cluster_bytes() {
        return Err(Flaw::Damaged("table of compressed clusters"));
    }
    if end > length.next_multiple_of(512) {
        return Err(Flaw::Truncated { what: "a compressed cluster", end, length });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
