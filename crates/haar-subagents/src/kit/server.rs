//! The server: methods by name, and the loop that answers calls until asked to stop.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::MethodRouter;
use bytes::Bytes;
use haar_api::linger::Linger;
use haar_api::unread::{Document, Worded};
use haar_api::{rpc, rpc_client};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

use super::envelope::{self, Refusal};
use super::listen::{self, Error, Listen, Listener};
use super::{BODY_TIMEOUT, MAX_BODY_BYTES, MAX_CALLS, SHUTDOWN_GRACE};

/// A method begun: the future writes the answer's body for the given id.
type Running = Pin<Box<dyn Future<Output = Bytes> + Send>>;
type Method = Box<dyn Fn(Value, Caller, Value) -> Result<Running, serde_json::Error> + Send + Sync>;

/// What a caller expects of an answer that would take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// To be told how far it is; it asks again (`Prefer: respond-async`, RFC 7240).
    AsksAgain,
    /// To have it done, as the originals' callers.
    Waits,
}

impl Caller {
    fn of(headers: &HeaderMap) -> Self {
        let prefers = |value: &HeaderValue| {
            value.to_str().is_ok_and(|text| {
                text.split(',').any(|wish| wish.trim().eq_ignore_ascii_case(rpc_client::RESPOND_ASYNC))
            })
        };
        let asks = headers.get_all(rpc_client::PREFER).iter().any(prefers);
        if asks { Caller::AsksAgain } else { Caller::Waits }
    }
}

/// Methods by name, not yet served.
#[derive(Default)]
pub struct Server {
    methods: BTreeMap<String, Method>,
    routes: Router,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.methods.keys()).finish()
    }
}

impl Server {
    /// A server without methods.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers "Service.Method" with this function; a later one of the same name replaces it.
    ///
    /// The function is called on a task of its own and is never cancelled. Blocking work belongs into
    /// `tokio::task::spawn_blocking`.
    pub fn method<P, R, F, Outcome>(&mut self, name: &str, run: F) -> &mut Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(P) -> Outcome + Send + Sync + 'static,
        Outcome: Future<Output = Result<R, rpc::Fault>> + Send + 'static,
    {
        self.method_for(name, move |params: P, _| run(params))
    }

    /// The same, with what the caller expects of an answer that takes long.
    pub fn method_for<P, R, F, Outcome>(&mut self, name: &str, run: F) -> &mut Self
    where
        P: DeserializeOwned + Send + 'static,
        R: Serialize + Send + 'static,
        F: Fn(P, Caller) -> Outcome + Send + Sync + 'static,
        Outcome: Future<Output = Result<R, rpc::Fault>> + Send + 'static,
    {
        let run = Arc::new(run);
        let method = move |params: Value, caller: Caller, id: Value| {
            let params = serde_json::from_value::<P>(envelope::without_nulls(params))?;
            let run = Arc::clone(&run);
            // The call itself is inside the future, so that a panic in it is caught like any other.
            let running: Running = Box::pin(async move { envelope::answer(run(params, caller).await, &id) });
            Ok(running)
        };
        self.methods.insert(name.to_owned(), Box::new(method));
        self
    }

    /// Answers another path with a handler of its own: bodies that are streamed go no other way (§2.7). The limits
    /// of calls are not its limits.
    ///
    /// # Panics
    /// When the path is taken.
    pub fn route(&mut self, path: &str, handler: MethodRouter) -> &mut Self {
        self.routes = std::mem::take(&mut self.routes).route(path, handler);
        self
    }

    /// Takes the socket or port. From here on callers may connect; they are answered once [`Bound::serve`] runs.
    ///
    /// # Errors
    /// [`Error`] says what stands in the way. Must be called within a tokio runtime.
    pub fn bind(self, listen: &Listen) -> Result<Bound, Error> {
        Ok(Bound { listener: listen::bind(listen)?, methods: self.methods, routes: self.routes })
    }

    /// Binds and serves until `shutdown` resolves, then lets running calls end (at most [`SHUTDOWN_GRACE`]).
    ///
    /// # Errors
    /// As [`Server::bind`] and [`Bound::serve`].
    pub async fn serve(self, listen: Listen, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        self.bind(&listen)?.serve(shutdown).await
    }
}

