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
    /// Half of it, then the connection breaks.
    Broken,
    /// Without saying how long it is.
    Unmeasured,
    /// This status and no image.
    Status(u16),
}

pub(crate) struct Web {
    pub(crate) address: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    body: Vec<u8>,
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
    shared.heads.lock().unwrap().push(String::from_utf8(head).unwrap());
    let manner = *shared.manner.lock().unwrap();
    let (body, half) = (&shared.body, shared.body.len() / 2);
    let head = match manner {
        Manner::Status(status) => format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n"),
        Manner::Unmeasured => "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned(),
        _ => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()),
    };
    stream.write_all(head.as_bytes()).await?;
    match manner {
        Manner::Status(_) => {}
        Manner::Whole | Manner::Unmeasured => stream.write_all(body).await?,
        Manner::Broken => stream.write_all(&body[..half]).await?,
        Manner::Gated => {
            stream.write_all(&body[..half]).await?;
            let _opened = shared.gate.acquire().await;
            stream.write_all(&body[half..]).await?;
        }
    }
    stream.shutdown().await
}
