//! A job of the agent's log, with the seed's capitalised keys (`mistify-wire` §2.8).

use haar_core::fence::WallMs;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Job {
    /// UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// The guest's UUID, or `agent` for work on images.
    #[serde(rename = "GuestID")]
    pub guest_id: String,
    /// Full action name, such as `containerCreate`.
    pub action: String,
    /// When it was asked for.
    pub queued_at: Time,
    /// When its first stage began.
    pub started_at: Time,
    /// When anything of it last changed.
    pub updated_at: Time,
    /// How far it is.
    pub status: Status,
    /// Why it failed, else empty.
    pub message: String,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// It waits.
    Queued,
    /// Its stages are under way.
    Running,
    /// It ended well.
    Complete,
    /// It did not.
    Error,
}

impl Status {
    /// Whether nothing more happens to it.
    pub fn has_ended(self) -> bool {
        matches!(self, Status::Complete | Status::Error)
    }
}

/// A time that may not have come yet: then it is written as the seed's zero time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Option<WallMs>);

const ZERO: &str = "0001-01-01T00:00:00Z";

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = self.0.and_then(|time| jiff::Timestamp::from_millisecond(time.0).ok());
        match time {
            Some(time) => serializer.collect_str(&time),
            None => serializer.serialize_str(ZERO),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == ZERO {
            return Ok(Time(None));
        }
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Time(Some(WallMs(time.as_millisecond()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_capitalised_and_what_has_not_come_is_the_zero_time() {
        let job = Job {
            id: "a".into(),
            guest_id: "agent".into(),
            action: "fetchImage".into(),
            queued_at: Time(Some(WallMs(1_430_000_000_250))),
            started_at: Time(None),
            updated_at: Time(Some(WallMs(1_430_000_000_000))),
            status: Status::Queued,
            message: String::new(),
        };
        let written = serde_json::to_string(&job).unwrap();
        assert_eq!(
            written,
            r#"{"ID":"a","GuestID":"agent","Action":"fetchImage","QueuedAt":"2015-04-25T22:13:20.25Z","StartedAt":"0001-01-01T00:00:00Z","UpdatedAt":"2015-04-25T22:13:20Z","Status":"Queued","Message":""}"#
        );
        assert_eq!(serde_json::from_str::<Job>(&written).unwrap(), job);
    }
}
