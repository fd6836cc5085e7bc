//! The accept loop: at most so many connections, headers in time, and an end that lets requests finish.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use haar_api::linger::Linger;
use haar_api::problem::{ErrorCode, PROBLEM_JSON, Problem};
use haar_api::unread::{Document, Worded};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::App;
use super::handle::{MOST_HEADERS, handle};

/// How long the headers of a request may take to arrive, and a connection may be idle.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// How long requests may take to finish once the controller shall end.
const FINISH_TIME: Duration = Duration::from_secs(10);
/// How long a connection that is turned away gets to hear why.
const REFUSAL_TIME: Duration = Duration::from_secs(1);

/// Accepts connections until told to stop, then lets them finish.
pub(crate) async fn accept(app: Arc<App>, listener: TcpListener, router: Router) {
    let permits = Arc::new(Semaphore::new(app.limits.connections));
    // Owned here, so that nothing of a connection outlives the server.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.stopping.cancelled() => break,
        };
        while connections.try_join_next().is_some() {}
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of files, most likely: give connections time to end.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            app.engine.metrics.connections_refused.inc();
            connections.spawn(refuse(stream));
            continue;
        };
        let (app, router) = (Arc::clone(&app), router.clone());
        connections.spawn(async move {
            app.engine.metrics.connections.inc();
            serve(&app, router, stream).await;
            app.engine.metrics.connections.dec();
            drop(permit);
        });
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH_TIME, finished).await.is_err() {
        tracing::warn!("some requests did not finish in time and are cut off");
    }
    connections.shutdown().await;
}

async fn serve(app: &Arc<App>, router: Router, stream: TcpStream) {
    // Answers are small and wanted at once.
    let _ = stream.set_nodelay(true);
    let stream = Linger::new(stream);
    let released = stream.released();
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let answer = handle(Arc::clone(app), router.clone(), request.map(Body::new));
        let released = released.clone();
        async move {
            let answer = answer.await;
            if let Ok(answer) = &answer
                && answer.status() == hyper::StatusCode::SWITCHING_PROTOCOLS
            {
                released.release();
            }
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(2 * MOST_HEADERS)
        .serve_connection(TokioIo::new(Worded::new(stream, unread)), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = app.stopping.cancelled() => {
            // The request under way is answered, and no other is taken.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %crate::engine::chain(&error), "a connection ended badly");
    }
}

/// To a request that cannot be read, before there is one.
fn unread(status: u16, why: &'static str) -> Document {
    let code = if status == 431 { ErrorCode::HeaderTooLarge } else { ErrorCode::BadRequest };
    let problem = Problem::new(status, code.code(), why);
    Document { content_type: PROBLEM_JSON, body: serde_json::to_vec(&problem).unwrap_or_default() }
}

/// Tells a connection that there are too many.
async fn refuse(stream: TcpStream) {
    let mut stream = Linger::new(stream);
    let problem = Problem::of(
        ErrorCode::TooManyConnections,
        "the controller has as many connections as it takes; try again shortly",
    );
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let tell = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whoever does not listen is not waited for.
    let _ = tokio::time::timeout(REFUSAL_TIME, tell).await;
}

/// Binds; only on loopback, for there is no TLS yet.
///
/// # Errors
/// [`ListenError`] says why not.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    if !address.ip().is_loopback() {
        return Err(ListenError::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|source| ListenError::Bind { address, source })
}

/// Why the controller does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Tokens would travel in the clear.
    #[error(
        "{0} is not a loopback address: TLS does not exist yet, and tokens must not travel in the clear; listen on 127.0.0.1, and reach it through ssh -L or a TLS proxy"
    )]
    NotLoopback(SocketAddr),
    /// The operating system says no.
    #[error("cannot listen on {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}
