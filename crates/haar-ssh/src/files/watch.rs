//! The stream that sftp goes over, and when the server counts as silent.
//!
//! Promises: it ends when the server owes an answer and nothing at all has come of it for the limit. How long a
//! request waits behind others does not count: over a slow line much may be on its way for minutes. Deliberately
//! absent: what is said on the stream, of which only the packets are counted.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The longest limit that a clock is sure to be able to add to now.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A stream of requests and their answers.
pub(super) struct Watched<S> {
    stream: S,
    limit: Duration,
    requests: Packets,
    answers: Packets,
    /// When the server last said something, or began to owe an answer.
    since: Instant,
    look: Pin<Box<Sleep>>,
    is_silent: Arc<AtomicBool>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        let limit = limit.min(FOR_EVER);
        Self {
            stream,
            limit,
            requests: Packets::default(),
            answers: Packets::default(),
            since: Instant::now(),
            look: Box::pin(sleep(limit)),
            is_silent: Arc::default(),
        }
    }

    /// Tells, for as long as anybody asks, whether it ended because of silence.
    pub(super) fn is_silent(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_silent)
    }

    fn is_owed(&self) -> bool {
        self.requests.begun > self.answers.ended
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if let Poll::Ready(outcome) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            this.answers.pass(&buffer.filled()[before..]);
            this.since = Instant::now();
            return Poll::Ready(outcome);
        }
        loop {
            ready!(this.look.as_mut().poll(context));
            let now = Instant::now();
            let begin = if this.is_owed() { this.since } else { now };
            if now.duration_since(begin) >= this.limit && this.is_owed() {
                this.is_silent.store(true, Ordering::SeqCst);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            this.look.as_mut().reset(begin + this.limit);
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        if !this.is_owed() {
            this.since = Instant::now();
        }
        this.requests.pass(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Counts packets as their bytes pass: each begins with its length in four bytes.
#[derive(Debug, Default)]
struct Packets {
    begun: u64,
    ended: u64,
    /// What has been read of a length, and how many bytes of it.
    length: u32,
    length_read: u8,
    /// What has to pass yet of the packet whose length is known.
    rest: usize,
}

impl Packets {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, behind)) = bytes.split_first() {
            if self.rest > 0 {
                let passing = self.rest.min(bytes.len());
                self.rest -= passing;
                bytes = &bytes[passing..];
                self.ended += u64::from(self.rest == 0);
                continue;
            }
            self.begun += u64::from(self.length_read == 0);
            self.length = (self.length << 8) | u32::from(*first);
            self.length_read += 1;
            bytes = behind;
            if self.length_read == 4 {
                self.rest = self.length as usize;
                (self.length, self.length_read) = (0, 0);
                self.ended += u64::from(self.rest == 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(120);

    #[test]
    fn packets_are_counted_wherever_they_are_cut() {
        let bytes = [0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 1, 9, 0, 0];
        for step in 1..=bytes.len() {
            let mut packets = Packets::default();
            bytes.chunks(step).for_each(|chunk| packets.pass(chunk));
            assert_eq!((packets.begun, packets.ended), (4, 3), "in steps of {step}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_something_now_and_then_is_not_silent() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut near = Watched::new(near, LIMIT);
        let is_silent = near.is_silent();
        let mut byte = [0];
        near.write_all(&[0, 0, 0, 1, 7, 0, 0, 0, 1, 7]).await.unwrap();
        for answer in [0, 0, 0, 1, 7] {
            sleep(LIMIT - Duration::from_secs(1)).await;
            far.write_all(&[answer]).await.unwrap();
            near.read_exact(&mut byte).await.unwrap();
        }
        let began = Instant::now();
        let outcome = near.read_exact(&mut byte).await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut, "the second answer is still owed");
        assert!(is_silent.load(Ordering::SeqCst));
        assert_eq!(began.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_owes_nothing_may_say_nothing() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut near = Watched::new(near, LIMIT);
        let mut answer = [0; 5];
        assert!(tokio::time::timeout(10 * LIMIT, near.read_exact(&mut answer)).await.is_err());
        near.write_all(&[0, 0, 0, 1, 7]).await.unwrap();
        assert!(tokio::time::timeout(LIMIT - Duration::from_secs(1), near.read_u8()).await.is_err());
        far.write_all(&[0, 0, 0, 1, 7]).await.unwrap();
        near.read_exact(&mut answer).await.unwrap();
        assert!(tokio::time::timeout(10 * LIMIT, near.read_u8()).await.is_err(), "it has answered");
        near.write_all(&[0, 0, 0, 1, 7]).await.unwrap();
        let began = Instant::now();
        assert_eq!(near.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= LIMIT, "the limit begins with the request");
    }
}
