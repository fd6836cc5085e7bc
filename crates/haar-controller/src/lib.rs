//! The controller's shell: HTTP, auth, the engine loop, feed, events.
//!
//! [`start`] takes a data folder and an address and serves `/v1` until told to stop. What may be decided is
//! in `haar-core`; what travels is in `haar-api`; here decisions are made durable and told.
//!
//! ```text
//!  http ──▶ wire (translate) ──▶ engine (decide → commit → apply → act) ──▶ haar-store
//!    ▲                              │
//!    └── published fleet, wakes, events
//! ```
//!
//! Deliberately absent: TLS (so only loopback is listened on), several controllers, agents that cannot dial.

pub mod auth;
pub mod config;
mod engine;
pub mod events;
pub mod folder;
pub mod founding;
mod http;
mod images;
mod liveness;
mod metrics;
pub mod records;
mod start;
mod streams;
mod wire;

pub use config::{AdminToken, Config, Limits};
pub use engine::{LoadError, OnFatal};
pub use founding::Bootstrap;
pub use http::listen::ListenError;
pub use start::{Error, Running, start};
