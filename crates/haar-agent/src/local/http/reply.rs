//! What is answered: JSON as the seed writes it, its error body, its redirects, its 404.

use bytes::Bytes;
use haar_api::agent::{Fault, go};
use haar_api::unread::Document;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use uuid::Uuid;

use crate::local::cloud;
use crate::local::engine::Stopped;
use crate::local::hands::Failure;
use crate::local::runners::Refused;
use crate::local::throttle::TooMany;

/// The body of any answer.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
/// What a handler gives.
pub(super) type Answer = Result<Response<Body>, Fail>;

/// The header with a job's id.
const JOB_HEADER: &str = "x-guest-job-id";

/// A no, or a failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fail {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Fail {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Fail {
        Fail { status, message: message.into() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Fail {
        Fail::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Fail {
        Fail::new(StatusCode::NOT_FOUND, message)
    }

    /// As the seed's full form.
    pub(super) fn response(self) -> Response<Body> {
        let fault = Fault { message: self.message, code: self.status.as_u16(), stack: Vec::new() };
        json(self.status, &fault)
    }
}

impl From<Refused> for Fail {
    fn from(refused: Refused) -> Fail {
        let status = match &refused {
            Refused::NoSuchGuest(_) | Refused::NoSuchJob(_) | Refused::NotConfigured(_) => {
                StatusCode::NOT_FOUND
            }
            Refused::Exists(_)
            | Refused::BeingDeleted(_)
            | Refused::MacTaken { .. }
            | Refused::NotMade(_)
            | Refused::HasBegun(_)
            | Refused::HasEnded(_) => StatusCode::CONFLICT,
            Refused::QueueFull { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refused::TooManyLabels(_) => StatusCode::BAD_REQUEST,
        };
        Fail::new(status, refused.to_string())
    }
}

impl From<cloud::Error> for Fail {
    fn from(error: cloud::Error) -> Fail {
        let status = match &error {
            cloud::Error::Theirs { .. } | cloud::Error::Refused(haar_core::node::Refused::NotLocal(_)) => {
                StatusCode::CONFLICT
            }
            cloud::Error::Refused(haar_core::node::Refused::NoSuchGuest(_)) => StatusCode::NOT_FOUND,
            cloud::Error::Refused(_) | cloud::Error::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Fail::new(status, error.to_string())
    }
}

impl From<Stopped> for Fail {
    fn from(stopped: Stopped) -> Fail {
        Fail::new(StatusCode::SERVICE_UNAVAILABLE, stopped.to_string())
    }
}

impl From<Failure> for Fail {
    fn from(failure: Failure) -> Fail {
        Fail::new(StatusCode::INTERNAL_SERVER_ERROR, failure.message)
    }
}

/// A document.
pub(super) fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Body> {
    match go::to_vec(value) {
        Ok(bytes) => bytes_of(status, "application/json", bytes),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            bytes_of(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", Vec::new())
        }
    }
}

/// A document, well.
pub(super) fn ok<T: Serialize + ?Sized>(value: &T) -> Answer {
    Ok(json(StatusCode::OK, value))
}

/// With the job's id.
pub(super) fn with_job(mut response: Response<Body>, job: Uuid) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(&job.to_string()) {
        response.headers_mut().insert(JOB_HEADER, value);
    }
    response
}

/// To a request that cannot be read, before there is one.
pub(super) fn unread(status: u16, why: &'static str) -> Document {
    let fault = Fault { message: why.to_owned(), code: status, stack: Vec::new() };
    // Words and a number are JSON.
    Document { content_type: "application/json", body: go::to_vec(&fault).unwrap_or_default() }
}

/// Text.
pub(super) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    bytes_of(status, "text/plain; charset=utf-8", text.into().into_bytes())
}

/// The seed's router's own words.
pub(super) fn no_such_page() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// To whoever has no token, whatever was asked.
pub(super) fn not_admitted() -> Response<Body> {
    let words = "a token is needed: Authorization: Bearer TOKEN, or TOKEN as the password of Basic\n";
    let mut response = text(StatusCode::UNAUTHORIZED, words);
    let ways = HeaderValue::from_static("Bearer, Basic realm=\"agent\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, ways);
    response
}

/// Sends the client to a path and query, both encoded.
pub(super) fn moved(location: &str) -> Response<Body> {
    let words = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", location.replace('&', "&amp;"));
    let mut response =
        bytes_of(StatusCode::MOVED_PERMANENTLY, "text/html; charset=utf-8", words.into_bytes());
    match HeaderValue::from_str(location) {
        Ok(value) => {
            response.headers_mut().insert(header::LOCATION, value);
            response
        }
        Err(_) => no_such_page(),
    }
}

/// What is passed on as it comes.
pub(super) fn stream(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = with_type(status, "application/octet-stream", body);
    response.headers_mut().extend(headers);
    response
}

fn bytes_of(status: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let body = Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
    with_type(status, kind, body)
}

fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl From<TooMany> for Fail {
    fn from(TooMany: TooMany) -> Fail {
        let words = "too many requests of this sort are under way for the guest; try again shortly";
        Fail::new(StatusCode::TOO_MANY_REQUESTS, words)
    }
}
