//! The boundary to what holds disks: a disk is made, grown, snapshotted and rolled back behind one trait.
//!
//! ```text
//! disks, snapshots, volumes  ──▶  Volumes  ◀──  qcow2      overlays, snapshots inside the file; any file system
//!                                          ◀──  reflink    raw files that share extents; btrfs, xfs
//!                                          ◀──  zfs        datasets with a raw file each, or volumes; zfs
//! ```
//!
//! A back end is asked by [`Spot`], never by path, so that one whose disks are no files (volumes of ZFS) fits. Each act
//! on one disk is whole or not at all; what spans disks is the journal's (`pending.rs`). A disk stays with the
//! back end that made it: the setting decides only about new ones.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use haar_api::rpc::Fault;
use haar_api::rpc::storage::Backend;

use super::Error;
use super::buffers::Buffers;
use super::folders::io_fault;
use super::names::disk_name;
use super::qcow2::Qcow2;
use super::reflink::{self, Reflink};
use super::zfs::Zfs;

/// Where a guest's disk is, in every back end's terms. The folder may be the hidden one in which a guest's
/// disks are first made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) folder: PathBuf,
    pub(super) guest: String,
    pub(super) index: usize,
}

impl Spot {
    /// The disk's file, for back ends that have files.
    pub(super) fn file(&self, format: &str) -> PathBuf {
        self.folder.join(format!("{}.{format}", disk_name(self.index)))
    }

    /// The hidden name under which a file is made; swept away at start.
    pub(super) fn hidden(&self, format: &str) -> PathBuf {
        self.folder.join(format!(".{}.{format}", disk_name(self.index)))
    }
}

/// An image to clone from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) path: PathBuf,
    pub(super) format: String,
}

/// An image made raw, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawSize {
    /// What a clone of it has at least.
    pub(super) size_bytes: u64,
    /// What it holds at most.
    pub(super) data_bytes: u64,
}

/// What a disk says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Looks {
    /// Bytes the guest sees.
    pub(super) size_bytes: u64,
    /// Bytes held on the host's file system, snapshots included where they are in the same file.
    pub(super) used_bytes: u64,
    /// Of those, bytes that need no room again when the guest writes its whole disk.
    pub(super) own_bytes: u64,
    /// The image it was cloned from.
    pub(super) base: Option<String>,
}

/// A snapshot of one disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    /// The caller's name, checked.
    pub(super) name: String,
    /// Bytes of the disk then.
    pub(super) size_bytes: u64,
    /// Seconds since 1970.
    pub(super) created_s: u64,
    /// The order that took it; empty when that was not said.
    pub(super) order: String,
    /// Tells two snapshots of the same name apart, one of which is gone.
    pub(super) identity: String,
}

/// The bytes of a snapshot, as the guest would read them.
pub(super) trait Content: Send {
    /// The next bytes from this offset, at least one and at most `most`, which is not 0; the caller stays inside
    /// the snapshot's size.
    fn read(&mut self, offset: u64, most: u64, buffers: &Buffers) -> io::Result<Bytes>;
}

/// What holds disks. The caller has the guest's turn, and for what needs room the books.
pub(super) trait Volumes: fmt::Debug + Send + Sync {
    /// What QEMU is told the disk is.
    fn format(&self) -> &'static str;

