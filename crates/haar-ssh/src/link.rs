//! The bytes beneath a connection: TCP or a tunnel, with a way to cut it from outside.
//!
//! Promises: once cut, every read and write fails at once, whatever the other side does; a write that the
//! other side takes nothing of for too long fails as well. It counts what arrives, so that a silent server
//! can be told from a slow one. Deliberately absent: buffering, and anything of SSH.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What a connection can run over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A stream that can be cut.
pub(crate) struct Link {
    stream: Box<dyn Stream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    heard: Arc<AtomicU64>,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Link {
    /// `cut` ends it, `heard` counts the bytes that arrive, and `patience` is how long a write may stall.
    pub(crate) fn new(
        stream: Box<dyn Stream>,
        cut: CancellationToken,
        heard: Arc<AtomicU64>,
        patience: Duration,
    ) -> Self {
        Self { stream, cut: Box::pin(cut.cancelled_owned()), heard, patience, stalled: None }
    }

    fn poll_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut"))
            }
            Poll::Pending => Ok(()),
        }
    }

    /// Passes on a write's outcome, unless it has been pending for too long.
    fn watch<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let until = Instant::now() + self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the server takes nothing any more")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        if read > 0 {
            self.heard.fetch_add(read as u64, Ordering::Relaxed);
        }
        outcome
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(context)?;
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(outcome, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_cut(context)?;
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(outcome, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn link(stream: tokio::io::DuplexStream) -> (Link, CancellationToken, Arc<AtomicU64>) {
        let (cut, heard) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let patience = Duration::from_millis(50);
        (Link::new(Box::new(stream), cut.clone(), Arc::clone(&heard), patience), cut, heard)
    }

    #[tokio::test]
    async fn a_cut_ends_a_read_that_would_wait_for_ever() {
        let (near, mut far) = tokio::io::duplex(64);
        let (mut link, cut, heard) = link(near);
        far.write_all(b"abc").await.unwrap();
        let mut bytes = [0; 3];
        link.read_exact(&mut bytes).await.unwrap();
        assert_eq!((&bytes, heard.load(Ordering::Relaxed)), (b"abc", 3));

        let (outcome, ()) = tokio::join!(link.read(&mut bytes), async { cut.cancel() });
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(link.write_all(b"x").await.is_err());
    }

    #[tokio::test]
    async fn a_write_that_nobody_takes_fails_in_the_end() {
        let (near, far) = tokio::io::duplex(4);
        let (mut link, _cut, _heard) = link(near);
        let outcome = link.write_all(b"more than there is room for").await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(far);
    }
}
