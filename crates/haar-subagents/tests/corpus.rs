//! What the fuzz target of the envelope begins with, replayed: `ok-…` reaches its method, `no-…` is a 400, each at
//! once; and after all of them the server still answers.

#![expect(clippy::unwrap_used, reason = "a test ends where it does not understand the world")]

use std::path::Path;
use std::time::{Duration, Instant};

use haar_api::rpc::{self, Fault};
use haar_subagents::kit::{self, Listen};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Long for a few kilobytes, also on a host that is busy.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn send(socket: &Path, body: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        rpc::DEFAULT_PATH,
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn envelopes_reach_their_method_or_are_a_400() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("test.sock");
    let mut server = kit::Server::new();
    server.method("Test.Echo", |request: rpc::GuestRequest| async move {
        Ok::<_, Fault>(rpc::GuestResponse { guest: request.guest, ..Default::default() })
    });
    let serving =
        tokio::spawn(server.bind(&Listen::Unix(socket.clone())).unwrap().serve(std::future::pending()));
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/envelope");
    let mut replayed = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        let is_meant = path.file_name().unwrap().to_str().unwrap().starts_with("ok-");
        let began = Instant::now();
        let answer = send(&socket, &std::fs::read(&path).unwrap()).await;
        assert!(began.elapsed() < AT_ONCE, "{}: {:?}", path.display(), began.elapsed());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = if is_meant { "HTTP/1.1 200 " } else { "HTTP/1.1 400 " };
        assert!(head.starts_with(status), "{}: {answer}", path.display());
        assert_eq!(body.contains(r#""error":null"#), is_meant, "{}: {answer}", path.display());
        replayed += 1;
    }
    assert!(replayed > 10, "{replayed}");
    assert!(send(&socket, &std::fs::read(corpus.join("ok-call")).unwrap()).await.contains(r#""id":7"#));
    serving.abort();
}
