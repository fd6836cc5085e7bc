//! What is measured of a guest (`mistify-wire` §2.5, §2.6). Times are seconds with fractions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Guest;
use super::go::{self, Field, Shape, Wire};

/// CPU time of one CPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuMetrics {
    /// Seconds.
    #[serde(serialize_with = "go::float")]
    pub cpu_time: f64,
    /// Seconds spent in the guest.
    #[serde(serialize_with = "go::float")]
    pub vcpu_time: f64,
}

/// Counters of one disk; times in seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names say it all")]
pub struct DiskMetrics {
    pub disk: String,
    pub read_ops: i64,
    pub read_bytes: i64,
    #[serde(serialize_with = "go::float")]
    pub read_time: f64,
    pub write_ops: i64,
    pub write_bytes: i64,
    #[serde(serialize_with = "go::float")]
    pub write_time: f64,
    pub flush_ops: i64,
    #[serde(serialize_with = "go::float")]
    pub flush_time: f64,
}

/// Counters of one network interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names say it all")]
pub struct NicMetrics {
    pub name: String,
    pub rx_bytes: i64,
    pub rx_packets: i64,
    pub rx_errors: i64,
    pub rx_drops: i64,
    pub tx_bytes: i64,
    pub tx_packets: i64,
    pub tx_errors: i64,
    pub tx_drops: i64,
}

/// Parameters of the metrics methods.
#[derive(Debug, Clone, Serialize)]
pub struct MetricsRequest<'a> {
    /// Of whom.
    pub guest: &'a Guest,
    /// `cpu`, `nic` or `disk`.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// The stage's own arguments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: &'a BTreeMap<String, String>,
}

/// Result of the metrics methods.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct MetricsResponse {
    /// By device.
    pub disk: Option<BTreeMap<String, DiskMetrics>>,
    /// By name.
    pub nic: Option<BTreeMap<String, NicMetrics>>,
    /// By CPU.
    pub cpu: Option<Vec<CpuMetrics>>,
}

const CPU: &[Field] = &[("cpu_time", Shape::Any), ("vcpu_time", Shape::Any)];
const DISK: &[Field] = &[
    ("disk", Shape::Any),
    ("read_ops", Shape::Any),
    ("read_bytes", Shape::Any),
    ("read_time", Shape::Any),
    ("write_ops", Shape::Any),
    ("write_bytes", Shape::Any),
    ("write_time", Shape::Any),
    ("flush_ops", Shape::Any),
    ("flush_time", Shape::Any),
];
const NIC: &[Field] = &[
    ("name", Shape::Any),
    ("rx_bytes", Shape::Any),
    ("rx_packets", Shape::Any),
    ("rx_errors", Shape::Any),
    ("rx_drops", Shape::Any),
    ("tx_bytes", Shape::Any),
    ("tx_packets", Shape::Any),
    ("tx_errors", Shape::Any),
    ("tx_drops", Shape::Any),
];

impl Wire for MetricsResponse {
    const SHAPE: Shape = Shape::Struct(&[
        ("disk", Shape::Map(&Shape::Struct(DISK))),
        ("nic", Shape::Map(&Shape::Struct(NIC))),
        ("cpu", Shape::List(&Shape::Struct(CPU))),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_have_no_point() {
        let metrics = CpuMetrics { cpu_time: 12.0, vcpu_time: 0.25 };
        assert_eq!(serde_json::to_string(&metrics).unwrap(), r#"{"cpu_time":12,"vcpu_time":0.25}"#);
    }
}
