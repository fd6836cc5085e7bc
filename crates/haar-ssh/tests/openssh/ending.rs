//! Commands that are not wanted any more: whatever the reason, they end on the server too.

use std::fs;
use std::time::Duration;

use haar_ssh::{CancellationToken, Command, Error};
use tokio::time::timeout;

use crate::harness::{Setup, Sshd, end_all, eventually, never, runs, sshd, sshd_with};

/// Nobody waits longer for what ends at once; by themselves the commands here go on for a thousand seconds.
const AT_ONCE: Duration = Duration::from_secs(60);

/// A command of this test alone, with a child, and whether any of it still runs.
struct Sleeper {
    text: String,
    begun: std::path::PathBuf,
    number: String,
}

impl Sleeper {
    fn new(sshd: &Sshd, number: u32) -> Self {
        let begun = sshd.path("begun");
        // Found again by a number that no other process has.
        let number = format!("{number}.{}", std::process::id());
        let text = format!("sleep {number} & echo x > {}; sleep {number}; echo never", begun.display());
        Self { text, begun, number }
    }

    fn has_begun(&self) -> bool {
        fs::exists(&self.begun).unwrap() && self.runs()
    }

    fn runs(&self) -> bool {
        runs(&format!("sleep {}", self.number))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Where the test wants it to go on, or has failed, it goes on without its server.
        end_all(&format!("sleep {}", self.number));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_29_defect_24_a_cancelled_command_is_gone_from_the_server_with_its_children() {
    let Some(sshd) = sshd("case 29: cancel") else { return };
    let (pool, cancel) = (sshd.pool(), CancellationToken::new());
    let sleeper = Sleeper::new(&sshd, 1001);
    let (command, token) = (Command::new(&sleeper.text), cancel.clone());
    let runner = pool.clone();
    let run = tokio::spawn(async move { runner.run(&command, &token).await });
    eventually("the command runs", || sleeper.has_begun()).await;
    cancel.cancel();
    let outcome = timeout(AT_ONCE, run).await.expect("it goes on").unwrap();
    assert!(matches!(outcome, Err(Error::Cancelled { .. })), "{outcome:?}");
    eventually("nothing of it runs", || !sleeper.runs()).await;
    // What the pool had on the server is back.
    let output = pool.run(&Command::new("echo fine"), &never()).await.unwrap();
    assert_eq!(output.stdout, b"fine\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_over_its_time_is_ended_and_what_it_said_is_kept() {
    let Some(sshd) = sshd("over time") else { return };
    let pool = sshd.pool();
    let sleeper = Sleeper::new(&sshd, 1002);
    let limit = Duration::from_secs(1);
    let text = format!("echo said; {}", sleeper.text);
    let outcome = pool.run(&Command::new(text).limit(limit), &never()).await;
    let Err(Error::OverTime { output, limit: told, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((output.stdout.as_slice(), told), (&b"said\n"[..], limit));
    eventually("nothing of it runs", || !sleeper.runs()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ignores_the_wish_is_killed() {
    let Some(sshd) = sshd("ignores TERM") else { return };
    let pool = sshd.pool();
    let sleeper = Sleeper::new(&sshd, 1003);
    let text = format!("trap '' TERM; {}", sleeper.text);
    let command = Command::new(text).limit(Duration::from_secs(1));
    assert!(matches!(pool.run(&command, &never()).await, Err(Error::OverTime { .. })));
    eventually("nothing of it runs", || !sleeper.runs()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_caller_goes_away_is_ended() {
    let Some(sshd) = sshd("dropped") else { return };
    let pool = sshd.pool();
    let sleeper = Sleeper::new(&sshd, 1004);
    let command = Command::new(&sleeper.text);
    let never = never();
    tokio::select! {
        outcome = pool.run(&command, &never) => panic!("{outcome:?}"),
        () = eventually("the command runs", || sleeper.has_begun()) => {}
    }
    eventually("nothing of it runs", || !sleeper.runs()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_ended_where_the_server_allows_one_session_only() {
    let setup = Setup { max_sessions: 1, ..Setup::default() };
    let Some(sshd) = sshd_with("end, one session", &setup) else { return };
    let pool = sshd.pool();
    let sleeper = Sleeper::new(&sshd, 1005);
    let command = Command::new(&sleeper.text).limit(Duration::from_secs(1));
    assert!(matches!(pool.run(&command, &never()).await, Err(Error::OverTime { .. })));
    eventually("nothing of it runs", || !sleeper.runs()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn case_29_closing_the_pool_fails_a_command_at_once() {
    let Some(sshd) = sshd("case 29: close") else { return };
    let pool = sshd.pool();
    let sleeper = Sleeper::new(&sshd, 1006);
    let (command, runner) = (Command::new(&sleeper.text), pool.clone());
    let run = tokio::spawn(async move { runner.run(&command, &never()).await });
    eventually("the command runs", || sleeper.has_begun()).await;
    pool.close();
    let outcome = timeout(AT_ONCE, run).await.expect("it goes on").unwrap();
    assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
    assert!(matches!(pool.run(&Command::new("true"), &never()).await, Err(Error::Closed { .. })));
    assert!(matches!(pool.wait_until_ready(&never()).await, Err(Error::Closed { .. })));
    assert_eq!(pool.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_token_starts_nothing() {
    let Some(sshd) = sshd("cancelled before") else { return };
    let (pool, cancel) = (sshd.pool(), CancellationToken::new());
    cancel.cancel();
    let file = sshd.text("file");
    let outcome = pool.run(&Command::new(format!("echo x > {file}")), &cancel).await;
    assert!(matches!(outcome, Err(Error::Cancelled { .. })), "{outcome:?}");
    assert!(!fs::exists(file).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_what_is_left_finds_every_command_ended() {
    let Some(sshd) = sshd("settled") else { return };
    let (pool, cancel) = (sshd.pool(), CancellationToken::new());
    let sleeper = Sleeper::new(&sshd, 1007);
    // It takes longer to be ended than a caller that cancels is kept.
    let command = Command::new(format!("trap '' TERM; {}", sleeper.text));
    let (runner, token) = (pool.clone(), cancel.clone());
    let run = tokio::spawn(async move { runner.run(&command, &token).await });
    eventually("the command runs", || sleeper.has_begun()).await;
    cancel.cancel();
    assert!(matches!(run.await.unwrap(), Err(Error::Cancelled { .. })));
    assert!(sleeper.runs());
    pool.settled().await;
    assert!(!sleeper.runs());
}
