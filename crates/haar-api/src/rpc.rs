//! The JSON-RPC between agent and sub-agents: the seed's structs and envelope (`mistify-wire` §2.5–2.7).
//!
//! Field names, order and omissions are the seed's; what Haar adds sits under the one key `haar` of a
//! struct, so that a sub-agent written for the seed sees nothing it does not know.
//! Every method is "make it so": asking twice is the same as asking once.
//! An error is a string; ours begin with a stable code and `": "` (see [`Fault`]).

mod image_service;
pub mod libvirt;
pub mod storage;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use image_service::{ImageService, NoImageService};

/// The path a sub-agent answers on unless configured otherwise (§2.2).
pub const DEFAULT_PATH: &str = "/_mistify_RPC_";

/// The VLANs of a nic that the seed's controller writes where it means none (§1.9).
pub const UNTAGGED: &[u16] = &[1];

/// A call: `method` is "Service.Method", `params` holds exactly one object (§2.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request<T> {
    /// "Service.Method", case-sensitive.
    pub method: String,
    /// Exactly one object.
    pub params: [T; 1],
    /// Echoed in the answer; a random unsigned 63-bit number. Absent: executed, answered with an empty body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<serde_json::Value>,
}

/// An answer: exactly one of `result` and `error` is not null (§2.7). Read as the seed's client does: it wants no id,
/// and whatever an error is, that is its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response<T> {
    /// The method's result, null after an error.
    pub result: Option<T>,
    /// The error's text, null after success.
    #[serde(default, deserialize_with = "text_of_any")]
    pub error: Option<String>,
    /// The request's id.
    #[serde(default)]
    pub id: serde_json::Value,
}

fn text_of_any<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let error = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(error.map(|error| match error {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }))
}

/// What went wrong in a sub-agent: a stable code the agent acts on, and words for a person.
///
/// On the wire it is the string `code: message`. A text without a known code reads as [`FaultCode::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// What the agent does about it.
    pub code: FaultCode,
    /// What a person reads: the cause, and what to do.
    pub message: String,
}

/// The codes a caller treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultCode {
    /// The request is malformed or names something impossible; asking again cannot help.
    Invalid,
    /// The guest, image, disk or domain asked about does not exist.
    NotFound,
    /// A disk or domain that once held data is gone; it must not be rebuilt (design §11.1).
    Lost,
    /// The image is truncated, mislabelled, has a backing file, or its checksum differs.
    BadImage,
    /// Not enough free space; nothing was written.
    NoSpace,
    /// What the method needs (libvirtd, qemu-img, a device) is not there or does not answer; may pass.
    Unavailable,
    /// Something of that name exists and belongs to another guest, cloud or order.
    Conflict,
    /// Anything else; may pass when asked again.
    Failed,
}

impl FaultCode {
    const ALL: [(FaultCode, &'static str); 8] = [
        (FaultCode::Invalid, "invalid"),
        (FaultCode::NotFound, "not_found"),
        (FaultCode::Lost, "lost"),
        (FaultCode::BadImage, "bad_image"),
        (FaultCode::NoSpace, "no_space"),
        (FaultCode::Unavailable, "unavailable"),
        (FaultCode::Conflict, "conflict"),
        (FaultCode::Failed, "failed"),
    ];

    /// The code as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(code, _)| *code == self).map_or("failed", |(_, text)| text)
    }

    /// Whether asking again, with nothing changed by a person, may succeed.
    pub fn may_pass(self) -> bool {
        matches!(self, FaultCode::Unavailable | FaultCode::Failed)
    }
}

impl std::fmt::Display for FaultCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Fault {
    /// A fault of this code with these words.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Fault { code, message: message.into() }
    }

    /// Reads the wire's string; a stranger's text becomes [`FaultCode::Failed`] with that text.
    pub fn parse(text: &str) -> Self {
        if let Some((head, rest)) = text.split_once(": ")
            && let Some((code, _)) = FaultCode::ALL.iter().find(|(_, name)| *name == head)
        {
            return Fault::new(*code, rest);
        }
        Fault::new(FaultCode::Failed, text)
    }
}

/// A guest as the seed's agent and sub-agents speak of it (§2.5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guest {
    /// UUID; also the libvirt domain's name.
    pub id: String,
    /// `kvm` when empty.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Image UUID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Network interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nic>,
    /// Disks, the first boots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// One of the seed's state names (§3.3).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// MiB.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub memory: u64,
    /// Virtual CPUs.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub cpu: u32,
    /// VNC endpoint, never set by the seed.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub vnc: u32,
    /// Free labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What Haar adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haar: Option<GuestExtra>,
}

