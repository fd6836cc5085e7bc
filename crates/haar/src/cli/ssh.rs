//! `haar ssh`: the system's ssh to a guest's address.
//!
//! Addresses are used again for other guests, so host keys are kept under the guest's id in a file per cloud:
//! no warning about a changed key, and nothing in the user's own `known_hosts`. A guest that was made anew has other
//! keys, so that its life stands beside its id.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use haar_api::client::ClientError;
use haar_api::endpoint::Nothing;
use haar_api::problem::Problem;
use haar_api::table as t;
use haar_api::v1::GuestView;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::signal::unix::{self, SignalKind, signal};

use super::context::Context;
use super::credentials;
use super::failure::Failure;
use super::guest::{self, Guests};
use super::{noun, subnet};

/// How long the guest may take to answer at all.
const CONNECT_SECONDS: u32 = 10;
/// How long it may take to find out what to say about a failure.
const HINT_LIMIT: Duration = Duration::from_secs(2);
/// A stop that is over by then was one of us all, and the shell has us back already.
const STOP_LASTS: Duration = Duration::from_millis(50);
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
    must_run(context, &guest)?;
    let address = guest::address(&guest)?;
    let folder = credentials::folder().map_err(|error| Failure::local("no place for host keys", error))?;
    std::fs::create_dir_all(&folder).map_err(|error| Failure::local("no place for host keys", error))?;
    let known_hosts = folder.join(format!("known_hosts.{}", context.cloud.replace('/', "_")));
    let arguments = arguments(user, address, &host_key_name(&guest), &known_hosts, words);
    let mut command = Command::new("ssh");
    let not_run = |error| Failure::local("cannot run ssh", error);
    let mut signals = Signals::listen().map_err(not_run)?;
    let code = to_the_end(command.args(arguments), &mut signals).await.map_err(not_run)?;
    if code == 0 {
        return Ok(());
    }
    if code == SSH_FAILED {
        // Whoever has had enough by now is not kept waiting for what is only a remark.
        tokio::select! {
            () = say_where_to_look(context, &guest, user) => {}
            _ = signals.next() => {}
        }
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

/// Refuses a guest in which nobody can listen. One that is not known to be off may well run, and one that was started
/// is off only until its hypervisor has said otherwise.
fn must_run(context: &Context, guest: &GuestView) -> Result<(), Failure> {
    let name = &guest.name;
    let hint = |command: &str| context.hint(&format!("{command} {name}"));
    let next = match guest.state.as_str() {
        "stopped" if guest.goal == "running" => return Ok(()),
        "stopped" | "paused" => format!("start it:  {}", hint("guest start")),
        "creating" => format!("it is being made:  {}", hint("job list --guest")),
        "failed" => format!("see why:  {}", hint("guest show")),
        "lost" => format!("make it anew, empty:  {}", hint("guest recreate")),
        "deleting" => "it is being taken away".to_owned(),
        _ => return Ok(()),
    };
    let message = format!("guest `{name}` is {}, so nobody can log in; {next}", guest.state);
    Err(ClientError::Problem(Box::new(Problem::new(409, "wrong_state", message))).into())
}

/// What the guest's host keys are kept under. A controller that tells no life tells the id, which is the same after
/// the guest was made anew.
fn host_key_name(guest: &GuestView) -> String {
    match guest.life {
        Some(life) => format!("{}.{life}", guest.id),
        None => guest.id.to_string(),
    }
}

fn arguments(
    user: &str,
    address: IpAddr,
    host_key_name: &str,
    known_hosts: &Path,
    words: &Words,
) -> Vec<OsString> {
    let mut file = OsString::from("UserKnownHostsFile=\"");
    file.push(known_hosts);
    file.push("\"");
    let mut arguments: Vec<OsString> = vec!["-o".into(), file];
    for option in [
        format!("HostKeyAlias={host_key_name}"),
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

/// The signals that are not left to end us while ssh runs.
pub(super) struct Signals {
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next that asks to end.
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.quit.recv() => Signal::SIGQUIT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }
}

/// What there is to do while ssh runs.
enum Event {
    Ended(std::io::Result<std::process::ExitStatus>),
    Asked(Signal),
    Child,
}

/// Runs it at this terminal and gives its exit code. What the terminal's keys send goes to it as well as to us,
/// and is its own to judge; what others send to us is handed on. When it stops, so do we.
pub(super) async fn to_the_end(command: &mut Command, signals: &mut Signals) -> std::io::Result<i32> {
    // Told as well when a child only stops.
    let mut changed = signal(SignalKind::child())?;
    let mut child = command.spawn()?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
    loop {
        let event = tokio::select! {
            biased;
            ended = child.wait() => Event::Ended(ended),
            _ = changed.recv() => Event::Child,
            asked = signals.next() => Event::Asked(asked),
        };
        match (event, pid) {
            (Event::Ended(ended), _) => {
                let ended = ended?;
                return Ok(ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or_default()));
            }
            (Event::Asked(signal @ (Signal::SIGTERM | Signal::SIGHUP)), Some(pid)) => {
                // One that has just ended needs no signal any more.
                let _ = kill(pid, signal);
            }
            (Event::Child, Some(pid)) => stop_with(pid).await,
            (Event::Asked(_) | Event::Child, _) => {}
        }
    }
}

/// A shell waits for us and not for ssh: it has its terminal back only once we have stopped as well, as after `~^Z`.
/// It wakes both of us.
async fn stop_with(pid: Pid) {
    tokio::time::sleep(STOP_LASTS).await;
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
    if let Ok(WaitStatus::Stopped(..)) = waitid(Id::Pid(pid), flags) {
        // It fails for no signal of this name.
        let _ = raise(Signal::SIGTSTP);
    }
}

/// Why it may have failed, and what the guest itself says.
async fn say_where_to_look(context: &Context, guest: &GuestView, user: &str) {
    let name = &guest.name;
    if let Some(subnet) = &guest.subnet {
        let call = context.client.request::<t::SubnetShow>(&[&subnet.to_string()]).limit(HINT_LIMIT);
        if let Ok(subnet) = call.send(&Nothing).await
            && subnet.value.gateway.is_none()
        {
            eprintln!("  ! {}", subnet::no_gateway(context, &subnet.value));
        }
    }
    let hint = |command: &str| context.hint(&format!("{command} {name}"));
    eprintln!(
        "  what the guest says itself:  {}   or at its console:  {}",
        hint("guest log"),
        hint("guest console")
    );
    if user == "root" {
        eprintln!("  some images let no root in:  {}", context.hint(&format!("ssh USER@{name}")));
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
