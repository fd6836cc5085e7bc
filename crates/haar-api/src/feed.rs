//! What passes between controller and agent: the desired set one way, hello and reports the other.
//!
//! Both sides ignore fields they do not know, and every message carries `version`. An item of an unknown
//! kind (a goal, a deed, a network that is newer than the reader) is read as [`Item::Unsupported`]: that
//! item alone is reported as unsupported, the rest of the set is carried out (design §11.8).
//! The values mirror the core's orders and reports; the shells translate.

use std::net::IpAddr;

use haar_core::address::Mac;
use haar_core::id::{CloudId, FlavorId, GuestId, HypervisorId, ImageId, JobId, NetworkId, SubnetId};
use haar_core::name::Name;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::v1::{FenceText, InventoryView, ResourcesView};

/// The version this code writes.
pub const VERSION: u32 = 1;

/// An item that can be newer than its reader.
#[derive(Debug, Clone, PartialEq)]
pub enum Item<T> {
    /// Understood.
    Known(T),
    /// Not understood: its id, when it has one, and why.
    Unsupported(Unsupported),
}

/// An item that was not understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Unsupported {
    /// The item's `id`, when it has one.
    pub id: Option<Uuid>,
    /// What the reader could not read.
    pub reason: String,
    /// The item as it came.
    pub value: serde_json::Value,
}

impl<T> Item<T> {
    /// The item, when it was understood.
    pub fn known(self) -> Option<T> {
        match self {
            Item::Known(item) => Some(item),
            Item::Unsupported(_) => None,
        }
    }
}

impl<T: Serialize> Serialize for Item<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Item::Known(item) => item.serialize(serializer),
            Item::Unsupported(unsupported) => unsupported.value.serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Item<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        match T::deserialize(&value) {
            Ok(item) => Ok(Item::Known(item)),
            Err(error) => {
                let id = value.get("id").and_then(|id| Uuid::try_parse(id.as_str()?).ok());
                Ok(Item::Unsupported(Unsupported { id, reason: error.to_string(), value }))
            }
        }
    }
}

impl<T: JsonSchema> JsonSchema for Item<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// All that one hypervisor shall have, as of `fence`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Feed {
    /// Of this form; 1.
    pub version: u32,
    /// The books it was read from.
    pub fence: FenceText,
    /// The cloud.
    #[schemars(with = "Uuid")]
    pub cloud: CloudId,
    /// Whose it is.
    #[schemars(with = "Uuid")]
    pub hypervisor: HypervisorId,
    /// Every guest with a place on it, the ones to be removed included.
    #[serde(default)]
    pub guests: Vec<Item<FeedGuest>>,
    /// What those guests are cloned from.
    #[serde(default)]
    pub images: Vec<Item<FeedImage>>,
    /// Every image in the books: of another one no guest will be made, and its base may be removed. Absent where
    /// the controller does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Uuid>>")]
    pub catalogue: Option<Vec<ImageId>>,
    /// What those guests are plugged into.
    #[serde(default)]
    pub networks: Vec<Item<FeedNetwork>>,
    /// Streams somebody waits for: dial each ticket once.
    #[serde(default)]
    pub streams: Vec<Item<FeedStream>>,
}

/// One guest's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FeedGuest {
    /// Which guest.
    #[schemars(with = "Uuid")]
    pub id: GuestId,
    /// Its name; the host name inside.
    #[schemars(with = "String")]
    pub name: Name,
    /// Owner's project.
    #[schemars(with = "String")]
    pub project: Name,
    /// Fence of the order.
    pub order: FenceText,
    /// Which life of the guest on this host.
    pub life: FenceText,
    /// What is wanted.
    pub goal: GoalWord,
    /// A thing to be done once.
    #[serde(default)]
    pub deed: Option<FeedDeed>,
    /// Whether its disks have held data.
    pub provisioned: bool,
    /// When it is started again by itself.
    #[serde(default)]
    pub restart: crate::v1::GuestRestart,
    /// The job that waits.
    #[serde(default)]
    #[schemars(with = "Option<Uuid>")]
    pub job: Option<JobId>,
    /// Its size's id.
    #[schemars(with = "Uuid")]
    pub flavor: FlavorId,
    /// What it is cloned from.
    #[schemars(with = "Uuid")]
    pub image: ImageId,
    /// What it takes.
    pub resources: ResourcesView,
    /// Its network.
    #[schemars(with = "Uuid")]
    pub network: NetworkId,
    /// Its subnet.
    #[schemars(with = "Uuid")]
    pub subnet: SubnetId,
    /// Its MAC address.
    #[schemars(with = "String")]
    pub mac: Mac,
    /// Its address.
    pub address: IpAddr,
    /// Length of the subnet's prefix.
    pub prefix: u8,
    /// Its router.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Its name servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Public keys for the first user.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// SHA-256 of its user-data, fetched from `/v1/agent/blobs/{sha256}`.
    #[serde(default)]
    pub user_data: Option<String>,
}

