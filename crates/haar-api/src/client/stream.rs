//! Bytes as they come, and raw bytes both ways.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::ClientError;

/// An answer's bytes, chunk by chunk.
#[derive(Debug)]
pub struct ByteReader {
    length: Option<u64>,
    body: Incoming,
}

impl ByteReader {
    pub(super) fn new(answer: Response<Incoming>) -> ByteReader {
        let length = answer
            .headers()
            .get(http::header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        ByteReader { length, body: answer.into_body() }
    }

    /// Bytes in all, when the server said so.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next bytes; None at the end.
    ///
    /// # Errors
    /// [`ClientError::Broken`] when the connection breaks before the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(ClientError::broken(error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// Raw bytes both ways, after an upgrade.
#[derive(Debug)]
pub struct Duplex(TokioIo<Upgraded>);

impl Duplex {
    pub(super) fn new(upgraded: Upgraded) -> Duplex {
        Duplex(TokioIo::new(upgraded))
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
