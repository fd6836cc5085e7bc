//! The storage sub-agent: base images fetched once and verified, guest disks cloned from them in constant
//! time (design §7; the methods are `mistify-wire` §2.12).
//!
//! Promised: nothing half made is ever seen under its own name; a disk that once held data is never rebuilt;
//! QEMU opens no image that was not checked first; room is counted in bytes and refused before it is written.
//! All state is on the disk, none is needed from before a restart.
//! Deliberately absent: snapshots of a guest that writes meanwhile.

mod backend;
mod buffers;
mod devices;
mod disks;
mod download;
mod expand;
mod fetch;
pub(crate) mod fetching;
pub(crate) mod folders;
mod found;
mod images;
mod in_use;
mod incoming;
mod methods;
pub(crate) mod names;
mod nbd;
mod owner;
mod part;
mod pending;
mod qcow2;
mod qcow2_map;
mod qcow2_read;
mod qcow2_table;
mod qemu_img;
pub(crate) mod reach;
mod readers;
mod receive;
mod reflink;
mod snapshots;
pub(crate) mod source;
mod space;
mod tar;
mod unpacked;
mod upload;
mod volumes;
mod zfs;
mod zfs_pool;
mod zfs_read;
mod zfs_volume;

use std::future::Future;
use std::io;
use std::path::PathBuf;

use haar_api::rpc::ImageService;
pub use haar_api::rpc::storage::{Backend, UnknownBackend};

use crate::kit;

/// What the sub-agent is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it answers.
    pub listen: kit::Listen,
    /// The folder that holds `images/` and `disks/`; made when absent.
    pub root: PathBuf,
    /// Folders that `file://` sources may lie in; none allows no files.
    pub image_dirs: Vec<PathBuf>,
    /// Where images come from that are asked for by their id alone.
    pub image_service: Option<ImageService>,
    /// What new disks are made of; a disk stays with the back end that made it.
    pub backend: Backend,
    /// The cloud's id, written beside disks; those of another cloud are not touched.
    pub cloud: String,
}

/// Why the sub-agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder cannot be made or used.
    #[error(
        "cannot use {path} for storage; check that it is on a writable file system and that you are root"
    )]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another storage sub-agent works on the root folder.
    #[error("another storage sub-agent works on {0}; stop that one first or configure another root")]
    InUse(PathBuf),
    /// The root's path cannot be written in JSON.
    #[error("the path {0:?} is not UTF-8; configure another root")]
    RootName(PathBuf),
    /// The file system cannot do what the back end needs.
    #[error(
        "files in {root} cannot share extents, which the reflink back end needs; use a btrfs or an xfs made with \
         reflink=1, or choose the back end qcow2"
    )]
    CannotShare {
        /// The folder of disks.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no ZFS to make disks on.
    #[error("the back end zfs cannot be used: {0}")]
    NoZfs(String),
    /// A program that an earlier run started does not end.
    #[error(
        "a qemu-img that an earlier run started still works on {0}; look for it with fuser {0}/work, end it, and \
         start again"
    )]
    AtWork(PathBuf),
    /// The socket or port.
    #[error(transparent)]
    Kit(#[from] kit::Error),
}

/// Answers `ImageStore.*` until `shutdown` resolves. Fetches that still run then are given up.
///
/// # Errors
/// [`Error`] says what stands in the way.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let store = methods::open(&config).await?;
    let mut server = kit::Server::new();
    methods::register(&mut server, &store);
    let bound = server.bind(&config.listen)?;
    tracing::info!(root = %config.root.display(), "storage sub-agent ready");
    let served = bound.serve(shutdown).await;
    store.stop();
    Ok(served?)
}
