//! The `zfs` back end: a dataset for each disk, with the disk as a raw file in it, or where the host's ZFS makes them
//! a volume for each disk (`zfs_volume.rs`); clones, snapshots and rollbacks are ZFS's own.
//!
//! ```text
//! <root> lies on the dataset P
//! P/haar-image-<id>     mounted on <root>/zfs/image-<id>: <id>.raw, the snapshot @base, and then a file, ready
//! P/haar-disk-<uuid>    mounted on <root>/zfs/disk-<uuid>: <image id>.raw, or disk.raw when it came from none
//! P/haar-read-<uuid>    a clone of a snapshot for as long as it is downloaded
//! <guest>/disk-0.zfs    a link to the disk's file, or to the link to its device
//! ```
//!
//! A disk is where its link points: the link is there, hidden, before the dataset, and a dataset is destroyed by
//! the link that names it, so that guests' folders are made and removed whole like any other. The pool holds back
//! the room of each disk (`refreservation`) from the moment it is made. A disk stays what it was made as, and so does
//! an image, which decides for the disks that are cloned from it.
//! Deliberately absent: making the one into the other. Snapshots that others take of our datasets are not shown and
//! not deleted.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use haar_api::rpc::{Fault, FaultCode};
use uuid::Uuid;

use super::backend::{Base, Content, Looks, RawSize, Spot, Taken, Volumes};
use super::disks::MOST_BYTES;
use super::folders::{io_fault, make_passable, sync_folder};
use super::found::names_in;
use super::in_use::hold;
use super::space::held_bytes;
use super::zfs_pool::{self, Pool};
use super::zfs_read::Reading;
use super::zfs_volume::Medium;

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
    /// Whether new disks are volumes.
    volumes: AtomicBool,
}

/// A disk that a link in its guest's folder leads to.
struct Disk {
    /// The dataset's name, without the pool's.
    name: String,
    dataset: String,
    medium: Medium,
}

impl Zfs {
    /// `root` is the storage's folder; `work` is locked by this process, and programs share the lock.
    pub(super) fn new(root: &Path, work: File) -> Self {
        Zfs { mounts: root.join("zfs"), pool: Pool::of(root, work), volumes: AtomicBool::new(false) }
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
        for name in self.pool.list_volumes()? {
            if let Err(fault) = self.put_right(&name, true) {
                tracing::warn!(name, %fault, "a volume cannot be destroyed; the others are used");
            }
        }
        Ok(())
    }

    /// Has new disks be volumes from now on, where they can be.
    pub(super) fn look_for_volumes(&self) {
        match self.pool.check_volumes() {
            Ok(()) => self.volumes.store(true, Ordering::Relaxed),
            Err(why) => tracing::info!(%why, "ZFS makes no volumes here; new disks are files in datasets"),
        }
    }

