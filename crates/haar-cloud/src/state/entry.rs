//! One entry of the record: what it is, how far it is, and what is kept of a server.
//!
//! All of it is stored; the golden file of the record holds its form.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::copy_list::CopyList;
use crate::flavor::Flavor;

/// The number of an entry; never used twice in a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryId(pub(super) u64);

/// What kind of thing an entry is, in the order in which they can be destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A server.
    Server,
    /// A public address.
    FloatingIp,
    /// A further port of a server.
    Port,
    /// A volume.
    Volume,
    /// A router's leg in a subnet.
    RouterInterface,
    /// A router.
    Router,
    /// A subnet.
    Subnet,
    /// A network.
    Network,
    /// A security group.
    SecurityGroup,
    /// A key pair.
    KeyPair,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Server => "server",
            Self::FloatingIp => "floating IP",
            Self::Port => "port",
            Self::Volume => "volume",
            Self::RouterInterface => "router interface",
            Self::Router => "router",
            Self::Subnet => "subnet",
            Self::Network => "network",
            Self::SecurityGroup => "security group",
            Self::KeyPair => "key pair",
        })
    }
}

/// How far an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// About to be created: it may exist, under its name, or not.
    Planned,
    /// Created by us, with the cloud's id.
    Made {
        /// The cloud's id.
        cloud_id: String,
    },
    /// Found and used; not ours.
    Reused {
        /// The cloud's id.
        cloud_id: String,
    },
    /// Being destroyed.
    Leaving {
        /// The cloud's id, if it was ever learned.
        cloud_id: Option<String>,
    },
}

/// What is kept of a server, enough to use it from another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerDetails {
    /// The operating system, as it was asked for.
    pub os: String,
    /// Who logs in.
    pub user: String,
    /// Its size.
    pub flavor: Flavor,
    /// Its disk in GB.
    pub disk_gb: u64,
    /// How long it may idle, in ms; 0 is for ever.
    pub ttd_ms: u64,
    /// Whether it has an address outside its network.
    pub external: bool,
    /// Whether it was the first with one.
    pub head_node: bool,
    /// Its address, once known.
    pub address: Option<IpAddr>,
    /// The host keys it must show, in OpenSSH's form.
    #[serde(default)]
    pub host_keys: Vec<String>,
    /// What was put on it once it was ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared: Option<PreparedServer>,
    /// Whether it has the shared disk, its own or one that was mounted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_disk: bool,
}

/// What was put on a server, by which one that somebody wants is told from others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedServer {
    /// The digest of the script that was run: a script may hold secrets. Empty for none.
    pub script: String,
    /// The list of the files that were copied.
    pub files: String,
}

impl PreparedServer {
    /// What is kept of a script (empty for none) and a list of files.
    #[must_use]
    pub fn new(script: &[u8], files: &CopyList) -> Self {
        let script = if script.is_empty() { String::new() } else { hex::encode(Sha256::digest(script)) };
        Self { script, files: files.as_str().to_owned() }
    }
}

/// One thing in the cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub id: EntryId,
    /// What it is.
    pub kind: Kind,
    /// Its name in the cloud, or what else it can be found by.
    pub name: String,
    /// How far it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// When it was planned or found.
    pub since: Timestamp,
    /// For a server, what is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerDetails>,
}

impl Entry {
    /// The cloud's id, if it is known.
    #[must_use]
    pub fn cloud_id(&self) -> Option<&str> {
        match &self.phase {
            Phase::Planned => None,
            Phase::Made { cloud_id } | Phase::Reused { cloud_id } => Some(cloud_id),
            Phase::Leaving { cloud_id } => cloud_id.as_deref(),
        }
    }

    /// Whether it was made by us, or is about to be.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self.phase, Phase::Reused { .. })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, self.name)?;
        match self.cloud_id() {
            Some(cloud_id) => write!(formatter, " ({cloud_id})"),
            None => formatter.write_str(" (no id yet)"),
        }
    }
}
