//! A controller under test, and how it is asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use haar_controller::{Config, Error, Running, start};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A controller that serves, and its folder.
pub(crate) struct Cloud {
    pub(crate) addr: SocketAddr,
    pub(crate) admin: String,
    pub(crate) folder: TempDir,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) running: Running,
}

impl Cloud {
    /// A new cloud in a new folder.
    pub(crate) async fn start() -> Cloud {
        Cloud::start_with(|_| {}).await
    }

    /// The same with another configuration.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Cloud {
        let folder = tempfile::tempdir().unwrap();
        Cloud::start_in(folder, None, change).await.unwrap()
    }

    /// A cloud in this folder; the token is known when it is not its first start.
    pub(crate) async fn start_in(
        folder: TempDir,
        admin: Option<String>,
        change: impl FnOnce(&mut Config),
    ) -> Result<Cloud, Error> {
        let mut config = config(folder.path());
        change(&mut config);
        let (stop, stopped) = oneshot::channel::<()>();
        let mut running = start(config, async {
            let _ = stopped.await;
        })
        .await?;
        let made = running.bootstrap.take().map(|made| made.admin.reveal().to_owned());
        let admin = made.or(admin).expect("a first start makes a token");
        Ok(Cloud { addr: running.addr, admin, folder, stop, running })
    }

    /// Ends it in order; its folder and token.
    pub(crate) async fn stop(self) -> (TempDir, String) {
        let _ = self.stop.send(());
        tokio::time::timeout(LIMIT, self.running.wait()).await.expect("it ends");
        (self.folder, self.admin)
    }

    /// Ends it in order and starts it again.
    pub(crate) async fn restart(self) -> Cloud {
        let (folder, admin) = self.stop().await;
        Cloud::start_in(folder, Some(admin), |_| {}).await.unwrap()
    }

    /// Asks as the admin.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(self.addr, method, path).token(&self.admin)
    }

    /// `GET` as the admin; must be 200.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let reply = self.ask("GET", path).send().await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// `PUT` as the admin; must be 201.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        let reply = self.ask("PUT", path).json(&body).send().await;
        assert_eq!(reply.status, 201, "{path}: {}", reply.text());
        reply.json()
    }

    /// An image whose bytes are at an address: enough for a guest.
    pub(crate) async fn image(&self) -> Value {
        let body = json!({"name": "tiny", "format": "qcow2", "url": "http://127.0.0.1:1/x", "sha256": "a".repeat(64)});
        self.put(&format!("/v1/images/{}", uuid(9)), body).await
    }

    /// Waits until so many requests are under way, with the one that asks.
    pub(crate) async fn until_requests(&self, count: usize) {
        until("that many requests", async || {
            let metrics = Ask::new(self.addr, "GET", "/metrics").send().await.text();
            metrics.contains(&format!("haar_requests_open {count}\n"))
        })
        .await;
    }

    /// Another admin's token: its secret; its name is `other`.
    pub(crate) async fn other_admin(&self) -> String {
        let reply =
            self.ask("POST", "/v1/tokens").json(&json!({"name": "other", "role": "admin"})).send().await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.json()["secret"].as_str().unwrap().to_owned()
    }

    /// Removes a token.
    pub(crate) async fn revoke(&self, name: &str) {
        let reply = self.ask("DELETE", &format!("/v1/tokens/{name}")).send().await;
        assert_eq!(reply.status, 204, "{}", reply.text());
    }

    /// Asks again until it holds.
    pub(crate) async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            let reply = self.ask("GET", path).send().await;
            let value = if reply.status == 200 { reply.json() } else { Value::Null };
            if holds(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{path} did not come to hold: {value:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Looks again until it holds.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::task::yield_now().await;
    }
}

/// The usual configuration on a free port.
pub(crate) fn config(folder: &Path) -> Config {
    let data: PathBuf = folder.join("controller");
    Config {
        on_fatal: Box::new(|cause| panic!("the engine ended: {cause}")),
        ..Config::new(data, "127.0.0.1:0".parse().unwrap())
    }
}

/// An id that is easy to see.
pub(crate) fn uuid(number: u128) -> String {
    uuid::Uuid::from_u128(number).to_string()
}

/// What a first guest needs, with this name.
pub(crate) fn guest(name: &str) -> Value {
    json!({"name": name, "flavor": "tiny", "image": "tiny", "network": "default"})
}

/// A request.
pub(crate) struct Ask {
    addr: SocketAddr,
    request: http::request::Builder,
    body: Bytes,
}

impl Ask {
    pub(crate) fn new(addr: SocketAddr, method: &str, path: &str) -> Ask {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = Request::builder().method(method).uri(path).header("host", addr.to_string());
        Ask { addr, request, body: Bytes::new() }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Ask {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn token(self, token: &str) -> Ask {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: &Value) -> Ask {
        self.raw("application/json", body.to_string())
    }

    pub(crate) fn raw(mut self, media: &str, body: impl Into<Bytes>) -> Ask {
        self.body = body.into();
        self.header("content-type", media)
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn send(self) -> Reply {
        let response = self.open().await;
        let (parts, body) = response.into_parts();
        let body = tokio::time::timeout(LIMIT, body.collect()).await.expect("an answer in time");
        Reply { status: parts.status.as_u16(), headers: parts.headers, body: body.unwrap().to_bytes() }
    }

    /// Sends it; the body is read as it comes.
    pub(crate) async fn open(self) -> Response<Incoming> {
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = self.request.body(Full::new(self.body)).unwrap();
        tokio::time::timeout(LIMIT, sender.send_request(request)).await.expect("an answer in time").unwrap()
    }

    /// Sends it and takes the connection over.
    pub(crate) async fn upgrade(self) -> TokioIo<Upgraded> {
        let ask = self.header("connection", "upgrade").header("upgrade", "haar-stream");
        let mut response = ask.open().await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap())
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The problem's code, of an answer that is one in every respect.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        assert!(!problem["message"].as_str().unwrap().is_empty());
        problem["code"].as_str().unwrap().to_owned()
    }
}
