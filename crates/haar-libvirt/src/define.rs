//! Making a domain and removing it: `Libvirt.CreateGuest`, `Libvirt.Create`, `Libvirt.Delete`.
//!
//! The definition is not data: it is made again whenever the disks are there. The disks are: a guest that
//! was provisioned and misses one is `lost`, and nothing is defined for it (design §11.1).

use std::path::Path;

use haar_api::rpc::{Fault, FaultCode, Guest, GuestRequest};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;
use virt_sys as sys;

use crate::connection::fault;
use crate::domain::{self, Found};
use crate::owner::{self, Match};
use crate::power;
use crate::service::Host;
use crate::xml::{self, Target};
use crate::{network, request};

/// Defines the domain, not started. Asked again for the same life it defines anew what does not run, so
/// that a changed size or nic takes hold at the next start, and leaves alone what runs.
///
/// # Errors
/// `conflict` for another's domain, `lost` or `not_found` for a missing disk, `invalid`, libvirt's.
pub(crate) fn create_guest(connection: &Connect, host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let guest = filled(request::named(asked)?);
    if guest.haar.is_none() {
        for nic in &guest.nics {
            network::ensure(connection, nic)?;
        }
    }
    let state = guest.state.clone();
    let ours = guest.haar.is_some();
    let mut answer = define(connection, host, guest)?;
    if !ours {
        // A caller of the seed's kind finds the state as it sent it.
        answer.state = state;
    }
    Ok(answer)
}

/// Defines the domain and starts it.
///
/// # Errors
/// As [`create_guest`] and [`power::run`].
pub(crate) fn create(connection: &Connect, host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let guest = filled(request::named(asked)?);
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
        owner::check(&guest, &found.described.guest, exactness)?;
        networks.extend(found.described.networks.iter().filter(|name| xml::is_mac(name)).cloned());
        remove(&found, host)?;
        if found.described.written_here {
            found.described.console.remove()?;
        }
    }
    host.folders.console(&guest.id)?.remove()?;
    if guest.haar.is_none() {
        networks.extend(guest.nics.iter().map(|nic| nic.mac.clone()).filter(|mac| xml::is_mac(mac)));
        for name in &networks {
            network::remove(connection, name)?;
        }
    }
    Ok(guest)
}

/// The defaults that the seed fills in: type, and each disk's bus and place.
fn filled(mut guest: Guest) -> Guest {
    if guest.kind.is_empty() {
        guest.kind = "kvm".into();
    }
    for (index, disk) in guest.disks.iter_mut().enumerate() {
        disk.bus = "virtio".into();
        disk.device = xml::disk_device(index);
    }
    guest
}

fn define(connection: &Connect, host: &Host, guest: Guest) -> Result<Guest, Fault> {
    let found = domain::find(connection, &guest.id)?;
    if let Some(found) = &found {
        let theirs = &found.described.guest;
        owner::check(&guest, theirs, Match::Exact)?;
        if guest.haar.is_none() && (theirs.haar.is_some() || !found.described.written_here) {
            let message = format!("a domain {} exists that is not the caller's: it is left alone", guest.id);
            return Err(Fault::new(FaultCode::Conflict, message));
        }
        if found.is_active() {
            return Ok(found.answer(guest));
        }
    }
    check_files(&guest)?;
    let target = Target {
        accel: host.probe.choose(wanted_accel(&guest)?)?,
        arch: std::env::consts::ARCH,
        uuid: found.map(|found| found.described.uuid).or_else(|| request::uuid(&guest.id)),
        console: host.folders.console(&guest.id)?,
    };
    let xml = xml::domain(&guest, &target)?;
    let defined = Domain::define_xml(connection, &xml).map_err(|e| fault("define the domain", &e))?;
    let vanished = || Fault::new(FaultCode::Failed, "the domain vanished as it was defined: ask again");
    Ok(Found::read(defined)?.ok_or_else(vanished)?.answer(guest))
}

/// What the guest asks to run under; the seed's callers say it by their `type`.
fn wanted_accel(guest: &Guest) -> Result<&str, Fault> {
    match (&guest.haar, guest.kind.as_str()) {
        (Some(extra), "kvm") => Ok(&extra.accel),
        (None, "kvm") => Ok("auto"),
        (None, "qemu") => Ok("tcg"),
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
