//! HTTP: the route table, what every request goes through, and one file per noun for the rest.
//!
//! ```text
//!  listen ─▶ handle (request id, limits, log) ─▶ routes ─▶ ask (permission, query) ─▶ handler ─▶ reply
//! ```
//!
//! A handler proves, translates, submits, answers; it decides nothing. Deliberately absent: TLS.

pub(crate) mod agent;
pub(crate) mod ask;
pub(crate) mod body;
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

use haar_api::problem::ErrorCode;
use haar_api::v1::CheckedView;
use haar_core::id::TokenId;
use haar_store::Meter;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::reply::No;
use crate::auth::Unknown;
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
    /// Tells those who hold something open to look whether their token is still there.
    pub(crate) token_check: Notify,
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

    /// Whether the books still have this token.
    ///
    /// # Errors
    /// `unauthorized`, as its next request would be told.
    pub(crate) fn check_token(&self, token: TokenId) -> Result<(), No> {
        let known = self.engine.read(|fleet| fleet.token(token).is_some());
        if known { Ok(()) } else { Err(No::of(ErrorCode::Unauthorized, Unknown::NotKnown.to_string())) }
    }

    /// Ends once the books no longer have this token. What lasts longer than a moment ends with it.
    pub(crate) async fn until_revoked(&self, token: TokenId) {
        loop {
            let told = self.token_check.notified();
            tokio::pin!(told);
            // Enabled before looking: a token that goes in between is not missed.
            told.as_mut().enable();
            if self.check_token(token).is_err() {
                return;
            }
            told.await;
        }
    }
}
