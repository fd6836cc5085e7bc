//! `haar ssh`: the system's ssh to a guest's address.
//!
//! Addresses are used again for other guests, so host keys are kept under the guest's id in a file per cloud:
//! no warning about a changed key, and nothing in the user's own `known_hosts`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use haar_api::client::ClientError;
use haar_api::endpoint::Nothing;
use haar_api::problem::Problem;
use haar_api::table as t;
use haar_api::v1::GuestView;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::context::Context;
use super::credentials;
use super::failure::Failure;
use super::guest::{self, Guests};
use super::{noun, subnet};

/// How long the guest may take to answer at all.
const CONNECT_SECONDS: u32 = 10;
/// What ssh ends with when it, and not what it ran, failed.
const SSH_FAILED: i32 = 255;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  haar ssh web
  haar ssh debian@web uptime -p
  haar ssh web --identity ~/.ssh/lab -- ls -l")]
pub(crate) struct Words {
    /// Name, id, or an id's first digits (4 or more); USER@ before it says as whom
    guest: String,
    /// The user to log in as; root unless said
    #[arg(long)]
    user: Option<String>,
    /// The private key to log in with; ssh's own choice when left out
    #[arg(long, short, value_name = "FILE")]
    identity: Option<OsString>,
    /// What to run instead of a shell, with its own options
    #[arg(trailing_var_arg = true)]
    command: Vec<OsString>,
}

pub(crate) async fn run(context: &Context, words: &Words) -> Result<(), Failure> {
    let (user, name) = target(words)?;
    let guest = noun::read::<Guests, t::GuestShow>(context, name).await?.value;
    must_run(&guest)?;
    let address = guest::address(&guest)?;
    let folder = credentials::folder().map_err(|error| Failure::local("no place for host keys", error))?;
    std::fs::create_dir_all(&folder).map_err(|error| Failure::local("no place for host keys", error))?;
    let known_hosts = folder.join(format!("known_hosts.{}", context.cloud.replace('/', "_")));
    let arguments = arguments(user, address, &guest.id.to_string(), &known_hosts, words);
    let mut command = Command::new("ssh");
    let ended = to_the_end(command.args(arguments)).await;
    let code = ended.map_err(|error| Failure::local("cannot run ssh", error))?;
    if code == 0 {
        return Ok(());
    }
    if code == SSH_FAILED {
        say_where_to_look(context, &guest, user).await;
    }
    Err(Failure::Ended(u8::try_from(code).unwrap_or(1)))
}

/// As whom, and on which guest.
fn target(words: &Words) -> Result<(&str, &str), Failure> {
    match (words.guest.rsplit_once('@'), words.user.as_deref()) {
        (None, user) => Ok((user.unwrap_or("root"), &words.guest)),
        (Some(("", _)), _) => Err(Failure::Usage(format!("no user stands before the @ of {}", words.guest))),
        (Some((before, name)), user) if user.is_none_or(|user| user == before) => Ok((before, name)),
        (Some((before, _)), _) => {
            Err(Failure::Usage(format!("{before}@ and --user say two users; leave one of them out")))
        }
    }
}

/// Refuses a guest in which nobody can listen. One that is not known to be off may well run.
fn must_run(guest: &GuestView) -> Result<(), Failure> {
    let name = &guest.name;
    let next = match guest.state.as_str() {
        "stopped" | "paused" => format!("start it:  haar guest start {name}"),
        "creating" => format!("it is being made:  haar job list --guest {name}"),
        "failed" => format!("see why:  haar guest show {name}"),
        "lost" => format!("make it anew, empty:  haar guest recreate {name}"),
        "deleting" => "it is being taken away".to_owned(),
        _ => return Ok(()),
    };
    let message = format!("guest `{name}` is {}, so nobody can log in; {next}", guest.state);
    Err(ClientError::Problem(Box::new(Problem::new(409, "wrong_state", message))).into())
}

fn arguments(user: &str, address: IpAddr, id: &str, known_hosts: &Path, words: &Words) -> Vec<OsString> {
    let mut file = OsString::from("UserKnownHostsFile=\"");
    file.push(known_hosts);
    file.push("\"");
    let mut arguments: Vec<OsString> = vec!["-o".into(), file];
    for option in [
        format!("HostKeyAlias={id}"),
        "StrictHostKeyChecking=accept-new".to_owned(),
        format!("ConnectTimeout={CONNECT_SECONDS}"),
    ] {
        arguments.extend(["-o".into(), option.into()]);
    }
    if let Some(identity) = &words.identity {
        arguments.extend(["-i".into(), identity.clone()]);
    }
    arguments.extend(["-l".into(), user.into(), "--".into(), address.to_string().into()]);
    arguments.extend(words.command.iter().cloned());
    arguments
}

/// Runs it at this terminal and gives its exit code. What the terminal's keys send goes to it as well as to us,
/// and is its own to judge; what others send to us is handed on.
async fn to_the_end(command: &mut Command) -> std::io::Result<i32> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut child = command.spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    let hand_on = |signal| {
        // One that has just ended needs no signal any more.
        let _ = pid.map(|pid| kill(pid, signal));
    };
    loop {
        tokio::select! {
            ended = child.wait() => {
                let ended = ended?;
                return Ok(ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or_default()));
            }
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
            _ = terminate.recv() => hand_on(Signal::SIGTERM),
            _ = hangup.recv() => hand_on(Signal::SIGHUP),
        }
    }
}

/// Why it may have failed, and what the guest itself says.
async fn say_where_to_look(context: &Context, guest: &GuestView, user: &str) {
    let name = &guest.name;
    if let Some(subnet) = &guest.subnet {
        let call = context.client.request::<t::SubnetShow>(&[&subnet.to_string()]);
        if let Ok(subnet) = call.send(&Nothing).await
            && subnet.value.gateway.is_none()
        {
            eprintln!("  ! {}", subnet::no_gateway(&subnet.value));
        }
    }
    eprintln!(
        "  what the guest says itself:  haar guest log {name}   or at its console:  haar guest console {name}"
    );
    if user == "root" {
        eprintln!("  some images let no root in:  haar ssh USER@{name}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_keys_are_kept_by_guest_and_away_from_the_users_own() {
        let words =
            Words { guest: "web".to_owned(), user: None, identity: None, command: vec!["uptime".into()] };
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
                "-o",
                "ConnectTimeout=10",
                "-l",
                "root",
                "--",
                "10.77.0.12",
                "uptime"
            ]
        );
    }

    #[test]
    fn the_user_stands_before_the_guest_or_in_a_word_of_its_own() {
        let words = |guest: &str, user: Option<&str>| Words {
            guest: guest.to_owned(),
            user: user.map(str::to_owned),
            identity: None,
            command: Vec::new(),
        };
        for (guest, user, meant) in [
            ("web", None, ("root", "web")),
            ("debian@web", None, ("debian", "web")),
            ("web", Some("debian"), ("debian", "web")),
            ("a@b@web", None, ("a@b", "web")),
            ("ana@web", Some("ana"), ("ana", "web")),
        ] {
            assert_eq!(target(&words(guest, user)).unwrap(), meant, "{guest}");
        }
        assert!(target(&words("@web", None)).is_err());
        assert!(target(&words("ana@web", Some("bob"))).is_err());
    }
}
