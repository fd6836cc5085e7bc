//! A guest as mistify's agent keeps and serves it (`mistify-wire` §2.5).
//!
//! The same fields as [`rpc::Guest`], but that `haar` of the guest and of its disks is any object and is kept
//! whole: an agent passes on what it does not understand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::go::{Field, Shape, Wire};
use crate::rpc;

/// A guest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guest {
    /// UUID.
    pub id: String,
    /// `container` for a container; anything else is a virtual machine.
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Network interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<rpc::Nic>,
    /// Disks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// `create`, `error`, or what a sub-agent says (§2.9).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// MiB.
    #[serde(skip_serializing_if = "is_zero")]
    pub memory: u64,
    /// Virtual CPUs.
    #[serde(skip_serializing_if = "is_zero_cpu")]
    pub cpu: u32,
    /// VNC port, 0 for none.
    #[serde(skip_serializing_if = "is_zero_cpu")]
    pub vnc: u32,
    /// Free labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What is not of the seed.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub haar: Map<String, Value>,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// `virtio` and the like.
    pub bus: String,
    /// `vda`, `vdb`, …
    pub device: String,
    /// MiB.
    pub size: u64,
    /// The back end's name of it.
    pub volume: String,
    /// Image it is cloned from.
    pub image: String,
    /// Path on the host.
    pub source: String,
    /// What is not of the seed.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub haar: Map<String, Value>,
}

impl Guest {
    /// Whether its actions are those of containers.
    pub fn is_container(&self) -> bool {
        self.kind == "container"
    }
}

const NIC: &[Field] = &[
    ("name", Shape::Any),
    ("network", Shape::Any),
    ("model", Shape::Any),
    ("mac", Shape::Any),
    ("address", Shape::Any),
    ("netmask", Shape::Any),
    ("gateway", Shape::Any),
    ("device", Shape::Any),
    ("vlans", Shape::Any),
    ("haar", Shape::Any),
];
const DISK: &[Field] = &[
    ("bus", Shape::Any),
    ("device", Shape::Any),
    ("size", Shape::Any),
    ("volume", Shape::Any),
    ("image", Shape::Any),
    ("source", Shape::Any),
    ("haar", Shape::Any),
];

impl Wire for Guest {
    const SHAPE: Shape = Shape::Struct(&[
        ("id", Shape::Any),
        ("type", Shape::Any),
        ("image", Shape::Any),
        ("nics", Shape::List(&Shape::Struct(NIC))),
        ("disks", Shape::List(&Shape::Struct(DISK))),
        ("state", Shape::Any),
        ("memory", Shape::Any),
        ("cpu", Shape::Any),
        ("vnc", Shape::Any),
        ("metadata", Shape::Texts),
        ("haar", Shape::Any),
    ]);
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_zero_cpu(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::go;

    #[test]
    fn an_empty_guest_has_an_id_only_and_lists_of_a_nic_may_be_null() {
        assert_eq!(go::to_vec(&Guest::default()).unwrap(), b"{\"id\":\"\"}\n");
        let nic = rpc::Nic::default();
        let written = serde_json::to_string(&nic).unwrap();
        assert_eq!(
            written,
            r#"{"network":"","model":"","address":"","netmask":"","gateway":"","vlans":null}"#
        );
    }

    #[test]
    fn what_is_not_of_the_seed_is_kept_below_haar_and_dropped_elsewhere() {
        let text =
            br#"{"id":"a","colour":"red","disks":[{"haar":{"format":"raw"}}],"haar":{"x":[1,{"y":2}]}}"#;
        let guest: Guest = go::from_slice(text).unwrap();
        let written = serde_json::to_value(&guest).unwrap();
        assert_eq!(written["haar"]["x"][1]["y"], 2);
        assert_eq!(written["disks"][0]["haar"]["format"], "raw");
        assert_eq!(written.get("colour"), None);
    }
}
