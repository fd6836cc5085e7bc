//! `haar cloud ssh`: the system's ssh, with the deployment's key and the server's own host key, and no other.
//!
//! A server without an external address is reached through one that has one, as by every other verb. The keys lie
//! in files that are there as long as ssh runs, in a folder for the user alone beside the record.

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use haar_cloud::Server;
use haar_cloud::server::here;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::process::Command;

use super::open::Open;
use super::server;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::cli::ssh::{Signals, to_the_end};

/// How the folder of keys is called: like the record, with this and the process's number.
const EXTENSION: &str = "ssh-";
/// How long the server may take to answer at all.
const CONNECT_SECONDS: u32 = 15;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar cloud ssh SERVER
  haar cloud ssh SERVER -- journalctl -f
  haar cloud ssh SERVER --user admin")]
pub(crate) struct Words {
    /// Name, id, address, or the first digits of an id (4 or more); may be left out where there is but one
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// The user to log in as; the one that the server was made with unless said
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// What to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(open: &Open, words: &Words) -> Result<(), Failure> {
    let server = server::one(open, words.server.as_deref()).await?;
    if open.cloud.provider().is_this_machine() {
        return on_this_machine(open, &server, words).await;
    }
    let Some(key) = open.cloud.private_key().await? else {
        return Err(Failure::Usage(format!("there is no key yet; deploy first:  {}", open.hint("deploy"))));
    };
    let mut goal = Stop::of(&server).await?;
    if let Some(user) = &words.user {
        goal.user.clone_from(user);
    }
    let through = match server.through().await? {
        Some(through) => Some(Stop::of(&through).await?),
        None => None,
    };
    let beside = open.cloud.journal().store().path();
    let not_written = |error| Failure::local("cannot write the keys for ssh", error);
    let stops: Vec<&Stop> = through.iter().chain([&goal]).collect();
    let files = Files::write(&beside, &key, &stops).map_err(not_written)?;
    open.board.clear();
    let arguments = arguments(&files, through.as_ref(), &goal, &words.command);
    let done = ended(Command::new("ssh").args(arguments)).await;
    drop(files);
    done
}

/// A shell of the user's own, or the words as one line for it, as ssh has them.
async fn on_this_machine(open: &Open, server: &Server, words: &Words) -> Result<(), Failure> {
    if words.user.as_ref().is_some_and(|user| user != server.user()) {
        let why = "is this machine, where you are the user that you are: leave --user out";
        return Err(Failure::Usage(format!("{} {why}", server.name())));
    }
    let mut command = Command::new(here::shell());
    command.current_dir(here::home());
    if !words.command.is_empty() {
        command.arg("-c").arg(words.command.join(OsStr::new(" ")));
    }
    open.board.clear();
    ended(&mut command).await
}

/// Runs it to its end with our terminal; its code is ours.
async fn ended(command: &mut Command) -> Result<(), Failure> {
    let not_run = |error| Failure::local("cannot run it", error);
    let mut signals = Signals::listen().map_err(not_run)?;
    let code = to_the_end(command, &mut signals).await.map_err(not_run)?;
    if code == 0 { Ok(()) } else { Err(Failure::Ended(u8::try_from(code).unwrap_or(1))) }
}

/// A server on the way, the last one included.
struct Stop {
    id: String,
    user: String,
    address: IpAddr,
    host_keys: Vec<String>,
}

impl Stop {
    async fn of(server: &Server) -> Result<Stop, Failure> {
        let address = server::address(server)?;
        let host_keys = server.host_keys().await?;
        if host_keys.is_empty() {
            let why = "its host key is not known, so that nobody can tell it from an impostor; spawn another";
            return Err(Failure::Usage(format!("cannot log in to {}: {why}", server.name())));
        }
        Ok(Stop { id: server.id().to_owned(), user: server.user().to_owned(), address, host_keys })
    }
}

