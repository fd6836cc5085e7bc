//! One request over the sub-agent's socket, for what is no call.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends this and reads to the end.
pub(crate) async fn http(socket: &Path, line: &str, fields: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = begin(socket, line, fields, body).await;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let fields = lines.map(|line| line.split_once(": ").unwrap());
    let fields = fields.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, fields, body: bytes.split_off(end + 4) }
}

/// Sends this and reads nothing yet.
pub(crate) async fn begin(socket: &Path, line: &str, fields: &[(&str, &str)], body: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut head = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if fields.iter().all(|(name, _)| *name != "content-length") {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A refusal may come, and the connection go, before everything is sent.
    let _ = stream.write_all(body).await;
    stream
}
