//! What the command line itself makes of a list: which labels it takes, whether it shows them, and what it says of a
//! project that nothing is in.

use std::collections::{BTreeMap, BTreeSet};

use haar_api::endpoint::{Endpoint, Nothing};

use super::context::Context;
use super::failure::Failure;
use super::flavor::Flavors;
use super::fwgroup::FwGroups;
use super::guest::Guests;
use super::hypervisor::Hypervisors;
use super::image::Images;
use super::network::Networks;
use super::noun::{self, Noun, Paged as _};
use super::output;
use super::subnet::Subnets;

/// Words about labels.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LabelWords {
    /// Only those with this label, a key alone with any value; of several, all
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Show the labels too
    #[arg(long)]
    show_labels: bool,
}

impl LabelWords {
    /// Whether something with these labels is listed. What has none at all is, unless labels are asked for.
    pub(crate) fn keep(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.label.iter().all(|wanted| {
            let value = |key: &str| labels.and_then(|labels| labels.get(key));
            match wanted.split_once('=') {
                Some((key, wanted)) => value(key).is_some_and(|value| value == wanted),
                None => value(wanted).is_some(),
            }
        })
    }

    /// The columns, with that of the labels before the remark.
    pub(crate) fn columns(&self, columns: &[&'static str]) -> Vec<&'static str> {
        let mut columns = columns.to_vec();
        if self.show_labels {
            columns.insert(before_remark(&columns), "LABELS");
        }
        columns
    }

    /// A row of such columns.
    pub(crate) fn row<N: Noun>(&self, view: &N::View, mut row: Vec<String>) -> Vec<String> {
        if self.show_labels {
            let labels = N::labels(view).map(output::labels).filter(|labels| !labels.is_empty());
            row.insert(before_remark(N::COLUMNS), labels.unwrap_or_else(|| "-".to_owned()));
        }
        row
    }

    /// What is said where nothing is listed; `narrowed` tells that more than the project was asked for.
    pub(crate) async fn nothing<N: Noun>(&self, context: &Context, narrowed: bool) -> String {
        let none = if narrowed { "no such" } else { "no" };
        let project = context.project.as_deref().filter(|_| N::IN_PROJECTS);
        let place = project.map(|project| format!(" in project {project}")).unwrap_or_default();
        let plain = format!("{none} {}s{place}{}", N::WORD, self.words());
        let Some(project) = project else { return plain };
        // The remark is worth less than the list: where it cannot be made, the list is empty all the same.
        match unknown_project(context, project).await {
            Ok(Some(known)) => {
                format!("no {}s: nothing at all is in a project `{project}`; there is {known}", N::WORD)
            }
            Ok(None) | Err(_) => plain,
        }
    }

    fn words(&self) -> String {
        if self.label.is_empty() { String::new() } else { format!(" with label {}", self.label.join(", ")) }
    }
}

fn before_remark(columns: &[&str]) -> usize {
    columns.len() - usize::from(columns.last() == Some(&""))
}

/// The projects there are, when nothing is in this one. It costs one thing of each noun until there is one, and the
/// lists only when there is none.
async fn unknown_project(context: &Context, project: &str) -> Result<Option<String>, Failure> {
    // The nouns a project most likely has come first.
    let has_any = has_one::<Guests>(context, project).await?
        || has_one::<Images>(context, project).await?
        || has_one::<Flavors>(context, project).await?
        || has_one::<Networks>(context, project).await?
        || has_one::<Subnets>(context, project).await?
        || has_one::<FwGroups>(context, project).await?
        || has_one::<Hypervisors>(context, project).await?;
    if has_any {
        return Ok(None);
    }
    Ok(Some(projects(context).await?.into_iter().collect::<Vec<_>>().join(", ")))
}

async fn has_one<N: Noun>(context: &Context, project: &str) -> Result<bool, Failure> {
    let query = <N::List as Endpoint>::Query::default().in_project(Some(project.to_owned())).one();
    let answered = context.client.request::<N::List>(&[]).query(query).send(&Nothing).await?;
    Ok(!answered.value.items.is_empty())
}

/// The projects that something is in.
async fn projects(context: &Context) -> Result<BTreeSet<String>, Failure> {
    let mut known = BTreeSet::new();
    known.extend(projects_of::<Hypervisors>(context).await?);
    known.extend(projects_of::<Flavors>(context).await?);
    known.extend(projects_of::<Networks>(context).await?);
    known.extend(projects_of::<Subnets>(context).await?);
    known.extend(projects_of::<FwGroups>(context).await?);
    known.extend(projects_of::<Images>(context).await?);
    known.extend(projects_of::<Guests>(context).await?);
    Ok(known)
}

async fn projects_of<N: Noun>(context: &Context) -> Result<BTreeSet<String>, Failure> {
    let (_, document) = noun::pages::<N>(context, <N::List as Endpoint>::Query::default()).await?;
    let items = document["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(items.iter().filter_map(|item| item["project"].as_str().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_narrowed_to_what_has_all_labels() {
        let labels =
            BTreeMap::from([("team".to_owned(), "web".to_owned()), ("old".to_owned(), String::new())]);
        let keeps = |wanted: &[&str]| {
            let label = wanted.iter().map(|text| (*text).to_owned()).collect();
            LabelWords { label, show_labels: false }.keep(Some(&labels))
        };
        assert!(keeps(&[]) && keeps(&["team"]) && keeps(&["team=web", "old"]) && keeps(&["old="]));
        assert!(!keeps(&["team=db"]) && !keeps(&["team", "new"]) && !keeps(&["team="]));
        assert!(!LabelWords { label: vec!["a".to_owned()], show_labels: false }.keep(None));
    }

    #[test]
    fn labels_stand_before_the_remark() {
        let shown = LabelWords { label: Vec::new(), show_labels: true };
        assert_eq!(shown.columns(&["NAME", "AGE", ""]), ["NAME", "AGE", "LABELS", ""]);
        assert_eq!(shown.columns(&["NAME", "AGE"]), ["NAME", "AGE", "LABELS"]);
        assert_eq!(LabelWords::default().columns(&["NAME", ""]), ["NAME", ""]);
    }
}
