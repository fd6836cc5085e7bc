//! What the storage sub-agent and whoever starts it say alike: the names of its back ends.
//!
//! Deliberately absent: what a back end does (the sub-agent's), and the requests, which lie with all others.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a disk can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The one that works on any file system; today `qcow2`.
    #[default]
    Auto,
    /// Overlays on a base image, snapshots inside the file.
    Qcow2,
    /// Raw files that share extents with their image and their snapshots; btrfs, or xfs made with `reflink=1`.
    Reflink,
    /// A ZFS volume for each disk, or a dataset where the host's ZFS makes no volumes, beneath the one whose mountpoint the
    /// storage's folder is.
    Zfs,
}

/// A word that names no back end.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no storage back end; choose auto, qcow2, reflink or zfs")]
pub struct UnknownBackend(String);

impl std::str::FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(word: &str) -> Result<Self, UnknownBackend> {
        match word {
            "auto" => Ok(Backend::Auto),
            "qcow2" => Ok(Backend::Qcow2),
            "reflink" => Ok(Backend::Reflink),
            "zfs" => Ok(Backend::Zfs),
            other => Err(UnknownBackend(other.to_owned())),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backend::Auto => "auto",
            Backend::Qcow2 => "qcow2",
            Backend::Reflink => "reflink",
            Backend::Zfs => "zfs",
        })
    }
}
