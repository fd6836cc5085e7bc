//! `haar flavor`: sizes a guest can have.

use std::collections::BTreeMap;

use haar_api::table as t;
use haar_api::v1::{FlavorCreate, FlavorPatch, FlavorView, Ref, Time};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::image::Images;
use super::labels::{self, Label, LabelChanges};
use super::noun::{self, ListWords, Noun};
use super::output;
use super::size::Size;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a flavor
    #[command(
        after_help = "Examples:\n  haar flavor create small --cpu 1 --memory 1g --disk 10g\n  haar flavor create ci --cpu 4 --memory 8GiB --disk 40GiB --image ci"
    )]
    Create(CreateWords),
    /// List flavors
    #[command(after_help = "Examples:\n  haar flavor list")]
    List(ListWords),
    /// Show a flavor
    #[command(after_help = "Examples:\n  haar flavor show small")]
    Show(One),
    /// Change a flavor; its guests keep what they have
    #[command(after_help = "Examples:\n  haar flavor set small --memory 2g\n  haar flavor set ci --no-image")]
    Set(SetWords),
    /// Remove flavors that no guest has
    #[command(after_help = "Examples:\n  haar flavor delete ci")]
    Delete(Several),
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Name, id, or an id's first digits (4 or more)
    flavor: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Several {
    /// Names, ids, or ids' first digits (4 or more)
    #[arg(required = true)]
    flavor: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateWords {
    /// Its name
    name: String,
    /// Virtual CPUs
    #[arg(long)]
    cpu: u32,
    /// Memory, such as 512m or 2g
    #[arg(long, value_name = "SIZE")]
    memory: Size,
    /// Disk, such as 10g
    #[arg(long, value_name = "SIZE")]
    disk: Size,
    /// Image of guests that name none
    #[arg(long)]
    image: Option<String>,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<Label>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetWords {
    /// Name, id, or an id's first digits (4 or more)
    flavor: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// New virtual CPUs
    #[arg(long)]
    cpu: Option<u32>,
    /// New memory
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// New disk
    #[arg(long, value_name = "SIZE")]
    disk: Option<Size>,
    /// New image of guests that name none
    #[arg(long, conflicts_with = "no_image")]
    image: Option<String>,
    /// Have no image
    #[arg(long)]
    no_image: bool,
    #[command(flatten)]
    labels: LabelChanges,
}

/// The noun.
pub(crate) struct Flavors;

impl Noun for Flavors {
    const WORD: &'static str = "flavor";
    const COLUMNS: &'static [&'static str] = &["NAME", "CPU", "MEMORY", "DISK", "IMAGE", "AGE"];
    type View = FlavorView;
    type List = t::FlavorList;

    fn id(view: &FlavorView) -> Uuid {
        view.id.0
    }

    fn name(view: &FlavorView) -> &str {
        view.name.as_str()
    }

    fn labels(view: &FlavorView) -> Option<&BTreeMap<String, String>> {
        Some(&view.metadata)
    }

    fn row(view: &FlavorView, now: Time) -> Vec<String> {
        vec![
            view.name.to_string(),
            view.cpu.to_string(),
            output::mib(view.memory),
            output::mib(view.disk),
            view.image_name.clone().unwrap_or_else(|| "-".to_owned()),
            output::age(view.created_at, now),
        ]
    }

    fn details(view: &FlavorView) -> (String, Vec<(&'static str, String)>) {
        let lines = vec![
            ("cpu", view.cpu.to_string()),
            ("memory", output::mib(view.memory)),
            ("disk", output::mib(view.disk)),
            ("image", view.image_name.clone().unwrap_or_default()),
            ("labels", output::labels(&view.metadata)),
            ("revision", view.revision.to_string()),
            ("made", view.created_at.to_string()),
        ];
        (format!("flavor {}   {}", view.name, view.id), lines)
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(words) => create(context, words).await,
        Verb::List(words) => noun::list_named::<Flavors>(context, words).await,
        Verb::Show(words) => noun::show::<Flavors, t::FlavorShow>(context, &words.flavor).await,
        Verb::Set(words) => set(context, words).await,
        Verb::Delete(words) => {
            noun::delete::<Flavors, t::FlavorShow, t::FlavorDelete>(context, &words.flavor).await
        }
    }
}

async fn create(context: &Context, words: CreateWords) -> Result<(), Failure> {
    let image = noun::resolve_if::<Images>(context, words.image).await?;
    let body = FlavorCreate {
        name: words.name,
        project: context.project.clone(),
        metadata: labels::map(&words.metadata),
        image: image.map(Ref),
        cpu: words.cpu,
        memory: words.memory.0,
        disk: words.disk.0,
    };
    let answered = context.client.request::<t::FlavorPost>(&[]).send(&body).await?;
    noun::said(context, &answered, &line(&answered.value, "made"))
}

async fn set(context: &Context, words: SetWords) -> Result<(), Failure> {
    let read = noun::read::<Flavors, t::FlavorShow>(context, &words.flavor).await?;
    let image = match (noun::resolve_if::<Images>(context, words.image).await?, words.no_image) {
        (Some(image), _) => Some(Some(Ref(image))),
        (None, true) => Some(None),
        (None, false) => None,
    };
    let patch = FlavorPatch {
        name: words.name,
        metadata: words.labels.applied_to(&read.value.metadata),
        image,
        cpu: words.cpu,
        memory: words.memory.map(|size| size.0),
        disk: words.disk.map(|size| size.0),
    };
    let call = context.client.request::<t::FlavorSet>(&[&read.value.id.to_string()]);
    let answered = call.if_match(read.value.revision.to_string()).send(&patch).await?;
    let after = &answered.value;
    let said = if after.revision == read.value.revision {
        noun::changed::<Flavors>(&after.name, read.value.revision, after.revision)
    } else {
        line(after, "changed")
    };
    noun::said(context, &answered, &said)
}

fn line(view: &FlavorView, done: &str) -> String {
    let (memory, disk) = (output::mib(view.memory), output::mib(view.disk));
    format!("flavor {} {done}: {} cpu, {memory} memory, {disk} disk", view.name, view.cpu)
}
