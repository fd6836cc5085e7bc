//! Settings of the whole cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fence::{Revision, WallMs};
use crate::id::CloudId;
use crate::units::Overcommit;

/// The one record of cluster settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// Made once at first start.
    pub cloud: CloudId,
    /// Settings by key. Known keys are checked ([`ClusterConfig::KNOWN`]); others are kept for the user.
    pub values: BTreeMap<String, String>,
    /// Last change.
    pub revision: Revision,
    /// Label of the last change.
    pub updated_at: WallMs,
}

impl ClusterConfig {
    /// Keys with a meaning, their default, and what they mean.
    pub const KNOWN: [(&'static str, &'static str, &'static str); 5] = [
        ("overcommit.cpu", "4.0", "virtual CPUs promised per CPU"),
        ("overcommit.memory", "1.0", "memory promised per memory there is"),
        ("overcommit.disk", "1.0", "disk promised per disk there is"),
        ("liveness.ttl_ms", "30000", "silence, in milliseconds, after which a hypervisor counts as silent"),
        ("job.step_ms", "120000", "milliseconds without progress after which a job's step is tried again"),
    ];

    /// Overcommit ratios in force where a hypervisor has none of its own.
    pub fn overcommit(&self) -> Overcommit {
        let ratio =
            |key: &str, default: u32| self.values.get(key).and_then(|v| hundredths(v)).unwrap_or(default);
        Overcommit {
            cpu: ratio("overcommit.cpu", 400),
            memory: ratio("overcommit.memory", 100),
            disk: ratio("overcommit.disk", 100),
        }
    }

    /// Silence in milliseconds that makes a hypervisor `silent`.
    pub fn liveness_ttl_ms(&self) -> u64 {
        self.milliseconds("liveness.ttl_ms", 30_000)
    }

    /// Milliseconds without progress after which a job's step is tried again.
    pub fn job_step_ms(&self) -> u64 {
        self.milliseconds("job.step_ms", 120_000)
    }

    fn milliseconds(&self, key: &str, default: u64) -> u64 {
        self.values.get(key).and_then(|v| v.parse().ok()).unwrap_or(default)
    }
}

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    /// Not a key.
    #[error("the key `{0}` is not usable; use 1 to 128 letters, digits, and the characters _ . / -")]
    Key(String),
    /// Too long.
    #[error("the value of `{key}` has {bytes} bytes; at most 4096 are allowed")]
    TooLong {
        /// The key.
        key: String,
        /// Its value's length.
        bytes: usize,
    },
    /// A known key with a value it cannot have.
    #[error("`{value}` is no value for `{key}`; {want}")]
    Value {
        /// The key.
        key: String,
        /// The value given.
        value: String,
        /// What would do.
        want: &'static str,
    },
}

/// Checks one setting.
///
/// # Errors
/// [`BadSetting`] says what is wrong with it.
pub fn check_setting(key: &str, value: &str) -> Result<(), BadSetting> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    if key.is_empty() || key.len() > 128 || !key.chars().all(plain) {
        return Err(BadSetting::Key(key.chars().take(140).collect()));
    }
    if value.len() > 4096 {
        return Err(BadSetting::TooLong { key: key.to_owned(), bytes: value.len() });
    }
    let want = match key {
        "overcommit.cpu" | "overcommit.memory" | "overcommit.disk" => {
            let fits = hundredths(value).is_some_and(|ratio| (10..=10_000).contains(&ratio));
            (!fits).then_some("give a ratio from 0.1 to 100 with at most two decimals, such as 4.0")
        }
        "liveness.ttl_ms" => out_of_range(value, 1_000, 3_600_000)
            .then_some("give milliseconds from 1000 (a second) to 3600000 (an hour)"),
        "job.step_ms" => out_of_range(value, 1_000, 86_400_000)
            .then_some("give milliseconds from 1000 (a second) to 86400000 (a day)"),
        _ => None,
    };
    match want {
        None => Ok(()),
        Some(want) => Err(BadSetting::Value { key: key.to_owned(), value: value.to_owned(), want }),
    }
}

fn out_of_range(value: &str, least: u64, most: u64) -> bool {
    !value.parse::<u64>().is_ok_and(|number| (least..=most).contains(&number))
}

/// Reads a ratio such as `4`, `4.0` or `1.25` in hundredths, without floating point.
fn hundredths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let padded = format!("{part:0<2}");
    whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(padded.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_read_in_hundredths() {
        assert_eq!(hundredths("4.0"), Some(400));
        assert_eq!(hundredths("1.25"), Some(125));
        assert_eq!(hundredths("2"), Some(200));
        for bad in ["", ".5", "1.234", "-1", "1e3", "x"] {
            assert_eq!(hundredths(bad), None, "{bad}");
        }
    }

    #[test]
    fn known_settings_are_checked_and_others_kept() {
        assert!(check_setting("overcommit.cpu", "0").is_err());
        assert!(check_setting("liveness.ttl_ms", "12").is_err());
        assert!(check_setting("site/contact", "ana").is_ok());
        assert!(check_setting("a b", "x").is_err());
    }
}
