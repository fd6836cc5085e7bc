//! One open channel with its place on a connection.
//!
//! Promises: the place goes back only when the server has closed the channel, for until then it counts; a
//! session that is dropped is closed in the background. Deliberately absent: what is said on it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::pool::Place;

/// How long the server may take to close a channel that has nothing more to say.
const CLOSING: Duration = Duration::from_secs(10);

/// An open channel.
pub(crate) struct Session {
    parts: Option<Parts>,
}

struct Parts {
    read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    place: Place,
    is_closed: bool,
    /// Whether there is anything in it that ends by itself.
    is_used: bool,
    /// Cancelled when it is closed.
    closed: CancellationToken,
}

/// Has it noted, when dropped, that a session is being closed, which may be in the hands of another task.
pub(crate) struct Leaving {
    connection: Weak<Connection>,
    closed: CancellationToken,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.upgrade() {
            connection.closing(self.closed.clone());
        }
    }
}

impl Session {
    pub(crate) fn new(channel: Channel<Msg>, place: Place) -> Self {
        let (read, write) = channel.split();
        let closed = CancellationToken::new();
        Self { parts: Some(Parts { read, write, place, is_closed: false, is_used: false, closed }) }
    }

    /// For who drops something that has this session.
    pub(crate) fn leaving(&mut self) -> Leaving {
        let parts = self.parts();
        Leaving { connection: Arc::downgrade(parts.place.connection()), closed: parts.closed.clone() }
    }

    fn parts(&mut self) -> &mut Parts {
        self.parts.as_mut().expect("the parts leave only when the session is dropped")
    }

    /// What the server says next; `None` when the connection is lost. After
    /// [`ChannelMsg::Close`] nothing follows. Can be dropped at any time without losing a message.
    pub(crate) async fn next(&mut self) -> Option<ChannelMsg> {
        let parts = self.parts();
        let message = parts.read.wait().await;
        parts.is_closed |= matches!(message, None | Some(ChannelMsg::Close));
        message
    }

    /// Whether the server has closed it, or the connection is lost.
    pub(crate) fn is_closed(&self) -> bool {
        self.parts.as_ref().is_none_or(|parts| parts.is_closed)
    }

    /// The half to write to.
    pub(crate) fn write(&mut self) -> &ChannelWriteHalf<Msg> {
        let parts = self.parts();
        parts.is_used = true;
        &parts.write
    }

    /// The server has refused to put anything in it.
    pub(crate) fn stayed_empty(&mut self) {
        self.parts().is_used = false;
    }

    /// Why the connection was lost, if it was.
    pub(crate) fn why_lost(&mut self) -> String {
        self.parts().place.connection().why_lost()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else { return };
        if parts.is_closed {
            parts.closed.cancel();
            return;
        }
        // Without a runtime there is no connection any more either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            parts.place.connection().closing(parts.closed.clone());
            runtime.spawn(async move {
                let _closed = parts.closed.clone().drop_guard();
                parts.close().await;
            });
        }
    }
}

impl Parts {
    /// Ends a channel, the gentle way if there is something in it: the library forgets one that we close first
    /// before the server has closed it too, and the server keeps counting it while its process runs.
    async fn close(mut self) {
        if self.is_used {
            let _ = self.write.eof().await;
            let ended = async { while !matches!(self.read.wait().await, None | Some(ChannelMsg::Close)) {} };
            if timeout(CLOSING, ended).await.is_ok() {
                return;
            }
        }
        let _ = self.write.close().await;
        // Once this is answered the server has closed it too, or had done so before.
        let _ = self.place.connection().barrier().await;
        if !self.was_closed_by_the_server().await {
            self.place.connection().closed_by_us();
        }
    }

    async fn was_closed_by_the_server(&mut self) -> bool {
        loop {
            match timeout(Duration::ZERO, self.read.wait()).await {
                Ok(None | Some(ChannelMsg::Close)) => return true,
                Ok(Some(_)) => {}
                Err(_) => return false,
            }
        }
    }
}

/// How a stream ended that we did not end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The server ended just this one.
    ByServer,
    /// The connection was lost, for this reason.
    Lost(String),
}

/// A session as a stream of bytes, for sftp and for tunnels.
pub(crate) struct Tunnel {
    ended: Arc<OnceLock<Ended>>,
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    reading: Reading,
    rest: Bytes,
}

type NextMessage = Pin<Box<dyn Future<Output = (Session, Option<ChannelMsg>)> + Send>>;

enum Reading {
    Waiting(NextMessage),
    Ended,
}

impl Tunnel {
    pub(crate) fn new(mut session: Session) -> Self {
        let writer = Box::pin(session.write().make_writer());
        let ended = Arc::default();
        Self { ended, writer, reading: Reading::Waiting(next_message(session)), rest: Bytes::new() }
    }

    /// Tells, for as long as anybody asks, how it ended, if it has.
    pub(crate) fn ended(&self) -> Arc<OnceLock<Ended>> {
        Arc::clone(&self.ended)
    }
}

fn next_message(mut session: Session) -> NextMessage {
    Box::pin(async move {
        let message = session.next().await;
        (session, message)
    })
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.rest.is_empty() {
                let length = self.rest.len().min(buffer.remaining());
                buffer.put_slice(&self.rest[..length]);
                self.rest.advance(length);
                return Poll::Ready(Ok(()));
            }
            let Reading::Waiting(next) = &mut self.reading else { return Poll::Ready(Ok(())) };
            let (mut session, message) = std::task::ready!(next.as_mut().poll(context));
            match message {
                Some(ChannelMsg::Data { data }) => self.rest = data,
                Some(ChannelMsg::Eof | ChannelMsg::Close) | None => {
                    let ended = match message {
                        Some(_) => Ended::ByServer,
                        None => Ended::Lost(session.why_lost()),
                    };
                    let _ = self.ended.set(ended);
                    // Dropping the session here waits for its close in the background.
                    self.reading = Reading::Ended;
                    drop(session);
                    continue;
                }
                Some(_) => {}
            }
            self.reading = Reading::Waiting(next_message(session));
        }
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.reading, Reading::Ended) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let outcome = std::task::ready!(self.writer.as_mut().poll_write(context, bytes));
        if let Err(error) = &outcome {
            // What the server has closed can be written to for as long as the connection is there.
            let _ = self.ended.set(Ended::Lost(error.to_string()));
        }
        Poll::Ready(outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.as_mut().poll_shutdown(context)
    }
}
