//! Looking at the host: every domain and every disk, put together into what the node's brain is told.
//!
//! All of it, or it was not seen at all: a guest that is only hidden must not count as lost. One exception: where
//! libvirt does not answer and neither the ledger nor the disks know a guest, nothing can be missed; then the host
//! is told with nothing to give (so that placement says no) and with the reason.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use haar_api::rpc;
use haar_core::fence::Fence;
use haar_core::hypervisor::Inventory;
use haar_core::id::{CloudId, GuestId};
use haar_core::node::{Observation, OffReason, Seen};
use haar_core::order::Power;
use haar_core::units::{MiB, Resources};

use crate::call::SubAgent;
use crate::claim;

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How long a sub-agent that is just starting is waited for.
const STARTING: Duration = Duration::from_secs(5);

/// What is kept back for the host itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserve {
    /// A tenth of the memory, but at least 512 MiB.
    Usual,
    /// So much memory.
    Fixed(MiB),
}

impl Reserve {
    fn of(self, memory: MiB) -> MiB {
        match self {
            Reserve::Usual => MiB((memory.0 / 10).max(512)),
            Reserve::Fixed(reserve) => reserve,
        }
    }
}

/// Looks at the host.
///
/// # Errors
/// Why it could not be seen.
pub(crate) async fn observe(
    ask: u64,
    cloud: CloudId,
    reserve: Reserve,
    ledger_is_empty: bool,
    storage: &SubAgent,
    libvirt: &SubAgent,
) -> Result<Observation, rpc::Fault> {
    tokio::join!(storage.ready(STARTING), libvirt.ready(STARTING));
    let everything = rpc::VolumeRequest::default();
    let nothing = rpc::Nothing {};
    let (volumes, capacity, domains, host) = tokio::join!(
        storage.ask::<_, rpc::VolumeResponse>("ImageStore.ListVolumes", &everything, LIMIT),
        storage.ask::<_, rpc::CapacityResponse>("ImageStore.Capacity", &nothing, LIMIT),
        libvirt.ask::<_, rpc::GuestListResponse>("Libvirt.List", &nothing, LIMIT),
        libvirt.ask::<_, rpc::HostResponse>("Libvirt.Host", &nothing, LIMIT),
    );
    let (volumes, capacity) = (volumes?.volumes, capacity?);
    let (domains, host) = match (domains, host) {
        (Ok(domains), Ok(host)) => (domains.guests, host),
        (Err(fault), _) | (_, Err(fault)) if ledger_is_empty && volumes.is_empty() => {
            return Ok(without_libvirt(ask, &fault));
        }
        (Err(fault), _) | (_, Err(fault)) => return Err(fault),
    };
    let (guests, strangers) = sort_out(cloud, &domains, &volumes);
    let memory = MiB(host.memory_mib);
    Ok(Observation {
        ask,
        guests,
        strangers,
        inventory: inventory(&host, &capacity),
        total: Resources {
            cpu: host.cpus,
            memory: MiB(memory.0.saturating_sub(reserve.of(memory).0)),
            disk: whole_gib(capacity.total_bytes),
        },
    })
}

fn inventory(host: &rpc::HostResponse, capacity: &rpc::CapacityResponse) -> Inventory {
    Inventory {
        libvirt: host.libvirt.clone(),
        qemu: host.qemu.clone(),
        accel: host.accel.clone(),
        accel_reason: host.accel_reason.clone(),
        cpus: host.cpus,
        memory_mib: host.memory_mib,
        disk_free_mib: whole_gib(capacity.free_bytes).0,
        ..own()
    }
}

/// In steps, so that what changes with every written block is not news.
fn whole_gib(bytes: u64) -> MiB {
    MiB(MiB::from_bytes_floor(bytes).0 / 1024 * 1024)
}

fn own() -> Inventory {
    // Without it the machine is told by its id alone.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Inventory {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host.trim().to_owned(),
        ..Inventory::default()
    }
}

fn without_libvirt(ask: u64, fault: &rpc::Fault) -> Observation {
    Observation {
        ask,
        guests: Vec::new(),
        strangers: Vec::new(),
        inventory: Inventory {
            libvirt: "unavailable".to_owned(),
            accel: "unavailable".to_owned(),
            accel_reason: fault.message.clone(),
            ..own()
        },
        total: Resources::default(),
    }
}

