//! Room, in bytes from end to end.
//!
//! What may be promised to guests in all is what is free plus what Haar's disks already hold, less 5 %
//! (design §11.18). A disk counts with its full size from the moment it is made, however little it holds; one
//! with snapshots may write its full size anew beside what they keep, so a snapshot needs room too.
//! An image takes only what nobody was promised: its room is given before it is written, all of it when its
//! length is known and [`STEP`] by step when not. Whoever promises or gives has the books, one at a time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use haar_api::rpc::{CapacityResponse, Fault, FaultCode};

use super::folders::{Folders, io_fault};
use super::found;

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

/// Who may promise room, and what of it is given to images on their way.
#[derive(Debug, Default)]
pub(super) struct Books {
    turn: Mutex<()>,
    /// Bytes that are given and not on the disk yet, by image or act.
    given: Mutex<BTreeMap<String, u64>>,
}

impl Books {
    /// Waits for the turn to promise or give; it lasts until dropped.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        // The lock guards the order of acts and no data, so a panic spoils nothing.
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        // One entry is set or removed at a time.
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the room stands at one moment.
#[derive(Debug)]
struct Room {
    free: u64,
    /// Given to images on their way.
    coming: u64,
    /// Held by disks, without what a snapshot or an image shares: that is kept, and needed again beside it.
    held: u64,
    /// Promised to disks, what they hold included.
    promised: u64,
    disks: usize,
}

impl Room {
    fn look(folders: &Folders) -> Result<Self, Fault> {
        let disks = found::list(folders)?;
        let promised = disks
            .iter()
            .fold(0_u64, |sum, disk| sum.saturating_add(disk.looks.size_bytes.max(disk.looks.own_bytes)));
        Ok(Room {
            free: free_bytes(folders.root())?,
            coming: folders.books().given().values().sum(),
            held: disks.iter().map(|disk| disk.looks.own_bytes).sum(),
            promised,
            disks: disks.len(),
        })
    }

    fn total(&self) -> u64 {
        promisable(self.free.saturating_sub(self.coming), self.held)
    }

    /// What nobody was promised or given.
    fn left(&self) -> u64 {
        self.total().saturating_sub(self.promised)
    }

    /// Whether so many bytes more may be promised. Where more is promised than there is, not even none: a snapshot
    /// keeps what was to be written over.
    fn has(&self, wanted: u64) -> bool {
        self.promised.saturating_add(wanted) <= self.total()
    }
}

/// The answer to `ImageStore.Capacity`.
pub(super) fn capacity(folders: &Folders) -> Result<CapacityResponse, Fault> {
    let room = Room::look(folders)?;
    Ok(CapacityResponse {
        free_bytes: room.free,
        disks_bytes: room.held,
        images_bytes: images_bytes(&folders.images())?,
        total_bytes: promisable(room.free, room.held),
    })
}

/// Refuses when disks of `wanted` bytes more would promise more than there is. The caller has the books.
pub(super) fn check_promise(folders: &Folders, wanted: u64) -> Result<(), Fault> {
    let room = Room::look(folders)?;
    if room.has(wanted) {
        return Ok(());
    }
    Err(Fault::new(
        FaultCode::NoSpace,
        format!(
            "{wanted} bytes of disks are asked for and {} are left to promise ({} in all, {} promised to {} \
             disks); delete guests or images, or use a larger file system",
            room.left(),
            room.total(),
            room.promised,
            room.disks
        ),
    ))
}

/// Keeps so many bytes for an act on disks until dropped, or refuses: so that the books are free while it works.
pub(super) fn keep<'a>(folders: &'a Folders, act: &str, bytes: u64) -> Result<Grant<'a>, Fault> {
    let _turn = folders.books().turn();
    check_promise(folders, bytes)?;
    let mut grant = Grant::new(folders, act);
    grant.bytes = bytes;
    grant.book();
    Ok(grant)
}

/// Bytes that an image of unknown length is given at once.
const STEP: u64 = 64 * MIB;

/// The room of one image or act on its way; what was not written is free again when it is dropped.
pub(super) struct Grant<'a> {
    folders: &'a Folders,
    image: String,
    /// Bytes of the image that may be written in all.
    bytes: u64,
    written: u64,
}

impl<'a> Grant<'a> {
    /// Nothing given yet. One grant per image is the caller's promise.
    pub(super) fn new(folders: &'a Folders, image: &str) -> Self {
        Grant { folders, image: image.to_owned(), bytes: 0, written: 0 }
    }

    /// Gives the room for an image of this length, or refuses.
    pub(super) fn raise_to(&mut self, bytes: u64) -> Result<(), Fault> {
        let books = self.folders.books();
        let _turn = books.turn();
        let mut room = Room::look(self.folders)?;
        // As if nothing of this image were here: or the 5 % would shrink with every byte that comes.
        room.coming = room.coming.saturating_sub(self.bytes.saturating_sub(self.written));
        room.free = room.free.saturating_add(self.written);
        if !room.has(bytes) {
            return Err(Fault::new(
                FaultCode::NoSpace,
                format!(
                    "the image needs room for {bytes} bytes and {} are left to give ({} free, {} for others on \
                     their way, {} promised to disks that hold {}, 5 % kept back); delete images or guests, \
                     or use a larger file system",
                    room.left(),
                    room.free,
                    room.coming,
                    room.promised,
                    room.held
                ),
            ));
        }
        self.bytes = self.bytes.max(bytes);
        self.book();
        Ok(())
    }

    /// Makes sure that the next `bytes` may be written.
    pub(super) fn reach(&mut self, bytes: u64) -> Result<(), Fault> {
        let end = self.written.saturating_add(bytes);
        if end <= self.bytes {
            return Ok(());
        }
        self.raise_to(end.saturating_add(STEP)).or_else(|_| self.raise_to(end))
    }

    /// So many bytes are on the disk by now and no longer free.
    pub(super) fn wrote(&mut self, written: u64) {
        self.written = written;
        self.book();
    }

    fn book(&self) {
        let coming = self.bytes.saturating_sub(self.written);
        self.folders.books().given().insert(self.image.clone(), coming);
    }
}

impl Drop for Grant<'_> {
    fn drop(&mut self) {
        self.folders.books().given().remove(&self.image);
    }
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
