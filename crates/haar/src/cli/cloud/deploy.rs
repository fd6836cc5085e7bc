//! `haar cloud deploy` and `haar cloud teardown`, and what each would do.

use std::net::{IpAddr, Ipv4Addr};

use haar_cloud::Cloud;
use haar_cloud::cloud::PlannedThing;
use haar_cloud::local::Local;
use haar_cloud::provider::{Found, Ground};
use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};

use super::open::Open;
use crate::cli::failure::Failure;
use crate::cli::output;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar cloud deploy --dry-run
  haar cloud deploy --port 22 --port 8080 --source 10.0.0.0/8
  haar cloud deploy --provider openstack --name farm --external-network public")]
pub(crate) struct Words {
    /// A TCP port that is open to servers; may be given several times; 22 unless said
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// Who may come in on them; may be given several times; everybody unless said
    #[arg(long, value_name = "CIDR")]
    source: Vec<IpNet>,
    /// The servers' network; 192.168.64.0/18 unless said
    #[arg(long, value_name = "CIDR")]
    cidr: Option<Ipv4Net>,
    /// Its gateway; its first address unless said
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<Ipv4Addr>,
    /// A name server that servers are told of; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// The network that external addresses come from; the one there is unless said
    #[arg(long, value_name = "TEXT")]
    external_network: Option<String>,
    /// Give servers their user data on a disk, where the cloud has no metadata service; `=false` ends that
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "true|false")]
    config_drive: Option<bool>,
    /// Only list what would be made, and what of it is there
    #[arg(long)]
    dry_run: bool,
}

impl Words {
    /// What was said, and else what it was last time.
    async fn ground(&self, cloud: &Cloud) -> Result<Ground, Failure> {
        let usual = match cloud.deployment().await {
            Ok(deployment) => deployment.ground,
            // This machine has its network already.
            Err(_) if cloud.provider().kind() == "local" => Local::ground()?,
            Err(_) => Ground::default(),
        };
        let cidr = self.cidr.map_or(usual.cidr, |cidr| cidr.trunc());
        let first = || cidr.hosts().next().unwrap_or_else(|| cidr.network());
        let gateway = if self.cidr.is_none() { usual.gateway } else { first() };
        Ok(Ground {
            ports: if self.port.is_empty() { usual.ports } else { self.port.clone() },
            sources: if self.source.is_empty() { usual.sources } else { self.source.clone() },
            config_drive: self.config_drive.unwrap_or(usual.config_drive),
            cidr,
            gateway: self.gateway.unwrap_or(gateway),
            dns: if self.dns.is_empty() { usual.dns } else { self.dns.clone() },
            external_network: self.external_network.clone().or(usual.external_network),
        })
    }
}

pub(super) async fn deploy(open: &Open, words: &Words) -> Result<(), Failure> {
    let ground = words.ground(&open.cloud).await?;
    if words.dry_run {
        let plan = open.cloud.deploy_plan(&ground).await?;
        return show(open, &plan, "deploy", deploy_word);
    }
    let deployment = open.cloud.deploy(ground.clone()).await?;
    let plan = open.cloud.deploy_plan(&ground).await?;
    open.board.clear();
    let record = open.cloud.journal().store().path();
    if open.is_json() {
        return output::json(&json!({
            "deployment": deployment.id.to_string(),
            "name": deployment.name.as_str(),
            "provider": open.cloud.provider().kind(),
            "cidr": deployment.ground.cidr.to_string(),
            "record": record,
            "things": things(&plan, deploy_word),
        }));
    }
    if !plan.is_empty() {
        output::out(&rows(&plan, |thing| if is_ours(thing) { "ours" } else { "not ours" }));
    }
    let next = open.hint("spawn --image IMAGE");
    output::out(&format!(
        "  deployment {} is ready in {}; its record is {}\n  a server in it:  {next}\n",
        deployment.name,
        deployment.ground.cidr,
        record.display()
    ));
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Only what bears the deployment's mark is destroyed; what has just a name like it is left.

Examples:
  haar cloud teardown --dry-run
  haar cloud teardown --name farm
  haar cloud teardown --forget     when the cloud itself is gone"
)]
pub(crate) struct TearDownWords {
    /// Only list what would be destroyed
    #[arg(long)]
    dry_run: bool,
    /// Remove the record and the key without asking the cloud; what is still there costs on
    #[arg(long, conflicts_with = "dry_run")]
    forget: bool,
}

