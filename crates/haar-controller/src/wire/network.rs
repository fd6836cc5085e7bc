//! Networks: core ⇄ wire.

use std::sync::Arc;

use haar_api::v1::{NetworkCreate, NetworkPatch, NetworkReach, NetworkView};
use haar_core::fence::Revision;
use haar_core::fleet::Fleet;
use haar_core::fleet::command::Command;
use haar_core::id::Kind;
use haar_core::name::Name;
use haar_core::network::{Network, NetworkSpec, Reach};
use haar_core::refusal::Refusal;
use uuid::Uuid;

use super::look::Look;
use super::{Makeable, Noun, project, time};

/// The noun.
pub(crate) struct Networks;

fn reach_in(reach: NetworkReach) -> Reach {
    match reach {
        NetworkReach::All => Reach::All,
        NetworkReach::Listed => Reach::Listed,
    }
}

fn reach_out(reach: Reach) -> NetworkReach {
    match reach {
        Reach::All => NetworkReach::All,
        Reach::Listed => NetworkReach::Listed,
    }
}

impl Noun for Networks {
    const KIND: Kind = Kind::Network;
    type Record = Network;
    type View = NetworkView;

    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<Network>> {
        fleet.network(id.into())
    }

    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<Network>> + '_> {
        Box::new(fleet.networks_from(id.map(Into::into)))
    }

    fn id(record: &Network) -> Uuid {
        record.id.0
    }

    fn name(record: &Network) -> (Option<&Name>, Option<&Name>) {
        (Some(&record.spec.name), Some(&record.spec.project))
    }

    fn revision(record: &Network) -> Revision {
        record.revision
    }

    fn view(record: &Network, look: &Look<'_>) -> NetworkView {
        let spec = record.spec.clone();
        let bridges: Vec<String> = look.fleet.bridges_of(record).into_iter().collect();
        let of_it = look.fleet.subnets_of(record.id);
        let (subnets, subnet_names) = of_it.map(|subnet| (subnet.id, subnet.spec.name.to_string())).unzip();
        NetworkView {
            id: record.id,
            name: spec.name,
            project: spec.project,
            metadata: spec.metadata,
            nat: spec.nat,
            reach: reach_out(spec.reach),
            // One name nearly always; hypervisors may list different ones.
            bridge: bridges.join(", "),
            subnets,
            subnet_names,
            revision: record.revision,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
        }
    }
}

impl Makeable for Networks {
    type Create = NetworkCreate;
    type Patch = NetworkPatch;

    fn create(id: Uuid, body: NetworkCreate, _: &Look<'_>) -> Result<Command, Refusal> {
        let spec = NetworkSpec {
            name: Name::new(body.name)?,
            project: project(body.project)?,
            metadata: body.metadata,
            nat: body.nat,
            reach: reach_in(body.reach),
        };
        Ok(Command::CreateNetwork(id.into(), spec))
    }

    fn set(
        record: &Network,
        patch: NetworkPatch,
        if_match: Option<Revision>,
        _: &Look<'_>,
    ) -> Result<Command, Refusal> {
        let mut spec = record.spec.clone();
        if let Some(name) = patch.name {
            spec.name = Name::new(name)?;
        }
        spec.metadata = patch.metadata.unwrap_or(spec.metadata);
        spec.nat = patch.nat.unwrap_or(spec.nat);
        spec.reach = patch.reach.map_or(spec.reach, reach_in);
        Ok(Command::SetNetwork(record.id, spec, if_match))
    }
}
