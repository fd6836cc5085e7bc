//! The connection to a cloud: requests with a token, a new token when one runs out, answers as they came.
//!
//! One [`Ask`] is one request. A 401 gets a new login and the same request once more, since a request
//! with a bad token did nothing; nothing else is ever tried again here. A login that is refused is refused for
//! all who wait for one: many attempts lock an account. Whatever is no success becomes an
//! error by [`haar_cloud::fault`]. An answer has a largest size, and a longest time.

use std::sync::Arc;
use std::time::Duration;

use haar_cloud::fault::Answer;
use haar_cloud::turns::{Turn, Turns};
use haar_cloud::{Class, Error, Result};
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Settings;

mod catalog;
mod field;
mod login;
mod path;
mod trouble;

pub(crate) use catalog::Service;
pub(crate) use path::{path, query};

use field::Field;
use login::Session;

/// How long one connection, and one answer, may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const ANSWER_LIMIT: Duration = Duration::from_secs(90);
/// How long a login that was refused is not tried again: a lock after some attempts is no help to anybody.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// The most bytes of an answer; a list of ten thousand servers has some 30 million.
const ANSWER_MAX: usize = 64 << 20;
/// The most pages of a list.
const PAGES_MAX: usize = 10_000;

/// One request.
pub(crate) struct Ask<'a> {
    service: Service,
    method: Method,
    path: String,
    body: Option<Value>,
    /// What it is about, for a message: a kind and a name or id.
    kind: &'a str,
    name: &'a str,
}

impl<'a> Ask<'a> {
    fn new(service: Service, method: Method, path: impl Into<String>) -> Self {
        Self { service, method, path: path.into(), body: None, kind: "", name: "" }
    }

    pub(crate) fn get(service: Service, path: impl Into<String>) -> Self {
        Self::new(service, Method::GET, path)
    }

    pub(crate) fn post(service: Service, path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(service, Method::POST, path) }
    }

    pub(crate) fn put(service: Service, path: impl Into<String>, body: Value) -> Self {
        Self { body: Some(body), ..Self::new(service, Method::PUT, path) }
    }

    /// A PUT that has everything in its path.
    pub(crate) fn put_empty(service: Service, path: impl Into<String>) -> Self {
        Self::new(service, Method::PUT, path)
    }

    pub(crate) fn delete(service: Service, path: impl Into<String>) -> Self {
        Self::new(service, Method::DELETE, path)
    }

    pub(crate) fn about(self, kind: &'a str, name: &'a str) -> Self {
        Self { kind, name, ..self }
    }
}

/// An answer as it came.
struct Reply {
    status: u16,
    body: Vec<u8>,
    retry_after: Option<String>,
}

impl Reply {
    fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    fn error(&self, ask: &Ask<'_>) -> Error {
        let retry_after = self.retry_after.as_deref();
        Answer { kind: ask.kind, name: ask.name, status: self.status, body: &self.body, retry_after }.error()
    }

    /// The value of one key of the answer, and where the next page is.
    fn field<T: DeserializeOwned>(&self, ask: &Ask<'_>, key: &str) -> Result<(T, Option<String>)> {
        let field = Field::read(&self.body, key).map_err(|_| self.error(ask))?;
        field.value.map(|value| (value, field.next)).ok_or_else(|| self.error(ask))
    }
}

/// A connection to one cloud, in one project and region.
pub(crate) struct Client {
    http: reqwest::Client,
    settings: Settings,
    session: Turns<Option<Arc<Session>>>,
}

