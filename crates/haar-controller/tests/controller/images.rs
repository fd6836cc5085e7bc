//! Images' bytes over HTTP: whole or not at all.

use std::sync::{Arc, Condvar, Mutex};

use haar_controller::Limits;
use haar_store::{Disk, Fence, Kind, MemoryDisk, Op};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::agent::Agent;
use super::cloud::{Cloud, LIMIT, Reply, until, uuid};

const CLUSTER: usize = 65536;

/// A sound and empty qcow2 disk of 512 MiB: header, refcount table, level 1 table, and a cluster to spare.
fn qcow2() -> Vec<u8> {
    let mut bytes = vec![0; 4 * CLUSTER];
    bytes[..4].copy_from_slice(b"QFI\xfb");
    for (offset, number) in [(4, 3), (20, 16), (36, 1), (56, 1), (96, 4), (100, 104)] {
        bytes[offset..offset + 4].copy_from_slice(&u32::to_be_bytes(number));
    }
    for (offset, number) in [(24, 1 << 29), (40, 2 * CLUSTER as u64), (48, CLUSTER as u64)] {
        bytes[offset..offset + 8].copy_from_slice(&u64::to_be_bytes(number));
    }
    bytes
}

/// The sound disk with these bytes changed.
fn patched(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = qcow2();
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
    image
}

async fn empty_image(cloud: &Cloud, format: &str) -> String {
    let path = format!("/v1/images/{}", uuid(9));
    let made = cloud.put(&path, json!({"name": "tiny", "format": format})).await;
    assert_eq!(made["state"], "empty");
    format!("{path}/data")
}

async fn upload(cloud: &Cloud, path: &str, bytes: Vec<u8>) -> Reply {
    cloud.ask("PUT", path).raw("application/octet-stream", bytes).send().await
}

fn names(folder: &tempfile::TempDir) -> Vec<String> {
    let files = std::fs::read_dir(folder.path().join("controller/images")).unwrap();
    let mut names: Vec<_> =
        files.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn files(cloud: &Cloud) -> usize {
    names(&cloud.folder).len()
}

/// Holds up commits while it is shut.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    shut: bool,
    waits: bool,
}

impl Gate {
    fn set(&self, shut: bool) {
        self.0.0.lock().unwrap().shut = shut;
        self.0.1.notify_all();
    }

    async fn until_a_commit_waits(&self) {
        until("a commit", async || self.0.0.lock().unwrap().waits).await;
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.waits = true;
        let waited = self.0.1.wait_timeout_while(state, LIMIT, |state| state.shut).unwrap();
        assert!(!waited.1.timed_out(), "the gate stayed shut");
        state = waited.0;
        state.waits = false;
    }
}

/// A disk behind a gate.
struct Gated(MemoryDisk, Gate);

impl Disk for Gated {
    fn load(&mut self, skip: &[Kind], each: &mut haar_store::Visit<'_>) -> Result<Fence, haar_store::Error> {
        self.0.load(skip, each)
    }
    fn commit(&mut self, ops: &[Op], expected: Fence, new: Fence) -> Result<(), haar_store::Error> {
        self.1.pass();
        self.0.commit(ops, expected, new)
    }
    fn limits(&self) -> haar_store::Limits {
        self.0.limits()
    }
    fn reopen(&mut self) -> Result<(), haar_store::Error> {
        self.0.reopen()
    }
    fn reader(&self) -> Box<dyn haar_store::Reader> {
        self.0.reader()
    }
}

async fn gated() -> (Cloud, Gate) {
    let gate = Gate::default();
    let disk = Gated(MemoryDisk::new(), gate.clone());
    (Cloud::start_with(|config| config.disk = Some(Box::new(disk))).await, gate)
}