    fn makes_volumes(&self) -> bool {
        self.volumes.load(Ordering::Relaxed)
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

    /// Why what a disk is in is not there, though its link is.
    fn why_missing(&self, name: &str, medium: &Medium) -> io::Error {
        let gone = |words: &str| io::Error::new(io::ErrorKind::InvalidData, words);
        let unreachable = |words: String| io::Error::new(io::ErrorKind::NotConnected, words);
        if let Medium::Volume(_) = medium {
            return match self.pool.exists(name) {
                Ok(false) => gone("its volume is gone"),
                Ok(true) => unreachable("its volume has no device; run udevadm trigger".to_owned()),
                Err(fault) => unreachable(fault.message),
            };
        }
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

    fn disk(&self, spot: &Spot) -> Result<Disk, Fault> {
        let link = spot.file(ENDING);
        let (name, path) = self.place(&link).map_err(|error| io_fault("read", &link, &error))?;
        Ok(Disk { dataset: self.pool.dataset(&name)?, name, medium: Medium::at(path) })
    }

    /// Destroys what a link names, then the link.
    fn discard_link(&self, link: &Path) -> Result<(), Fault> {
        let failed = |error| io_fault("remove", link, &error);
        let (name, path) = self.place(link).map_err(failed)?;
        self.pool.destroy(&name)?;
        let _ = remove_mount(&path);
        fs::remove_file(link).map_err(failed)
    }

    fn fill(&self, path: &Path, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault> {
        let (name, mount) = (self.name_of(path).unwrap_or_default(), path.parent().unwrap_or(path));
        let image = base.map(|base| self.image_of(base)).transpose()?;
        let image = image.map(|image| format!("{image}@{IMAGE_SNAPSHOT}"));
        let is_volume = base.map_or_else(|| self.makes_volumes(), |base| base.path.is_symlink());
        if is_volume {
            return self.pool.make_disk_volume(&name, path, size_bytes, image.as_deref());
        }
        let reserved = format!("refreservation={}", reserved_bytes(size_bytes));
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
        self.place(&link).map_or(link, |(_, path)| Medium::at(path).path().to_owned())
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
        // The link of a volume may lead nowhere.
        path.with_file_name(READY).is_file() && path.exists()
    }

    fn make_raw_base(
        &self,
        path: &Path,
        size: RawSize,
        fill: &dyn Fn(&Path) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
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
            if self.makes_volumes() {
                self.pool.make_image_volume(&name, path, size)?;
            } else {
                self.pool.make(&name, mount, &[], None)?;
            }
            fill(path)?;
            let failed = |error| io_fault("keep", path, &error);
            File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
            self.pool.run(&["snapshot", &format!("{}@{IMAGE_SNAPSHOT}", self.pool.dataset(&name)?)])?;
            if path.is_symlink() {
                self.pool.close_image_volume(&name)?;
            }
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
        match remove_mount(path) {
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
        let medium = Medium::at(path.clone());
        let explained = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => self.why_missing(&name, &medium),
            _ => error,
        };
        let size_bytes = medium.size_bytes().map_err(explained)?;
        if !(1..=MOST_BYTES).contains(&size_bytes) {
            return Err(damaged(format!("its size of {size_bytes} bytes cannot be")));
        }
        let image = path.file_stem().and_then(|id| id.to_str()).filter(|_| !path.ends_with(EMPTY));
        let base = image.and_then(|id| self.raw_base(&self.mounts, id, FORMAT));
        let base = base.map(|base| base.to_string_lossy().into_owned());
        // The pool holds back the whole of it, so none of it is in what is free.
        let own_bytes = reserved_bytes(size_bytes);
        let used_bytes = match &medium {
            Medium::File(path) => held_bytes(&fs::metadata(path).map_err(explained)?),
            Medium::Volume(_) => self.pool.volume_bytes(&name),
        };
        Ok(Looks { size_bytes, used_bytes, own_bytes, base })
    }

    fn grow(&self, spot: &Spot, size_bytes: u64) -> Result<(), Fault> {
        let disk = self.disk(spot)?;
        let path = match &disk.medium {
            Medium::File(path) => path,
            Medium::Volume(_) => return self.pool.grow_volume(&disk.name, &disk.medium, size_bytes),
        };
        let file = hold(path, "resize the disk")?;
        let reserved = format!("refreservation={}", reserved_bytes(size_bytes));
        self.pool.run(&["set", &reserved, &disk.dataset])?;
        let grown = file.set_len(size_bytes).and_then(|()| file.sync_all());
        grown.map_err(|error| io_fault("resize", path, &error))
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
        let dataset = self.disk(spot)?.dataset;
        Ok(self.snapshot_list(&dataset)?.into_iter().map(|(_, taken)| taken).collect())
    }

    fn snapshots_apart(&self) -> bool {
        true
    }

    fn take(&self, spot: &Spot, name: &str, order: &str) -> Result<(), Fault> {
        let Disk { dataset, medium, .. } = self.disk(spot)?;
        let number = self.snapshot_list(&dataset)?.last().map_or(1, |(number, _)| number + 1);
        // What the kernel holds back in memory is in the snapshot only once it was written.
        let size =
            File::open(medium.path()).and_then(|file| file.sync_all().and_then(|()| medium.size_bytes()));
        let size = size.map_err(|error| io_fault("read", medium.path(), &error))?;
        let [number, size] = [format!("{NUMBER}={number}"), format!("{SIZE}={size}")];
        let (order, snapshot) = (format!("{ORDER}={order}"), format!("{dataset}@{name}"));
        let words = ["snapshot", "-o", &number, "-o", &size, "-o", &order, &snapshot];
        self.pool.run(&words).map(drop)
    }

    fn forget(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault> {
        let dataset = self.disk(spot)?.dataset;
        self.pool.run(&["destroy", &format!("{dataset}@{}", taken.name)]).map(drop)
    }

    fn check_roll_back(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault> {
        let dataset = self.disk(spot)?.dataset;
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
        let Disk { name, dataset, medium } = self.disk(spot)?;
        // Not held: the dataset is unmounted meanwhile, and who holds a file in it stands in the way. A volume is
        // rolled back under whoever writes to it.
        medium.check_off("roll back")?;
        self.pool.run(&["rollback", &format!("{dataset}@{}", taken.name)])?;
        if let Medium::Volume(_) = medium {
            return self.pool.size_volume(&name, taken.size_bytes);
        }
        let reserved = format!("refreservation={}", reserved_bytes(taken.size_bytes));
        self.pool.run(&["set", &reserved, &dataset]).map(drop)
    }

    fn is_held(&self, spot: &Spot) -> Result<bool, Fault> {
        self.disk(spot)?.medium.is_held()
    }

    fn mend(&self, _: &Spot) -> Result<(), Fault> {
        // Each act of the file system is whole.
        Ok(())
    }

    fn open(&self, spot: &Spot, taken: &Taken, _: &Path) -> Result<Box<dyn Content>, Fault> {
        let Disk { dataset, medium, .. } = self.disk(spot)?;
        Ok(Box::new(Reading::begin(
            &self.pool,
            &format!("{dataset}@{}", taken.name),
            &medium,
            taken.size_bytes,
        )?))
    }
}

/// Removes the folder that a dataset was mounted on, or that has the link to a volume.
fn remove_mount(path: &Path) -> io::Result<()> {
    if path.is_symlink() {
        fs::remove_file(path)?;
    }
    path.parent().map_or(Ok(()), fs::remove_dir)
}

/// What the pool holds back for a disk: the file system's own tables come on top of the bytes.
fn reserved_bytes(size_bytes: u64) -> u64 {
    size_bytes.saturating_add(size_bytes / 64).saturating_add(1 << 20)
}
