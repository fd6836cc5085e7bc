//! Making a domain and removing it: `Libvirt.CreateGuest`, `Libvirt.Create`, `Libvirt.Delete`.
//!
//! The definition is not data: it is made again whenever the disks are there. The disks are: a guest that
//! was provisioned and misses one is `lost`, and nothing is defined for it (design §11.1).

use std::path::Path;

use haar_api::rpc::{Fault, FaultCode, Guest, GuestRequest, Nic};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt_sys as sys;

use crate::connection::fault;
use crate::domain::{self, Found};
use crate::filter::Filtered;
use crate::network::{self, Ensured};
use crate::owner::{self, Match};
use crate::power;
use crate::service::Host;
use crate::xml::{self, Switch, Target};
use crate::{request, screen};

/// Defines the domain, not started. Asked again for the same life it defines anew what does not run, so
/// that a changed size or nic takes hold at the next start, and leaves alone what runs.
///
/// # Errors
/// `conflict` for another's domain, `lost` or `not_found` for a missing disk, `invalid`, `unavailable` when its frames
/// cannot be filtered just now, libvirt's.
pub(crate) fn create_guest(connection: &Connect, host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let guest = filled(request::named(asked)?)?;
    if guest.haar.is_some() {
        return define(connection, host, guest);
    }
    let mut made = Vec::new();
    let outcome =
        networks(connection, host, &guest, &mut made).and_then(|()| define(connection, host, guest));
    if outcome.is_err() {
        // Undone in reverse; the caller is told of the first failure, not of these.
        for name in made.iter().rev() {
            if let Err(error) = network::remove(connection, name) {
                tracing::warn!(network = name, %error, "a network of a guest that could not be made stays");
            }
        }
    }
    outcome
}

/// Makes the networks of a foreign caller's nics; those that were not there before are added to `made`.
fn networks(connection: &Connect, host: &Host, guest: &Guest, made: &mut Vec<String>) -> Result<(), Fault> {
    for nic in &guest.nics {
        if network::ensure(connection, nic, host.switch_of(&nic.network))? == Ensured::Made {
            made.push(nic.mac.clone());
        }
    }
    Ok(())
}

/// Defines the domain and starts it.
///
/// # Errors
/// As [`create_guest`] and [`power::run`].
pub(crate) fn create(connection: &Connect, host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let guest = filled(request::named(asked)?)?;
    let guest = define(connection, host, guest)?;
    power::run(connection, host, &GuestRequest { guest: Some(guest), ..GuestRequest::default() })
}

/// Stops the domain if it runs, removes it with all that libvirt keeps of it, and its console's files.
/// Disks are not touched. An absent domain is fine.
///
/// # Errors
/// `conflict` for another's domain, which is left as it is; libvirt's.
pub(crate) fn delete(connection: &Connect, host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let guest = request::named(asked)?;
    let any_life = asked.args.get("any_life").is_some_and(|value| value == "true");
    let exactness = if any_life { Match::AnyLife } else { Match::Exact };
    let mut networks: Vec<String> = Vec::new();
    if let Some(found) = domain::find(connection, &guest.id)? {
        owner::check(&guest, &found.described, exactness)?;
        networks.extend(found.described.networks.iter().filter(|name| xml::is_mac(name)).cloned());
        remove(&found, host)?;
        if found.described.written_here {
            found.described.console.remove()?;
        }
    }
    host.folders.console(&guest.id)?.remove()?;
    screen::remove(&host.screens, &guest.id)?;
    if guest.haar.is_none() {
        networks.extend(guest.nics.iter().map(|nic| nic.mac.clone()).filter(|mac| xml::is_mac(mac)));
        remove_networks(connection, &networks)?;
    }
    Ok(guest)
}

/// Removes networks of a guest that is gone, but for those that another one hangs on: whoever gave two guests one MAC
/// has made one network for both.
fn remove_networks(connection: &Connect, networks: &[String]) -> Result<(), Fault> {
    if networks.is_empty() {
        return Ok(());
    }
    let others = domain::all(connection)?;
    let is_used = |name: &String| others.iter().any(|other| other.described.networks.contains(name));
    networks.iter().filter(|name| !is_used(name)).try_for_each(|name| network::remove(connection, name))
}

/// The defaults that the seed fills in: type, and each disk's bus and place.
fn filled(mut guest: Guest) -> Result<Guest, Fault> {
    if guest.kind.is_empty() {
        guest.kind = "kvm".into();
    }
    let places = xml::disk_places(&guest.disks)?;
    for (disk, (bus, device)) in guest.disks.iter_mut().zip(places) {
        disk.bus = bus.into();
        disk.device = device;
    }
    Ok(guest)
}