/// An upload whose bytes are sent by hand, of which this many are announced.
async fn announced(cloud: &Cloud, path: &str, length: u64) -> TcpStream {
    let mut stream = TcpStream::connect(cloud.addr).await.unwrap();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
         content-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n",
        cloud.admin
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_string(&mut text));
    read.await.expect("an answer in time").unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_up_and_comes_down_whole() {
    let cloud = Cloud::start().await;
    let path = empty_image(&cloud, "qcow2").await;
    let sum = hex::encode(Sha256::digest(qcow2()));
    assert_eq!(cloud.ask("GET", &path).send().await.code(), "image_not_ready");
    let reply = upload(&cloud, &format!("{path}?sha256={sum}"), qcow2()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let image = reply.json();
    assert_eq!((&image["state"], &image["sha256"]), (&json!("ready"), &json!(sum)));
    assert_eq!((&image["file_bytes"], &image["virtual_bytes"]), (&json!(4 * CLUSTER), &json!(1 << 29)));
    let down = cloud.ask("GET", &path).send().await;
    assert_eq!((down.header("content-length"), down.body.as_ref()), ("262144", qcow2().as_slice()));

    // The same again is nothing new; other bytes are refused; a restart keeps them.
    assert_eq!(upload(&cloud, &format!("{path}?sha256={sum}"), qcow2()).await.status, 200);
    assert_eq!(upload(&cloud, &path, qcow2()).await.code(), "image_has_data");
    let cloud = cloud.restart().await;
    assert_eq!(cloud.ask("GET", &path).send().await.body.as_ref(), qcow2().as_slice());

    // A guest's hypervisor fetches it; deleted, the bytes go with the record.
    let agent = Agent::join(&cloud, 1).await;
    cloud
        .put(
            "/v1/flavors/00000000-0000-0000-0000-0000000000f1",
            json!({"name": "f", "cpu": 1, "memory": 64, "disk": 512}),
        )
        .await;
    let guest = json!({"name": "web", "flavor": "f", "image": "tiny", "network": "default"});
    cloud.ask("PUT", &format!("/v1/guests/{}", uuid(100))).json(&guest).send().await;
    let own = agent.ask("GET", &format!("/v1/agent/images/{}/data", uuid(9))).send().await;
    assert_eq!(own.body.as_ref(), qcow2().as_slice());
    assert_eq!(cloud.ask("DELETE", "/v1/images/tiny").send().await.code(), "in_use");
    assert_eq!(files(&cloud), 1);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_leaves_nothing() {
    let limits = Limits { image_bytes: 400_000, ..Limits::default() };
    let cloud = Cloud::start_with(|config| config.limits = limits).await;
    let path = empty_image(&cloud, "qcow2").await;
    let wrong = format!("{path}?sha256={}", "0".repeat(64));
    assert_eq!(upload(&cloud, &wrong, qcow2()).await.code(), "image_checksum");
    assert_eq!(upload(&cloud, &format!("{path}?sha256=xyz"), qcow2()).await.code(), "bad_query");
    assert_eq!(upload(&cloud, &path, vec![1; 4096]).await.code(), "image_bad_format");
    assert_eq!(upload(&cloud, &path, vec![1; 400_001]).await.code(), "body_too_large");
    let typed = cloud.ask("PUT", &path).raw("text/plain", qcow2()).send().await;
    assert_eq!(typed.code(), "unsupported_media_type");
    assert_eq!(files(&cloud), 0);
    let image: Value = cloud.get(&path.replace("/data", "")).await;
    assert_eq!((&image["state"], &image["sha256"]), (&json!("empty"), &Value::Null));
    assert_eq!(upload(&cloud, &path, qcow2()).await.status, 200);
    assert_eq!(cloud.ask("DELETE", "/v1/images/tiny").send().await.status, 204);
    assert_eq!(files(&cloud), 0);
    cloud.stop().await;
}

/// What no hypervisor would take as a base image does not become one here either.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_no_base_image_is_refused_with_the_reason_and_not_kept() {
    let cloud = Cloud::start().await;
    let raw = format!("/v1/images/{}/data", uuid(8));
    let made = json!({"name": "plain", "format": "raw"});
    cloud.put(raw.trim_end_matches("/data"), made).await;
    let qcow = empty_image(&cloud, "qcow2").await;

    let padded = |beginning: &[u8]| [beginning, &[0; 4096][beginning.len()..]].concat();
    let vdi = [&[0; 64][..], &[0x7f, 0x10, 0xda, 0xbe], &[0; 444]].concat();
    let data_file = patched(104, b"DATA\0\0\0\x08data.raw");
    for (path, bytes, words) in [
        (&raw, padded(b"KDMV"), "VMDK"),
        (&raw, vdi, "VDI"),
        (&raw, padded(b"\x1f\x8b\x08"), "gzip"),
        (&raw, vec![7; 1000], "multiple of 512"),
        (&raw, Vec::new(), "empty"),
        (&raw, qcow2(), "format qcow2"),
        (&qcow, vec![7; 4096], "format raw"),
        (&qcow, patched(8, &4096_u64.to_be_bytes()), "backing file"),
        (&qcow, patched(72, &4_u64.to_be_bytes()), "another file"),
        (&qcow, data_file, "another file"),
        (&qcow, qcow2()[..104].to_vec(), "truncated"),
        (&qcow, qcow2()[..2 * CLUSTER].to_vec(), "truncated"),
        (&qcow, patched(2 * CLUSTER, &(1_u64 << 40).to_be_bytes()), "truncated"),
    ] {
        let reply = upload(&cloud, path, bytes).await;
        assert_eq!(
            (reply.status, reply.code()),
            (400, "image_bad_format".into()),
            "{words}: {}",
            reply.text()
        );
        assert!(reply.text().contains(words), "{:?} should say {words:?}", reply.text());
        assert_eq!(files(&cloud), 0, "{words}");
        let image: Value = cloud.get(path.trim_end_matches("/data")).await;
        assert_eq!(image["state"], "empty", "{words}");
    }
    assert_eq!(upload(&cloud, &raw, vec![7; 1024]).await.status, 200);
    assert_eq!(upload(&cloud, &qcow, qcow2()).await.status, 200);
    assert_eq!(files(&cloud), 2);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_from_an_address_takes_no_upload() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let reply = upload(&cloud, "/v1/images/tiny/data", qcow2()).await;
    assert_eq!(reply.code(), "image_not_upload");
    let unpinned = json!({"name": "x", "format": "raw", "url": "http://127.0.0.1/x"});
    assert_eq!(cloud.ask("POST", "/v1/images").json(&unpinned).send().await.code(), "bad_field");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_told_at_once_that_an_image_is_no_more() {
    let cloud = Cloud::start().await;
    empty_image(&cloud, "qcow2").await;
    let agent = Agent::join(&cloud, 1).await;
    let feed = agent.poll(None).await.json();
    assert_eq!(feed["catalogue"], json!([uuid(9)]));
    let deleted = cloud.ask("DELETE", &format!("/v1/images/{}", uuid(9))).send().await;
    assert!(deleted.status < 300, "{}", deleted.text());
    let newer = agent.poll(feed["fence"].as_str()).await.json();
    assert_eq!(newer["catalogue"], json!([]));
    cloud.stop().await;
}

/// The books name bytes by their sum: what they name is never replaced, though its commit takes long.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_on_their_way_into_the_books_are_not_replaced_by_another_upload() {
    let (cloud, gate) = gated().await;
    let path = empty_image(&cloud, "qcow2").await;
    gate.set(true);
    let ask = cloud.ask("PUT", &path).raw("application/octet-stream", qcow2());
    let first = tokio::spawn(ask.send());
    gate.until_a_commit_waits().await;
    let other = patched(3 * CLUSTER, b"other");
    assert_eq!(upload(&cloud, &path, other.clone()).await.code(), "image_has_data");
    // Nor when the first one's client has left.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    cloud.until_requests(1).await;
    assert_eq!(upload(&cloud, &path, other).await.code(), "image_has_data");
    gate.set(false);
    let image = cloud.until("/v1/images/tiny", |image| image["state"] == "ready").await;
    assert_eq!(image["sha256"], hex::encode(Sha256::digest(qcow2())));
    assert_eq!(cloud.ask("GET", &path).send().await.body.as_ref(), qcow2().as_slice());
    assert_eq!(files(&cloud), 1);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_deleted_image_go_though_nobody_waits_for_it() {
    let (cloud, gate) = gated().await;
    let path = empty_image(&cloud, "qcow2").await;
    assert_eq!(upload(&cloud, &path, qcow2()).await.status, 200);
    gate.set(true);
    let delete = tokio::spawn(cloud.ask("DELETE", "/v1/images/tiny").send());
    gate.until_a_commit_waits().await;
    delete.abort();
    assert!(delete.await.unwrap_err().is_cancelled());
    cloud.until_requests(1).await;
    gate.set(false);
    until("the end of the bytes", async || files(&cloud) == 0).await;
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_deleted_while_it_is_uploaded_leaves_nothing() {
    let cloud = Cloud::start().await;
    let path = empty_image(&cloud, "qcow2").await;
    let mut stream = announced(&cloud, &path, qcow2().len() as u64).await;
    stream.write_all(&qcow2()[..CLUSTER]).await.unwrap();
    until("the upload", async || files(&cloud) == 1).await;
    assert_eq!(cloud.ask("DELETE", "/v1/images/tiny").send().await.status, 204);
    stream.write_all(&qcow2()[CLUSTER..]).await.unwrap();
    let answer = answer(stream).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("\"not_found\""), "{answer}");
    until("the end of the bytes", async || files(&cloud) == 0).await;
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_removes_what_the_books_do_not_name_and_nothing_else() {
    let cloud = Cloud::start().await;
    let path = empty_image(&cloud, "qcow2").await;
    assert_eq!(upload(&cloud, &path, qcow2()).await.status, 200);
    let named = names(&cloud.folder);
    let (folder, admin) = cloud.stop().await;
    let file = |name: &str| folder.path().join("controller/images").join(name);
    for gone in [&uuid(77), &format!("{}.{}", uuid(9), "b".repeat(64)), ".upload-cut-short"] {
        std::fs::write(file(gone), "left").unwrap();
    }
    std::fs::write(file("stranger"), "not ours").unwrap();
    // As earlier releases named it.
    std::fs::rename(file(&named[0]), file(&uuid(9))).unwrap();
    let cloud = Cloud::start_in(folder, Some(admin), |_| {}).await.unwrap();
    assert_eq!(names(&cloud.folder), [named[0].as_str(), "stranger"]);
    assert_eq!(cloud.ask("GET", &path).send().await.body.as_ref(), qcow2().as_slice());
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_too_much_is_refused_before_its_bytes_come() {
    let limits = Limits { image_bytes: 1 << 40, ..Limits::default() };
    let cloud = Cloud::start_with(|config| config.limits = limits).await;
    let path = empty_image(&cloud, "raw").await;
    let told = answer(announced(&cloud, &path, (1 << 40) + 1).await).await;
    assert!(told.starts_with("HTTP/1.1 413 ") && told.contains("\"body_too_large\""), "{told}");
    cloud.stop().await;

    let limits = Limits { spare_bytes: 1 << 60, ..Limits::default() };
    let cloud = Cloud::start_with(|config| config.limits = limits).await;
    let path = empty_image(&cloud, "raw").await;
    let told = answer(announced(&cloud, &path, 1024).await).await;
    assert!(told.starts_with("HTTP/1.1 507 ") && told.contains("\"image_no_space\""), "{told}");
    assert_eq!(files(&cloud), 0);
    cloud.stop().await;
}
