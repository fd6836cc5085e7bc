//! A tiny web server that can stop in the middle of an image.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// The whole image.
    Whole,
    /// Half of it, the rest when the gate opens.
    Gated,
    /// Nothing, not even a head, before the gate opens.
    Silent,
    /// Half of it, then the connection breaks.
    Broken,
    /// Without saying how long it is.
    Unmeasured,
    /// This status and no image.
    Status(u16),
    /// It is at this address.
    Leads(&'static str),
}

pub(crate) struct Web {
    pub(crate) address: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    body: Vec<u8>,
    /// The version, as `etag`; with one, the rest of the image is given to who asks for it.
    version: Mutex<Option<String>>,
    manner: Mutex<Manner>,
    gate: Semaphore,
    heads: Mutex<Vec<String>>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Web {
    pub(crate) async fn serve(body: Vec<u8>, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/image", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            body,
            version: Mutex::default(),
            manner: Mutex::new(manner),
            gate: Semaphore::new(0),
            heads: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away in the middle is not this server's concern.
                tokio::spawn(answer(stream, Arc::clone(&accepting)));
            }
        });
        Web { address, shared, task }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
    }

    /// From here on it gives parts of this version.
    pub(crate) fn tell_version(&self, version: &str) {
        *self.shared.version.lock().unwrap() = Some(format!("\"{version}\""));
    }

    pub(crate) fn open_gate(&self) {
        self.shared.gate.add_permits(100);
    }

    /// The heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }
}

async fn answer(mut stream: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let request = String::from_utf8(head).unwrap();
    let manner = *shared.manner.lock().unwrap();
    let version = shared.version.lock().unwrap().clone();
    let from = version.as_deref().and_then(|version| rest_asked_for(&request, version));
    shared.heads.lock().unwrap().push(request);
    let whole = shared.body.len();
    let body = &shared.body[from.unwrap_or(0)..];
    let half = body.len() / 2;
    let tag = version.map(|version| format!("etag: {version}\r\n")).unwrap_or_default();
    let head = match (manner, from) {
        (Manner::Status(status), _) => format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"),
        (Manner::Leads(to), _) => format!("HTTP/1.1 302 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"),
        (Manner::Unmeasured, _) => "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned(),
        (_, None) => format!("HTTP/1.1 200 OK\r\n{tag}content-length: {whole}\r\n\r\n"),
        (_, Some(from)) => format!(
            "HTTP/1.1 206 Partial\r\n{tag}content-range: bytes {from}-{}/{whole}\r\ncontent-length: {}\r\n\r\n",
            whole - 1,
            body.len()
        ),
    };
    if manner == Manner::Silent {
        let _opened = shared.gate.acquire().await;
    }
    stream.write_all(head.as_bytes()).await?;
    match manner {
        Manner::Status(_) | Manner::Leads(_) => {}
        Manner::Whole | Manner::Unmeasured | Manner::Silent => stream.write_all(body).await?,
        Manner::Broken => stream.write_all(&body[..half]).await?,
        Manner::Gated => {
            stream.write_all(&body[..half]).await?;
            let _opened = shared.gate.acquire().await;
            stream.write_all(&body[half..]).await?;
        }
    }
    stream.shutdown().await
}

/// The byte from which on the rest is asked for, of this version.
fn rest_asked_for(request: &str, version: &str) -> Option<usize> {
    let field = |name: &str| request.lines().find_map(|line| line.strip_prefix(name));
    let from = field("range: bytes=")?.strip_suffix('-')?.parse().unwrap();
    (field("if-range: ") == Some(version)).then_some(from)
}
