//! Where the bytes of a qcow2 file lie, read from its own tables: for snapshots and base images, whose tables are
//! never written again.
//!
//! What is plain is found here; a file with anything else in its header, and a compressed cluster, are QEMU's to
//! read. One level 2 table is kept at a time, for reading goes forward. Deliberately absent: writing, level 2
//! tables with subclusters, external data, encryption, refcounts.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Where a table entry's offset stands.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// What the entry leads to is used once: no snapshot has it.
const COPIED: u64 = 1 << 63;
/// The cluster reads as zeros, wherever it lies; version 3 only.
const ZEROS: u64 = 1;
/// Features that do not change where bytes lie: not closed cleanly, and the way of compression.
const HARMLESS: u64 = 1 | 1 << 3;
/// QEMU opens no larger level 1 table.
const MOST_L1_ENTRIES: u32 = 4 << 20;

/// Level 2 tables that are read to count what is the disk's own; each stands for 512 MiB in clusters of 64 KiB.
const MOST_COUNTED: usize = 1024;

/// What some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// They lie in the file, from this offset on.
    Data(u64),
    Zeros,
    /// This file does not say: they are the backing file's.
    Below,
    /// They are compressed.
    Coded,
}

/// A qcow2 file's view of a disk: its own, or a snapshot's.
#[derive(Debug)]
pub(super) struct Map {
    file: File,
    version: u32,
    cluster_bits: u32,
    level1: Vec<u64>,
    /// The table last read, by its offset.
    level2: (u64, Vec<u8>),
}

/// A level 1 table: its offset, and its entries' number.
pub(super) type Level1 = (u64, u32);

impl Map {
    /// The disk as the file has it now, and its size in bytes. None when the file is not plain.
    pub(super) fn of_disk(file: File) -> io::Result<Option<(Self, u64)>> {
        let head = bytes_at::<48>(&file, 0)?;
        let size_bytes = u64_of(&head[24..32]);
        let level1 = (u64_of(&head[40..48]), u32_of(&head[36..40]));
        Ok(Self::open(file, level1)?.map(|map| (map, size_bytes)))
    }

    /// The disk as this table has it. None when the file is not plain.
    pub(super) fn open(file: File, (offset, entries): Level1) -> io::Result<Option<Self>> {
        let head = bytes_at::<36>(&file, 0)?;
        let (version, cluster_bits) = (u32_of(&head[4..8]), u32_of(&head[20..24]));
        let features = match version {
            3 => u64::from_be_bytes(bytes_at(&file, 72)?),
            _ => 0,
        };
        let plain = &head[..4] == b"QFI\xfb"
            && matches!(version, 2 | 3)
            && features & !HARMLESS == 0
            && u32_of(&head[32..36]) == 0
            && (9..=21).contains(&cluster_bits)
            && entries <= MOST_L1_ENTRIES;
        if !plain {
            return Ok(None);
        }
        let mut table = vec![0; entries as usize * 8];
        file.read_exact_at(&mut table, offset)?;
        let level1 = table.chunks_exact(8).map(u64_of).collect();
        Ok(Some(Map { file, version, cluster_bits, level1, level2: (0, Vec::new()) }))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// What stands at this offset of the disk, and for how many bytes, at most `most`.
    pub(super) fn run(&mut self, offset: u64, most: u64) -> io::Result<(Run, u64)> {
        let cluster = 1_u64 << self.cluster_bits;
        let inside = offset % cluster;
        let first = self.cluster(offset >> self.cluster_bits)?;
        let mut length = cluster - inside;
        while length < most {
            let next = self.cluster((offset + length) >> self.cluster_bits)?;
            let goes_on = match (first, next) {
                (Run::Data(first), Run::Data(next)) => next == first + inside + length,
                (first, next) => first == next,
            };
            if !goes_on {
                break;
            }
            length += cluster;
        }
        let run = match first {
            Run::Data(at) => Run::Data(at + inside),
            other => other,
        };
        Ok((run, length.min(most)))
    }

    /// Bytes in clusters that no snapshot has: what is written to them again needs no room. Of a disk with very much
    /// of it, less.
    pub(super) fn own_bytes(&self) -> io::Result<u64> {
        let cluster = 1_u64 << self.cluster_bits;
        let mut table = vec![0; 1 << self.cluster_bits];
        let mut clusters = 0_u64;
        for entry in self.level1.iter().filter(|entry| **entry & COPIED != 0).take(MOST_COUNTED) {
            self.file.read_exact_at(&mut table, self.aligned(entry & OFFSET)?)?;
            let is_own = |entry: u64| entry & COPIED != 0 && entry & COMPRESSED == 0 && entry & OFFSET != 0;
            clusters += 1 + table.chunks_exact(8).filter(|entry| is_own(u64_of(entry))).count() as u64;
        }
        Ok(clusters.saturating_mul(cluster))
    }

    fn cluster(&mut self, number: u64) -> io::Result<Run> {
        let entries = 1_u64 << (self.cluster_bits - 3);
        let index = usize::try_from(number / entries).unwrap_or(usize::MAX);
        let table = self.level1.get(index).map_or(0, |entry| entry & OFFSET);
        if table == 0 {
            return Ok(Run::Below);
        }
        if self.level2.0 != table {
            let mut level2 = std::mem::take(&mut self.level2).1;
            level2.resize(1 << self.cluster_bits, 0);
            self.file.read_exact_at(&mut level2, self.aligned(table)?)?;
            self.level2 = (table, level2);
        }
        let at = usize::try_from(number % entries * 8).expect("a table has at most 2 MiB");
        let entry = u64_of(&self.level2.1[at..at + 8]);
        if entry & COMPRESSED != 0 {
            return Ok(Run::Coded);
        }
        if self.version == 3 && entry & ZEROS != 0 {
            return Ok(Run::Zeros);
        }
        match entry & OFFSET {
            0 => Ok(Run::Below),
            at => self.aligned(at).map(Run::Data),
        }
    }

    fn aligned(&self, offset: u64) -> io::Result<u64> {
        if offset.trailing_zeros() >= self.cluster_bits {
            return Ok(offset);
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "its tables point between clusters"))
    }
}

fn bytes_at<const N: usize>(file: &File, offset: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn u64_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
