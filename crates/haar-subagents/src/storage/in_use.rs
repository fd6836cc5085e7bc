//! Whether QEMU holds a disk: it locks bytes of the file for as long as it may write, paused or not.
//!
//! Promised: asking takes no lock, so no guest's start fails because somebody asked. Deliberately absent: any
//! other program; `qemu-img` of ours has its turn.

use std::fs::File;
use std::path::Path;

use haar_api::rpc::{Fault, FaultCode};
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

/// Whether QEMU holds the file.
pub(super) fn is_held(path: &Path) -> Result<bool, Fault> {
    let file = File::open(path).map_err(|error| io_fault("open", path, &error))?;
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: FIRST,
        l_len: LENGTH,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))
        .map_err(|errno| io_fault("ask the locks of", path, &errno.into()))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
