//! The `zfs` back end: a dataset for each disk, with the disk as a raw file in it; clones, snapshots and rollbacks
//! are the file system's own.
//!
//! ```text
//! <root> lies on the dataset P
//! P/haar-image-<id>     mounted on <root>/zfs/image-<id>: <id>.raw, the snapshot @base, and then a file, ready
//! P/haar-disk-<uuid>    mounted on <root>/zfs/disk-<uuid>: <image id>.raw, or disk.raw when it came from none
//! P/haar-read-<uuid>    a clone of a snapshot for as long as it is downloaded
//! <guest>/disk-0.zfs    a link to the disk's file
//! ```
//!
//! A disk is where its link points: the link is there, hidden, before the dataset, and a dataset is destroyed by
//! the link that names it, so that guests' folders are made and removed whole like any other. The pool holds back
//! the room of each disk (`refreservation`) from the moment it is made.
//! Deliberately absent: zvols. Snapshots that others take of our datasets are not shown and not deleted.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use haar_api::rpc::{Fault, FaultCode};
use uuid::Uuid;

use super::backend::{Base, Content, Looks, Spot, Taken, Volumes};
use super::buffers::Buffers;
use super::disks::MOST_BYTES;
use super::folders::{io_fault, make_passable, sync_folder};
use super::found::names_in;
use super::in_use::{check_off, hold, is_held};
use super::space::held_bytes;
use super::{zfs_pool, zfs_pool::Pool};

const FORMAT: &str = "raw";
const ENDING: &str = "zfs";
/// The file of a disk that came from no image.
const EMPTY: &str = "disk.raw";
const READY: &str = "ready";
/// The snapshot of an image that disks are cloned from.
const IMAGE_SNAPSHOT: &str = "base";
/// What a snapshot of ours has.
const NUMBER: &str = "haar:number";
const ORDER: &str = "haar:order";
const SIZE: &str = "haar:size";

/// The back end. Disks are found without a pool, and worked on with one.
#[derive(Debug)]
pub(super) struct Zfs {
    /// Where datasets are mounted.
    mounts: PathBuf,
    pool: Pool,
}

impl Zfs {
    /// `root` is the storage's folder; `work` is locked by this process, and programs share the lock.
    pub(super) fn new(root: &Path, work: File) -> Self {
        Zfs { mounts: root.join("zfs"), pool: Pool::of(root, work) }
    }

    /// Whether datasets can be made here; mounts those that are there, and destroys clones of earlier downloads. One
    /// that stands in the way of that concerns its own guest, and is told.
    pub(super) fn probe(&self) -> Result<(), Fault> {
        self.pool.check()?;
        if !self.mounts.is_dir() {
            make_passable(&self.mounts).map_err(|error| io_fault("make", &self.mounts, &error))?;
        }
        for (name, mounted) in self.pool.list()? {
            if let Err(fault) = self.put_right(&name, mounted) {
                tracing::warn!(name, %fault, "a dataset cannot be mounted or destroyed; the others are used");
            }
        }
        Ok(())
    }

    fn put_right(&self, name: &str, mounted: bool) -> Result<(), Fault> {
        if name.starts_with("read-") {
            self.pool.destroy(name)?;
            let _ = fs::remove_dir(self.mounts.join(name));
        } else if !mounted {
            self.pool.run(&["mount", &self.pool.dataset(name)?])?;
        }
        Ok(())
    }

    /// Why the file of a disk is not there, though its link is.
    fn why_missing(&self, name: &str) -> io::Error {
        let gone = |words: &str| io::Error::new(io::ErrorKind::InvalidData, words);
        let unreachable = |words: String| io::Error::new(io::ErrorKind::NotConnected, words);
        match self.pool.is_mounted(name) {
            Ok(None) => gone("its dataset is gone"),
            Ok(Some(true)) => gone("its dataset is there without it"),
            Ok(Some(false)) => {
                let dataset = self.pool.dataset(name).unwrap_or_default();
                unreachable(format!("its dataset is not mounted; run zfs mount {dataset}"))
            }
            Err(fault) => unreachable(fault.message),
        }
    }

