//! The wire of the server kit, as a stranger's client sees it: bytes on the socket, no code of the kit on the
//! client's side except where the small client itself is under test.

#![expect(clippy::unwrap_used, reason = "a test ends where it does not understand the world")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use haar_api::rpc::{self, Fault, FaultCode};
use haar_subagents::kit::{self, CallError, Listen};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

const LIMIT: Duration = Duration::from_secs(60);

/// A server on a socket in a temp folder; it ends with the test.
struct Served {
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), kit::Error>>,
    _folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn serve(server: kit::Server) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("test.sock");
    let bound = server.bind(&Listen::Unix(socket.clone())).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(bound.serve(async move {
        let _ = stopped.await;
    }));
    Served { socket, stop: Some(stop), task, _folder: folder }
}

fn echo() -> kit::Server {
    let mut server = kit::Server::new();
    server.method("Test.Echo", |request: rpc::GuestRequest| async move {
        Ok::<_, Fault>(rpc::GuestResponse { guest: request.guest, ..Default::default() })
    });
    server.method("Test.Refuse", |_: rpc::GuestRequest| async {
        Err::<rpc::GuestResponse, _>(Fault::new(FaultCode::NoSpace, "7 bytes are free"))
    });
    server.method("Test.Panic", |request: rpc::GuestRequest| async move {
        assert!(request.guest.is_some(), "planted");
        Ok::<_, Fault>(rpc::GuestResponse::default())
    });
    server
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn send(served: &Served, verb: &str, content_type: &str, body: &str) -> Answer {
    let mut stream = UnixStream::connect(&served.socket).await.unwrap();
    let head = format!(
        "{verb} {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        rpc::DEFAULT_PATH,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(body.as_bytes()).await;
    let mut text = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut text)).await.expect("an answer in time");
    if text.is_empty() {
        read.unwrap();
    }
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn post(served: &Served, body: &str) -> Answer {
    send(served, "POST", "application/json", body).await
}

#[tokio::test]
async fn a_result_comes_with_a_null_error_and_the_requests_id() {
    let served = serve(echo());
    let id = u64::MAX >> 1;
    let body = format!(r#"{{"method":"Test.Echo","params":[{{"guest":{{"id":"g"}}}}],"id":{id}}}"#);
    let answer = post(&served, &body).await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/json; charset=utf-8"), "{}", answer.head);
    assert!(answer.head.contains("x-content-type-options: nosniff"), "{}", answer.head);
    assert_eq!(answer.body, format!(r#"{{"result":{{"guest":{{"id":"g"}}}},"error":null,"id":{id}}}"#));
}

#[tokio::test]
async fn null_is_as_if_absent_as_the_seeds_decoder_has_it() {
    let served = serve(echo());
    let guest = r#"{"id":"g","nics":null,"disks":[{"size":null}],"metadata":{"a":null},"haar":null}"#;
    let body = format!(r#"{{"method":"Test.Echo","params":[{{"guest":{guest},"args":null}}],"id":1}}"#);
    let answer = post(&served, &body).await.json();
    let guest = &answer["result"]["guest"];
    assert_eq!((&guest["id"], &guest["metadata"]["a"]), (&json!("g"), &json!("")));
    assert_eq!(guest["disks"][0]["size"], 0);
}

#[tokio::test]
async fn a_methods_error_is_a_string_in_a_200() {
    let served = serve(echo());
    let answer = post(&served, r#"{"method":"Test.Refuse","params":[{}],"id":"seven"}"#).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"result": null, "error": "no_space: 7 bytes are free", "id": "seven"}));
}

#[tokio::test]
async fn without_an_id_the_call_is_executed_and_answered_with_nothing() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut server = kit::Server::new();
    server.method("Test.Count", move |_: rpc::Nothing| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Fault>(rpc::Nothing {}) }
    });
    let served = serve(server);
    for body in
        [r#"{"method":"Test.Count","params":[{}]}"#, r#"{"method":"Test.Count","params":[{}],"id":null}"#]
    {
        let answer = post(&served, body).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_in_plain_text() {
    let served = serve(echo());
    let nonsense = send(&served, "NO VERB AT ALL", "application/json", "").await;
    assert_eq!(nonsense.status, 400);
    assert!(nonsense.head.contains("content-type: text/plain; charset=utf-8"), "{}", nonsense.head);
    assert!(nonsense.body.starts_with("the request cannot be read"), "{}", nonsense.body);
    let large = send(&served, "POST", &"x".repeat(1 << 20), "").await;
    assert_eq!(large.status, 431);
    assert!(large.body.contains("headers are too large"), "{}", large.body);
}

#[tokio::test]
async fn other_verbs_and_content_types_are_refused_in_plain_text() {
    let served = serve(echo());
    let call = r#"{"method":"Test.Echo","params":[{}],"id":1}"#;
    for (verb, content_type, status) in [
        ("GET", "application/json", 405),
        ("PUT", "application/json", 405),
        ("POST", "text/plain", 415),
        ("POST", "", 415),
    ] {
        let answer = send(&served, verb, content_type, call).await;
        assert_eq!(answer.status, status, "{verb} {content_type}");
        assert!(answer.head.contains("content-type: text/plain"), "{}", answer.head);
        assert!(!answer.body.is_empty(), "{verb} {content_type} is refused with words");
    }
    let answer = send(&served, "POST", "application/json; charset=utf-8", call).await;
    assert_eq!(answer.status, 200, "a charset does no harm");
}

#[tokio::test]
async fn a_call_that_names_no_method_or_no_params_is_a_400() {
    let served = serve(echo());
    for (body, word) in [
        ("", "JSON-RPC"),
        ("[1]", "JSON-RPC"),
        (r#"{"method":"Echo","params":[{}],"id":1}"#, "Service.Method"),
        (r#"{"params":[{}],"id":1}"#, "Service.Method"),
        (r#"{"method":"Test.Nope","params":[{}],"id":1}"#, "Test.Nope"),
        (r#"{"method":"test.Echo","params":[{}],"id":1}"#, "case-sensitive"),
        (r#"{"method":"Test.Echo","id":1}"#, "params is missing"),
        (r#"{"method":"Test.Echo","params":[],"id":1}"#, "exactly one"),
        (r#"{"method":"Test.Echo","params":[{},{}],"id":1}"#, "exactly one"),
        (r#"{"method":"Test.Echo","params":[7],"id":1}"#, "exactly one"),
        (r#"{"method":"Test.Echo","params":[{"guest":7}],"id":1}"#, "params of Test.Echo"),
    ] {
        let answer = post(&served, body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.contains(word), "{body} → {}", answer.body);
        assert!(answer.head.contains("content-type: text/plain"), "{}", answer.head);
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let served = serve(echo());
    let call = format!(
        r#"{{"method":"Test.Echo","params":[{{"action":"{}"}}],"id":1}}"#,
        "a".repeat(kit::MAX_BODY_BYTES)
    );
    assert_eq!(post(&served, &call).await.status, 413);
}

#[tokio::test]
async fn a_panic_answers_an_error_and_the_server_lives_on() {
    let served = serve(echo());
    let answer = post(&served, r#"{"method":"Test.Panic","params":[{}],"id":3}"#).await;
    assert_eq!(answer.status, 200);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert_eq!(Fault::parse(&error).code, FaultCode::Failed);
    assert_eq!(answer.json()["id"], 3);
    let fine = post(&served, r#"{"method":"Test.Panic","params":[{"guest":{"id":"g"}}],"id":4}"#).await;
    assert_eq!(fine.json()["error"], Value::Null);
}

#[tokio::test]
async fn the_small_client_tells_faults_from_refusals() {
    let served = serve(echo());
    let guest = rpc::Guest { id: "g".into(), ..Default::default() };
    let request = rpc::GuestRequest { guest: Some(guest.clone()), ..Default::default() };
    let answer: rpc::GuestResponse = kit::call(&served.socket, "Test.Echo", &request, LIMIT).await.unwrap();
    assert_eq!(answer.guest, Some(guest));
    let fault = kit::call::<_, rpc::GuestResponse>(&served.socket, "Test.Refuse", &request, LIMIT).await;
    assert!(matches!(fault, Err(CallError::Fault(Fault { code: FaultCode::NoSpace, .. }))), "{fault:?}");
    let refused = kit::call::<_, rpc::GuestResponse>(&served.socket, "Test.Nope", &request, LIMIT).await;
    assert!(matches!(refused, Err(CallError::Refused { status: 400, .. })), "{refused:?}");
    let nobody =
        kit::call::<_, rpc::GuestResponse>("/nonexistent".as_ref(), "Test.Echo", &request, LIMIT).await;
    assert!(matches!(nobody, Err(CallError::Connect { .. })), "{nobody:?}");
}

#[tokio::test]
async fn a_method_learns_whether_its_caller_asks_again() {
    let mut server = kit::Server::new();
    server.method_for("Test.Caller", |_: rpc::Nothing, caller| async move {
        Ok::<_, Fault>(json!({"asks_again": caller == kit::Caller::AsksAgain}))
    });
    let served = serve(server);
    let plain = post(&served, r#"{"method":"Test.Caller","params":[{}],"id":1}"#).await;
    assert_eq!(plain.json()["result"]["asks_again"], false);
    let ours: Value = kit::call(&served.socket, "Test.Caller", &rpc::Nothing {}, LIMIT).await.unwrap();
    assert_eq!(ours["asks_again"], true);
}

/// A server whose method waits for the gate, counting how many are inside.
fn gated(gate: &Arc<Notify>, inside: &Arc<AtomicUsize>, ended: &Arc<AtomicUsize>) -> kit::Server {
    let (gate, inside, ended) = (Arc::clone(gate), Arc::clone(inside), Arc::clone(ended));
    let mut server = kit::Server::new();
    server.method("Test.Wait", move |_: rpc::Nothing| {
        let (gate, inside, ended) = (Arc::clone(&gate), Arc::clone(&inside), Arc::clone(&ended));
        async move {
            inside.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            ended.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Fault>(rpc::Nothing {})
        }
    });
    server
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn calls_over_the_limit_wait_for_their_turn() {
    let (gate, inside, ended) = (Arc::default(), Arc::default(), Arc::default());
    let served = serve(gated(&gate, &inside, &ended));
    let mut callers = Vec::new();
    for _ in 0..kit::MAX_CALLS + 3 {
        let socket = served.socket.clone();
        callers.push(tokio::spawn(async move {
            kit::call::<_, rpc::Nothing>(&socket, "Test.Wait", &rpc::Nothing {}, LIMIT).await
        }));
    }
    until("the limit is reached", || inside.load(Ordering::SeqCst) == kit::MAX_CALLS).await;
    gate.notify_one();
    until("one more got in", || inside.load(Ordering::SeqCst) == kit::MAX_CALLS + 1).await;
    assert_eq!(ended.load(Ordering::SeqCst), 1, "only because one had ended");
    until("all answered", || {
        gate.notify_waiters();
        callers.iter().all(tokio::task::JoinHandle::is_finished)
    })
    .await;
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_caller_who_goes_away_does_not_stop_the_method() {
    let (gate, inside, ended) = (Arc::default(), Arc::default(), Arc::default());
    let served = serve(gated(&gate, &inside, &ended));
    let short = Duration::from_millis(200);
    let gone = kit::call::<_, rpc::Nothing>(&served.socket, "Test.Wait", &rpc::Nothing {}, short).await;
    assert!(matches!(gone, Err(CallError::Timeout(_))), "{gone:?}");
    until("the call arrived", || inside.load(Ordering::SeqCst) == 1).await;
    gate.notify_one();
    until("the method ended", || ended.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_stop_lets_running_calls_end_and_takes_the_socket_away() {
    let (gate, inside, ended) = (Arc::default(), Arc::default(), Arc::default());
    let mut served = serve(gated(&gate, &inside, &ended));
    let socket = served.socket.clone();
    let caller = tokio::spawn(async move {
        kit::call::<_, rpc::Nothing>(&socket, "Test.Wait", &rpc::Nothing {}, LIMIT).await
    });
    until("the call arrived", || inside.load(Ordering::SeqCst) == 1).await;
    served.stop.take().unwrap().send(()).unwrap();
    gate.notify_one();
    caller.await.unwrap().unwrap();
    until("the server ended", || served.task.is_finished()).await;
    assert!(!served.socket.exists());
}

#[tokio::test]
async fn a_port_is_loopback_only() {
    let bound = echo().bind(&Listen::Loopback(0)).unwrap();
    assert!(bound.address().unwrap().ip().is_loopback());
}
