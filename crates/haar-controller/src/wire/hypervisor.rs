//! Hypervisors: core ⇄ wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use haar_api::v1::{HypervisorCreate, HypervisorPatch, HypervisorView, InventoryView, OvercommitRatios, Ref};
use haar_core::address::Mac;
use haar_core::fence::Revision;
use haar_core::fleet::Fleet;
use haar_core::fleet::command::Command;
use haar_core::hypervisor::{Hypervisor, HypervisorSpec, Inventory};
use haar_core::id::{Kind, SubnetId};
use haar_core::name::Name;
use haar_core::refusal::Refusal;
use haar_core::units::Overcommit;
use uuid::Uuid;

use super::look::{Look, left, resources};
use super::{Makeable, Noun, address_some, project, resolve, time};

/// The noun.
pub(crate) struct Hypervisors;

/// Ratios in hundredths. Only two decimals count.
fn ratios_in(ratios: OvercommitRatios) -> Result<Overcommit, Refusal> {
    let hundredths = |ratio: f64| {
        let scaled = (ratio * 100.0).round();
        if (10.0..=10_000.0).contains(&scaled) {
            return Ok(scaled as u32);
        }
        let problem = format!("{ratio} is no ratio; give one from 0.1 to 100, such as 4.0");
        Err(Refusal::BadField { field: "overcommit", problem })
    };
    Ok(Overcommit {
        cpu: hundredths(ratios.cpu)?,
        memory: hundredths(ratios.memory)?,
        disk: hundredths(ratios.disk)?,
    })
}

fn ratios_out(overcommit: Overcommit) -> OvercommitRatios {
    let ratio = |hundredths: u32| f64::from(hundredths) / 100.0;
    OvercommitRatios {
        cpu: ratio(overcommit.cpu),
        memory: ratio(overcommit.memory),
        disk: ratio(overcommit.disk),
    }
}

fn subnets_in(
    subnets: BTreeMap<Ref, String>,
    project: &Name,
    fleet: &Fleet,
) -> Result<BTreeMap<SubnetId, String>, Refusal> {
    let mut found = BTreeMap::new();
    for (reference, bridge) in subnets {
        found.insert(resolve(fleet, Kind::Subnet, &reference, project)?.into(), bridge);
    }
    Ok(found)
}

fn mac_some(text: Option<&String>) -> Result<Option<Mac>, Refusal> {
    Ok(text.map(|text| text.parse()).transpose()?)
}

/// What a machine is, in the core's words.
pub(crate) fn inventory_in(view: InventoryView) -> Inventory {
    Inventory {
        version: view.version,
        host: view.host,
        libvirt: view.libvirt,
        qemu: view.qemu,
        accel: view.accel,
        accel_reason: view.accel_reason,
        cpus: view.cpus,
        memory_mib: view.memory_mib,
        disk_free_mib: view.disk_free_mib,
    }
}

fn inventory_out(inventory: &Inventory) -> InventoryView {
    let inventory = inventory.clone();
    InventoryView {
        version: inventory.version,
        host: inventory.host,
        libvirt: inventory.libvirt,
        qemu: inventory.qemu,
        accel: inventory.accel,
        accel_reason: inventory.accel_reason,
        cpus: inventory.cpus,
        memory_mib: inventory.memory_mib,
        disk_free_mib: inventory.disk_free_mib,
    }
}

impl Noun for Hypervisors {
    const KIND: Kind = Kind::Hypervisor;
    type Record = Hypervisor;
    type View = HypervisorView;

    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<Hypervisor>> {
        fleet.hypervisor(id.into())
    }

    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<Hypervisor>> + '_> {
        Box::new(fleet.hypervisors_from(id.map(Into::into)))
    }

    fn id(record: &Hypervisor) -> Uuid {
        record.id.0
    }

    fn name(record: &Hypervisor) -> (Option<&Name>, Option<&Name>) {
        (Some(&record.spec.name), Some(&record.spec.project))
    }

    fn revision(record: &Hypervisor) -> Revision {
        record.revision
    }

    fn view(record: &Hypervisor, look: &Look<'_>) -> HypervisorView {
        let spec = record.spec.clone();
        let (promised, used) = (look.promised(record), look.fleet.used(record.id));
        HypervisorView {
            id: record.id,
            name: spec.name,
            project: spec.project,
            metadata: spec.metadata,
            ip: spec.ip,
            netmask: spec.netmask,
            gateway: spec.gateway,
            mac: spec.mac,
            subnets: spec.subnets,
            total_resources: resources(record.total),
            promised_resources: resources(promised),
            available_resources: resources(left(promised, used)),
            used_resources: resources(used),
            overcommit: spec.overcommit.map(ratios_out),
            cordon: spec.cordon,
            state: look.hypervisor_state(record).to_owned(),
            seen_at: look.liveness.of(record.id).1.map(time),
            guests: look.guests_on(record.id),
            inventory: inventory_out(&record.inventory),
            strangers: record.strangers.clone(),
            revision: record.revision,
            observed_revision: record.observed_revision,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
        }
    }
}

impl Makeable for Hypervisors {
    type Create = HypervisorCreate;
    type Patch = HypervisorPatch;

    fn create(id: Uuid, body: HypervisorCreate, look: &Look<'_>) -> Result<Command, Refusal> {
        let project = project(body.project)?;
        let spec = HypervisorSpec {
            name: Name::new(body.name)?,
            metadata: body.metadata,
            ip: address_some("ip", body.ip.as_ref())?,
            netmask: address_some("netmask", body.netmask.as_ref())?,
            gateway: address_some("gateway", body.gateway.as_ref())?,
            mac: mac_some(body.mac.as_ref())?,
            subnets: subnets_in(body.subnets, &project, look.fleet)?,
            project,
            overcommit: body.overcommit.map(ratios_in).transpose()?,
            cordon: body.cordon,
        };
        Ok(Command::CreateHypervisor(id.into(), spec))
    }

    fn set(
        record: &Hypervisor,
        patch: HypervisorPatch,
        if_match: Option<Revision>,
        look: &Look<'_>,
    ) -> Result<Command, Refusal> {
        let mut spec = record.spec.clone();
        if let Some(name) = patch.name {
            spec.name = Name::new(name)?;
        }
        spec.metadata = patch.metadata.unwrap_or(spec.metadata);
        if let Some(ip) = patch.ip {
            spec.ip = address_some("ip", ip.as_ref())?;
        }
        if let Some(netmask) = patch.netmask {
            spec.netmask = address_some("netmask", netmask.as_ref())?;
        }
        if let Some(gateway) = patch.gateway {
            spec.gateway = address_some("gateway", gateway.as_ref())?;
        }
        if let Some(mac) = patch.mac {
            spec.mac = mac_some(mac.as_ref())?;
        }
        if let Some(subnets) = patch.subnets {
            spec.subnets = subnets_in(subnets, &spec.project, look.fleet)?;
        }
        if let Some(overcommit) = patch.overcommit {
            spec.overcommit = overcommit.map(ratios_in).transpose()?;
        }
        spec.cordon = patch.cordon.unwrap_or(spec.cordon);
        Ok(Command::SetHypervisor(record.id, spec, if_match))
    }
}
