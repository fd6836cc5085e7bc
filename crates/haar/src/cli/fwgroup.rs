//! `haar fwgroup`: firewall groups.

use std::collections::BTreeMap;

use haar_api::table as t;
use haar_api::v1::{FwAction, FwGroupCreate, FwGroupPatch, FwGroupView, FwProtocol, FwRuleBody, Ref, Time};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::labels::{self, Label, LabelChanges};
use super::noun::{self, ListWords, Noun};
use super::output;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a firewall group
    #[command(after_help = RULES)]
    Create(CreateWords),
    /// List firewall groups
    #[command(after_help = "Examples:\n  haar fwgroup list")]
    List(ListWords),
    /// Show a firewall group and its rules
    #[command(after_help = "Examples:\n  haar fwgroup show web")]
    Show(One),
    /// Change a firewall group; rules given replace all it had
    #[command(after_help = RULES)]
    Set(SetWords),
    /// Remove firewall groups that nothing names
    #[command(after_help = "Examples:\n  haar fwgroup delete web")]
    Delete(Several),
}

const RULES: &str = "A rule is: accept|drop [any|tcp|udp|icmp [PORT[-PORT]]] [from CIDR] [from group:NAME]

Examples:
  haar fwgroup create web --rule 'accept tcp 80' --rule 'accept tcp 443' --rule 'accept tcp 22 from 10.0.0.0/8'
  haar fwgroup set web --rule 'accept any from group:lb'";

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Name, id, or an id's first digits (4 or more)
    fwgroup: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Several {
    /// Names, ids, or ids' first digits (4 or more)
    #[arg(required = true)]
    fwgroup: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateWords {
    /// Its name
    name: String,
    /// A rule, checked in order; may be given several times
    #[arg(long, value_parser = rule)]
    rule: Vec<FwRuleBody>,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<Label>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetWords {
    /// Name, id, or an id's first digits (4 or more)
    fwgroup: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// A rule, checked in order; may be given several times
    #[arg(long, value_parser = rule, conflicts_with = "no_rules")]
    rule: Vec<FwRuleBody>,
    /// Have no rules
    #[arg(long)]
    no_rules: bool,
    #[command(flatten)]
    labels: LabelChanges,
}

/// Reads a rule as a person writes it.
fn rule(text: &str) -> Result<FwRuleBody, String> {
    let bad = |what: &str| {
        format!(
            "{what} in `{text}`; a rule is: accept|drop [any|tcp|udp|icmp [PORT[-PORT]]] [from CIDR|group:NAME]"
        )
    };
    let mut words = text.split_whitespace().peekable();
    let action = match words.next() {
        Some("accept") => FwAction::Accept,
        Some("drop") => FwAction::Drop,
        _ => return Err(bad("neither accept nor drop comes first")),
    };
    let mut rule = FwRuleBody { action, ..FwRuleBody::default() };
    if let Some(word) = words.next_if(|word| *word != "from") {
        rule.protocol = match word {
            "any" => FwProtocol::Any,
            "tcp" => FwProtocol::Tcp,
            "udp" => FwProtocol::Udp,
            "icmp" => FwProtocol::Icmp,
            _ => return Err(bad(&format!("`{word}` is no protocol"))),
        };
        if let Some(ports) = words.next_if(|word| *word != "from") {
            let (start, end) = ports.split_once('-').unwrap_or((ports, ports));
            let port = |text: &str| text.parse::<u16>().map_err(|_| bad(&format!("`{ports}` are no ports")));
            (rule.port_start, rule.port_end) = (Some(port(start)?), Some(port(end)?));
        }
    }
    while let Some(word) = words.next() {
        let source = words.next().filter(|_| word == "from").ok_or_else(|| bad(&format!("`{word}`")))?;
        match source.strip_prefix("group:") {
            Some(group) => rule.group = Some(Ref(group.to_owned())),
            None => rule.source = Some(source.to_owned()),
        }
    }
    Ok(rule)
}

/// Writes a rule as [`rule`] reads it.
fn rule_text(rule: &FwRuleBody) -> String {
    let mut text = match rule.action {
        FwAction::Accept => "accept".to_owned(),
        FwAction::Drop => "drop".to_owned(),
    };
    text.push_str(match rule.protocol {
        FwProtocol::Any => " any",
        FwProtocol::Tcp => " tcp",
        FwProtocol::Udp => " udp",
        FwProtocol::Icmp => " icmp",
    });
    match (rule.port_start, rule.port_end) {
        (Some(start), Some(end)) if start != end => text.push_str(&format!(" {start}-{end}")),
        (Some(start), _) => text.push_str(&format!(" {start}")),
        _ => {}
    }
    if let Some(source) = &rule.source {
        text.push_str(&format!(" from {source}"));
    }
    if let Some(group) = &rule.group {
        let group = rule.group_name.as_deref().unwrap_or(group.as_str());
        text.push_str(&format!(" from group:{group}"));
    }
    text
}

/// The noun.
pub(crate) struct FwGroups;

impl Noun for FwGroups {
    const WORD: &'static str = "fwgroup";
    const COLUMNS: &'static [&'static str] = &["NAME", "RULES", "MEMBERS", "IN FORCE", "AGE"];
    type View = FwGroupView;
    type List = t::FwGroupList;

    fn id(view: &FwGroupView) -> Uuid {
        view.id.0
    }

    fn name(view: &FwGroupView) -> &str {
        view.name.as_str()
    }

    fn labels(view: &FwGroupView) -> Option<&BTreeMap<String, String>> {
        Some(&view.metadata)
    }

    fn row(view: &FwGroupView, now: Time) -> Vec<String> {
        vec![
            view.name.to_string(),
            view.rules.len().to_string(),
            view.members.to_string(),
            if view.enforced { "yes".to_owned() } else { "not yet".to_owned() },
            output::age(view.created_at, now),
        ]
    }

    fn details(view: &FwGroupView) -> (String, Vec<(&'static str, String)>) {
        let mut lines: Vec<(&'static str, String)> = view
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| (if index == 0 { "rules" } else { "" }, rule_text(rule)))
            .collect();
        let force = if view.enforced { "yes" } else { "not yet: stored and checked only" };
        lines.extend([
            ("in force", force.to_owned()),
            ("members", view.members.to_string()),
            ("labels", output::labels(&view.metadata)),
            ("revision", view.revision.to_string()),
            ("made", view.created_at.to_string()),
        ]);
        (format!("fwgroup {}   {}", view.name, view.id), lines)
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(words) => create(context, words).await,
        Verb::List(words) => noun::list_named::<FwGroups>(context, words).await,
        Verb::Show(words) => noun::show::<FwGroups, t::FwGroupShow>(context, &words.fwgroup).await,
        Verb::Set(words) => set(context, words).await,
        Verb::Delete(words) => {
            noun::delete::<FwGroups, t::FwGroupShow, t::FwGroupDelete>(context, &words.fwgroup).await
        }
    }
}

/// The rules with the groups they name as the API takes them.
async fn resolved(context: &Context, mut rules: Vec<FwRuleBody>) -> Result<Vec<FwRuleBody>, Failure> {
    for group in rules.iter_mut().filter_map(|rule| rule.group.as_mut()) {
        *group = Ref(noun::resolve::<FwGroups>(context, group.as_str()).await?);
    }
    Ok(rules)
}

async fn create(context: &Context, words: CreateWords) -> Result<(), Failure> {
    let body = FwGroupCreate {
        name: words.name,
        project: context.project.clone(),
        metadata: labels::map(&words.metadata),
        rules: resolved(context, words.rule).await?,
    };
    let answered = context.client.request::<t::FwGroupPost>(&[]).send(&body).await?;
    noun::said(context, &answered, &line(&answered.value, "made"))
}

async fn set(context: &Context, words: SetWords) -> Result<(), Failure> {
    let read = noun::read::<FwGroups, t::FwGroupShow>(context, &words.fwgroup).await?;
    let is_kept = words.rule.is_empty() && !words.no_rules;
    let rules = if is_kept { None } else { Some(resolved(context, words.rule).await?) };
    let patch =
        FwGroupPatch { name: words.name, metadata: words.labels.applied_to(&read.value.metadata), rules };
    let call = context.client.request::<t::FwGroupSet>(&[&read.value.id.to_string()]);
    let answered = call.if_match(read.value.revision.to_string()).send(&patch).await?;
    noun::said(context, &answered, &line(&answered.value, "changed"))
}

fn line(view: &FwGroupView, done: &str) -> String {
    let force = if view.enforced { "" } else { "; its rules are stored but not in force yet" };
    let rules = output::counted(view.rules.len() as u64, "rule");
    format!("fwgroup {} {done} with {rules}{force}", view.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for text in [
            "accept any",
            "drop any",
            "accept tcp 22",
            "accept udp 1000-2000 from 10.0.0.0/8",
            "accept icmp from group:lb",
            "accept tcp 80 from fd00::/8 from group:lb",
        ] {
            assert_eq!(rule(text).map(|rule| rule_text(&rule)), Ok(text.to_owned()));
        }
        assert_eq!(rule_text(&rule("accept from 10.0.0.0/8").unwrap()), "accept any from 10.0.0.0/8");
        for bad in
            ["", "tcp 22", "accept gre", "accept tcp x", "accept tcp 22 to 1.2.3.4", "accept tcp 22 from"]
        {
            assert!(rule(bad).is_err(), "{bad}");
        }
    }
}