/// What is wanted of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GoalWord {
    /// It shall run.
    Running,
    /// It shall be off, and be asked politely.
    Stopped,
    /// It shall be off, now.
    Off,
    /// It shall be removed with all it has.
    Gone,
}

/// A thing to be done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FeedDeed {
    /// What.
    pub kind: DeedWord,
    /// Its fence: done once for each.
    pub fence: FenceText,
}

/// Things done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeedWord {
    /// Ask the guest to reboot.
    Reboot,
}

/// An image a node may need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FeedImage {
    /// Which.
    #[schemars(with = "Uuid")]
    pub id: ImageId,
    /// Told, never probed.
    pub format: crate::v1::ImageFormat,
    /// Lower-case hex.
    pub sha256: String,
    /// Bytes of the file, 0 when unknown.
    #[serde(default)]
    pub file_bytes: u64,
    /// Where else than at the controller; null: fetched from `/v1/agent/images/{id}/data`.
    #[serde(default)]
    pub url: Option<String>,
}

/// A network a node may need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FeedNetwork {
    /// Which.
    #[schemars(with = "Uuid")]
    pub id: NetworkId,
    /// The bridge's name on the host.
    pub bridge: String,
    /// The bridge's own addresses: the subnets' gateways.
    #[serde(default)]
    pub gateways: Vec<AddressWithPrefix>,
    /// Whether guests reach the outside under the host's address.
    #[serde(default)]
    pub nat: bool,
}

/// An address and its network's prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressWithPrefix {
    /// The address.
    pub address: IpAddr,
    /// The length.
    pub prefix: u8,
}

/// A stream somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FeedStream {
    /// Dialled once at `/v1/agent/streams/{ticket}`.
    pub ticket: String,
    /// Whose.
    #[schemars(with = "Uuid")]
    pub guest: GuestId,
    /// What of it.
    pub kind: StreamKind,
    /// For a log: bytes of its end to begin with.
    #[serde(default)]
    pub tail: Option<u64>,
    /// For a log: whether it goes on with what is added.
    #[serde(default)]
    pub follow: bool,
}

/// What can be streamed from a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    /// The serial console, both ways.
    Console,
    /// The console's log.
    Log,
}

/// A node's first word with a new ledger. Who speaks is known from its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// Of this form; 1.
    pub version: u32,
    /// Drawn when the ledger was made; asked again with the same lot, the answer is the same.
    pub lot: u64,
    /// What it is.
    #[serde(default)]
    pub inventory: InventoryView,
    /// What it has for guests.
    #[serde(default)]
    pub total: ResourcesView,
}

/// The answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// Of this form; 1.
    pub version: u32,
    /// The cloud.
    #[schemars(with = "Uuid")]
    pub cloud: CloudId,
    /// Who the speaker is.
    #[schemars(with = "Uuid")]
    pub hypervisor: HypervisorId,
    /// Its name.
    pub name: String,
    /// Which life of its ledger this is; goes into every report.
    pub incarnation: u64,
    /// The fence of the books.
    pub fence: FenceText,
    /// Milliseconds of silence after which it counts as silent.
    pub ttl_ms: u64,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Of this form; 1.
    pub version: u32,
    /// Which life of its ledger.
    pub incarnation: u64,
    /// The newest desired set it has taken.
    pub seen: FenceText,
    /// The guests reported on, at most 16.
    #[serde(default)]
    pub guests: Vec<Item<ReportGuest>>,
    /// Set on the last of a series that together told of everything the host has.
    #[serde(default)]
    pub complete: Option<ReportComplete>,
    /// Items of the feed it could not read: their ids and why.
    #[serde(default)]
    pub unsupported: Vec<ReportUnsupported>,
}

/// An item of the feed that the node is too old for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportUnsupported {
    /// The item's id.
    pub id: Uuid,
    /// What could not be read.
    pub reason: String,
}

