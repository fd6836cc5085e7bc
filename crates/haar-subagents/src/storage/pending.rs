//! Acts on a guest's snapshots that span disks, or that a kill may cut in two: written down before they begin.
//!
//! ```text
//! (none) ──write──▶ pending.json ──each disk──▶ remove ──▶ (none), answered
//!                        │ killed, or a disk fails
//!                        ▼ at once, at start, before the guest's next change
//!        take: what was taken is removed     forget: finished     roll back: finished
//! ```
//!
//! Promised: nobody was answered for what is undone, and what was answered stands. What only reads settles nothing.
//! A rollback that was answered as failed is given up. One that was cut in two is not finished once the guest has
//! run, or was written to later than [`SPAN`] after the act: what the guest wrote since counts more. A device does not
//! tell when it was written to, so of those none is finished later than that.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use haar_api::rpc::{Fault, FaultCode};
use serde::{Deserialize, Serialize};

use super::folders::{Folders, io_fault, sync_folder, write_json};
use super::found::{self, Found, names_in};

/// How long a program of ours may go on after a kill; what changes a disk later was a guest.
const SPAN: Duration = Duration::from_secs(65);

/// What stands in `pending.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// Version of this record.
    pub(super) v: u32,
    pub(super) act: Act,
    /// The snapshot's name.
    pub(super) name: String,
    /// The disks it concerns, by index.
    pub(super) disks: Vec<usize>,
}

/// What was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Act {
    /// Take a snapshot of that name on each of the disks, none of which had one.
    Take,
    /// Delete it from each of the disks.
    Forget,
    /// Delete what was taken since, and roll each of the disks back.
    RollBack,
}

/// How a record was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// As if it had never begun.
    Undone,
    Finished,
    /// The guest runs or has run; what stands is left as it is.
    Dropped,
}

/// Does an act under its record. A fault ends it the way a restart would, at once; a rollback that does not succeed
/// then is given up, for who is told that it failed may start the guest.
pub(super) fn run(
    folders: &Folders,
    guest: &str,
    pending: &Pending,
    act: impl FnOnce() -> Result<(), Fault>,
) -> Result<(), Fault> {
    let path = record(folders, guest);
    write_json(&path, pending).map_err(|error| io_fault("write", &path, &error))?;
    let Err(fault) = act() else { return end(folders, guest) };
    match finish(folders, guest, pending) {
        Ok(Settled::Finished) => Ok(()),
        Ok(Settled::Undone | Settled::Dropped) => Err(fault),
        Err(later) if pending.act == Act::RollBack => {
            tracing::warn!(guest, fault = %later, "a rollback failed twice and is given up");
            end(folders, guest)?;
            let words =
                "the rollback is given up and may be half done; roll back again before the guest is started";
            Err(Fault { message: format!("{}; {words}", fault.message), ..fault })
        }
        Err(later) => {
            tracing::warn!(guest, fault = %later, "an act on snapshots is not tidied up yet; it is tried again");
            Err(fault)
        }
    }
}

/// Says that the act begins on its next disk: from now on it may take [`SPAN`].
pub(super) fn touch(folders: &Folders, guest: &str) {
    // Without it the rollback of a slow disk may not be finished after a kill, and nothing worse.
    let _ = fs::File::open(record(folders, guest)).and_then(|file| file.set_modified(SystemTime::now()));
}

/// The act on the guest's snapshots that has not ended, if there is one.
pub(super) fn look(folders: &Folders, guest: &str) -> Result<Option<Pending>, Fault> {
    let path = record(folders, guest);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_fault("read", &path, &error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let text = format!(
            "{} is damaged ({error}); look at the snapshots of guest {guest} and remove that file",
            path.display()
        );
        Fault::new(FaultCode::Conflict, text)
    })
}

/// Ends what an earlier act on the guest's snapshots left, if it left anything. The caller has the guest's turn and
/// is about to change its disks.
pub(super) fn settle(folders: &Folders, guest: &str) -> Result<(), Fault> {
    let Some(pending) = look(folders, guest)? else { return Ok(()) };
    let settled = if pending.act == Act::RollBack && is_written_since(folders, guest, &pending)? {
        tracing::warn!(
            guest,
            name = pending.name,
            "a rollback was interrupted, and the disks were written since"
        );
        end(folders, guest)?;
        Settled::Dropped
    } else {
        finish(folders, guest, &pending)?
    };
    tracing::info!(guest, act = ?pending.act, name = pending.name, ?settled, "settled an interrupted act");
    Ok(())
}

