//! Images' bytes: up from a client, down to a client or an agent.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::StreamExt;
use haar_api::problem::ErrorCode;
use haar_api::table::{AgentImage, ImageDelete, ImageDownload, ImageUpload};
use haar_core::fleet::command::{Answer, Command};
use haar_core::id::{ImageId, Kind, TokenId};
use haar_core::image::{Image, Source};
use haar_core::refusal::Refusal;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderValue};
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;

use super::App;
use super::ask::Ask;
use super::body::require_media;
use super::noun::object;
use super::reply::{No, Reply, empty, not_found, text};
use crate::engine::{Failure, chain};
use crate::images::{self, Place, Told, Whole};
use crate::wire::image::Images;

/// Bytes read from the disk at a time.
const CHUNK: usize = 256 << 10;

/// `PUT /v1/images/{ref}/data`. The bytes are durable before the books say that they are there.
pub(crate) async fn upload(ask: Ask<ImageUpload>, request: Request) -> Reply {
    require_media(&ask.headers, "application/octet-stream")?;
    let app = &ask.app;
    let id = ImageId(app.look(|look| ask.resolve(Kind::Image, ask.query.project.as_ref(), look))?);
    let expected = expected(ask.query.sha256.as_ref())?;
    if let Some(answer) = already(app, id, expected.as_deref())? {
        return Ok(answer);
    }
    let place = app.images.place(id)?;
    let format = record(app, id)?.spec.format;
    let length = ask.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let patience = app.limits.upload_silence;
    let told = Told { format, length, sha256: expected, patience };
    let whole = app.images.take(&told, request.into_body().into_data_stream()).await?;
    app.check_token(ask.who.token)?;
    // From here on the client's leaving stops nothing: the place is held until the books have answered.
    let app = Arc::clone(app);
    finish(ask.app.tasks.spawn(async move { bring_in(&app, &place, whole).await })).await
}

/// Names the bytes, and has the books name them.
async fn bring_in(app: &App, place: &Place, whole: Whole) -> Reply {
    // After a commit in doubt another's bytes may have come to light since.
    if let Some(answer) = already(app, place.id, Some(whole.sha256()))? {
        return Ok(answer);
    }
    let data = app.images.keep(place, whole).await?;
    let submitted = app.engine.submit(Command::ImageReady(place.id, data)).await;
    tidy(app, place, &submitted).await;
    submitted?;
    object::<Images>(app, StatusCode::OK, place.id.0)
}

/// Removes the bytes that the books do not name. When these are in doubt they may come to name them: then
/// nothing is removed, and the next start looks again.
async fn tidy(app: &App, place: &Place, submitted: &Result<Answer, Failure>) {
    if !matches!(submitted, Err(Failure::OutcomeUnknown | Failure::Stopping)) {
        let named = app.look(|look| images::named(look.fleet, place.id));
        app.images.keep_only(place, named).await;
    }
}

/// `DELETE /v1/images/{ref}`: the bytes go with the record, though the client may not wait for it.
pub(crate) async fn delete(ask: Ask<ImageDelete>) -> Reply {
    let id = ask.app.look(|look| ask.resolve(Kind::Image, ask.query.project.as_ref(), look))?;
    let (app, if_match) = (Arc::clone(&ask.app), ask.if_match()?);
    finish(ask.app.tasks.spawn(async move {
        let submitted = app.engine.submit(Command::Delete(Kind::Image, id, if_match)).await;
        match app.images.place(id.into()) {
            Ok(place) => tidy(&app, &place, &submitted).await,
            // An upload is under way; its end may be far.
            Err(_) => drop(app.tasks.spawn(tidy_later(Arc::clone(&app), id.into(), submitted.clone()))),
        }
        submitted?;
        Ok(empty(StatusCode::NO_CONTENT))
    }))
    .await
}

async fn tidy_later(app: Arc<App>, id: ImageId, submitted: Result<Answer, Failure>) {
    let place = app.images.wait_for_place(id).await;
    tidy(&app, &place, &submitted).await;
}

/// The answer of what goes on without its client.
async fn finish(task: JoinHandle<Reply>) -> Reply {
    task.await.unwrap_or_else(|stopped| {
        tracing::error!(%stopped, "what a request began was stopped");
        Err(No::of(ErrorCode::Internal, "something broke in the controller; its log knows more"))
    })
}

fn expected(text: Option<&String>) -> Result<Option<String>, No> {
    let Some(text) = text else { return Ok(None) };
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(Some(text.to_ascii_lowercase()));
    }
    Err(No::of(ErrorCode::BadQuery, "sha256 is 64 hex digits").about("sha256"))
}

fn record(app: &App, id: ImageId) -> Result<Arc<Image>, No> {
    app.look(|look| look.fleet.image(id).cloned()).ok_or_else(|| not_found(Kind::Image, &id))
}

/// The answer when there is nothing to be done, or nothing may be.
fn already(app: &App, id: ImageId, expected: Option<&str>) -> Result<Option<Response>, No> {
    let record = record(app, id)?;
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
    send(&ask.app, ImageId(id), ask.who.token).await
}

/// `GET /v1/agent/images/{id}/data`: of the images its guests are cloned from.
pub(crate) async fn for_agent(ask: Ask<AgentImage>) -> Reply {
    let (id, hypervisor) = (ImageId(ask.id()?), ask.who.hypervisor);
    let needed = ask.app.look(|look| look.fleet.guests_on(hypervisor).any(|guest| guest.image == id));
    if !needed {
        // What it may not have is not told apart from what is not there.
        return Err(not_found(Kind::Image, &id));
    }
    send(&ask.app, id, ask.who.token()).await
}

/// The bytes; they end early when the token is removed.
async fn send(app: &Arc<App>, id: ImageId, token: TokenId) -> Reply {
    let record = record(app, id)?;
    if let Source::Url { url, .. } = &record.spec.source {
        let message = format!("the bytes of image `{}` are at {url}, not here", record.spec.name);
        return Err(No::of(ErrorCode::ImageNotUpload, message));
    }
    let Some(data) = &record.data else {
        return Err(Refusal::ImageNotReady { image: record.spec.name.clone() }.into());
    };
    let (file, length) = app.images.read(id, &data.sha256).await.map_err(|error| {
        tracing::error!(image = %id, %error, "the bytes of an image cannot be read");
        No::of(ErrorCode::Internal, "the image's bytes cannot be read; the controller's log knows why")
    })?;
    let app = Arc::clone(app);
    let revoked = Box::pin(async move { app.until_revoked(token).await });
    let bytes = ReaderStream::with_capacity(file, CHUNK).take_until(revoked);
    let mut response = text(StatusCode::OK, "application/octet-stream", Body::from_stream(bytes));
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
