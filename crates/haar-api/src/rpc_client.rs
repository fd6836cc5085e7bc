//! Calls a sub-agent: one JSON-RPC request over a Unix socket or loopback TCP, with a time limit.
//!
//! The client rules of the wire (`mistify-wire` §2.7): status ≥ 400 is the body's text; a non-null error
//! is the method's no; a null result without an error is an error. Answers are limited in size.
//! A new connection for each call. Deliberately absent: retries.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::rpc::{self, Fault};

/// The most bytes of an answer.
pub const MOST_ANSWER: usize = 16 << 20;

/// The header by which every call says that it asks again rather than have an image waited for (RFC 7240).
pub const PREFER: &str = "prefer";
/// Its value.
pub const RESPOND_ASYNC: &str = "respond-async";

/// Where a sub-agent listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A socket's file.
    Unix(PathBuf),
    /// A loopback port (the seeds').
    Tcp(SocketAddr),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => path.display().fmt(f),
            Address::Tcp(address) => address.fmt(f),
        }
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there.
    #[error("cannot connect to {address}; is the sub-agent running?")]
    Connect {
        /// Where.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// No answer within the limit; the method may still be running.
    #[error("no answer within {} ms; the call may still be running", .0.as_millis())]
    Timeout(Duration),
    /// The connection broke, or the answer is too large.
    #[error("the connection broke before the answer was whole")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request or answer is not the JSON it should be.
    #[error("the call's JSON cannot be written or read")]
    Json(#[source] serde_json::Error),
    /// The call did not reach its method.
    #[error("refused with status {status}: {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The sub-agent's words.
        text: String,
    },
    /// The method failed.
    #[error(transparent)]
    Fault(Fault),
    /// Neither a result nor an error came.
    #[error("the answer has neither result nor error")]
    Empty,
}

/// Calls `method` on the sub-agent at `address` and `path` and waits at most `limit` for its result.
///
/// # Errors
/// [`CallError::Fault`] is the method's own no; everything else is the way there.
pub async fn call<P, R>(
    address: &Address,
    path: &str,
    method: &str,
    params: &P,
    limit: Duration,
) -> Result<R, CallError>
where
    P: Serialize + Sync,
    R: DeserializeOwned,
{
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let request = rpc::Request { method: method.to_owned(), params: [params], id: Some(Value::from(id)) };
    let body = serde_json::to_vec(&request).map_err(CallError::Json)?;
    let exchange = exchange(address, path, body);
    let (status, body) =
        tokio::time::timeout(limit, exchange).await.map_err(|_| CallError::Timeout(limit))??;
    if status >= 400 {
        let text = String::from_utf8_lossy(&body).trim_end().chars().take(2000).collect();
        return Err(CallError::Refused { status, text });
    }
    let response: rpc::Response<R> = serde_json::from_slice(&body).map_err(CallError::Json)?;
    match (response.error, response.result) {
        (Some(text), _) => Err(CallError::Fault(Fault::parse(&text))),
        (None, Some(result)) => Ok(result),
        (None, None) => Err(CallError::Empty),
    }
}

async fn exchange(address: &Address, path: &str, body: Vec<u8>) -> Result<(u16, Bytes), CallError> {
    let connect = |source| CallError::Connect { address: address.clone(), source };
    match address {
        Address::Unix(file) => send(UnixStream::connect(file).await.map_err(connect)?, path, body).await,
        Address::Tcp(port) => send(TcpStream::connect(port).await.map_err(connect)?, path, body).await,
    }
}

async fn send<S>(stream: S, path: &str, body: Vec<u8>) -> Result<(u16, Bytes), CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| CallError::Transport(Box::new(error));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::post(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .header(PREFER, RESPOND_ASYNC)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| CallError::Transport(Box::new(error)))?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MOST_ANSWER).collect().await;
        Ok((status, body.map_err(CallError::Transport)?.to_bytes()))
    };
    // The connection is driven beside the talk and ends with it, so that no task outlives the call.
    let mut talk = std::pin::pin!(talk);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        ended = &mut talk => ended,
        driven = &mut connection => match driven {
            Err(error) => Err(broken(error)),
            Ok(()) => talk.await,
        },
    }
}
