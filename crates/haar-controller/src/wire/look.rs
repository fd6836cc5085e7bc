//! What a translation may see: the fleet, who is alive, and names that are not published yet.

use std::collections::HashMap;

use haar_api::v1::ResourcesView;
use haar_core::fleet::Fleet;
use haar_core::guest::Guest;
use haar_core::hypervisor::Hypervisor;
use haar_core::id::{FwGroupId, HypervisorId, Kind, SubnetId};
use haar_core::units::{MiB, Resources};
use uuid::Uuid;

use crate::liveness::{Heard, Liveness};

/// Names of records that this commit makes or renames.
pub(crate) type Fresh = HashMap<(Kind, Uuid), String>;

/// A look at the books.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    /// The published fleet.
    pub(crate) fleet: &'a Fleet,
    /// Who is alive.
    pub(crate) liveness: &'a Liveness,
    /// Names newer than the fleet.
    pub(crate) fresh: Option<&'a Fresh>,
}

impl<'a> Look<'a> {
    /// A look at published books.
    pub(crate) fn new(fleet: &'a Fleet, liveness: &'a Liveness) -> Look<'a> {
        Look { fleet, liveness, fresh: None }
    }

    /// The name of a record; empty when there is none of that id.
    pub(crate) fn name(&self, kind: Kind, id: impl Into<Uuid>) -> String {
        let id = id.into();
        if let Some(name) = self.fresh.and_then(|fresh| fresh.get(&(kind, id))) {
            return name.clone();
        }
        let name = match kind {
            Kind::Hypervisor => self.fleet.hypervisor(id.into()).map(|record| &record.spec.name),
            Kind::Image => self.fleet.image(id.into()).map(|record| &record.spec.name),
            Kind::Flavor => self.fleet.flavor(id.into()).map(|record| &record.spec.name),
            Kind::Network => self.fleet.network(id.into()).map(|record| &record.spec.name),
            Kind::Subnet => self.fleet.subnet(id.into()).map(|record| &record.spec.name),
            Kind::FwGroup => self.fleet.fwgroup(id.into()).map(|record| &record.spec.name),
            Kind::Guest => self.fleet.guest(id.into()).map(|record| &record.spec.name),
            Kind::Token => self.fleet.token(id.into()).map(|record| &record.name),
            Kind::Config | Kind::Job => None,
        };
        name.map(ToString::to_string).unwrap_or_default()
    }

    /// The name beside an id that may be missing.
    pub(crate) fn name_some(&self, kind: Kind, id: Option<impl Into<Uuid>>) -> Option<String> {
        id.map(|id| self.name(kind, id))
    }

    /// `alive`, `silent`, `new`, `blind` (its agent cannot see its guests) or `unreported`: owes word of what it holds, since a restore or since the
    /// controller's own start less than a TTL ago.
    pub(crate) fn hypervisor_state(&self, record: &Hypervisor) -> &'static str {
        if record.incarnation == 0 {
            return "new";
        }
        match self.liveness.of(record.id).0 {
            Heard::Silent => "silent",
            Heard::NotYet => "unreported",
            Heard::Alive if record.reported_epoch != Some(self.fleet.epoch()) => "unreported",
            Heard::Alive if record.inventory.blind().is_some() => "blind",
            Heard::Alive => "alive",
        }
    }

    /// What is shown of a guest's state: `unknown` while its hypervisor is silent.
    pub(crate) fn guest_state(&self, guest: &Guest) -> &'static str {
        match guest.place {
            Some(place) if self.liveness.of(place.hypervisor).0 == Heard::Silent => "unknown",
            _ => guest.state.as_str(),
        }
    }

    /// What may be promised on a hypervisor, overcommit included.
    pub(crate) fn promised(&self, record: &Hypervisor) -> Resources {
        let ratios = record.spec.overcommit.unwrap_or_else(|| self.fleet.config().overcommit());
        ratios.of(record.total)
    }

    /// Guests placed on a hypervisor.
    pub(crate) fn guests_on(&self, hypervisor: HypervisorId) -> u64 {
        self.fleet.guests_on(hypervisor).count() as u64
    }

    /// Addresses of a subnet: held, and in all; the largest number when there are more.
    pub(crate) fn addresses(&self, subnet: SubnetId) -> (u64, u64) {
        let count = self.fleet.addresses(subnet);
        (count.used, u64::try_from(count.total).unwrap_or(u64::MAX))
    }

    /// Guests that name a firewall group.
    pub(crate) fn members(&self, group: FwGroupId) -> u64 {
        self.fleet.members_of(group) as u64
    }
}

/// What is left of `promised` once `used` is taken.
pub(crate) fn left(promised: Resources, used: Resources) -> Resources {
    Resources {
        cpu: promised.cpu.saturating_sub(used.cpu),
        memory: MiB(promised.memory.0.saturating_sub(used.memory.0)),
        disk: MiB(promised.disk.0.saturating_sub(used.disk.0)),
    }
}

/// Resources as shown.
pub(crate) fn resources(resources: Resources) -> ResourcesView {
    ResourcesView::from(resources)
}
