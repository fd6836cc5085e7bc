//! A snapshot of a dataset or a volume being read, through a clone that goes with the reading.
//!
//! There are file systems without `.zfs/snapshot`, and volumes whose snapshots have no devices. Promised: a clone that
//! outlives its reader is destroyed by the next start.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use haar_api::rpc::Fault;
use uuid::Uuid;

use super::backend::Content;
use super::buffers::Buffers;
use super::folders::io_fault;
use super::zfs_pool::{self, Pool};
use super::zfs_volume::Medium;

const ONLY_READ: &str = "readonly=on";

/// Until it is dropped.
pub(super) struct Reading {
    file: Option<File>,
    dataset: String,
    /// Where the clone is mounted, if it is no volume.
    mount: PathBuf,
}

impl Reading {
    /// Opens a snapshot of what a disk is in, in which the disk has this size.
    pub(super) fn begin(
        pool: &Pool,
        snapshot: &str,
        medium: &Medium,
        size_bytes: u64,
    ) -> Result<Self, Fault> {
        let name = format!("read-{}", Uuid::new_v4());
        let (mount, dataset) = (pool.mount(&name), pool.dataset(&name)?);
        match medium {
            Medium::File(_) => pool.make(&name, &mount, &[ONLY_READ], Some(snapshot))?,
            Medium::Volume(_) => pool.clone_volume(&name, snapshot, &["-o", ONLY_READ])?,
        }
        let mut reading = Reading { file: None, dataset, mount };
        let path = match medium {
            Medium::File(path) => reading.mount.join(path.file_name().unwrap_or(path.as_os_str())),
            Medium::Volume(_) => pool.wait_for(&name, size_bytes)?,
        };
        reading.file = Some(File::open(&path).map_err(|error| io_fault("open", &path, &error))?);
        Ok(reading)
    }
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
