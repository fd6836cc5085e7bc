//! The typed client of `/v1`: one builder, and an endpoint's type says everything else.
//!
//! ```no_run
//! # async fn example() -> Result<(), haar_api::client::ClientError> {
//! use haar_api::{client::Client, table, v1};
//! let client = Client::new("http://127.0.0.1:8600", Some("secret".to_owned()))?;
//! let page = client.request::<table::GuestList>(&[]).send(&haar_api::endpoint::Nothing).await?;
//! let guests: v1::List<v1::GuestView> = page.value;
//! # drop(guests); Ok(()) }
//! ```
//! Errors tell apart: nobody listens, no answer in time, the server's reasoned no ([`Problem`]), and an
//! answer that is not Haar's. Deliberately absent: retries (the caller knows what is safe to ask twice)
//! and TLS (plain HTTP is for loopback and trusted networks).

mod body;
mod error;
mod events;
mod stream;

use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use crate::endpoint::{Endpoint, Payload};
use crate::problem::{PROBLEM_JSON, Problem};

pub use body::Sent;
pub use error::ClientError;
pub use events::{EventReader, Message};
pub use stream::{ByteReader, Duplex};

/// The protocol named in `Upgrade` for consoles and agents' streams.
pub const UPGRADE_PROTOCOL: &str = "haar-stream";

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long an ordinary request may take unless its caller says otherwise.
const ORDINARY_LIMIT: Duration = Duration::from_secs(30);
/// The most bytes read of an answer that is not streamed.
const MOST_ANSWER: usize = 64 << 20;

/// A client of one controller. Cheap to clone; connections are shared.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    token: Option<HeaderValue>,
    http: hyper_util::client::legacy::Client<HttpConnector, Sent>,
}

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Answered<T> {
    /// 200, 201 or 202.
    pub status: u16,
    /// The object.
    pub value: T,
    /// Its revision, for `If-Match`.
    pub etag: Option<String>,
    /// For 202: the job's path.
    pub location: Option<String>,
    /// The answer's bytes as they came.
    pub body: Bytes,
}

impl<T> Answered<T> {
    /// Whether a job was begun that has not ended yet.
    pub fn is_under_way(&self) -> bool {
        self.status == 202
    }

    /// The id of the job in `Location`.
    pub fn job(&self) -> Option<&str> {
        self.location.as_deref()?.rsplit('/').next()
    }
}

impl Client {
    /// A client of the controller at `url` (`http://host:port`), with a bearer token.
    ///
    /// # Errors
    /// [`ClientError::BadUrl`] when `url` is not of that form, [`ClientError::BadToken`] when the token cannot
    /// stand in a header.
    pub fn new(url: &str, token: Option<String>) -> Result<Client, ClientError> {
        let bad = || ClientError::BadUrl(url.to_owned());
        let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| bad())?;
        let plain =
            uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/") && uri.query().is_none();
        let authority = uri.authority().filter(|_| plain).ok_or_else(bad)?.to_string();
        let bearer = |token: String| {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::BadToken)?;
            value.set_sensitive(true);
            Ok(value)
        };
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        connector.set_nodelay(true);
        Ok(Client {
            authority,
            token: token.map(bearer).transpose()?,
            http: hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Host and port of the controller.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Begins a request to an endpoint; `path` fills its path parameters in order.
    pub fn request<'a, E: Endpoint>(&'a self, path: &[&str]) -> Call<'a, E> {
        let mut values = path.iter();
        let filled: Vec<String> = E::PATH
            .split('/')
            .map(|part| match part.starts_with('{') {
                true => values.next().map(|value| escape(value)).unwrap_or_default(),
                false => part.to_owned(),
            })
            .collect();
        Call {
            client: self,
            path: filled.join("/"),
            query: E::Query::default(),
            if_match: None,
            limit: ORDINARY_LIMIT,
            endpoint: PhantomData,
        }
    }
}

fn escape(value: &str) -> String {
    const SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    utf8_percent_encode(value, SET).to_string()
}

/// A request being put together.
#[derive(Debug)]
pub struct Call<'a, E: Endpoint> {
    client: &'a Client,
    path: String,
    query: E::Query,
    if_match: Option<String>,
    limit: Duration,
    endpoint: PhantomData<E>,
}