/// A server that holds its socket or port.
pub struct Bound {
    listener: Listener,
    methods: BTreeMap<String, Method>,
    routes: Router,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Bound {
    /// The loopback address, for a server on a port.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Unix(..) => None,
            Listener::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// Answers calls until `shutdown` resolves, then lets running calls end (at most [`SHUTDOWN_GRACE`]).
    ///
    /// # Errors
    /// [`Error::Serve`] when the listener breaks.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let shared = Arc::new(Shared { methods: self.methods, calls: Arc::new(Semaphore::new(MAX_CALLS)) });
        let router = Router::new().fallback(handle).with_state(shared).merge(self.routes);
        match self.listener {
            Listener::Tcp(listener) => until(listener, router, shutdown).await,
            Listener::Unix(listener, _file) => until(listener, router, shutdown).await,
        }
    }
}

async fn until<L>(listener: L, router: Router, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(Lingering(listener), router).with_graceful_shutdown(async move {
        let _ = stopped.await;
    });
    let mut serving = pin!(serving.into_future());
    tokio::select! {
        ended = &mut serving => return ended.map_err(Error::Serve),
        () = shutdown => {}
    }
    drop(stop);
    match tokio::time::timeout(SHUTDOWN_GRACE, serving).await {
        Ok(ended) => ended.map_err(Error::Serve),
        Err(_) => {
            tracing::warn!(grace_seconds = SHUTDOWN_GRACE.as_secs(), "stopped while calls were running");
            Ok(())
        }
    }
}

/// Connections that close without losing their last answer, and say why a request cannot be read.
struct Lingering<L>(L);

impl<L: axum::serve::Listener> axum::serve::Listener for Lingering<L> {
    type Io = Worded<Linger<L::Io>>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = self.0.accept().await;
        (Worded::new(Linger::new(stream), unread), address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

fn unread(_: u16, why: &'static str) -> Document {
    Document { content_type: "text/plain; charset=utf-8", body: why.as_bytes().to_vec() }
}

struct Shared {
    methods: BTreeMap<String, Method>,
    calls: Arc<Semaphore>,
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    match attempt(shared, request).await {
        Ok(body) => envelope::ok(body),
        Err(refusal) => envelope::refused(refusal),
    }
}

async fn attempt(shared: Arc<Shared>, request: Request) -> Result<Option<Bytes>, Refusal> {
    if request.uri().path() != rpc::DEFAULT_PATH {
        let text = format!("calls are answered on {} only", rpc::DEFAULT_PATH);
        return Err(Refusal(StatusCode::NOT_FOUND, text));
    }
    envelope::check_head(request.method(), request.headers())?;
    let caller = Caller::of(request.headers());
    let body = read_body(request).await?;
    let (name, params, id) = envelope::parse(&body)?;
    let method = shared
        .methods
        .get(&name)
        .ok_or_else(|| envelope::bad(format!("unknown method {name:?} (names are case-sensitive)")))?;
    let answer_id = id.clone().unwrap_or(Value::Null);
    let running = method(params, caller, answer_id.clone())
        .map_err(|error| envelope::bad(format!("params of {name} cannot be read: {error}")))?;
    let permit = Arc::clone(&shared.calls).acquire_owned().await.expect("the semaphore is never closed");
    let task = tokio::spawn(async move {
        let _permit = permit;
        running.await
    });
    let body = task.await.unwrap_or_else(|error| {
        tracing::error!(method = name, %error, "a method panicked");
        let text = format!("failed: {name} stopped by a defect of the sub-agent; its log says where");
        envelope::error(&text, &answer_id)
    });
    Ok(id.is_some().then_some(body))
}

async fn read_body(request: Request) -> Result<Bytes, Refusal> {
    let reading = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            let text = format!("a call's body has at most {MAX_BODY_BYTES} bytes");
            Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, text))
        }
        Ok(Err(error)) => Err(envelope::bad(format!("body cannot be read: {error}"))),
        Err(_) => {
            let text = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            Err(Refusal(StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}