    /// The ending of what stands for the disk in its guest's folder. No two back ends share one.
    fn ending(&self) -> &'static str {
        self.format()
    }

    /// What QEMU opens.
    fn path(&self, spot: &Spot) -> PathBuf {
        spot.file(self.ending())
    }

    /// Whether a clone needs its image for ever.
    fn leans_on_base(&self) -> bool;

    /// The raw file that disks are cloned from in place of an image of this format, whether it is there or not.
    fn raw_base(&self, _images: &Path, _id: &str, _format: &str) -> Option<PathBuf> {
        None
    }

    /// Those that are there, whole or not, with their images' ids.
    fn raw_bases(&self, _images: &Path) -> Result<Vec<(String, PathBuf)>, Fault> {
        Ok(Vec::new())
    }

    /// Whether it is there and whole.
    fn has_raw_base(&self, path: &Path) -> bool {
        path.is_file()
    }

    /// Makes it, whole or not at all; `fill` writes it under the name it is given, where a device may stand by then
    /// that is full of zeros and whose room is held back.
    fn make_raw_base(
        &self,
        path: &Path,
        _size: RawSize,
        fill: &dyn Fn(&Path) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        fill(path)
    }

    /// Removes it; an absent one is fine.
    fn forget_raw_base(&self, path: &Path) -> Result<(), Fault> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_fault("remove", path, &error)),
            _ => Ok(()),
        }
    }

    /// Makes an empty disk or a clone of at least the base's size. Nothing may stand there.
    fn make(&self, spot: &Spot, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault>;

    /// What stands there: `NotFound` when nothing does, any other error but a passing one is damage.
    fn look(&self, spot: &Spot) -> io::Result<Looks>;

    /// Grows the disk.
    fn grow(&self, spot: &Spot, size_bytes: u64) -> Result<(), Fault>;

    /// Removes the disk and its snapshots.
    fn remove(&self, spot: &Spot) -> Result<(), Fault>;

    /// Frees what lies elsewhere for a disk, or for the disks in a folder, that is about to be removed.
    fn discard(&self, _path: &Path) -> Result<(), Fault> {
        Ok(())
    }

    /// Every snapshot, oldest first.
    fn snapshots(&self, spot: &Spot) -> Result<Vec<Taken>, Fault>;

    /// Whether snapshots lie apart from the disk, so that they are taken and deleted while QEMU holds it.
    fn snapshots_apart(&self) -> bool;

    /// Takes a snapshot for this order. None of that name may exist.
    fn take(&self, spot: &Spot, name: &str, order: &str) -> Result<(), Fault>;

    /// Removes a snapshot that exists.
    fn forget(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault>;

    /// Refuses a rollback that cannot succeed whatever of ours is deleted first.
    fn check_roll_back(&self, _spot: &Spot, _taken: &Taken) -> Result<(), Fault> {
        Ok(())
    }

    /// Gives the disk the content and size it had then; the snapshot stays.
    fn roll_back(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault>;

    /// Whether a guest runs on the disk, paused or not.
    fn is_held(&self, spot: &Spot) -> Result<bool, Fault>;

    /// Frees what an act left that was killed in the middle.
    fn mend(&self, spot: &Spot) -> Result<(), Fault>;

    /// Opens a snapshot for reading; `streams` is a folder for sockets.
    fn open(&self, spot: &Spot, taken: &Taken, streams: &Path) -> Result<Box<dyn Content>, Fault>;
}

/// Every back end of this build, and the one of new disks.
#[derive(Debug)]
pub(super) struct Backends {
    all: [Arc<dyn Volumes>; 3],
    zfs: Arc<Zfs>,
    chosen: usize,
}

impl Backends {
    /// `work` is locked by this process for as long as it lives; programs that change disks share the lock.
    pub(super) fn new(backend: Backend, root: &Path, work: &File) -> io::Result<Self> {
        let chosen = match backend {
            Backend::Auto | Backend::Qcow2 => 0,
            Backend::Reflink => 1,
            Backend::Zfs => 2,
        };
        let (qcow2, zfs) = (Qcow2::new(work.try_clone()?), Arc::new(Zfs::new(root, work.try_clone()?)));
        let all: [Arc<dyn Volumes>; 3] = [Arc::new(qcow2), Arc::new(Reflink), Arc::clone(&zfs) as _];
        Ok(Backends { all, zfs, chosen })
    }

    /// Whether the back end can work here; `disks` is the folder of disks.
    pub(super) fn probe(&self, backend: Backend, root: &Path, disks: &Path) -> Result<(), Error> {
        match backend {
            Backend::Auto | Backend::Qcow2 => {}
            Backend::Reflink => {
                let root = disks.to_owned();
                reflink::probe(disks).map_err(|source| Error::CannotShare { root, source })?;
            }
            Backend::Zfs => {
                self.zfs.probe().map_err(|fault| Error::NoZfs(fault.message))?;
                self.zfs.look_for_volumes();
                return Ok(());
            }
        }
        // Disks of an earlier choice stay.
        if root.join("zfs").is_dir()
            && let Err(fault) = self.zfs.probe()
        {
            tracing::warn!(%fault, "disks of the zfs back end cannot be used");
        }
        Ok(())
    }

    /// The back end of new disks.
    pub(super) fn of_new(&self) -> &Arc<dyn Volumes> {
        &self.all[self.chosen]
    }

    /// Frees what lies elsewhere for what is about to be removed.
    pub(super) fn discard(&self, path: &Path) -> Result<(), Fault> {
        self.all.iter().try_for_each(|volumes| volumes.discard(path))
    }

    /// All of them: a disk stays with the one that made it.
    pub(super) fn all(&self) -> &[Arc<dyn Volumes>] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_back_end_is_chosen_by_name() {
        for backend in [Backend::Auto, Backend::Qcow2, Backend::Reflink, Backend::Zfs] {
            assert_eq!(backend.to_string().parse::<Backend>().unwrap(), backend);
        }
        let unknown = "lvm".parse::<Backend>().unwrap_err().to_string();
        assert!(unknown.contains("choose auto, qcow2, reflink or zfs"), "{unknown}");
    }

    #[test]
    fn new_disks_are_made_by_the_back_end_that_was_chosen() {
        let chosen = [
            (Backend::Auto, "qcow2", "qcow2"),
            (Backend::Qcow2, "qcow2", "qcow2"),
            (Backend::Reflink, "raw", "raw"),
            (Backend::Zfs, "raw", "zfs"),
        ];
        for (backend, format, ending) in chosen {
            let work = tempfile::tempfile().unwrap();
            let backends = Backends::new(backend, Path::new("/nowhere"), &work).unwrap();
            assert_eq!((backends.of_new().format(), backends.of_new().ending()), (format, ending));
            let endings: std::collections::BTreeSet<_> =
                backends.all().iter().map(|volumes| volumes.ending()).collect();
            assert_eq!(endings.len(), backends.all().len(), "no two share an ending");
        }
    }
}
