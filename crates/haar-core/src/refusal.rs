//! Refusals: the brain's "no", with the facts, a stable code, and what to do.
//!
//! A refusal is not a failure: nothing changed, nothing broke. Every code has a paragraph in
//! `docs/operating.md`.

use std::net::IpAddr;

use crate::address::{BadCidr, BadMac, Cidr};
use crate::config::BadSetting;
use crate::fence::Revision;
use crate::firewall::BadRule;
use crate::flavor::BadResources;
use crate::id::{HypervisorId, JobId, Kind};
use crate::name::{BadName, Name};
use crate::network::BadSubnet;
use crate::units::Resources;

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such thing.
    #[error("there is no {kind} `{reference}`{}; see  haar {kind} list", did_you_mean(closest.as_ref()))]
    NotFound {
        /// What was looked for.
        kind: Kind,
        /// Its id or name as given.
        reference: String,
        /// The name that comes closest to it.
        closest: Option<Name>,
    },
    /// Another has that name.
    #[error("there is already a {kind} named `{name}` in project `{project}`; choose another name")]
    NameTaken {
        /// What.
        kind: Kind,
        /// The name.
        name: Name,
        /// The project.
        project: Name,
    },
    /// The id exists, and what was asked differs.
    #[error("{kind} `{reference}` exists and differs in: {}; change it with PATCH, or use another id", fields.join(", "))]
    Differs {
        /// What.
        kind: Kind,
        /// Its name.
        reference: String,
        /// The fields that differ.
        fields: Vec<&'static str>,
    },
    /// `If-Match` names another revision.
    #[error("{kind} `{reference}` is at revision {found}, not {expected}; read it again before changing it")]
    Stale {
        /// What.
        kind: Kind,
        /// Its name.
        reference: String,
        /// The revision the caller knows.
        expected: Revision,
        /// The revision it has.
        found: Revision,
    },
    /// It is referred to.
    #[error("{kind} `{reference}` is in use by {}{}; remove {} first", users.join(", "), more_users(*more), if users.len() + more == 1 { "it" } else { "them" })]
    InUse {
        /// What.
        kind: Kind,
        /// Its name.
        reference: String,
        /// The first few users, as "kind `name`".
        users: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// A name that cannot be one.
    #[error(transparent)]
    BadName(#[from] BadName),
    /// A MAC address that cannot be one.
    #[error(transparent)]
    BadMac(#[from] BadMac),
    /// A CIDR that cannot be one.
    #[error(transparent)]
    BadCidr(#[from] BadCidr),
    /// A subnet that cannot be.
    #[error(transparent)]
    BadSubnet(#[from] BadSubnet),
    /// A rule that cannot be.
    #[error(transparent)]
    BadRule(#[from] BadRule),
    /// Resources that cannot be.
    #[error(transparent)]
    BadResources(#[from] BadResources),
    /// A setting that cannot be.
    #[error(transparent)]
    BadSetting(#[from] BadSetting),
    /// Anything else wrong with one field.
    #[error("{field}: {problem}")]
    BadField {
        /// Which.
        field: &'static str,
        /// What is wrong and what would do.
        problem: String,
    },
    /// No hypervisor can take the guest.
    #[error("no hypervisor can take guest `{guest}` ({wants})")]
    NoRoom {
        /// The guest's name.
        guest: Name,
        /// What it wants.
        wants: Resources,
        /// Causes, the most frequent first.
        reasons: Vec<Reason>,
    },
    /// The address asked for cannot be had.
    #[error("address {address} {why}")]
    AddressUnavailable {
        /// The address.
        address: IpAddr,
        /// Why, as the end of the sentence.
        why: String,
    },
    /// The MAC address asked for is another's.
    #[error("MAC address {mac} belongs to guest `{holder}` in the same network; leave it out to get one")]
    MacTaken {
        /// The address.
        mac: crate::address::Mac,
        /// Who has it.
        holder: Name,
    },
    /// The guest has neither an image nor a flavor with one.
    #[error("guest `{guest}` names no image, and neither does its flavor; name one with `image`")]
    NoImage {
        /// The guest's name.
        guest: Name,
    },
    /// The image's bytes are not there yet.
    #[error("image `{image}` has no data yet; upload it with `haar image import`")]
    ImageNotReady {
        /// The image's name.
        image: Name,
    },
    /// The image is larger than the disk.
    #[error(
        "image `{image}` is {image_mib} MiB, larger than the flavor's disk of {disk_mib} MiB; choose a flavor with a larger disk"
    )]
    ImageTooLarge {
        /// The image's name.
        image: Name,
        /// Its virtual size, MiB.
        image_mib: u64,
        /// The flavor's disk, MiB.
        disk_mib: u64,
    },
    /// Another job has the guest.
    #[error(
        "guest `{guest}` is busy with a {action} job ({job}); wait for it, or look with `haar job show {job}`"
    )]
    Busy {
        /// The guest's name.
        guest: Name,
        /// What the job does.
        action: &'static str,
        /// The job.
        job: JobId,
    },
    /// The guest's state does not allow it.
    #[error("guest `{guest}` is {state}; {next}")]
    WrongState {
        /// The guest's name.
        guest: Name,
        /// Its state.
        state: &'static str,
        /// What to do.
        next: String,
    },
    /// Only a failed job can be tried again.
    #[error("job {job} is {status}; only a job that ended in error can be tried again")]
    NotRetryable {
        /// The job.
        job: JobId,
        /// Its status.
        status: &'static str,
    },
    /// The speaker's ledger is not the present one.
    #[error(
        "incarnation {given} of hypervisor {hypervisor} is not the present one ({present}); say hello again"
    )]
    StaleIncarnation {
        /// Who speaks.
        hypervisor: HypervisorId,
        /// What it says.
        given: u64,
        /// What is in the books.
        present: u64,
    },
    /// The speaker has seen a fence that these books have not reached: they were restored.
    #[error("hypervisor {hypervisor} has seen fence {seen}, newer than these books; a new epoch must begin")]
    BooksRestored {
        /// Who speaks.
        hypervisor: HypervisorId,
        /// What it saw.
        seen: crate::fence::Fence,
    },
    /// A hypervisor that still speaks cannot be declared lost.
    #[error("hypervisor `{0}` is alive; stop its agent and power it off before declaring it lost")]
    StillAlive(Name),
    /// A hypervisor that may hold guests which restored books do not know.
    #[error(
        "hypervisor `{0}` has not reported since the books were restored, and may hold guests they do not know; let its agent report, or declare it lost first"
    )]
    Unheard(Name),
    /// Two ranges overlap in the controller's own choice, and similar.
    #[error("{0} overlaps a range in use")]
    RangeTaken(Cidr),
}

