//! `haar image import`: a file is uploaded with a bar; an address is pinned by its hash and fetched by the
//! hypervisors. The format is told by the name's ending or by `--format`, and is never guessed from the bytes.

use std::path::Path;
use std::time::Duration;

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{ImageCreate, ImageFormat, ImageView, UploadQuery};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::context::Context;
use super::failure::Failure;
use super::image::FormatWord;
use super::labels::{self, Label};
use super::{noun, output};

pub(crate) const EXAMPLES: &str = "Examples:
  haar image import debian-12 ./debian-12-genericcloud-amd64.qcow2
  haar image import alpine ./alpine.img --format raw
  haar image import debian-12 https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-genericcloud-amd64.qcow2 --sha256 5f3c…";

/// The controller may hash and look at an image for so long after its last byte.
const STANDSTILL: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(crate) struct Words {
    /// The image's name
    name: String,
    /// A file on this machine, or an http(s) address
    #[arg(value_name = "FILE|URL")]
    source: String,
    /// How the bytes are laid out; told by the name's ending when left out
    #[arg(long, value_enum)]
    format: Option<FormatWord>,
    /// What the bytes must hash to; needed with an address
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<Label>,
}

pub(crate) async fn run(context: &Context, words: Words) -> Result<(), Failure> {
    let format = match words.format {
        Some(format) => ImageFormat::from(format),
        None => {
            let format = format_of(&words.source)?;
            if !context.is_json() {
                eprintln!("  taking it for {}, as its name ends", format.as_str());
            }
            format
        }
    };
    let is_address = ["http://", "https://", "file://"].iter().any(|start| words.source.starts_with(start));
    if is_address {
        from_address(context, words, format).await
    } else {
        from_file(context, words, format).await
    }
}

/// The format a name's ending tells.
fn format_of(source: &str) -> Result<ImageFormat, Failure> {
    let path = source.split(['?', '#']).next().unwrap_or(source);
    let ending = Path::new(path).extension().and_then(|ending| ending.to_str()).map(str::to_lowercase);
    match ending.as_deref() {
        Some("qcow2") => Ok(ImageFormat::Qcow2),
        Some("raw") => Ok(ImageFormat::Raw),
        // What qemu-img calls them is not always their ending.
        Some(other @ ("vmdk" | "vdi" | "vhdx" | "vhd")) => Err(Failure::Usage(format!(
            "{source} is called {other}, which Haar does not take; make it qcow2 and import that:  \
             qemu-img convert -f {} -O qcow2 {} {}",
            if other == "vhd" { "vpc" } else { other },
            output::quoted(source),
            output::quoted(&format!("{}.qcow2", Path::new(path).with_extension("").display()))
        ))),
        _ => Err(Failure::Usage(format!(
            "the name of {source} does not tell its format; say --format qcow2 or --format raw \
             (`qemu-img info` shows which)"
        ))),
    }
}

fn body(context: &Context, words: &Words, format: ImageFormat) -> ImageCreate {
    ImageCreate {
        name: words.name.clone(),
        project: context.project.clone(),
        metadata: labels::map(&words.metadata),
        format,
        url: None,
        sha256: None,
    }
}

async fn from_address(context: &Context, words: Words, format: ImageFormat) -> Result<(), Failure> {
    let Some(sha256) = words.sha256.clone() else {
        return Err(Failure::Usage(
            "an address needs --sha256, since what is not pinned cannot be verified; its publisher lists it, \
             often as SHA256SUMS"
                .to_owned(),
        ));
    };
    let body = ImageCreate {
        url: Some(words.source.clone()),
        sha256: Some(sha256),
        ..body(context, &words, format)
    };
    let answered = context.client.request::<t::ImagePost>(&[]).send(&body).await?;
    let line = format!("{}  {}, fetched by each hypervisor when it needs it", body.name, format.as_str());
    noun::said(context, &answered, &line)
}

async fn from_file(context: &Context, words: Words, format: ImageFormat) -> Result<(), Failure> {
    let unreadable = |error| Failure::local(format!("cannot read {}", words.source), error);
    let file = tokio::fs::File::open(&words.source).await.map_err(unreadable)?;
    let metadata = file.metadata().await.map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Failure::Usage(format!("{} is no file", words.source)));
    }
    let (image, made) = make_or_take_up(context, &words, format).await?;
    let id = image.id.to_string();
    let bar = progress_bar(&words.name, metadata.len(), output::bars() && !context.is_json());
    let shown = bar.clone();
    let query = UploadQuery { sha256: words.sha256.clone(), ..UploadQuery::default() };
    let call = context.client.request::<t::ImageUpload>(&[&id]).query(query).limit(STANDSTILL);
    let uploaded = call.upload(file, metadata.len(), move |bytes| shown.set_position(bytes)).await;
    bar.finish_and_clear();
    let answered = match uploaded {
        Ok(answered) => answered,
        Err(error) => {
            if made && error.problem().is_some() {
                // The record would only be in the way of the next try; the upload's own no is what counts.
                let _ = context.client.request::<t::ImageDelete>(&[&id]).send_only(&Nothing).await;
            }
            return Err(error.into());
        }
    };
    noun::said(context, &answered, &line(&answered.value))
}

/// Makes the record; one of the name that still waits for its bytes is taken up again.
async fn make_or_take_up(
    context: &Context,
    words: &Words,
    format: ImageFormat,
) -> Result<(ImageView, bool), Failure> {
    let made = context.client.request::<t::ImagePost>(&[]).send(&body(context, words, format)).await;
    let error = match made {
        Ok(answered) => return Ok((answered.value, true)),
        Err(error) => error,
    };
    if error.problem().is_some_and(|problem| problem.code == "name_taken") {
        let call = context.client.request::<t::ImageShow>(&[&words.name]).query(noun::in_project(context));
        let existing = call.send(&Nothing).await?.value;
        if existing.state == "empty" && existing.format == format && existing.url.is_none() {
            return Ok((existing, false));
        }
    }
    Err(error.into())
}

fn line(image: &ImageView) -> String {
    let size =
        image.virtual_bytes.map(|bytes| format!(", {} virtual", output::bytes(bytes))).unwrap_or_default();
    let hash = image.sha256.as_deref().map(output::short_hash).unwrap_or_default();
    format!("{}  {}{size}, sha256 {hash}", image.name, image.format.as_str())
}

fn progress_bar(name: &str, length: u64, shown: bool) -> ProgressBar {
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(
        "  {msg}  uploading {bar:20} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let style = style.progress_chars("█░");
    let bar = ProgressBar::with_draw_target(Some(length), target).with_style(style);
    bar.set_message(name.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_told_by_the_names_ending_or_not_at_all() {
        assert_eq!(format_of("./a.QCOW2").unwrap(), ImageFormat::Qcow2);
        assert_eq!(format_of("http://x/a.raw?token=1.qcow2").unwrap(), ImageFormat::Raw);
        assert_eq!(format_of("ubuntu.img").unwrap_err().code(), 2);
        assert_eq!(format_of("noending").unwrap_err().code(), 2);
        let foreign = format_of("./my disk.vhd").unwrap_err().text();
        assert!(
            foreign.ends_with("qemu-img convert -f vpc -O qcow2 './my disk.vhd' './my disk.qcow2'\n"),
            "{foreign}"
        );
    }
}