impl Client {
    /// Prepares a connection; nothing is asked yet.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        // Installed once in a process; a second time changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("haar/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            // A token must not be carried to where an answer points.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &settings.ca_file {
            builder = builder.tls_certs_only(trouble::certificates(file)?);
        }
        let http = builder.build().map_err(|error| trouble::unprepared(&error))?;
        Ok(Self { http, settings, session: Turns::default() })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The project we are in.
    pub(crate) async fn project(&self) -> Result<String> {
        Ok(self.session().await?.project.clone())
    }

    /// Our project and region, in words.
    pub(crate) async fn place(&self) -> Result<String> {
        let session = self.session().await?;
        let region = session.catalog.region().unwrap_or("(none)");
        Ok(format!("project {} in region {region}", session.project))
    }

    /// Whether the catalog has a service.
    pub(crate) async fn has(&self, service: Service) -> Result<bool> {
        let session = self.session().await?;
        Ok(session.catalog.has(service))
    }

    /// The value of `key` in the answer.
    pub(crate) async fn object<T: DeserializeOwned>(&self, ask: Ask<'_>, key: &str) -> Result<T> {
        let reply = self.send(&ask).await?;
        reply.field(&ask, key).map(|(value, _)| value)
    }

    /// An answer that is one object without a key around it.
    pub(crate) async fn whole<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T> {
        let reply = self.send(&ask).await?;
        serde_json::from_slice(&reply.body).map_err(|_| reply.error(&ask))
    }

    /// A request whose answer has nothing to read.
    pub(crate) async fn done(&self, ask: Ask<'_>) -> Result<()> {
        self.send(&ask).await.map(drop)
    }

    /// A whole list, to its last page.
    pub(crate) async fn list<T: DeserializeOwned>(&self, ask: Ask<'_>, key: &str) -> Result<Vec<T>> {
        let base = ask.path.split('?').next().unwrap_or_default().to_owned();
        let mut ask = ask;
        if let Some(size) = self.settings.page_size {
            ask.path.push_str(if ask.path.contains('?') { "&" } else { "?" });
            ask.path.push_str(&format!("limit={size}"));
        }
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let reply = self.send(&ask).await?;
            let (mut page, next) = reply.field::<Vec<T>>(&ask, key)?;
            let is_empty = page.is_empty();
            all.append(&mut page);
            // Of a link only the question counts: behind a proxy it often names a host nobody can reach.
            let next = next.as_deref().and_then(|link| link.split_once('?')).map(|(_, query)| query);
            let Some(query) = next.filter(|_| !is_empty) else { return Ok(all) };
            let path = format!("{base}?{query}");
            if path == ask.path {
                break;
            }
            ask.path = path;
        }
        Err(Error::Transient {
            what: format!("the list of every {}", ask.kind),
            message: "its pages have no end".to_owned(),
            retry_after: None,
        })
    }

    async fn send(&self, ask: &Ask<'_>) -> Result<Reply> {
        let session = self.session().await?;
        let mut reply = self.send_in(&session, ask).await?;
        if reply.status == 401 {
            let session = self.renewed(&session).await?;
            reply = self.send_in(&session, ask).await?;
        }
        if reply.is_good() { Ok(reply) } else { Err(reply.error(ask)) }
    }

    async fn send_in(&self, session: &Session, ask: &Ask<'_>) -> Result<Reply> {
        let address = session.catalog.address(ask.service)?;
        let request = self
            .http
            .request(ask.method.clone(), format!("{address}{}", ask.path))
            .header("X-Auth-Token", session.token.reveal())
            .header("Accept", "application/json");
        let request = match &ask.body {
            Some(body) => request.json(body),
            None => request,
        };
        let what = format!("{} {}", ask.kind, ask.name);
        read(trouble::sent(request, &what).await?, &what).await
    }

    /// The login that counts now; a new one if there is none, or it is about to run out.
    async fn session(&self) -> Result<Arc<Session>> {
        let mut held = self.session.turn().await;
        if let Some(session) = held.as_ref().filter(|session| !session.runs_out()) {
            return Ok(Arc::clone(session));
        }
        self.log_in(&mut held).await
    }

    /// A login other than `old`. Of many that find out at once, one logs in.
    async fn renewed(&self, old: &Arc<Session>) -> Result<Arc<Session>> {
        let mut held = self.session.turn().await;
        if let Some(session) = held.as_ref().filter(|session| !Arc::ptr_eq(session, old)) {
            return Ok(Arc::clone(session));
        }
        self.log_in(&mut held).await
    }

    async fn log_in(&self, held: &mut Turn<'_, Option<Arc<Session>>>) -> Result<Arc<Session>> {
        let refusal = held.failure_within(REFUSED_FOR).filter(|error| error.class() == Class::Auth);
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let session = Arc::new(held.ask(self.ask_for_session()).await?);
        **held = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn ask_for_session(&self) -> Result<Session> {
        let url = format!("{}/auth/tokens", login::keystone(&self.settings.auth_url));
        let body = login::request(&self.settings);
        let what = format!("Keystone {}", self.settings.auth_url);
        let sent = trouble::sent(self.http.post(&url).json(&body), &what).await?;
        let token = sent.headers().get("X-Subject-Token").and_then(|token| token.to_str().ok());
        let token = token.map(str::to_owned);
        let reply = read(sent, &what).await?;
        let ask = Ask::new(Service::Compute, Method::POST, "").about("Keystone", &self.settings.auth_url);
        let (true, Some(token)) = (reply.is_good(), token) else {
            return Err(match reply.error(&ask) {
                Error::Auth { message } => {
                    let origin = &self.settings.origin;
                    Error::Auth { message: format!("{what} says: {message}; the login is from {origin}") }
                }
                other => other,
            });
        };
        let (told, _) = reply.field::<login::Told>(&ask, "token")?;
        Session::new(token, told, &self.settings)
    }
}

/// Reads an answer, whatever it is.
async fn read(mut response: Response, what: &str) -> Result<Reply> {
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let mut reply = Reply {
        status: response.status().as_u16(),
        retry_after: retry_after.map(str::to_owned),
        body: Vec::new(),
    };
    while let Some(part) = response.chunk().await.map_err(|error| trouble::cut_off(what, &error))? {
        if reply.body.len() + part.len() > ANSWER_MAX {
            return Err(Error::Refused {
                what: what.to_owned(),
                status: reply.status,
                message: format!("the answer has more than {} MB", ANSWER_MAX >> 20),
            });
        }
        reply.body.extend_from_slice(&part);
    }
    Ok(reply)
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}
