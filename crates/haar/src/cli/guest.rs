//! `haar guest`: virtual machines.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::net::IpAddr;

use haar_api::client::Answered;
use haar_api::endpoint::{Endpoint, Nothing};
use haar_api::table as t;
use haar_api::v1::{
    GuestListQuery, GuestPatch, GuestRestart, GuestView, JobView, LogQuery, Ref, RefWaitQuery, Time,
};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::flavor::Flavors;
use super::follow::{self, Limit, WaitWords};
use super::fwgroup::FwGroups;
use super::hypervisor::Hypervisors;
use super::image::Images;
use super::labels::LabelChanges;
use super::narrow::LabelWords;
use super::network::Networks;
use super::noun::{self, Noun, Told};
use super::terminal::Harmless;
use super::{console, guest_create, output, several};

/// What a program ends with that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Place, make and start a guest
    #[command(after_help = guest_create::EXAMPLES)]
    Create(Box<guest_create::Words>),
    /// List guests
    #[command(
        after_help = "Examples:\n  haar guest list\n  haar guest list --on lab2 --state running\n  haar guest list --label team=web --show-labels\n  haar guest list -o json"
    )]
    List(ListWords),
    /// Show a guest
    #[command(after_help = "Examples:\n  haar guest show web\n  haar guest show 7f3a")]
    Show(One),
    /// Change a guest's name, labels, restart policy or firewall group
    #[command(
        after_help = "Examples:\n  haar guest set web --metadata team=web --unset old\n  haar guest set web --restart always\n  haar guest set web --no-fwgroup"
    )]
    Set(SetWords),
    /// Stop guests and remove them with their disks
    #[command(after_help = "Examples:\n  haar guest delete web\n  haar guest delete ci-1 ci-2 --no-wait")]
    Delete(Several),
    /// Start guests
    #[command(after_help = "Examples:\n  haar guest start web")]
    Start(Several),
    /// Ask guests to power off
    #[command(after_help = "Examples:\n  haar guest shutdown web")]
    Shutdown(Several),
    /// Cut guests' power
    #[command(after_help = "Examples:\n  haar guest poweroff web")]
    Poweroff(Several),
    /// Ask guests to reboot
    #[command(after_help = "Examples:\n  haar guest reboot web")]
    Reboot(Several),
    /// Make lost guests anew from their image; what was on their disks stays lost
    #[command(after_help = "Examples:\n  haar guest recreate web")]
    Recreate(Several),
    /// Take over guests found on a host after a restore
    #[command(after_help = "Examples:\n  haar guest adopt web")]
    Adopt(Several),
    /// Open a guest's serial console; Ctrl-] closes it
    #[command(after_help = "Examples:\n  haar guest console web")]
    Console(One),
    /// Print what a guest wrote to its serial console
    #[command(after_help = "Examples:\n  haar guest log web --tail 4096\n  haar guest log web --follow")]
    Log(LogWords),
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Name, id, or an id's first digits (4 or more)
    guest: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Several {
    /// Names, ids, or ids' first digits (4 or more)
    #[arg(required = true)]
    guest: Vec<String>,
    #[command(flatten)]
    wait: WaitWords,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ListWords {
    /// Only those on this hypervisor
    #[arg(long, value_name = "HYPERVISOR")]
    on: Option<String>,
    /// Only those in this state
    #[arg(long)]
    state: Option<String>,
    /// Only those of this flavor
    #[arg(long)]
    flavor: Option<String>,
    /// Only those of this image
    #[arg(long)]
    image: Option<String>,
    /// Only those in this network
    #[arg(long)]
    network: Option<String>,
    /// Only the one of this name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    labels: LabelWords,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetWords {
    /// Name, id, or an id's first digits (4 or more)
    guest: String,
    /// New name; the host name inside stays
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    labels: LabelChanges,
    /// When it is started again by itself
    #[arg(long, value_enum)]
    restart: Option<RestartWord>,
    /// New firewall group
    #[arg(long, conflicts_with = "no_fwgroup")]
    fwgroup: Option<String>,
    /// Take it out of its firewall group
    #[arg(long)]
    no_fwgroup: bool,
    #[command(flatten)]
    fixed: FixedWords,
}

/// What a guest has for life: taken so that it can be said, for a tip about the nearest option would mislead.
#[derive(Debug, clap::Args)]
struct FixedWords {
    #[arg(long, hide = true)]
    flavor: Option<String>,
    #[arg(long, hide = true)]
    image: Option<String>,
    #[arg(long, hide = true)]
    network: Option<String>,
    #[arg(long, hide = true)]
    address: Option<String>,
    #[arg(long, hide = true)]
    hypervisor: Option<String>,
}

impl FixedWords {
    /// Refuses the first of them that was given.
    fn refuse(&self, context: &Context, guest: &str) -> Result<(), Failure> {
        let all = [
            ("flavor", &self.flavor),
            ("image", &self.image),
            ("network", &self.network),
            ("address", &self.address),
            ("hypervisor", &self.hypervisor),
        ];
        let Some((what, value)) = all.iter().find_map(|(what, given)| Some((what, (*given).as_ref()?)))
        else {
            return Ok(());
        };
        let command = context.hint(&format!("guest create NAME --{what} {}", output::quoted(value)));
        Err(Failure::Usage(format!(
            "a guest's {what} is fixed when it is made, so {guest} keeps its own; make another guest:  {command}"
        )))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct LogWords {
    /// Name, id, or an id's first digits (4 or more)
    guest: String,
    /// Go on with what is added
    #[arg(long, short)]
    follow: bool,
    /// Every byte as it was written, also to a terminal; else a terminal gets the text and its colours
    #[arg(long)]
    raw: bool,
    /// Bytes of the log's end to begin with
    #[arg(long, value_name = "BYTES")]
    tail: Option<u64>,
}

/// When a guest is started again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RestartWord {
    /// Not at all
    Never,
    /// After a crash or the host's reboot
    OnFailure,
    /// Whenever it is off and shall run
    Always,
}

impl From<RestartWord> for GuestRestart {
    fn from(word: RestartWord) -> GuestRestart {
        match word {
            RestartWord::Never => GuestRestart::Never,
            RestartWord::OnFailure => GuestRestart::OnFailure,
            RestartWord::Always => GuestRestart::Always,
        }
    }
}

/// The noun.
pub(crate) struct Guests;

impl Noun for Guests {
    const WORD: &'static str = "guest";
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STATE", "ADDRESS", "FLAVOR", "IMAGE", "HYPERVISOR", "AGE", ""];
    type View = GuestView;
    type List = t::GuestList;

    fn id(view: &GuestView) -> Uuid {
        view.id.0
    }

    fn name(view: &GuestView) -> &str {
        view.name.as_str()
    }

    fn labels(view: &GuestView) -> Option<&BTreeMap<String, String>> {
        Some(&view.metadata)
    }

    fn row(view: &GuestView, now: Time) -> Vec<String> {
        vec![
            view.name.to_string(),
            view.state.clone(),
            view.ip.map_or("-".to_owned(), |ip| ip.to_string()),
            view.flavor_name.clone(),
            view.image_name.clone(),
            view.hypervisor_name.clone().unwrap_or_else(|| "-".to_owned()),
            output::age(view.created_at, now),
            view.reason.clone(),
        ]
    }

    fn details(view: &GuestView) -> (String, Vec<(&'static str, String)>) {
        let wanted = if view.goal == view.state { String::new() } else { view.goal.clone() };
        let address = view.ip.map_or(String::new(), |ip| {
            format!("{ip} in {} ({})", view.network_name, view.subnet_name.as_deref().unwrap_or_default())
        });
        let resources = view.resources;
        let size = format!(
            "{} ({} cpu, {}, {} disk)",
            view.flavor_name,
            resources.cpu,
            output::mib(resources.memory),
            output::mib(resources.disk)
        );
        let keys = view.ssh_keys.len() as u64;
        let lines = vec![
            ("state", view.state.clone()),
            ("wanted", wanted),
            ("reason", view.reason.clone()),
            ("address", address),
            ("mac", view.mac.to_string()),
            ("flavor", size),
            ("image", view.image_name.clone()),
            ("hypervisor", view.hypervisor_name.clone().unwrap_or_default()),
            ("bridge", view.bridge.clone().unwrap_or_default()),
            ("fwgroup", view.fwgroup_name.clone().unwrap_or_default()),
            ("restart", restart_word(view.restart).to_owned()),
            ("owner", if view.owner == "controller" { String::new() } else { view.owner.clone() }),
            ("labels", output::labels(&view.metadata)),
            ("ssh keys", if keys == 0 { "none".to_owned() } else { keys.to_string() }),
            ("user-data", view.user_data.as_deref().map(output::short_hash).unwrap_or_default()),
            ("last job", view.job.map(|job| job.to_string()).unwrap_or_default()),
            ("revision", view.revision.to_string()),
            ("made", view.created_at.to_string()),
        ];
        (format!("guest {}   {}", view.name, view.id), lines)
    }
}

fn restart_word(restart: GuestRestart) -> &'static str {
    match restart {
        GuestRestart::Never => "never",
        GuestRestart::OnFailure => "on-failure",
        GuestRestart::Always => "always",
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(words) => guest_create::run(context, *words).await,
        Verb::List(words) => list(context, words).await,
        Verb::Show(words) => noun::show::<Guests, t::GuestShow>(context, &words.guest).await,
        Verb::Set(words) => set(context, words).await,
        Verb::Delete(words) => delete(context, &words).await,
        Verb::Start(words) => act::<t::GuestStart>(context, &words).await,
        Verb::Shutdown(words) => act::<t::GuestShutdown>(context, &words).await,
        Verb::Poweroff(words) => act::<t::GuestPoweroff>(context, &words).await,
        Verb::Reboot(words) => act::<t::GuestReboot>(context, &words).await,
        Verb::Recreate(words) => act::<t::GuestRecreate>(context, &words).await,
        Verb::Adopt(words) => act::<t::GuestAdopt>(context, &words).await,
        Verb::Console(words) => console::run(context, &words.guest).await,
        Verb::Log(words) => log(context, &words).await,
    }
}

async fn list(context: &Context, words: ListWords) -> Result<(), Failure> {
    let query = GuestListQuery {
        name: words.name,
        project: context.project.clone(),
        hypervisor: noun::resolve_if::<Hypervisors>(context, words.on).await?,
        state: words.state,
        flavor: noun::resolve_if::<Flavors>(context, words.flavor).await?,
        image: noun::resolve_if::<Images>(context, words.image).await?,
        network: noun::resolve_if::<Networks>(context, words.network).await?,
        ..GuestListQuery::default()
    };
    noun::list::<Guests>(context, query, &words.labels).await
}

async fn set(context: &Context, words: SetWords) -> Result<(), Failure> {
    words.fixed.refuse(context, &words.guest)?;
    let read = noun::read::<Guests, t::GuestShow>(context, &words.guest).await?;
    let fwgroup = match (noun::resolve_if::<FwGroups>(context, words.fwgroup).await?, words.no_fwgroup) {
        (Some(group), _) => Some(Some(Ref(group))),
        (None, true) => Some(None),
        (None, false) => None,
    };
    let patch = GuestPatch {
        name: words.name,
        metadata: words.labels.applied_to(&read.value.metadata),
        restart: words.restart.map(GuestRestart::from),
        fwgroup,
    };
    let call = context.client.request::<t::GuestSet>(&[&read.value.id.to_string()]);
    let answered = call.if_match(read.value.revision.to_string()).send(&patch).await?;
    let after = &answered.value;
    noun::said(context, &answered, &noun::changed::<Guests>(&after.name, read.value.revision, after.revision))
}

fn no_wait(context: &Context) -> RefWaitQuery {
    RefWaitQuery { project: context.project.clone(), wait: None }
}

async fn act<A>(context: &Context, words: &Several) -> Result<(), Failure>
where
    A: Endpoint<Query = RefWaitQuery, Body = Nothing, Answer = GuestView>,
{
    let guests = several::found::<Guests, t::GuestShow>(context, &words.guest).await?;
    let (limit, no_wait) = (words.wait.limit(), words.wait.no_wait);
    let mut told = Told::new(context, &words.guest);
    let begin = async |guest: &Answered<GuestView>| begin::<A>(context, guest).await;
    let end = async |_: &Answered<GuestView>, answered| {
        end_of_action(context, &answered, (!no_wait).then_some(limit), &mut told).await
    };
    let outcome = several::each_to_the_end(&guests, name_of, begin, end).await;
    told.end(outcome)
}

fn name_of(guest: &Answered<GuestView>) -> String {
    guest.value.name.to_string()
}

async fn begin<A>(context: &Context, guest: &Answered<GuestView>) -> Result<Answered<GuestView>, Failure>
where
    A: Endpoint<Query = RefWaitQuery, Body = Nothing, Answer = GuestView>,
{
    let id = guest.value.id.to_string();
    Ok(context.client.request::<A>(&[&id]).query(no_wait(context)).send(&Nothing).await?)
}

/// Says how it ended; without a limit, what was begun.
async fn end_of_action(
    context: &Context,
    answered: &Answered<GuestView>,
    limit: Option<Limit>,
    told: &mut Told,
) -> Result<(), Failure> {
    let name = answered.value.name.to_string();
    let Some(job) = job_of(answered) else {
        return told.say(&answered.body, &format!("{name}   {}", answered.value.state));
    };
    let Some(limit) = limit else { return told.say(&answered.body, &job) };
    let ended = follow::to_the_end(context, &name, &job, limit).await?;
    let id = answered.value.id.to_string();
    let after = context.client.request::<t::GuestShow>(&[&id]).send(&Nothing).await?;
    let line = format!("{name}   {}   {} after {}", follow::ticks(&ended), after.value.state, took(&ended));
    told.say(&after.body, &line)
}

/// The job an answer began.
fn job_of<T>(answered: &Answered<T>) -> Option<String> {
    answered.is_under_way().then(|| answered.job().map(str::to_owned)).flatten()
}

/// How long a job took, from its making to its end.
pub(crate) fn took(job: &JobView) -> String {
    let ended = job.finished_at.unwrap_or(job.created_at);
    output::span(ended.as_ms() - job.created_at.as_ms())
}

async fn delete(context: &Context, words: &Several) -> Result<(), Failure> {
    let guests = several::found::<Guests, t::GuestShow>(context, &words.guest).await?;
    let (limit, no_wait) = (words.wait.limit(), words.wait.no_wait);
    let mut told = Told::new(context, &words.guest);
    let begin = async |guest: &Answered<GuestView>| begin_delete(context, guest).await;
    let end = async |guest: &Answered<GuestView>, answered: Option<Answered<JobView>>| match answered {
        Some(answered) => end_of_delete(context, answered, (!no_wait).then_some(limit), &mut told).await,
        // It held nothing on any machine, so that no job was needed.
        None => told.say(&guest.body, &format!("{}   deleted", guest.value.name)),
    };
    let outcome = several::each_to_the_end(&guests, name_of, begin, end).await;
    told.end(outcome)
}

async fn begin_delete(
    context: &Context,
    guest: &Answered<GuestView>,
) -> Result<Option<Answered<JobView>>, Failure> {
    let id = guest.value.id.to_string();
    let call = context.client.request::<t::GuestDelete>(&[&id]).query(no_wait(context));
    Ok(call.poll(&Nothing).await?)
}

async fn end_of_delete(
    context: &Context,
    answered: Answered<JobView>,
    limit: Option<Limit>,
    told: &mut Told,
) -> Result<(), Failure> {
    let name = &answered.value.guest_name;
    let job = answered.value.id.to_string();
    let Some(limit) = limit else { return told.say(&answered.body, &job) };
    let ended = match answered.value.ended() {
        true if answered.value.status == "error" => return Err(Failure::Job(Box::new(answered.value))),
        true => answered.value.clone(),
        false => follow::to_the_end(context, name, &job, limit).await?,
    };
    let document = serde_json::to_vec(&ended).map_err(|error| Failure::local("cannot write JSON", error))?;
    told.say(&document, &format!("{name}   {}   deleted after {}", follow::ticks(&ended), took(&ended)))
}

async fn log(context: &Context, words: &LogWords) -> Result<(), Failure> {
    let reference = noun::resolve::<Guests>(context, &words.guest).await?;
    let query =
        LogQuery { project: context.project.clone(), tail: words.tail, follow: words.follow.then_some(true) };
    let call = context.client.request::<t::GuestLog>(&[&reference]).query(query);
    let mut bytes = call.stream(&Nothing).await?;
    if words.raw || !std::io::stdout().is_terminal() {
        while let Some(chunk) = bytes.chunk().await? {
            if !output::bytes_out(&chunk) {
                break;
            }
        }
        return Ok(());
    }
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|error| Failure::local("cannot listen for Ctrl-C", error))?;
    let next = async || {
        tokio::select! {
            chunk = bytes.chunk() => Ok(chunk?),
            _ = interrupt.recv() => Err(Failure::Ended(INTERRUPTED)),
        }
    };
    on_a_terminal(next, output::bytes_out).await
}

/// Shows a log piece by piece, made harmless. However it ends, the terminal has its own colours again.
async fn on_a_terminal<B: AsRef<[u8]>>(
    mut next: impl AsyncFnMut() -> Result<Option<B>, Failure>,
    mut show: impl FnMut(&[u8]) -> bool,
) -> Result<(), Failure> {
    let mut harmless = Harmless::default();
    let ended = loop {
        match next().await {
            Ok(Some(chunk)) if show(&harmless.pass(chunk.as_ref())) => {}
            Ok(_) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    show(harmless.end());
    ended
}

/// A guest's address, or what is in the way of one.
pub(crate) fn address(view: &GuestView) -> Result<IpAddr, Failure> {
    let no_address = || {
        let text = format!("guest {} has no address: it is {} {}", view.name, view.state, view.reason);
        Failure::Usage(text.trim_end().to_owned())
    };
    view.ip.ok_or_else(no_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_log_that_breaks_off_leaves_the_terminal_its_own_colours() {
        for (ending, is_well) in [(None, true), (Some(Failure::Ended(INTERRUPTED)), false)] {
            let mut pieces = vec![Ok(Some("a\x1b[31mb"))];
            pieces.push(ending.map_or(Ok(None), Err));
            let mut pieces = pieces.into_iter();
            let mut shown = Vec::new();
            let show = |bytes: &[u8]| {
                shown.extend_from_slice(bytes);
                true
            };
            let ended = on_a_terminal(async || pieces.next().expect("it ends"), show).await;
            assert_eq!(ended.is_ok(), is_well);
            assert_eq!(String::from_utf8(shown).unwrap(), "a\x1b[31mb\x1b[0m");
        }
    }
}
