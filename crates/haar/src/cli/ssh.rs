//! `haar ssh`: the system's ssh to a guest's address.
//!
//! Addresses are used again for other guests, so host keys are kept under the guest's id in a file per cloud:
//! no warning about a changed key, and nothing in the user's own `known_hosts`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use haar_api::table as t;

use super::context::Context;
use super::credentials;
use super::failure::Failure;
use super::guest::{self, Guests};
use super::noun;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar ssh web
  haar ssh web --user debian -- uptime
  haar ssh web --identity ~/.ssh/lab")]
pub(crate) struct Words {
    /// Name, id, or the beginning of an id
    guest: String,
    /// The user to log in as
    #[arg(long, default_value = "root")]
    user: String,
    /// The private key to log in with; ssh's own choice when left out
    #[arg(long, short, value_name = "FILE")]
    identity: Option<OsString>,
    /// What to run instead of a shell
    #[arg(last = true)]
    command: Vec<OsString>,
}

pub(crate) async fn run(context: &Context, words: &Words) -> Result<(), Failure> {
    let guest = noun::read::<Guests, t::GuestShow>(context, &words.guest).await?.value;
    let address = guest::address(&guest)?;
    if guest.state != "running" {
        eprintln!("  guest {} is {}; trying all the same", guest.name, guest.state);
    }
    let folder = credentials::folder().map_err(|error| Failure::local("no place for host keys", error))?;
    std::fs::create_dir_all(&folder).map_err(|error| Failure::local("no place for host keys", error))?;
    let known_hosts = folder.join(format!("known_hosts.{}", context.cloud.replace('/', "_")));
    let arguments = arguments(&words.user, address, &guest.id.to_string(), &known_hosts, words);
    let error = Command::new("ssh").args(arguments).exec();
    Err(Failure::local("cannot start ssh", error))
}

fn arguments(user: &str, address: IpAddr, id: &str, known_hosts: &Path, words: &Words) -> Vec<OsString> {
    let mut file = OsString::from("UserKnownHostsFile=\"");
    file.push(known_hosts);
    file.push("\"");
    let mut arguments: Vec<OsString> = vec![
        "-o".into(),
        file,
        "-o".into(),
        format!("HostKeyAlias={id}").into(),
        "-o".into(),
        "StrictHostKeyChecking=accept-new".into(),
    ];
    if let Some(identity) = &words.identity {
        arguments.extend(["-i".into(), identity.clone()]);
    }
    arguments.extend(["-l".into(), user.into(), "--".into(), address.to_string().into()]);
    arguments.extend(words.command.iter().cloned());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_keys_are_kept_by_guest_and_away_from_the_users_own() {
        let words = Words {
            guest: "web".to_owned(),
            user: "root".to_owned(),
            identity: None,
            command: vec!["uptime".into()],
        };
        let address = "10.77.0.12".parse().unwrap();
        let arguments = arguments("root", address, "guest-id", Path::new("/k/known hosts"), &words);
        let joined: Vec<_> = arguments.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            joined,
            [
                "-o",
                "UserKnownHostsFile=\"/k/known hosts\"",
                "-o",
                "HostKeyAlias=guest-id",
                "-o",
                "StrictHostKeyChecking=accept-new",
                "-l",
                "root",
                "--",
                "10.77.0.12",
                "uptime"
            ]
        );
    }
}