/// A network interface (§2.5). Without [`Guest::haar`] the libvirt sub-agent makes a libvirt network per MAC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nic {
    /// Name inside the guest, such as `eth0`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Bridge on the host.
    pub network: String,
    /// `virtio` for Haar.
    pub model: String,
    /// Lower-case colon form.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Address without prefix length.
    pub address: String,
    /// Dotted netmask (the seed's hex form is accepted on input).
    pub netmask: String,
    /// Gateway address, may be empty.
    pub gateway: String,
    /// Host tap device once it runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// VLAN tags, null allowed.
    pub vlans: Option<Vec<u16>>,
    /// What Haar adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haar: Option<NicExtra>,
}

/// A disk (§2.5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// `virtio` for Haar.
    pub bus: String,
    /// `vda`, `vdb`, … by position.
    pub device: String,
    /// MiB.
    pub size: u64,
    /// Back end's name of the volume: `guests/<guest id>/disk-<index>`.
    pub volume: String,
    /// Image UUID it is cloned from; empty for a blank disk.
    pub image: String,
    /// Path on the host that QEMU opens.
    pub source: String,
    /// What Haar adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haar: Option<DiskExtra>,
}

/// Haar's additions to a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestExtra {
    /// Cloud id: what this instance calls its own on a shared host (design §11.15).
    pub cloud: String,
    /// The guest's name, for people; host name inside.
    pub name: String,
    /// The order's fence as `epoch.revision`; written into the domain's metadata and beside the disks.
    pub order: String,
    /// The placement that makes this guest, as `epoch.revision`; what is on the host under another one
    /// is another life of the guest and is a [`FaultCode::Conflict`]. Undo removes only its own.
    pub life: String,
    /// Set once the guest's disks have held data: from then on a missing disk or domain is
    /// [`FaultCode::Lost`] and is never rebuilt.
    pub provisioned: bool,
    /// Everything the controller needs to book this guest again after a restore, as JSON text;
    /// kept verbatim in the domain's metadata and given back by `Libvirt.List`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub claim: String,
    /// Path of the seed disk (vfat, label `cidata`), attached read-only as the last disk.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub seed: String,
    /// `auto`, `kvm` or `tcg` (design §7).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub accel: String,
    /// Unix socket of the serial console; answered by the libvirt sub-agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub console_socket: String,
    /// File the serial console is logged to; answered by the libvirt sub-agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub console_log: String,
    /// Why the domain is in its state, libvirt's word: `shutdown`, `destroyed`, `crashed`, `failed`, `booted`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state_reason: String,
}

/// Haar's additions to a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NicExtra {
    /// Whether the guest is held to the nic's own MAC and addresses; answered by the libvirt sub-agent.
    pub filtered: bool,
}

/// Haar's additions to a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskExtra {
    /// `qcow2` or `raw`; never probed (design §11.17).
    pub format: String,
    /// Bytes the guest sees.
    pub size_bytes: u64,
    /// Bytes it holds on the host's file system.
    pub used_bytes: u64,
    /// The `life` it was made by.
    pub life: String,
    /// Why it cannot be used, for a disk that is damaged; its sizes are then not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub damage: String,
}

/// Parameters of the guest methods (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestRequest {
    /// The guest acted on.
    pub guest: Option<Guest>,
    /// Full action name, such as `create`.
    pub action: String,
    /// The stage's own arguments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
}

/// Result of the guest methods (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestResponse {
    /// The guest as it now is; becomes the next stage's input.
    pub guest: Option<Guest>,
    /// Words for a person.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Seconds; never honoured by the seed.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub retry: u32,
}

/// Result of `Libvirt.List`, a method of Haar's: every domain of the connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestListResponse {
    /// Ours carry [`Guest::haar`]; a stranger has its domain name as `id` and no `haar`.
    pub guests: Vec<Guest>,
}

/// An image on the host (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// UUID.
    pub id: String,
    /// `kvm` or `container`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Back end's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume: String,
    /// Back end's snapshot that guests are cloned from.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub snapshot: String,
    /// MiB a clone has.
    pub size: u64,
    /// `pending`, `downloading`, `complete`, `error`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// What Haar adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haar: Option<ImageExtra>,
}

