//! The `qcow2` back end: a disk is an overlay on a read-only base image, made in constant time on any file
//! system; its snapshots are inside its file.
//!
//! Formats are always named and never probed. What stands on the disk is read from our own headers, so that a
//! disk in use by QEMU is not touched.
//! A snapshot inside keeps the disk's path, is taken and rolled back by copying tables and no data, and ends
//! with the file. Killed in the middle, `qemu-img` leaves the disk as it was before or after, and clusters that
//! nobody counts, which [`Volumes::mend`] frees. Only QEMU itself can take one while the guest runs.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use haar_api::image_check::{Unreadable, read_qcow2_header};
use haar_api::rpc::libvirt::inner_name;
use haar_api::rpc::{Fault, FaultCode};

use super::backend::{Base, Content, Looks, Spot, Taken, Volumes};
use super::disks::MOST_BYTES;
use super::folders::{io_fault, sync_folder};
use super::in_use::{check_off, is_held};
use super::qcow2_map::Map;
use super::qcow2_read::Snapshot;
use super::space::held_bytes;
use super::{qcow2_table, qemu_img};

const FORMAT: &str = "qcow2";

/// The back end.
#[derive(Debug)]
pub(super) struct Qcow2 {
    /// Locked by this process. A `qemu-img` that outlives it keeps the lock, and the next start waits for that.
    work: File,
}

impl Qcow2 {
    pub(super) fn new(work: File) -> Self {
        Qcow2 { work }
    }

    /// Changes a disk.
    fn run<A: AsRef<OsStr>>(&self, arguments: &[A], limit: Duration) -> Result<(), Fault> {
        let work = self.work.try_clone().map_err(|error| {
            Fault::new(FaultCode::Unavailable, format!("qemu-img cannot be started: {error}"))
        })?;
        qemu_img::run(arguments, work.into(), limit).map(drop)
    }

    fn snapshot(&self, path: &Path, act: &str, name: &str, words: &str) -> Result<(), Fault> {
        check_off(path, words)?;
        // Each of them touches the count of every cluster.
        self.run(&["snapshot", "-q", "--image-opts", act, name, &options(path)], qemu_img::LONG_LIMIT)?;
        sync(path)
    }

    fn create(&self, path: &Path, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault> {
        let size = size_bytes.to_string();
        let mut arguments = vec!["create".as_ref(), "-q".as_ref(), "-f".as_ref(), FORMAT.as_ref()];
        if let Some(base) = base {
            arguments.extend(["-F".as_ref(), base.format.as_ref(), "-b".as_ref(), base.path.as_os_str()]);
        }
        arguments.extend([path.as_os_str(), size.as_ref()]);
        self.run(&arguments, qemu_img::LIMIT)?;
        finish(path).map_err(|error| io_fault("make durable", path, &error))
    }
}

impl Volumes for Qcow2 {
    fn format(&self) -> &'static str {
        FORMAT
    }

    fn leans_on_base(&self) -> bool {
        true
    }

    fn make(&self, spot: &Spot, size_bytes: u64, base: Option<&Base>) -> Result<(), Fault> {
        let (hidden, path) = (spot.hidden(FORMAT), spot.file(FORMAT));
        let _ = fs::remove_file(&hidden);
        let made = self.create(&hidden, size_bytes, base).and_then(|()| {
            let named = fs::rename(&hidden, &path).and_then(|()| sync_folder(&spot.folder));
            named.map_err(|error| io_fault("make", &path, &error))
        });
        if made.is_err() {
            let _ = fs::remove_file(&hidden);
        }
        made
    }

