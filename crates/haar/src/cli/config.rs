//! `haar config`: settings of the whole cloud.

use haar_api::client::Answered;
use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1::{ConfigPatch, ConfigView};
use haar_core::name::errors;

use super::context::Context;
use super::failure::Failure;
use super::labels::Label;
use super::output;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Show the settings, and those that could be set
    #[command(visible_alias = "list", after_help = "Examples:\n  haar config show")]
    Show,
    /// Set keys; those of your own begin with a word of your own, as site/ does
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
            let shown = context.client.request::<t::ConfigShow>(&[]).send(&Nothing).await?;
            let known: Vec<&str> = shown.value.known.iter().map(|setting| setting.key.as_str()).collect();
            // A key that is kept already is no slip, wherever it came from.
            let is_new = |key: &str| !shown.value.values.contains_key(key);
            let list = context.hint("config show");
            for setting in words.setting.iter().filter(|setting| is_new(&setting.key)) {
                refuse_slip(&setting.key, &known, &list)?;
            }
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

/// The controller keeps keys it does not know, for its user. One that is nearly a known key, or begins as known ones
/// do, is a slip of the finger: it would be kept and do nothing.
fn refuse_slip(key: &str, known: &[&str], list: &str) -> Result<(), Failure> {
    if known.contains(&key) {
        return Ok(());
    }
    let beginning = |key: &str| key.split_once('.').map(|(beginning, _)| beginning.to_owned());
    let is_reserved =
        beginning(key).is_some() && known.iter().any(|known| beginning(known) == beginning(key));
    let closest = known.iter().map(|known| (errors(key.as_bytes(), known.as_bytes()), *known)).min();
    match closest {
        Some((errors, closest)) if errors <= SLIPS || is_reserved => Err(Failure::Usage(format!(
            "there is no setting `{key}`; did you mean `{closest}`? `{list}` lists them, and a key of your own begins \
             with a word of your own, such as site/contact"
        ))),
        _ => Ok(()),
    }
}

/// The most typing errors by which a slip differs from what was meant.
const SLIPS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["overcommit.cpu", "overcommit.memory", "liveness.ttl_ms"];

    #[test]
    fn a_slip_is_refused_with_what_was_meant() {
        for (slip, meant) in [
            ("overcommit.cpuu", "overcommit.cpu"),
            ("overcomit.cpu", "overcommit.cpu"),
            ("overcommit.ram", "overcommit.cpu"),
            ("overcommit.memry", "overcommit.memory"),
            ("livenes.ttl-ms", "liveness.ttl_ms"),
        ] {
            let failure = refuse_slip(slip, &KNOWN, "haar config show").unwrap_err();
            assert_eq!(failure.code(), 2);
            assert!(failure.text().contains(&format!("did you mean `{meant}`?")), "{}", failure.text());
        }
        for own in ["site/contact", "overcommit.cpu", "site.owner", "contact"] {
            assert!(refuse_slip(own, &KNOWN, "").is_ok(), "{own}");
        }
        assert!(refuse_slip("anything", &[], "").is_ok());
    }
}
