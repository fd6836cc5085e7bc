//! The boundary to what holds disks: a disk is made, grown, snapshotted and rolled back behind one trait.
//!
//! ```text
//! disks, snapshots, volumes  ──▶  Volumes  ◀──  qcow2      overlays, snapshots inside the file; any file system
//!                                          ◀──  reflink    raw files that share extents; btrfs, xfs
//! ```
//!
//! A back end is asked by [`Spot`], never by path, so that one whose disks are no files (a zvol) fits. Each act
//! on one disk is whole or not at all; what spans disks is the journal's (`pending.rs`). A disk stays with the
//! back end that made it: the setting decides only about new ones. Deliberately absent: zfs.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use haar_api::rpc::Fault;

use super::buffers::Buffers;
use super::names::disk_name;
use super::qcow2::Qcow2;
use super::reflink::Reflink;

/// What a disk can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// The one that works on any file system; today `qcow2`.
    #[default]
    Auto,
    /// Overlays on a base image, snapshots inside the file.
    Qcow2,
    /// Raw files that share extents with their image and their snapshots; btrfs, or xfs made with `reflink=1`.
    Reflink,
}

/// A word that names no back end.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no storage back end; choose auto, qcow2 or reflink")]
pub struct UnknownBackend(String);

impl std::str::FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(word: &str) -> Result<Self, UnknownBackend> {
        match word {
            "auto" => Ok(Backend::Auto),
            "qcow2" => Ok(Backend::Qcow2),
            "reflink" => Ok(Backend::Reflink),
            other => Err(UnknownBackend(other.to_owned())),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::Qcow2 => "qcow2",
            Backend::Reflink => "reflink",
        })
    }
}

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
    /// What QEMU is told the disk is, also the ending of its file.
    fn format(&self) -> &'static str;

    /// Whether a clone needs its image for ever.
    fn leans_on_base(&self) -> bool;

    /// Makes an empty disk or a clone of at least the base's size. Nothing may stand there.
    fn make(&self, spot: &Spot, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault>;

    /// What stands there: `NotFound` when nothing does, any other error but a passing one is damage.
    fn look(&self, spot: &Spot) -> io::Result<Looks>;

    /// Grows the disk.
    fn grow(&self, spot: &Spot, size_bytes: u64) -> Result<(), Fault>;

    /// Removes the disk and its snapshots.
    fn remove(&self, spot: &Spot) -> Result<(), Fault>;

    /// Every snapshot, oldest first.
    fn snapshots(&self, spot: &Spot) -> Result<Vec<Taken>, Fault>;

    /// Whether snapshots lie apart from the disk, so that they are taken and deleted while QEMU holds it.
    fn snapshots_apart(&self) -> bool;

    /// Takes a snapshot for this order. None of that name may exist.
    fn take(&self, spot: &Spot, name: &str, order: &str) -> Result<(), Fault>;

    /// Removes a snapshot that exists.
    fn forget(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault>;

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
    all: [Arc<dyn Volumes>; 2],
    chosen: usize,
}

impl Backends {
    /// `work` is locked by this process for as long as it lives; programs that change disks share the lock.
    pub(super) fn new(backend: Backend, work: File) -> Self {
        let chosen = match backend {
            Backend::Auto | Backend::Qcow2 => 0,
            Backend::Reflink => 1,
        };
        Backends { all: [Arc::new(Qcow2::new(work)), Arc::new(Reflink)], chosen }
    }

    /// The back end of new disks.
    pub(super) fn of_new(&self) -> &Arc<dyn Volumes> {
        &self.all[self.chosen]
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
        for backend in [Backend::Auto, Backend::Qcow2, Backend::Reflink] {
            assert_eq!(backend.to_string().parse::<Backend>().unwrap(), backend);
        }
        assert!("zfs".parse::<Backend>().unwrap_err().to_string().contains("choose auto, qcow2 or reflink"));
    }

    #[test]
    fn new_disks_are_made_by_the_back_end_that_was_chosen() {
        for (backend, format) in
            [(Backend::Auto, "qcow2"), (Backend::Qcow2, "qcow2"), (Backend::Reflink, "raw")]
        {
            let backends = Backends::new(backend, tempfile::tempfile().unwrap());
            assert_eq!(backends.of_new().format(), format);
            assert_ne!(backends.all()[0].format(), backends.all()[1].format(), "no two share a format");
        }
    }
}
