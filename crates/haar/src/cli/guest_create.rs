//! `haar guest create`: says what it guessed, shows how far it is, and ends with one line about what there is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{GuestCreate, GuestView, JobView, Ref, RefQuery, WaitQuery};
use uuid::Uuid;

use super::context::Context;
use super::failure::Failure;
use super::flavor::Flavors;
use super::follow::{self, WaitWords};
use super::fwgroup::FwGroups;
use super::guest::{self, RestartWord};
use super::hypervisor::Hypervisors;
use super::image::Images;
use super::labels::{self, Label};
use super::network::Networks;
use super::subnet::Subnets;
use super::{noun, output};

pub(crate) const EXAMPLES: &str = "Examples:
  haar guest create web --image debian-12 --ssh-key ~/.ssh/id_ed25519.pub
  haar guest create db --flavor large --image debian-12 --address 10.77.0.40 --restart always
  haar guest create ci-7 --image ci --user-data ./ci.yaml --metadata team=ci --no-wait";

/// How long a question may take whose answer is only a remark.
const SIDE_QUESTION: Duration = Duration::from_secs(2);

const DEFAULT_FLAVOR: &str = "small";
const DEFAULT_NETWORK: &str = "default";

#[derive(Debug, clap::Args)]
pub(crate) struct Words {
    /// Its name, and the host name inside
    name: String,
    /// Its size; `small` when left out
    #[arg(long)]
    flavor: Option<String>,
    /// Its image; the flavor's when left out
    #[arg(long)]
    image: Option<String>,
    /// Its network; `default` when left out
    #[arg(long)]
    network: Option<String>,
    /// The subnet its address must come from
    #[arg(long)]
    subnet: Option<String>,
    /// The address it must have
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// The MAC address it must have
    #[arg(long, value_name = "MAC")]
    mac: Option<String>,
    /// Its firewall group
    #[arg(long)]
    fwgroup: Option<String>,
    /// The hypervisor it must be on
    #[arg(long)]
    hypervisor: Option<String>,
    /// A label its hypervisor must have; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    require: Vec<Label>,
    /// A public key, or a file of them, for the first user; may be given several times
    #[arg(long, value_name = "FILE|KEY")]
    ssh_key: Vec<String>,
    /// A file of cloud-init user-data, at most 64 KiB
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// A label; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<Label>,
    /// When it is started again by itself
    #[arg(long, value_enum, default_value = "on-failure")]
    restart: RestartWord,
    /// Make it, but do not start it
    #[arg(long)]
    no_start: bool,
    /// Only say where it could be placed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitWords,
}

pub(crate) async fn run(context: &Context, words: Words) -> Result<(), Failure> {
    let guessed = guesses(&words);
    let (wait, dry_run) = (words.wait, words.dry_run);
    let body = body(context, words).await?;
    if dry_run {
        return candidates(context, &body).await;
    }
    let id = Uuid::new_v4().to_string();
    let call = context.client.request::<t::GuestPut>(&[&id]).query(WaitQuery::default());
    let answered = call.send(&body).await?;
    // Of a guest that is made; a no stands alone.
    if !context.is_json() {
        guessed.iter().for_each(|line| eprintln!("  {line}"));
        say_what_is_not_enforced(context, &body).await;
    }
    let job = answered.value.job.map(|job| job.to_string()).filter(|_| answered.is_under_way());
    let Some(job) = job else {
        return noun::said(context, &answered, &format!("{}   {}", body.name, answered.value.state));
    };
    if wait.no_wait {
        return noun::said(context, &answered, &job);
    }
    let placed = placed(&answered.value);
    let ended = follow::to_the_end(context, &placed, &job, wait.limit()).await?;
    let after = context.client.request::<t::GuestShow>(&[&id]).send(&Nothing).await?;
    noun::said(context, &after, &line(&after.value, &ended))
}

/// `web   placed on lab1   10.77.0.12`.
fn placed(guest: &GuestView) -> String {
    let place = guest.hypervisor_name.as_ref().map(|name| format!("   placed on {name}")).unwrap_or_default();
    let address = guest.ip.map(|ip| format!("   {ip}")).unwrap_or_default();
    format!("{}{place}{address}", guest.name)
}

fn line(guest: &GuestView, job: &JobView) -> String {
    format!("{}   {}   {} after {}", placed(guest), follow::ticks(job), guest.state, guest::took(job))
}

/// What was not said and is taken to be meant.
fn guesses(words: &Words) -> Vec<String> {
    let mut lines = Vec::new();
    let not_given = [("flavor", &words.flavor, DEFAULT_FLAVOR), ("network", &words.network, DEFAULT_NETWORK)];
    let taken: Vec<String> = not_given
        .into_iter()
        .filter(|(_, given, _)| given.is_none())
        .map(|(what, _, default)| format!("{what} `{default}`"))
        .collect();
    if !taken.is_empty() {
        lines.push(format!("taking {}, since none was given", taken.join(" and ")));
    }
    if words.ssh_key.is_empty() && words.user_data.is_none() {
        lines
            .push("no --ssh-key and no --user-data: nobody can log in unless the image lets them".to_owned());
    }
    lines
}

