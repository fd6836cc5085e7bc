//! Servers that cannot be reached, that hang or go while one waits, and files between homes and time zones.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::sshd::{Reachable, free_port, here};
use haar_cloud::cloud::Access;
use haar_cloud::copy_list::CopyList;
use haar_cloud::server::{Chunk, Command};
use haar_cloud::{Error, SpawnOrder};
use haar_ssh::Limits;
use tokio::time::{sleep, timeout};

const NOTHING: &[u8] = b"";
/// Says that a test is the child of another, with a home and a time zone of its own.
const CHILD: &str = "HAAR_CLOUD_TEST_COPIES";

/// A server at a port where no sshd is: what waiting for it says, and that nothing is forgotten.
async fn unready(port: u16, words: &str) {
    let folder = crate::bench::folder();
    // Longer than a machine stands still: the reason is that of the dials that fail meanwhile.
    let patience = Duration::from_secs(8);
    let limits = Limits { dial: Duration::from_millis(500), patience, ..Limits::default() };
    let (fake, cloud) = here(folder.path(), Access { port, limits, ..Access::default() }).await;
    let server = cloud.spawn(SpawnOrder::new("debian-12", "debian", "small"), || {}).await.unwrap();
    let began = Instant::now();
    let error = server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap_err();
    let Error::Ssh { server: told, message } = &error else { panic!("{error:?}") };
    assert!(told == server.name() && message.contains(words), "{error}");
    assert!(
        began.elapsed() >= patience && began.elapsed() < Duration::from_secs(60),
        "{:?}",
        began.elapsed()
    );
    // It is paid for: it is on record, counts as one that runs, and can be destroyed.
    assert_eq!(cloud.servers().await.unwrap().len(), 1);
    assert!(server.is_running().await.unwrap() && !server.is_alive().await.unwrap());
    server.destroy().await.unwrap();
    assert_eq!((fake.servers_there(), cloud.servers().await.unwrap().len()), (0, 0));
}

#[tokio::test]
async fn a_server_that_never_opens_its_port_is_told_in_time_and_not_forgotten() {
    unready(free_port(), "nothing listens").await;
}

#[tokio::test]
async fn a_server_that_opens_its_port_and_hangs_is_told_in_time_and_not_forgotten() {
    // Connections are taken by the system, and nobody ever answers.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    unready(silent.local_addr().unwrap().port(), "does not speak").await;
}

#[tokio::test]
async fn case_32_who_waits_for_a_server_is_told_at_once_that_it_goes() {
    let Some(bench) = Reachable::start("case_32_goes").await else { return };
    let server = bench.spawn().await;
    let waiting = server.clone();
    let wait = tokio::spawn(async move { waiting.wait_until_ready(&CopyList::default(), NOTHING).await });
    sleep(Duration::from_secs(2)).await;
    assert!(!wait.is_finished(), "its boot has not ended");
    server.destroy_at_once().await.unwrap();
    let outcome = timeout(Duration::from_secs(60), wait).await.expect("it waits on").unwrap();
    assert!(matches!(outcome, Err(Error::Cancelled { .. })), "{outcome:?}");
}

#[tokio::test]
async fn defect_17_what_began_before_connections_were_made_anew_goes_on() {
    let Some(bench) = Reachable::start("defect_17").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    let (go, limit) = (bench.text("go"), Duration::from_secs(20));
    // More than one connection has room for; they end with the test's folder at the latest.
    let text = format!(
        "echo one; while [ ! -e {go} ] && [ -e {} ]; do sleep 0.2; done; echo two",
        bench.text("sentinel")
    );
    let mut streams = Vec::new();
    for _ in 0..12 {
        let mut stream = server.run_streaming(&Command::new(text.as_str())).await.unwrap();
        assert_eq!(stream.next().await.unwrap(), Some(Chunk::Stdout("one\n".into())));
        streams.push(stream);
    }
    // A start-up script may change what a login sets, so afterwards nothing older is used.
    server.wait_until_ready(&CopyList::default(), b"#!/bin/sh\ntrue\n").await.unwrap();
    assert_eq!(server.ssh().await.unwrap().connections(), 0);
    fs::write(&go, "").unwrap();
    // The oldest last.
    while let Some(mut stream) = streams.pop() {
        let next = timeout(limit, stream.next()).await.expect("it has ended").unwrap();
        assert_eq!(next, Some(Chunk::Stdout("two\n".into())));
        assert_eq!(timeout(limit, stream.wait()).await.expect("it has ended").unwrap().status, 0);
        server.run_to_success("true").await.unwrap();
    }
    assert_eq!(server.ssh().await.unwrap().connections(), 1);
}

#[tokio::test]
async fn defect_25_a_server_that_hangs_while_it_writes_its_disks_out_is_destroyed_in_time() {
    let Some(bench) = Reachable::start("defect_25").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    bench.hang();
    let began = Instant::now();
    server.destroy().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(bench.fake.servers_there(), 0);
}

#[test]
fn case_31_a_list_goes_from_home_to_home_whatever_their_time_zones() {
    let home = tempfile::tempdir().unwrap();
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reach::copier", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .env("HOME", home.path())
        .env("TZ", "Asia/Kolkata")
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{words}\n{}", String::from_utf8_lossy(&child.stdout));
}

/// What a test has put into the home that the server's user really has.
struct Theirs(PathBuf);

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write_at(path: &Path, text: &str, then: SystemTime) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

/// The child's part; without its variable it is nothing.
#[tokio::test]
#[ignore = "started by the test before it"]
async fn copier() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let Some(bench) = Reachable::start("case_31_homes").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    let ours = PathBuf::from(std::env::var_os("HOME").unwrap());
    let (name, theirs) =
        (format!(".haar-cloud-test-{}", std::process::id()), server.home_dir().await.unwrap());
    assert_ne!(ours, theirs, "the user's home is no matter of this program's surroundings");
    let there = Theirs(theirs.join(&name));
    assert_eq!(server.time_zone().await.unwrap().seconds(), 0, "and ours is not UTC");

    let [old, older] =
        [1_700_000_000, 1_000_000_000].map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at));
    write_at(&ours.join(&name).join("a"), "one", old);
    write_at(&bench.path("x/y"), "two", older);
    let list = format!("~/{name}/a,{}:~/{name}/d/z,~/{name}/missing", bench.text("x/y"));
    server.copy_over(&CopyList::parse(&list).unwrap()).await.unwrap();
    for (file, text, then) in [("a", "one", old), ("d/z", "two", older)] {
        let file = there.0.join(file);
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.modified().unwrap()), (0o600, then));
    }
    assert!(!there.0.join("missing").exists());
}
