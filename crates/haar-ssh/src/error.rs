//! What can go wrong between here and a server, in classes a caller would treat differently.
//!
//! Each message says what is wrong and what to do about it. Errors can be cloned, because several callers may
//! wait for one connection that then cannot be made. Deliberately absent: what a command itself has to say,
//! which is an [`Output`](crate::Output) with its status and no error.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::command::Output;
use crate::options::Target;

/// A failure of this library.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that was passed in cannot be used.
    #[error("the {what} `{value}` cannot be used: {why}")]
    BadInput {
        /// What it is.
        what: &'static str,
        /// What was passed.
        value: String,
        /// Why it cannot be used.
        why: String,
    },
    /// A private key is protected, and nobody is here to be asked for its passphrase.
    #[error(
        "the private key {name} is protected by a passphrase: add it to an ssh agent (`ssh-add`) and log in by that, or use a key without one"
    )]
    KeyEncrypted {
        /// Its file, or words for a key that came as text.
        name: String,
    },
    /// A private key cannot be read or is of a kind that is not supported.
    #[error("the private key {name} cannot be used: {why}")]
    KeyUnusable {
        /// Its file, or words for a key that came as text.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The ssh agent does not answer, or has no key.
    #[error("the ssh agent cannot be used: {why}")]
    Agent {
        /// What is wrong with it.
        why: String,
    },
    /// No connection to the server can be made now.
    #[error("{target} cannot be reached: {obstacle}")]
    Unreachable {
        /// The server.
        target: Target,
        /// What is in the way.
        obstacle: Obstacle,
    },
    /// There is no route to a server that was logged in to before: it, or its network, is gone.
    #[error(
        "the route to {target} has vanished, although ssh to it worked before: look whether the server and its network still exist"
    )]
    RouteLost {
        /// The server.
        target: Target,
    },
    /// The patience for a server that never became ready is over.
    #[error("{target} did not become ready within {} s: look at its console", waited.as_secs())]
    NotReady {
        /// The server.
        target: Target,
        /// How long was waited.
        waited: Duration,
        /// Why the last attempt failed.
        source: Box<Error>,
    },
    /// The server shows a key that is none of the pinned ones.
    #[error(
        "{target} shows the host key {found}, but {} expected: it was made anew, or something else answers at this address; nothing was sent to it",
        if expected.len() == 1 { format!("{} is", expected[0]) } else { format!("one of {} is", expected.join(", ")) }
    )]
    HostKey {
        /// The server.
        target: Target,
        /// Fingerprints of the pinned keys.
        expected: Vec<String>,
        /// Fingerprint of the key that was shown.
        found: String,
    },
    /// The server accepts none of the logins.
    #[error(
        "{target} refuses the login (tried: {}): check the user's name and that the public key is in its authorized_keys",
        tried.join(", ")
    )]
    LoginRefused {
        /// The server.
        target: Target,
        /// What was tried, in order.
        tried: Vec<String>,
    },
    /// The server speaks SSH in a way that leads nowhere.
    #[error("no secure connection with {target} could be negotiated")]
    Protocol {
        /// The server.
        target: Target,
        /// What the SSH library says.
        source: Arc<russh::Error>,
    },
    /// The server accepts connections and no session on them.
    #[error("{target} accepts the login but no session: look at MaxSessions in its sshd_config")]
    SessionRefused {
        /// The server.
        target: Target,
    },
    /// A jump host does not lead on.
    #[error("the jump host {jump} does not lead to {target}: look at AllowTcpForwarding in its sshd_config")]
    ForwardingRefused {
        /// The jump host.
        jump: Target,
        /// Where it should have led.
        target: Target,
    },
    /// The connection broke in the midst of something; whether that was done is not known.
    #[error("the connection to {target} was lost during {during}: {why}")]
    Lost {
        /// The server.
        target: Target,
        /// What was being done.
        during: String,
        /// Why, as far as it is known.
        why: String,
    },
    /// The server refuses to start a command.
    #[error("{target} refuses to run `{command}`: its account may be limited to something else")]
    ExecRefused {
        /// The server.
        target: Target,
        /// The command's text.
        command: String,
    },
    /// A command took longer than its limit, and was ended on the server.
    #[error("`{command}` did not finish within {} s and was ended", limit.as_secs_f32())]
    OverTime {
        /// The command's text.
        command: String,
        /// Its limit.
        limit: Duration,
        /// What it had said; the status means nothing.
        output: Box<Output>,
    },
    /// The server did not answer for too long, on a connection that otherwise lives.
    #[error("{target} did not answer within {} s to {what}: it may be overloaded", after.as_secs_f32())]
    NoAnswer {
        /// The server.
        target: Target,
        /// What it was asked.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// The caller cancelled.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was being done.
        what: String,
    },
    /// The pool was closed.
    #[error("the connections to {target} were closed")]
    Closed {
        /// The server.
        target: Target,
    },
    /// The server has no sftp.
    #[error(
        "{target} has no sftp server: install it there (Debian: openssh-sftp-server), or turn on its subsystem in sshd_config"
    )]
    NoSftp {
        /// The server.
        target: Target,
    },
    /// The server's sftp begins with something else than sftp.
    #[error(
        "what {target} says in place of sftp cannot be understood: most often its login shell prints words (look at ~/.bashrc there), which it must not do without a terminal"
    )]
    SftpUnreadable {
        /// The server.
        target: Target,
    },
    /// A file on the server could not be used as asked.
    #[error("cannot {action} {path} on {target}: {fault}")]
    File {
        /// The server.
        target: Target,
        /// What was to be done with it.
        action: &'static str,
        /// The file's path there.
        path: String,
        /// Why not.
        fault: FileFault,
    },
    /// A file of this machine could not be used as asked.
    #[error("cannot {action} {} here", path.display())]
    Local {
        /// What was to be done with it.
        action: &'static str,
        /// The file's path here.
        path: PathBuf,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// A directory was given where only a file can be copied.
    #[error(
        "{path} is a directory, and only files are copied: copy its files one by one, or pack them with tar"
    )]
    IsDirectory {
        /// The directory's path.
        path: String,
    },
}

