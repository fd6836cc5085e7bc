//! Where a pool connects to, as whom, and how long it waits.
//!
//! Deliberately absent: any reading of configuration files or of the environment.

use std::fmt;
use std::time::Duration;

use crate::host_keys::HostKeys;
use crate::key::Login;
use crate::pool::Pool;

/// A server's ssh service, and the user to be there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The user's name on the server.
    pub user: String,
}

impl Target {
    /// A user on a server's usual port, 22.
    pub fn new(host: impl Into<String>, user: impl Into<String>) -> Self {
        Self { host: host.into(), port: 22, user: user.into() }
    }

    /// The same on another port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user } = self;
        match (host.contains(':'), *port) {
            (_, 22) => write!(formatter, "{user}@{host}"),
            (true, _) => write!(formatter, "{user}@[{host}]:{port}"),
            (false, _) => write!(formatter, "{user}@{host}:{port}"),
        }
    }
}

/// What a pool needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to connect to.
    pub target: Target,
    /// What to log in with, in the order to be tried.
    pub logins: Vec<Login>,
    /// The keys of which the server must show one.
    pub host_keys: HostKeys,
    /// A server to go through.
    pub jump: Option<Pool>,
    /// How long, and how much.
    pub limits: Limits,
}

impl Options {
    /// A direct connection with the usual limits.
    #[must_use]
    pub fn new(target: Target, logins: Vec<Login>, host_keys: HostKeys) -> Self {
        Self { target, logins, host_keys, jump: None, limits: Limits::default() }
    }
}

/// How long a pool waits for what, and how much it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// One connection, from dialling to being logged in.
    pub dial: Duration,
    /// Opening one session on a connection, and asking for sftp on it.
    pub session: Duration,
    /// [`Pool::wait_until_ready`] in all.
    pub patience: Duration,
    /// How long [`Pool::wait_until_ready`] lets a server refuse the login: cloud-init makes users late.
    pub login_grace: Duration,
    /// A connection that brought nothing for so long is asked for a sign of life; after three without an
    /// answer it is dead.
    pub keep_alive: Duration,
    /// How long the server's sftp may say nothing while it owes an answer. Requests may wait for longer behind
    /// others, as on a slow line.
    pub file_answer: Duration,
    /// The most sessions at a time on one connection. A server that allows fewer is noticed.
    pub sessions_per_connection: usize,
    /// The most bytes of stdout, and as many of stderr, that [`Pool::run`] keeps.
    pub output_cap: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(15),
            session: Duration::from_secs(15),
            patience: Duration::from_secs(300),
            login_grace: Duration::from_secs(45),
            keep_alive: Duration::from_secs(30),
            file_answer: Duration::from_secs(120),
            sessions_per_connection: 10,
            output_cap: 1 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reads_as_one_would_type_it() {
        assert_eq!(Target::new("web", "root").to_string(), "root@web");
        assert_eq!(Target::new("web", "root").port(2222).to_string(), "root@web:2222");
        assert_eq!(Target::new("::1", "root").port(2222).to_string(), "root@[::1]:2222");
    }
}
