//! The agent's REST with one stub for all its services, in a folder of its own, and a client that asks it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use haar_agent::local::{self, Plan, Profiling, Settings};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;

use crate::stub::Stub;

pub(crate) const G: &str = "3f2b8c14-5d0e-4a57-9a43-6f1f7a1d2b90";
pub(crate) const H: &str = "0b7d7a52-6c55-4a1f-8a4e-2d3a9f0c1e77";
pub(crate) const I: &str = "aaaaaaaa-6c55-4a1f-8a4e-2d3a9f0c1e77";

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) stub: Stub,
    pub(crate) config: Value,
    pub(crate) profiling: Profiling,
    rest: Option<(local::Running, oneshot::Sender<()>)>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn job(&self) -> String {
        self.headers["X-Guest-Job-ID"].to_str().unwrap().to_owned()
    }

    /// Checks the status.
    pub(crate) fn is(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Checks that it is the full form of an error.
    pub(crate) fn fault(self, status: u16) -> Answer {
        let answer = self.is(status);
        let fault = answer.json();
        assert_eq!(fault["code"], status, "{fault}");
        assert!(
            fault["message"].as_str().is_some_and(|words| !words.is_empty()) && fault["stack"].is_array()
        );
        answer
    }
}

/// The sample pipelines of the seed, each service at this port.
pub(crate) fn sample(stub: SocketAddr) -> Value {
    let one = |service: &str, method: &str| json!({"stages": [{"service": service, "method": method}]});
    let two = |first: (&str, &str), second: (&str, &str)| json!({"stages": [{"service": first.0, "method": first.1}, {"service": second.0, "method": second.1}]});
    let port = stub.port();
    json!({
        "actions": {
            "create": two(("storage", "ImageStore.CreateGuestDisks"), ("libvirt", "Libvirt.CreateGuest")),
            "delete": two(("libvirt", "Libvirt.Delete"), ("storage", "ImageStore.DeleteGuestsDisks")),
            "start": one("libvirt", "Libvirt.Run"),
            "reboot": one("libvirt", "Libvirt.Reboot"),
            "poweroff": one("libvirt", "Libvirt.Poweroff"),
            "shutdown": one("libvirt", "Libvirt.Shutdown"),
            "containerCreate":
                two(("mdocker", "MDocker.CreateContainer"), ("mdocker", "MDocker.StartContainer")),
            "containerStart": one("mdocker", "MDocker.StartContainer"),
            "containerDelete": one("mdocker", "MDocker.DeleteContainer"),
            "containerListImages": one("mdocker", "MDocker.ListImages"),
            "containerGetImage": one("mdocker", "MDocker.GetImage"),
            "cpuMetrics": one("libvirt", "Libvirt.CPUMetrics"),
            "containerCpuMetrics": one("mdocker", "MDocker.CPUMetrics"),
            "diskMetrics": one("libvirt", "Libvirt.DiskMetrics"),
            "nicMetrics": one("libvirt", "Libvirt.NicMetrics"),
            "listImages": one("storage", "ImageStore.ListImages"),
            "getImage": one("storage", "ImageStore.GetImage"),
            "deleteImage": one("storage", "ImageStore.DeleteImage"),
            "fetchImage": one("storage", "ImageStore.RequestImage"),
            "listSnapshots": one("storage", "ImageStore.ListSnapshots"),
            "getSnapshot": one("storage", "ImageStore.GetSnapshot"),
            "createSnapshot": one("storage", "ImageStore.CreateSnapshot"),
            "deleteSnapshot": one("storage", "ImageStore.DeleteSnapshot"),
            "rollbackSnapshot": one("storage", "ImageStore.RollbackSnapshot"),
            "downloadSnapshot": one("storageDownload", "ImageStore.DownloadSnapshot")
        },
        "services": {
            "libvirt": {"port": port, "max_pending": 100},
            "mdocker": {"port": port},
            "storage": {"port": port, "max_pending": 100},
            "storageDownload": {"port": port, "path": "/snapshots/download", "max_pending": 100}
        }
    })
}

impl World {
    pub(crate) async fn new() -> World {
        World::with(|_| {}).await
    }

    /// With the sample's configuration changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Value)) -> World {
        let stub = Stub::start().await;
        let mut config = sample(stub.address);
        change(&mut config);
        let folder = tempfile::tempdir().unwrap();
        let mut world = World { folder, stub, config, profiling: Profiling::Off, rest: None };
        world.start().await;
        world
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            socket: self.socket(),
            listen: Some("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()),
            plan: Plan::parse(&self.config.to_string()).unwrap(),
            store: self.folder.path().join("rest.redb"),
            profiling: self.profiling,
        }
    }

    pub(crate) async fn start(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { drop(stopped.await) };
        self.rest = Some((local::start(self.settings(), shutdown).await.unwrap(), stop));
    }

    pub(crate) async fn stop(&mut self) {
        let (running, stop) = self.rest.take().unwrap();
        stop.send(()).unwrap();
        running.ended().await.unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.rest.as_ref().unwrap().0.address().unwrap()
    }

    /// Asks over TCP.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: impl Into<String>) -> Answer {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        exchange(stream, request(method, path, body.into())).await
    }

    /// Asks over the socket.
    pub(crate) async fn ask_socket(&self, method: &str, path: &str) -> Answer {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        exchange(stream, request(method, path, String::new())).await
    }

    /// Asks with one header more.
    pub(crate) async fn get_with(&self, path: &str, name: &str, value: &str) -> Answer {
        let stream = TcpStream::connect(self.address()).await.unwrap();
        let request = Request::get(path).header("host", "localhost").header(name, value);
        exchange(stream, request.body(Full::default()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, body.to_string()).await
    }

    /// Waits for a job's end and gives it.
    pub(crate) async fn ended(&self, job: &str) -> Value {
        self.until(job, |job| job["Status"] == "Complete" || job["Status"] == "Error").await
    }

    /// Waits until something holds of a job.
    pub(crate) async fn until(&self, job: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.get(&format!("/jobs/{job}")).await.is(200).json();
            if holds(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain: {found}, calls {:?}", self.stub.methods());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the stub was asked so often.
    pub(crate) async fn until_asked(&self, method: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.stub.of(method).len() < times {
            assert!(
                Instant::now() < deadline,
                "{method} was not asked {times} times: {:?}",
                self.stub.methods()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes the guest `G`, or one with these fields changed, and waits for it.
    pub(crate) async fn guest(&self, fields: Value) -> Value {
        let mut guest = json!({"id": G, "memory": 512, "cpu": 1, "disks": [{"size": 10}]});
        guest.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = self.post("/guests", &guest).await.is(202);
        let job = self.ended(&answer.job()).await;
        assert_eq!(job["Status"], "Complete", "{job}");
        answer.json()
    }

    /// Does something with `G` and waits for its end.
    pub(crate) async fn act(&self, action: &str) -> Value {
        let answer = self.ask("POST", &format!("/guests/{G}/{action}"), "null").await.is(202);
        self.ended(&answer.job()).await
    }
}

pub(crate) fn request(method: &str, path: &str, body: String) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    request.body(Full::new(Bytes::from(body))).unwrap()
}

pub(crate) async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Answer
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    try_exchange(stream, request).await.unwrap()
}

/// As long as the other end lives.
pub(crate) async fn try_exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driven = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.into_body().collect().await?.to_bytes();
    driven.abort();
    Ok(Answer { status, headers, body })
}
