//! Disks and images that are volumes of a pool (zvols), on hosts whose ZFS makes them.
//!
//! ```text
//! P/haar-image-<id>    volume, filled once, with the snapshot @base
//! P/haar-disk-<uuid>   volume, made empty or cloned from an image's
//! P/haar-read-<uuid>   a clone of a snapshot for as long as it is downloaded
//! <root>/zfs/<name>/<id>.raw ──▶ /dev/zvol/P/haar-<name>
//!                      a link to the device, where a file system's raw file would be
//! haar:mount=…         a property that says to which storage's folder the volume belongs
//! ```
//!
//! The link is there before its volume and goes after it. The pool holds back a disk's room (`refreservation=auto`),
//! and for an image that is being filled what it will hold. Whether a host makes volumes is tried, never assumed:
//! `zfs-fuse` knows the word and makes none, and without udev no device has its name. Deliberately absent: partitions
//! on the host (`volmode=dev`), for what a guest writes is not the host's to read.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use haar_api::rpc::{Fault, FaultCode};
use uuid::Uuid;

use super::backend::RawSize;
use super::devices;
use super::folders::{io_fault, make_passable, sync_folder};
use super::in_use;
use super::space::MIB;
use super::zfs_pool::{MARK, Pool};

const DEVICES: &str = "/dev/zvol";
/// What a kernel that has ZFS has, and one that has volumes.
const SIGNS: [&str; 2] = ["/dev/zfs", DEVICES];
/// The whole device and nothing of what is on it.
const MODE: &str = "volmode=dev";
/// The pool holds back what the volume can come to hold, its tables included.
const PROMISED: &str = "refreservation=auto";

/// What holds the bytes of a disk or an image. It stays what it was made as.
#[derive(Debug)]
pub(super) enum Medium {
    /// A raw file in a dataset.
    File(PathBuf),
    /// A volume, by its device.
    Volume(PathBuf),
}

impl Medium {
    /// What lies at this path in one of our folders.
    pub(super) fn at(path: PathBuf) -> Self {
        match fs::read_link(&path) {
            Ok(device) => Medium::Volume(device),
            Err(_) => Medium::File(path),
        }
    }

    /// What QEMU opens.
    pub(super) fn path(&self) -> &Path {
        let (Medium::File(path) | Medium::Volume(path)) = self;
        path
    }

    /// Bytes the guest sees; `NotFound` when it is not there.
    pub(super) fn size_bytes(&self) -> io::Result<u64> {
        let path = match self {
            Medium::File(path) => path,
            Medium::Volume(device) => return devices::size_bytes(device),
        };
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
        }
        Ok(metadata.len())
    }

    /// Whether a guest runs on it, paused or not.
    pub(super) fn is_held(&self) -> Result<bool, Fault> {
        match self {
            Medium::File(path) => in_use::is_held(path),
            Medium::Volume(device) => devices::is_open_for_writing(device)
                .map_err(|error| io_fault("ask who writes to", device, &error)),
        }
    }

    /// Refuses when a guest runs on it; `act` completes "cannot … ".
    pub(super) fn check_off(&self, act: &str) -> Result<(), Fault> {
        in_use::refuse(self.is_held()?, self.path(), act)
    }
}

impl Pool {
    /// Whether volumes can be made here, sized and reached by their devices, by trying it.
    pub(super) fn check_volumes(&self) -> Result<(), Fault> {
        if !SIGNS.iter().any(|sign| Path::new(sign).exists()) {
            return Err(Fault::new(FaultCode::Unavailable, "the kernel has no ZFS of its own"));
        }
        // Named like what the next start destroys, should this one not come to it.
        let name = format!("read-{}", Uuid::new_v4());
        let made = self.make_volume(&name, MIB, &[]).and_then(|()| self.size_volume(&name, 2 * MIB));
        if let Err(fault) = self.destroy(&name) {
            tracing::warn!(name, %fault, "a volume made to try is left over; the next start destroys it");
        }
        made
    }

