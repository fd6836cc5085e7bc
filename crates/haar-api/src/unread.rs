//! Words for requests that cannot be read.
//!
//! hyper answers a broken first line, a broken or too large header by itself: with a status and nothing else, before
//! any handler is asked. A [`Worded`] stream puts a document in the place of such an answer, in the form that the
//! server's other errors have. It knows hyper's answer by what no handler of ours sends: one of three statuses, without a
//! body and without a type, as all of one write. Deliberately absent: an answer that comes in one write with the end of
//! the one before it, as to requests sent without waiting; it stays hyper's. A connection that was switched to another
//! protocol is left alone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What hyper answers by itself, and why.
const BARE: [(u16, &str); 3] = [
    (400, "the request cannot be read: its first line or one of its headers is not HTTP/1.1"),
    (414, "the request cannot be read: its address is too long"),
    (431, "the request cannot be read: its headers are too large or too many"),
];
/// How the answer begins after which the connection is somebody else's.
const SWITCHING: &[u8] = b"HTTP/1.1 101 ";
/// hyper's own answers are shorter, and all of one write.
const MOST_BYTES: usize = 512;

/// An answer's body and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// For the header `content-type`.
    pub content_type: &'static str,
    /// The bytes.
    pub body: Vec<u8>,
}

/// Makes the document for a status and the words that go with it.
pub type Words = fn(u16, &'static str) -> Document;

/// A server's end of a connection that says why a request cannot be read.
#[derive(Debug)]
pub struct Worded<S> {
    stream: S,
    words: Words,
    saying: Option<Saying>,
    is_switched: bool,
}

/// What is written in the place of hyper's answer.
#[derive(Debug)]
struct Saying {
    answer: Vec<u8>,
    written: usize,
    /// Bytes of hyper's answer.
    in_place_of: usize,
}

impl<S> Worded<S> {
    /// The server's end of `stream`.
    pub fn new(stream: S, words: Words) -> Worded<S> {
        Worded { stream, words, saying: None, is_switched: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Worded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Worded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Worded { stream, words, saying, is_switched } = &mut *self;
        *is_switched |= bytes.starts_with(SWITCHING);
        if saying.is_none()
            && !*is_switched
            && let Some((status, why)) = bare(bytes)
        {
            let answer = answer(status, &words(status, why));
            *saying = Some(Saying { answer, written: 0, in_place_of: bytes.len() });
        }
        // Whoever is told to wait comes again with the same bytes.
        while let Some(said) = saying {
            let written = ready!(Pin::new(&mut *stream).poll_write(context, &said.answer[said.written..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            said.written += written;
            if said.written == said.answer.len() {
                let whole = said.in_place_of;
                *saying = None;
                return Poll::Ready(Ok(whole));
            }
        }
        Pin::new(stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Both are all of a write.
        let alone = |first: &[u8]| bare(first).is_some() || first.starts_with(SWITCHING);
        match slices.iter().find(|slice| !slice.is_empty()) {
            Some(first) if self.saying.is_some() || (!self.is_switched && alone(first)) => {
                self.poll_write(context, first)
            }
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Why hyper has answered, if it has by itself.
fn bare(bytes: &[u8]) -> Option<(u16, &'static str)> {
    if bytes.len() > MOST_BYTES || !bytes.starts_with(b"HTTP/1.") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let headers: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let value_of = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    let is_bare = value_of("content-length") == Some("0")
        && value_of("content-type").is_none()
        && value_of("date").is_some();
    BARE.iter().find(|(known, _)| is_bare && *known == status).copied()
}

fn answer(status: u16, document: &Document) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        reason.unwrap_or_default(),
        document.content_type,
        document.body.len()
    );
    [head.as_bytes(), &document.body].concat()
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::linger::Linger;

    const LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

    fn document(status: u16, why: &'static str) -> Document {
        Document { content_type: "text/plain", body: format!("{status}: {why}").into_bytes() }
    }

    /// A real server's answer to these bytes.
    async fn told(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                let body = if request.uri().path() == "/empty" { "" } else { "a handler's" };
                let answer = Response::builder().status(400).header("content-type", "text/plain");
                answer.body(Full::new(bytes::Bytes::from(body)))
            });
            let stream = Linger::new(listener.accept().await.unwrap().0);
            let stream = TokioIo::new(Worded::new(stream, document));
            // That it ends badly is what this is about.
            let _ = http1::Builder::new().max_buf_size(128 << 10).serve_connection(stream, service).await;
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        // It may not be read to its end.
        let _ = client.write_all(request.as_bytes()).await;
        let mut heard = String::new();
        let read = tokio::time::timeout(LIMIT, client.read_to_string(&mut heard)).await;
        read.unwrap_or_else(|_| panic!("{request:.40} is not answered to the end: {heard}")).unwrap();
        drop(client);
        serving.await.unwrap();
        heard
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_answered_with_a_document() {
        let long = "x".repeat(200 << 10);
        let longer = "x".repeat(70_000);
        for (request, status) in [
            ("NONSENSE\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/9.9\r\n\r\n".to_owned(), 400),
            ("GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n".to_owned(), 400),
            (format!("GET /{longer} HTTP/1.1\r\nhost: a\r\n\r\n"), 414),
            (format!("GET / HTTP/1.1\r\nhost: a\r\nlarge: {long}\r\n\r\n"), 431),
        ] {
            let heard = told(&request).await;
            let (head, body) = heard.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{heard}");
            let length = format!("Content-Length: {}", body.len());
            assert!(head.contains("Content-Type: text/plain") && head.contains(&length), "{heard}");
            assert!(body.starts_with(&format!("{status}: the request cannot be read")), "{heard}");
        }
    }

    #[tokio::test]
    async fn what_is_said_after_a_switch_is_nobodys_answer() {
        let bare = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        // Through a pipe that takes few bytes at once.
        let said = async |first: &'static str| {
            let (mut client, server) = tokio::io::duplex(7);
            let saying = tokio::spawn(async move {
                let mut server = Worded::new(server, document);
                for words in [first, bare] {
                    server.write_all(words.as_bytes()).await.unwrap();
                }
            });
            let mut heard = String::new();
            tokio::time::timeout(LIMIT, client.read_to_string(&mut heard)).await.unwrap().unwrap();
            saying.await.unwrap();
            heard
        };
        let switching = "HTTP/1.1 101 Switching Protocols\r\n\r\n";
        assert_eq!(said(switching).await, format!("{switching}{bare}"));
        assert!(said("").await.contains("400: the request cannot be read"));
    }

    #[tokio::test]
    async fn what_a_handler_answers_is_left_as_it_is() {
        for (path, body) in [("/", "a handler's"), ("/empty", "")] {
            let heard = told(&format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n")).await;
            assert!(
                heard.starts_with("HTTP/1.1 400 ") && heard.ends_with(&format!("\r\n\r\n{body}")),
                "{heard}"
            );
        }
    }
}
