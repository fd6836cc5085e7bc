//! `haar config`: settings of the whole cloud.

use haar_api::client::Answered;
use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{ConfigPatch, ConfigView};

use super::context::Context;
use super::failure::Failure;
use super::labels::Label;
use super::output;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show the settings, and those that could be set
    #[command(visible_alias = "list", after_help = "Examples:\n  haar config show")]
    Show,
    /// Set keys
    #[command(
        after_help = "Examples:\n  haar config set overcommit.cpu=6.0\n  haar config set site/contact=ana"
    )]
    Set(SetWords),
    /// Remove keys; known ones return to their default
    #[command(after_help = "Examples:\n  haar config delete overcommit.cpu")]
    Delete(DeleteWords),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetWords {
    /// What to set
    #[arg(required = true, value_name = "KEY=VALUE")]
    setting: Vec<Label>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeleteWords {
    /// Which keys
    #[arg(required = true)]
    key: Vec<String>,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let patch = match verb {
        Verb::Show => {
            let answered = context.client.request::<t::ConfigShow>(&[]).send(&Nothing).await?;
            return print(context, &answered);
        }
        Verb::Set(words) => {
            let values = words.setting.into_iter().map(|label| (label.key, Some(label.value)));
            ConfigPatch { values: values.collect() }
        }
        Verb::Delete(words) => ConfigPatch { values: words.key.into_iter().map(|key| (key, None)).collect() },
    };
    let answered = context.client.request::<t::ConfigSet>(&[]).send(&patch).await?;
    print(context, &answered)
}

fn print(context: &Context, answered: &Answered<ConfigView>) -> Result<(), Failure> {
    if context.is_json() {
        return output::json_bytes(&answered.body);
    }
    output::out(&output::table(&["KEY", "VALUE", ""], rows(&answered.value), output::colours()));
    Ok(())
}

/// The known keys first, then the user's own.
fn rows(view: &ConfigView) -> Vec<Vec<String>> {
    let known = view.known.iter().map(|setting| {
        let remark = if view.values.contains_key(&setting.key) {
            format!("{} (default {})", setting.meaning, setting.default)
        } else {
            format!("{} (not set: the default)", setting.meaning)
        };
        vec![setting.key.clone(), setting.value.clone(), remark]
    });
    let is_known = |key: &str| view.known.iter().any(|setting| setting.key == key);
    let own = view.values.iter().filter(|(key, _)| !is_known(key));
    known.chain(own.map(|(key, value)| vec![key.clone(), value.clone(), String::new()])).collect()
}
