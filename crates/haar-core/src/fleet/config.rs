//! Settings of the whole cluster, and the epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::Record;
use super::command::{Decided, Outcome};
use super::draft::{Draft, bad_field, is_current};
use crate::config::{ClusterConfig, check_setting};
use crate::fence::{Fence, Revision};
use crate::id::Kind;
use crate::name::Name;

/// Settings kept at most.
const MOST_SETTINGS: usize = 256;

pub(super) fn set(
    mut draft: Draft<'_>,
    values: &BTreeMap<String, String>,
    if_match: Option<Revision>,
) -> Decided {
    let present = &draft.fleet.config;
    is_current(Kind::Config, &Name::default_project(), present.revision, if_match)?;
    let mut changed = ClusterConfig::clone(present);
    for (key, value) in values {
        if value.is_empty() {
            changed.values.remove(key);
            continue;
        }
        check_setting(key, value)?;
        changed.values.insert(key.clone(), value.clone());
    }
    if changed.values.len() > MOST_SETTINGS {
        return Err(bad_field("values", format!("at most {MOST_SETTINGS} settings are kept")));
    }
    let cloud = changed.cloud.0;
    if changed.values != present.values {
        changed.revision = draft.revision();
        changed.updated_at = draft.env.wall;
        draft.put(Record::Config(Arc::new(changed)));
    }
    Ok(draft.finish_as_it_is(Kind::Config, cloud))
}

/// How far ahead of the books an agent's epoch may be: each restore of a backup is one. What claims more is
/// damaged or lies, and would use up the numbers.
const MOST_EPOCHS_AHEAD: u64 = 64;

/// A new epoch begins, the next one with `least` 0, else at least this one, unless the books have it: what hypervisors told in an earlier one no longer counts as all they hold.
/// The revision goes on counting, so that a fence never comes back.
pub(super) fn begin_epoch(mut draft: Draft<'_>, least: u64) -> Decided {
    let present = draft.fleet.fence.epoch;
    if least > present.saturating_add(MOST_EPOCHS_AHEAD) {
        let problem = format!(
            "epoch {least} is far beyond the books' {present}; the agent's ledger is damaged: stop it, move the ledger away and start it anew"
        );
        return Err(bad_field("fence", problem));
    }
    if least != 0 && least <= present {
        let cloud = draft.fleet.config.cloud.0;
        return Ok(draft.finish_as_it_is(Kind::Config, cloud));
    }
    let epoch = least.max(present + 1);
    draft.fence = Fence::new(epoch, draft.fleet.fence.revision + 1);
    let config = ClusterConfig { updated_at: draft.env.wall, ..ClusterConfig::clone(&draft.fleet.config) };
    let cloud = config.cloud.0;
    draft.put(Record::Config(Arc::new(config)));
    Ok(draft.finish(Kind::Config, cloud, Outcome::Changed, None))
}