impl Error {
    /// Whether the same attempt may work later without anything being changed: the server is not up yet.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { obstacle, .. } => *obstacle != Obstacle::NoName,
            Self::Lost { .. } | Self::NoAnswer { .. } | Self::SessionRefused { .. } => true,
            _ => false,
        }
    }

    /// A fault with a file of this machine.
    #[must_use]
    pub fn local(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Local { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// What keeps a connection from being made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Obstacle {
    /// Nothing listens on the port.
    Refused,
    /// Nothing answers at the address.
    TimedOut,
    /// The address is not reachable from here.
    NoRoute,
    /// The name stands for no address.
    NoName,
    /// Something accepted the connection and closed it.
    Closed,
    /// Something accepted the connection and says nothing.
    Silent,
    /// The jump host could not connect to it.
    BehindJump,
    /// What the operating system says.
    Other(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Refused => "nothing listens on that port",
            Self::TimedOut => "nothing answers at that address",
            Self::NoRoute => "there is no route to it",
            Self::NoName => "no address is known for that name",
            Self::Closed => "it closed the connection before the login",
            Self::Silent => "it accepts connections but does not speak",
            Self::BehindJump => "the jump host could not connect to it",
            Self::Other(words) => words,
        })
    }
}

/// Why a file on a server could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileFault {
    /// It, or its directory, is not there.
    NotFound,
    /// The user may not.
    PermissionDenied,
    /// It is there and is no directory.
    NotADirectory,
    /// The server's own words, for all else.
    Other(String),
}

impl fmt::Display for FileFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotFound => "there is no such file or directory",
            Self::PermissionDenied => "the user has no permission",
            Self::NotADirectory => "it is not a directory",
            Self::Other(words) => words,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_time_can_mend_is_worth_waiting_for() {
        let target = Target::new("web", "root");
        let unreachable = |obstacle| Error::Unreachable { target: target.clone(), obstacle };
        for obstacle in [Obstacle::Refused, Obstacle::TimedOut, Obstacle::NoRoute, Obstacle::Closed] {
            assert!(unreachable(obstacle).may_pass());
        }
        assert!(!unreachable(Obstacle::NoName).may_pass());
        assert!(!Error::RouteLost { target: target.clone() }.may_pass());
        assert!(!Error::Closed { target }.may_pass());
    }

    #[test]
    fn a_changed_host_key_says_what_was_expected_and_what_was_found() {
        let error = Error::HostKey {
            target: Target::new("web", "root"),
            expected: vec!["ssh-ed25519 SHA256:a".into()],
            found: "ssh-ed25519 SHA256:b".into(),
        };
        let text = error.to_string();
        assert!(text.contains("SHA256:a is expected") && text.contains("shows the host key"), "{text}");
    }
}