    /// Makes a disk's volume, empty or of an image's snapshot, and before it the link to its device.
    pub(super) fn make_disk_volume(
        &self,
        name: &str,
        path: &Path,
        size_bytes: u64,
        image: Option<&str>,
    ) -> Result<(), Fault> {
        self.link_volume(name, path)?;
        let Some(image) = image else { return self.make_volume(name, size_bytes, &[]) };
        self.clone_volume(name, image, &[])?;
        self.size_volume(name, size_bytes)
    }

    /// The same for an image that is about to be written into it.
    pub(super) fn make_image_volume(&self, name: &str, path: &Path, size: RawSize) -> Result<(), Fault> {
        self.link_volume(name, path)?;
        // ZFS holds back no more than the volume can have.
        let held = format!("refreservation={}", size.data_bytes.min(size.size_bytes));
        self.make_volume(name, size.size_bytes, &["-s", "-o", &held])
    }

    fn link_volume(&self, name: &str, path: &Path) -> Result<(), Fault> {
        let (device, folder) = (self.device(name)?, self.mount(name));
        let linked =
            make_passable(&folder).and_then(|()| symlink(&device, path)).and_then(|()| sync_folder(&folder));
        linked.map_err(|error| io_fault("make", path, &error))
    }

    /// Makes an empty volume, whose room the pool holds back unless `more` words of `zfs create` say otherwise.
    fn make_volume(&self, name: &str, size_bytes: u64, more: &[&str]) -> Result<(), Fault> {
        let (dataset, mark, size) = (self.dataset(name)?, self.mark(name), size_bytes.to_string());
        let words = [&["create", "-V", &size, "-o", MODE, "-o", &mark], more, &[dataset.as_str()]].concat();
        self.run(&words)?;
        self.wait_for(name, size_bytes).map(drop)
    }

    /// From now on an image's volume is only read, and its snapshot keeps what it holds.
    pub(super) fn close_image_volume(&self, name: &str) -> Result<(), Fault> {
        self.run(&["set", "refreservation=none", "readonly=on", &self.dataset(name)?]).map(drop)
    }

    /// Makes a volume from another one's snapshot.
    pub(super) fn clone_volume(&self, name: &str, snapshot: &str, more: &[&str]) -> Result<(), Fault> {
        let (dataset, mark) = (self.dataset(name)?, self.mark(name));
        let words = [&["clone", "-o", MODE, "-o", &mark], more, &[snapshot, dataset.as_str()]].concat();
        self.run(&words).map(drop)
    }

    /// Gives a disk's volume this size, and has the pool hold back its room.
    pub(super) fn size_volume(&self, name: &str, size_bytes: u64) -> Result<(), Fault> {
        let size = format!("volsize={size_bytes}");
        self.run(&["set", &size, PROMISED, &self.dataset(name)?])?;
        self.wait_for(name, size_bytes).map(drop)
    }

    /// The same for a disk that becomes larger.
    pub(super) fn grow_volume(&self, name: &str, medium: &Medium, size_bytes: u64) -> Result<(), Fault> {
        medium.check_off("resize the disk")?;
        let failed = |error| io_fault("look at", medium.path(), &error);
        let before = medium.size_bytes().map_err(failed)?;
        self.size_volume(name, size_bytes).inspect_err(|_| {
            // No guest has written there yet, and none shall where no room is held back.
            if let Err(fault) = self.size_volume(name, before) {
                tracing::warn!(name, %fault, "a disk may have grown without its room");
            }
        })
    }

    /// Waits for a volume's device, and answers it.
    pub(super) fn wait_for(&self, name: &str, size_bytes: u64) -> Result<PathBuf, Fault> {
        let device = self.device(name)?;
        match devices::wait_for(&device, size_bytes) {
            Ok(()) => Ok(device),
            Err(error) => Err(io_fault("use", &device, &error)),
        }
    }

    fn device(&self, name: &str) -> Result<PathBuf, Fault> {
        // udev has no spaces in names.
        Ok(Path::new(DEVICES).join(self.dataset(name)?.replace(' ', "+")))
    }

    fn mark(&self, name: &str) -> String {
        format!("{MARK}={}", self.mount(name).display())
    }
}
