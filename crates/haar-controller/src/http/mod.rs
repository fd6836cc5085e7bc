//! HTTP: the route table, what every request goes through, and one file per noun for the rest.
//!
//! ```text
//!  listen ─▶ handle (request id, limits, log) ─▶ routes ─▶ ask (permission, query) ─▶ handler ─▶ reply
//! ```
//!
//! A handler proves, translates, submits, answers; it decides nothing. Deliberately absent: TLS.

pub(crate) mod agent;
pub(crate) mod ask;
pub(crate) mod cloud;
pub(crate) mod event;
pub(crate) mod guest;
pub(crate) mod handle;
pub(crate) mod image;
pub(crate) mod job;
pub(crate) mod listen;
pub(crate) mod noun;
pub(crate) mod open;
pub(crate) mod reply;
pub(crate) mod routes;
pub(crate) mod stream;
pub(crate) mod token;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use haar_api::v1::CheckedView;
use haar_store::Meter;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::engine::Engine;
use crate::images::Images;
use crate::streams::Streams;
use crate::wire::look::Look;

/// What every handler can reach.
pub(crate) struct App {
    /// The engine.
    pub(crate) engine: Engine,
    /// Streams that wait for their agents.
    pub(crate) streams: Streams,
    /// Uploaded images.
    pub(crate) images: Images,
    /// How much of everything is taken.
    pub(crate) limits: Limits,
    /// Set when the controller shall end: whoever waits stops waiting.
    pub(crate) stopping: CancellationToken,
    /// What outlives its request: spliced streams.
    pub(crate) tasks: TaskTracker,
    /// When the controller started.
    pub(crate) started: Instant,
    /// The machine's name.
    pub(crate) host: String,
    /// The last check of the books.
    pub(crate) checked: Mutex<Option<CheckedView>>,
    /// Whoever checks the books holds it.
    pub(crate) checking: tokio::sync::Mutex<()>,
    /// Counts the store's flushes, where it does.
    pub(crate) meter: Option<Arc<Meter>>,
}

impl App {
    /// Looks at the published books; nothing in `look` may wait.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Look<'_>) -> T) -> T {
        self.engine.read(|fleet| look(&Look::new(fleet, &self.engine.liveness)))
    }
}
