//! A body to the JSON-RPC server of sub-agents: whatever it is, there is an answer of the wire's two kinds.
#![no_main]

use std::cell::OnceCell;
use std::path::Path;

use haar_api::rpc::{self, Fault};
use haar_subagents::kit::{self, Listen};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

struct Served {
    runtime: Runtime,
    folder: tempfile::TempDir,
}

fn serve() -> Served {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut server = kit::Server::new();
    server.method("Test.Echo", |request: rpc::GuestRequest| async move {
        Ok::<_, Fault>(rpc::GuestResponse { guest: request.guest, ..Default::default() })
    });
    let bound = {
        let _inside = runtime.enter();
        server.bind(&Listen::Unix(folder.path().join("s"))).unwrap()
    };
    runtime.spawn(bound.serve(std::future::pending()));
    Served { runtime, folder }
}

async fn send(socket: &Path, body: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let (path, length) = (rpc::DEFAULT_PATH, body.len());
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

thread_local! {
    static SERVED: OnceCell<Served> = const { OnceCell::new() };
}

fuzz_target!(|body: &[u8]| {
    SERVED.with(|served| {
        let served = served.get_or_init(serve);
        let answer = served.runtime.block_on(send(&served.folder.path().join("s"), body));
        assert!(answer.starts_with(b"HTTP/1.1 200 ") || answer.starts_with(b"HTTP/1.1 400 "));
    });
});
