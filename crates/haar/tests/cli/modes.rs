//! Words of the modes that need no cloud: who may, what is wrong, and how a program is told.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const NOBODY: u32 = 65_534;

fn run(program: &Path, words: &[&str]) -> Output {
    Command::new(program).args(words).env_clear().env("HOME", "/nonexistent").output().unwrap()
}

/// A data folder whose lock this test's user may not look at, and the program as that user can run it.
fn locked_away() -> (TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let lock = folder.path().join("LOCK");
    std::fs::write(&lock, "1\n").unwrap();
    std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o000)).unwrap();
    // The folder it was built in may be closed to others.
    let program = folder.path().join("haar");
    // By a process of its own: a file that this one writes may be open in what another test has just forked, and a file
    // that is open for writing does not run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_haar")).arg(&program).status().unwrap();
    assert!(copied.success());
    let mut command = Command::new(&program);
    command.env_clear().current_dir("/");
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    (folder, command)
}

#[test]
fn who_may_not_look_is_not_told_that_nothing_runs() {
    let (folder, mut command) = locked_away();
    let said = command.args(["down", "--data"]).arg(folder.path()).output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(5), "{words}");
    assert!(words.contains(&format!("sudo haar down --data {}", folder.path().display())), "{words}");

    let (folder, mut command) = locked_away();
    let said = command.args(["down", "-o", "json", "--data"]).arg(folder.path()).output().unwrap();
    let problem: Value = serde_json::from_slice(&said.stderr).unwrap();
    assert_eq!(problem["code"], "needs_root");

    let (folder, mut command) = locked_away();
    let said = command.args(["doctor", "-o", "json", "--data"]).arg(folder.path()).output().unwrap();
    let found: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(found["cloud"], "unknown");
    assert!(found["checks"].as_array().is_some_and(|checks| !checks.is_empty()), "{found}");
}

#[test]
fn nothing_up_and_a_strangers_folder_are_told_as_json_too() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_haar"));
    let said = run(program, &["down", "--data", data, "-o", "json"]);
    let outcome: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!((outcome["was_up"].as_bool(), outcome["purged"].as_bool()), (Some(false), Some(false)));

    std::fs::write(folder.path().join("letter"), "dear").unwrap();
    let said = run(program, &["down", "--purge", "--yes", "--data", data, "-o", "json"]);
    let problem: Value = serde_json::from_slice(&said.stderr).unwrap();
    assert!(problem["message"].as_str().unwrap().contains("nothing was removed"), "{problem}");
    assert_eq!(said.status.code(), Some(1));
    assert!(folder.path().join("letter").exists());
}

#[test]
fn words_that_cannot_be_meant_are_told_as_json_when_json_is_asked_for() {
    let program = Path::new(env!("CARGO_BIN_EXE_haar"));
    for words in [
        &["guest", "create", "-o", "json"][..],
        &["up", "--sideways", "--output=json"],
        &["guest", "show", "web", "--sideways", "-ojson"],
        &["-o", "json"],
    ] {
        let said = run(program, words);
        assert_eq!(said.status.code(), Some(2), "{words:?}");
        let problem: Value = serde_json::from_slice(&said.stderr).unwrap();
        assert_eq!(problem["code"], "usage", "{words:?}");
        assert!(said.stdout.is_empty(), "{words:?}");
    }
    let said = run(program, &["guest", "create"]);
    assert!(String::from_utf8_lossy(&said.stderr).starts_with("error: "));
}

#[test]
fn a_second_up_on_a_folder_is_refused_and_the_first_keeps_it() {
    let test = "haar a_second_up_on_a_folder_is_refused_and_the_first_keeps_it";
    if !nix::unistd::geteuid().is_root() {
        return crate::left_out::left_out(test, "only root may start a cloud");
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    // The first one, as far as the second can tell.
    let lock = std::fs::File::create(folder.path().join("LOCK")).unwrap();
    lock.lock().unwrap();
    std::fs::write(folder.path().join("LOCK"), format!("{}\n", std::process::id())).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_haar"));
    let said = run(program, &["up", "--data", data]);
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(3), "{words}");
    assert!(said.stdout.is_empty() && words.lines().count() == 1, "{said:?}");
    for part in [&format!("process {}", std::process::id()), &format!("haar down --data {data}")] {
        assert!(words.contains(part), "{part} is missing in {words}");
    }
    let said = run(program, &["up", "--data", data, "-o", "json"]);
    let problem: Value = serde_json::from_slice(&said.stderr).unwrap();
    assert_eq!(problem["code"], "already_up");
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["LOCK"], "nothing else was made");
}
