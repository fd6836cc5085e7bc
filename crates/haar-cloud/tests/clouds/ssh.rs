//! Servers by ssh, against a real sshd: readiness, commands, files, scripts, and the end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant, SystemTime};

use crate::here::until_gone;
use crate::sshd::Reachable;
use haar_cloud::cloud::Way;
use haar_cloud::copy_list::CopyList;
use haar_cloud::fake::{Call, Fault};
use haar_cloud::server::{Chunk, Command, Likeness};
use haar_cloud::state::Kind;
use haar_cloud::{Error, SpawnOrder};
use tokio::time::{sleep, timeout};

const NOTHING: &[u8] = b"";

#[tokio::test]
async fn case_32_defect_21_a_server_is_ready_when_its_first_boot_is_done_and_the_second_wait_is_none() {
    let Some(bench) = Reachable::start("case_32_ready").await else { return };
    let server = bench.spawn().await;
    let no_files = CopyList::default();
    let wait = server.wait_until_ready(&no_files, NOTHING);
    assert!(timeout(Duration::from_secs(3), wait).await.is_err(), "it cannot be ready before its boot");
    bench.booted();
    server.wait_until_ready(&no_files, NOTHING).await.unwrap();
    // Whoever looked again would not find that the boot is done.
    bench.boots();
    let wait = server.wait_until_ready(&no_files, NOTHING);
    timeout(Duration::from_secs(60), wait).await.expect("the second wait is none").unwrap();
}

#[tokio::test]
async fn case_32_a_start_up_script_runs_once_and_its_failure_is_told() {
    let Some(bench) = Reachable::start("case_32_script").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    let no_files = CopyList::default();
    let bad = b"#!/bin/sh\necho foo >&2\nexit 1\n";
    let error = server.wait_until_ready(&no_files, bad).await.unwrap_err();
    let Error::RemoteExit { status, stderr, .. } = &error else { panic!("{error}") };
    assert_eq!((*status, stderr.as_str()), (1, "foo\n"));
    assert!(server.is_alive().await.unwrap());
    let good = format!("#!/bin/sh\necho once >>{}\n", bench.text("ran"));
    server.wait_until_ready(&no_files, good.as_bytes()).await.unwrap();
    server.wait_until_ready(&no_files, NOTHING).await.unwrap();
    server.wait_until_ready(&no_files, good.as_bytes()).await.unwrap();
    assert_eq!(fs::read_to_string(bench.path("ran")).unwrap(), "once\n");
    let left: Vec<String> = fs::read_dir(bench.path("scripts"))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(left.iter().all(|name| name.starts_with("done-")), "{left:?}");
}

