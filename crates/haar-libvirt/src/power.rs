//! Starting and stopping: each asks for a state and does nothing when that is already so.
//!
//! | asked | shut off | running | paused | suspended | shutting down |
//! | --- | --- | --- | --- | --- | --- |
//! | Run | start | – | resume | wake | `failed`, ask again |
//! | Shutdown | – | ACPI button | ACPI button | ACPI button | – |
//! | Suspend | `invalid` | pause | – | – | `invalid` |
//! | Resume | `invalid` | – | resume | wake | `invalid` |
//! | Poweroff | – | end | end | end | end |
//! | Reboot, Restart | `invalid` | ACPI, reset | ACPI, reset | ACPI, reset | ACPI, reset |

use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode, Guest, GuestRequest};
use virt::connect::Connect;
use virt::error::{Error, ErrorNumber};
use virt_sys as sys;

use crate::connection::fault;
use crate::define;
use crate::domain::{self, Found};
use crate::filter;
use crate::owner::{self, Match};
use crate::request;
use crate::service::Host;
use crate::state::State;

/// Makes the guest run.
///
/// # Errors
/// `not_found` without a domain, `lost` or `not_found` for a missing file, `failed` while it is still
/// shutting down, libvirt's.
pub(crate) fn run(connection: &Connect, _host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let (guest, found) = named(connection, asked)?;
    match found.state {
        State::Running | State::Blocked | State::Crashed => {}
        State::Shutoff | State::Unknown => start(connection, &guest, &found)?,
        State::Paused | State::Suspended => wake(&found)?,
        State::Shutdown => {
            let message = format!("the domain {} is still shutting down: ask again", guest.id);
            return Err(Fault::new(FaultCode::Failed, message));
        }
    }
    answer(connection, guest)
}

/// Asks the guest, by its ACPI button, to shut down, and answers at once.
///
/// # Errors
/// `not_found` without a domain, libvirt's.
pub(crate) fn shutdown(connection: &Connect, host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let (guest, found) = named(connection, asked)?;
    if found.is_active() && !matches!(found.state, State::Shutdown | State::Crashed) {
        // libvirt's own choice would ask the guest agent first, which may not answer.
        let flags = if host.probe.test_driver { 0 } else { sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN };
        unless_inactive(&found, found.domain.shutdown_flags(flags), "shut the domain down")?;
    }
    answer(connection, guest)
}

/// How long a guest may take to shut down before its plug is pulled: the request's `limit_s`, in seconds; none when it
/// is only asked.
///
/// # Errors
/// `invalid` for what is no number of seconds up to an hour.
pub(crate) fn shutdown_limit(asked: &GuestRequest) -> Result<Option<Duration>, Fault> {
    let Some(text) = asked.args.get("limit_s") else { return Ok(None) };
    match text.parse() {
        Ok(seconds @ 1..=3600) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Fault::new(
            FaultCode::Invalid,
            format!("limit_s is {text:?}: it must be from 1 to 3600 seconds"),
        )),
    }
}

/// Whether the guest, as answered, has ended.
pub(crate) fn is_off(guest: &Guest) -> bool {
    [State::Shutoff, State::Crashed].iter().any(|state| state.as_str() == guest.state)
}

/// Ends the guest at once, as if by pulling the plug.
///
/// # Errors
/// `not_found` without a domain, libvirt's.
pub(crate) fn poweroff(connection: &Connect, _host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let (guest, found) = named(connection, asked)?;
    if found.is_active() {
        destroy(&found)?;
    }
    answer(connection, guest)
}

/// Asks the guest, by its ACPI button, to reboot, and answers at once.
///
/// # Errors
/// `not_found` without a domain, `invalid` when it does not run, libvirt's.
pub(crate) fn reboot(connection: &Connect, host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let (guest, found) = active(connection, asked)?;
    let flags = if host.probe.test_driver {
        sys::VIR_DOMAIN_REBOOT_DEFAULT
    } else {
        sys::VIR_DOMAIN_REBOOT_ACPI_POWER_BTN
    };
    found.domain.reboot(flags).map_err(|e| fault("reboot the domain", &e))?;
    answer(connection, guest)
}

/// Resets the guest at once, as if by its reset button.
///
/// # Errors
/// As [`reboot`].
pub(crate) fn restart(connection: &Connect, _host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let (guest, found) = active(connection, asked)?;
    found.domain.reset().map_err(|e| fault("reset the domain", &e))?;
    answer(connection, guest)
}

/// What came of a suspension.
pub(crate) struct Suspended {
    pub(crate) guest: Guest,
    /// The guest stood still already.
    pub(crate) was_before: bool,
}

