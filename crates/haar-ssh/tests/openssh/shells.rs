//! Login shells that are no `sh`: whichever of them are installed here.

use std::fs;
use std::path::Path;

use haar_ssh::{CancellationToken, Command, Error, script};
use tempfile::TempDir;

use crate::harness::{Setup, Sshd, end_all, eventually, left_out_here, never, runs, sshd_with};

/// A server whose users have a login shell, and their home.
fn with_shell(shell: &str) -> Option<(Sshd, TempDir)> {
    let test = format!("login shell {shell}");
    let paths = ["/bin", "/usr/bin"].map(|folder| format!("{folder}/{shell}"));
    let Some(path) = paths.iter().find(|path| Path::new(path).exists()) else {
        left_out_here(&test, &format!("there is no {shell}"));
        return None;
    };
    // What sshd does for such a user. An empty home, since a shell's settings may say anything.
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().display();
    let line = format!("ForceCommand HOME={folder} SHELL={path} exec {path} -c \"$SSH_ORIGINAL_COMMAND\"");
    sshd_with(&test, &Setup { lines: vec![line], ..Setup::default() }).map(|sshd| (sshd, home))
}

async fn understands_everything(shell: &str) {
    let Some((sshd, _home)) = with_shell(shell) else { return };
    let pool = sshd.pool();
    // Twice: what is asked of a shell that is not known yet is another thing.
    for _ in 0..2 {
        let output = pool.run(&Command::new("echo out; exit 7"), &never()).await.unwrap();
        let said = (output.status, String::from_utf8_lossy(&output.stdout), output.stderr.len());
        assert_eq!(said, (7, "out\n".into(), 0), "{shell}");
    }
    let hard = "it's $HOME \\ \\n ! !! \"`id`\"";
    let output = pool.run(&Command::new(script("printf %s \"$1\"", &[hard])), &never()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), hard, "{shell}");

    // In its own language, as with the ssh program: these are words of every one of them.
    let file = sshd.text("file");
    let pid = pool.background(&format!("echo 'a \\ b'\necho c > {file}"), &never()).await.unwrap();
    assert!(pid > 1);
    eventually("it is written", || fs::read_to_string(&file).is_ok_and(|text| text == "c\n")).await;

    // A number that no other test and no other process has.
    let number = 1100 + shell.bytes().map(u32::from).sum::<u32>();
    let number = format!("{number}.{}", std::process::id());
    let sleeping = format!("sleep {number}");
    let (cancel, command) = (CancellationToken::new(), Command::new(format!("{sleeping}; echo never")));
    let run = pool.run(&command, &cancel);
    let cut_off = async {
        eventually("it runs", || runs(&sleeping)).await;
        cancel.cancel();
    };
    let (outcome, ()) = tokio::join!(run, cut_off);
    assert!(matches!(outcome, Err(Error::Cancelled { .. })), "{shell}: {outcome:?}");
    pool.settled().await;
    let goes_on = runs(&sleeping);
    end_all(&sleeping);
    assert!(!goes_on, "{shell}: it goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn fish_understands_everything() {
    understands_everything("fish").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csh_understands_everything() {
    understands_everything("csh").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcsh_understands_everything() {
    understands_everything("tcsh").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zsh_understands_everything() {
    understands_everything("zsh").await;
}
