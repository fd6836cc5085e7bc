//! What can go wrong with a server in another cloud, in classes a caller would treat differently.
//!
//! Each message says what is wrong and what to do about it. A class is told by the variant, never by
//! searching a message: whoever asks `is_no_hardware` gets the same answer in every language and version
//! of the cloud. Deliberately absent: what became of the state file, which is [`crate::state::Error`].

use std::path::PathBuf;
use std::time::Duration;

use crate::cloud::Left;
use crate::quota::Lack;
use crate::state;

/// A failure of this library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such provider is known.
    #[error("there is no cloud provider `{name}`: use one of openstack, haar, local")]
    UnknownProvider {
        /// What was asked for.
        name: String,
    },
    /// Variables that a login needs are not set.
    #[error(
        "not enough to log in: set {}, or name a cloud of {} in OS_CLOUD, or set OS_TOKEN, or OS_APPLICATION_CREDENTIAL_ID and OS_APPLICATION_CREDENTIAL_SECRET (both with OS_AUTH_URL)",
        names.join(", "), file.display()
    )]
    MissingEnv {
        /// The variables, in the order they are documented.
        names: Vec<String>,
        /// The file of named clouds that would do instead.
        file: PathBuf,
    },
    /// `OS_CLOUD` names a cloud, and no file of clouds is there.
    #[error(
        "OS_CLOUD is `{cloud}`, but there is no file of clouds at {}: write one, or unset OS_CLOUD",
        looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoCloudsFile {
        /// The cloud's name.
        cloud: String,
        /// Where the file was looked for, in order.
        looked: Vec<PathBuf>,
    },
    /// The cloud does not know who we are. Asking again changes nothing.
    #[error("the cloud refused the login ({message}): check user, password, project, domain and token")]
    Auth {
        /// The cloud's words.
        message: String,
    },
    /// The cloud knows us, and we may not.
    #[error(
        "not allowed to touch {what} ({message}): ask for the role in this project, or use another login"
    )]
    Forbidden {
        /// What the request was about.
        what: String,
        /// The cloud's words.
        message: String,
    },
    /// A resource name outside the rule.
    #[error(
        "`{name}` is no resource name: {why}; letters a-z and A-Z, digits, underscore, space and hyphen may be in it"
    )]
    BadName {
        /// The name as it was given.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A pattern that cannot be read.
    #[error("`{pattern}` is no pattern of flavor names: {why}")]
    BadPattern {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Any other input that cannot be used.
    #[error("{what} `{value}` cannot be used: {why}")]
    BadInput {
        /// What kind of input it is.
        what: &'static str,
        /// The input as it was given.
        value: String,
        /// What is wrong, and what would do.
        why: String,
    },
    /// No flavor is large enough and matches.
    #[error("no flavor has {need} and a name that matches `{pattern}`: ask for less, or for other names")]
    NoFlavor {
        /// Cores and memory asked for.
        need: String,
        /// The pattern; empty means every name.
        pattern: String,
    },
    /// What was asked for by name or id is not there.
    #[error("there is no {kind} [{name}] here: check its spelling, the project and the region")]
    NotFound {
        /// Its kind: `server`, `image`, `network` and so on.
        kind: String,
        /// The name, id or prefix.
        name: String,
    },
    /// The cloud has no machine left for this flavor. Another flavor, or later, may do.
    #[error("the cloud has no hardware left for this ({message}): try another flavor, or later")]
    NoHardware {
        /// The cloud's words.
        message: String,
    },
    /// The project's quota is used up.
    #[error(
        "the quota is not enough: {}; destroy what is not needed, or ask for more quota",
        lacks.iter().map(Lack::to_string).collect::<Vec<_>>().join("; ")
    )]
    OverQuota {
        /// What is lacking, each with what is needed and left, where known.
        lacks: Vec<Lack>,
    },
    /// Something is in the way: in use, already there, or changing.
    #[error("{what} is in use, already there or being changed ({message}): look at it, then try again")]
    Conflict {
        /// What the request was about.
        what: String,
        /// The cloud's words.
        message: String,
    },
    /// The cloud did not manage just now; the same request may succeed later.
    #[error("the cloud could not answer about {what} just now ({message}): try again")]
    Transient {
        /// What the request was about.
        what: String,
        /// The cloud's words, or what came in place of an answer.
        message: String,
        /// How long the cloud asks us to wait.
        retry_after: Option<Duration>,
    },
    /// The cloud understood, and says no.
    #[error("the cloud refuses the request about {what} with status {status} ({message})")]
    Refused {
        /// What the request was about.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The cloud's words.
        message: String,
    },
    /// The cloud made a server, and it failed.
    #[error("server {server} failed in the cloud ({message}): it is of no use, destroy it and spawn another")]
    ServerFailed {
        /// The server's name or id.
        server: String,
        /// The cloud's words.
        message: String,
    },
    /// It took too long.
    #[error(
        "gave up on {what} after {} s; it was last seen {last}{}",
        after.as_secs(), typical.map(|typical| format!(" (typically it takes {} s)", typical.as_secs())).unwrap_or_default()
    )]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// Its last known status.
        last: String,
        /// How long it took on average before.
        typical: Option<Duration>,
    },
    /// The caller wanted it no longer.
    #[error("cancelled while waiting for {what}")]
    Cancelled {
        /// What was waited for.
        what: String,
    },
    /// The server cannot be reached, or not be talked to.
    #[error("ssh to {server} failed ({message})")]
    Ssh {
        /// The server's name.
        server: String,
        /// What went wrong, and what to do.
        message: String,
    },
    /// This machine, where it is the server, did not do what it should.
    #[error("{message}")]
    Local {
        /// What went wrong, and what to do.
        message: String,
    },
    /// A file, or the directory it is to be in, is not there.
    #[error("cannot {action} {path} {place}: there is no such file or directory")]
    NoSuchFile {
        /// What was to be done with it.
        action: &'static str,
        /// Its path.
        path: String,
        /// `here`, or `on` and the server's name.
        place: String,
    },
    /// A command on a server ended with another status than 0.
    #[error("`{command}` on {server} ended with status {status}{}", with_output(stderr))]
    RemoteExit {
        /// The server's name.
        server: String,
        /// The command as it was given.
        command: String,
        /// Its exit status; 128 and more for a signal, as a shell has it.
        status: u32,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
    /// A tear-down that found nothing; often the sign of wrong credentials.
    #[error(
        "nothing of `{name}` is here to tear down: is this the cloud and the project it was deployed with?"
    )]
    NothingToTearDown {
        /// The resource name.
        name: String,
    },
    /// A tear-down that could not destroy everything. What is left is on record.
    #[error(
        "not all of `{name}` is torn down, and may cost money: {}; see to these, then tear down again",
        left.iter().map(Left::to_string).collect::<Vec<_>>().join("; ")
    )]
    LeftOver {
        /// The resource name.
        name: String,
        /// What is left, and why.
        left: Vec<Left>,
    },
    /// The record of what was made cannot be used.
    #[error(transparent)]
    State(#[from] state::Error),
}

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// The caller's words are wrong: change them.
    Input,
    /// The login is wrong or not allowed: change it.
    Auth,
    /// It is not there.
    NotFound,
    /// No machine for it now: take another flavor, or wait for minutes.
    NoHardware,
    /// The project's limits: give something back.
    OverQuota,
    /// Something is in the way.
    Conflict,
    /// Ask again in seconds.
    Transient,
    /// It took too long; what was made is on record.
    Timeout,
    /// The caller wanted it no longer.
    Cancelled,
    /// The server or its ssh does not do what it should.
    Server,
    /// A command on the server said no.
    RemoteExit,
    /// The state file.
    State,
}

