//! The security group: who may come in, and on which ports.
//!
//! In a group of ours each wanted rule is there after a deploy, and none of ours that is no longer wanted:
//! a narrower source takes the wider one's rules away. Rules that somebody else put into it stay. A group
//! that is not ours must have what is wanted by itself.

use haar_cloud::state::Kind;
use haar_cloud::{Error, Result};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Ask, Service, path, query};
use crate::thing::{Marked, Site, Thing, Whose};

const COLLECTION: &str = "security-groups";

#[derive(Debug, Deserialize)]
pub(crate) struct Group {
    #[serde(flatten)]
    thing: Thing,
    #[serde(default)]
    security_group_rules: Vec<Rule>,
}

impl Marked for Group {
    fn thing(&self) -> &Thing {
        &self.thing
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Rule {
    id: String,
    direction: String,
    ethertype: String,
    protocol: Option<String>,
    port_range_min: Option<i32>,
    port_range_max: Option<i32>,
    remote_ip_prefix: Option<String>,
    remote_group_id: Option<String>,
    description: Option<String>,
}

/// A rule that is wanted: a port, or every kind of ICMP, from somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    port: Option<u16>,
    source: IpNet,
}

impl Wanted {
    fn ethertype(self) -> &'static str {
        match self.source {
            IpNet::V4(_) => "IPv4",
            IpNet::V6(_) => "IPv6",
        }
    }

    /// What ICMP is called differs by version, and by who writes it.
    fn protocols(self) -> &'static [&'static str] {
        match (self.port, self.source) {
            (Some(_), _) => &["tcp", "6"],
            (None, IpNet::V4(_)) => &["icmp", "1"],
            (None, IpNet::V6(_)) => &["ipv6-icmp", "icmpv6", "58"],
        }
    }

    fn is(self, rule: &Rule) -> bool {
        // A rule without a source is one for everybody.
        let anybody = self.source.prefix_len() == 0;
        let port = self.port.map(i32::from);
        let source = match (&rule.remote_ip_prefix, &rule.remote_group_id) {
            (Some(prefix), _) => prefix.parse::<IpNet>() == Ok(self.source.trunc()),
            (None, None) => anybody,
            (None, Some(_)) => false,
        };
        rule.direction == "ingress"
            && rule.ethertype == self.ethertype()
            && rule.protocol.as_deref().is_some_and(|protocol| self.protocols().contains(&protocol))
            && (rule.port_range_min, rule.port_range_max) == (port, port)
            && source
    }

    fn body(self, group: &str, mark: &str) -> Value {
        json!({"security_group_rule": {
            "security_group_id": group,
            "direction": "ingress",
            "ethertype": self.ethertype(),
            "protocol": self.protocols()[0],
            "port_range_min": self.port,
            "port_range_max": self.port,
            "remote_ip_prefix": self.source.trunc().to_string(),
            "description": mark,
        }})
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => write!(formatter, "tcp {port} from {}", self.source),
            None => write!(formatter, "icmp from {}", self.source),
        }
    }
}

/// The ports first, then ICMP, each from every source.
fn wanted(ports: &[u16], sources: &[IpNet]) -> Vec<Wanted> {
    let ports = ports.iter().map(|port| Some(*port)).chain([None]);
    let mut all: Vec<Wanted> = Vec::new();
    for port in ports {
        for source in sources {
            let rule = Wanted { port, source: source.trunc() };
            if !all.contains(&rule) {
                all.push(rule);
            }
        }
    }
    all
}

/// The groups of this name in our project.
pub(crate) async fn named(client: &crate::client::Client, name: &str) -> Result<Vec<Group>> {
    let project = client.project().await?;
    let path = query(&path(&[COLLECTION]), &[("name", name), ("project_id", &project)]);
    client.list(Ask::get(Service::Network, path).about("security group", name), "security_groups").await
}

/// Makes it or finds it, and puts its rules right; its id. Without ports there is none.
pub(crate) async fn settle(site: &Site<'_>) -> Result<Option<String>> {
    let ground = &site.deployment.ground;
    if ground.ports.is_empty() {
        return Ok(None);
    }
    let wanted = wanted(&ground.ports, &ground.sources);
    let found = site.find(Kind::SecurityGroup, named(site.client, site.name()).await?).await?;
    let (id, rules) = match found {
        Some((group, Whose::Ours)) => {
            site.repair_tag(Kind::SecurityGroup, COLLECTION, &group.thing).await?;
            (group.thing.id, group.security_group_rules)
        }
        Some((group, Whose::Theirs)) => {
            lacks_nothing(site.name(), &wanted, &group.security_group_rules)?;
            return Ok(Some(group.thing.id));
        }
        None => {
            let body = json!({"security_group": {"name": site.name()}});
            (site.make(Kind::SecurityGroup, COLLECTION, "security_group", body).await?, Vec::new())
        }
    };
    for rule in wanted.iter().filter(|wanted| !rules.iter().any(|rule| wanted.is(rule))) {
        add(site, &id, *rule).await?;
    }
    remove_unwanted(site, &wanted, &rules).await?;
    Ok(Some(id))
}