/// What ssh reads; gone with this value.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn write(beside: &Path, key: &str, stops: &[&Stop]) -> std::io::Result<Files> {
        remove_left(beside);
        let folder = beside.with_extension(format!("{EXTENSION}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder)?;
        let files = Files { folder };
        let keys_of = |stop: &&Stop| -> String {
            stop.host_keys.iter().map(|key| format!("{} {}\n", stop.id, key.trim())).collect()
        };
        let known: String = stops.iter().map(keys_of).collect();
        for (path, text) in [(files.key(), format!("{}\n", key.trim_end())), (files.known_hosts(), known)] {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(text.as_bytes())?;
        }
        Ok(files)
    }

    fn key(&self) -> PathBuf {
        self.folder.join("key")
    }

    fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed is still for the user alone.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Removes what processes left that were killed: no key is to lie about. What cannot be removed is still for the
/// user alone.
fn remove_left(beside: &Path) {
    let siblings = beside.parent().and_then(|parent| std::fs::read_dir(parent).ok());
    for path in siblings.into_iter().flatten().flatten().map(|entry| entry.path()) {
        let extension = path.extension().and_then(OsStr::to_str);
        let Some(number) = extension.and_then(|extension| extension.strip_prefix(EXTENSION)) else {
            continue;
        };
        let is_ours = path.with_extension("") == beside.with_extension("");
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let is_dead = |number: i32| number == own || kill(Pid::from_raw(number), None).is_err();
        if is_ours && number.parse().is_ok_and(is_dead) {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// What ssh is told to log in to `goal`, and to run there.
fn arguments(files: &Files, through: Option<&Stop>, goal: &Stop, command: &[OsString]) -> Vec<OsString> {
    let mut arguments = options(files, goal);
    if let Some(through) = through {
        let mut way = OsString::from("ProxyCommand=exec ssh");
        let forward: [OsString; 4] = ["-W".into(), "[%h]:%p".into(), "--".into(), host(through)];
        for word in options(files, through).iter().map(|word| escaped(word)).chain(forward) {
            way.push(" ");
            way.push(output::quoted(&word.to_string_lossy()));
        }
        arguments.extend(["-o".into(), way]);
    }
    arguments.extend(["--".into(), host(goal)]);
    arguments.extend(command.iter().cloned());
    arguments
}

/// Who is expected there, and who we are.
fn options(files: &Files, stop: &Stop) -> Vec<OsString> {
    let mut options = Vec::new();
    for (option, value) in [
        ("UserKnownHostsFile", quoted(&files.known_hosts())),
        ("GlobalKnownHostsFile", "/dev/null".into()),
        ("HostKeyAlias", stop.id.as_str().into()),
        ("StrictHostKeyChecking", "yes".into()),
        ("IdentityFile", quoted(&files.key())),
        ("IdentitiesOnly", "yes".into()),
        ("ConnectTimeout", CONNECT_SECONDS.to_string().into()),
    ] {
        let mut word = OsString::from(option);
        word.push("=");
        word.push(value);
        options.extend(["-o".into(), word]);
    }
    options.extend(["-l".into(), stop.user.as_str().into()]);
    options
}

fn host(stop: &Stop) -> OsString {
    stop.address.to_string().into()
}

fn escaped(word: &OsStr) -> OsString {
    word.to_string_lossy().replace('%', "%%").into()
}

/// A path as ssh's options take it: a blank in it does not end it, and a `%` begins no word of ssh's own.
fn quoted(path: &Path) -> OsString {
    let mut word = OsString::from("\"");
    word.push(escaped(path.as_os_str()));
    word.push("\"");
    word
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn stop(id: &str, address: &str) -> Stop {
        Stop {
            id: id.to_owned(),
            user: "debian".to_owned(),
            address: address.parse().unwrap(),
            host_keys: vec![format!("ssh-ed25519 {id}")],
        }
    }

    #[test]
    fn on_the_way_through_another_server_each_is_known_by_its_own_key() {
        let folder = tempfile::tempdir().unwrap();
        let (head, goal) = (stop("head", "192.0.2.7"), stop("s1", "10.0.0.7"));
        let files = Files::write(&folder.path().join("haar.it's b.json"), "PEM", &[&head, &goal]).unwrap();
        let known = std::fs::read_to_string(files.known_hosts()).unwrap();
        assert_eq!(known, "head ssh-ed25519 head\ns1 ssh-ed25519 s1\n");
        let words = arguments(&files, Some(&head), &goal, &[]);
        // As ssh itself understands them.
        let asked = std::process::Command::new("ssh").arg("-G").args(&words).output();
        let Ok(asked) = asked else { return };
        let told = String::from_utf8(asked.stdout).unwrap();
        let line = |key: &str| told.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        assert_eq!((line("hostname "), line("hostkeyalias ")), ("10.0.0.7", "s1"), "{told}");
        let way = line("proxycommand ").replace("%%", "%").replace("[%h]:%p", "[10.0.0.7]:22");
        let way = way.strip_prefix("exec ssh ").unwrap();
        let asked = std::process::Command::new("sh").arg("-c").arg(format!("ssh -G {way}")).output().unwrap();
        let told = String::from_utf8(asked.stdout).unwrap();
        let line = |key: &str| told.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        assert_eq!((line("hostname "), line("hostkeyalias ")), ("192.0.2.7", "head"), "{told}");
        assert_eq!(line("stricthostkeychecking "), "true");
        let file = files.known_hosts();
        assert_eq!(line("userknownhostsfile "), file.to_str().unwrap(), "{told}");
    }

    #[test]
    fn keys_that_a_killed_process_left_are_removed_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (dead, alive) = (ended.id(), std::os::unix::process::parent_id());
        let kept = [format!("haar.a.ssh-{alive}"), format!("haar.ab.ssh-{dead}"), "haar.a.ssh-x".to_owned()];
        for name in kept.iter().chain([&format!("haar.a.ssh-{dead}")]) {
            std::fs::create_dir(place(name)).unwrap();
        }
        drop(Files::write(&place("haar.a.json"), "PEM", &[]).unwrap());
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut kept = kept.map(OsString::from);
        kept.sort();
        assert_eq!(left, kept);
    }

    #[test]
    fn ssh_is_told_one_key_and_one_host_key_and_to_trust_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("haar.a b.json");
        let goal = stop("s1", "10.0.0.7");
        let files = Files::write(&record, "PEM\n\n", &[&goal]).unwrap();
        assert_eq!(std::fs::read_to_string(files.key()).unwrap(), "PEM\n");
        assert_eq!(std::fs::read_to_string(files.known_hosts()).unwrap(), "s1 ssh-ed25519 s1\n");
        for path in [files.key(), files.known_hosts()] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let words = arguments(&files, None, &goal, &["uptime".into()]);
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert!(
            words.contains(&"StrictHostKeyChecking=yes") && words.contains(&"HostKeyAlias=s1"),
            "{words:?}"
        );
        assert!(words.iter().any(|word| word.starts_with("IdentityFile=\"") && word.ends_with("/key\"")));
        assert_eq!(words[words.len() - 5..], ["-l", "debian", "--", "10.0.0.7", "uptime"]);
        drop(files);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the key does not stay");
    }
}
