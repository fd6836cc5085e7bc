//! `PUT /images/<id>/data`: an image brought by the caller, for hosts that cannot fetch it. Haar's own.
//!
//! The query names `format` (`qcow2`, `raw`) and `sha256` (lower-case hex), and may name `type`. Hashed while it
//! streams, judged like a fetched one, seen only whole. 201 with the image as JSON, 200 when it is there already.
//! Deliberately absent: going on with an upload that broke off; it is sent again.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, Request};
use axum::response::Response;
use axum::routing::{MethodRouter, put};
use bytes::Bytes;
use haar_api::rpc::{Fault, FaultCode, ImageRequest, ImageWant};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::download::refused;
use super::methods::Store;

/// Where images are put.
pub(super) const PATH: &str = "/images/{id}/data";

/// How long a sender may be silent.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// How long a sender that was refused may go on before it is cut off.
const LINGER: Duration = Duration::from_secs(5);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wishes {
    format: String,
    sha256: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The handler.
pub(super) fn route(store: &Arc<Store>) -> MethodRouter<(), Infallible> {
    let store = Arc::clone(store);
    put(move |Path(id): Path<String>, Query(wishes): Query<Wishes>, request: Request| {
        let store = Arc::clone(&store);
        async move { answer(&store, id, wishes, request).await.unwrap_or_else(|fault| refused(&fault)) }
    })
}

async fn answer(store: &Store, id: String, wishes: Wishes, request: Request) -> Result<Response, Fault> {
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|value| value.parse::<u64>().ok());
    let wanted = ImageRequest {
        id,
        kind: wishes.kind,
        haar: Some(ImageWant {
            format: wishes.format,
            sha256: wishes.sha256,
            file_bytes: length.unwrap_or_default(),
            authorization: String::new(),
        }),
        ..ImageRequest::default()
    };
    let (sender, receiver) = mpsc::channel(16);
    let mut sending = pin!(send(request.into_body(), sender));
    let mut storing = pin!(store.fetches().upload(wanted, length, receiver));
    let mut sent = false;
    let stored = loop {
        tokio::select! {
            stored = &mut storing => break stored,
            () = &mut sending, if !sent => sent = true,
        }
    };
    if !sent {
        // A connection that is closed on a sender takes the answer with it.
        let _ = tokio::time::timeout(LINGER, sending).await;
    }
    let (image, new) = stored?;
    let body = serde_json::to_vec(&image).map_err(|error| {
        Fault::new(FaultCode::Failed, format!("the image cannot be written as JSON: {error}"))
    })?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = if new { StatusCode::CREATED } else { StatusCode::OK };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Hands the body on for as long as anybody takes it, and reads it to its end.
async fn send(mut body: Body, sender: mpsc::Sender<Result<Bytes, Fault>>) {
    let broken = |text: String| Err(Fault::new(FaultCode::Unavailable, text));
    loop {
        let piece = match tokio::time::timeout(SILENCE_LIMIT, body.frame()).await {
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => Ok(bytes),
                _ => continue,
            },
            Ok(Some(Err(error))) => broken(format!("the upload broke off: {error}; send the image again")),
            Ok(None) => Ok(Bytes::new()),
            Err(_) => broken(format!("nothing came for {} s; send the image again", SILENCE_LIMIT.as_secs())),
        };
        let last = piece.as_ref().map_or(true, Bytes::is_empty);
        let _ = sender.send(piece).await;
        if last {
            return;
        }
    }
}