fn did_you_mean(closest: Option<&Name>) -> String {
    closest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

fn more_users(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" and {more} more") }
}

/// Why some hypervisors said no, grouped by cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The cause.
    pub cause: Cause,
    /// How many hypervisors it kept away.
    pub count: usize,
    /// The one that came closest: its name.
    pub best: Name,
    /// What it lacks or has, for a person: `188 GiB free of 256 GiB`.
    pub detail: String,
}

/// Causes in the order of the candidate functions (`mistify-wire` §1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Its agent never joined.
    NeverJoined,
    /// No poll within the TTL.
    Silent,
    /// After a restore it has not told what it holds.
    NotReported,
    /// Its agent cannot see what the machine has.
    Blind,
    /// Cordoned by an operator.
    Cordoned,
    /// Not the one asked for.
    NotAsked,
    /// Lacks a required label.
    Label,
    /// Has no subnet of the network.
    NoSubnet,
    /// Its subnets have no free address.
    NoAddress,
    /// A host of the network has not told what it holds since a restore.
    NetworkNotReported,
    /// Not enough disk.
    Disk,
    /// Not enough memory.
    Memory,
    /// Not enough CPUs.
    Cpu,
}

impl Cause {
    /// The stable word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::NeverJoined => "never_joined",
            Cause::Silent => "silent",
            Cause::NotReported => "not_reported",
            Cause::Blind => "blind",
            Cause::Cordoned => "cordoned",
            Cause::NotAsked => "not_asked",
            Cause::Label => "label",
            Cause::NoSubnet => "no_subnet",
            Cause::NoAddress => "no_address",
            Cause::NetworkNotReported => "network_not_reported",
            Cause::Disk => "disk",
            Cause::Memory => "memory",
            Cause::Cpu => "cpu",
        }
    }

    /// What a person reads.
    pub fn words(self) -> &'static str {
        match self {
            Cause::NeverJoined => "never joined",
            Cause::Silent => "silent",
            Cause::NotReported => "has not reported since the restore",
            Cause::Blind => "its agent cannot see its guests",
            Cause::Cordoned => "cordoned",
            Cause::NotAsked => "not the hypervisor asked for",
            Cause::Label => "lacks a required label",
            Cause::NoSubnet => "has no subnet of the network",
            Cause::NoAddress => "no free address",
            Cause::NetworkNotReported => "a hypervisor of the network has not reported since the restore",
            Cause::Disk => "not enough disk",
            Cause::Memory => "not enough memory",
            Cause::Cpu => "not enough cpu",
        }
    }
}