impl Error {
    /// The same for another who waited for the same answer; none where each has to look for himself.
    #[must_use]
    pub fn for_another(&self) -> Option<Self> {
        Some(match self {
            Self::Auth { message } => Self::Auth { message: message.clone() },
            Self::Forbidden { what, message } => {
                Self::Forbidden { what: what.clone(), message: message.clone() }
            }
            Self::Refused { what, status, message } => {
                Self::Refused { what: what.clone(), status: *status, message: message.clone() }
            }
            Self::Transient { what, message, retry_after } => {
                let retry_after = *retry_after;
                Self::Transient { what: what.clone(), message: message.clone(), retry_after }
            }
            Self::BadInput { what, value, why } => {
                Self::BadInput { what, value: value.clone(), why: why.clone() }
            }
            Self::NotFound { kind, name } => Self::NotFound { kind: kind.clone(), name: name.clone() },
            _ => return None,
        })
    }

    /// What a caller can do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::UnknownProvider { .. }
            | Self::MissingEnv { .. }
            | Self::NoCloudsFile { .. }
            | Self::BadName { .. }
            | Self::BadPattern { .. }
            | Self::BadInput { .. }
            | Self::NoFlavor { .. }
            | Self::Refused { .. } => Class::Input,
            Self::Auth { .. } | Self::Forbidden { .. } => Class::Auth,
            Self::NotFound { .. } | Self::NothingToTearDown { .. } | Self::NoSuchFile { .. } => {
                Class::NotFound
            }
            Self::NoHardware { .. } => Class::NoHardware,
            Self::OverQuota { .. } => Class::OverQuota,
            Self::Conflict { .. } | Self::LeftOver { .. } => Class::Conflict,
            Self::Transient { .. } => Class::Transient,
            Self::Timeout { .. } => Class::Timeout,
            Self::Cancelled { .. } => Class::Cancelled,
            Self::Ssh { .. } | Self::Local { .. } | Self::ServerFailed { .. } => Class::Server,
            Self::RemoteExit { .. } => Class::RemoteExit,
            Self::State(_) => Class::State,
        }
    }

    /// Whether the cloud has no machine left for it; another flavor may do.
    #[must_use]
    pub fn is_no_hardware(&self) -> bool {
        self.class() == Class::NoHardware
    }

    /// Whether the project's quota is used up.
    #[must_use]
    pub fn is_over_quota(&self) -> bool {
        self.class() == Class::OverQuota
    }

    /// Whether what was asked for is not there, which for a destroyed server is good news.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.class() == Class::NotFound
    }

    /// Whether the same request may succeed in a moment.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.class() == Class::Transient
    }
}

