//! Cluster settings: core ⇄ wire.

use haar_api::v1::{ConfigPatch, ConfigView, SettingView};
use haar_core::config::ClusterConfig;
use haar_core::fence::Revision;
use haar_core::fleet::command::Command;

use super::time;

/// As shown.
pub(crate) fn view(config: &ClusterConfig) -> ConfigView {
    let known = ClusterConfig::KNOWN.into_iter().map(|(key, default, meaning)| SettingView {
        key: key.to_owned(),
        value: config.values.get(key).map_or(default, String::as_str).to_owned(),
        default: default.to_owned(),
        meaning: meaning.to_owned(),
    });
    ConfigView {
        cloud: config.cloud,
        values: config.values.clone(),
        known: known.collect(),
        revision: config.revision,
        updated_at: time(config.updated_at),
    }
}

/// The command that changes settings; an empty value removes its key.
pub(crate) fn set(patch: ConfigPatch, if_match: Option<Revision>) -> Command {
    let values = patch.values.into_iter().map(|(key, value)| (key, value.unwrap_or_default()));
    Command::SetConfig(values.collect(), if_match)
}