#[tokio::test]
async fn case_32_a_script_that_takes_too_long_is_ended() {
    let Some(bench) = Reachable::start("case_32_limit").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    let slow = format!("#!/bin/sh\necho $$ >{}\nexec sleep 1000\n", bench.text("pid"));
    let error = server.wait_until_ready(&CopyList::default(), slow.as_bytes()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    // On a machine that stood still it may never have begun.
    if let Ok(pid) = fs::read_to_string(bench.path("pid")).unwrap_or_default().trim().parse() {
        until_gone(pid).await;
    }
}

#[tokio::test]
async fn defect_22_the_host_key_is_learned_from_the_console_and_kept_for_other_processes() {
    let Some(bench) = Reachable::start("host_key").await else { return };
    bench.booted();
    // The image has ignored the key it was given; what it told on its console counts.
    let server = bench.spawn().await;
    server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    let record = bench.cloud.record().await.unwrap().unwrap();
    let details = record.entries().find_map(|entry| entry.server.clone()).unwrap();
    assert_eq!(details.host_keys.len(), 2);
    // A server that tells nothing, and shows a key that nobody vouches for, is not believed.
    bench.fake.with(|world| world.console.clear());
    let other = bench.spawn().await;
    let error = other.run(&Command::new("true")).await.unwrap_err();
    assert!(matches!(&error, Error::Ssh { message, .. } if message.contains("host key")), "{error}");
}

#[tokio::test]
async fn keys_told_on_the_console_are_learned_by_whoever_needs_them_first() {
    let Some(bench) = Reachable::start("keys_learned").await else { return };
    // Nobody waits until one of these is ready; the image has ignored the key that it was given.
    let ran = bench.spawn().await;
    let runs = (0..8).map(|_| async { ran.run(&Command::new("true")).await });
    for output in futures_util::future::join_all(runs).await {
        assert!(output.unwrap().is_success());
    }
    bench.spawn().await.create_file(&bench.text("file"), b"x").await.unwrap();
    let mut stream = bench.spawn().await.run_streaming(&Command::new("echo out")).await.unwrap();
    assert_eq!(stream.next().await.unwrap(), Some(Chunk::Stdout("out\n".into())));
    let asked = bench.spawn().await;
    assert_eq!(asked.host_keys().await.unwrap().len(), 2);
    bench.fake.with(|world| world.console.clear());
    assert_eq!(
        bench.process(Way::Direct).server(asked.id()).await.unwrap().host_keys().await.unwrap().len(),
        2
    );
}

#[tokio::test]
async fn a_host_key_that_was_cut_off_on_the_console_keeps_nobody_out() {
    let Some(bench) = Reachable::start("key_cut_off").await else { return };
    let spoilt = "KEYS-----\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n";
    bench.fake.with(|world| world.console = world.console.replacen("KEYS-----\n", spoilt, 1));
    let server = bench.spawn().await;
    server.run_to_success("true").await.unwrap();
    // One that an older version believed.
    let id = server.id().to_owned();
    let spoil = move |record: &mut haar_cloud::state::Record| {
        let found = record.entries().find(|entry| entry.cloud_id() == Some(&id)).unwrap();
        let (entry, mut details) = (found.id, found.server.clone().unwrap());
        details.host_keys.insert(0, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".to_owned());
        record.describe_server(entry, details)
    };
    bench.cloud.journal().change(spoil).await.unwrap();
    let process = bench.process(Way::Direct);
    process.server(server.id()).await.unwrap().run_to_success("true").await.unwrap();
}

#[tokio::test]
async fn a_server_inside_is_reached_through_another() {
    let Some(bench) = Reachable::start("through_another").await else { return };
    let (door, inside, third) = (bench.spawn().await, bench.spawn().await, bench.spawn().await);
    let process = bench.process(Way::Through(door.name().to_owned()));
    let [door, inside, third] = [
        process.server(door.id()).await.unwrap(),
        process.server(inside.id()).await.unwrap(),
        process.server(third.id()).await.unwrap(),
    ];
    assert!(door.through().await.unwrap().is_none());
    assert_eq!(
        inside.through().await.unwrap().map(|server| server.id().to_owned()).as_deref(),
        Some(door.id())
    );
    let output = inside.run_to_success("echo there").await.unwrap();
    assert_eq!((output.stdout.as_slice(), bench.logins()), (&b"there\n"[..], 2));
    third.run_to_success("true").await.unwrap();
    assert_eq!(bench.logins(), 3, "the way is shared");
    // A way that was closed is made anew, and what went over it too.
    door.ssh().await.unwrap().close();
    inside.run_to_success("true").await.unwrap();
    assert_eq!(bench.logins(), 5);
}

#[tokio::test]
async fn case_26_the_end_of_a_command_begins_the_countdown_and_a_running_one_holds_it() {
    let Some(bench) = Reachable::start("case_26_command").await else { return };
    bench.booted();
    let order =
        SpawnOrder { ttd: Duration::from_millis(1200), ..SpawnOrder::new("debian-12", &bench.user, "small") };
    let server = bench.cloud.spawn(order, || {}).await.unwrap();
    server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    let output = server.run(&Command::new("sleep 2; echo out; echo err >&2; exit 3")).await.unwrap();
    assert_eq!(
        (output.status, output.stdout.as_slice(), output.stderr.as_slice()),
        (3, &b"out\n"[..], &b"err\n"[..])
    );
    assert!(!server.is_destroyed());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !server.is_destroyed() {
        assert!(Instant::now() < deadline, "it idles and does not go");
        sleep(Duration::from_millis(50)).await;
    }
    bench.cloud.settled().await;
    assert_eq!(bench.fake.servers_there(), 0);
}

#[tokio::test]
async fn to_look_whether_a_server_is_alive_keeps_none_and_ends_none() {
    let Some(bench) = Reachable::start("alive").await else { return };
    bench.booted();
    let ttd = Duration::from_millis(1000);
    let order = SpawnOrder { ttd, ..SpawnOrder::new("debian-12", &bench.user, "small") };
    let id = bench.cloud.spawn(order.clone(), || {}).await.unwrap().id().to_owned();
    // Another process has learned its host key, so that here it was never used.
    let elsewhere = bench.process(Way::Direct).server(&id).await.unwrap();
    elsewhere.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    let unused = bench.cloud.server(&id).await.unwrap();
    let used = bench.cloud.spawn(order, || {}).await.unwrap();
    used.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !used.is_destroyed() {
        assert!(Instant::now() < deadline, "looking at it kept it");
        assert!(unused.is_alive().await.unwrap());
        used.is_alive().await.unwrap();
    }
    bench.cloud.settled().await;
    // For longer than it may idle.
    let end = Instant::now() + 2 * ttd;
    while Instant::now() < end {
        assert!(unused.is_alive().await.unwrap(), "looking at it ended it");
    }
    assert!(!unused.is_destroyed() && bench.fake.servers_there() == 1);
}

#[tokio::test]
async fn a_server_that_takes_commands_and_runs_none_is_not_alive() {
    let Some(bench) = Reachable::start("not_alive").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    assert!(server.is_alive().await.unwrap());
    let key = fs::read_to_string(bench.path("authorized_keys")).unwrap();
    fs::write(bench.path("authorized_keys"), format!("command=\"sleep 1000\" {key}")).unwrap();
    let other = bench.process(Way::Direct).server(server.id()).await.unwrap();
    let look = timeout(Duration::from_secs(60), other.is_alive());
    assert!(!look.await.expect("it is waited for without end").unwrap());
}

#[tokio::test]
async fn case_29_a_command_ends_with_its_server_and_streams_as_it_goes() {
    let Some(bench) = Reachable::start("case_29_end").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    let mut stream = server.run_streaming(&Command::new("echo one; sleep 1000")).await.unwrap();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first, Chunk::Stdout("one\n".into()));
    let file = bench.text("it's a file");
    server.run_in_background(&format!("echo \"a  b\" >\"{file}\"")).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read_to_string(bench.path("it's a file")).unwrap_or_default() != "a  b\n" {
        assert!(Instant::now() < deadline, "the background command wrote nothing");
        sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    let told = async { (stream.next().await, began.elapsed()) };
    let ((ended, after), destroyed) = tokio::join!(told, server.destroy_at_once());
    destroyed.unwrap();
    assert!(matches!(ended, Err(Error::Cancelled { .. })), "{ended:?}");
    assert!(after < Duration::from_secs(20), "{after:?}");
    assert!(matches!(server.run(&Command::new("true")).await, Err(Error::Ssh { .. })));
}

#[tokio::test]
async fn case_31_a_list_is_copied_with_times_and_without_what_is_missing() {
    let Some(bench) = Reachable::start("case_31_copy").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    let (here, there) = (bench.path("it's here"), bench.text("new folder/it's there"));
    fs::write(&here, "content").unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    fs::File::options().write(true).open(&here).unwrap().set_modified(then).unwrap();
    let list = format!("{}:{there},{}", here.display(), bench.text("missing"));
    server.wait_until_ready(&CopyList::parse(&list).unwrap(), NOTHING).await.unwrap();
    let metadata = fs::metadata(&there).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.modified().unwrap()), (0o600, then));
    fs::create_dir(bench.path("folder")).unwrap();
    let folder = CopyList::parse(&format!("{}:/tmp/x", bench.text("folder"))).unwrap();
    let error = server.copy_over(&folder).await.unwrap_err().to_string();
    assert!(error.contains("directory"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_copied_lies_open_at_no_moment() {
    let Some(bench) = Reachable::start("secret").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    let (here, there) = (bench.path("secret"), bench.path("there"));
    fs::write(&here, vec![7; 32 << 20]).unwrap();
    fs::set_permissions(&here, fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(&there).unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let list = CopyList::parse(&format!("{}:{}/secret", here.display(), there.display())).unwrap();
    let watch = || {
        let mut modes = std::collections::BTreeSet::new();
        while !is_done.load(std::sync::atomic::Ordering::SeqCst) {
            let files = fs::read_dir(&there).unwrap().flatten();
            let seen = files.filter_map(|file| file.metadata().ok());
            modes.extend(seen.map(|metadata| metadata.permissions().mode() & 0o777));
            std::thread::yield_now();
        }
        modes
    };
    let modes = std::thread::scope(|scope| {
        let watcher = scope.spawn(watch);
        let copied = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(server.copy_over(&list))
        });
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
        copied.unwrap();
        watcher.join().unwrap()
    });
    assert_eq!(modes.into_iter().collect::<Vec<_>>(), [0o600]);
}

#[tokio::test]
async fn a_server_that_one_process_prepared_is_what_another_wants() {
    let Some(bench) = Reachable::start("matches").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    let process = bench.process(Way::Direct);
    let before = process.server(server.id()).await.unwrap();
    let (files, script) = (CopyList::parse(&bench.text("missing")).unwrap(), b"#!/bin/sh\ntrue secret\n");
    let like = Likeness { os: "debian-12", script, files: &files, flavor: None, shared_disk: false };
    assert!(!before.matches(&like));
    server.wait_until_ready(&files, script).await.unwrap();
    assert!(server.matches(&like));
    let same = process.server(server.id()).await.unwrap();
    assert!(same.matches(&like) && before.matches(&like), "all handles learn it");
    let other = bench.process(Way::Direct).server(server.id()).await.unwrap();
    assert!(other.matches(&like) && !other.matches(&Likeness { script: NOTHING, ..like }));
    let record = fs::read_to_string(bench.cloud.journal().store().path()).unwrap();
    assert!(!record.contains("secret"), "a script may hold secrets");
}

#[tokio::test]
async fn files_go_there_and_back_and_directories_are_made() {
    let Some(bench) = Reachable::start("files").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    server.make_dir(&bench.text("a b/c")).await.unwrap();
    server.make_dir(&bench.text("a b/c")).await.unwrap();
    server.create_file(&bench.text("a b/c/f"), b"one").await.unwrap();
    server.download(&bench.text("a b/c/f"), &bench.path("back")).await.unwrap();
    assert_eq!(fs::read(bench.path("back")).unwrap(), b"one");
    server.upload(&bench.path("back"), &bench.text("up/to here")).await.unwrap();
    let error = server.download(&bench.text("none"), &bench.path("back")).await.unwrap_err();
    let told = format!("{} on {}: there is no such file", bench.text("none"), server.name());
    assert!(error.is_not_found() && error.to_string().contains(&told), "{error}");
    let error = server.upload(&bench.path("none"), &bench.text("some")).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("here: there is no such file"), "{error}");
    assert_eq!(fs::read(bench.path("up/to here")).unwrap(), b"one");
    assert!(server.home_dir().await.unwrap().is_absolute());
    assert!(server.time_zone().await.unwrap().seconds().abs() <= 14 * 3600);
}

#[tokio::test]
async fn case_33_a_destroy_script_has_run_before_the_server_goes_and_holds_up_nothing_for_ever() {
    let Some(bench) = Reachable::start("case_33_destroy").await else { return };
    bench.booted();
    let server = bench.spawn().await;
    let script = format!("#!/bin/sh\necho bye >{}\n", bench.text("bye"));
    server.set_destroy_script(Some(script.into_bytes()));
    server.wait_until_ready(&CopyList::default(), NOTHING).await.unwrap();
    // A cloud that refuses shows what came before it was asked.
    let no = Error::Forbidden { what: "the server".to_owned(), message: "locked".to_owned() };
    bench.fake.order(Call::Delete(Kind::Server), Fault::Refuse(no));
    let error = server.destroy().await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { .. }), "{error}");
    assert_eq!(bench.fake.servers_there(), 1);
    assert_eq!(fs::read_to_string(bench.path("bye")).unwrap(), "bye\n");
    server.destroy().await.unwrap();
    assert_eq!(bench.fake.servers_there(), 0);
    let hanging = bench.spawn().await;
    hanging.set_destroy_script(Some(b"#!/bin/sh\nsleep 1000\n".to_vec()));
    // Its own way there, since nobody has waited for it.
    let began = Instant::now();
    hanging.destroy().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(60) && bench.fake.servers_there() == 0);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_destroyed_all_the_same() {
    let Some(bench) = Reachable::start("unreachable").await else { return };
    let server = bench.spawn().await;
    // Nobody vouches for the key that it shows, so its script cannot run.
    bench.fake.with(|world| world.console.clear());
    server.set_destroy_script(Some(b"#!/bin/sh\ntrue\n".to_vec()));
    server.destroy().await.unwrap();
    assert_eq!(bench.fake.servers_there(), 0);
}