impl<E: Endpoint> Call<'_, E> {
    /// With these query parameters.
    #[must_use]
    pub fn query(mut self, query: E::Query) -> Self {
        self.query = query;
        self
    }

    /// Only when the object still has this revision.
    #[must_use]
    pub fn if_match(mut self, etag: impl Into<String>) -> Self {
        self.if_match = Some(etag.into());
        self
    }

    /// Gives up after this long; 30 s unless said. Give a waiting request its wait and some more.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends it and reads the answer.
    ///
    /// # Errors
    /// [`ClientError`]; the server's no is [`ClientError::Problem`].
    pub async fn send(self, body: &E::Body) -> Result<Answered<E::Answer>, ClientError>
    where
        E::Answer: DeserializeOwned,
    {
        match self.poll(body).await? {
            Some(answered) => Ok(answered),
            None => Err(ClientError::NoContent),
        }
    }

    /// Like [`Call::send`]; None when the server has nothing to say (204).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn poll(self, body: &E::Body) -> Result<Option<Answered<E::Answer>>, ClientError>
    where
        E::Answer: DeserializeOwned,
    {
        let (limit, body) = (self.limit, encoded(body)?);
        let exchange = async {
            let answer = self.answer(body).await?;
            if answer.status() == StatusCode::NO_CONTENT {
                return Ok(None);
            }
            read_answer(answer).await.map(Some)
        };
        within(limit, exchange).await
    }

    /// Sends it where nothing is answered but "done".
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_only(self, body: &E::Body) -> Result<(), ClientError> {
        let (limit, body) = (self.limit, encoded(body)?);
        within(limit, async { self.answer(body).await.map(drop) }).await
    }

    /// Sends `length` bytes of `reader` as the body and calls `progress` with the bytes sent so far.
    /// The limit counts from the last progress.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upload<R>(
        self,
        reader: R,
        length: u64,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Answered<E::Answer>, ClientError>
    where
        R: tokio::io::AsyncRead + Send + 'static,
        E::Answer: DeserializeOwned,
    {
        let limit = self.limit;
        let (body, activity) = Sent::reader(reader, length, progress);
        let exchange = async { read_answer(self.answer(body).await?).await };
        activity.within(limit, exchange).await
    }

    /// Sends it and gives the answer's bytes as they come; the limit counts only until they begin.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stream(self, body: &E::Body) -> Result<ByteReader, ClientError> {
        let (limit, body) = (self.limit, encoded(body)?);
        let answer = within(limit, self.answer(body)).await?;
        Ok(ByteReader::new(answer))
    }

    /// Opens the event stream.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(self, body: &E::Body) -> Result<EventReader, ClientError> {
        self.stream(body).await.map(EventReader::new)
    }

    /// Asks for an upgrade and gives the raw bytes both ways.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn upgrade(self) -> Result<Duplex, ClientError> {
        let limit = self.limit;
        let exchange = async {
            let mut request = self.build(Sent::empty())?;
            let headers = request.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static(UPGRADE_PROTOCOL));
            let answer = self.exchange(request).await?;
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = answer.status().as_u16();
                return Err(ClientError::NotHaar { status, text: "no upgrade was made".to_owned() });
            }
            let upgraded = hyper::upgrade::on(answer).await.map_err(ClientError::broken)?;
            Ok(Duplex::new(upgraded))
        };
        within(limit, exchange).await
    }

    async fn answer(&self, body: Sent) -> Result<Response<Incoming>, ClientError> {
        let request = self.build(body)?;
        self.exchange(request).await
    }

    async fn exchange(&self, request: Request<Sent>) -> Result<Response<Incoming>, ClientError> {
        let sent = self.client.http.request(request).await;
        let answer = sent.map_err(|error| ClientError::from_transport(error, &self.client.authority))?;
        if answer.status().is_success() || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        Err(read_problem(answer).await)
    }

    fn build(&self, body: Sent) -> Result<Request<Sent>, ClientError> {
        let query = serde_urlencoded::to_string(&self.query).map_err(ClientError::Query)?;
        let mark = if query.is_empty() { "" } else { "?" };
        let uri = format!("http://{}{}{mark}{query}", self.client.authority, self.path);
        let method = Method::from_bytes(E::METHOD.as_bytes()).expect("the table has only known methods");
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::USER_AGENT, concat!("haar/", env!("CARGO_PKG_VERSION")))
            .header("x-request-id", uuid::Uuid::new_v4().to_string());
        if let Some(token) = &self.client.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        if let Some(etag) = &self.if_match {
            request = request.header(header::IF_MATCH, etag);
        }
        if let Some(media) = body.media() {
            request = request.header(header::CONTENT_TYPE, media);
        }
        request.body(body).map_err(|_| ClientError::BadUrl(self.path.clone()))
    }
}

fn encoded<B: Payload>(body: &B) -> Result<Sent, ClientError> {
    Ok(body.encode().map_err(ClientError::Json)?.map_or_else(Sent::empty, Sent::json))
}

async fn within<T>(
    limit: Duration,
    exchange: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(limit, exchange).await.unwrap_or(Err(ClientError::Timeout(limit)))
}

async fn read_answer<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<Answered<T>, ClientError> {
    let text = |name: header::HeaderName| {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let (status, etag, location) = (answer.status().as_u16(), text(header::ETAG), text(header::LOCATION));
    let body = read_body(answer).await?;
    let value = serde_json::from_slice(&body).map_err(ClientError::Json)?;
    Ok(Answered { status, value, etag, location, body })
}

async fn read_body(answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let collected = Limited::new(answer.into_body(), MOST_ANSWER).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(ClientError::Broken)
}

/// Reads a refusal. An answer that is no problem document comes from something in between.
async fn read_problem(answer: Response<Incoming>) -> ClientError {
    let status = answer.status().as_u16();
    let media = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_problem = media.is_some_and(|media| media.starts_with(PROBLEM_JSON));
    let bytes = match tokio::time::timeout(ORDINARY_LIMIT, read_body(answer)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return error,
        Err(_) => return ClientError::Timeout(ORDINARY_LIMIT),
    };
    if is_problem && let Ok(problem) = serde_json::from_slice::<Problem>(&bytes) {
        return ClientError::Problem(Box::new(problem));
    }
    let text: String = String::from_utf8_lossy(&bytes).chars().take(500).collect();
    ClientError::NotHaar { status, text }
}
