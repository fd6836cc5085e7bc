//! Images from a registry: one of a few routes, on the loopback.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use haar_api::rpc::{FaultCode, ImageRequest, ImageWant};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use crate::harness::*;
use crate::make_image::{self, E, Image, layer};

const CREDENTIALS: &str = "Basic dXNlcjp3b3Jk";

struct Shared {
    blobs: HashMap<String, Vec<u8>>,
    manifest: String,
    /// Whether a token is needed.
    closed: bool,
    address: String,
    asked: Mutex<Vec<String>>,
    /// How often a token may be used; then it has run out.
    uses: usize,
    tokens: Mutex<Vec<usize>>,
}

struct Registry {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Registry {
    async fn serve(image: &Image, closed: bool) -> Registry {
        Registry::serve_with(image, closed, usize::MAX).await
    }

    async fn serve_with(image: &Image, closed: bool, uses: usize) -> Registry {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let blobs = image.blobs.iter().map(|(digest, bytes)| (digest.as_str().to_owned(), bytes.clone()));
        let shared = Arc::new(Shared {
            blobs: blobs.collect(),
            manifest: image.manifest.as_str().to_owned(),
            closed,
            address: listener.local_addr().unwrap().to_string(),
            asked: Mutex::default(),
            uses,
            tokens: Mutex::default(),
        });
        let router = Router::new()
            .route("/v2/team/app/manifests/{wanted}", get(blob))
            .route("/v2/team/app/blobs/{wanted}", get(blob))
            .route("/token", get(token))
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Registry { shared, task }
    }

    fn request(&self, rest: &str) -> ImageRequest {
        ImageRequest {
            id: IMAGE.to_owned(),
            kind: "container".to_owned(),
            source: format!("docker+http://{}/team/app{rest}", self.shared.address),
            haar: Some(ImageWant { authorization: CREDENTIALS.to_owned(), ..ImageWant::default() }),
            ..ImageRequest::default()
        }
    }
}

async fn blob(State(shared): State<Arc<Shared>>, Path(wanted): Path<String>, headers: HeaderMap) -> Response {
    shared.asked.lock().unwrap().push(wanted.clone());
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shared.closed && !is_let_in(&shared, authorization) {
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"test\"", shared.address);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let wanted = if wanted == "v1" { shared.manifest.clone() } else { wanted };
    match shared.blobs.get(&wanted) {
        Some(bytes) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn is_let_in(shared: &Shared, authorization: Option<&str>) -> bool {
    let number = authorization.and_then(|text| text.strip_prefix("Bearer sesame"));
    let mut tokens = shared.tokens.lock().unwrap();
    let uses =
        number.and_then(|number| number.parse::<usize>().ok()).and_then(|number| tokens.get_mut(number));
    uses.is_some_and(|uses| {
        *uses += 1;
        *uses <= shared.uses
    })
}

async fn token(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let is_right = query.get("scope").is_some_and(|scope| scope == "repository:team/app:pull")
        && query.get("service").is_some_and(|service| service == "test")
        && authorization == Some(CREDENTIALS);
    if is_right {
        let mut tokens = shared.tokens.lock().unwrap();
        tokens.push(0);
        axum::Json(json!({"token": format!("sesame{}", tokens.len() - 1)})).into_response()
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

fn sample() -> Image {
    make_image::image(&[layer(&[E::File("a", b"1")]), layer(&[E::File("b", b"2")])], &json!({"Cmd": ["/a"]}))
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest_with_and_without_a_token() {
    let image = sample();
    for (closed, rest) in
        [(false, ":v1".to_owned()), (true, ":v1".to_owned()), (true, format!("@{}", image.manifest))]
    {
        let registry = Registry::serve(&image, closed).await;
        let world = World::new();
        let agent = Agent::start(&world).await;
        let loaded = agent.load(&registry.request(&rest)).await.unwrap();
        assert_eq!(loaded.haar.unwrap().sha256, image.manifest.hex());
        let folder = world.path().join("container/images").join(IMAGE);
        assert_eq!(std::fs::read(folder.join("rootfs/b")).unwrap(), b"2");
        let facts = std::fs::read_to_string(folder.join("image.json")).unwrap();
        assert!(!facts.contains("dXNlc") && !facts.contains("sesame"), "no secret is kept");
        assert!(!folder.join("blob").exists());
    }
}

#[tokio::test]
async fn a_token_that_runs_out_is_fetched_again() {
    let registry = Registry::serve_with(&sample(), true, 1).await;
    let world = World::new();
    let agent = Agent::start(&world).await;
    agent.load(&registry.request(":v1")).await.unwrap();
    assert!(registry.shared.tokens.lock().unwrap().len() > 2, "one for each");
    // A registry that takes none is not asked for ever.
    let registry = Registry::serve_with(&sample(), true, 0).await;
    let world = World::new();
    let agent = Agent::start(&world).await;
    fails(agent.load(&registry.request(":v1")).await, FaultCode::Invalid, "401");
    assert_eq!(registry.shared.tokens.lock().unwrap().len(), 1);
}

/// A registry that accepts and never says a word.
#[tokio::test]
async fn a_load_that_hangs_ends_when_its_image_is_deleted() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new();
    let agent = Agent::start(&world).await;
    let request = ImageRequest {
        id: IMAGE.to_owned(),
        source: format!("docker+http://{}/team/app", listener.local_addr().unwrap()),
        ..ImageRequest::default()
    };
    let _: serde_json::Value =
        agent.call("LoadImage", &serde_json::to_value(&request).unwrap()).await.unwrap();
    let (_silent, _) = listener.accept().await.unwrap();
    let begun = std::time::Instant::now();
    let _: serde_json::Value = agent.call("DeleteImage", &json!({"id": IMAGE})).await.unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "it does not wait for the silence to end");
    fails(agent.call::<serde_json::Value>("GetImage", &json!({"id": IMAGE})).await, FaultCode::NotFound, "");
}

#[tokio::test]
async fn a_registry_that_gives_other_bytes_is_refused() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    for index in 0..3 {
        let mut image = sample();
        image.blobs[index].1.push(b' ');
        let registry = Registry::serve(&image, false).await;
        fails(agent.load(&registry.request(":v1")).await, FaultCode::BadImage, "digest");
    }
    let mut image = sample();
    let last = image.blobs.len() - 1;
    image.blobs[last].1.push(b' ');
    let registry = Registry::serve(&image, false).await;
    fails(
        agent.load(&registry.request(&format!("@{}", image.manifest))).await,
        FaultCode::BadImage,
        "digest",
    );
    assert!(registry.shared.asked.lock().unwrap().len() == 1, "what a false manifest names is not asked for");
}

#[tokio::test]
async fn what_is_not_there_and_who_may_not_are_told_apart() {
    let world = World::new();
    let agent = Agent::start(&world).await;
    let registry = Registry::serve(&sample(), true).await;
    fails(agent.load(&registry.request(":v2")).await, FaultCode::NotFound, "404");
    let mut request = registry.request(":v1");
    request.haar = None;
    fails(agent.load(&request).await, FaultCode::Invalid, "403");
    request.source = "docker+http://registry.example/a".to_owned();
    fails(agent.load(&request).await, FaultCode::Invalid, "plain HTTP");
}
