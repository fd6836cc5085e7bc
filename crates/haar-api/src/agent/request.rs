//! What the agent sends to sub-agents and takes from them, and its error body (`mistify-wire` §0.5, §2.6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Guest;
use super::go::{Field, Shape, Wire};
use crate::rpc;

/// Parameters of the guest methods.
#[derive(Debug, Clone, Serialize)]
pub struct GuestRequest<'a> {
    /// The guest as it is when the stage runs.
    pub guest: &'a Guest,
    /// Full action name.
    pub action: &'a str,
    /// The stage's own arguments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: &'a BTreeMap<String, String>,
}

/// Result of the guest methods.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct GuestResponse {
    /// The guest as it now is.
    pub guest: Option<Guest>,
    /// Words for a person.
    pub message: String,
    /// Seconds after which the method wants to be asked again; 0 when it is done.
    pub retry: u32,
}

impl Wire for GuestResponse {
    const SHAPE: Shape =
        Shape::Struct(&[("guest", Guest::SHAPE), ("message", Shape::Any), ("retry", Shape::Any)]);
}

impl Wire for rpc::ImageRequest {
    const SHAPE: Shape = Shape::Struct(&[
        ("id", Shape::Any),
        ("type", Shape::Any),
        ("dest", Shape::Any),
        ("source", Shape::Any),
        ("haar", Shape::Any),
    ]);
}

const IMAGE: &[Field] = &[
    ("id", Shape::Any),
    ("type", Shape::Any),
    ("volume", Shape::Any),
    ("snapshot", Shape::Any),
    ("size", Shape::Any),
    ("status", Shape::Any),
    ("haar", Shape::Any),
];

impl Wire for rpc::ImageResponse {
    const SHAPE: Shape = Shape::Struct(&[("images", Shape::List(&Shape::Struct(IMAGE)))]);
}

impl Wire for rpc::SnapshotRequest {
    const SHAPE: Shape = Shape::Struct(&[
        ("id", Shape::Any),
        ("dest", Shape::Any),
        ("recursive", Shape::Any),
        ("destroyMoreRecent", Shape::Any),
        ("haar", Shape::Any),
    ]);
}

impl Wire for rpc::SnapshotResponse {
    const SHAPE: Shape = Shape::Struct(&[(
        "snapshots",
        Shape::List(&Shape::Struct(&[("id", Shape::Any), ("size", Shape::Any), ("haar", Shape::Any)])),
    )]);
}

/// The full form of the agent's error body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What is wrong and what to do.
    pub message: String,
    /// The HTTP status.
    pub code: u16,
    /// The seed's stack; of ours nothing leaks, the list is empty.
    pub stack: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::go;

    #[test]
    fn requests_have_the_fields_of_the_seed_in_its_order() {
        let request = rpc::SnapshotRequest {
            id: "guests/g".into(),
            dest: "s1".into(),
            ..rpc::SnapshotRequest::default()
        };
        assert_eq!(
            serde_json::to_string(&request).unwrap(),
            r#"{"id":"guests/g","dest":"s1","recursive":false,"destroyMoreRecent":false}"#
        );
        assert_eq!(go::to_vec(&rpc::ImageResponse::default()).unwrap(), b"{\"images\":null}\n");
    }

    #[test]
    fn what_a_sub_agent_leaves_out_is_empty() {
        let answer: GuestResponse = go::from_slice(br#"{"Guest":{"id":"a","nics":null}}"#).unwrap();
        assert_eq!(answer.guest.unwrap().id, "a");
        assert_eq!(go::from_slice::<GuestResponse>(br#"{"guest":null}"#).unwrap().guest, None);
    }
}