/// Ours and strangers. Another cloud's guests are neither: they are in that cloud's books.
fn sort_out(cloud: CloudId, domains: &[rpc::Guest], volumes: &[rpc::Volume]) -> (Vec<Seen>, Vec<String>) {
    let cloud = cloud.to_string();
    let mut seen: BTreeMap<GuestId, Seen> = BTreeMap::new();
    let mut strangers = Vec::new();
    for domain in domains {
        match &domain.haar {
            Some(extra) if extra.cloud == cloud => match seen_domain(domain, extra, volumes) {
                Some(guest) => {
                    seen.insert(guest.id, guest);
                }
                None => strangers.push(domain.id.clone()),
            },
            Some(_) => {}
            None => strangers.push(domain.id.clone()),
        }
    }
    for volume in volumes {
        if let Some((id, life)) = owner_of(volume) {
            let guest = seen.entry(id).or_insert(Seen {
                id,
                life,
                domain: false,
                disks: true,
                power: Power::Absent,
                reason: OffReason::Unknown,
                claim: None,
            });
            // Where there is a domain, what counts is the disks that it has.
            guest.disks &= guest.domain || is_sound(volume);
        }
    }
    strangers.sort();
    (seen.into_values().collect(), strangers)
}

/// None when the mark is ours but cannot be read.
fn seen_domain(domain: &rpc::Guest, extra: &rpc::GuestExtra, volumes: &[rpc::Volume]) -> Option<Seen> {
    let (power, reason) = power(&domain.state, &extra.state_reason);
    Some(Seen {
        id: domain.id.parse().ok()?,
        life: extra.life.parse().ok()?,
        domain: true,
        disks: domain.disks.iter().all(|disk| is_there(&domain.id, disk, volumes)),
        power,
        reason,
        claim: claim::decode(&extra.claim),
    })
}

/// Whether storage has the disk of a domain, and has it sound. A disk of ours is known by its guest and number:
/// storage may tell its path in another spelling than libvirt, when the folder lies behind a symlink by now.
fn is_there(guest: &str, disk: &rpc::Disk, volumes: &[rpc::Volume]) -> bool {
    let name = volume_name(guest, &disk.source);
    let is_it =
        |volume: &rpc::Volume| volume.device == disk.source || name.as_deref() == Some(volume.id.as_str());
    volumes.iter().any(|volume| is_it(volume) && is_sound(volume))
}

/// What storage calls the file `…/<guest>/disk-<n>.qcow2`; None for a file that is not named so.
fn volume_name(guest: &str, source: &str) -> Option<String> {
    let (folder, file) = source.rsplit_once('/')?;
    let disk = file.strip_suffix(".qcow2")?;
    (folder.rsplit('/').next()? == guest).then(|| format!("guests/{guest}/{disk}"))
}

fn is_sound(volume: &rpc::Volume) -> bool {
    volume.haar.as_ref().is_none_or(|extra| extra.damage.is_empty())
}

/// Which life of which guest a disk is; None for disks that no placement made.
fn owner_of(volume: &rpc::Volume) -> Option<(GuestId, Fence)> {
    let guest = volume.id.strip_prefix("guests/")?.split('/').next()?;
    let life = volume.haar.as_ref()?.life.parse().ok()?;
    Some((guest.parse().ok()?, life))
}

fn power(state: &str, reason: &str) -> (Power, OffReason) {
    let off = match reason {
        "shutdown" => OffReason::Shutdown,
        "destroyed" => OffReason::Destroyed,
        "crashed" | "failed" | "panicked" => OffReason::Crashed,
        _ => OffReason::Unknown,
    };
    match state {
        "running" | "blocked" | "shutdown" => (Power::Running, OffReason::Unknown),
        "paused" | "suspended" => (Power::Paused, OffReason::Unknown),
        "shutoff" => (Power::Off, off),
        "crashed" => (Power::Off, OffReason::Crashed),
        _ => (Power::Unknown, OffReason::Unknown),
    }
}