pub(super) async fn tear_down(open: &Open, words: &TearDownWords) -> Result<(), Failure> {
    let name = open.cloud.name().clone();
    if words.dry_run {
        let plan = open.cloud.tear_down_plan().await?;
        return show(open, &plan, "teardown", tear_down_word);
    }
    if words.forget {
        open.cloud.forget().await?;
        return said(open, &json!({"forgotten": name.as_str()}), &format!("deployment {name} is forgotten"));
    }
    let torn = open.cloud.tear_down().await?;
    open.board.clear();
    let gone: Vec<Value> = torn.destroyed.iter().map(found_json).collect();
    let lines: String = torn.destroyed.iter().map(|found| format!("  {found} destroyed\n")).collect();
    let document = json!({"name": name.as_str(), "destroyed": gone});
    said(open, &document, &format!("deployment {name} is gone, with its record and its key"))?;
    if !open.is_json() {
        eprint!("{lines}");
    }
    Ok(())
}

/// One line for a person, one document for a program.
pub(super) fn said(open: &Open, document: &Value, line: &str) -> Result<(), Failure> {
    if open.is_json() {
        return output::json(document);
    }
    output::out(&format!("  {line}\n"));
    Ok(())
}

fn is_ours(thing: &PlannedThing) -> bool {
    thing.found.as_ref().is_some_and(|found| found.ours)
}

fn deploy_word(thing: &PlannedThing) -> &'static str {
    match &thing.found {
        None => "would be made",
        Some(found) if found.ours => "is there",
        Some(_) => "is there, not ours; would be used",
    }
}

fn tear_down_word(thing: &PlannedThing) -> &'static str {
    match &thing.found {
        None => "may exist; would be looked for",
        Some(found) if found.ours => "would be destroyed",
        Some(_) => "not ours; would be left",
    }
}

fn show(
    open: &Open,
    plan: &[PlannedThing],
    verb: &str,
    word: fn(&PlannedThing) -> &'static str,
) -> Result<(), Failure> {
    if open.is_json() {
        let document =
            json!({"name": open.cloud.name().as_str(), "dry_run": true, "things": things(plan, word)});
        return output::json(&document);
    }
    if plan.is_empty() {
        let what = if verb == "deploy" { "needs nothing to be made" } else { "has nothing here" };
        output::out(&format!("  deployment {} {what}\n", open.cloud.name()));
        return Ok(());
    }
    output::out(&rows(plan, word));
    output::out(&format!("  nothing was changed; to do it:  {}\n", open.hint(verb)));
    Ok(())
}

fn rows(plan: &[PlannedThing], word: fn(&PlannedThing) -> &'static str) -> String {
    let row = |thing: &PlannedThing| {
        let id = thing.found.as_ref().map_or("-".to_owned(), |found| found.id.clone());
        vec![thing.kind.to_string(), thing.name.clone(), id, word(thing).to_owned()]
    };
    output::table(&["KIND", "NAME", "ID", ""], plan.iter().map(row).collect(), output::colours())
}

fn things(plan: &[PlannedThing], word: fn(&PlannedThing) -> &'static str) -> Vec<Value> {
    let thing = |thing: &PlannedThing| {
        json!({
            "kind": thing.kind,
            "name": thing.name,
            "id": thing.found.as_ref().map(|found| found.id.clone()),
            "ours": is_ours(thing),
            "what": word(thing),
        })
    };
    plan.iter().map(thing).collect()
}

fn found_json(found: &Found) -> Value {
    json!({"kind": found.kind, "name": found.name, "id": found.id})
}
