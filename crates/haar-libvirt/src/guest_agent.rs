//! The agent inside a guest, over its channel `org.qemu.guest_agent.0`: is it there, freeze, thaw.
//!
//! Promised: each question ends within [`LIMIT_S`] seconds and a bit; a guest without an agent is an answer and no
//! fault; one that is frozen still answers, and can be frozen again, which changes nothing; what was frozen here is
//! thawed after a while even when nobody asks for it, or when freezing failed midway (`hold`).

use std::cell::Cell;
use std::time::Duration;

use haar_api::rpc::libvirt::{GuestAgent, GuestAgentResponse};
use haar_api::rpc::{Fault, GuestRequest};
use serde_json::Value;
use virt::connect::Connect;
use virt::error::{Error, ErrorNumber};

use crate::connection::fault;
use crate::domain::{self, Found};
use crate::ffi;
use crate::hold::Due;
use crate::power;
use crate::state::State;

/// Seconds the agent has for one answer.
pub(crate) const LIMIT_S: u16 = 10;
/// How long all of a question may take: a failed freeze asks the agent three times.
pub(crate) const INSIDE: Duration = Duration::from_secs(3 * LIMIT_S as u64 + 10);

/// When a guest is to be thawed, as the answer to a freeze says.
pub(crate) fn due(frozen: &Result<Frozen, Fault>, if_frozen: Duration) -> Due {
    match frozen.as_ref().map(|frozen| (frozen.answer.agent, frozen.answer.file_systems)) {
        Ok((GuestAgent::Answers, file_systems)) => Due::In(if_frozen, file_systems),
        Ok((GuestAgent::Absent, _)) => Due::AsBefore,
        // It may yet carry out what it was told.
        Ok((GuestAgent::Silent, _)) => Due::NOW,
        Err(fault) => Due::after(fault),
    }
}

/// What came of a freeze.
pub(crate) struct Frozen {
    pub(crate) answer: GuestAgentResponse,
    /// The guest was frozen already.
    pub(crate) was_before: bool,
}

/// Whether there is an agent.
///
/// # Errors
/// `not_found` without a domain, `invalid` when it does not run, libvirt's.
pub(crate) fn ping(connection: &Connect, asked: &GuestRequest) -> Result<GuestAgentResponse, Fault> {
    // One of the few commands that an agent takes while file systems are frozen.
    ask(connection, asked, "ask the guest's agent", |found| command(found, "guest-ping").map(|_| 0))
}

/// Freezes every file system; nothing is written then. A guest that is frozen stays so, and `known` is how many file
/// systems that were, for its agent does not say.
///
/// # Errors
/// As [`ping`], and the agent's own no; then everything is thawed again.
pub(crate) fn freeze(connection: &Connect, asked: &GuestRequest, known: u32) -> Result<Frozen, Fault> {
    let was_before = Cell::new(false);
    let answer = ask(connection, asked, "freeze the guest's file systems", |found| {
        // A second freeze is an error to the agent.
        was_before.set(is_frozen(found)?);
        if was_before.get() {
            return Ok(known);
        }
        ffi::freeze(&found.domain).inspect_err(|_| {
            // It may have frozen some, or be at it; the failure is told, whatever becomes of this.
            let _ = ffi::thaw(&found.domain);
        })
    })?;
    Ok(Frozen { answer, was_before: was_before.get() })
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

fn is_frozen(found: &Found) -> Result<bool, Error> {
    match command(found, "guest-fsfreeze-status") {
        Ok(said) => Ok(said["return"] == "frozen"),
        Err(error) if is_silence(&error) => Err(error),
        // One that cannot tell cannot freeze either, and says so itself.
        Err(_) => Ok(false),
    }
}

/// A command without arguments, in the agent's own words, and its answer; what is no JSON says nothing.
fn command(found: &Found, name: &str) -> Result<Value, Error> {
    let text = format!(r#"{{"execute":"{name}"}}"#);
    let said = found.domain.qemu_agent_command(&text, i32::from(LIMIT_S), 0)?;
    Ok(serde_json::from_str(&said).unwrap_or_default())
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
