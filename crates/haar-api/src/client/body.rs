//! What the client sends: nothing, JSON, or a reader with its progress.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use super::error::ClientError;

/// The body of a request.
pub struct Sent(Kind);

enum Kind {
    Empty,
    Json(Option<Bytes>),
    Reader { left: u64, chunks: BoxStream<'static, Result<Bytes, io::Error>> },
}

/// The reader of an upload failed.
#[derive(Debug, thiserror::Error)]
#[error("what was to be sent could not be read")]
pub struct Unreadable(#[source] pub(super) io::Error);

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match &self.0 {
            Kind::Empty => "empty",
            Kind::Json(_) => "json",
            Kind::Reader { .. } => "reader",
        };
        f.debug_tuple("Sent").field(&kind).finish()
    }
}

impl Sent {
    pub(super) fn empty() -> Sent {
        Sent(Kind::Empty)
    }

    pub(super) fn json(bytes: Vec<u8>) -> Sent {
        Sent(Kind::Json(Some(Bytes::from(bytes))))
    }

    /// Exactly `length` bytes of a reader; fewer or more of them is an error.
    pub(super) fn reader<R>(
        reader: R,
        length: u64,
        mut progress: impl FnMut(u64) + Send + 'static,
    ) -> (Sent, Activity)
    where
        R: AsyncRead + Send + 'static,
    {
        let activity = Activity::default();
        let sent = activity.clone();
        let chunks = ReaderStream::with_capacity(reader, 256 * 1024).map(move |chunk| {
            if let Ok(chunk) = &chunk {
                let so_far = sent.0.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
                progress(so_far);
            }
            chunk
        });
        (Sent(Kind::Reader { left: length, chunks: chunks.boxed() }), activity)
    }

    pub(super) fn media(&self) -> Option<&'static str> {
        match self.0 {
            Kind::Empty => None,
            Kind::Json(_) => Some("application/json"),
            Kind::Reader { .. } => Some("application/octet-stream"),
        }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Unreadable;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unreadable>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Json(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Reader { left, chunks } => {
                let Poll::Ready(chunk) = chunks.poll_next_unpin(context) else { return Poll::Pending };
                Poll::Ready(match chunk {
                    None if *left == 0 => None,
                    None => Some(Err(changed("it became shorter while it was read"))),
                    Some(Err(error)) => Some(Err(Unreadable(error))),
                    Some(Ok(chunk)) => match left.checked_sub(chunk.len() as u64) {
                        None => Some(Err(changed("it became longer while it was read"))),
                        Some(rest) => {
                            *left = rest;
                            Some(Ok(Frame::data(chunk)))
                        }
                    },
                })
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Kind::Empty => 0,
            Kind::Json(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Kind::Reader { left, .. } => *left,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Kind::Empty | Kind::Json(None))
    }
}

fn changed(what: &str) -> Unreadable {
    Unreadable(io::Error::other(what))
}

/// Bytes sent so far, shared with whoever watches for a standstill.
#[derive(Debug, Clone, Default)]
pub(super) struct Activity(Arc<AtomicU64>);

impl Activity {
    /// Gives up once nothing was sent for `limit` and no answer has come.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        exchange: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let mut exchange = std::pin::pin!(exchange);
        let mut before = 0;
        loop {
            if let Ok(ended) = tokio::time::timeout(limit, exchange.as_mut()).await {
                return ended;
            }
            let now = self.0.load(Ordering::Relaxed);
            if now == before {
                return Err(ClientError::Timeout(limit));
            }
            before = now;
        }
    }
}
