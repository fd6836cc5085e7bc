//! What every request goes through: its id, the limit on headers, the log line, the count.
//!
//! Changes are the audit log: who, when, what, at `info`; reads are told at `debug`. A handler that meets
//! a defect costs its own request only.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::FutureExt;
use haar_api::problem::ErrorCode;
use haar_core::name::Name;
use http::{HeaderMap, HeaderValue, Method};
use tower::ServiceExt;

use super::App;
use super::reply::{No, REQUEST_ID};

/// The most bytes of all headers together; the reader itself stops at twice this.
pub(crate) const MOST_HEADERS: usize = 32 << 10;

/// A request's id, among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Who asked, among the answer's extensions.
#[derive(Debug, Clone)]
pub(crate) struct AskedBy(pub(crate) Name);

/// Answers one request.
pub(crate) async fn handle(
    app: Arc<App>,
    router: Router,
    mut request: Request,
) -> Result<Response, Infallible> {
    let began = Instant::now();
    let _under_way = app.engine.metrics.request();
    let id = request_id(request.headers());
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = if headers_size(request.headers()) > MOST_HEADERS {
        let message = format!("the headers have more than {MOST_HEADERS} bytes");
        No::of(ErrorCode::HeaderTooLarge, message).response(&id)
    } else {
        let answering = AssertUnwindSafe(router.oneshot(request)).catch_unwind();
        match answering.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => {
                tracing::error!(request_id = %id, %method, path, "a handler met a defect");
                No::of(ErrorCode::Internal, "something broke in the controller; its log knows more")
                    .response(&id)
            }
        }
    };
    app.engine.metrics.answered(response.status().as_u16());
    log(&method, &path, &id, &response, began);
    let value = HeaderValue::from_str(&id).expect("an id is made of visible ASCII characters");
    response.headers_mut().insert(REQUEST_ID, value);
    Ok(response)
}

/// The caller's id for the request when it is a sane one, else a new one.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let sane = |text: &&str| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sane);
    given.map_or_else(|| hex::encode(crate::auth::random::<8>()).into(), Into::into)
}

fn headers_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

fn log(method: &Method, path: &str, id: &str, response: &Response<Body>, began: Instant) {
    let status = response.status().as_u16();
    let by = response.extensions().get::<AskedBy>().map(|by| by.0.to_string()).unwrap_or_default();
    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let is_agent_talk = path.starts_with("/v1/agent/");
    if method.is_safe() || is_agent_talk {
        tracing::debug!(request_id = id, by, %method, path, status, ms, "answered");
    } else {
        tracing::info!(request_id = id, by, %method, path, status, ms, "change");
    }
}