    /// The dataset's name of a disk, without the pool's, and where the disk is.
    fn place(&self, link: &Path) -> io::Result<(String, PathBuf)> {
        let target = fs::read_link(link)?;
        match self.name_of(&target) {
            Some(name) => Ok((name, target)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "it leads out of the storage's folder")),
        }
    }

    /// The dataset's name, without the pool's, of a file in one.
    fn name_of(&self, file: &Path) -> Option<String> {
        let mount = file.parent().filter(|mount| mount.parent() == Some(&self.mounts))?;
        mount.file_name()?.to_str().map(ToOwned::to_owned)
    }

    fn dataset(&self, spot: &Spot) -> Result<(String, PathBuf), Fault> {
        let link = spot.file(ENDING);
        let (name, path) = self.place(&link).map_err(|error| io_fault("read", &link, &error))?;
        Ok((self.pool.dataset(&name)?, path))
    }

    /// Destroys what a link names, then the link.
    fn discard_link(&self, link: &Path) -> Result<(), Fault> {
        let failed = |error| io_fault("remove", link, &error);
        let (name, path) = self.place(link).map_err(failed)?;
        self.pool.destroy(&name)?;
        if let Some(mount) = path.parent() {
            let _ = fs::remove_dir(mount);
        }
        fs::remove_file(link).map_err(failed)
    }

    fn fill(&self, path: &Path, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault> {
        let (name, mount) = (self.name_of(path).unwrap_or_default(), path.parent().unwrap_or(path));
        let reserved = format!("refreservation={}", reserved_bytes(size_bytes));
        let image = base.map(|base| self.image_of(base)).transpose()?;
        let image = image.map(|image| format!("{image}@{IMAGE_SNAPSHOT}"));
        self.pool.make(&name, mount, &[&reserved], image.as_deref())?;
        let made = fs::set_permissions(mount, Permissions::from_mode(0o711)).and_then(|()| {
            let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.set_len(size_bytes)?;
            file.sync_all()
        });
        made.map_err(|error| io_fault("make", path, &error))
    }

    /// The dataset of the image whose raw file this is.
    fn image_of(&self, base: &Base) -> Result<String, Fault> {
        let name = self.name_of(&base.path).ok_or_else(|| {
            Fault::new(FaultCode::Failed, format!("{} is no image of this pool", base.path.display()))
        })?;
        self.pool.dataset(&name)
    }

    fn snapshot_list(&self, dataset: &str) -> Result<Vec<(u64, Taken)>, Fault> {
        let properties = format!("guid,creation,{NUMBER},{ORDER},{SIZE}");
        let words = ["get", "-H", "-p", "-r", "-d", "1", "-o", "name,property,value", &properties, dataset];
        let mut taken = zfs_pool::parse_snapshots(&self.pool.run(&words)?, dataset);
        taken.sort_by_key(|(number, _)| *number);
        Ok(taken)
    }
}

