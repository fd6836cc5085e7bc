//! The firewall group of a deployment: which ports are open, and to whom.

use haar_api::table as t;
use haar_api::v1::{FwAction, FwGroupCreate, FwGroupPatch, FwGroupView, FwProtocol, FwRuleBody};

use super::HaarCloud;
use super::label::{derived_id, is_ours, label, marks};
use crate::Result;
use crate::journal::Journal;
use crate::provider::{Deployment, Ground};
use crate::state::Kind;

const KIND: Kind = Kind::SecurityGroup;

/// Makes the group, or takes the one of this name; ours gets the rules it should have.
pub(super) async fn ensure(cloud: &HaarCloud, deployment: &Deployment, journal: &Journal) -> Result<()> {
    let name = deployment.name.as_str();
    let label = label(name);
    let wanted = rules(&deployment.ground);
    let groups: Vec<FwGroupView> = cloud.all::<t::FwGroupList, _>("firewall group", Some(&label)).await?;
    let Some(group) = groups.first() else {
        return create(cloud, deployment, journal, wanted).await;
    };
    let id = group.id.to_string();
    if !is_ours(deployment.id, KIND, name, &group.metadata)? {
        return journal.reuse(KIND, name, &id).await.map(drop);
    }
    journal.make(KIND, name, async { Ok(id.clone()) }).await?;
    if group.rules == wanted {
        return Ok(());
    }
    let patch = FwGroupPatch { rules: Some(wanted), ..FwGroupPatch::default() };
    cloud.ask::<t::FwGroupSet>("firewall group", &id, &patch).await.map(drop)
}

async fn create(
    cloud: &HaarCloud,
    deployment: &Deployment,
    journal: &Journal,
    rules: Vec<FwRuleBody>,
) -> Result<()> {
    let name = deployment.name.as_str();
    let body = FwGroupCreate {
        name: label(name),
        project: Some(cloud.project.clone()),
        metadata: marks(deployment.id, name),
        rules,
    };
    let id = derived_id(deployment.id, KIND).to_string();
    let create = async {
        let made = cloud.ask::<t::FwGroupPut>("firewall group", &id, &body).await?;
        Ok(made.id.to_string())
    };
    journal.make(KIND, name, create).await.map(drop)
}

/// Each port for each source, and ICMP for everybody.
fn rules(ground: &Ground) -> Vec<FwRuleBody> {
    let open = |port: &u16| {
        let port = *port;
        ground.sources.iter().map(move |source| FwRuleBody {
            source: Some(source.trunc().to_string()),
            port_start: Some(port),
            port_end: Some(port),
            protocol: FwProtocol::Tcp,
            action: FwAction::Accept,
            ..FwRuleBody::default()
        })
    };
    let icmp = FwRuleBody { protocol: FwProtocol::Icmp, action: FwAction::Accept, ..FwRuleBody::default() };
    ground.ports.iter().flat_map(open).chain([icmp]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_open_to_each_source_and_icmp_to_all() {
        let ground = Ground {
            ports: vec![22, 443],
            sources: vec!["10.1.2.3/8".parse().unwrap(), "::/0".parse().unwrap()],
            ..Ground::default()
        };
        let rules = rules(&ground);
        let shown: Vec<_> = rules.iter().map(|rule| (rule.source.as_deref(), rule.port_start)).collect();
        let both = [Some("10.0.0.0/8"), Some("::/0")];
        let expected = [
            (both[0], Some(22)),
            (both[1], Some(22)),
            (both[0], Some(443)),
            (both[1], Some(443)),
            (None, None),
        ];
        assert_eq!(shown, expected);
    }
}
