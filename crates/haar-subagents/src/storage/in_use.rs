//! Whether QEMU holds a disk: it locks bytes of the file for as long as it may write, paused or not.
//!
//! Promised: asking takes no lock, so no guest's start fails because somebody asked. Deliberately absent: any
//! other program; `qemu-img` of ours has its turn, and takes QEMU's locks itself.

use std::fs::{File, OpenOptions};
use std::path::Path;

use haar_api::rpc::{Fault, FaultCode};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::folders::io_fault;

/// The bytes of a file that QEMU's locks lie in: permissions from 100, what it shares from 200.
const FIRST: i64 = 100;
const LENGTH: i64 = 200;

/// Refuses when a guest runs on this file; `act` completes "cannot … ".
pub(super) fn check_off(path: &Path, act: &str) -> Result<(), Fault> {
    refuse(is_held(path)?, path, act)
}

/// The same for who has looked already.
pub(super) fn refuse(held: bool, path: &Path, act: &str) -> Result<(), Fault> {
    if !held {
        return Ok(());
    }
    let text = format!(
        "cannot {act}: QEMU holds {}, the guest runs or is paused; shut the guest off and ask again",
        path.display()
    );
    Err(Fault::new(FaultCode::Conflict, text))
}

/// Holds the disk as QEMU would, so that no guest starts on it, until the file is dropped; refused when one runs.
///
/// For acts that put another file in the disk's place: a guest that started on the old one would write into a file
/// that has no name any more.
pub(super) fn hold(path: &Path, act: &str) -> Result<File, Fault> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|error| io_fault("open", path, &error))?;
    match fcntl(&file, FcntlArg::F_OFD_SETLK(&range())) {
        Ok(_) => Ok(file),
        Err(Errno::EAGAIN | Errno::EACCES) => refuse(true, path, act).map(|()| file),
        Err(errno) => Err(io_fault("lock", path, &errno.into())),
    }
}

/// Whether QEMU holds the file.
pub(super) fn is_held(path: &Path) -> Result<bool, Fault> {
    let file = File::open(path).map_err(|error| io_fault("open", path, &error))?;
    let mut lock = range();
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))
        .map_err(|errno| io_fault("ask the locks of", path, &errno.into()))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// Every byte that QEMU may lock, for writing: in conflict with any lock of QEMU's.
fn range() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: FIRST,
        l_len: LENGTH,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn no_guest_starts_on_a_disk_that_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk-0.raw");
        std::fs::write(&disk, [0; 4096]).unwrap();
        let starts = || {
            let words = ["-f", "raw", "-c", "read 0 512"];
            let output = Command::new("qemu-io").args(words).arg(&disk).output();
            output.expect("this test needs qemu-io: install qemu-utils").status.success()
        };
        let held = hold(&disk, "roll back").unwrap();
        assert!(is_held(&disk).unwrap() && !starts());
        assert_eq!(hold(&disk, "roll back").unwrap_err().code, FaultCode::Conflict);
        drop(held);
        assert!(!is_held(&disk).unwrap() && starts());
        drop(hold(&disk, "roll back").unwrap());
    }
}
