//! The query parameters of `/v1`. Unknown ones are refused, as unknown fields of a body are.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest a request may wait for a job.
pub const MOST_WAIT: Duration = Duration::from_secs(600);
/// The most items of one page.
pub const MOST_LIMIT: u32 = 1000;
/// The items of one page when no limit is given.
pub const DEFAULT_LIMIT: u32 = 100;

/// No parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoQuery {}

/// A time to wait: seconds as `60`, or with a unit as `500ms`, `60s`, `2m`. At most ten minutes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait(pub Duration);

/// A text that is no [`Wait`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time to wait; give seconds such as 60 or 60s, or 500ms, 2m, at most 600s")]
pub struct BadWait(String);

impl std::str::FromStr for Wait {
    type Err = BadWait;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadWait(text.chars().take(40).collect());
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let number: u64 = digits.parse().map_err(|_| bad())?;
        let ms_per_unit = match &text[digits.len()..] {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            _ => return Err(bad()),
        };
        let wait = Duration::from_millis(number.checked_mul(ms_per_unit).ok_or_else(bad)?);
        if wait > MOST_WAIT { Err(bad()) } else { Ok(Wait(wait)) }
    }
}

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = self.0.as_millis();
        if ms.is_multiple_of(1000) { write!(f, "{}s", ms / 1000) } else { write!(f, "{ms}ms") }
    }
}

impl Serialize for Wait {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Wait {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Wait".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m)?$",
            "description": "Seconds, or a number with ms, s or m; at most 600 s."
        })
    }
}

/// Parameters of a plain list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListQuery {
    /// Items per page, 1 to 1000; 100 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the last page said the next one begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only the one of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only those of this project; every project when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

/// Parameters of the guest list. References are ids or names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuestListQuery {
    /// Items per page, 1 to 1000; 100 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the last page said the next one begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only the one of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only those of this project; every project when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Only those on this hypervisor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    /// Only those in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only those of this flavor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<String>,
    /// Only those of this image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Only those in this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// Parameters of the subnet list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubnetListQuery {
    /// Items per page, 1 to 1000; 100 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the last page said the next one begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only the one of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only those of this project; every project when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Only those of this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// Parameters of the job list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JobListQuery {
    /// Items per page, 1 to 1000; 100 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Where the last page said the next one begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Only those of this guest (id or name; of one that is gone, the name it had).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// The project the guest's name is looked up in; `default` when left out. Without effect on an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Only those of this status: `new`, `working`, `done`, `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// Parameters of a path that names one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RefQuery {
    /// The project a name is looked up in; `default` when left out. Without effect on an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

/// Parameters of what begins a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WaitQuery {
    /// How long to wait for the job's end; the answer is 202 when it has not ended by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
}

/// Parameters of what begins a job on a thing the path names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RefWaitQuery {
    /// The project a name is looked up in; `default` when left out. Without effect on an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// How long to wait for the job's end; the answer is 202 when it has not ended by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
}

/// Parameters of a guest's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogQuery {
    /// The project a name is looked up in; `default` when left out. Without effect on an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Bytes of the log's end to begin with; 65536 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Whether the answer goes on with what is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// Parameters of an image's upload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UploadQuery {
    /// The project a name is looked up in; `default` when left out. Without effect on an id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// What the bytes must hash to, lower-case hex; refused with `image_checksum` otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Parameters of the event stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EventsQuery {
    /// Events after this fence (`epoch.revision`) or event id (`epoch.revision.n`); only new ones when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Whether the stream goes on with what is new; it does when left out. With `false` it ends after the newest
    /// event there is when it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
}

/// Parameters of an agent's poll.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FeedQuery {
    /// The fence of the last set seen; everything when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<super::FenceText>,
    /// How long to wait for something new before answering 204.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_has_a_unit_and_a_limit() {
        let parse = |text: &str| text.parse::<Wait>().map(|wait| wait.0);
        assert_eq!(parse("60"), Ok(Duration::from_secs(60)));
        assert_eq!(parse("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "s", "-1", "601", "11m", "1h", "99999999999999999999", "1.5s"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
