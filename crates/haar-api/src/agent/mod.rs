//! The wire of mistify's agent: its REST structs, and what it sends to and takes from sub-agents
//! (`mistify-wire` §0.3–0.5, §2.5, §2.6, §2.8).
//!
//! Field names, their order and what is left out when empty are the seed's. A guest here is a document that
//! travels: what it carries under the one key `haar`, its own and its disks', is kept as it came, whoever put it
//! there. Images and snapshots are those of [`rpc`](crate::rpc). Deliberately absent: what any of it means; that is the agent's.

pub mod go;
mod guest;
mod job;
mod metrics;
mod request;

pub use guest::{Disk, Guest};
pub use job::{Job, Status, Time};
pub use metrics::{CpuMetrics, DiskMetrics, MetricsRequest, MetricsResponse, NicMetrics};
pub use request::{Fault, GuestRequest, GuestResponse};
