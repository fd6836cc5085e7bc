//! A connection whose client must take what it is sent: one that stops reading is given up after a while.
//!
//! Without it a client that asks for much and reads nothing would hold its connection, and the turn of its stream,
//! for as long as it likes: a body is not even asked for more while what it gave before is not taken.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that is broken when nothing can be written for too long.
pub(super) struct Progress<S> {
    stream: S,
    limit: Duration,
    /// Runs while the client takes nothing.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Progress<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Progress<S> {
        Progress { stream, limit, until: None }
    }

    /// What a write came to; when it waits, no longer than the limit.
    fn within<T>(&mut self, context: &mut Context<'_>, came: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if came.is_ready() {
            self.until = None;
            return came;
        }
        let limit = self.limit;
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(limit)));
        until.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Progress<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progress<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, came)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let came = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.within(context, came)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.stream).poll_flush(context);
        self.within(context, came)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let came = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(context, came)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use bytes::Bytes;
    use http::Response;
    use http_body::{Body, Frame};
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (client, server) = tokio::io::duplex(64);
        let mut server = Progress::new(server, LIMIT);
        let error = server.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    /// A body that has no end, and holds something meanwhile.
    struct Endless {
        _held: Arc<()>,
    }

    impl Body for Endless {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 8192])))))
        }
    }

    #[tokio::test]
    async fn what_a_body_holds_is_free_when_its_client_takes_nothing() {
        let (mut client, server) = tokio::io::duplex(64);
        let held = Arc::new(());
        let holding = Arc::clone(&held);
        let service = service_fn(move |_| {
            let body = Endless { _held: Arc::clone(&holding) };
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
        let serving =
            http1::Builder::new().serve_connection(TokioIo::new(Progress::new(server, LIMIT)), service);
        client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let served = tokio::time::timeout(LIMIT * 50, serving).await;
        served.expect("it is held for ever").unwrap_err();
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn a_client_that_takes_little_by_little_gets_all() {
        let (mut client, server) = tokio::io::duplex(64);
        let writing = tokio::spawn(async move {
            let mut server = Progress::new(server, LIMIT);
            server.write_all(&[7; 64 * 10]).await.unwrap();
        });
        let mut taken = [0; 64];
        for _ in 0..10 {
            // In all longer than the limit, and never that long without progress.
            tokio::time::sleep(LIMIT / 5).await;
            client.read_exact(&mut taken).await.unwrap();
        }
        writing.await.unwrap();
    }
}
