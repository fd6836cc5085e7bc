//! The hypervisor's shell: pulls its desired set, keeps the ledger, calls sub-agents, makes the host's network.
//!
//! The node's brain (`haar_core::node`) decides; everything here makes its decisions durable and carries
//! them out. Guests run on without it.
//!
//! ```text
//!   controller ◀──link──▶ engine (Node, ledger) ──effects──▶ stages ──▶ sub-agents, seed disks, bridges
//!                           ▲                                  │
//!                           └──────── ended, observed ◀────────┘
//! ```

mod call;
mod claim;
pub mod config;
mod engine;
pub mod hand;
pub mod ledger;
pub mod link;
pub mod local;
pub mod net;
mod observe;
mod rest;
mod run;
pub mod seed;
mod stages;
mod stir;
mod streams;
pub mod supervise;
mod sweep;

pub use call::Patience;
pub use config::Config;
pub use hand::Hand;
pub use rest::Error as RestError;
pub use run::{Error, HostNetwork, Parts, Running, start, start_with};
