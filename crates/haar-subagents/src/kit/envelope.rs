//! The envelope of §2.7: what a request must look like, and the two kinds of answers.
//!
//! A call that never reached its method gets a status and plain text; a method's result or error comes as
//! 200 with JSON. Nothing here does I/O.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use haar_api::rpc;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde_json::Value;

const NO_SNIFF: (&str, &str) = ("x-content-type-options", "nosniff");

/// A call that cannot be given to a method: the status and its words.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

/// What the head of a request must be: POST, and JSON.
pub(super) fn check_head(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if method != Method::POST {
        let text = format!("a call is a POST request, not {method}");
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, text));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let text = format!("a call's Content-Type is application/json, not \"{content_type}\"");
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    Ok(())
}

/// A body's method, its one parameter and its id; null counts as no id.
pub(super) fn parse(body: &[u8]) -> Result<(String, Value, Option<Value>), Refusal> {
    #[derive(serde::Deserialize)]
    struct Loose {
        method: Option<String>,
        params: Option<Vec<Value>>,
        id: Option<Value>,
    }
    let Loose { method, params, id } =
        serde_json::from_slice(body).map_err(|error| bad(format!("body is no JSON-RPC call: {error}")))?;
    let method = method.unwrap_or_default();
    let well_formed = method
        .split_once('.')
        .is_some_and(|(service, name)| !service.is_empty() && !name.is_empty() && !name.contains('.'));
    if !well_formed {
        return Err(bad(format!("method must be \"Service.Method\", not {method:?}")));
    }
    let mut params = params.ok_or_else(|| bad("params is missing: it is an array with one object"))?;
    match (params.pop(), params.is_empty()) {
        (Some(only @ Value::Object(_)), true) => Ok((method, only, id)),
        _ => Err(bad("params must be an array with exactly one object")),
    }
}

/// The parameter as the seed's decoder takes it: null is as if it were absent (§0.3), and an empty text among labels.
/// What is Haar's own is left as it is.
pub(super) fn without_nulls(value: Value) -> Value {
    let member = |(key, value): (String, Value)| match (key.as_str(), value) {
        ("haar", value) => (!value.is_null()).then_some((key, value)),
        ("metadata" | "args", Value::Object(labels)) => {
            let text = |value: Value| if value.is_null() { Value::from("") } else { value };
            let labels = labels.into_iter().map(|(name, value)| (name, text(value))).collect();
            Some((key, Value::Object(labels)))
        }
        (_, Value::Null) => None,
        (_, value) => Some((key, without_nulls(value))),
    };
    match value {
        Value::Object(object) => Value::Object(object.into_iter().filter_map(member).collect()),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// A 400 with these words.
pub(super) fn bad(text: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, text.into())
}

/// A method's outcome as the body of a 200.
pub(super) fn answer<R: Serialize>(outcome: Result<R, rpc::Fault>, id: &Value) -> Bytes {
    let body = match outcome {
        Ok(result) => {
            serde_json::to_vec(&rpc::Response { result: Some(result), error: None, id: id.clone() })
        }
        Err(fault) => return error(&fault.to_string(), id),
    };
    match body {
        Ok(body) => body.into(),
        Err(cause) => error(&format!("failed: the result cannot be written as JSON: {cause}"), id),
    }
}

/// An error as the body of a 200.
pub(super) fn error(text: &str, id: &Value) -> Bytes {
    let body = rpc::Response::<()> { result: None, error: Some(text.to_owned()), id: id.clone() };
    serde_json::to_vec(&body).expect("strings and JSON values always serialise").into()
}

/// 200 with JSON, or with nothing when the request had no id.
pub(super) fn ok(body: Option<Bytes>) -> Response {
    let mut response = Response::new(body.map_or_else(Body::empty, Body::from));
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response.headers_mut().insert(NO_SNIFF.0, HeaderValue::from_static(NO_SNIFF.1));
    response
}

/// A refusal as plain text.
pub(super) fn refused(Refusal(status, text): Refusal) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response.headers_mut().insert(NO_SNIFF.0, HeaderValue::from_static(NO_SNIFF.1));
    response
}
