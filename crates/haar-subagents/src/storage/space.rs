//! Room, in bytes from end to end.
//!
//! What may be promised to guests in all is what is free plus what Haar's disks already hold, less 5 %
//! (design §11.18). A disk counts with its full size from the moment it is made, however little it holds.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use haar_api::rpc::{CapacityResponse, Fault, FaultCode};

use super::folders::{Folders, io_fault};
use super::qcow2;

/// Bytes in one MiB, the unit of sizes on the wire.
pub(super) const MIB: u64 = 1 << 20;

/// Whole MiB that hold this many bytes.
pub(super) fn mib_rounded_up(bytes: u64) -> u64 {
    bytes.div_ceil(MIB)
}

/// Bytes free for Haar on the file system of the folder.
pub(super) fn free_bytes(folder: &Path) -> Result<u64, Fault> {
    let status = nix::sys::statvfs::statvfs(folder)
        .map_err(|errno| io_fault("ask the free space of", folder, &errno.into()))?;
    Ok(status.blocks_available().saturating_mul(status.fragment_size()))
}

/// Bytes a file holds on its file system.
pub(super) fn held_bytes(metadata: &fs::Metadata) -> u64 {
    metadata.blocks().saturating_mul(512)
}

/// The answer to `ImageStore.Capacity`.
pub(super) fn capacity(folders: &Folders) -> Result<CapacityResponse, Fault> {
    let free_bytes = free_bytes(folders.root())?;
    let disks_bytes = qcow2::list(folders)?.iter().map(|disk| disk.used_bytes).sum();
    Ok(CapacityResponse {
        free_bytes,
        disks_bytes,
        images_bytes: images_bytes(&folders.images())?,
        total_bytes: promisable(free_bytes, disks_bytes),
    })
}

/// Refuses when disks of `wanted` bytes more would promise more than there is.
pub(super) fn check_promise(folders: &Folders, wanted: u64) -> Result<(), Fault> {
    let free = free_bytes(folders.root())?;
    let disks = qcow2::list(folders)?;
    let held = disks.iter().map(|disk| disk.used_bytes).sum();
    let promised =
        disks.iter().fold(0_u64, |sum, disk| sum.saturating_add(disk.size_bytes.max(disk.used_bytes)));
    let total = promisable(free, held);
    let left = total.saturating_sub(promised);
    if wanted <= left {
        return Ok(());
    }
    Err(Fault::new(
        FaultCode::NoSpace,
        format!(
            "{wanted} bytes of disks are asked for and {left} are left to promise ({total} in all, {promised} \
             promised to {} disks); delete guests or images, or use a larger file system",
            disks.len()
        ),
    ))
}

fn promisable(free: u64, disks: u64) -> u64 {
    let all = free.saturating_add(disks);
    all - all / 20
}

fn images_bytes(folder: &Path) -> Result<u64, Fault> {
    let failed = |error| io_fault("list", folder, &error);
    let mut sum = 0_u64;
    for entry in fs::read_dir(folder).map_err(failed)? {
        // What vanishes between the listing and the look holds nothing.
        if let Ok(metadata) = entry.map_err(failed)?.metadata() {
            sum = sum.saturating_add(held_bytes(&metadata));
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_per_cent_stay_in_reserve() {
        assert_eq!(promisable(900, 100), 950);
        assert_eq!(promisable(0, 0), 0);
    }

    #[test]
    fn a_part_of_a_mebibyte_counts_as_one() {
        assert_eq!((mib_rounded_up(0), mib_rounded_up(1), mib_rounded_up(MIB)), (0, 1, 1));
    }
}
