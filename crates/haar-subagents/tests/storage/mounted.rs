//! A sub-agent on each back end, on a file system of the test's own where the back end needs one.

use std::path::Path;

use haar_subagents::storage::Backend;

use crate::btrfs::Btrfs;
use crate::harness::Agent;
use crate::zfs::Zfs;

/// Gone with the test.
pub(crate) enum Mounted {
    Btrfs(Btrfs),
    Zfs(Zfs),
}

impl Mounted {
    /// Those that this machine can have.
    pub(crate) fn all() -> Vec<Mounted> {
        let btrfs = Btrfs::mount().map(Mounted::Btrfs);
        btrfs.into_iter().chain(Zfs::mount().map(Mounted::Zfs)).collect()
    }

    pub(crate) fn backend(&self) -> Backend {
        match self {
            Mounted::Btrfs(_) => Backend::Reflink,
            Mounted::Zfs(_) => Backend::Zfs,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        match self {
            Mounted::Btrfs(btrfs) => btrfs.folder(),
            Mounted::Zfs(zfs) => zfs.folder(),
        }
    }
}

/// A sub-agent on each back end that this machine can have.
pub(crate) async fn each() -> Vec<(Agent, Option<Mounted>)> {
    let mut agents = vec![(Agent::start().await, None)];
    for mounted in Mounted::all() {
        agents.push((Agent::start_with(mounted.folder(), mounted.backend()).await, Some(mounted)));
    }
    agents
}