    fn look(&self, spot: &Spot) -> io::Result<Looks> {
        let path = spot.file(FORMAT);
        let damaged = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let metadata = fs::metadata(&path)?;
        // Opening a pipe would wait for its writer.
        if !metadata.is_file() {
            return Err(damaged("it is not a regular file".to_owned()));
        }
        let file = File::open(&path)?;
        let header = read_qcow2_header(&file).map_err(|unreadable| match unreadable {
            Unreadable::Io(error) => error,
            flaw => damaged(flaw.to_string()),
        })?;
        if !(1..=MOST_BYTES).contains(&header.size_bytes()) {
            return Err(damaged(format!("its size of {} bytes cannot be", header.size_bytes())));
        }
        let used_bytes = held_bytes(&metadata);
        let base = header.backing_file(&file)?;
        // What a snapshot holds is kept, so the guest may write its whole disk beside it.
        let own_bytes = if qcow2_table::is_empty(&file)? {
            used_bytes
        } else {
            // Of a file that QEMU writes just now: less than it is, at worst.
            let own = Map::of_disk(file).and_then(|map| map.map_or(Ok(0), |(map, _)| map.own_bytes()));
            own.unwrap_or_default().min(used_bytes)
        };
        Ok(Looks { size_bytes: header.size_bytes(), used_bytes, own_bytes, base })
    }

    fn grow(&self, spot: &Spot, size_bytes: u64) -> Result<(), Fault> {
        let path = spot.file(FORMAT);
        check_off(&path, "resize the disk")?;
        let size = size_bytes.to_string();
        let words = ["resize".as_ref(), "-q".as_ref(), "-f".as_ref(), FORMAT.as_ref(), path.as_os_str()];
        self.run(&[&words[..], &[size.as_ref()]].concat(), qemu_img::LIMIT)?;
        sync(&path)
    }

    fn remove(&self, spot: &Spot) -> Result<(), Fault> {
        let path = spot.file(FORMAT);
        let removed = fs::remove_file(&path).and_then(|()| sync_folder(&spot.folder));
        removed.map_err(|error| io_fault("remove", &path, &error))
    }

    fn snapshots(&self, spot: &Spot) -> Result<Vec<Taken>, Fault> {
        let path = spot.file(FORMAT);
        let taken = File::open(&path).and_then(|file| qcow2_table::read(&file));
        taken.map_err(|error| io_fault("read the snapshots of", &path, &error))
    }

    fn snapshots_apart(&self) -> bool {
        false
    }

    fn take(&self, spot: &Spot, name: &str, order: &str) -> Result<(), Fault> {
        self.snapshot(&spot.file(FORMAT), "-c", &inner_name(name, order), "take a snapshot")
    }

    fn forget(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault> {
        self.snapshot(&spot.file(FORMAT), "-d", &inner_name(&taken.name, &taken.order), "delete the snapshot")
    }

    fn roll_back(&self, spot: &Spot, taken: &Taken) -> Result<(), Fault> {
        self.snapshot(&spot.file(FORMAT), "-a", &inner_name(&taken.name, &taken.order), "roll back")
    }

    fn is_held(&self, spot: &Spot) -> Result<bool, Fault> {
        is_held(&spot.file(FORMAT))
    }

    fn mend(&self, spot: &Spot) -> Result<(), Fault> {
        let path = spot.file(FORMAT);
        check_off(&path, "tidy up after an act that was interrupted")?;
        let options = options(&path);
        self.run(&["check", "-q", "-r", "leaks", "--image-opts", &options], qemu_img::LONG_LIMIT)?;
        sync(&path)
    }

    fn open(&self, spot: &Spot, taken: &Taken, streams: &Path) -> Result<Box<dyn Content>, Fault> {
        let path = spot.file(FORMAT);
        // What a snapshot holds is never written again, so QEMU's own lock need not be asked.
        let options = format!("{},file.locking=off", options(&path));
        let name = inner_name(&taken.name, &taken.order);
        let content = Snapshot::open(&path, taken, options, name, streams);
        Ok(Box::new(content.map_err(|error| io_fault("read", &path, &error))?))
    }
}

/// Only root may read a disk until libvirt hands it to QEMU's user.
fn finish(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    File::open(path)?.sync_all()
}

fn sync(path: &Path) -> Result<(), Fault> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|error| io_fault("make durable", path, &error))
}

/// The file with its format named; `qemu-img snapshot` has no other way to be told. A comma in the path is
/// doubled, as the options' grammar has it. The root's path is known to be UTF-8.
fn options(path: &Path) -> String {
    let path = path.to_string_lossy().replace(',', ",,");
    format!("driver={FORMAT},file.driver=file,file.filename={path}")
}