fn lacks_nothing(name: &str, wanted: &[Wanted], rules: &[Rule]) -> Result<()> {
    let lacks = wanted.iter().filter(|wanted| !rules.iter().any(|rule| wanted.is(rule)));
    let lacks: Vec<String> = lacks.map(Wanted::to_string).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    let message = format!(
        "it is not this deployment's and lacks {}; add that, or deploy under another name",
        lacks.join(", ")
    );
    Err(Error::Conflict { what: format!("security group {name}"), message })
}

async fn add(site: &Site<'_>, group: &str, rule: Wanted) -> Result<()> {
    let body = rule.body(group, &site.deployment.id.tag());
    let text = rule.to_string();
    let ask = Ask::post(Service::Network, path(&["security-group-rules"]), body)
        .about("security group rule", &text);
    match site.client.done(ask).await {
        // Two deploys at once, or an answer that was lost: it is there.
        Err(Error::Conflict { .. }) => Ok(()),
        done => done,
    }
}

async fn remove_unwanted(site: &Site<'_>, wanted: &[Wanted], rules: &[Rule]) -> Result<()> {
    let mark = site.deployment.id.tag();
    let is_ours = |rule: &&Rule| rule.description.as_deref() == Some(mark.as_str());
    let unwanted = |rule: &&Rule| !wanted.iter().any(|wanted| wanted.is(rule));
    for rule in rules.iter().filter(is_ours).filter(unwanted) {
        let path = path(&["security-group-rules", &rule.id]);
        let ask = Ask::delete(Service::Network, path).about("security group rule", &rule.id);
        match site.client.done(ask).await {
            Err(error) if error.is_not_found() => {}
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocol: &str, port: Option<i32>, source: Option<&str>) -> Rule {
        Rule {
            id: "r".to_owned(),
            direction: "ingress".to_owned(),
            ethertype: if source.is_some_and(|source| source.contains(':')) { "IPv6" } else { "IPv4" }
                .to_owned(),
            protocol: Some(protocol.to_owned()),
            port_range_min: port,
            port_range_max: port,
            remote_ip_prefix: source.map(str::to_owned),
            remote_group_id: None,
            description: None,
        }
    }

    fn sources(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn ports_come_first_and_icmp_last_each_once() {
        let rules = wanted(&[22, 80, 22], &sources(&["0.0.0.0/0"]));
        let texts: Vec<String> = rules.iter().map(Wanted::to_string).collect();
        assert_eq!(texts, ["tcp 22 from 0.0.0.0/0", "tcp 80 from 0.0.0.0/0", "icmp from 0.0.0.0/0"]);
    }

    #[test]
    fn a_rule_is_known_again_however_the_cloud_writes_it() {
        let [anybody, icmp] = wanted(&[22], &sources(&["0.0.0.0/0"]))[..] else { panic!() };
        assert!(anybody.is(&rule("tcp", Some(22), Some("0.0.0.0/0"))));
        assert!(anybody.is(&rule("6", Some(22), None)));
        assert!(icmp.is(&rule("icmp", None, None)));
        assert!(!anybody.is(&rule("udp", Some(22), None)));
        assert!(!anybody.is(&rule("tcp", Some(22), Some("10.0.0.0/8"))));
        let [narrow, _] = wanted(&[22], &sources(&["10.1.2.3/8"]))[..] else { panic!() };
        assert!(narrow.is(&rule("tcp", Some(22), Some("10.0.0.0/8"))));
        assert!(!narrow.is(&rule("tcp", Some(22), None)), "open to everybody is not what was asked for");
        let [_, six] = wanted(&[22], &sources(&["::/0"]))[..] else { panic!() };
        assert!(six.is(&rule("icmpv6", None, Some("::/0"))));
    }

    #[test]
    fn a_group_of_others_that_lacks_a_rule_is_told_so() {
        let wanted = wanted(&[22], &sources(&["0.0.0.0/0"]));
        let text = lacks_nothing("a", &wanted, &[rule("icmp", None, None)]).unwrap_err().to_string();
        assert!(text.contains("lacks tcp 22 from 0.0.0.0/0;"), "{text}");
        assert!(
            lacks_nothing("a", &wanted, &[rule("icmp", None, None), rule("tcp", Some(22), None)]).is_ok()
        );
    }
}
