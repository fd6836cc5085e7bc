//! `haar image`: what guests' disks are cloned from.

use std::collections::BTreeMap;

use haar_api::table as t;
use haar_api::v1::{ImageCreate, ImageFormat, ImagePatch, ImageView, Time};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::labels::{self, Label, LabelChanges};
use super::noun::{self, ListWords, Noun};
use super::{import, output};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Make an image from a file, or from an address with a pinned hash
    #[command(after_help = import::EXAMPLES)]
    Import(import::Words),
    /// Make an image's record only; its bytes are uploaded or fetched later
    #[command(
        after_help = "Examples:\n  haar image create debian-12 --format qcow2\n  haar image create alpine --format raw --from http://mirror/alpine.raw --sha256 5f3c…"
    )]
    Create(CreateWords),
    /// List images
    #[command(after_help = "Examples:\n  haar image list")]
    List(ListWords),
    /// Show an image
    #[command(after_help = "Examples:\n  haar image show debian-12")]
    Show(One),
    /// Change an image's name or labels
    #[command(after_help = "Examples:\n  haar image set debian-12 --name debian-12-old")]
    Set(SetWords),
    /// Remove images that nothing names
    #[command(after_help = "Examples:\n  haar image delete debian-11")]
    Delete(Several),
}

#[derive(Debug, clap::Args)]
pub(crate) struct One {
    /// Name, id, or an id's first digits (4 or more)
    image: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Several {
    /// Names, ids, or ids' first digits (4 or more)
    #[arg(required = true)]
    image: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateWords {
    /// Its name
    name: String,
    /// How the bytes are laid out
    #[arg(long, value_enum)]
    format: FormatWord,
    /// Where hypervisors fetch it
    #[arg(long, requires = "sha256", value_name = "URL")]
    from: Option<String>,
    /// What the bytes there hash to
    #[arg(long, requires = "from", value_name = "HEX")]
    sha256: Option<String>,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<Label>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetWords {
    /// Name, id, or an id's first digits (4 or more)
    image: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    labels: LabelChanges,
}

/// How an image's bytes are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FormatWord {
    /// QEMU's copy-on-write format
    Qcow2,
    /// The disk's bytes as they are
    Raw,
}

impl From<FormatWord> for ImageFormat {
    fn from(word: FormatWord) -> ImageFormat {
        match word {
            FormatWord::Qcow2 => ImageFormat::Qcow2,
            FormatWord::Raw => ImageFormat::Raw,
        }
    }
}

/// The noun.
pub(crate) struct Images;

impl Noun for Images {
    const WORD: &'static str = "image";
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STATE", "FORMAT", "SIZE", "FILE", "SHA256", "FROM", "AGE"];
    type View = ImageView;
    type List = t::ImageList;

    fn id(view: &ImageView) -> Uuid {
        view.id.0
    }

    fn name(view: &ImageView) -> &str {
        view.name.as_str()
    }

    fn labels(view: &ImageView) -> Option<&BTreeMap<String, String>> {
        Some(&view.metadata)
    }

    fn row(view: &ImageView, now: Time) -> Vec<String> {
        let amount = |bytes: Option<u64>| bytes.map_or("-".to_owned(), output::bytes);
        vec![
            view.name.to_string(),
            view.state.clone(),
            view.format.as_str().to_owned(),
            amount(view.virtual_bytes),
            amount(view.file_bytes),
            view.sha256.as_deref().map_or("-".to_owned(), output::short_hash),
            view.url.clone().unwrap_or_else(|| "upload".to_owned()),
            output::age(view.created_at, now),
        ]
    }

    fn details(view: &ImageView) -> (String, Vec<(&'static str, String)>) {
        let lines = vec![
            ("state", view.state.clone()),
            ("format", view.format.as_str().to_owned()),
            ("size", view.virtual_bytes.map(output::bytes).unwrap_or_default()),
            ("file", view.file_bytes.map(output::bytes).unwrap_or_default()),
            ("sha256", view.sha256.clone().unwrap_or_default()),
            ("from", view.url.clone().unwrap_or_else(|| "upload".to_owned())),
            ("labels", output::labels(&view.metadata)),
            ("revision", view.revision.to_string()),
            ("made", view.created_at.to_string()),
        ];
        (format!("image {}   {}", view.name, view.id), lines)
    }
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Import(words) => import::run(context, words).await,
        Verb::Create(words) => create(context, words).await,
        Verb::List(words) => noun::list_named::<Images>(context, words).await,
        Verb::Show(words) => noun::show::<Images, t::ImageShow>(context, &words.image).await,
        Verb::Set(words) => set(context, words).await,
        Verb::Delete(words) => {
            noun::delete::<Images, t::ImageShow, t::ImageDelete>(context, &words.image).await
        }
    }
}

async fn create(context: &Context, words: CreateWords) -> Result<(), Failure> {
    let body = ImageCreate {
        name: words.name,
        project: context.project.clone(),
        metadata: labels::map(&words.metadata),
        format: words.format.into(),
        url: words.from,
        sha256: words.sha256,
    };
    let answered = context.client.request::<t::ImagePost>(&[]).send(&body).await?;
    let view = &answered.value;
    let next = match view.url {
        Some(_) => "each hypervisor fetches it when it needs it".to_owned(),
        None => {
            format!("upload its bytes:  {}", context.hint(&format!("image import {} FILE", view.name)))
        }
    };
    noun::said(context, &answered, &format!("image {} made; {next}", view.name))
}

async fn set(context: &Context, words: SetWords) -> Result<(), Failure> {
    let read = noun::read::<Images, t::ImageShow>(context, &words.image).await?;
    let patch = ImagePatch { name: words.name, metadata: words.labels.applied_to(&read.value.metadata) };
    let call = context.client.request::<t::ImageSet>(&[&read.value.id.to_string()]);
    let answered = call.if_match(read.value.revision.to_string()).send(&patch).await?;
    let after = &answered.value;
    noun::said(context, &answered, &noun::changed::<Images>(&after.name, read.value.revision, after.revision))
}
