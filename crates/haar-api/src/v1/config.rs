//! Cluster settings on `/v1`.

use std::collections::BTreeMap;

use haar_core::id::CloudId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::common::Time;

/// Changes to the settings: a value sets its key, null or an empty value removes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigPatch {
    /// Keys that change; the others stay.
    pub values: BTreeMap<String, Option<String>>,
}

/// The cluster's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigView {
    /// The cloud's id, made once at first start.
    #[schemars(with = "Uuid")]
    pub cloud: CloudId,
    /// What is set.
    pub values: BTreeMap<String, String>,
    /// Keys with a meaning, set or not.
    pub known: Vec<SettingView>,
    /// Last change; the ETag.
    pub revision: u64,
    /// When it last changed.
    pub updated_at: Time,
}

/// A key with a meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingView {
    /// The key.
    pub key: String,
    /// The value in force.
    pub value: String,
    /// What it is when not set.
    pub default: String,
    /// What it means.
    pub meaning: String,
}
