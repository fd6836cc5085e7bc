//! What every noun shares: references, times, fences, resources and the list envelope.
//!
//! Input names things by [`Ref`] (id or name); output always gives the id and beside it the name.
//! Input is text where a bad value deserves its own error code (names, addresses): the server translates
//! and refuses with the core's words; nothing is checked here.

use haar_core::fence::{BadFence, Fence};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A thing named by its id or by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Ref(pub String);

/// What a [`Ref`] turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference<'a> {
    /// An id.
    Id(Uuid),
    /// A name; names are never UUIDs, so the two cannot be confused.
    Name(&'a str),
}

impl Ref {
    /// Tells ids from names.
    pub fn read(&self) -> Reference<'_> {
        match Uuid::try_parse(&self.0) {
            Ok(id) => Reference::Id(id),
            Err(_) => Reference::Name(&self.0),
        }
    }

    /// The text as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Ref {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Ref {
    fn from(text: &str) -> Ref {
        Ref(text.to_owned())
    }
}

impl From<String> for Ref {
    fn from(text: String) -> Ref {
        Ref(text)
    }
}

impl From<Uuid> for Ref {
    fn from(id: Uuid) -> Ref {
        Ref(id.to_string())
    }
}

/// A moment, as RFC 3339 text in UTC with milliseconds. A label for people: nothing is decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(jiff::Timestamp);

impl Time {
    /// From milliseconds since the Unix epoch; what lies outside the calendar becomes its nearest end.
    pub fn from_ms(ms: i64) -> Time {
        let nearest = if ms < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Time(jiff::Timestamp::from_millisecond(ms).unwrap_or(nearest))
    }

    /// In milliseconds since the Unix epoch.
    pub fn as_ms(self) -> i64 {
        self.0.as_millisecond()
    }
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl std::str::FromStr for Time {
    type Err = jiff::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Time)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "description": "RFC 3339, UTC."})
    }
}

/// A fence as the text `epoch.revision`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FenceText(pub Fence);

impl std::fmt::Display for FenceText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for FenceText {
    type Err = BadFence;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(FenceText)
    }
}

impl From<Fence> for FenceText {
    fn from(fence: Fence) -> FenceText {
        FenceText(fence)
    }
}

impl Serialize for FenceText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FenceText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for FenceText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fence".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+\\.[0-9]+$",
            "description": "epoch.revision: the fleet's counter; a restore begins a new epoch."
        })
    }
}

/// One page of a list, in id order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "List_of_{T}")]
pub struct List<T> {
    /// The page.
    pub items: Vec<T>,
    /// Give it as `?cursor=` for the next page; null on the last one.
    pub next_cursor: Option<String>,
    /// The fleet's fence the page was read at; give it to `/v1/events?since=` to hear what came after.
    pub revision: FenceText,
}

/// What a guest takes and a hypervisor has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResourcesView {
    /// Virtual CPUs.
    pub cpu: u64,
    /// MiB of memory.
    pub memory: u64,
    /// MiB of disk.
    pub disk: u64,
}

impl From<haar_core::units::Resources> for ResourcesView {
    fn from(resources: haar_core::units::Resources) -> Self {
        ResourcesView { cpu: u64::from(resources.cpu), memory: resources.memory.0, disk: resources.disk.0 }
    }
}

/// Keeps the difference between a field left out (`None`: leave it) and null (`Some(None)`: clear it).
pub(crate) fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// A field that can be left out, and cannot be cleared: null is refused instead of being taken for nothing.
pub(crate) fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_an_id_or_a_name() {
        let id = Uuid::from_u128(7);
        assert_eq!(Ref::from(id).read(), Reference::Id(id));
        assert_eq!(Ref::from("web").read(), Reference::Name("web"));
    }

    #[test]
    fn a_time_is_written_with_milliseconds_and_read_back() {
        let time = Time::from_ms(1_700_000_000_120);
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2023-11-14T22:13:20.120Z\"");
        assert_eq!(serde_json::from_str::<Time>("\"2023-11-14T22:13:20.120Z\"").unwrap(), time);
        assert!(serde_json::from_str::<Time>("\"yesterday\"").is_err());
    }

    #[test]
    fn a_fence_is_two_numbers_and_a_dot() {
        let fence = FenceText(Fence::new(2, 17));
        assert_eq!(serde_json::to_string(&fence).unwrap(), "\"2.17\"");
        assert_eq!(serde_json::from_str::<FenceText>("\"2.17\"").unwrap(), fence);
        assert!(serde_json::from_str::<FenceText>("\"17\"").is_err());
    }
}
