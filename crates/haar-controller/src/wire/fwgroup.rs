//! Firewall groups: core ⇄ wire.

use std::sync::Arc;

use haar_api::v1::{FwAction, FwGroupCreate, FwGroupPatch, FwGroupView, FwProtocol, FwRuleBody, Ref};
use haar_core::fence::Revision;
use haar_core::firewall::{Action, FwGroup, FwGroupSpec, FwRule, Protocol};
use haar_core::fleet::Fleet;
use haar_core::fleet::command::Command;
use haar_core::id::{FwGroupId, Kind};
use haar_core::name::Name;
use haar_core::refusal::Refusal;
use uuid::Uuid;

use super::look::Look;
use super::{Makeable, Noun, project, resolve, time};

/// The noun.
pub(crate) struct FwGroups;

/// The group the rules belong to: a rule may name it before it exists.
struct Own<'a> {
    id: Uuid,
    name: &'a Name,
    project: &'a Name,
}

fn rule_in(rule: FwRuleBody, own: &Own<'_>, fleet: &Fleet) -> Result<FwRule, Refusal> {
    let group = match &rule.group {
        None => None,
        Some(named) if named.as_str() == own.name.as_str() => Some(FwGroupId(own.id)),
        Some(named) => Some(resolve(fleet, Kind::FwGroup, named, own.project)?.into()),
    };
    let ports = match (rule.port_start, rule.port_end) {
        (None, None) => None,
        (Some(start), end) => Some((start, end.unwrap_or(start))),
        (None, Some(_)) => {
            let problem = "portEnd needs portStart".to_owned();
            return Err(Refusal::BadField { field: "rules", problem });
        }
    };
    Ok(FwRule {
        source: rule.source.map(|source| source.parse()).transpose()?,
        group,
        protocol: match rule.protocol {
            FwProtocol::Any => Protocol::Any,
            FwProtocol::Tcp => Protocol::Tcp,
            FwProtocol::Udp => Protocol::Udp,
            FwProtocol::Icmp => Protocol::Icmp,
        },
        ports,
        action: match rule.action {
            FwAction::Accept => Action::Accept,
            FwAction::Drop => Action::Drop,
        },
    })
}

fn rule_out(rule: &FwRule, look: &Look<'_>) -> FwRuleBody {
    FwRuleBody {
        source: rule.source.map(|source| source.to_string()),
        group: rule.group.map(|group| Ref::from(group.0)),
        group_name: look.name_some(Kind::FwGroup, rule.group.map(|group| group.0)),
        port_start: rule.ports.map(|ports| ports.0),
        port_end: rule.ports.map(|ports| ports.1),
        protocol: match rule.protocol {
            Protocol::Any => FwProtocol::Any,
            Protocol::Tcp => FwProtocol::Tcp,
            Protocol::Udp => FwProtocol::Udp,
            Protocol::Icmp => FwProtocol::Icmp,
        },
        action: match rule.action {
            Action::Accept => FwAction::Accept,
            Action::Drop => FwAction::Drop,
        },
    }
}

impl Noun for FwGroups {
    const KIND: Kind = Kind::FwGroup;
    type Record = FwGroup;
    type View = FwGroupView;

    fn get(fleet: &Fleet, id: Uuid) -> Option<&Arc<FwGroup>> {
        fleet.fwgroup(id.into())
    }

    fn after(fleet: &Fleet, id: Option<Uuid>) -> Box<dyn Iterator<Item = &Arc<FwGroup>> + '_> {
        Box::new(fleet.fwgroups_from(id.map(Into::into)))
    }

    fn id(record: &FwGroup) -> Uuid {
        record.id.0
    }

    fn name(record: &FwGroup) -> (Option<&Name>, Option<&Name>) {
        (Some(&record.spec.name), Some(&record.spec.project))
    }

    fn revision(record: &FwGroup) -> Revision {
        record.revision
    }

    fn view(record: &FwGroup, look: &Look<'_>) -> FwGroupView {
        FwGroupView {
            id: record.id,
            name: record.spec.name.clone(),
            project: record.spec.project.clone(),
            metadata: record.spec.metadata.clone(),
            rules: record.spec.rules.iter().map(|rule| rule_out(rule, look)).collect(),
            // Stored and checked; the compiler that enforces them is not there yet.
            enforced: false,
            members: look.members(record.id),
            revision: record.revision,
            created_at: time(record.created_at),
            updated_at: time(record.updated_at),
        }
    }
}

impl Makeable for FwGroups {
    type Create = FwGroupCreate;
    type Patch = FwGroupPatch;

    fn create(id: Uuid, body: FwGroupCreate, look: &Look<'_>) -> Result<Command, Refusal> {
        let (name, project) = (Name::new(body.name)?, project(body.project)?);
        let own = Own { id, name: &name, project: &project };
        let rules: Result<_, _> =
            body.rules.into_iter().map(|rule| rule_in(rule, &own, look.fleet)).collect();
        let spec = FwGroupSpec { rules: rules?, name, project, metadata: body.metadata };
        Ok(Command::CreateFwGroup(id.into(), spec))
    }

    fn set(
        record: &FwGroup,
        patch: FwGroupPatch,
        if_match: Option<Revision>,
        look: &Look<'_>,
    ) -> Result<Command, Refusal> {
        let mut spec = record.spec.clone();
        if let Some(name) = patch.name {
            spec.name = Name::new(name)?;
        }
        spec.metadata = patch.metadata.unwrap_or(spec.metadata);
        if let Some(rules) = patch.rules {
            let own = Own { id: record.id.0, name: &spec.name, project: &spec.project };
            let rules: Result<_, _> = rules.into_iter().map(|rule| rule_in(rule, &own, look.fleet)).collect();
            spec.rules = rules?;
        }
        Ok(Command::SetFwGroup(record.id, spec, if_match))
    }
}
