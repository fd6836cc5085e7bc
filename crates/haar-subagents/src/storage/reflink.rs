//! The `reflink` back end: raw files that share extents with their image and their snapshots.
//!
//! ```text
//! <guest>/disk-0.raw                 the disk; the image it came from is in an attribute of the file
//! <guest>/disk-0@00000003@name@order.snap
//!                                    a snapshot, 0400; the number is their order, whatever the clocks say
//! ```
//!
//! Every act makes a hidden file by `FICLONE` and renames it, so a kill leaves the old or the new and a hidden
//! file that the next start sweeps away. The clone is one moment of the file, so a disk may be snapshotted while
//! its guest runs, provided that somebody holds the guest still; what the guest's kernel had not written yet is
//! not in it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use haar_api::rpc::{Fault, FaultCode};
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, ioctl_ficlone};

use super::backend::{Base, Content, Looks, RawSize, Spot, Taken, Volumes};
use super::buffers::Buffers;
use super::disks::MOST_BYTES;
use super::folders::{io_fault, sync_folder};
use super::found::names_in;
use super::in_use::{hold, is_held};
use super::names::disk_name;
use super::space::held_bytes;

const FORMAT: &str = "raw";
const SNAPSHOT: &str = "snap";
/// The ending of a raw file that was made from an image of another format.
pub(super) const EXPANDED: &str = "expanded";
/// The attribute that remembers the image's file.
const BASE: &str = "user.haar.base";

/// The back end; it has no state.
#[derive(Debug)]
pub(super) struct Reflink;

/// Whether files in this folder can share extents, by trying it.
pub(super) fn probe(folder: &Path) -> io::Result<()> {
    let [from, to] = [".probe-from", ".probe-to"].map(|name| folder.join(name));
    let tried = fs::write(&from, [1; 4096]).and_then(|()| clone_file(&from, &to).map(drop));
    let _ = fs::remove_file(&from);
    let _ = fs::remove_file(&to);
    tried
}

