//! Names and ids of what there is, asked of the controller for a value that names something.

use std::time::Duration;

use super::walk::{Candidate, Wanted};
use crate::cli::Global;
use crate::cli::context::Context;
use crate::cli::credentials::{self, Credentials};
use crate::cli::failure::Failure;
use crate::cli::flavor::Flavors;
use crate::cli::fwgroup::FwGroups;
use crate::cli::guest::Guests;
use crate::cli::hypervisor::Hypervisors;
use crate::cli::image::Images;
use crate::cli::job::Jobs;
use crate::cli::network::Networks;
use crate::cli::noun::{self, Noun, Paged as _};
use crate::cli::output::{self, Format};
use crate::cli::subnet::Subnets;
use crate::cli::token::Tokens;
use haar_api::endpoint::Endpoint;

/// Nobody waits longer for a tab.
const LIMIT: Duration = Duration::from_secs(2);

/// Every candidate for the last word.
pub(super) fn of(wanted: &Wanted) -> Vec<Candidate> {
    let mut all = wanted.fixed.clone();
    let Some(value) = wanted.value.as_deref() else { return all };
    let (value, suffix) = value.split_once('=').map_or((value, ""), |(before, _)| (before, "="));
    let known = match value {
        "CLOUD" => clouds(),
        _ => ask(wanted, value).unwrap_or_default(),
    };
    let fits = known.into_iter().filter(|candidate| candidate.word.starts_with(&wanted.typed));
    all.extend(fits.map(|candidate| Candidate {
        word: format!("{}{}{suffix}", wanted.before, candidate.word),
        help: candidate.help,
    }));
    all
}

fn clouds() -> Vec<Candidate> {
    let path = credentials::path().ok();
    let saved = path.and_then(|path| Credentials::load(&path).ok()).unwrap_or_default();
    saved.clouds.into_iter().map(|(word, cloud)| Candidate { word, help: cloud.url }).collect()
}

fn ask(wanted: &Wanted, value: &str) -> Option<Vec<Candidate>> {
    let said = |name: &str, variable: &str| {
        wanted.given(name).or_else(|| std::env::var(variable).ok().filter(|value| !value.is_empty()))
    };
    let global = Global {
        url: said("url", "HAAR_URL"),
        cloud: said("cloud", "HAAR_CLOUD"),
        project: said("project", "HAAR_PROJECT"),
        output: Format::Table,
    };
    let typed = &wanted.typed;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let asked = runtime.block_on(async {
        let context = Context::connect(global).ok()?;
        tokio::time::timeout(LIMIT, named(&context, value, typed)).await.ok()?.ok()
    });
    runtime.shutdown_background();
    asked
}

async fn named(context: &Context, value: &str, typed: &str) -> Result<Vec<Candidate>, Failure> {
    match value {
        "GUEST" => of_noun::<Guests>(context, typed).await,
        "IMAGE" => of_noun::<Images>(context, typed).await,
        "FLAVOR" => of_noun::<Flavors>(context, typed).await,
        "NETWORK" => of_noun::<Networks>(context, typed).await,
        "SUBNET" => of_noun::<Subnets>(context, typed).await,
        "FWGROUP" => of_noun::<FwGroups>(context, typed).await,
        "HYPERVISOR" => of_noun::<Hypervisors>(context, typed).await,
        "TOKEN" => of_noun::<Tokens>(context, typed).await,
        "JOB" => of_noun::<Jobs>(context, typed).await,
        _ => Ok(Vec::new()),
    }
}

/// Names; ids too once something is typed that only an id begins with, or where there are no names.
async fn of_noun<N: Noun>(context: &Context, typed: &str) -> Result<Vec<Candidate>, Failure> {
    let query = <N::List as Endpoint>::Query::default().in_project(context.project.clone());
    let (views, _) = noun::pages::<N>(context, query).await?;
    let mut all = Vec::new();
    for view in &views {
        let id = N::id(view);
        match N::name(view) {
            "" => {
                let (title, _) = N::details(view);
                all.push(Candidate { word: output::short_id(id), help: title });
            }
            name => {
                all.push(Candidate { word: name.to_owned(), help: output::short_id(id) });
                if !typed.is_empty() {
                    all.push(Candidate { word: id.to_string(), help: name.to_owned() });
                }
            }
        }
    }
    Ok(all)
}
