//! This machine as a server: commands and files as on any other, without ssh.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use haar_cloud::cloud::Access;
use haar_cloud::copy_list::CopyList;
use haar_cloud::local::Local;
use haar_cloud::server::{Chunk, Command, Output};
use haar_cloud::{Cloud, Error, Server, SpawnOrder};
use haar_ssh::Limits;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything here may take on a machine that has much to do.
const LIMIT: Duration = Duration::from_secs(30);
/// So much of a command's output is kept.
const CAP: usize = 1000;

/// This machine, taken for a deployment; `None` where it has no address besides loopback.
struct Bench {
    cloud: Cloud,
    folder: TempDir,
}

impl Bench {
    async fn deployed() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let ground = match Local::ground() {
            Err(error) if error.is_not_found() => {
                println!("left out: {error}");
                return None;
            }
            ground => ground.unwrap(),
        };
        let limits = Limits { output_cap: CAP, ..Limits::default() };
        let scripts = folder.path().join("scripts").to_str().unwrap().to_owned();
        let access = Access { limits, folder: scripts, ..Access::default() };
        let local = Arc::new(Local::new(folder.path()));
        let cloud = Cloud::with(local, &"a".parse().unwrap(), folder.path(), access, None).unwrap();
        cloud.deploy(ground).await.unwrap();
        Some(Self { cloud, folder })
    }

    async fn spawn(&self) -> Server {
        let os = self.cloud.provider().images().await.unwrap().remove(0).name;
        self.cloud.spawn(SpawnOrder::new(&os, "root", "localhost"), || {}).await.unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    async fn end(self) {
        self.cloud.tear_down().await.unwrap();
        self.cloud.settled().await;
    }
}

fn text(output: &Output) -> (u32, &str, &str) {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    (output.status, text(&output.stdout), text(&output.stderr))
}

/// The process id that a command writes first.
fn pid(chunk: Option<Chunk>) -> i32 {
    let Some(Chunk::Stdout(bytes)) = chunk else { panic!("{chunk:?}") };
    std::str::from_utf8(&bytes).unwrap().trim().parse().unwrap()
}

