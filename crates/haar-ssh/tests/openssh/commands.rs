//! Running commands.

use std::fs;
use std::time::Duration;

use haar_ssh::{Chunk, Command, Error, quote};

use crate::harness::{eventually, limits, never, sshd};

#[tokio::test(flavor = "multi_thread")]
async fn case_29_defect_24_stdout_stderr_and_status_come_apart() {
    let Some(sshd) = sshd("case 29: streams") else { return };
    let pool = sshd.pool();
    let command = Command::new("echo out; echo err >&2; exit 7");
    let output = pool.run(&command, &never()).await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!((output.status, output.signal, output.truncated), (7, None, false));

    let output = pool.run(&Command::new("kill -KILL $$"), &never()).await.unwrap();
    assert_eq!((output.status, output.signal.as_deref()), (137, Some("KILL")));
    assert_eq!(pool.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_what_it_is_given_and_nothing_else() {
    let Some(sshd) = sshd("stdin") else { return };
    let pool = sshd.pool();
    let text: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let run = async |command: Command| pool.run(&command, &never()).await.unwrap();
    let counted = run(Command::new("wc -c").stdin(text.clone())).await;
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "3000000");
    let empty = run(Command::new("cat")).await;
    assert_eq!((empty.status, empty.stdout.as_slice()), (0, &b""[..]));
    // It ends without reading what it was given.
    let unread = run(Command::new("exit 3").stdin(text)).await;
    assert_eq!(unread.status, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn case_29_defect_24_a_hundred_megabytes_stay_bounded_in_memory() {
    let Some(sshd) = sshd("case 29: much output") else { return };
    let mut options = sshd.options();
    options.limits = haar_ssh::Limits { output_cap: 4096, ..limits() };
    let pool = haar_ssh::Pool::new(options);
    pool.wait_until_ready(&never()).await.unwrap();
    let before = memory_kib();
    let watching = tokio::spawn(async move {
        while memory_kib() < before + 80_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let command = Command::new("head -c 100000000 /dev/zero; head -c 5000 /dev/zero >&2; echo done >&2");
    let output = pool.run(&command, &never()).await.unwrap();
    assert_eq!((output.status, output.stdout.len(), output.stderr.len()), (0, 4096, 4096));
    assert!(output.truncated);
    assert!(!watching.is_finished(), "it took more than 80 MB");
    watching.abort();
}

fn memory_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn case_29_defect_24_quotes_and_spaces_survive_in_the_background() {
    let Some(sshd) = sshd("case 29: background") else { return };
    let pool = sshd.pool();
    let file = sshd.text("it's \"here\"");
    let text = format!("printf '%s\\n' \"it's a 'test'  with \\\"all\\\" of \\$it\" > {}", quote(&file));
    let pid = pool.background(&text, &never()).await.unwrap();
    assert!(pid > 1);
    let written = || fs::read_to_string(&file).unwrap_or_default();
    eventually("the file is written", || written().ends_with('\n')).await;
    assert_eq!(written(), "it's a 'test'  with \"all\" of $it\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_running_outlives_the_connection_and_holds_up_nobody() {
    let Some(sshd) = sshd("background outlives") else { return };
    let pool = sshd.pool();
    let (go, gone) = (sshd.text("go"), sshd.text("gone"));
    let text = format!("while [ ! -e {go} ]; do sleep 0.1; done; echo yes > {gone}");
    let pid = pool.background(&text, &never()).await.unwrap();
    pool.close();
    sshd.kill_connections();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    fs::write(go, "").unwrap();
    eventually("it has done its work", || fs::read_to_string(&gone).is_ok_and(|text| text == "yes\n")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_comes_while_the_command_runs() {
    let Some(sshd) = sshd("streams") else { return };
    let pool = sshd.pool();
    let go = sshd.text("go");
    let text = format!("echo first; while [ ! -e {go} ]; do sleep 0.05; done; echo second >&2; exit 4");
    let mut running = pool.spawn(&Command::new(text), &never()).await.unwrap();
    let first = running.next().await.unwrap();
    assert_eq!(first, Some(Chunk::Stdout("first\n".into())));
    // The command could not have ended yet, for this is what it waits for.
    fs::write(go, "").unwrap();
    assert_eq!(running.next().await.unwrap(), Some(Chunk::Stderr("second\n".into())));
    assert_eq!(running.wait().await.unwrap().status, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_holds_up_no_other_command() {
    let Some(sshd) = sshd("slow reader") else { return };
    let pool = sshd.pool();
    let command = Command::new("head -c 50000000 /dev/zero");
    let mut running = pool.spawn(&command, &never()).await.unwrap();
    let Some(Chunk::Stdout(first)) = running.next().await.unwrap() else { panic!("no output") };
    for _ in 0..3 {
        let (command, never) = (Command::new("true"), never());
        let run = pool.run(&command, &never);
        let output = tokio::time::timeout(Duration::from_secs(100), run).await;
        assert_eq!(output.expect("held up").unwrap().status, 0);
    }
    let mut length = first.len();
    while let Some(Chunk::Stdout(bytes)) = running.next().await.unwrap() {
        length += bytes.len();
    }
    assert_eq!(length, 50_000_000);
    assert_eq!(running.wait().await.unwrap().status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zero_byte_is_refused_before_anything_is_dialled() {
    let Some(sshd) = sshd("zero byte") else { return };
    let pool = sshd.pool();
    let outcome = pool.run(&Command::new("echo a\0b"), &never()).await;
    assert!(matches!(outcome, Err(Error::BadInput { what: "command", .. })), "{outcome:?}");
    assert_eq!(pool.connections(), 0);
}