/// Who must act, and so which status a shell answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// The request itself is wrong.
    Invalid,
    /// It names what is not there.
    NotFound,
    /// It clashes with what is.
    Conflict,
    /// `If-Match` failed.
    Precondition,
    /// There is no room now.
    NoRoom,
}

impl Refusal {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::NotFound { .. } => "not_found",
            Refusal::NameTaken { .. } => "name_taken",
            Refusal::Differs { .. } => "differs",
            Refusal::Stale { .. } => "stale_revision",
            Refusal::InUse { .. } => "in_use",
            Refusal::BadName(_) => "bad_name",
            Refusal::BadMac(_) => "bad_mac",
            Refusal::BadCidr(_) => "bad_cidr",
            Refusal::BadSubnet(_) => "bad_subnet",
            Refusal::BadRule(_) => "bad_rule",
            Refusal::BadResources(_) => "bad_resources",
            Refusal::BadSetting(_) => "bad_setting",
            Refusal::BadField { .. } => "bad_field",
            Refusal::NoRoom { .. } => "no_room",
            Refusal::AddressUnavailable { .. } => "address_unavailable",
            Refusal::MacTaken { .. } => "mac_taken",
            Refusal::NoImage { .. } => "no_image",
            Refusal::ImageNotReady { .. } => "image_not_ready",
            Refusal::ImageTooLarge { .. } => "image_too_large",
            Refusal::Busy { .. } => "busy",
            Refusal::WrongState { .. } => "wrong_state",
            Refusal::NotRetryable { .. } => "not_retryable",
            Refusal::StaleIncarnation { .. } => "stale_incarnation",
            Refusal::BooksRestored { .. } => "books_restored",
            Refusal::StillAlive(_) => "still_alive",
            Refusal::Unheard(_) => "not_reported",
            Refusal::RangeTaken(_) => "range_taken",
        }
    }

    /// Who must act.
    pub fn category(&self) -> Category {
        match self {
            Refusal::NotFound { .. } => Category::NotFound,
            Refusal::Stale { .. } => Category::Precondition,
            Refusal::NoRoom { .. } => Category::NoRoom,
            Refusal::BadName(_)
            | Refusal::BadMac(_)
            | Refusal::BadCidr(_)
            | Refusal::BadSubnet(_)
            | Refusal::BadRule(_)
            | Refusal::BadResources(_)
            | Refusal::BadSetting(_)
            | Refusal::BadField { .. }
            | Refusal::NoImage { .. }
            | Refusal::ImageTooLarge { .. } => Category::Invalid,
            _ => Category::Conflict,
        }
    }
}
