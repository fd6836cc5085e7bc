//! The container sub-agent: OCI images and containers of them (design §7; the methods are `mistify-wire` §2.13).
//!
//! Promised: nothing of an image is seen before every layer's digest is right; what an image's names, links and
//! whiteouts say stays inside its own folder; containers run on without the sub-agent, and whatever it was killed in the
//! middle of is ended or finished by its next start. All state is on the disk, none is needed from before a restart.
//! Deliberately absent: building images, layers shared between images, user namespaces.

mod bundle;
mod cgroups;
mod containers;
mod copy;
mod decide;
mod folders;
mod host;
mod images;
mod inspect;
mod keep;
mod layer;
mod load;
mod loads;
mod log;
mod methods;
mod monitor;
mod mounts;
mod network;
pub mod oci;
mod own;
mod process;
mod program;
mod progress;
mod record;
mod registry;
mod removal;
mod root;
mod runtime;
mod save;
mod signal;
mod source;
mod space;
mod user;
mod wire;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use haar_api::rpc::ImageService;
pub use layer::{Devices, lay_layer};
pub use load::Limits;
pub use monitor::monitor;

use tokio::task::JoinSet;

use crate::kit;

/// What the sub-agent is told at start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it answers.
    pub listen: kit::Listen,
    /// The folder that holds `images/` and `containers/`; made when absent.
    pub root: PathBuf,
    /// The folder for what ends with the host's running; made when absent.
    pub run: PathBuf,
    /// Folders that `file://` sources may lie in; none allows no files.
    pub image_dirs: Vec<PathBuf>,
    /// Where images come from that are asked for by their id alone.
    pub image_service: Option<ImageService>,
    /// What an image may take.
    pub limits: Limits,
    /// How the process beside each container is started.
    pub monitor: Monitor,
    /// The cloud's id, written beside containers; those of another cloud are not touched.
    pub cloud: String,
}

/// Makes the command that runs [`monitor`] for a folder.
#[derive(Clone)]
pub struct Monitor(pub Arc<dyn Fn(&Path) -> Command + Send + Sync>);

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Monitor")
    }
}

/// Why the sub-agent cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder cannot be made or used.
    #[error(
        "cannot use {path} for containers; check that it is on a writable file system and that you are root"
    )]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another container sub-agent works on the root folder.
    #[error("another container sub-agent works on {0}; stop that one first or configure another root")]
    InUse(PathBuf),
    /// The root's path cannot be written in a mount's options.
    #[error(
        "the path {0:?} is not UTF-8 or holds a comma, colon, backslash or quotation mark; configure another root"
    )]
    RootName(PathBuf),
    /// A program that an earlier run started does not end.
    #[error(
        "a program that an earlier run started still works on {0}; look for it with fuser {0}/work, end it, and start \
         again"
    )]
    AtWork(PathBuf),
    /// Something of a container stays.
    #[error("a container cannot be removed")]
    Purge(#[source] haar_api::rpc::Fault),
    /// The socket or port.
    #[error(transparent)]
    Kit(#[from] kit::Error),
}

/// Answers `MDocker.*` until `shutdown` resolves. Loads that still run then are given up; containers run on.
///
/// # Errors
/// [`Error`] says what stands in the way.
pub async fn run(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    let host = methods::open(&config).await?;
    let mut server = kit::Server::new();
    methods::register(&mut server, &host);
    let bound = server.bind(&config.listen)?;
    tracing::info!(root = %config.root.display(), "container sub-agent ready");
    // Ended with this function, however that ends.
    let mut keeping = JoinSet::new();
    keeping.spawn(keep::keep(Arc::clone(&host)));
    keeping.spawn(keep::end_strays(Arc::clone(&host)));
    let stopping = Arc::clone(&host);
    // At once, not after the calls: one of them may wait for a container's files to be copied.
    let shutdown = async move {
        shutdown.await;
        stopping.stop_loads();
    };
    let served = bound.serve(shutdown).await;
    keeping.shutdown().await;
    host.stop_loads();
    host.loads.ended().await;
    cgroups::leave(&host.tag);
    Ok(served?)
}

/// Ends and removes every container and image below the root, and what has the cloud's name on the host. No
/// sub-agent may work on the root. A root that is not there is fine.
///
/// # Errors
/// [`Error::Purge`] when something stays, besides what stands in the way of a start.
pub async fn purge(config: &Config) -> Result<(), Error> {
    if !config.root.exists() {
        return Ok(());
    }
    let host = methods::open(config).await?;
    let removing = tokio::task::spawn_blocking(move || {
        let removed = host.remove_all();
        cgroups::leave(&host.tag);
        removed
    });
    let removed = removing.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    removed.map_err(Error::Purge)?;
    let failed = |source| Error::Folder { path: config.root.clone(), source };
    folders::remove(&config.root).map_err(failed)
}
