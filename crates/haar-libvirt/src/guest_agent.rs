//! The agent inside a guest, over its channel `org.qemu.guest_agent.0`: is it there, freeze, thaw.
//!
//! Promised: each question ends within [`LIMIT_S`] seconds and a bit; a guest without an agent is an answer and no
//! fault; what was frozen here is thawed after a while even when nobody asks for it, or when freezing failed midway
//! (`thaw`).

use std::time::Duration;

use haar_api::rpc::libvirt::{GuestAgent, GuestAgentResponse};
use haar_api::rpc::{Fault, FaultCode, GuestRequest};
use virt::connect::Connect;
use virt::error::{Error, ErrorNumber};

use crate::connection::fault;
use crate::domain::{self, Found};
use crate::ffi;
use crate::power;
use crate::state::State;

/// Seconds the agent has for one answer.
pub(crate) const LIMIT_S: u16 = 10;
/// How long all of a question may take: a failed freeze asks the agent twice.
pub(crate) const INSIDE: Duration = Duration::from_secs(2 * LIMIT_S as u64 + 10);
/// How long file systems stay frozen at most, unless the caller says less.
const MOST_FROZEN: Duration = Duration::from_secs(60);

/// When a guest is to be thawed, as the answer to a freeze says; None: it is not frozen.
pub(crate) fn due(frozen: &Result<GuestAgentResponse, Fault>, if_frozen: Duration) -> Option<Duration> {
    match frozen {
        Ok(answer) if answer.agent == GuestAgent::Answers => Some(if_frozen),
        Ok(answer) if answer.agent == GuestAgent::Absent => None,
        // It may yet carry out what it was told.
        Ok(_) => Some(Duration::ZERO),
        Err(fault) => due_after(fault),
    }
}

/// When a guest is to be thawed after a call that may have frozen it, and failed; None: it has not begun.
pub(crate) fn due_after(fault: &Fault) -> Option<Duration> {
    let is_refused = matches!(fault.code, FaultCode::NotFound | FaultCode::Invalid | FaultCode::Conflict);
    (!is_refused).then_some(Duration::ZERO)
}

/// Whether there is an agent.
///
/// # Errors
/// `not_found` without a domain, `invalid` when it does not run, libvirt's.
pub(crate) fn ping(connection: &Connect, asked: &GuestRequest) -> Result<GuestAgentResponse, Fault> {
    ask(connection, asked, "ask the guest's agent", |found| found.domain.get_time(0).map(|_| 0))
}

/// Freezes every file system; nothing is written then.
///
/// # Errors
/// As [`ping`], and the agent's own no; then everything is thawed again.
pub(crate) fn freeze(connection: &Connect, asked: &GuestRequest) -> Result<GuestAgentResponse, Fault> {
    let frozen = ask(connection, asked, "freeze the guest's file systems", |found| {
        ffi::freeze(&found.domain).inspect_err(|_| {
            // It may have frozen some, or be at it; the failure is told, whatever becomes of this.
            let _ = ffi::thaw(&found.domain);
        })
    })?;
    Ok(frozen)
}

/// Thaws every file system; those that are not frozen are left as they are.
///
/// # Errors
/// As [`ping`], and the agent's own no.
pub(crate) fn thaw(connection: &Connect, asked: &GuestRequest) -> Result<GuestAgentResponse, Fault> {
    ask(connection, asked, "thaw the guest's file systems", thaw_found)
}

/// Thaws the domain of that name, whoever's it is; whether it is known not to be frozen any more.
///
/// # Errors
/// libvirt's.
pub(crate) fn release(connection: &Connect, name: &str) -> Result<bool, Fault> {
    let Some(found) = domain::find(connection, name)?.filter(Found::is_active) else { return Ok(true) };
    // One whose agent has gone away may have it back.
    Ok(answers(&found, "thaw the guest's file systems", &thaw_found)?.0 == GuestAgent::Answers)
}

/// After how long what is frozen is thawed: the request's `thaw_after_s`, in seconds.
///
/// # Errors
/// `invalid` for what is no number of seconds up to 60.
pub(crate) fn frozen_for(asked: &GuestRequest) -> Result<Duration, Fault> {
    let Some(text) = asked.args.get("thaw_after_s") else { return Ok(MOST_FROZEN) };
    let seconds = text.parse().ok().map(Duration::from_secs);
    seconds.filter(|limit| (Duration::from_secs(1)..=MOST_FROZEN).contains(limit)).ok_or_else(|| {
        let most = MOST_FROZEN.as_secs();
        Fault::new(
            FaultCode::Invalid,
            format!("thaw_after_s is {text:?}: it must be from 1 to {most} seconds"),
        )
    })
}

fn ask(
    connection: &Connect,
    asked: &GuestRequest,
    doing: &str,
    question: impl Fn(&Found) -> Result<u32, Error>,
) -> Result<GuestAgentResponse, Fault> {
    let (guest, found) = power::active(connection, asked)?;
    let (agent, file_systems) = answers(&found, doing, &question)?;
    Ok(GuestAgentResponse { guest: Some(found.answer(guest)), agent, file_systems })
}

fn thaw_found(found: &Found) -> Result<u32, Error> {
    ffi::thaw(&found.domain)
}

fn answers(
    found: &Found,
    doing: &str,
    question: &dyn Fn(&Found) -> Result<u32, Error>,
) -> Result<(GuestAgent, u32), Fault> {
    if !found.described.has_agent {
        return Ok((GuestAgent::Absent, 0));
    }
    if matches!(found.state, State::Paused | State::Suspended) {
        // Its processors stand still: asked, it would only be waited for.
        return Ok((GuestAgent::Silent, 0));
    }
    ffi::limit_agent(&found.domain, LIMIT_S).map_err(|e| fault(doing, &e))?;
    match question(found) {
        Ok(file_systems) => Ok((GuestAgent::Answers, file_systems)),
        Err(error) if is_silence(&error) => Ok((GuestAgent::Silent, 0)),
        Err(error) => Err(fault(doing, &error)),
    }
}

fn is_silence(error: &Error) -> bool {
    matches!(
        error.code(),
        ErrorNumber::AgentUnresponsive | ErrorNumber::AgentUnsynced | ErrorNumber::AgentCommandTimeout
    )
}