/// The answer to [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportTaken {
    /// Of this form; 1.
    pub version: u32,
    /// The fence of the books after it.
    pub fence: FenceText,
}

/// What a complete report adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportComplete {
    /// The epoch it was made in.
    pub epoch: u64,
    /// Every guest of ours on the host.
    #[schemars(with = "Vec<Uuid>")]
    pub holds: Vec<GuestId>,
    /// Domains that are in no ledger of ours, by name.
    #[serde(default)]
    pub strangers: Vec<String>,
    /// What it is.
    #[serde(default)]
    pub inventory: InventoryView,
    /// What it has for guests.
    pub total: ResourcesView,
}

/// What a node says of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportGuest {
    /// Which guest.
    #[schemars(with = "Uuid")]
    pub id: GuestId,
    /// Which life of it.
    pub life: FenceText,
    /// The newest order the node has for it.
    pub order: FenceText,
    /// Counts this node's reports of this guest upwards within an incarnation.
    pub version: u64,
    /// How far the node is with the order.
    pub phase: ReportPhase,
    /// What the domain does.
    pub power: PowerWord,
    /// Whether its disks have held data.
    pub provisioned: bool,
    /// The last deed done.
    #[serde(default)]
    pub deed: Option<FenceText>,
    /// Steps of the pipeline for the order.
    #[serde(default)]
    pub steps: Vec<ReportStep>,
    /// What a controller that does not know the guest needs to book it.
    pub claim: ReportClaim,
}

/// How far a node is with a guest's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "lowercase")]
pub enum ReportPhase {
    /// A pipeline is under way.
    Working,
    /// The order is carried out.
    Settled,
    /// The order could not be carried out.
    Failed {
        /// Where: a stage's word.
        stage: StageWord,
        /// The sub-agents' fault code, such as `no_space`.
        code: String,
        /// The sub-agent's words.
        message: String,
    },
    /// Its disk or domain is missing though it once held data.
    Lost {
        /// What is missing.
        message: String,
    },
    /// Nothing of this life is on the host.
    Gone,
    /// Somebody on the host, or the guest itself, powered it off or on.
    Local {
        /// What they made of it.
        goal: GoalWord,
    },
}

/// What a domain does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PowerWord {
    /// Runs.
    Running,
    /// Is defined and off.
    Off,
    /// Is paused.
    Paused,
    /// There is no domain.
    Absent,
    /// Not looked at yet, or libvirtd does not answer.
    Unknown,
}

/// One stage's progress.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportStep {
    /// Which.
    pub stage: StageWord,
    /// How far.
    pub state: StepWord,
    /// Words for a person.
    #[serde(default)]
    pub message: String,
}

/// A stage of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StageWord {
    /// Find a hypervisor and an address.
    Place,
    /// Have the image on the host.
    Image,
    /// Clone the disks.
    Disks,
    /// Write the seed disk.
    Seed,
    /// Have the bridge.
    Network,
    /// Define the domain.
    Define,
    /// Start the domain.
    Start,
    /// Ask the guest to power off and wait until it did.
    Shutdown,
    /// Cut the power.
    Poweroff,
    /// Ask the guest to reboot.
    Reboot,
    /// Undefine the domain.
    Undefine,
    /// Remove the seed disk.
    Unseed,
    /// Remove the disks.
    Undisk,
    /// Look at what is there.
    Inspect,
    /// Take back what the failed steps made.
    Undo,
    /// Give back address, MAC and resources.
    Release,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StepWord {
    /// Not begun.
    Waiting,
    /// Begun.
    Running,
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// Was done, and was taken back.
    Undone,
}

/// What is needed to book a guest that the books do not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportClaim {
    /// Its name.
    #[schemars(with = "String")]
    pub name: Name,
    /// Owner's project.
    #[schemars(with = "String")]
    pub project: Name,
    /// What it takes.
    pub resources: ResourcesView,
    /// Its size's id.
    #[schemars(with = "Uuid")]
    pub flavor: FlavorId,
    /// What it was cloned from.
    #[schemars(with = "Uuid")]
    pub image: ImageId,
    /// Its network.
    #[schemars(with = "Uuid")]
    pub network: NetworkId,
    /// Its subnet.
    #[schemars(with = "Uuid")]
    pub subnet: SubnetId,
    /// Its MAC address.
    #[schemars(with = "String")]
    pub mac: Mac,
    /// Its address.
    pub address: IpAddr,
}
