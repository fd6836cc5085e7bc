//! The qcow2 header, read by ourselves: QEMU never sees an image before this has.
//!
//! Versions 2 and 3. Here is only what stands in the header and its extensions; whether that is acceptable
//! is decided by the checks above it. Deliberately absent: writing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// First bytes of every qcow2 file.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Header extension that names an external data file.
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const VERSION_2_LENGTH: usize = 72;
const VERSION_3_LENGTH: usize = 104;

/// Incompatible features of version 3.
pub(super) mod incompatible {
    pub(in super::super) const DIRTY: u64 = 1 << 0;
    pub(in super::super) const CORRUPT: u64 = 1 << 1;
    pub(in super::super) const DATA_FILE: u64 = 1 << 2;
    pub(in super::super) const COMPRESSION: u64 = 1 << 3;
    pub(in super::super) const EXTENDED_L2: u64 = 1 << 4;
}

/// What the header says, unjudged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub(super) version: u32,
    pub(super) backing_offset: u64,
    pub(super) backing_length: u32,
    pub(super) cluster_bits: u32,
    /// Bytes the guest sees.
    pub(super) size: u64,
    pub(super) encryption: u32,
    pub(super) l1_entries: u32,
    pub(super) l1_offset: u64,
    pub(super) refcount_offset: u64,
    pub(super) refcount_clusters: u32,
    pub(super) snapshots: u32,
    pub(super) snapshots_offset: u64,
    /// 0 in version 2.
    pub(super) incompatible: u64,
    pub(super) refcount_order: u32,
    /// Bytes of the header without extensions.
    pub(super) length: u32,
    pub(super) compression: u8,
}

/// Why there is no header to read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The file ends inside the header.
    #[error("it ends inside its header")]
    Short,
    /// It does not begin as qcow2.
    #[error("it does not begin as qcow2")]
    Magic,
    /// A version nobody knows.
    #[error("its qcow2 version {0} is unknown")]
    Version(u32),
    /// The file system refused.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
}

/// Reads the header at the beginning of the file.
///
/// # Errors
/// [`Unreadable`]
pub fn read(file: &File) -> Result<Header, Unreadable> {
    let mut bytes = [0_u8; VERSION_3_LENGTH + 8];
    let present = read_up_to(file, &mut bytes).map_err(Unreadable::Io)?;
    if present < MAGIC.len() || bytes[..4] != MAGIC {
        return Err(Unreadable::Magic);
    }
    if present < VERSION_2_LENGTH {
        return Err(Unreadable::Short);
    }
    let version = u32_at(&bytes, 4);
    let mut header = Header {
        version,
        backing_offset: u64_at(&bytes, 8),
        backing_length: u32_at(&bytes, 16),
        cluster_bits: u32_at(&bytes, 20),
        size: u64_at(&bytes, 24),
        encryption: u32_at(&bytes, 32),
        l1_entries: u32_at(&bytes, 36),
        l1_offset: u64_at(&bytes, 40),
        refcount_offset: u64_at(&bytes, 48),
        refcount_clusters: u32_at(&bytes, 56),
        snapshots: u32_at(&bytes, 60),
        snapshots_offset: u64_at(&bytes, 64),
        incompatible: 0,
        refcount_order: 4,
        length: 72,
        compression: 0,
    };
    match version {
        2 => Ok(header),
        3 if present < VERSION_3_LENGTH => Err(Unreadable::Short),
        3 => {
            header.incompatible = u64_at(&bytes, 72);
            header.refcount_order = u32_at(&bytes, 96);
            header.length = u32_at(&bytes, 100);
            if header.length as usize > VERSION_3_LENGTH {
                header.compression = bytes[VERSION_3_LENGTH];
            }
            Ok(header)
        }
        other => Err(Unreadable::Version(other)),
    }
}

impl Header {
    /// Bytes of a cluster. Only after `cluster_bits` was found sane.
    pub(super) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of an entry of a level 2 table.
    pub(super) fn l2_entry_bytes(&self) -> u64 {
        if self.incompatible & incompatible::EXTENDED_L2 == 0 { 8 } else { 16 }
    }

    /// Whether the extensions name an external data file; an error when they leave the first cluster.
    pub(super) fn names_data_file(&self, file: &File) -> Result<bool, Unreadable> {
        let end = self.cluster_bytes();
        let mut offset = u64::from(self.length);
        while offset + 8 <= end {
            let mut head = [0_u8; 8];
            if read_at(file, &mut head, offset)? < head.len() {
                return Ok(false);
            }
            let (kind, length) = (u32_at(&head, 0), u64::from(u32_at(&head, 4)));
            match kind {
                0 => return Ok(false),
                EXTENSION_DATA_FILE => return Ok(true),
                _ => offset = offset + 8 + length.next_multiple_of(8),
            }
        }
        if offset > end { Err(Unreadable::Short) } else { Ok(false) }
    }

    /// Bytes the guest sees.
    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// The backing file's name, for disks we made ourselves.
    ///
    /// # Errors
    /// When the file ends before the name does, or the name is not UTF-8.
    pub fn backing_file(&self, file: &File) -> io::Result<Option<String>> {
        if self.backing_offset == 0 {
            return Ok(None);
        }
        // The format's own limit is 1023 bytes.
        let mut name = vec![0_u8; self.backing_length.min(1023) as usize];
        file.read_exact_at(&mut name, self.backing_offset)?;
        String::from_utf8(name).map(Some).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, Unreadable> {
    file.read_at(buffer, offset).map_err(Unreadable::Io)
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut present = 0;
    while present < buffer.len() {
        match file.read_at(&mut buffer[present..], present as u64) {
            Ok(0) => break,
            Ok(read) => present += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(present)
}

/// A big-endian number at an offset that the caller knows to be inside.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes[offset..offset + 4].iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

/// A big-endian number at an offset that the caller knows to be inside.
pub(super) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes[offset..offset + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