fn define(connection: &Connect, host: &Host, guest: Guest) -> Result<Guest, Fault> {
    let found = domain::find(connection, &guest.id)?;
    if let Some(found) = &found {
        owner::check(&guest, &found.described, Match::Exact)?;
        if found.is_active() {
            return Ok(found.answer(guest));
        }
    } else if guest.haar.is_some() && !guest.nics.is_empty() {
        let others = domain::all(connection)?;
        owner::check_macs(&guest, others.iter().map(|other| &other.described))?;
    }
    check_files(&guest)?;
    let target = Target {
        accel: host.probe.choose(wanted_accel(&guest)?)?,
        arch: std::env::consts::ARCH,
        uuid: found.map(|found| found.described.uuid).or_else(|| request::uuid(&guest.id)),
        console: host.folders.console(&guest.id)?,
        filtered: filtered(connection, host, &guest)?,
    };
    let xml = xml::domain(&guest, &target)?;
    let defined = Domain::define_xml(connection, &xml).map_err(|e| fault("define the domain", &e))?;
    let vanished = || Fault::new(FaultCode::Failed, "the domain vanished as it was defined: ask again");
    Ok(Found::read(defined)?.ok_or_else(vanished)?.answer(guest))
}

/// Of each nic, whether it can be held to its addresses. Where this host cannot filter at all, the guest runs all the
/// same; where it only fails to do so just now, there is a no, for a domain is not looked at again.
///
/// # Errors
/// `unavailable`.
fn filtered(connection: &Connect, host: &Host, guest: &Guest) -> Result<Vec<Filtered>, Fault> {
    // Frames on an Open vSwitch pass no ebtables, and those of a trunk are meant to be tagged.
    let is_bridged = |nic: &Nic| guest.haar.is_some() || host.switch_of(&nic.network) == Switch::Bridge;
    let of = |works: bool, nic: &Nic| if works && is_bridged(nic) { Filtered::Yes } else { Filtered::No };
    let works = guest.nics.iter().any(is_bridged) && host.frames.can_be_filtered(connection)?;
    Ok(guest.nics.iter().map(|nic| of(works, nic)).collect())
}

/// What the guest asks to run under; the seed's callers say it by their `type`.
fn wanted_accel(guest: &Guest) -> Result<&str, Fault> {
    match (&guest.haar, guest.kind.as_str()) {
        (Some(extra), "kvm") => Ok(&extra.accel),
        (None, "kvm") => Ok("auto"),
        (None, "qemu") => Ok("tcg"),
        (None, "test") => Ok("test"),
        (_, kind) => Err(Fault::new(
            FaultCode::Invalid,
            format!("the guest's type is {kind:?}: this sub-agent runs only `kvm`"),
        )),
    }
}

/// Whether the files of one of Haar's guests are there. Other callers' files are libvirt's to check.
///
/// # Errors
/// `lost` for a disk that once held data, `not_found` for one not made yet or for the seed, which the agent
/// can make again; `unavailable` when the file system does not say.
pub(crate) fn check_files(guest: &Guest) -> Result<(), Fault> {
    let Some(extra) = &guest.haar else { return Ok(()) };
    for (index, disk) in guest.disks.iter().enumerate() {
        if exists(&disk.source)? {
            continue;
        }
        let missing = format!("disk {index} of guest {} is not at {}", guest.id, disk.source);
        return Err(match extra.provisioned {
            true => Fault::new(FaultCode::Lost, format!("{missing}: it held data and is not made anew")),
            false => Fault::new(FaultCode::NotFound, format!("{missing}: make the disks first")),
        });
    }
    if !extra.seed.is_empty() && !exists(&extra.seed)? {
        let message = format!("the seed disk of guest {} is not at {}: make it first", guest.id, extra.seed);
        return Err(Fault::new(FaultCode::NotFound, message));
    }
    Ok(())
}

fn exists(path: &str) -> Result<bool, Fault> {
    Path::new(path).try_exists().map_err(|error| {
        Fault::new(FaultCode::Unavailable, format!("whether {path} is there cannot be seen: {error}"))
    })
}

fn remove(found: &Found, host: &Host) -> Result<(), Fault> {
    if found.is_active() {
        power::destroy(found)?;
    }
    let mut flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
    if !host.probe.test_driver {
        flags |= sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
    }
    if found.described.has_nvram {
        flags |= sys::VIR_DOMAIN_UNDEFINE_NVRAM;
    }
    match found.domain.undefine_flags(flags) {
        // A domain that was only running is gone once stopped.
        Err(error) if error.code() != ErrorNumber::NoDomain => Err(fault("remove the domain", &error)),
        _ => Ok(()),
    }
}
