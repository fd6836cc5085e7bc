//! A JSON body: its media type, its length, its time, and that it is what the path takes.
//!
//! Deliberately absent: what the values mean; that is for the endpoint and the core.

use std::time::Duration;

use axum::extract::Request;
use haar_api::endpoint::Access;
use haar_api::problem::ErrorCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ask::{shorten, unknown_field};
use super::reply::No;

/// How long a JSON body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Reads a JSON body of at most `limit` bytes, from a caller of this access.
pub(crate) async fn read_json<T: DeserializeOwned + Serialize>(
    request: Request,
    limit: usize,
    access: Access,
) -> Result<T, No> {
    require_media(request.headers(), "application/json")?;
    let too_large = || No::of(ErrorCode::BodyTooLarge, format!("the body has more than {limit} bytes"));
    let told =
        request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|told| told > limit) {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(request.into_body(), limit).collect()).await;
    let body = match collected {
        Err(_) => return Err(No::of(ErrorCode::RequestTimeout, "the body did not arrive in time")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(No::of(ErrorCode::BadJson, "the body ended before its length")),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    let read: Result<T, _> = serde_json::from_slice(&body);
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    match read {
        Err(error) if is_list && error.is_data() => Err(list_for_object("it")),
        Err(error) => Err(bad_json(&error)),
        // What agents send is long, frequent, and not typed by hand.
        Ok(read) if access == Access::AgentSelf => Ok(read),
        Ok(read) => only_objects(&body, read),
    }
}

/// Refuses lists where objects belong: serde reads a list of values in the fields' order too, and nobody
/// means that.
fn only_objects<T: Serialize>(body: &[u8], read: T) -> Result<T, No> {
    if !body.contains(&b'[') {
        return Ok(read);
    }
    let sent = serde_json::from_slice(body).map_err(|error| bad_json(&error))?;
    let meant = serde_json::to_value(&read).map_err(|error| bad_json(&error))?;
    match list_in_place(&sent, &meant) {
        None => Ok(read),
        Some(at) if at.is_empty() => Err(list_for_object("it")),
        Some(at) => {
            let at = shorten(at.trim_start_matches('.'));
            Err(list_for_object(&format!("`{at}`")).about(at))
        }
    }
}

/// Where a list was sent for what is written as an object, as in `.rules[2]`.
fn list_in_place(sent: &Value, meant: &Value) -> Option<String> {
    match (sent, meant) {
        (Value::Array(_), Value::Object(_)) => Some(String::new()),
        (Value::Array(sent), Value::Array(meant)) => {
            let mut pairs = sent.iter().zip(meant).enumerate();
            pairs.find_map(|(at, (sent, meant))| Some(format!("[{at}]{}", list_in_place(sent, meant)?)))
        }
        (Value::Object(sent), Value::Object(meant)) => sent
            .iter()
            .find_map(|(key, sent)| Some(format!(".{key}{}", list_in_place(sent, meant.get(key)?)?))),
        _ => None,
    }
}

fn list_for_object(what: &str) -> No {
    No::of(
        ErrorCode::BadJson,
        format!("the body does not fit: {what} is a list, and this path takes an object"),
    )
}

/// Refuses a body of another media type.
pub(crate) fn require_media(headers: &HeaderMap, wanted: &str) -> Result<(), No> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case(wanted) {
        return Ok(());
    }
    let message = if given.is_empty() {
        format!("say what the body is: Content-Type: {wanted}")
    } else {
        format!("the body is {}; this path takes {wanted}", shorten(given))
    };
    Err(No::of(ErrorCode::UnsupportedMediaType, message))
}

fn bad_json(error: &serde_json::Error) -> No {
    let message = error.to_string();
    if let Some(field) = unknown_field(&message) {
        return No::of(ErrorCode::UnknownField, shorten(&message)).about(field);
    }
    let what = if error.is_data() { "the body does not fit" } else { "the body is not JSON" };
    No::of(ErrorCode::BadJson, format!("{what}: {}", shorten(&message)))
}
