//! A call as the originals' callers make it: asked once, and answered when it is done.

use std::path::Path;

use haar_api::rpc::{DEFAULT_PATH, Fault, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

pub(crate) async fn call(socket: &Path, method: &str, params: &Value) -> Result<Value, Fault> {
    let body = json!({"method": method, "params": [params], "id": 1}).to_string();
    let head = format!(
        "POST {DEFAULT_PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (_, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let response: Response<Value> = serde_json::from_str(body).unwrap_or_else(|_| panic!("{text}"));
    match response.error {
        Some(text) => Err(Fault::parse(&text)),
        None => Ok(response.result.unwrap()),
    }
}