impl Volumes for Reflink {
    fn format(&self) -> &'static str {
        FORMAT
    }

    fn leans_on_base(&self) -> bool {
        false
    }

    fn raw_base(&self, images: &Path, id: &str, format: &str) -> Option<PathBuf> {
        (format != FORMAT).then(|| images.join(format!("{id}.{EXPANDED}")))
    }

    fn raw_bases(&self, images: &Path) -> Result<Vec<(String, PathBuf)>, Fault> {
        let names = names_in(images)?;
        let of = |name: &String| {
            let id = name.strip_suffix(EXPANDED)?.strip_suffix('.')?;
            Some((id.to_owned(), images.join(name)))
        };
        Ok(names.iter().filter_map(of).collect())
    }

    fn make_raw_base(
        &self,
        path: &Path,
        _: RawSize,
        fill: &dyn Fn(&Path) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (folder, hidden) = (path.parent().unwrap_or(path), path.with_file_name(format!(".{name}")));
        let _ = fs::remove_file(&hidden);
        let made = fill(&hidden).and_then(|()| {
            let keep = || {
                File::open(&hidden)?.sync_all()?;
                fs::rename(&hidden, path)?;
                sync_folder(folder)
            };
            keep().map_err(|error| io_fault("keep", path, &error))
        });
        if made.is_err() {
            let _ = fs::remove_file(&hidden);
        }
        made
    }

    fn make(&self, spot: &Spot, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault> {
        if let Some(base) = base
            && base.format != FORMAT
        {
            let text = format!("{} is {} and cannot be cloned as raw", base.path.display(), base.format);
            return Err(Fault::new(FaultCode::Failed, text));
        }
        put(spot, &spot.file(FORMAT), 0o600, |hidden| {
            let file = match base {
                Some(base) => clone_file(&base.path, hidden)?,
                None => new_file(hidden)?,
            };
            if let Some(base) = base {
                set_base(&file, base.path.as_os_str().as_encoded_bytes())?;
            }
            file.set_len(size_bytes)?;
            Ok(file)
        })
    }

    fn look(&self, spot: &Spot) -> io::Result<Looks> {
        let damaged = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let path = spot.file(FORMAT);
        let metadata = fs::metadata(&path)?;
        // Opening a pipe would wait for its writer.
        if !metadata.is_file() {
            return Err(damaged("it is not a regular file".to_owned()));
        }
        if !(1..=MOST_BYTES).contains(&metadata.len()) {
            return Err(damaged(format!("its size of {} bytes cannot be", metadata.len())));
        }
        let base = base_of(&File::open(&path)?)?;
        let base =
            base.map(String::from_utf8).transpose().map_err(|_| damaged("its base has no name".into()))?;
        let used_bytes = held_bytes(&metadata);
        // At most so much is shared: with the newest snapshot, which has all that was here when it was taken, or with
        // the image, which may be gone while its other clones still share with this one.
        let newest = snapshot_files(spot).map_err(io::Error::other)?.pop().map(|file| file.path);
        let shared_bytes = newest
            .or_else(|| base.as_ref().map(PathBuf::from))
            .map_or(0, |with| fs::metadata(with).map_or(used_bytes, |with| held_bytes(&with)));
        Ok(Looks {
            size_bytes: metadata.len(),
            used_bytes,
            own_bytes: used_bytes.saturating_sub(shared_bytes),
            base,
        })
    }

    fn grow(&self, spot: &Spot, size_bytes: u64) -> Result<(), Fault> {
        let path = spot.file(FORMAT);
        let file = hold(&path, "resize the disk")?;
        let grown = file.set_len(size_bytes).and_then(|()| file.sync_all());
        grown.map_err(|error| io_fault("resize", &path, &error))
    }

    fn remove(&self, spot: &Spot) -> Result<(), Fault> {
        // The disk last: snapshots without a disk would be seen by nobody.
        let mut paths: Vec<PathBuf> = snapshot_files(spot)?.into_iter().map(|file| file.path).collect();
        paths.push(spot.file(FORMAT));
        for path in paths {
            fs::remove_file(&path).map_err(|error| io_fault("remove", &path, &error))?;
        }
        sync_folder(&spot.folder).map_err(|error| io_fault("sync", &spot.folder, &error))
    }

    fn snapshots(&self, spot: &Spot) -> Result<Vec<Taken>, Fault> {
        let mut taken = Vec::new();
        for file in snapshot_files(spot)? {
            let failed = |error| io_fault("look at", &file.path, &error);
            let metadata = fs::metadata(&file.path).map_err(failed)?;
            taken.push(Taken {
                name: file.name,
                order: file.order,
                size_bytes: metadata.len(),
                created_s: u64::try_from(metadata.mtime()).unwrap_or_default(),
                identity: format!("{}-{}-{}", file.number, metadata.mtime(), metadata.mtime_nsec()),
            });
        }
        Ok(taken)
    }

    fn snapshots_apart(&self) -> bool {
        true
    }

    fn take(&self, spot: &Spot, name: &str, order: &str) -> Result<(), Fault> {
        let disk = spot.file(FORMAT);
        let number = snapshot_files(spot)?.last().map_or(1, |newest| newest.number + 1);
        let disk_name = disk_name(spot.index);
        let file = format!("{disk_name}@{number:08}@{name}@{order}.{SNAPSHOT}");
        put(spot, &spot.folder.join(file), 0o400, |hidden| copy(&disk, hidden))
    }

    fn forget(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault> {
        let path = snapshot_file(spot, taken)?;
        let removed = fs::remove_file(&path).and_then(|()| sync_folder(&spot.folder));
        removed.map_err(|error| io_fault("remove", &path, &error))
    }

    fn roll_back(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault> {
        let disk = spot.file(FORMAT);
        let _held = hold(&disk, "roll back")?;
        let snapshot = snapshot_file(spot, taken)?;
        put(spot, &disk, 0o600, |hidden| copy(&snapshot, hidden))
    }

    fn is_held(&self, spot: &Spot) -> Result<bool, Fault> {
        is_held(&spot.file(FORMAT))
    }

    fn mend(&self, _: &Spot) -> Result<(), Fault> {
        // Hidden files are swept away at start and overwritten before that.
        Ok(())
    }

    fn open(&self, spot: &Spot, taken: &Taken, _: &Path) -> Result<Box<dyn Content>, Fault> {
        let path = snapshot_file(spot, taken)?;
        let file = File::open(&path).map_err(|error| io_fault("open", &path, &error))?;
        Ok(Box::new(file))
    }
}

impl Content for File {
    fn read(&mut self, offset: u64, most: u64, buffers: &Buffers) -> io::Result<Bytes> {
        buffers.of_file(self, offset, most)
    }
}

/// A snapshot's file, by its name.
struct SnapshotFile {
    number: u64,
    name: String,
    order: String,
    path: PathBuf,
}

/// Oldest first.
fn snapshot_files(spot: &Spot) -> Result<Vec<SnapshotFile>, Fault> {
    let disk = disk_name(spot.index);
    let mut files = Vec::new();
    for file in names_in(&spot.folder)? {
        let inner = file.strip_suffix(SNAPSHOT).and_then(|file| file.strip_suffix('.'));
        let Some(inner) = inner else { continue };
        let parts: Vec<&str> = inner.split('@').collect();
        if let [of, number, name, order] = parts[..]
            && of == disk
            && let Ok(number) = number.parse()
        {
            let (name, order) = (name.to_owned(), order.to_owned());
            files.push(SnapshotFile { number, name, order, path: spot.folder.join(&file) });
        }
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

fn snapshot_file(spot: &Spot, taken: &Taken) -> Result<PathBuf, Fault> {
    let file = snapshot_files(spot)?.into_iter().find(|file| file.name == taken.name);
    let absent = || Fault::new(FaultCode::NotFound, format!("snapshot {:?} not found", taken.name));
    file.map(|file| file.path).ok_or_else(absent)
}

/// Makes a file whole under a hidden name, then gives it its own.
fn put(
    spot: &Spot,
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&Path) -> io::Result<File>,
) -> Result<(), Fault> {
    let hidden = spot.hidden(FORMAT);
    let _ = fs::remove_file(&hidden);
    let made = fill(&hidden).and_then(|file| {
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&hidden, path)?;
        sync_folder(&spot.folder)
    });
    if made.is_err() {
        let _ = fs::remove_file(&hidden);
    }
    made.map_err(|error| io_fault("make", path, &error))
}

/// A clone with what it remembers of its image.
fn copy(from: &Path, to: &Path) -> io::Result<File> {
    let file = clone_file(from, to)?;
    if let Some(base) = base_of(&File::open(from)?)? {
        set_base(&file, &base)?;
    }
    Ok(file)
}

fn clone_file(from: &Path, to: &Path) -> io::Result<File> {
    let (source, target) = (File::open(from)?, new_file(to)?);
    ioctl_ficlone(&target, &source)?;
    Ok(target)
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn set_base(file: &File, base: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, BASE, base, XattrFlags::empty())?)
}

fn base_of(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut base = vec![0; 4096];
    match fgetxattr(file, BASE, &mut base[..]) {
        Ok(length) => {
            base.truncate(length);
            Ok(Some(base))
        }
        // A file system without attributes has no clones of ours either.
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
