//! Passing a service's bytes on to a client: opened by a bare request, without the envelope (`mistify-wire` §2.7).
//!
//! Nothing is gathered: what the client does not take is not asked for. A stream that stands still is broken off.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use haar_api::rpc::SnapshotRequest;
use haar_api::rpc_client::Address;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::reply::Body;
use crate::local::config::Stage;
use crate::local::hands::{Failure, Hands};
use crate::local::runners::Why;

/// How long nothing may come.
const STILL: Duration = Duration::from_secs(120);
/// Bytes of a service's no.
const MOST_WORDS: usize = 4096;

/// What of a client's headers is passed on: it goes on where an earlier stream broke off.
const ASKED: [HeaderName; 2] = [header::RANGE, header::IF_RANGE];
/// What of a service's headers is.
const TOLD: [HeaderName; 4] =
    [header::CONTENT_LENGTH, header::CONTENT_RANGE, header::ACCEPT_RANGES, header::ETAG];

/// What the service made of the request.
pub(super) enum Opened {
    Body { status: StatusCode, headers: HeaderMap, body: Body },
    Refused(StatusCode, String),
}

/// Asks the stage's service for its bytes. The turn is held as long as they flow.
pub(super) async fn open(
    hands: &Hands,
    stage: &Stage,
    request: &SnapshotRequest,
    headers: &HeaderMap,
    turn: OwnedSemaphorePermit,
) -> Result<Opened, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure {
        message: format!("the service `{}` gave no stream: {why}", stage.service),
        why: Why::Other,
    };
    let asking = async {
        let (service, pending) = hands.service(&stage.service).await?;
        let body = serde_json::to_vec(request).map_err(|error| failed(&error))?;
        let mut post = Request::post(&service.path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed(&error))?;
        post.headers_mut().extend(picked(headers, &ASKED));
        let (response, connection) = match &service.address {
            Address::Unix(path) => {
                send(UnixStream::connect(path).await.map_err(|error| failed(&error))?, post).await
            }
            Address::Tcp(port) => {
                send(TcpStream::connect(port).await.map_err(|error| failed(&error))?, post).await
            }
        }
        .map_err(|error| failed(&error))?;
        Ok((response, connection, pending))
    };
    let late = |_| failed(&format!("no answer within {} s", stage.timeout.as_secs()));
    let (response, connection, pending) = timeout(stage.timeout, asking).await.map_err(late)??;
    let status = response.status();
    if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        let words = timeout(stage.timeout, Limited::new(response.into_body(), MOST_WORDS).collect());
        let words = words.await.ok().and_then(Result::ok).map(|words| words.to_bytes()).unwrap_or_default();
        // Only a no can be passed on as one.
        let status = if status.as_u16() >= 400 { status } else { StatusCode::BAD_GATEWAY };
        return Ok(Opened::Refused(status, String::from_utf8_lossy(&words).into_owned()));
    }
    let headers = picked(response.headers(), &TOLD);
    let body = Passing {
        body: response.into_body(),
        still: Box::pin(sleep(STILL)),
        _held: (turn, pending, connection),
    };
    Ok(Opened::Body { status, headers, body: body.boxed_unsync() })
}

fn picked(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    names.iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone()))).collect()
}

type Connection = AbortOnDropHandle<()>;

async fn send<S>(
    stream: S,
    post: Request<Full<Bytes>>,
) -> Result<(Response<Incoming>, Connection), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driven = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a stream of a service ended badly");
        }
    });
    let driven = AbortOnDropHandle::new(driven);
    Ok((sender.send_request(post).await?, driven))
}

/// The service's body, with what must be held while it flows.
struct Passing {
    body: Incoming,
    still: Pin<Box<Sleep>>,
    _held: (OwnedSemaphorePermit, OwnedSemaphorePermit, Connection),
}

impl HttpBody for Passing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.still.as_mut().reset(Instant::now() + STILL);
            return Poll::Ready(frame.map(|frame| frame.map_err(std::io::Error::other)));
        }
        ready!(self.still.as_mut().poll(context));
        Poll::Ready(Some(Err(std::io::Error::from(std::io::ErrorKind::TimedOut))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
