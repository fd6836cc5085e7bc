//! One domain of libvirtd, found by its name: its state, its description, and the answer made of both.

use haar_api::rpc::{Fault, FaultCode, Guest, NicExtra};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;

use crate::connection::fault;
use crate::describe::Described;
use crate::state::{self, State};

/// A domain as it was a moment ago.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) domain: Domain,
    pub(crate) described: Described,
    pub(crate) state: State,
    pub(crate) reason: &'static str,
}

impl Found {
    /// Reads a domain; nothing when it vanished in between.
    ///
    /// # Errors
    /// libvirt's, and `failed` when its XML cannot be read.
    pub(crate) fn read(domain: Domain) -> Result<Option<Self>, Fault> {
        let read = domain.get_state().and_then(|state| Ok((state, domain.get_xml_desc(0)?)));
        let ((state, reason), xml) = match read {
            Ok(read) => read,
            Err(error) if error.code() == ErrorNumber::NoDomain => return Ok(None),
            Err(error) => return Err(fault("read the domain", &error)),
        };
        let described =
            Described::parse(&xml).map_err(|error| Fault::new(FaultCode::Failed, error.to_string()))?;
        let state = State::from_libvirt(state);
        let reason = state::reason(state, reason);
        Ok(Some(Found { domain, described, state, reason }))
    }

    /// Whether it has a QEMU process.
    pub(crate) fn is_active(&self) -> bool {
        !matches!(self.state, State::Shutoff | State::Unknown)
    }

    /// The caller's guest with what is known of the domain: state, host devices, console.
    pub(crate) fn answer(&self, mut guest: Guest) -> Guest {
        guest.state = self.state.as_str().into();
        for nic in &mut guest.nics {
            // By MAC, for the order of interfaces is libvirt's own.
            let live = self.described.guest.nics.iter().find(|live| live.mac.eq_ignore_ascii_case(&nic.mac));
            nic.device = live.map(|live| live.device.clone()).unwrap_or_default();
            nic.haar = live.map(|live| NicExtra { filtered: self.described.held.contains(&live.mac) });
        }
        if let Some(extra) = &mut guest.haar {
            extra.state_reason = self.reason.into();
            extra.console_socket.clone_from(&self.described.console.socket);
            extra.console_log.clone_from(&self.described.console.log);
        }
        guest
    }

    /// The guest as the domain itself tells it: with `haar` for Haar's own, without for a stranger's.
    pub(crate) fn itself(&self) -> Guest {
        self.answer(self.described.guest.clone())
    }
}

/// The domain of that name, if there is one.
///
/// # Errors
/// As [`Found::read`].
pub(crate) fn find(connection: &Connect, name: &str) -> Result<Option<Found>, Fault> {
    match Domain::lookup_by_name(connection, name) {
        Ok(domain) => Found::read(domain),
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(None),
        Err(error) => Err(fault("look for the domain", &error)),
    }
}

/// The domain of that name.
///
/// # Errors
/// `not_found` when there is none, else as [`Found::read`].
pub(crate) fn get(connection: &Connect, name: &str) -> Result<Found, Fault> {
    find(connection, name)?
        .ok_or_else(|| Fault::new(FaultCode::NotFound, format!("there is no domain {name}: define it first")))
}

/// Every domain, active or not.
///
/// # Errors
/// As [`Found::read`].
pub(crate) fn all(connection: &Connect) -> Result<Vec<Found>, Fault> {
    let domains = connection.list_all_domains(0).map_err(|error| fault("list the domains", &error))?;
    let mut found = Vec::with_capacity(domains.len());
    for domain in domains {
        found.extend(Found::read(domain)?);
    }
    Ok(found)
}