/// Measures a look for the log: a slow one tells of a slow libvirtd.
pub(crate) fn note(begun: Instant, looked: &Result<Observation, rpc::Fault>) {
    let ms = begun.elapsed().as_millis();
    match looked {
        Ok(seen) => {
            tracing::debug!(
                ms,
                guests = seen.guests.len(),
                strangers = seen.strangers.len(),
                "looked at the host"
            );
        }
        Err(fault) => tracing::warn!(ms, %fault, "the host cannot be seen; looked at again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn cloud(n: u128) -> CloudId {
        Uuid::from_u128(n).into()
    }

    fn domain(id: &str, cloud: &CloudId, state: &str, reason: &str, disk: &str) -> rpc::Guest {
        rpc::Guest {
            id: id.into(),
            state: state.into(),
            disks: vec![rpc::Disk { source: disk.into(), ..rpc::Disk::default() }],
            haar: Some(rpc::GuestExtra {
                cloud: cloud.to_string(),
                life: "1.7".into(),
                state_reason: reason.into(),
                ..rpc::GuestExtra::default()
            }),
            ..rpc::Guest::default()
        }
    }

    fn volume(guest: &str, device: &str, life: &str) -> rpc::Volume {
        rpc::Volume {
            id: format!("guests/{guest}/disk-0"),
            device: device.into(),
            haar: Some(rpc::DiskExtra { life: life.into(), ..rpc::DiskExtra::default() }),
            ..rpc::Volume::default()
        }
    }

    #[test]
    fn domains_are_ours_another_clouds_or_strangers() {
        let ours = cloud(1);
        let ids: Vec<String> = (1..=5).map(|n| Uuid::from_u128(n).to_string()).collect();
        let stranger = rpc::Guest { id: "old-vm".into(), ..rpc::Guest::default() };
        let domains = [
            domain(&ids[0], &ours, "running", "booted", "/d/0"),
            domain(&ids[1], &ours, "shutoff", "crashed", "/d/gone"),
            domain(&ids[2], &cloud(2), "running", "booted", "/e/2"),
            domain("no-uuid", &ours, "running", "booted", "/d/0"),
            stranger,
        ];
        let volumes =
            [volume(&ids[0], "/d/0", "1.7"), volume(&ids[3], "/d/3", "1.9"), volume(&ids[4], "/d/4", "")];
        let (seen, strangers) = sort_out(ours, &domains, &volumes);
        assert_eq!(strangers, ["no-uuid", "old-vm"]);
        let told: Vec<_> =
            seen.iter().map(|s| (s.id.to_string(), s.domain, s.disks, s.power, s.reason)).collect();
        assert_eq!(
            told,
            [
                (ids[0].clone(), true, true, Power::Running, OffReason::Unknown),
                (ids[1].clone(), true, false, Power::Off, OffReason::Crashed),
                (ids[3].clone(), false, true, Power::Absent, OffReason::Unknown),
            ]
        );
        assert_eq!(seen[2].life, Fence::new(1, 9));
    }

    #[test]
    fn a_damaged_disk_costs_its_own_guest_and_no_other() {
        let ours = cloud(1);
        let ids: Vec<String> = (1..=3).map(|n| Uuid::from_u128(n).to_string()).collect();
        let domains = [
            domain(&ids[0], &ours, "running", "booted", "/d/0"),
            domain(&ids[1], &ours, "running", "booted", "/d/1"),
        ];
        let damaged = |mut volume: rpc::Volume| {
            volume.haar.as_mut().unwrap().damage = "it ends inside its header".into();
            volume
        };
        let volumes = [
            damaged(volume(&ids[0], "/d/0", "1.7")),
            volume(&ids[1], "/d/1", "1.7"),
            damaged(volume(&ids[2], "/d/2", "1.7")),
        ];
        let (seen, _) = sort_out(ours, &domains, &volumes);
        let told: Vec<_> = seen.iter().map(|guest| (guest.domain, guest.disks)).collect();
        assert_eq!(told, [(true, false), (true, true), (false, false)]);
    }

    #[test]
    fn a_disk_behind_a_symlink_is_still_there() {
        let ours = cloud(1);
        let id = Uuid::from_u128(1).to_string();
        let disk = format!("/var/lib/haar/storage/disks/{id}/disk-0.qcow2");
        let real = format!("/big/haar/storage/disks/{id}/disk-0.qcow2");
        let has_disks = |source: &str, volumes: &[rpc::Volume]| {
            sort_out(ours, &[domain(&id, &ours, "running", "booted", source)], volumes).0[0].disks
        };
        let volumes = [volume(&id, &real, "1.7")];
        assert!(has_disks(&disk, &volumes));
        assert!(!has_disks(&disk, &[]), "moved and gone are not the same");
        assert!(!has_disks(&disk.replace("disk-0", "disk-1"), &volumes), "nor is another disk");
        let other = Uuid::from_u128(2).to_string();
        assert!(!has_disks(&disk.replace(&id, &other), &volumes), "nor another guest's");
    }

    #[test]
    fn a_guest_that_is_shutting_down_still_runs() {
        assert_eq!(power("shutdown", "user").0, Power::Running);
        assert_eq!(power("shutoff", "shutdown"), (Power::Off, OffReason::Shutdown));
        assert_eq!(power("shutoff", "daemon"), (Power::Off, OffReason::Unknown));
        assert_eq!(power("nonsense", "").0, Power::Unknown);
    }

    #[test]
    fn memory_is_kept_back_for_the_host() {
        assert_eq!(Reserve::Usual.of(MiB(1024)), MiB(512));
        assert_eq!(Reserve::Usual.of(MiB(65_536)), MiB(6_553));
        assert_eq!(Reserve::Fixed(MiB(100)).of(MiB(65_536)), MiB(100));
    }
}
