//! A sub-agent of the test's own, which does as it is told: right, wrong, late, or not at all.
//!
//! It speaks the wire by hand, so that it can also lie about it. One stub stands for every service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    /// Its headers, in lower case.
    pub(crate) head: String,
    pub(crate) method: String,
    /// The one object of the parameters, or the bare body.
    pub(crate) params: Value,
}

/// How a method behaves.
#[derive(Clone)]
pub(crate) enum Manner {
    /// This result.
    Result(Value),
    /// A result made of the parameters.
    Made(fn(&Value) -> Value),
    /// This error.
    Error(&'static str),
    /// These bytes for an answer's body, with this status.
    Raw(u16, &'static str),
    /// The connection is closed.
    Crash,
    /// Nothing, until it is told otherwise; then as usual.
    Hang,
}

type Manners = BTreeMap<String, Manner>;
/// What answers where no manner is told.
type Usual = Arc<dyn Fn(&str, &Value) -> Manner + Send + Sync>;

pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    manners: watch::Sender<Manners>,
    serving: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Stub {
    pub(crate) async fn start() -> Stub {
        Stub::answering(Arc::new(|method, params| Manner::Result(usual(method, params)))).await
    }

    /// One that answers so, unless it is told otherwise.
    pub(crate) async fn answering(usual: Usual) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (manners, watched) = watch::channel(Manners::new());
        let serving = tokio::spawn({
            let seen = Arc::clone(&seen);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(stream, Arc::clone(&seen), watched.clone(), Arc::clone(&usual)));
                }
            }
        });
        Stub { address, seen, manners, serving }
    }

    /// From now on, and for calls that hang.
    pub(crate) fn on(&self, method: &str, manner: Manner) {
        self.manners.send_modify(|manners| drop(manners.insert(method.to_owned(), manner)));
    }

    /// As usual again.
    pub(crate) fn usual(&self, method: &str) {
        self.manners.send_modify(|manners| drop(manners.remove(method)));
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What was done, in order; containers are looked at by the clock, between whatever is done.
    pub(crate) fn methods(&self) -> Vec<String> {
        let done = self.seen().into_iter().map(|seen| seen.method);
        done.filter(|method| method != "MDocker.GetContainer").collect()
    }

    /// The parameters of every call of a method.
    pub(crate) fn of(&self, method: &str) -> Vec<Value> {
        self.seen().into_iter().filter(|seen| seen.method == method).map(|seen| seen.params).collect()
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }
}

async fn serve(
    stream: TcpStream,
    seen: Arc<Mutex<Vec<Seen>>>,
    mut manners: watch::Receiver<Manners>,
    usual: Usual,
) {
    let mut stream = BufReader::new(stream);
    let Some((path, head, body)) = request(&mut stream).await else { return };
    let envelope: Value = serde_json::from_slice(&body).unwrap();
    let method = envelope["method"].as_str().unwrap_or("download").to_owned();
    let params = if method == "download" { envelope.clone() } else { envelope["params"][0].clone() };
    seen.lock().unwrap().push(Seen { path, head, method: method.clone(), params: params.clone() });
    let manner = loop {
        let manner = manners.borrow_and_update().get(&method).cloned();
        match manner {
            Some(Manner::Hang) => {
                if manners.changed().await.is_err() {
                    return;
                }
            }
            manner => break manner,
        }
    };
    let answer = |result: Value, error: Value| {
        (200, json!({"result": result, "error": error, "id": envelope["id"]}).to_string())
    };
    let manner = match manner {
        None if method == "download" => Manner::Raw(200, "bytes of the snapshot"),
        None => usual(&method, &params),
        Some(manner) => manner,
    };
    let (status, body) = match manner {
        Manner::Result(result) => answer(result, Value::Null),
        Manner::Made(make) => answer(make(&params), Value::Null),
        Manner::Error(text) => answer(Value::Null, json!(text)),
        Manner::Raw(status, body) => (status, body.to_owned()),
        Manner::Crash | Manner::Hang => return,
    };
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // The agent may have gone away.
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, String, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let (mut length, mut head) = (0, String::new());
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        head += &format!("{header}\n");
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((path, head, body))
}

/// What a good sub-agent answers.
fn usual(method: &str, params: &Value) -> Value {
    let mut guest = params["guest"].clone();
    let id = &params["id"];
    match method {
        "Libvirt.Run" | "MDocker.StartContainer" => guest["state"] = json!("running"),
        "Libvirt.CreateGuest" | "Libvirt.Poweroff" | "Libvirt.Shutdown" => guest["state"] = json!("shutoff"),
        "Libvirt.CPUMetrics" | "MDocker.CPUMetrics" => {
            return json!({"type": "cpu", "cpu": [{"cpu_time": 12.0, "vcpu_time": 0.5}]});
        }
        "Libvirt.DiskMetrics" => {
            return json!({"type": "disk", "disk": {"vda": {"disk": "vda", "read_ops": 3}}});
        }
        "Libvirt.NicMetrics" => {
            return json!({"type": "nic", "nic": {"eth0": {"name": "eth0", "rx_bytes": 7}}});
        }
        "ImageStore.CreateGuestDisks" => {
            for (index, disk) in guest["disks"].as_array_mut().into_iter().flatten().enumerate() {
                disk["source"] = json!(format!("/disks/{index}"));
            }
        }
        "ImageStore.ListImages" => return json!({"images": null}),
        "ImageStore.GetImage" | "ImageStore.RequestImage" | "ImageStore.DeleteImage" => {
            return json!({"images": [{"id": id, "type": "kvm", "size": 5, "status": "complete"}]});
        }
        _ if method.contains("Snapshot") => {
            let name = params["dest"].as_str().filter(|dest| !dest.is_empty());
            let id =
                name.map_or_else(|| id.clone(), |name| json!(format!("{}@{name}", id.as_str().unwrap())));
            return json!({"snapshots": [{"id": id, "size": 1}]});
        }
        _ => {}
    }
    json!({"guest": guest})
}
