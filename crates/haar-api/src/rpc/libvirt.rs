//! What Haar's libvirt sub-agent speaks beside the seed's methods: events, the agent inside a guest, snapshots of a
//! guest that runs, and its screen.

use serde::{Deserialize, Serialize};

use super::Guest;

/// Parameters of `Libvirt.Changes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangesRequest {
    /// The cursor of the last answer; empty at first.
    pub cursor: String,
    /// How long to wait for something to happen, in seconds; at most 60.
    pub wait_s: u32,
}

/// Result of `Libvirt.Changes`: what happened to domains since the cursor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangesResponse {
    /// For the next question.
    pub cursor: String,
    /// Whether anything may have changed: the cursor is too old, another process's, or events were lost.
    pub all: bool,
    /// What happened, in order. It only says "look": what is so, `Libvirt.Status` tells.
    pub changes: Vec<Change>,
}

/// Something that happened to a domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// The domain's name.
    pub id: String,
    /// `defined`, `undefined`, `started`, `suspended`, `resumed`, `stopped`, `shutdown`, `pmsuspended`, `crashed`,
    /// `reset`, or `changed` for what a newer libvirt tells.
    pub what: String,
}

/// Whether a guest has an agent inside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestAgent {
    /// It has answered.
    Answers,
    /// Nothing in the guest has opened the channel.
    #[default]
    Absent,
    /// Something has, and does not answer in time.
    Silent,
}

/// Result of `Libvirt.Ping`, `Freeze` and `Thaw`, whose parameters are a [`GuestRequest`](super::GuestRequest).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestAgentResponse {
    /// The guest as it now is.
    pub guest: Option<Guest>,
    /// Whether it was asked at all.
    pub agent: GuestAgent,
    /// File systems frozen or thawed.
    pub file_systems: u32,
}

/// What begins the name of each of our snapshots inside a qcow2 file: `qemu-img` also takes a snapshot's number for
/// its name, and what an imported image brought with it is nobody's.
pub const INNER_PREFIX: &str = "haar:";

/// A snapshot's name as it stands inside a qcow2 file, with the order that took it, if one did. Names hold no `@`.
/// Whoever takes the snapshot, `qemu-img` for the storage or QEMU for the agent, calls it so.
pub fn inner_name(name: &str, order: &str) -> String {
    if order.is_empty() { format!("{INNER_PREFIX}{name}") } else { format!("{INNER_PREFIX}{name}@{order}") }
}

/// Parameters of `Libvirt.Snapshot` and `DropSnapshot`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunningSnapshotRequest {
    /// The guest, which runs.
    pub guest: Option<Guest>,
    /// What the snapshot is called inside the files.
    pub name: String,
    /// Disks by their names in the guest, such as `vda`; empty: all but the seed.
    pub devices: Vec<String>,
}

/// Result of `Libvirt.Snapshot` and `DropSnapshot`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunningSnapshotResponse {
    /// The guest as it now is.
    pub guest: Option<Guest>,
    /// The disks that have it now, or have it no more.
    pub disks: Vec<SnapshotDisk>,
    /// File systems that were frozen meanwhile.
    pub file_systems: u32,
}

/// A disk of a running guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotDisk {
    /// Its name in the guest, such as `vda`.
    pub device: String,
    /// Path of its file.
    pub source: String,
}

/// Result of `Libvirt.Vnc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VncResponse {
    /// The guest as it now is.
    pub guest: Option<Guest>,
    /// Path of the unix socket that speaks VNC, for as long as the guest runs.
    pub socket: String,
}
