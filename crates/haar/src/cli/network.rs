//! `haar network`: what guests are plugged into.

use std::collections::BTreeMap;

use haar_api::table as t;
use haar_api::v1::{NetworkCreate, NetworkPatch, NetworkReach, NetworkView, SubnetListQuery, Time};
use ipnet::IpNet;
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::labels::{self, Label, LabelChanges};
use super::noun::{self, ListWords, Noun};
use super::output;
use super::subnet::{self, Subnets};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a network
    #[command(
        after_help = "Guests of one network reach each other, and nothing passes between two networks of a cloud. With --nat they\n\
                      reach the outside too, which cannot begin talks with them; the hypervisor itself reaches the guests of\n\
                      every network whose subnet has a gateway.\n\n\
                      Examples:\n  haar network create lab --nat\n  haar subnet create lab --network lab --cidr 10.78.0.0/24"
    )]
    Create(CreateWords),
    /// List networks
    #[command(after_help = "Examples:\n  haar network list")]
    List(ListWords),
    /// Show a network
    #[command(after_help = "Examples:\n  haar network show default")]
    Show(One),
    /// Change a network
    #[command(after_help = "Examples:\n  haar network set lab --nat false")]
    Set(SetWords),
    /// Remove networks without subnets and guests
    #[command(after_help = "Examples:\n  haar network delete lab")]
    Delete(Several),
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Name, id, or an id's first digits (4 or more)
    network: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Several {
    /// Names, ids, or ids' first digits (4 or more)
    #[arg(required = true)]
    network: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateWords {
    /// Its name
    name: String,
    /// Let guests reach the outside under the hypervisor's address
    #[arg(long)]
    nat: bool,
    /// Which hypervisors have it
    #[arg(long, value_enum, default_value = "all")]
    reach: ReachWord,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<Label>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetWords {
    /// Name, id, or an id's first digits (4 or more)
    network: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// Whether guests reach the outside under the hypervisor's address
    #[arg(long, value_name = "true|false")]
    nat: Option<bool>,
    /// Which hypervisors have it
    #[arg(long, value_enum)]
    reach: Option<ReachWord>,
    #[command(flatten)]
    labels: LabelChanges,
}

/// Which hypervisors have a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ReachWord {
    /// Every one
    All,
    /// Those whose record lists one of its subnets
    Listed,
}

impl From<ReachWord> for NetworkReach {
    fn from(word: ReachWord) -> NetworkReach {
        match word {
            ReachWord::All => NetworkReach::All,
            ReachWord::Listed => NetworkReach::Listed,
        }
    }
}

/// The noun.
pub(crate) struct Networks;

impl Noun for Networks {
    const WORD: &'static str = "network";
    const COLUMNS: &'static [&'static str] = &["NAME", "NAT", "REACH", "SUBNETS", "BRIDGE", "AGE"];
    type View = NetworkView;
    type List = t::NetworkList;

    fn id(view: &NetworkView) -> Uuid {
        view.id.0
    }

    fn name(view: &NetworkView) -> &str {
        view.name.as_str()
    }

    fn labels(view: &NetworkView) -> Option<&BTreeMap<String, String>> {
        Some(&view.metadata)
    }

    fn row(view: &NetworkView, now: Time) -> Vec<String> {
        vec![
            view.name.to_string(),
            yes_no(view.nat).to_owned(),
            reach(view.reach).to_owned(),
            view.subnet_names.join(", "),
            view.bridge.clone(),
            output::age(view.created_at, now),
        ]
    }

    fn details(view: &NetworkView) -> (String, Vec<(&'static str, String)>) {
        let lines = vec![
            ("nat", yes_no(view.nat).to_owned()),
            ("reach", reach(view.reach).to_owned()),
            ("subnets", view.subnet_names.join(", ")),
            ("bridge", view.bridge.clone()),
            ("labels", output::labels(&view.metadata)),
            ("revision", view.revision.to_string()),
            ("made", view.created_at.to_string()),
        ];
        (format!("network {}   {}", view.name, view.id), lines)
    }
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn reach(reach: NetworkReach) -> &'static str {
    match reach {
        NetworkReach::All => "all",
        NetworkReach::Listed => "listed",
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(words) => create(context, words).await,
        Verb::List(words) => noun::list_named::<Networks>(context, words).await,
        Verb::Show(words) => noun::show::<Networks, t::NetworkShow>(context, &words.network).await,
        Verb::Set(words) => set(context, words).await,
        Verb::Delete(words) => {
            noun::delete::<Networks, t::NetworkShow, t::NetworkDelete>(context, &words.network).await
        }
    }
}

async fn create(context: &Context, words: CreateWords) -> Result<(), Failure> {
    let body = NetworkCreate {
        name: words.name,
        project: context.project.clone(),
        metadata: labels::map(&words.metadata),
        nat: words.nat,
        reach: words.reach.into(),
    };
    let answered = context.client.request::<t::NetworkPost>(&[]).send(&body).await?;
    let line = format!("network {} made; {}", answered.value.name, next(context, &answered.value).await);
    noun::said(context, &answered, &line)
}

/// What to type next: a range that no subnet has, and no route of this machine, which may be a hypervisor.
async fn next(context: &Context, network: &NetworkView) -> String {
    let name = &network.name;
    // The hint is worth less than the network: a list that cannot be had keeps nothing from being chosen.
    let known = noun::pages::<Subnets>(context, SubnetListQuery::default()).await;
    let taken: Vec<IpNet> =
        known.into_iter().flat_map(|(all, _)| all).map(|other| other.cidr.net()).collect();
    let Some(range) = crate::modes::free_range(&taken) else {
        return format!("give it addresses:  {}", context.hint("subnet create --help"));
    };
    let command = context.hint(&format!("subnet create {name} --network {name} --cidr {range}"));
    format!("give it addresses:  {command}")
}

async fn set(context: &Context, words: SetWords) -> Result<(), Failure> {
    let read = noun::read::<Networks, t::NetworkShow>(context, &words.network).await?;
    let patch = NetworkPatch {
        name: words.name,
        metadata: words.labels.applied_to(&read.value.metadata),
        nat: words.nat,
        reach: words.reach.map(NetworkReach::from),
    };
    let call = context.client.request::<t::NetworkSet>(&[&read.value.id.to_string()]);
    let answered = call.if_match(read.value.revision.to_string()).send(&patch).await?;
    let (before, after) = (&read.value, &answered.value);
    noun::said(context, &answered, &noun::changed::<Networks>(&after.name, before.revision, after.revision))?;
    if after.nat && !before.nat && !context.is_json() {
        say_who_has_no_gateway(context, after).await?;
    }
    Ok(())
}

/// NAT without a gateway is none: says which subnets have none, and how they get one.
async fn say_who_has_no_gateway(context: &Context, network: &NetworkView) -> Result<(), Failure> {
    let query = SubnetListQuery { network: Some(network.id.to_string()), ..SubnetListQuery::default() };
    for subnet in noun::pages::<Subnets>(context, query).await?.0 {
        if subnet.gateway.is_none() {
            eprintln!("  ! {}", subnet::no_gateway(context, &subnet));
        }
    }
    Ok(())
}
