//! The client against answers written down beforehand: what it sends, and how it tells failures apart.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{answer, answering, hear};
use haar_api::client::{Client, ClientError};
use haar_api::endpoint::Nothing;
use haar_api::table as t;
use haar_api::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn client(address: std::net::SocketAddr) -> Client {
    Client::new(&format!("http://{address}"), Some("abc".to_owned())).unwrap()
}

const FLAVOR: &str = r#"{"id":"00000000-0000-0000-0000-000000000007","name":"small","project":"default",
    "metadata":{},"image":null,"image_name":null,"cpu":1,"memory":1024,"disk":10240,"revision":7,
    "created_at":"2023-11-14T22:13:20.000Z","updated_at":"2023-11-14T22:13:20.000Z","later":"ignored"}"#;

#[tokio::test]
async fn a_request_carries_method_path_query_token_and_body() {
    let (address, heard) = answering(answer("200 OK", "application/json", FLAVOR)).await;
    let patch = v1::FlavorPatch { memory: Some(2048), image: Some(None), ..Default::default() };
    let query = v1::RefQuery { project: Some("a b".to_owned()) };
    let answered = client(address)
        .request::<t::FlavorSet>(&["sm/all"])
        .query(query)
        .if_match("7")
        .send(&patch)
        .await
        .unwrap();
    assert_eq!(answered.value.name.as_str(), "small");
    let heard = heard.await.unwrap();
    assert!(heard.head.starts_with("patch /v1/flavors/sm%2fall?project=a+b http/1.1\r\n"), "{}", heard.head);
    for line in
        ["authorization: bearer abc", "if-match: 7", "content-type: application/json", "x-request-id: "]
    {
        assert!(heard.head.contains(line), "{line} is missing in {}", heard.head);
    }
    assert_eq!(heard.body, br#"{"image":null,"memory":2048}"#);
}

#[tokio::test]
async fn a_problem_keeps_its_code_and_reasons() {
    let body = r#"{"type":"about:blank","title":"Conflict","status":409,"code":"no_room","message":"no",
        "request_id":"r1","reasons":[{"cause":"memory","words":"not enough memory","count":3,"best":"lab2",
        "detail":"188 GiB free"}]}"#;
    let (address, _heard) = answering(answer("409 Conflict", "application/problem+json", body)).await;
    let error = client(address).request::<t::Status>(&[]).send(&Nothing).await.unwrap_err();
    let problem = error.problem().expect("a problem");
    assert_eq!((problem.code.as_str(), problem.reasons[0].count), ("no_room", 3));
    assert_eq!(error.to_string(), "no");
}

#[tokio::test]
async fn something_else_on_the_port_is_not_taken_for_a_controller() {
    let (address, _heard) = answering(answer("404 Not Found", "text/html", "<h1>nginx</h1>")).await;
    let error = client(address).request::<t::Status>(&[]).send(&Nothing).await.unwrap_err();
    assert!(matches!(error, ClientError::NotHaar { status: 404, ref text } if text.contains("nginx")));
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client(address).request::<t::Status>(&[]).send(&Nothing).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error:?}");
    assert!(error.is_unreachable());
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_at_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = client(address);
    let call = client.request::<t::Status>(&[]).limit(Duration::from_millis(50));
    let error = call.send(&Nothing).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout(_)), "{error:?}");
}

#[tokio::test]
async fn nothing_new_is_none() {
    let (address, _heard) = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let polled = client(address).request::<t::AgentFeed>(&[]).poll(&Nothing).await.unwrap();
    assert!(polled.is_none());
}

#[tokio::test]
async fn a_job_under_way_is_named_by_location() {
    let body = FLAVOR.len();
    let head = "HTTP/1.1 202 Accepted\r\nlocation: /v1/jobs/7f3a\r\ncontent-type: application/json";
    let (address, _heard) = answering(format!("{head}\r\ncontent-length: {body}\r\n\r\n{FLAVOR}")).await;
    let answered = client(address).request::<t::FlavorShow>(&["small"]).send(&Nothing).await.unwrap();
    assert!(answered.is_under_way());
    assert_eq!(answered.job(), Some("7f3a"));
}

#[tokio::test]
async fn events_are_read_one_by_one_until_the_end() {
    let event = r#"{"kind":"guest","id":"00000000-0000-0000-0000-000000000001","change":"deleted","revision":"1.5","object":null}"#;
    let body = format!(": hello\n\nid: 1.5.0\nevent: change\ndata: {event}\n\n");
    let (address, _heard) = answering(answer("200 OK", "text/event-stream", &body)).await;
    let client = client(address);
    let mut events = client.request::<t::EventStream>(&[]).events(&Nothing).await.unwrap();
    let message = events.next().await.unwrap().expect("an event");
    assert_eq!((message.id.as_str(), message.event.change.as_str()), ("1.5.0", "deleted"));
    assert_eq!(events.next().await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_reports_its_progress_and_sends_every_byte() {
    let image = r#"{"id":"00000000-0000-0000-0000-000000000007","name":"tiny","project":"default","metadata":{},
        "format":"raw","state":"ready","url":null,"sha256":null,"file_bytes":600000,"virtual_bytes":600000,
        "revision":7,"created_at":"2023-11-14T22:13:20.000Z","updated_at":"2023-11-14T22:13:20.000Z"}"#;
    let (address, heard) = answering(answer("200 OK", "application/json", image)).await;
    let data: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let progress = seen.clone();
    let answered = client(address)
        .request::<t::ImageUpload>(&["tiny"])
        .upload(std::io::Cursor::new(data.clone()), 600_000, move |bytes| {
            progress.lock().unwrap().push(bytes);
        })
        .await
        .unwrap();
    assert_eq!(answered.value.state, "ready");
    assert_eq!(heard.await.unwrap().body, data);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.last(), Some(&600_000));
    assert!(seen.is_sorted());
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_is_the_senders_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    });
    let client = client(address);
    let call = client.request::<t::ImageUpload>(&["tiny"]);
    let error = call.upload(std::io::Cursor::new(vec![0; 10]), 20, |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Source(_)), "{error:?}");
    server.await.unwrap();
}

#[tokio::test]
async fn an_upgrade_gives_raw_bytes_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let heard = hear(&mut stream).await;
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: haar-stream\r\n\r\nhello";
        stream.write_all(switch.as_bytes()).await.unwrap();
        let mut echo = [0; 3];
        stream.read_exact(&mut echo).await.unwrap();
        (heard, echo)
    });
    let client = client(address);
    let mut duplex = client.request::<t::GuestConsole>(&["web"]).upgrade().await.unwrap();
    let mut hello = [0; 5];
    duplex.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
    duplex.write_all(b"abc").await.unwrap();
    duplex.flush().await.unwrap();
    let (heard, echo) = server.await.unwrap();
    assert_eq!(&echo, b"abc");
    assert!(heard.head.contains("upgrade: haar-stream"));
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_before_anything_is_sent() {
    for url in ["", "lab1:8600", "https://lab1:8600", "http://", "http://lab1/path", "http://lab1?x=1"] {
        assert!(matches!(Client::new(url, None), Err(ClientError::BadUrl(_))), "{url}");
    }
    assert!(Client::new("http://lab1:8600/", None).is_ok());
    assert!(matches!(Client::new("http://lab1", Some("a\nb".to_owned())), Err(ClientError::BadToken)));
}