impl Volumes for Zfs {
    fn format(&self) -> &'static str {
        FORMAT
    }

    fn ending(&self) -> &'static str {
        ENDING
    }

    fn path(&self, spot: &Spot) -> PathBuf {
        let link = spot.file(ENDING);
        self.place(&link).map_or(link, |(_, path)| path)
    }

    fn leans_on_base(&self) -> bool {
        true
    }

    fn raw_base(&self, _: &Path, id: &str, _: &str) -> Option<PathBuf> {
        Some(self.mounts.join(format!("image-{id}")).join(format!("{id}.{FORMAT}")))
    }

    fn raw_bases(&self, images: &Path) -> Result<Vec<(String, PathBuf)>, Fault> {
        let names = names_in(&self.mounts)?;
        let ids = names.iter().filter_map(|name| name.strip_prefix("image-"));
        Ok(ids.filter_map(|id| Some((id.to_owned(), self.raw_base(images, id, FORMAT)?))).collect())
    }

    fn has_raw_base(&self, path: &Path) -> bool {
        path.with_file_name(READY).is_file()
    }

    fn make_raw_base(&self, path: &Path, fill: &dyn Fn(&Path) -> Result<(), Fault>) -> Result<(), Fault> {
        if let Err(fault) = self.forget_raw_base(path) {
            // Disks are clones of it. An id stands for one content, so the next ones may be as well.
            if self.has_raw_base(path) {
                tracing::warn!(%fault, path = %path.display(), "the image's raw file is used as it stands");
                return Ok(());
            }
            return Err(fault);
        }
        let (name, mount) = (self.name_of(path).unwrap_or_default(), path.parent().unwrap_or(path));
        let make = || {
            self.pool.make(&name, mount, &[], None)?;
            fill(path)?;
            let failed = |error| io_fault("keep", path, &error);
            File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
            self.pool.run(&["snapshot", &format!("{}@{IMAGE_SNAPSHOT}", self.pool.dataset(&name)?)])?;
            File::create(mount.join(READY)).and_then(|_| sync_folder(mount)).map_err(failed)
        };
        make().inspect_err(|_| {
            if let Err(fault) = self.forget_raw_base(path) {
                tracing::warn!(%fault, path = %path.display(), "half of an image is left over");
            }
        })
    }

    fn forget_raw_base(&self, path: &Path) -> Result<(), Fault> {
        let (name, mount) = (self.name_of(path).unwrap_or_default(), path.parent().unwrap_or(path));
        // Not ready any more before it is gone; and again when it stays whole.
        let was_ready = fs::remove_file(mount.join(READY)).is_ok();
        if let Err(fault) = self.pool.destroy(&name) {
            if was_ready && self.pool.has_snapshot(&name, IMAGE_SNAPSHOT) {
                let _ = File::create(mount.join(READY)).and_then(|_| sync_folder(mount));
            }
            return Err(fault);
        }
        match fs::remove_dir(mount) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_fault("remove", mount, &error)),
            _ => Ok(()),
        }
    }

    fn make(&self, spot: &Spot, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault> {
        let (hidden, link) = (spot.hidden(ENDING), spot.file(ENDING));
        if hidden.is_symlink() {
            self.discard_link(&hidden)?;
        }
        let file = base.and_then(|base| base.path.file_name()).unwrap_or(EMPTY.as_ref());
        let path = self.mounts.join(format!("disk-{}", Uuid::new_v4())).join(file);
        let failed = |error| io_fault("make", &link, &error);
        symlink(&path, &hidden).and_then(|()| sync_folder(&spot.folder)).map_err(failed)?;
        let made = self.fill(&path, size_bytes, base).and_then(|()| {
            fs::rename(&hidden, &link).and_then(|()| sync_folder(&spot.folder)).map_err(failed)
        });
        if made.is_err()
            && let Err(fault) = self.discard_link(&hidden)
        {
            tracing::warn!(%fault, "half a disk is left over; the next start removes it");
        }
        made
    }

    fn look(&self, spot: &Spot) -> io::Result<Looks> {
        let damaged = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let (name, path) = self.place(&spot.file(ENDING))?;
        let metadata = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Err(damaged("it is not a regular file".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.why_missing(&name)),
            Err(error) => return Err(error),
        };
        let size_bytes = metadata.len();
        if !(1..=MOST_BYTES).contains(&size_bytes) {
            return Err(damaged(format!("its size of {size_bytes} bytes cannot be")));
        }
        let image = path.file_stem().and_then(|id| id.to_str()).filter(|_| !path.ends_with(EMPTY));
        let base = image.and_then(|id| self.raw_base(&self.mounts, id, FORMAT));
        let base = base.map(|base| base.to_string_lossy().into_owned());
        // The pool holds back the whole of it, so none of it is in what is free.
        let own_bytes = reserved_bytes(size_bytes);
        Ok(Looks { size_bytes, used_bytes: held_bytes(&metadata), own_bytes, base })
    }

    fn grow(&self, spot: &Spot, size_bytes: u64) -> Result<(), Fault> {
        let (dataset, path) = self.dataset(spot)?;
        let file = hold(&path, "resize the disk")?;
        let reserved = format!("refreservation={}", reserved_bytes(size_bytes));
        self.pool.run(&["set", &reserved, &dataset])?;
        let grown = file.set_len(size_bytes).and_then(|()| file.sync_all());
        grown.map_err(|error| io_fault("resize", &path, &error))
    }

    fn remove(&self, spot: &Spot) -> Result<(), Fault> {
        let (link, hidden) = (spot.file(ENDING), spot.hidden(ENDING));
        // Nobody sees half of it, and after a kill the next start finishes it.
        let renamed = fs::rename(&link, &hidden).and_then(|()| sync_folder(&spot.folder));
        renamed.map_err(|error| io_fault("remove", &link, &error))?;
        self.discard_link(&hidden).inspect_err(|_| {
            // Who asks again must not hear that there is none.
            let _ = fs::rename(&hidden, &link);
        })
    }

    fn discard(&self, path: &Path) -> Result<(), Fault> {
        let is_ours =
            |path: &Path| path.extension().is_some_and(|ending| ending == ENDING) && self.place(path).is_ok();
        if is_ours(path) {
            return self.discard_link(path);
        }
        if path.is_symlink() {
            return Ok(());
        }
        let mut links: Vec<PathBuf> = names_in(path)?.iter().map(|name| path.join(name)).collect();
        links.retain(|link| is_ours(link));
        links.iter().try_for_each(|link| self.discard_link(link))
    }

    fn snapshots(&self, spot: &Spot) -> Result<Vec<Taken>, Fault> {
        let (dataset, _) = self.dataset(spot)?;
        Ok(self.snapshot_list(&dataset)?.into_iter().map(|(_, taken)| taken).collect())
    }

    fn snapshots_apart(&self) -> bool {
        true
    }

    fn take(&self, spot: &Spot, name: &str, order: &str) -> Result<(), Fault> {
        let (dataset, path) = self.dataset(spot)?;
        let number = self.snapshot_list(&dataset)?.last().map_or(1, |(number, _)| number + 1);
        let file = File::open(&path).and_then(|file| {
            // What the file system holds back in memory is in the snapshot only once it was written.
            file.sync_all()?;
            Ok(file.metadata()?.len())
        });
        let size = file.map_err(|error| io_fault("read", &path, &error))?;
        let [number, size] = [format!("{NUMBER}={number}"), format!("{SIZE}={size}")];
        let (order, snapshot) = (format!("{ORDER}={order}"), format!("{dataset}@{name}"));
        let words = ["snapshot", "-o", &number, "-o", &size, "-o", &order, &snapshot];
        self.pool.run(&words).map(drop)
    }

    fn forget(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault> {
        let (dataset, _) = self.dataset(spot)?;
        self.pool.run(&["destroy", &format!("{dataset}@{}", taken.name)]).map(drop)
    }

    fn check_roll_back(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault> {
        let (dataset, _) = self.dataset(spot)?;
        let ours: Vec<String> =
            self.snapshot_list(&dataset)?.into_iter().map(|(_, taken)| taken.name).collect();
        let words = ["get", "-H", "-p", "-r", "-d", "1", "-o", "name,value", "createtxg", &dataset];
        let newer = zfs_pool::newer_snapshots(&self.pool.run(&words)?, &dataset, &taken.name);
        let Some(theirs) = newer.iter().find(|name| !ours.contains(name)) else { return Ok(()) };
        let text = format!(
            "{dataset} has a more recent snapshot that is not Haar's ({theirs}); ZFS rolls back only to the newest: \
             zfs destroy {dataset}@{theirs}, or keep the disk as it is"
        );
        Err(Fault::new(FaultCode::Conflict, text))
    }

    fn roll_back(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault> {
        let (dataset, path) = self.dataset(spot)?;
        // Not held: the dataset is unmounted meanwhile, and who holds a file in it stands in the way.
        check_off(&path, "roll back")?;
        self.pool.run(&["rollback", &format!("{dataset}@{}", taken.name)])?;
        let reserved = format!("refreservation={}", reserved_bytes(taken.size_bytes));
        self.pool.run(&["set", &reserved, &dataset]).map(drop)
    }

    fn is_held(&self, spot: &Spot) -> Result<bool, Fault> {
        is_held(&self.path(spot))
    }

    fn mend(&self, _: &Spot) -> Result<(), Fault> {
        // Each act of the file system is whole.
        Ok(())
    }

    fn open(&self, spot: &Spot, taken: &Taken, _: &Path) -> Result<Box<dyn Content>, Fault> {
        let (dataset, path) = self.dataset(spot)?;
        let name = format!("read-{}", Uuid::new_v4());
        let mount = self.mounts.join(&name);
        let snapshot = format!("{dataset}@{}", taken.name);
        self.pool.make(&name, &mount, &["readonly=on"], Some(&snapshot))?;
        let mut reading = Reading { file: None, dataset: self.pool.dataset(&name)?, mount };
        let path = reading.mount.join(path.file_name().unwrap_or(EMPTY.as_ref()));
        reading.file = Some(File::open(&path).map_err(|error| io_fault("open", &path, &error))?);
        Ok(Box::new(reading))
    }
}

/// What the pool holds back for a disk: the file system's own tables come on top of the bytes.
fn reserved_bytes(size_bytes: u64) -> u64 {
    size_bytes.saturating_add(size_bytes / 64).saturating_add(1 << 20)
}

/// A snapshot being read, through a clone that goes with it. There are file systems without `.zfs/snapshot`.
struct Reading {
    file: Option<File>,
    dataset: String,
    mount: PathBuf,
}

impl Content for Reading {
    fn read(&mut self, offset: u64, most: u64, buffers: &Buffers) -> io::Result<Bytes> {
        match &self.file {
            Some(file) => buffers.of_file(file, offset, most),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // An open file keeps it mounted.
        self.file = None;
        match zfs_pool::destroy_blocking(&self.dataset) {
            Ok(()) => drop(fs::remove_dir(&self.mount)),
            Err(why) => tracing::warn!(dataset = self.dataset, why, "not destroyed; the next start does it"),
        }
    }
}