fn with_output(stderr: &str) -> String {
    match stderr.trim_end() {
        "" => String::new(),
        words => format!(":\n{words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_comes_from_the_kind_of_failure_and_not_from_its_words() {
        let full = Error::NoHardware { message: "Quota exceeded".to_owned() };
        assert!(full.is_no_hardware() && !full.is_over_quota());
        let gone = Error::NotFound { kind: "server".to_owned(), name: "x".to_owned() };
        assert!(gone.is_not_found() && !gone.is_transient());
    }

    #[test]
    fn a_time_limit_tells_the_status_and_what_is_usual() {
        let typical = Some(Duration::from_secs(61));
        let error = Error::Timeout {
            what: "server a".to_owned(),
            after: Duration::from_secs(244),
            last: "BUILD".to_owned(),
            typical,
        };
        assert_eq!(
            error.to_string(),
            "gave up on server a after 244 s; it was last seen BUILD (typically it takes 61 s)"
        );
    }

    #[test]
    fn a_failed_command_shows_what_it_complained_of_and_nothing_when_it_was_silent() {
        let error = |stderr: &str| Error::RemoteExit {
            server: "a".to_owned(),
            command: "false".to_owned(),
            status: 1,
            stderr: stderr.to_owned(),
        };
        assert_eq!(error("").to_string(), "`false` on a ended with status 1");
        assert_eq!(error("foo\n").to_string(), "`false` on a ended with status 1:\nfoo");
    }
}
