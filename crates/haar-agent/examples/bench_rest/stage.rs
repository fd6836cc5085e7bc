//! The agent's REST on a store of its own, and connections that are kept.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use haar_agent::local::{self, Plan, Profiling, Settings};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What nothing here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const CLIENTS: usize = 16;

/// The REST on a store of its own, and how to reach it.
pub(crate) struct Stage {
    running: local::Running,
    stop: oneshot::Sender<()>,
    pub(crate) address: SocketAddr,
}

impl Stage {
    /// Starts it with these actions and services.
    pub(crate) async fn begin(folder: &Path, plan: &Value) -> Outcome<Stage> {
        let settings = Settings {
            socket: folder.join("agent.sock"),
            listen: Some("127.0.0.1:0".parse::<SocketAddr>()?.into()),
            plan: Plan::parse(&plan.to_string())?,
            store: folder.join("rest.redb"),
            profiling: Profiling::Off,
        };
        let (stop, stopped) = oneshot::channel();
        let running = local::start(settings, async move { drop(stopped.await) }).await?;
        let address = running.address().ok_or("the REST has no address")?;
        Ok(Stage { running, stop, address })
    }

    pub(crate) async fn end(self) -> Outcome<()> {
        let _ = self.stop.send(());
        Ok(self.running.ended().await?)
    }

    /// Sends all of these, over a connection per client, and gives the jobs they began.
    pub(crate) async fn post(&self, mut posts: Vec<(String, String)>) -> Outcome<Vec<String>> {
        let each = posts.len().div_ceil(CLIENTS).max(1);
        let mut clients = JoinSet::new();
        while !posts.is_empty() {
            let (part, address) = (posts.split_off(posts.len().saturating_sub(each)), self.address);
            clients.spawn(async move {
                let mut connection = Connection::open(address).await?;
                let mut jobs = Vec::new();
                for (path, body) in part {
                    jobs.push(connection.begin(&path, body).await?);
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(jobs)
            });
        }
        let mut jobs = Vec::new();
        while let Some(ended) = clients.join_next().await {
            jobs.extend(ended??);
        }
        Ok(jobs)
    }

    /// Waits for the good end of each of these jobs.
    pub(crate) async fn done(&self, jobs: &[String]) -> Outcome<()> {
        let mut connection = Connection::open(self.address).await?;
        let deadline = Instant::now() + LIMIT;
        for job in jobs {
            loop {
                let (status, body) = connection.get(&format!("/jobs/{job}")).await?;
                let found: Value = serde_json::from_slice(&body)?;
                match found["Status"].as_str() {
                    Some("Complete") => break,
                    Some("Error") | None => return Err(format!("a job ended wrong: {status} {found}").into()),
                    _ if Instant::now() > deadline => {
                        return Err(format!("waited in vain for {found}").into());
                    }
                    _ => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        }
        Ok(())
    }
}

/// A connection that is kept.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Outcome<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection(sender))
    }

    /// Asks for a path.
    pub(crate) async fn get(&mut self, path: &str) -> Outcome<(u16, Bytes)> {
        let (status, body) = self.stream(path).await?;
        Ok((status, body.collect().await?.to_bytes()))
    }

    /// Asks for a path; the body is read as it comes.
    pub(crate) async fn stream(&mut self, path: &str) -> Outcome<(u16, Incoming)> {
        let request = Request::get(path).header("host", "localhost").body(Full::default())?;
        self.0.ready().await?;
        let answer = self.0.send_request(request).await?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    /// Begins an action; its job.
    pub(crate) async fn begin(&mut self, path: &str, body: String) -> Outcome<String> {
        let request = Request::post(path).header("host", "localhost").body(Full::new(Bytes::from(body)))?;
        self.0.ready().await?;
        let answer = self.0.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        // Snapshots begin with 200, all else with 202.
        if !head.status.is_success() {
            return Err(format!("{} for {path}: {}", head.status, String::from_utf8_lossy(&body)).into());
        }
        let job = head.headers.get("x-guest-job-id").ok_or("an answer without its job")?;
        Ok(job.to_str()?.to_owned())
    }
}