async fn body(context: &Context, words: Words) -> Result<GuestCreate, Failure> {
    let mut ssh_keys = Vec::new();
    for key in &words.ssh_key {
        ssh_keys.extend(read_keys(key)?);
    }
    let user_data = words.user_data.as_deref().map(read_user_data).transpose()?;
    let flavor = words.flavor.unwrap_or_else(|| DEFAULT_FLAVOR.to_owned());
    let network = words.network.unwrap_or_else(|| DEFAULT_NETWORK.to_owned());
    Ok(GuestCreate {
        name: words.name,
        project: context.project.clone(),
        metadata: labels::map(&words.metadata),
        kind: String::new(),
        flavor: Ref(noun::resolve::<Flavors>(context, &flavor).await?),
        image: noun::resolve_if::<Images>(context, words.image).await?.map(Ref),
        network: Ref(noun::resolve::<Networks>(context, &network).await?),
        subnet: noun::resolve_if::<Subnets>(context, words.subnet).await?.map(Ref),
        ip: words.address,
        fwgroup: noun::resolve_if::<FwGroups>(context, words.fwgroup).await?.map(Ref),
        mac: words.mac,
        hypervisor: noun::resolve_if::<Hypervisors>(context, words.hypervisor).await?.map(Ref),
        require: labels::map(&words.require),
        restart: words.restart.into(),
        ssh_keys,
        user_data,
        start: !words.no_start,
    })
}

fn read_user_data(path: &Path) -> Result<String, Failure> {
    let unreadable = |error| Failure::local(format!("cannot read {}", path.display()), error);
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Keys from a word that is one, or from a file of them.
fn read_keys(word: &str) -> Result<Vec<String>, Failure> {
    if looks_like_key(word) {
        return Ok(vec![word.trim().to_owned()]);
    }
    let unreadable = |error| {
        Failure::local(format!("`{word}` is no public key, and no file of them can be read there"), error)
    };
    keys_in(&std::fs::read_to_string(word).map_err(unreadable)?, word)
}

fn keys_in(text: &str, file: &str) -> Result<Vec<String>, Failure> {
    if text.contains("PRIVATE KEY") {
        return Err(Failure::Usage(format!(
            "{file} is a private key; give the public one, usually {file}.pub"
        )));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    if let Some(bad) = keys.iter().find(|key| !looks_like_key(key)) {
        let beginning: String = bad.chars().take(30).collect();
        return Err(Failure::Usage(format!("{file} has a line that is no public key: {beginning}")));
    }
    if keys.is_empty() {
        return Err(Failure::Usage(format!("{file} has no public key in it")));
    }
    Ok(keys)
}

fn looks_like_key(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let kind = words.next().unwrap_or_default();
    ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| kind.starts_with(start))
        && words.next().is_some()
}

/// The guest is made by now: whatever becomes of this question, it is no failure of that.
async fn say_what_is_not_enforced(context: &Context, body: &GuestCreate) {
    let Some(fwgroup) = &body.fwgroup else { return };
    let query = RefQuery { project: context.project.clone() };
    let call =
        context.client.request::<t::FwGroupShow>(&[fwgroup.as_str()]).query(query).limit(SIDE_QUESTION);
    if call.send(&Nothing).await.is_ok_and(|answered| !answered.value.enforced) {
        eprintln!("  firewall group `{fwgroup}` is stored but not in force yet");
    }
}

async fn candidates(context: &Context, body: &GuestCreate) -> Result<(), Failure> {
    let answered = context.client.request::<t::Candidates>(&[]).send(body).await?;
    if context.is_json() {
        return output::json_bytes(&answered.body);
    }
    let rows = answered.value.items.iter().map(|candidate| {
        let fits = if candidate.fits { "yes" } else { "no" };
        let why = if candidate.fits { &candidate.score } else { &candidate.detail };
        let cause = candidate.cause.clone().unwrap_or_default();
        vec![candidate.hypervisor_name.clone(), fits.to_owned(), cause, why.clone()]
    });
    output::out(&output::table(&["HYPERVISOR", "FITS", "CAUSE", ""], rows.collect(), output::colours()));
    if answered.value.items.iter().any(|candidate| candidate.fits) { Ok(()) } else { Err(Failure::Said) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA ana@lab";

    #[test]
    fn keys_are_words_or_lines_of_a_file() {
        assert_eq!(read_keys(KEY).unwrap(), [KEY]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        std::fs::write(&file, format!("# mine\n{KEY}\n\n{KEY}2\n")).unwrap();
        assert_eq!(read_keys(file.to_str().unwrap()).unwrap(), [KEY.to_owned(), format!("{KEY}2")]);
    }

    #[test]
    fn a_private_key_never_leaves_the_machine() {
        let error = keys_in("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", "id").unwrap_err();
        assert!(matches!(error, Failure::Usage(text) if text.contains("id.pub")));
    }

    #[test]
    fn what_is_no_key_is_refused_before_anything_is_asked() {
        assert!(keys_in("hello world\n", "f").is_err());
        assert!(keys_in("\n# nothing\n", "f").is_err());
        assert_eq!(read_keys("/nonexistent/key.pub").unwrap_err().code(), 1);
    }
}
