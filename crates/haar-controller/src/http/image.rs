//! Images' bytes: up from a client, down to a client or an agent.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use haar_api::problem::ErrorCode;
use haar_api::table::{AgentImage, ImageDownload, ImageUpload};
use haar_core::fleet::command::Command;
use haar_core::id::{ImageId, Kind};
use haar_core::image::{Image, Source};
use haar_core::refusal::Refusal;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderValue};
use tokio_util::io::ReaderStream;

use super::App;
use super::ask::{Ask, require_media};
use super::noun::object;
use super::reply::{No, Reply, not_found, text};
use crate::engine::{Failure, chain};
use crate::images::{self, Told};
use crate::wire::image::Images;

/// Bytes read from the disk at a time.
const CHUNK: usize = 256 << 10;

/// `PUT /v1/images/{ref}/data`. The bytes are durable before the books say that they are there.
pub(crate) async fn upload(ask: Ask<ImageUpload>, request: Request) -> Reply {
    require_media(&ask.headers, "application/octet-stream")?;
    let app = &ask.app;
    let id = ImageId(app.look(|look| ask.resolve(Kind::Image, ask.query.project.as_ref(), look))?);
    let record = app.look(|look| look.fleet.image(id).cloned()).ok_or_else(|| not_found(Kind::Image, &id))?;
    let expected = expected(ask.query.sha256.as_ref())?;
    if let Some(answer) = already(app, &record, expected.as_deref())? {
        return Ok(answer);
    }
    let told = Told { id, format: record.spec.format, sha256: expected, patience: app.limits.upload_silence };
    let data = app.images.take(&told, request.into_body().into_data_stream()).await?;
    match app.engine.submit(Command::ImageReady(id, data)).await {
        Ok(_) => object::<Images>(app, StatusCode::OK, id.0),
        Err(failure) => {
            // After an unknown outcome the books may name these bytes: they stay.
            if let Failure::Refused(Refusal::NotFound { .. }) = failure {
                app.images.remove(id).await;
            }
            Err(failure.into())
        }
    }
}

fn expected(text: Option<&String>) -> Result<Option<String>, No> {
    let Some(text) = text else { return Ok(None) };
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Some(text.to_ascii_lowercase()));
    }
    Err(No::of(ErrorCode::BadQuery, "sha256 is 64 hex digits").about("sha256"))
}

/// The answer when there is nothing to be done, or nothing may be.
fn already(app: &App, record: &Image, expected: Option<&str>) -> Result<Option<Response>, No> {
    if let Source::Url { url, .. } = &record.spec.source {
        let message =
            format!("image `{}` is fetched from {url}; nothing is uploaded to it", record.spec.name);
        return Err(No::of(ErrorCode::ImageNotUpload, message));
    }
    match &record.data {
        None => Ok(None),
        Some(data) if expected == Some(data.sha256.as_str()) => {
            Ok(Some(object::<Images>(app, StatusCode::OK, record.id.0)?))
        }
        Some(_) => {
            let message = format!(
                "image `{}` has its bytes, which never change; make another image for other bytes",
                record.spec.name
            );
            Err(No::of(ErrorCode::ImageHasData, message))
        }
    }
}

/// `GET /v1/images/{ref}/data`.
pub(crate) async fn download(ask: Ask<ImageDownload>) -> Reply {
    let id = ask.app.look(|look| ask.resolve(Kind::Image, ask.query.project.as_ref(), look))?;
    send(&ask.app, ImageId(id)).await
}

/// `GET /v1/agent/images/{id}/data`: of the images its guests are cloned from.
pub(crate) async fn for_agent(ask: Ask<AgentImage>) -> Reply {
    let (id, hypervisor) = (ImageId(ask.id()?), ask.who.hypervisor);
    let needed = ask.app.look(|look| look.fleet.guests_on(hypervisor).any(|guest| guest.image == id));
    if !needed {
        // What it may not have is not told apart from what is not there.
        return Err(not_found(Kind::Image, &id));
    }
    send(&ask.app, id).await
}

async fn send(app: &App, id: ImageId) -> Reply {
    let record = app.look(|look| look.fleet.image(id).cloned()).ok_or_else(|| not_found(Kind::Image, &id))?;
    if let Source::Url { url, .. } = &record.spec.source {
        let message = format!("the bytes of image `{}` are at {url}, not here", record.spec.name);
        return Err(No::of(ErrorCode::ImageNotUpload, message));
    }
    if record.data.is_none() {
        return Err(Refusal::ImageNotReady { image: record.spec.name.clone() }.into());
    }
    let (file, length) = app.images.read(id).await.map_err(|error| {
        tracing::error!(image = %id, %error, "the bytes of an image cannot be read");
        No::of(ErrorCode::Internal, "the image's bytes cannot be read; the controller's log knows why")
    })?;
    let body = Body::from_stream(ReaderStream::with_capacity(file, CHUNK));
    let mut response = text(StatusCode::OK, "application/octet-stream", body);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

impl From<images::Error> for No {
    fn from(error: images::Error) -> No {
        let code = match &error {
            images::Error::Busy => ErrorCode::ImageHasData,
            images::Error::Checksum { .. } => ErrorCode::ImageChecksum,
            images::Error::Format(_) => ErrorCode::ImageBadFormat,
            images::Error::TooLarge(_) => ErrorCode::BodyTooLarge,
            images::Error::NoSpace => ErrorCode::ImageNoSpace,
            images::Error::Stopped => ErrorCode::RequestTimeout,
            images::Error::Io(_) => {
                tracing::error!(error = %chain(&error), "an upload cannot be written");
                ErrorCode::Internal
            }
        };
        No::of(code, error.to_string())
    }
}