/// Whether a disk was changed later than the act itself, or a program that outlived it, can have done it.
fn is_written_since(folders: &Folders, guest: &str, pending: &Pending) -> Result<bool, Fault> {
    let path = record(folders, guest);
    let failed = |error: io::Error| io_fault("look at", &path, &error);
    let begun = fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(failed)?;
    for disk in disks_of(folders, guest, pending)? {
        let metadata = fs::metadata(&disk.path).map_err(|error| io_fault("look at", &disk.path, &error))?;
        let changed = if metadata.file_type().is_block_device() {
            SystemTime::now()
        } else {
            // It changes with every write, and when libvirt hands the file to QEMU.
            SystemTime::UNIX_EPOCH + Duration::from_secs(metadata.ctime().unsigned_abs())
        };
        if changed > begun + SPAN {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same for every guest of this cloud, at start. What cannot be settled yet is told and keeps nobody from starting.
pub(super) fn settle_all(folders: &Folders, cloud: &str) -> Result<(), Fault> {
    for guest in names_in(&folders.disks())? {
        if folders.is_ours(&guest, cloud)
            && let Err(fault) = settle(folders, &guest)
        {
            tracing::warn!(guest, %fault, "an act on snapshots was interrupted and is not settled yet");
        }
    }
    Ok(())
}

fn disks_of(folders: &Folders, guest: &str, pending: &Pending) -> Result<Vec<Found>, Fault> {
    let mut disks = Vec::new();
    for &index in &pending.disks {
        // A disk that is gone took its snapshots with it.
        disks.extend(found::find(folders, guest, index)?);
    }
    Ok(disks)
}

fn finish(folders: &Folders, guest: &str, pending: &Pending) -> Result<Settled, Fault> {
    let disks = disks_of(folders, guest, pending)?;
    let settled = match pending.act {
        Act::Take => {
            for disk in &disks {
                disk.volumes.mend(&disk.spot)?;
                forget(disk, &pending.name)?;
            }
            Settled::Undone
        }
        Act::Forget => {
            for disk in &disks {
                disk.volumes.mend(&disk.spot)?;
                forget(disk, &pending.name)?;
            }
            Settled::Finished
        }
        Act::RollBack => {
            let mut held = false;
            for disk in &disks {
                held |= disk.volumes.is_held(&disk.spot)?;
            }
            if held {
                tracing::warn!(
                    guest,
                    name = pending.name,
                    "a rollback was interrupted and the guest runs since"
                );
                Settled::Dropped
            } else {
                for disk in &disks {
                    touch(folders, guest);
                    disk.volumes.mend(&disk.spot)?;
                    roll_back(disk, &pending.name)?;
                }
                Settled::Finished
            }
        }
    };
    end(folders, guest)?;
    Ok(settled)
}

/// Removes a disk's snapshot of that name, if it has one.
pub(super) fn forget(disk: &Found, name: &str) -> Result<(), Fault> {
    match disk.volumes.snapshots(&disk.spot)?.iter().find(|taken| taken.name == name) {
        Some(taken) => disk.volumes.forget(&disk.spot, taken),
        None => Ok(()),
    }
}

/// Removes a disk's snapshots since that one, newest first, and rolls back; without one nothing is done.
pub(super) fn roll_back(disk: &Found, name: &str) -> Result<(), Fault> {
    let taken = disk.volumes.snapshots(&disk.spot)?;
    let Some(place) = taken.iter().position(|taken| taken.name == name) else { return Ok(()) };
    for newer in taken[place + 1..].iter().rev() {
        disk.volumes.forget(&disk.spot, newer)?;
    }
    disk.volumes.roll_back(&disk.spot, &taken[place])
}

fn end(folders: &Folders, guest: &str) -> Result<(), Fault> {
    let path = record(folders, guest);
    let ended = fs::remove_file(&path).and_then(|()| sync_folder(&folders.guest(guest)));
    ended.map_err(|error| io_fault("remove", &path, &error))
}

fn record(folders: &Folders, guest: &str) -> PathBuf {
    folders.guest(guest).join("pending.json")
}
