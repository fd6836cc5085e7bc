//! The JSON-RPC client's rules, against answers written down beforehand.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::time::Duration;

use common::{answer, answering};
use haar_api::rpc::{FaultCode, Nothing, VolumeResponse};
use haar_api::rpc_client::{Address, CallError, call};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LIMIT: Duration = Duration::from_secs(60);

async fn ask(body: &str) -> Result<VolumeResponse, CallError> {
    ask_with(&answer("200 OK", "application/json; charset=utf-8", body)).await
}

async fn ask_with(answer: &str) -> Result<VolumeResponse, CallError> {
    let (address, heard) = answering(answer).await;
    let address = Address::Tcp(address);
    let result = call(&address, "/_mistify_RPC_", "ImageStore.ListVolumes", &Nothing {}, LIMIT).await;
    let heard = heard.await.unwrap();
    let request: serde_json::Value = serde_json::from_slice(&heard.body).unwrap();
    assert!(heard.head.starts_with("post /_mistify_rpc_ http/1.1"));
    assert_eq!(request["method"], "ImageStore.ListVolumes");
    assert_eq!(request["params"], serde_json::json!([{}]));
    assert!(request["id"].is_u64());
    result
}

#[tokio::test]
async fn a_result_is_the_answer() {
    let response = ask(r#"{"result":{"volumes":[]},"error":null,"id":1}"#).await.unwrap();
    assert_eq!(response, VolumeResponse::default());
}

#[tokio::test]
async fn an_error_is_a_fault_with_its_code() {
    let error = ask(r#"{"result":null,"error":"no_space: 3 MiB left","id":1}"#).await.unwrap_err();
    let CallError::Fault(fault) = error else { panic!("{error:?}") };
    assert_eq!((fault.code, fault.message.as_str()), (FaultCode::NoSpace, "3 MiB left"));
}

#[tokio::test]
async fn neither_result_nor_error_is_an_error() {
    assert!(matches!(ask(r#"{"result":null,"error":null,"id":1}"#).await, Err(CallError::Empty)));
}

#[tokio::test]
async fn a_refused_call_has_the_bodys_text() {
    let refused = answer("400 Bad Request", "text/plain", "rpc: can't find service Nope.Nope\n");
    let error = ask_with(&refused).await.unwrap_err();
    assert_eq!(error.to_string(), "refused with status 400: rpc: can't find service Nope.Nope");
}

#[tokio::test]
async fn what_is_no_json_is_said_so() {
    assert!(matches!(ask("<html>").await, Err(CallError::Json(_))));
}

#[tokio::test]
async fn a_hung_sub_agent_ends_at_the_limit() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let limit = Duration::from_millis(50);
    let result: Result<VolumeResponse, _> = call(&address, "/", "A.B", &Nothing {}, limit).await;
    assert!(matches!(result, Err(CallError::Timeout(_))));
}

#[tokio::test]
async fn a_socket_is_called_as_a_port_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("storage.sock");
    let absent: Result<VolumeResponse, _> =
        call(&Address::Unix(path.clone()), "/", "A.B", &Nothing {}, LIMIT).await;
    assert!(matches!(absent, Err(CallError::Connect { .. })));

    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"}") {
            stream.read_buf(&mut bytes).await.unwrap();
        }
        let body = r#"{"result":{"volumes":[]},"error":null,"id":1}"#;
        stream.write_all(answer("200 OK", "application/json", body).as_bytes()).await.unwrap();
    });
    let response: VolumeResponse = call(&Address::Unix(path), "/", "A.B", &Nothing {}, LIMIT).await.unwrap();
    assert!(response.volumes.is_empty());
    server.await.unwrap();
}
