//! A small client: one call over a Unix socket, with a time limit.
//!
//! For tests and tools; a new connection for each call. Deliberately absent: retries.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use haar_api::rpc;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens on the socket.
    #[error("cannot connect to {path}; is the sub-agent running?")]
    Connect {
        /// The socket's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No answer within the limit; the method may still be running.
    #[error("no answer within {0:?}; the call may still be running")]
    Timeout(Duration),
    /// The connection broke.
    #[error("the connection broke before the answer")]
    Transport(#[source] hyper::Error),
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
    Fault(rpc::Fault),
    /// Neither a result nor an error came.
    #[error("the answer has neither result nor error")]
    Empty,
}

/// Calls `method` with `params` on the socket and waits at most `limit` for its result.
///
/// # Errors
/// [`CallError::Fault`] is the method's own no; everything else is the way there.
pub async fn call<P, R>(socket: &Path, method: &str, params: &P, limit: Duration) -> Result<R, CallError>
where
    P: Serialize + Sync,
    R: DeserializeOwned,
{
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let request = rpc::Request {
        method: method.to_owned(),
        params: [params],
        id: Some(Value::from(NEXT_ID.fetch_add(1, Ordering::Relaxed))),
    };
    let body = serde_json::to_vec(&request).map_err(CallError::Json)?;
    let exchange = exchange(socket, body);
    let (status, body) =
        tokio::time::timeout(limit, exchange).await.map_err(|_| CallError::Timeout(limit))??;
    if status >= 400 {
        let text = String::from_utf8_lossy(&body).into_owned();
        return Err(CallError::Refused { status, text });
    }
    let response: rpc::Response<R> = serde_json::from_slice(&body).map_err(CallError::Json)?;
    match (response.error, response.result) {
        (Some(text), _) => Err(CallError::Fault(rpc::Fault::parse(&text))),
        (None, Some(result)) => Ok(result),
        (None, None) => Err(CallError::Empty),
    }
}

async fn exchange(socket: &Path, body: Vec<u8>) -> Result<(u16, Bytes), CallError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| CallError::Connect { path: socket.to_owned(), source })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(CallError::Transport)?;
    let driver = tokio::spawn(connection);
    let request = Request::post(rpc::DEFAULT_PATH)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .expect("a constant path and constant headers make a request");
    let response = sender.send_request(request).await.map_err(CallError::Transport)?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.map_err(CallError::Transport)?.to_bytes();
    driver.abort();
    Ok((status, body))
}