/// Waits until a process has ended.
pub(crate) async fn until_gone(pid: i32) {
    let began = Instant::now();
    while kill(Pid::from_raw(pid), None).is_ok() {
        assert!(began.elapsed() < LIMIT, "process {pid} runs on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_command_on_this_machine_has_its_output_its_status_and_its_input() {
    let Some(bench) = Bench::deployed().await else { return };
    let server = bench.spawn().await;
    server.wait_until_ready(&CopyList::default(), b"").await.unwrap();
    assert!(server.is_alive().await.unwrap());
    let run = async |command: Command| server.run(&command).await.unwrap();
    assert_eq!(text(&run(Command::new("echo out; echo err >&2; exit 7")).await), (7, "out\n", "err\n"));
    assert_eq!(text(&run(Command::new("tr a-z A-Z").stdin("loud")).await), (0, "LOUD", ""));
    assert_eq!(text(&run(Command::new("cat")).await), (0, "", ""), "nothing to read is an end at once");
    assert_eq!(run(Command::new("true").stdin(vec![0; 1 << 20])).await.status, 0, "input that nobody reads");
    let killed = run(Command::new("kill -KILL $$")).await;
    assert_eq!((killed.status, killed.signal.as_deref()), (137, Some("KILL")));
    let long = run(Command::new("head -c 300000 /dev/zero; echo done >&2")).await;
    assert!(long.truncated && long.stdout.len() == CAP && long.stderr == b"done\n");
    let home = server.run_to_success("pwd -P").await.unwrap();
    let told = server.home_dir().await.unwrap().canonicalize().unwrap();
    assert_eq!(String::from_utf8_lossy(&home.stdout).trim(), told.to_str().unwrap());
    let error = server.run(&Command::new("echo a\0b")).await.unwrap_err().to_string();
    assert!(error.contains("zero byte"), "{error}");
    bench.end().await;
}

#[tokio::test]
async fn a_command_on_this_machine_ends_with_all_that_it_started() {
    let Some(bench) = Bench::deployed().await else { return };
    let server = bench.spawn().await;
    // It does not end when asked, and neither does what it started.
    let stubborn = Command::new("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000");
    let error = server.run(&stubborn.clone().limit(Duration::from_secs(1))).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    bench.cloud.settled().await;

    let mut stream = server.run_streaming(&stubborn).await.unwrap();
    let dropped = pid(stream.next().await.unwrap());
    drop(stream);
    bench.cloud.settled().await;
    until_gone(dropped).await;

    let mut stream = server.run_streaming(&stubborn).await.unwrap();
    let cut_off = pid(stream.next().await.unwrap());
    server.destroy().await.unwrap();
    let error = stream.next().await.unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    assert_eq!(stream.next().await.unwrap(), None);
    until_gone(cut_off).await;
    bench.end().await;
}

#[tokio::test]
async fn a_command_that_is_left_running_on_this_machine_goes_on() {
    let Some(bench) = Bench::deployed().await else { return };
    let server = bench.spawn().await;
    let (go, done) = (bench.path("go"), bench.path("it's done"));
    // Not every shell's echo writes a backslash as it is.
    let command = format!("until [ -e {go} ]; do sleep 0.05; done\nprintf '%s\\n' 'a \\n b' > \"{done}\"");
    let process = i32::try_from(server.run_in_background(&command).await.unwrap()).unwrap();
    server.destroy().await.unwrap();
    assert!(kill(Pid::from_raw(process), None).is_ok(), "giving the machine back ends nothing");
    fs::write(&go, "").unwrap();
    let began = Instant::now();
    let read = || fs::read_to_string(&done).unwrap_or_default();
    while read() != "a \\n b\n" {
        assert!(began.elapsed() < LIMIT, "{:?}", read());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bench.end().await;
}

#[tokio::test]
async fn files_on_this_machine_are_whole_and_have_their_permissions() {
    let Some(bench) = Bench::deployed().await else { return };
    let server = bench.spawn().await;
    let (here, there) = (bench.path("it's here"), bench.path("new/ways/there"));
    fs::write(&here, "words").unwrap();
    fs::set_permissions(&here, fs::Permissions::from_mode(0o750)).unwrap();
    server.upload(Path::new(&here), &there).await.unwrap();
    assert_eq!((fs::read_to_string(&there).unwrap(), mode(&there)), ("words".to_owned(), 0o750));
    server.create_file(&there, b"secret").await.unwrap();
    assert_eq!((fs::read_to_string(&there).unwrap(), mode(&there)), ("secret".to_owned(), 0o600));
    let back = bench.path("back");
    server.download(&there, Path::new(&back)).await.unwrap();
    assert_eq!((fs::read_to_string(&back).unwrap(), mode(&back)), ("secret".to_owned(), 0o600));
    // Onto itself it stays as it is; what is no plain file is written to and stays what it is.
    server.upload(Path::new(&here), &here).await.unwrap();
    assert_eq!(fs::read_to_string(&here).unwrap(), "words");
    server.upload(Path::new(&here), "/dev/null").await.unwrap();
    assert_ne!(fs::metadata("/dev/null").unwrap().rdev(), 0);
    server.make_dir(&bench.path("a/b/c")).await.unwrap();
    assert!(Path::new(&bench.path("a/b/c")).is_dir());
    for path in ["a", "none", "a/b"] {
        let error = server.download(&bench.path(path), Path::new(&back)).await.unwrap_err();
        assert!(error.to_string().contains(&bench.path(path)), "{error}");
        assert_eq!(error.is_not_found(), path == "none", "{error:?}");
    }
    let error = server.upload(Path::new(&here), &bench.path("a")).await.unwrap_err().to_string();
    assert!(error.contains("is a directory"), "{error}");
    assert_eq!(fs::read_to_string(&back).unwrap(), "secret", "what failed left it as it was");

    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(&here).unwrap().set_modified(old).unwrap();
    let (copy, missing) = (bench.path("copy"), bench.path("none"));
    let list = CopyList::parse(&format!("{here}:{copy},{missing}")).unwrap();
    server.copy_over(&list).await.unwrap();
    assert_eq!((fs::metadata(&copy).unwrap().modified().unwrap(), mode(&copy)), (old, 0o600));
    assert!(fs::read_dir(bench.folder.path()).unwrap().all(|entry| {
        let name = entry.unwrap().file_name();
        !name.to_str().unwrap().ends_with(".part")
    }));
    bench.end().await;
}

#[tokio::test]
async fn scripts_on_this_machine_run_once_for_each_time_it_is_taken() {
    let Some(bench) = Bench::deployed().await else { return };
    let (log, bye) = (bench.path("log"), bench.path("bye"));
    let script = format!("#!/bin/sh\necho begun >> {log}\n");
    for times in 1..=2 {
        let server = bench.spawn().await;
        server.wait_until_ready(&CopyList::default(), script.as_bytes()).await.unwrap();
        server.wait_until_ready(&CopyList::default(), script.as_bytes()).await.unwrap();
        // Another process finds on record what was done.
        let (provider, name) = (Arc::new(Local::new(bench.folder.path())), bench.cloud.name());
        let other = Cloud::new(provider, name, bench.folder.path()).unwrap();
        let known = other.servers().await.unwrap().remove(0);
        known.wait_until_ready(&CopyList::default(), script.as_bytes()).await.unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap().lines().count(), times);
        server.set_destroy_script(Some(format!("#!/bin/sh\necho bye >> {bye}\n").into_bytes()));
        server.destroy().await.unwrap();
        assert_eq!(fs::read_to_string(&bye).unwrap().lines().count(), times);
    }
    assert_eq!(fs::read_dir(bench.path("scripts")).unwrap().count(), 0, "no script stays");
    let server = bench.spawn().await;
    let error = server.wait_until_ready(&CopyList::default(), b"#!/bin/sh\necho why >&2; exit 3\n").await;
    let error = error.unwrap_err();
    assert!(matches!(&error, Error::RemoteExit { status: 3, stderr, .. } if stderr == "why\n"), "{error:?}");
    bench.end().await;
}

#[tokio::test]
async fn a_server_that_is_this_machine_has_no_connections_of_ssh() {
    let Some(bench) = Bench::deployed().await else { return };
    let error = bench.spawn().await.ssh().await.unwrap_err().to_string();
    assert!(error.contains("this machine"), "{error}");
    bench.end().await;
}
