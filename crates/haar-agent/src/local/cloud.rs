//! The controller's guests on this host, as mistify's REST shows them (design §11.3).
//!
//! They are listed and looked at like any other guest, and can be switched on and off: what is asked here holds until
//! the controller asks anew. Everything else of them is the controller's, and is refused here with a 409.

use std::sync::Arc;

use haar_api::agent::{Disk, Guest};
use haar_api::rpc::Nic;
use haar_core::guest::Goal;
use haar_core::id::GuestId;
use haar_core::node::{GuestRecord, Input, Node, Refused, Stand};
use haar_core::order::Power;
use uuid::Uuid;

use super::engine::Stopped;
use crate::engine::Engine;

/// The way to the node's brain; an agent that serves only its own guests has none.
#[derive(Clone, Default)]
pub(crate) struct Cloud(Option<Arc<Engine>>);

/// Why a power action is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It is not one that can be asked for here.
    #[error("guest {guest} belongs to the controller: `{action}` it there (`haar guest`)")]
    Theirs { guest: Uuid, action: String },
    /// The node's no.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The agent stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Cloud {
    /// Of this node.
    pub(crate) fn of(engine: Engine) -> Cloud {
        Cloud(Some(Arc::new(engine)))
    }

    /// All of them, by id.
    pub(crate) async fn guests(&self) -> Result<Vec<Guest>, Stopped> {
        let Some(engine) = &self.0 else { return Ok(Vec::new()) };
        let all = |node: &Node| {
            let here = node.guests().filter(|record| is_here(record));
            here.map(|record| shown(record, node.power(record.id))).collect()
        };
        engine.read(all).await.map_err(|_| Stopped)
    }

    /// One of them.
    pub(crate) async fn guest(&self, id: Uuid) -> Result<Option<Guest>, Stopped> {
        let Some(engine) = &self.0 else { return Ok(None) };
        let id = GuestId(id);
        let one = move |node: &Node| {
            let record = node.guest(id).filter(|record| is_here(record));
            record.map(|record| shown(record, node.power(id)))
        };
        engine.read(one).await.map_err(|_| Stopped)
    }

    /// Switches one on or off.
    ///
    /// # Errors
    /// [`Error`]; nothing has changed.
    pub(crate) async fn power(&self, guest: Uuid, action: &str) -> Result<(), Error> {
        let goal = match action {
            "start" | "run" => Goal::Running,
            "shutdown" => Goal::Stopped,
            "poweroff" => Goal::Off,
            _ => return Err(Error::Theirs { guest, action: action.to_owned() }),
        };
        let Some(engine) = &self.0 else { return Err(Refused::NoSuchGuest(GuestId(guest)).into()) };
        let taken = engine.submit(Input::Local { guest: GuestId(guest), goal }).await;
        Ok(taken.map_err(|_| Stopped)??)
    }
}

/// Whether something of it is here, or shall be.
fn is_here(record: &GuestRecord) -> bool {
    !record.ended()
}

/// As the seed would show it. What the ledger does not know is left out.
fn shown(record: &GuestRecord, power: Power) -> Guest {
    let state = match (&record.stand, power) {
        (Stand::Lost(_) | Stand::Failed(_), _) => "error",
        (_, Power::Running) => "running",
        (_, Power::Paused) => "paused",
        (_, Power::Off) => "shutoff",
        (_, Power::Absent) => "create",
        (_, Power::Unknown) => "unknown",
    };
    let mut guest = Guest {
        id: record.id.to_string(),
        kind: "kvm".to_owned(),
        state: state.to_owned(),
        ..Guest::default()
    };
    guest.haar.insert("owner".to_owned(), "controller".into());
    let Some(order) = &record.order else { return guest };
    guest.haar.insert("name".to_owned(), order.name.to_string().into());
    guest.image = order.image.to_string();
    guest.memory = order.resources.memory.0;
    guest.cpu = order.resources.cpu;
    guest.disks = vec![Disk {
        bus: "virtio".to_owned(),
        device: "vda".to_owned(),
        size: order.resources.disk.0,
        volume: format!("guests/{}/disk-0", order.id),
        image: order.image.to_string(),
        ..Disk::default()
    }];
    guest.nics = vec![Nic {
        name: "eth0".to_owned(),
        network: record.network.as_ref().map(|network| network.bridge.clone()).unwrap_or_default(),
        model: "virtio".to_owned(),
        mac: order.mac.to_string(),
        address: order.address.to_string(),
        netmask: crate::stages::netmask(order.address, order.prefix),
        gateway: order.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        ..Nic::default()
    }];
    guest
}
