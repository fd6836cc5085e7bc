//! `GET /v1/events`: what changes, as server-sent events.
//!
//! Each follower reads from its own place in the ring; nothing is queued for it. One that is slower than
//! the ring is told `resync` and its stream ends, as does every stream when the controller does, and a
//! follower's own when its token is removed. One that was not to follow is told `end` once it has heard all, so
//! that a stream that only broke off is known for one.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use haar_api::problem::{ErrorCode, Problem};
use haar_api::table::EventStream;
use haar_core::id::TokenId;
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use tokio::sync::watch;

use super::App;
use super::ask::Ask;
use super::reply::{No, Reply, text};
use crate::engine::chain;
use crate::events::{self, Event, EventId, Ring};

/// Events sent at once.
const BATCH: usize = 64;
/// After so long without an event a comment shows that the stream lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /v1/events`. `Last-Event-ID`, which a browser sends when it comes back, goes before `?since=`.
pub(crate) async fn follow(ask: Ask<EventStream>) -> Reply {
    let last = ask.headers.get("last-event-id").and_then(|value| value.to_str().ok().map(str::to_owned));
    let app = ask.app;
    // Taken before the beginning is looked for, so that what is already there is told in any case.
    let end = app.engine.events.ring().end;
    let end = (ask.query.follow == Some(false)).then_some(end);
    let next = match last.or(ask.query.since) {
        None => app.engine.events.ring().end,
        Some(since) => {
            let since: EventId = since.parse().map_err(|error: events::BadEventId| {
                No::of(ErrorCode::BadQuery, error.to_string()).about("since")
            })?;
            let shared = app.engine.shared();
            let find = move || {
                let fence = shared.read(haar_core::fleet::Fleet::fence);
                shared.events.after(since, fence)
            };
            tokio::task::spawn_blocking(find).await.unwrap_or(Err(events::Error::Resync))?
        }
    };
    let follower = Follower {
        ring: app.engine.events.watch(),
        app,
        token: ask.who.token,
        next,
        end,
        state: State::Open,
    };
    let frames = stream::unfold(follower, |mut follower| async move {
        let frame = follower.next_frame().await?;
        Some((Ok::<Bytes, Infallible>(frame), follower))
    });
    let mut response = text(StatusCode::OK, "text/event-stream", Body::from_stream(frames));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Follower {
    app: Arc<App>,
    ring: watch::Receiver<Ring>,
    token: TokenId,
    next: u64,
    /// The first event that is not told any more; none when it follows.
    end: Option<u64>,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Nothing was sent yet: the first frame opens the stream at once.
    Open,
    Following,
    Ended,
}

impl Follower {
    async fn next_frame(&mut self) -> Option<Bytes> {
        match self.state {
            State::Ended => return None,
            State::Open => {
                self.state = State::Following;
                return Some(Bytes::from_static(b": following\n\n"));
            }
            State::Following => {}
        }
        loop {
            if self.end.is_some_and(|end| self.next >= end) {
                self.state = State::Ended;
                return Some(Bytes::from_static(b"event: end\ndata: {}\n\n"));
            }
            // Seen before reading: what comes after the read is a change.
            self.ring.mark_unchanged();
            let read = self.read().await;
            // Looked at last, so that nothing is told that came after the token's end.
            self.app.check_token(self.token).ok()?;
            match read {
                Ok(events) if !events.is_empty() => return Some(self.frame(&events)),
                Ok(_) => {}
                Err(error) => return Some(self.end(&error)),
            }
            tokio::select! {
                changed = self.ring.changed() => changed.ok()?,
                () = tokio::time::sleep(KEEP_ALIVE) => return Some(Bytes::from_static(b": alive\n\n")),
                () = self.app.stopping.cancelled() => return None,
                () = self.app.until_revoked(self.token) => return None,
            }
        }
    }

    async fn read(&self) -> Result<Vec<(u64, Arc<Event>)>, events::Error> {
        let (shared, next) = (self.app.engine.shared(), self.next);
        let read = move || shared.events.read(next, BATCH);
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(events::Error::Resync))
    }

    fn frame(&mut self, events: &[(u64, Arc<Event>)]) -> Bytes {
        let mut text = String::new();
        for (sequence, event) in
            events.iter().filter(|(sequence, _)| self.end.is_none_or(|end| *sequence < end))
        {
            self.next = sequence + 1;
            // Writing into a string does not fail.
            let _ = write!(text, "id: {}\nevent: change\ndata: {}\n\n", event.id, event.data.get());
        }
        text.into()
    }

    fn end(&mut self, error: &events::Error) -> Bytes {
        self.state = State::Ended;
        let No(problem) = No::from_events(error);
        let data = serde_json::to_string(&*problem).unwrap_or_default();
        format!("event: resync\ndata: {data}\n\n").into()
    }
}

impl No {
    fn from_events(error: &events::Error) -> No {
        let code = match error {
            events::Error::Resync => ErrorCode::Resync,
            events::Error::Store(_) | events::Error::Bad(_) => {
                tracing::error!(error = %chain(error), "stored events cannot be read");
                ErrorCode::NotReady
            }
        };
        let message = match error {
            events::Error::Bad(_) => "the stored events cannot be read; list again, then follow".to_owned(),
            other => other.to_string(),
        };
        No(Box::new(Problem::of(code, message)))
    }
}

impl From<events::Error> for No {
    fn from(error: events::Error) -> No {
        No::from_events(&error)
    }
}