/// Stops the guest's processors where they are; its memory stays, and nothing of it is written to disk.
///
/// # Errors
/// `not_found` without a domain, `invalid` when it does not run or is about to end, libvirt's.
pub(crate) fn suspend(connection: &Connect, asked: &GuestRequest) -> Result<Suspended, Fault> {
    let (guest, found) = active(connection, asked)?;
    let was_before = match found.state {
        State::Paused | State::Suspended => true,
        State::Running | State::Blocked => {
            found.domain.suspend().map_err(|e| fault("suspend the domain", &e))?;
            false
        }
        State::Shutdown | State::Crashed | State::Shutoff | State::Unknown => return Err(not_so(&found)),
    };
    Ok(Suspended { guest: answer(connection, guest)?, was_before })
}

/// Lets the domain of that name go on if its processors stand still, whoever's it is; it does not stand still then.
///
/// # Errors
/// libvirt's.
pub(crate) fn release(connection: &Connect, name: &str) -> Result<bool, Fault> {
    if let Some(found) = domain::find(connection, name)?.filter(|found| found.state == State::Paused) {
        wake(&found)?;
    }
    Ok(true)
}

/// Lets a suspended guest go on; starts none.
///
/// # Errors
/// As [`suspend`].
pub(crate) fn resume(connection: &Connect, _host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let (guest, found) = active(connection, asked)?;
    match found.state {
        State::Running | State::Blocked => {}
        State::Paused | State::Suspended => wake(&found)?,
        State::Shutdown | State::Crashed | State::Shutoff | State::Unknown => return Err(not_so(&found)),
    }
    answer(connection, guest)
}

/// Only looks.
///
/// # Errors
/// `not_found` without a domain, libvirt's.
pub(crate) fn status(connection: &Connect, _host: &Host, asked: &GuestRequest) -> Result<Guest, Fault> {
    let (guest, found) = named(connection, asked)?;
    Ok(found.answer(guest))
}

/// Ends the domain's process; one that ended by itself meanwhile is fine.
///
/// # Errors
/// libvirt's.
pub(crate) fn destroy(found: &Found) -> Result<(), Fault> {
    unless_inactive(found, found.domain.destroy(), "end the domain")
}

fn named(connection: &Connect, asked: &GuestRequest) -> Result<(Guest, Found), Fault> {
    let guest = request::named(asked)?;
    let found = domain::get(connection, &guest.id)?;
    owner::check(&guest, &found.described, Match::AsNamed)?;
    Ok((guest, found))
}

/// The caller's guest and its domain, which has a QEMU process.
///
/// # Errors
/// `not_found` without a domain, `invalid` when it does not run, libvirt's.
pub(crate) fn active(connection: &Connect, asked: &GuestRequest) -> Result<(Guest, Found), Fault> {
    let (guest, found) = named(connection, asked)?;
    if found.is_active() { Ok((guest, found)) } else { Err(not_so(&found)) }
}

fn not_so(found: &Found) -> Fault {
    let (id, state) = (&found.described.guest.id, found.state.as_str());
    Fault::new(FaultCode::Invalid, format!("the domain {id} is {state}: run it first"))
}

fn wake(found: &Found) -> Result<(), Fault> {
    let woken = match found.state {
        State::Suspended => found.domain.pm_wakeup(0),
        _ => found.domain.resume(),
    };
    woken.map(drop).map_err(|e| fault("let the domain go on", &e))
}

fn start(connection: &Connect, guest: &Guest, found: &Found) -> Result<(), Fault> {
    let mut defined = found.described.guest.clone();
    if let (Some(defined), Some(asked)) = (&mut defined.haar, &guest.haar) {
        // The caller may know more: the domain was defined before the guest was provisioned.
        defined.provisioned |= asked.provisioned;
    }
    define::check_files(&defined)?;
    if found.described.written_here {
        found.described.console.make_folders()?;
    }
    if found.described.filters.iter().any(|name| filter::is_ours(name)) {
        // Somebody may have removed them, for libvirt minds only the filters of guests that run.
        filter::ensure(connection)?;
    }
    match found.domain.create() {
        // Somebody else started it meanwhile.
        Err(_) if found.domain.is_active().unwrap_or(false) => Ok(()),
        Err(error) => Err(fault("start the domain", &error)),
        Ok(_) => Ok(()),
    }
}

fn unless_inactive<T>(found: &Found, outcome: Result<T, Error>, doing: &str) -> Result<(), Fault> {
    match outcome {
        Ok(_) => Ok(()),
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(()),
        Err(_) if !found.domain.is_active().unwrap_or(true) => Ok(()),
        Err(error) => Err(fault(doing, &error)),
    }
}

/// Reads the domain afresh: its devices have names only once it runs.
fn answer(connection: &Connect, guest: Guest) -> Result<Guest, Fault> {
    Ok(domain::get(connection, &guest.id)?.answer(guest))
}
