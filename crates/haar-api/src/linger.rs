//! A server's end of a connection that closes without losing its last answer.
//!
//! A request may be answered before its body is read: it is too large, or not allowed. Closing a socket
//! with bytes unread resets it, and the reset can overtake the answer, so that the client is told "broken
//! pipe" in place of the reason. Hence after its own end is shut, a [`Linger`] reads on and throws away,
//! until the client closes, [`LINGER_TIME`] is over or [`LINGER_BYTES`] have come.
//! A connection that was switched to another protocol may be shut at one end and go on at the other: it is
//! released from this by [`Release`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a client gets to hear the last answer.
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much is read of what nobody wants, in bytes.
pub const LINGER_BYTES: usize = 64 << 20;

/// A stream whose shutdown waits for the other end.
#[derive(Debug)]
pub struct Linger<S> {
    stream: S,
    end: End,
    released: Release,
}

/// Lets a connection that was switched to another protocol be shut like any stream.
#[derive(Debug, Clone, Default)]
pub struct Release(Arc<AtomicBool>);

impl Release {
    /// From here on a shutdown waits for nothing and reads nothing.
    pub fn release(&self) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Debug)]
enum End {
    /// Both ends are open.
    Open,
    /// This end is shut; what still comes is thrown away.
    Draining { until: Pin<Box<Sleep>>, left: usize },
    /// Nothing more is waited for.
    Over,
}

impl<S> Linger<S> {
    /// The server's end of `stream`.
    pub fn new(stream: S) -> Linger<S> {
        Linger { stream, end: End::Open, released: Release::default() }
    }

    /// What releases this connection.
    pub fn released(&self) -> Release {
        self.released.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Linger<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Linger<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Linger { stream, end, released } = &mut *self;
        if released.0.load(Ordering::Acquire) {
            return Pin::new(stream).poll_shutdown(context);
        }
        if matches!(end, End::Open) {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
            *end = End::Draining { until: Box::pin(tokio::time::sleep(LINGER_TIME)), left: LINGER_BYTES };
        }
        if let End::Draining { until, left } = end
            && until.as_mut().poll(context).is_pending()
        {
            ready!(drain(stream, left, context));
        }
        *end = End::Over;
        Poll::Ready(Ok(()))
    }
}

/// Reads until there is no more, or more than is worth it.
fn drain<S: AsyncRead + Unpin>(stream: &mut S, left: &mut usize, context: &mut Context<'_>) -> Poll<()> {
    let mut waste = [0; 16 << 10];
    while *left > 0 {
        let mut buffer = ReadBuf::new(&mut waste);
        match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => *left = left.saturating_sub(buffer.filled().len()),
            _ => break,
        }
    }
    Poll::Ready(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn an_answer_before_the_whole_request_was_read_arrives() {
        let (mut client, server) = pair().await;
        let answering = tokio::spawn(async move {
            let mut server = Linger::new(server);
            let mut first = [0; 10];
            server.read_exact(&mut first).await.unwrap();
            server.write_all(b"too large").await.unwrap();
            server.shutdown().await.unwrap();
        });
        // Far more than the buffers of both ends hold, and without a look at what comes back.
        client.write_all(&vec![b'x'; 32 << 20]).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "too large");
        drop(client);
        answering.await.unwrap();
    }

    #[tokio::test]
    async fn what_comes_after_one_end_of_a_switched_connection_is_shut_is_kept() {
        let (mut client, server) = pair().await;
        let mut server = Linger::new(server);
        server.released().release();
        server.shutdown().await.unwrap();
        client.write_all(b"still here").await.unwrap();
        drop(client);
        let mut kept = String::new();
        server.read_to_string(&mut kept).await.unwrap();
        assert_eq!(kept, "still here");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_closes_is_not_waited_for() {
        let (_client, server) = tokio::io::duplex(64);
        let begun = tokio::time::Instant::now();
        Linger::new(server).shutdown().await.unwrap();
        assert_eq!(begun.elapsed(), LINGER_TIME);
    }

    #[tokio::test]
    async fn a_client_that_never_ends_is_cut_off() {
        let (mut client, server) = pair().await;
        let answering = tokio::spawn(async move { Linger::new(server).shutdown().await });
        let chunk = vec![b'x'; 1 << 20];
        let mut sent = 0_usize;
        while client.write_all(&chunk).await.is_ok() {
            sent += chunk.len();
            assert!(sent < 2 * LINGER_BYTES, "it reads for ever");
        }
        answering.await.unwrap().unwrap();
    }
}
