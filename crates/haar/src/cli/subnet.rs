//! `haar subnet`: ranges of addresses in a network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use haar_api::table as t;
use haar_api::v1::{Ref, SubnetCreate, SubnetListQuery, SubnetPatch, SubnetView, Time};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::labels::{self, Label, LabelChanges};
use super::narrow::LabelWords;
use super::network::Networks;
use super::noun::{self, Noun};
use super::output;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a subnet
    #[command(
        after_help = "Examples:\n  haar subnet create lab --network lab --cidr 10.78.0.0/24\n  haar subnet create six --network lab --cidr fd00:78::/64 --gateway fd00:78::1 --start fd00:78::100"
    )]
    Create(CreateWords),
    /// List subnets
    #[command(after_help = "Examples:\n  haar subnet list --network lab")]
    List(ListWords),
    /// Show a subnet
    #[command(after_help = "Examples:\n  haar subnet show lab")]
    Show(One),
    /// Change a subnet; addresses in use must stay inside
    #[command(after_help = "Examples:\n  haar subnet set lab --end 10.78.0.99 --dns 9.9.9.9")]
    Set(SetWords),
    /// Remove subnets whose addresses are all free
    #[command(after_help = "Examples:\n  haar subnet delete lab")]
    Delete(Several),
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Name, id, or an id's first digits (4 or more)
    subnet: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Several {
    /// Names, ids, or ids' first digits (4 or more)
    #[arg(required = true)]
    subnet: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListWords {
    /// Only those of this network
    #[arg(long)]
    network: Option<String>,
    /// Only the one of this name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    labels: LabelWords,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateWords {
    /// Its name
    name: String,
    /// The network it belongs to; `default` when left out
    #[arg(long, default_value = "default")]
    network: String,
    /// The range as a whole
    #[arg(long)]
    cidr: String,
    /// The router's address: the bridge's own on each hypervisor; when left out, the range's first in a network
    /// with NAT, else none
    #[arg(long, conflicts_with = "no_gateway")]
    gateway: Option<String>,
    /// Have no router, in a network with NAT too
    #[arg(long)]
    no_gateway: bool,
    /// First address handed out; the range's first when left out
    #[arg(long)]
    start: Option<String>,
    /// Last address handed out; the range's last when left out
    #[arg(long)]
    end: Option<String>,
    /// A name server told to guests; may be given three times
    #[arg(long)]
    dns: Vec<String>,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<Label>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetWords {
    /// Name, id, or an id's first digits (4 or more)
    subnet: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// New router's address
    #[arg(long, conflicts_with = "no_gateway")]
    gateway: Option<String>,
    /// Have no router
    #[arg(long)]
    no_gateway: bool,
    /// New first address
    #[arg(long)]
    start: Option<String>,
    /// New last address
    #[arg(long)]
    end: Option<String>,
    /// The new name servers, all of them; may be given three times
    #[arg(long)]
    dns: Vec<String>,
    #[command(flatten)]
    labels: LabelChanges,
}

/// The noun.
pub(crate) struct Subnets;

impl Noun for Subnets {
    const WORD: &'static str = "subnet";
    const COLUMNS: &'static [&'static str] =
        &["NAME", "NETWORK", "CIDR", "GATEWAY", "FIRST", "LAST", "USED", "AGE"];
    type View = SubnetView;
    type List = t::SubnetList;

    fn id(view: &SubnetView) -> Uuid {
        view.id.0
    }

    fn name(view: &SubnetView) -> &str {
        view.name.as_str()
    }

    fn labels(view: &SubnetView) -> Option<&BTreeMap<String, String>> {
        Some(&view.metadata)
    }

    fn row(view: &SubnetView, now: Time) -> Vec<String> {
        vec![
            view.name.to_string(),
            view.network_name.clone(),
            view.cidr.to_string(),
            view.gateway.map_or("-".to_owned(), |gateway| gateway.to_string()),
            first(view).to_string(),
            last(view).to_string(),
            used(view),
            output::age(view.created_at, now),
        ]
    }

    fn details(view: &SubnetView) -> (String, Vec<(&'static str, String)>) {
        let lines = vec![
            ("network", view.network_name.clone()),
            ("cidr", view.cidr.to_string()),
            ("gateway", view.gateway.map(|gateway| gateway.to_string()).unwrap_or_default()),
            ("hands out", hands_out(view)),
            ("addresses", used(view)),
            ("dns", view.dns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            ("labels", output::labels(&view.metadata)),
            ("revision", view.revision.to_string()),
            ("made", view.created_at.to_string()),
        ];
        (format!("subnet {}   {}", view.name, view.id), lines)
    }
}

/// The first address that a guest can have: the range may begin with the router's own.
fn first(view: &SubnetView) -> IpAddr {
    match view.start {
        start if Some(start) == view.gateway && start != view.end => neighbour(start, 1),
        start => start,
    }
}

/// The last one.
fn last(view: &SubnetView) -> IpAddr {
    match view.end {
        end if Some(end) == view.gateway && end != view.start => neighbour(end, -1),
        end => end,
    }
}

fn neighbour(address: IpAddr, step: i8) -> IpAddr {
    match address {
        IpAddr::V4(four) => Ipv4Addr::from(u32::from(four).wrapping_add_signed(step.into())).into(),
        IpAddr::V6(six) => Ipv6Addr::from(u128::from(six).wrapping_add_signed(step.into())).into(),
    }
}

/// `10.78.0.2 to 10.78.0.254`, and the router's address where it lies between.
fn hands_out(view: &SubnetView) -> String {
    let (first, last) = (first(view), last(view));
    match view.gateway {
        Some(gateway) if (first..=last).contains(&gateway) => format!("{first} to {last} but {gateway}"),
        _ => format!("{first} to {last}"),
    }
}

fn used(view: &SubnetView) -> String {
    match view.addresses_total {
        u64::MAX => view.addresses_used.to_string(),
        total => format!("{} of {total}", view.addresses_used),
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(words) => create(context, words).await,
        Verb::List(words) => {
            let query = SubnetListQuery {
                name: words.name,
                network: noun::resolve_if::<Networks>(context, words.network).await?,
                project: context.project.clone(),
                ..SubnetListQuery::default()
            };
            noun::list::<Subnets>(context, query, &words.labels).await
        }
        Verb::Show(words) => noun::show::<Subnets, t::SubnetShow>(context, &words.subnet).await,
        Verb::Set(words) => set(context, words).await,
        Verb::Delete(words) => {
            noun::delete::<Subnets, t::SubnetShow, t::SubnetDelete>(context, &words.subnet).await
        }
    }
}

async fn create(context: &Context, words: CreateWords) -> Result<(), Failure> {
    let network = noun::resolve::<Networks>(context, &words.network).await?;
    let is_chosen = words.gateway.is_none();
    let gateway = said_gateway(words.gateway, words.no_gateway);
    let body = SubnetCreate {
        name: words.name,
        project: context.project.clone(),
        metadata: labels::map(&words.metadata),
        network: Ref(network),
        cidr: words.cidr,
        gateway,
        start: words.start,
        end: words.end,
        dns: words.dns,
    };
    let answered = context.client.request::<t::SubnetPost>(&[]).send(&body).await?;
    noun::said(context, &answered, &made(&answered.value, is_chosen))
}

fn made(view: &SubnetView, is_chosen: bool) -> String {
    let gateway = match (view.gateway, is_chosen) {
        (Some(gateway), true) => format!("gateway {gateway} (chosen, since the network has NAT)"),
        (Some(gateway), false) => format!("gateway {gateway}"),
        (None, _) => {
            "no gateway: its guests reach each other, not the hypervisor and not the outside".to_owned()
        }
    };
    format!("subnet {} made: {} in network {}, {gateway}", view.name, hands_out(view), view.network_name)
}

/// A gateway as the wire has it: nothing said, none wanted, or an address.
fn said_gateway(address: Option<String>, none: bool) -> Option<Option<String>> {
    if none { Some(None) } else { address.map(Some) }
}

/// What a subnet without a gateway means where one is needed, and what to type.
pub(crate) fn no_gateway(context: &Context, view: &SubnetView) -> String {
    let (name, address) = (&view.name, likely_free(view));
    let command = context.hint(&format!("subnet set {name} --gateway {address}"));
    format!(
        "subnet {name} has no gateway, so its guests reach each other only; give it a free address as one:  {command}"
    )
}

/// Addresses are handed out from the first on: once there is a guest, the last is the one most likely to be free.
fn likely_free(view: &SubnetView) -> IpAddr {
    if view.addresses_used > 0 { view.end } else { view.start }
}

async fn set(context: &Context, words: SetWords) -> Result<(), Failure> {
    let read = noun::read::<Subnets, t::SubnetShow>(context, &words.subnet).await?;
    let gateway = said_gateway(words.gateway, words.no_gateway);
    let patch = SubnetPatch {
        name: words.name,
        metadata: words.labels.applied_to(&read.value.metadata),
        gateway,
        start: words.start,
        end: words.end,
        dns: if words.dns.is_empty() { None } else { Some(words.dns) },
    };
    let call = context.client.request::<t::SubnetSet>(&[&read.value.id.to_string()]);
    let answered = call.if_match(read.value.revision.to_string()).send(&patch).await?;
    let (before, after) = (&read.value, &answered.value);
    noun::said(context, &answered, &noun::changed::<Subnets>(&after.name, before.revision, after.revision))?;
    if before.gateway != after.gateway && !context.is_json() {
        after_a_gateway(context, after);
    }
    Ok(())
}

/// What a gateway that came or went means for guests.
fn after_a_gateway(context: &Context, view: &SubnetView) {
    match view.gateway {
        Some(gateway) if view.addresses_used > 0 => eprintln!(
            "  guests made before do not know it: inside each,  ip route replace default via {gateway}  or make them anew"
        ),
        Some(_) => {}
        None => eprintln!("  {}", no_gateway(context, view)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(gateway: Option<&str>, start: &str, end: &str) -> SubnetView {
        let id = "7f3a1111-0000-4000-8000-000000000001";
        serde_json::from_value(serde_json::json!({
            "id": id, "name": "lab", "project": "default", "metadata": {}, "network": id, "network_name": "lab",
            "cidr": "10.78.0.0/24", "gateway": gateway, "start": start, "end": end, "dns": [],
            "addresses_used": 0, "addresses_total": 253, "revision": 1,
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"
        }))
        .unwrap()
    }

    #[test]
    fn the_routers_address_is_not_shown_as_one_handed_out() {
        let shown = |gateway, start, end| hands_out(&subnet(gateway, start, end));
        assert_eq!(shown(Some("10.78.0.1"), "10.78.0.1", "10.78.0.254"), "10.78.0.2 to 10.78.0.254");
        assert_eq!(shown(Some("10.78.0.254"), "10.78.0.1", "10.78.0.254"), "10.78.0.1 to 10.78.0.253");
        assert_eq!(
            shown(Some("10.78.0.9"), "10.78.0.1", "10.78.0.20"),
            "10.78.0.1 to 10.78.0.20 but 10.78.0.9"
        );
        assert_eq!(shown(None, "10.78.0.1", "10.78.0.20"), "10.78.0.1 to 10.78.0.20");
        let row = Subnets::row(&subnet(Some("10.78.0.1"), "10.78.0.1", "10.78.0.9"), output::now());
        assert_eq!(row[3..6], ["10.78.0.1", "10.78.0.2", "10.78.0.9"]);
    }
}
