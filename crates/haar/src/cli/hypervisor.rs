//! `haar hypervisor`: the machines that run guests.

use std::collections::BTreeMap;

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{HypervisorCreate, HypervisorPatch, HypervisorView, OvercommitRatios, Ref, Time};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::labels::{self, Label, LabelChanges};
use super::noun::{self, ListWords, Noun};
use super::output;
use super::subnet::Subnets;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a machine known; its agent joins with a token of its own
    #[command(
        after_help = "Examples:\n  haar hypervisor create lab2 --metadata room=cellar\n  haar token create lab2-agent --role agent --hypervisor lab2"
    )]
    Create(CreateWords),
    /// List hypervisors
    #[command(after_help = "Examples:\n  haar hypervisor list")]
    List(ListWords),
    /// Show a hypervisor
    #[command(after_help = "Examples:\n  haar hypervisor show lab1")]
    Show(One),
    /// Change a hypervisor
    #[command(
        after_help = "Examples:\n  haar hypervisor set lab1 --metadata disk=ssd\n  haar hypervisor set lab1 --overcommit 6,1,1\n  haar hypervisor set lab1 --subnet lan=br0"
    )]
    Set(SetWords),
    /// Remove hypervisors that hold no guests
    #[command(after_help = "Examples:\n  haar hypervisor delete lab2")]
    Delete(Several),
    /// Place nothing new on a hypervisor
    #[command(after_help = "Examples:\n  haar hypervisor cordon lab5 --reason \"disk swap\"")]
    Cordon(CordonWords),
    /// Place guests on it again
    #[command(after_help = "Examples:\n  haar hypervisor uncordon lab5")]
    Uncordon(One),
    /// Your word that a machine is dead for good: its guests' disks are gone
    #[command(
        after_help = "Examples:\n  haar hypervisor lost lab4      power it off first: a guest that runs twice destroys its disk"
    )]
    Lost(One),
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Name, id, or an id's first digits (4 or more)
    hypervisor: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Several {
    /// Names, ids, or ids' first digits (4 or more)
    #[arg(required = true)]
    hypervisor: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateWords {
    /// Its name
    name: String,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<Label>,
    /// Its address, for people
    #[arg(long)]
    ip: Option<String>,
    /// Its MAC address, for people
    #[arg(long)]
    mac: Option<String>,
    /// What may be promised per cpu, memory and disk there is
    #[arg(long, value_name = "CPU,MEMORY,DISK", value_parser = ratios)]
    overcommit: Option<OvercommitRatios>,
    /// A subnet it has, for networks whose reach is `listed`; may be given several times
    #[arg(long, value_name = "SUBNET=BRIDGE")]
    subnet: Vec<Label>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetWords {
    /// Name, id, or an id's first digits (4 or more)
    hypervisor: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    labels: LabelChanges,
    /// What may be promised per cpu, memory and disk there is
    #[arg(long, value_name = "CPU,MEMORY,DISK", value_parser = ratios, conflicts_with = "no_overcommit")]
    overcommit: Option<OvercommitRatios>,
    /// Use the cluster's ratios
    #[arg(long)]
    no_overcommit: bool,
    /// A subnet it has from now on, over a bridge of the machine's own; may be given several times
    #[arg(long, value_name = "SUBNET=BRIDGE")]
    subnet: Vec<Label>,
    /// A subnet it no longer has; may be given several times
    #[arg(long, value_name = "SUBNET")]
    no_subnet: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CordonWords {
    /// Name, id, or an id's first digits (4 or more)
    hypervisor: String,
    /// Why, for whoever wonders
    #[arg(long, default_value = "by an operator")]
    reason: String,
}

/// Three ratios, separated by commas.
fn ratios(text: &str) -> Result<OvercommitRatios, String> {
    let bad = || format!("`{text}` is not three ratios; write cpu,memory,disk as 4.0,1.0,1.0");
    let numbers: Vec<f64> = text.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| bad())?;
    match numbers.as_slice() {
        [cpu, memory, disk] => Ok(OvercommitRatios { cpu: *cpu, memory: *memory, disk: *disk }),
        _ => Err(bad()),
    }
}

/// The noun.
pub(crate) struct Hypervisors;

impl Noun for Hypervisors {
    const WORD: &'static str = "hypervisor";
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STATE", "GUESTS", "CPU FREE", "MEMORY FREE", "DISK FREE", "ACCEL", "VERSION", ""];
    type View = HypervisorView;
    type List = t::HypervisorList;

    fn id(view: &HypervisorView) -> Uuid {
        view.id.0
    }

    fn name(view: &HypervisorView) -> &str {
        view.name.as_str()
    }

    fn labels(view: &HypervisorView) -> Option<&BTreeMap<String, String>> {
        Some(&view.metadata)
    }

    fn row(view: &HypervisorView, now: Time) -> Vec<String> {
        let free = view.available_resources;
        vec![
            view.name.to_string(),
            view.state.clone(),
            view.guests.to_string(),
            free.cpu.to_string(),
            output::mib(free.memory),
            output::mib(free.disk),
            view.inventory.accel.clone(),
            view.inventory.version.clone(),
            remarks(view, now),
        ]
    }

    fn details(view: &HypervisorView) -> (String, Vec<(&'static str, String)>) {
        let resources = |r: haar_api::v1::ResourcesView| {
            format!("{} cpu, {}, {} disk", r.cpu, output::mib(r.memory), output::mib(r.disk))
        };
        let inventory = &view.inventory;
        let accel = match inventory.accel_reason.as_str() {
            "" => inventory.accel.clone(),
            reason => format!("{} ({reason})", inventory.accel),
        };
        let whose = if view.overcommit.is_some() { "its own" } else { "the cluster's" };
        let free = match closed(view) {
            Some(why) => format!("none now: {why}; else {}", resources(view.available_resources)),
            None => resources(view.available_resources),
        };
        let lines = vec![
            ("state", view.state.clone()),
            ("cordoned", view.cordon.clone().unwrap_or_default()),
            ("last poll", view.seen_at.map(|at| at.to_string()).unwrap_or_default()),
            ("guests", view.guests.to_string()),
            ("has", resources(view.total_resources)),
            (
                "overcommit",
                format!("{} ({whose})", output::factors(view.total_resources, view.promised_resources)),
            ),
            ("may promise", resources(view.promised_resources)),
            ("guests hold", resources(view.used_resources)),
            ("still free", free),
            ("host", inventory.host.clone()),
            ("acceleration", accel),
            ("QEMU", inventory.qemu.clone()),
            ("libvirt", inventory.libvirt.clone()),
            ("version", inventory.version.clone()),
            ("address", view.ip.map(|ip| ip.to_string()).unwrap_or_default()),
            ("subnets", subnet_words(view)),
            ("labels", output::labels(&view.metadata)),
            ("strangers", view.strangers.join(", ")),
            ("revision", view.revision.to_string()),
        ];
        (format!("hypervisor {}   {}", view.name, view.id), lines)
    }
}

fn subnet_words(view: &HypervisorView) -> String {
    let words = view.subnets.iter().map(|(id, bridge)| format!("{} on {bridge}", output::short_id(id)));
    words.collect::<Vec<_>>().join(", ")
}

/// Why nothing is placed on it now, when so.
fn closed(view: &HypervisorView) -> Option<String> {
    match (&view.cordon, view.state.as_str()) {
        (Some(why), _) => Some(format!("cordoned ({why})")),
        (None, "alive") => None,
        (None, state) => Some(format!("it is {state}")),
    }
}

fn remarks(view: &HypervisorView, now: Time) -> String {
    let mut remarks = Vec::new();
    if let Some(why) = &view.cordon {
        remarks.push(format!("cordoned: {why}"));
    }
    if let (Some(at), true) = (view.seen_at, view.state == "silent") {
        remarks.push(format!("last heard {} ago", output::age(at, now)));
    }
    if !view.strangers.is_empty() {
        remarks.push(output::counted(view.strangers.len() as u64, "stranger"));
    }
    remarks.join(", ")
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(words) => create(context, words).await,
        Verb::List(words) => noun::list_named::<Hypervisors>(context, words).await,
        Verb::Show(words) => noun::show::<Hypervisors, t::HypervisorShow>(context, &words.hypervisor).await,
        Verb::Set(words) => set(context, words).await,
        Verb::Delete(words) => {
            noun::delete::<Hypervisors, t::HypervisorShow, t::HypervisorDelete>(context, &words.hypervisor)
                .await
        }
        Verb::Cordon(words) => cordon(context, &words.hypervisor, Some(words.reason)).await,
        Verb::Uncordon(words) => cordon(context, &words.hypervisor, None).await,
        Verb::Lost(words) => lost(context, &words.hypervisor).await,
    }
}

async fn create(context: &Context, words: CreateWords) -> Result<(), Failure> {
    let subnets = subnets(context, words.subnet).await?;
    let body = HypervisorCreate {
        name: words.name,
        project: context.project.clone(),
        metadata: labels::map(&words.metadata),
        ip: words.ip,
        mac: words.mac,
        overcommit: words.overcommit,
        subnets: subnets.into_iter().map(|(subnet, bridge)| (Ref(subnet), bridge)).collect(),
        ..HypervisorCreate::default()
    };
    let answered = context.client.request::<t::HypervisorPost>(&[]).send(&body).await?;
    let name = &answered.value.name;
    let command = context.hint(&format!("token create {name}-agent --role agent --hypervisor {name}"));
    let line = format!("hypervisor {name} made; for its agent:  {command}");
    noun::said(context, &answered, &line)
}

async fn set(context: &Context, words: SetWords) -> Result<(), Failure> {
    let read = noun::read::<Hypervisors, t::HypervisorShow>(context, &words.hypervisor).await?;
    let overcommit = match (words.overcommit, words.no_overcommit) {
        (Some(ratios), _) => Some(Some(ratios)),
        (None, true) => Some(None),
        (None, false) => None,
    };
    let subnets = changed_subnets(context, &read.value, words.subnet, &words.no_subnet).await?;
    let patch = HypervisorPatch {
        name: words.name,
        metadata: words.labels.applied_to(&read.value.metadata),
        overcommit,
        subnets,
        ..HypervisorPatch::default()
    };
    let call = context.client.request::<t::HypervisorSet>(&[&read.value.id.to_string()]);
    let answered = call.if_match(read.value.revision.to_string()).send(&patch).await?;
    let after = &answered.value;
    let line = noun::changed::<Hypervisors>(&after.name, read.value.revision, after.revision);
    noun::said(context, &answered, &line)
}

/// Ids of subnets, and the bridges they are on.
async fn subnets(context: &Context, words: Vec<Label>) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    for Label { key, value: bridge } in words {
        if bridge.is_empty() {
            return Err(Failure::Usage(format!("`{key}=` names no bridge; write {key}=br0")));
        }
        found.insert(subnet_id(context, &key).await?, bridge);
    }
    Ok(found)
}

/// A subnet's id, by which the record names it.
async fn subnet_id(context: &Context, text: &str) -> Result<String, Failure> {
    let subnet = noun::read::<Subnets, t::SubnetShow>(context, text).await?;
    Ok(subnet.value.id.to_string())
}

/// The subnets after the change, those not named staying as they are; None when nothing changes.
async fn changed_subnets(
    context: &Context,
    view: &HypervisorView,
    set: Vec<Label>,
    unset: &[String],
) -> Result<Option<BTreeMap<Ref, String>>, Failure> {
    if set.is_empty() && unset.is_empty() {
        return Ok(None);
    }
    let mut all: BTreeMap<String, String> =
        view.subnets.iter().map(|(id, bridge)| (id.to_string(), bridge.clone())).collect();
    all.extend(subnets(context, set).await?);
    for subnet in unset {
        all.remove(&subnet_id(context, subnet).await?);
    }
    Ok(Some(all.into_iter().map(|(id, bridge)| (Ref(id), bridge)).collect()))
}

async fn cordon(context: &Context, hypervisor: &str, reason: Option<String>) -> Result<(), Failure> {
    let reference = noun::resolve::<Hypervisors>(context, hypervisor).await?;
    let line = match reason {
        Some(_) => format!("hypervisor {hypervisor} cordoned: it keeps its guests and gets no new ones"),
        None => format!("hypervisor {hypervisor} takes guests again"),
    };
    let patch = HypervisorPatch { cordon: Some(reason), ..HypervisorPatch::default() };
    let call = context.client.request::<t::HypervisorSet>(&[&reference]).query(noun::in_project(context));
    noun::said(context, &call.send(&patch).await?, &line)
}

async fn lost(context: &Context, hypervisor: &str) -> Result<(), Failure> {
    let reference = noun::resolve::<Hypervisors>(context, hypervisor).await?;
    let call = context.client.request::<t::HypervisorLost>(&[&reference]).query(noun::in_project(context));
    let answered = call.send(&Nothing).await?;
    noun::said(context, &answered, &format!("hypervisor {hypervisor} declared lost, and its guests with it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overcommit_is_three_ratios() {
        assert_eq!(ratios("4.0,1,1.25"), Ok(OvercommitRatios { cpu: 4.0, memory: 1.0, disk: 1.25 }));
        assert!(ratios("4").is_err());
        assert!(ratios("4,1,x").is_err());
    }
}
