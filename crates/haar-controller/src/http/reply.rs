//! Answers: JSON, problems, and the headers that go with them.

use axum::body::Body;
use axum::response::Response;
use haar_api::problem::{ErrorCode, PROBLEM_JSON, Problem};
use haar_core::fence::Revision;
use haar_core::id::{JobId, Kind};
use haar_core::refusal::Refusal;
use http::header::{CONNECTION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, UPGRADE};
use http::{StatusCode, header};
use serde::Serialize;
use uuid::Uuid;

use crate::engine::Failure;
use crate::wire;

/// The id of a request, in every answer and log line.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What a connection is upgraded to.
pub(crate) const HAAR_STREAM: &str = "haar-stream";

/// A handler's answer.
pub(crate) type Reply = Result<Response, No>;

/// A problem instead of an answer.
#[derive(Debug)]
pub(crate) struct No(pub(crate) Box<Problem>);

impl No {
    /// A problem of the shell's own.
    pub(crate) fn of(code: ErrorCode, message: impl Into<String>) -> No {
        No(Box::new(Problem::of(code, message)))
    }

    /// The same, about this field.
    pub(crate) fn about(mut self, field: impl Into<String>) -> No {
        self.0.fields.push(field.into());
        self
    }

    /// As an answer to the request of this id.
    pub(crate) fn response(mut self, request_id: &str) -> Response {
        self.0.request_id = request_id.to_owned();
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = Response::new(Body::from(bytes(&*self.0)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(UPGRADE, HeaderValue::from_static(HAAR_STREAM));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        response
    }
}

impl From<Failure> for No {
    fn from(failure: Failure) -> No {
        No(Box::new(wire::refusal::failure(&failure)))
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> No {
        No(Box::new(wire::refusal::problem(&refusal)))
    }
}

impl From<haar_store::Error> for No {
    fn from(error: haar_store::Error) -> No {
        tracing::error!(error = %crate::engine::chain(&error), "the store cannot be read");
        No::of(ErrorCode::NotReady, "the store does not answer now; ask again shortly")
    }
}

/// There is no such thing.
pub(crate) fn not_found(kind: Kind, reference: &impl ToString) -> No {
    Refusal::NotFound { kind, reference: reference.to_string(), closest: None }.into()
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, view: &impl Serialize) -> Response {
    let mut response = Response::new(Body::from(bytes(view)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A text answer.
pub(crate) fn text(status: StatusCode, media: &'static str, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The same answer with the object's revision as its ETag.
pub(crate) fn tagged(mut response: Response, revision: Revision) -> Response {
    let value = HeaderValue::from_str(&format!("\"{revision}\""));
    response.headers_mut().insert(ETAG, value.expect("digits and quotes are a header's value"));
    response
}

/// The same answer, saying where the object is.
pub(crate) fn located(mut response: Response, kind: Kind, id: Uuid) -> Response {
    let value = HeaderValue::from_str(&format!("/v1/{kind}s/{id}"));
    response.headers_mut().insert(LOCATION, value.expect("a path of plain letters is a header's value"));
    response
}

/// The same answer, saying where the job is that will finish it.
pub(crate) fn at_job(response: Response, job: JobId) -> Response {
    located(response, Kind::Job, job.0)
}

fn bytes(view: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(view).expect("a view has string keys and serialises into memory, which does not fail")
}
