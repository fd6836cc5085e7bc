//! `haar cloud ssh`: the system's ssh, with the deployment's key and the server's own host key, and no other.
//!
//! Both lie in files that are there as long as ssh runs, in a folder for the user alone beside the record.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::open::Open;
use super::server;
use crate::cli::failure::Failure;
use crate::cli::ssh::{Signals, to_the_end};

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
    let address = server::address(&server)?;
    let Some(key) = open.cloud.private_key().await? else {
        return Err(Failure::Usage(format!("there is no key yet; deploy first:  {}", open.hint("deploy"))));
    };
    let details = server.details();
    if details.host_keys.is_empty() {
        let why = "its host key is not known, so that nobody can tell it from an impostor; spawn another";
        return Err(Failure::Usage(format!("cannot log in to {}: {why}", server.name())));
    }
    let beside = open.cloud.journal().store().path();
    let not_written = |error| Failure::local("cannot write the keys for ssh", error);
    let files = Files::write(&beside, &key, server.id(), &details.host_keys).map_err(not_written)?;
    open.board.clear();
    let user = words.user.as_deref().unwrap_or(&details.user);
    let arguments = arguments(&files, user, address, server.id(), &words.command);
    let not_run = |error| Failure::local("cannot run ssh", error);
    let mut signals = Signals::listen().map_err(not_run)?;
    let code = to_the_end(Command::new("ssh").args(arguments), &mut signals).await.map_err(not_run)?;
    drop(files);
    if code == 0 { Ok(()) } else { Err(Failure::Ended(u8::try_from(code).unwrap_or(1))) }
}

/// What ssh reads; gone with this value.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn write(beside: &Path, key: &str, alias: &str, host_keys: &[String]) -> std::io::Result<Files> {
        let folder = beside.with_extension(format!("ssh-{}", std::process::id()));
        // One that is left of a process that had this number and was killed.
        let _ = std::fs::remove_dir_all(&folder);
        DirBuilder::new().mode(0o700).create(&folder)?;
        let files = Files { folder };
        let known: String = host_keys.iter().map(|key| format!("{alias} {}\n", key.trim())).collect();
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

fn arguments(files: &Files, user: &str, address: IpAddr, alias: &str, command: &[OsString]) -> Vec<OsString> {
    let mut arguments = Vec::new();
    for (option, value) in [
        ("UserKnownHostsFile", quoted(&files.known_hosts())),
        ("GlobalKnownHostsFile", "/dev/null".into()),
        ("HostKeyAlias", alias.into()),
        ("StrictHostKeyChecking", "yes".into()),
        ("IdentityFile", quoted(&files.key())),
        ("IdentitiesOnly", "yes".into()),
        ("ConnectTimeout", CONNECT_SECONDS.to_string().into()),
    ] {
        let mut word = OsString::from(option);
        word.push("=");
        word.push(value);
        arguments.extend(["-o".into(), word]);
    }
    arguments.extend(["-l".into(), user.into(), "--".into(), address.to_string().into()]);
    arguments.extend(command.iter().cloned());
    arguments
}

/// A path as ssh's options take it; a blank in it does not end it.
fn quoted(path: &Path) -> OsString {
    let mut word = OsString::from("\"");
    word.push(path);
    word.push("\"");
    word
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn ssh_is_told_one_key_and_one_host_key_and_to_trust_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("haar.a b.json");
        let host_keys = ["ssh-ed25519 AAAA".to_owned()];
        let files = Files::write(&record, "PEM\n\n", "s1", &host_keys).unwrap();
        assert_eq!(std::fs::read_to_string(files.key()).unwrap(), "PEM\n");
        assert_eq!(std::fs::read_to_string(files.known_hosts()).unwrap(), "s1 ssh-ed25519 AAAA\n");
        for path in [files.key(), files.known_hosts()] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let words = arguments(&files, "debian", "10.0.0.7".parse().unwrap(), "s1", &["uptime".into()]);
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
