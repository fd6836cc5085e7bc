//! Subnets: core ⇄ wire.

use std::net::IpAddr;
use std::sync::Arc;

use haar_api::v1::{SubnetCreate, SubnetPatch, SubnetView};
use haar_core::address::Cidr;
use haar_core::fence::Revision;
use haar_core::fleet::Fleet;
use haar_core::fleet::command::Command;
use haar_core::id::Kind;
use haar_core::ipam::usable;
use haar_core::name::Name;
use haar_core::network::{Gateway, Subnet, SubnetSpec};
use haar_core::refusal::Refusal;
use uuid::Uuid;

use super::look::Look;
use super::{Makeable, Noun, address, address_some, project, resolve, time};

/// The noun.
pub(crate) struct Subnets;

fn dns(texts: &[String]) -> Result<Vec<IpAddr>, Refusal> {
    texts.iter().map(|text| address("dns", text)).collect()
}

impl Noun for Subnets {
    const KIND: Kind = Kind::Subnet;
    type Record = Subnet;
    type View = SubnetView;

    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<Subnet>> {
        fleet.subnet(id.into())
    }

    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<Subnet>> + '_> {
        Box::new(fleet.subnets_from(id.map(Into::into)))
    }

    fn id(record: &Subnet) -> Uuid {
        record.id.0
    }

    fn name(record: &Subnet) -> (Option<&Name>, Option<&Name>) {
        (Some(&record.spec.name), Some(&record.spec.project))
    }

    fn revision(record: &Subnet) -> Revision {
        record.revision
    }

    fn view(record: &Subnet, look: &Look<'_>) -> SubnetView {
        let spec = record.spec.clone();
        let addresses = look.addresses(record.id);
        SubnetView {
            id: record.id,
            name: spec.name,
            project: spec.project,
            metadata: spec.metadata,
            network: spec.network,
            network_name: look.name(Kind::Network, spec.network.0),
            cidr: spec.cidr,
            gateway: spec.gateway,
            start: spec.start,
            end: spec.end,
            dns: spec.dns,
            addresses_used: addresses.0,
            addresses_total: addresses.1,
            revision: record.revision,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
        }
    }
}

impl Makeable for Subnets {
    type Create = SubnetCreate;
    type Patch = SubnetPatch;

    fn create(id: Uuid, body: SubnetCreate, look: &Look<'_>) -> Result<Command, Refusal> {
        let project = project(body.project)?;
        let cidr: Cidr = body.cidr.parse()?;
        let (first, last) = usable(cidr);
        let network = resolve(look.fleet, Kind::Network, &body.network, &project)?.into();
        let spec = SubnetSpec {
            name: Name::new(body.name)?,
            network,
            project,
            metadata: body.metadata,
            cidr,
            gateway: address_some("gateway", body.gateway.as_ref().and_then(Option::as_ref))?,
            start: address_some("start", body.start.as_ref())?.unwrap_or(first),
            end: address_some("end", body.end.as_ref())?.unwrap_or(last),
            dns: dns(&body.dns)?,
        };
        let gateway = if body.gateway.is_some() { Gateway::Said } else { Gateway::Left };
        Ok(Command::CreateSubnet(id.into(), spec, gateway))
    }

    fn set(
        record: &Subnet,
        patch: SubnetPatch,
        if_match: Option<Revision>,
        _: &Look<'_>,
    ) -> Result<Command, Refusal> {
        let mut spec = record.spec.clone();
        if let Some(name) = patch.name {
            spec.name = Name::new(name)?;
        }
        spec.metadata = patch.metadata.unwrap_or(spec.metadata);
        if let Some(gateway) = patch.gateway {
            spec.gateway = address_some("gateway", gateway.as_ref())?;
        }
        if let Some(start) = patch.start {
            spec.start = address("start", &start)?;
        }
        if let Some(end) = patch.end {
            spec.end = address("end", &end)?;
        }
        if let Some(servers) = patch.dns {
            spec.dns = dns(&servers)?;
        }
        Ok(Command::SetSubnet(record.id, spec, if_match))
    }
}
