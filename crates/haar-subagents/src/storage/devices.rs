//! Block devices that disks are: how large one is, whether it is there yet, and whether a guest writes to it.
//!
//! Promised: looking opens nothing for writing and takes no lock. Deliberately absent: QEMU's locks, for libvirt
//! gives each QEMU a `/dev` of its own, and a lock on a node there is not seen on ours; and what the kernel itself
//! holds a device for.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, major, makedev, minor, statx};

/// udev makes a device's name some time after the device.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// The kernel counts in these, whatever the device's own are.
const SECTOR_BYTES: u64 = 512;

/// Bytes of the device; `NotFound` when it is not there.
pub(super) fn size_bytes(device: &Path) -> io::Result<u64> {
    let number = number_of(device)?;
    let size = fs::read_to_string(format!("/sys/dev/block/{}:{}/size", major(number), minor(number)))?;
    let sectors: u64 =
        size.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it has no size"))?;
    Ok(sectors.saturating_mul(SECTOR_BYTES))
}

/// Waits until the device is there and has this size.
pub(super) fn wait_for(device: &Path, wanted_bytes: u64) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        // The kernel looks at the size of a volume again when it is opened.
        let found = File::open(device).and_then(|_| size_bytes(device));
        let why = match found {
            Ok(found) if found == wanted_bytes => return Ok(()),
            Ok(found) => format!("it has {found} bytes and not {wanted_bytes}"),
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > LIMIT {
            let text = format!("{why}, after {} s; does udev run?", LIMIT.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a process has the device open for writing, wherever it has its name: so has QEMU while its guest runs or
/// is paused, and nobody who only looks what is on it.
pub(super) fn is_open_for_writing(device: &Path) -> io::Result<bool> {
    let number = number_of(device)?;
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        // What is no process has no files, and one may have ended since.
        let Ok(files) = fs::read_dir(process.join("fd")) else { continue };
        for file in files.flatten() {
            if is_device(&file.path(), number) && is_writable(&process.join("fdinfo").join(file.file_name()))
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn number_of(device: &Path) -> io::Result<u64> {
    let metadata = fs::metadata(device)?;
    if !metadata.file_type().is_block_device() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no block device"));
    }
    Ok(metadata.rdev())
}

/// Asks what the kernel knows and no server of files: one that hangs would hang this as well.
fn is_device(file: &Path, number: u64) -> bool {
    let looked = statx(CWD, file, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE);
    looked.is_ok_and(|looked| {
        FileType::from_raw_mode(looked.stx_mode.into()) == FileType::BlockDevice
            && makedev(looked.stx_rdev_major, looked.stx_rdev_minor) == number
    })
}

/// From the lines that `/proc` has of an open file.
fn is_writable(info: &Path) -> bool {
    let lines = fs::read_to_string(info).unwrap_or_default();
    let flags = lines.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & 0o3 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_device_has_no_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(size_bytes(file.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let absent = file.path().with_extension("absent");
        assert_eq!(size_bytes(&absent).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(is_open_for_writing(&absent).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_that_is_only_read_is_not_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let info = |file: &File| {
            let number = std::os::fd::AsRawFd::as_raw_fd(file);
            format!("/proc/self/fdinfo/{number}")
        };
        assert!(is_writable(info(file.as_file()).as_ref()));
        assert!(!is_writable(info(&File::open(file.path()).unwrap()).as_ref()));
    }
}
