//! Images: those of virtual machines and those of containers, as one list.
//!
//! Each back end is asked by itself and what it says is kept by itself: one that fails hides nothing of the other,
//! and "there is none" from one is no error of both.

use haar_api::agent::go;
use haar_api::rpc::{Image, ImageRequest, ImageResponse};
use uuid::Uuid;

use super::reply::{Answer, Fail, ok};
use super::route::Images;
use super::{App, Query, accepted};
use crate::local::action;
use crate::local::check;
use crate::local::hands::Failure;
use crate::local::runners::{Input, Owner, Why};

/// What the back ends said, each by itself: images in order, and the failures of those that have none to give.
struct Said {
    images: Vec<Image>,
    failures: Vec<Failure>,
    answered: usize,
}

impl Said {
    fn failure(&self) -> Fail {
        let words: Vec<&str> = self.failures.iter().map(|failure| failure.message.as_str()).collect();
        Fail::new(http::StatusCode::INTERNAL_SERVER_ERROR, words.join("; "))
    }
}

/// `null` when there are none. It fails only when every back end does.
pub(super) async fn list(app: &App, images: Images, query: &Query) -> Answer {
    let kind = query.get("type").map(String::as_str).filter(|kind| !kind.is_empty());
    if kind.is_some_and(|kind| !kind.bytes().all(|byte| byte.is_ascii_alphabetic())) {
        return Err(Fail::bad("type: must be letters"));
    }
    let which = match (images, kind) {
        (Images::Containers, _) | (_, Some("container")) => vec!["containerListImages"],
        (_, Some(_)) => vec!["listImages"],
        (_, None) => vec!["listImages", "containerListImages"],
    };
    let said = ask(app, &which, &ImageRequest::default()).await?;
    if said.answered == 0 && !said.failures.is_empty() {
        return Err(said.failure());
    }
    for failure in &said.failures {
        tracing::warn!(why = failure.message, "one kind of images is left out of the list");
    }
    ok(&Some(said.images).filter(|images| !images.is_empty()))
}

pub(super) async fn get(app: &App, images: Images, id: &str) -> Answer {
    ok(&find(app, images, id).await?)
}

pub(super) async fn fetch(app: &App, images: Images, body: &[u8]) -> Answer {
    let mut request: ImageRequest = go::from_slice(body)
        .map_err(|error| Fail::bad(format!("the body is no request for an image: {error}")))?;
    check::image_id(&request.id).map_err(|why| Fail::bad(format!("id: {why}")))?;
    if images == Images::Containers {
        "container".clone_into(&mut request.kind);
    }
    let action = action::full_name("fetchImage", request.kind == "container");
    let job = Uuid::new_v4();
    app.submit(Input::Image { action, request: Box::new(request), job }).await?;
    accepted(&ImageResponse::default(), job)
}

/// Whose image it is says which action deletes it.
pub(super) async fn delete(app: &App, images: Images, id: &str) -> Answer {
    let image = find(app, images, id).await?;
    let action = action::full_name("deleteImage", images == Images::Containers || image.kind == "container");
    let request = ImageRequest { id: id.to_owned(), kind: image.kind, ..ImageRequest::default() };
    let job = Uuid::new_v4();
    app.submit(Input::Image { action, request: Box::new(request), job }).await?;
    accepted(&serde_json::Map::new(), job)
}

async fn find(app: &App, images: Images, id: &str) -> Result<Image, Fail> {
    let nobody = || Fail::not_found("not found");
    check::image_id(id).map_err(|_| nobody())?;
    let which = match images {
        Images::All => vec!["getImage", "containerGetImage"],
        Images::Containers => vec!["containerGetImage"],
    };
    let request = ImageRequest { id: id.to_owned(), ..ImageRequest::default() };
    let said = ask(app, &which, &request).await?;
    let failed = said.failures.iter().any(|failure| failure.why != Why::Absent);
    match said.images.first() {
        Some(image) => Ok(image.clone()),
        None if failed => {
            let failures = said.failures.into_iter().filter(|failure| failure.why != Why::Absent).collect();
            Err(Said { failures, ..said_nothing() }.failure())
        }
        None => Err(nobody()),
    }
}

fn said_nothing() -> Said {
    Said { images: Vec::new(), failures: Vec::new(), answered: 0 }
}

/// Asks the back ends of these actions at once; an action that is not configured has nothing to say.
async fn ask(app: &App, which: &[&'static str], request: &ImageRequest) -> Result<Said, Fail> {
    let _turn = app.throttles.info(Owner::Agent).await?;
    let asked = which.iter().filter_map(|name| Some((*name, app.plan.stages(name)?)));
    let asked = asked.map(|(name, stages)| async move {
        let mut last = ImageResponse::default();
        for stage in stages {
            last = app.hands.ask(stage, request).await?;
        }
        let mut images = last.images.unwrap_or_default();
        for image in images.iter_mut().filter(|image| image.kind.is_empty()) {
            let kind = if name.starts_with("container") { "container" } else { "kvm" };
            kind.clone_into(&mut image.kind);
        }
        Ok::<Vec<Image>, Failure>(images)
    });
    let mut said = said_nothing();
    for answer in futures_util::future::join_all(asked).await {
        match answer {
            Ok(images) => {
                said.answered += 1;
                for image in images {
                    if !said.images.iter().any(|known| known.id == image.id) {
                        said.images.push(image);
                    }
                }
            }
            Err(failure) => said.failures.push(failure),
        }
    }
    Ok(said)
}