/// Haar's additions to an image: how far a fetch is, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageExtra {
    /// `qcow2` or `raw`.
    pub format: String,
    /// Lower-case hex of the file's SHA-256.
    pub sha256: String,
    /// Bytes of the file, 0 while unknown.
    pub file_bytes: u64,
    /// Bytes a clone has.
    pub virtual_bytes: u64,
    /// Bytes fetched so far.
    pub done_bytes: u64,
    /// Why `status` is `error`, as a [`Fault`] string.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Parameters of the image methods (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageRequest {
    /// UUID.
    pub id: String,
    /// `kvm` or `container`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Clone's destination (CloneImage).
    pub dest: String,
    /// `http://`, `https://` or `file://` address; a file only inside the configured `image_dirs`.
    pub source: String,
    /// What Haar adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haar: Option<ImageWant>,
}

/// What an image must be to be accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageWant {
    /// `qcow2` or `raw`.
    pub format: String,
    /// Lower-case hex; required, for what is not pinned cannot be verified.
    pub sha256: String,
    /// Bytes of the file, 0 when unknown.
    pub file_bytes: u64,
    /// `Authorization` header for the fetch, may be empty; never logged.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authorization: String,
}

/// Result of the image methods (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageResponse {
    /// The images asked about.
    pub images: Option<Vec<Image>>,
}

/// A volume (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Back end's name: `guests/<guest id>/disk-<index>`.
    pub id: String,
    /// MiB.
    pub size: u64,
    /// Path on the host.
    pub device: String,
    /// What Haar adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haar: Option<DiskExtra>,
}

/// Parameters of the volume methods (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeRequest {
    /// Back end's name; empty lists all.
    pub id: String,
    /// MiB.
    pub size: u64,
}

/// Result of the volume methods (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeResponse {
    /// The volumes asked about.
    pub volumes: Vec<Volume>,
}

/// A snapshot of a guest's disk, or of all its disks at once (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// `guests/<guest id>/disk-<index>@<name>`, or `guests/<guest id>@<name>` for all disks.
    pub id: String,
    /// MiB of the disk, or of all disks, when it was taken.
    pub size: u64,
    /// What Haar adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haar: Option<SnapshotExtra>,
}

/// Haar's additions to a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotExtra {
    /// Bytes of the disk, or of all disks, when it was taken.
    pub size_bytes: u64,
    /// When it was taken, in seconds since 1970.
    pub created_s: u64,
    /// The order that took it, if that was said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub order: String,
}

/// Parameters of the snapshot methods, and the whole body of a download (§2.6, §2.7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotRequest {
    /// `guests/<guest id>[/disk-<index>][@<name>]`; the name where a snapshot is meant.
    pub id: String,
    /// The new snapshot's name (CreateSnapshot): letters, digits, `_`, `-`, `:` and `.`.
    pub dest: String,
    /// Whether the answer holds the snapshots of a guest's single disks too.
    pub recursive: bool,
    /// Whether a rollback may delete the snapshots taken since.
    #[serde(rename = "destroyMoreRecent")]
    pub destroy_more_recent: bool,
    /// What Haar adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub haar: Option<SnapshotWant>,
}

/// Haar's additions to a snapshot request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotWant {
    /// The order's fence as `epoch.revision`: asked again with the same one, a snapshot that stands is the answer
    /// and no conflict.
    pub order: String,
    /// The guest runs and writes nothing until this call is answered: it is paused, or its file systems are frozen.
    pub quiet: bool,
}

/// Result of the snapshot methods (§2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotResponse {
    /// The snapshots asked about.
    pub snapshots: Vec<Snapshot>,
}

/// Parameters of `ImageStore.PruneImages`, a method of Haar's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PruneRequest {
    /// Images stored in the last so many seconds stay, for a guest may be about to be made of them; an hour when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_newer_s: Option<u64>,
}

/// Parameters of methods that need none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

/// Result of `ImageStore.Capacity`, a method of Haar's (design §11.18). Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CapacityResponse {
    /// Free on the file system for Haar.
    pub free_bytes: u64,
    /// Held by Haar's guest disks.
    pub disks_bytes: u64,
    /// Held by base images.
    pub images_bytes: u64,
    /// What may be promised to guests in all: free + disks − 5 %.
    pub total_bytes: u64,
}

/// Result of `Libvirt.Host`, a method of Haar's: what the hypervisor is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostResponse {
    /// libvirt's version as `9.0.0`.
    pub libvirt: String,
    /// QEMU's version as `7.2.19`.
    pub qemu: String,
    /// What `accel: auto` chose: `kvm` or `tcg`.
    pub accel: String,
    /// Why KVM is not used; empty when it is.
    pub accel_reason: String,
    /// Online CPUs.
    pub cpus: u32,
    /// MiB of memory in the host.
    pub memory_mib: u64,
}

fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}
