//! How sftp begins on a server, and how it comes to its end.
//!
//! Promises: a server that does not answer is waited for no longer than the limits say; that it has no sftp is
//! only said of one that said so itself. Deliberately absent: what is asked over it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::ChannelMsg;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::{Config, RawSftpSession};
use russh_sftp::protocol::Version;
use tokio::time::timeout;

use super::watch::Watched;
use crate::options::Target;
use crate::pool::Pool;
use crate::seats::Sharing;
use crate::session::{Ended, Leaving, Session, Tunnel};
use crate::{Error, Result};

/// How a session of sftp came to its end, if it has.
pub(super) struct End {
    ended: Arc<OnceLock<Ended>>,
    is_silent: Arc<AtomicBool>,
    limit: Duration,
    _leaving: Leaving,
}

/// Starts the server's sftp in a session of its own.
pub(super) async fn start(pool: &Pool) -> Result<(RawSftpSession, End, Version)> {
    let (target, limit) = (pool.target(), pool.limits().session);
    let mut session = pool.session(Sharing::Shared).await?;
    let asked = timeout(limit, ask(target, &mut session)).await;
    asked.unwrap_or_else(|_| Err(no_answer(target, "start sftp".to_owned(), limit)))?;
    let (raw, end) = speak(session, pool.limits().file_answer);
    let version = raw.init().await.map_err(|_| end.before_the_first_answer(target))?;
    Ok((raw, end, version))
}

/// Asks for sftp in a session, however long the server takes for its answer.
async fn ask(target: &Target, session: &mut Session) -> Result<()> {
    // An error here is a lost connection, which is found below.
    let _ = session.write().request_subsystem(true, "sftp").await;
    loop {
        match session.next().await {
            Some(ChannelMsg::Success) => return Ok(()),
            Some(ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::Eof) => {
                session.stayed_empty();
                return Err(Error::NoSftp { target: target.clone() });
            }
            Some(_) => {}
            None => {
                let (during, why) = ("the start of sftp".to_owned(), session.why_lost());
                return Err(Error::Lost { target: target.clone(), during, why });
            }
        }
    }
}

/// Begins to speak sftp in a session, whose server may be silent for no longer than `limit`.
fn speak(mut session: Session, limit: Duration) -> (RawSftpSession, End) {
    let leaving = session.leaving();
    let tunnel = Tunnel::new(session);
    let ended = tunnel.ended();
    let watched = Watched::new(tunnel, limit);
    let end = End { ended, is_silent: watched.is_silent(), limit, _leaving: leaving };
    // The library's own limit counts from when a request is queued, so there is none.
    let config = Config { request_timeout_secs: u64::MAX, ..Config::default() };
    (RawSftpSession::new_with_config(watched, config), end)
}

impl End {
    pub(super) fn has_come(&self) -> bool {
        self.ended.get().is_some() || self.is_silent()
    }

    fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::SeqCst)
    }

    /// Why there was not even a first answer.
    fn before_the_first_answer(&self, target: &Target) -> Error {
        let target = target.clone();
        match self.ended.get() {
            // A subsystem whose program is missing starts well and ends at once.
            Some(Ended::ByServer) => Error::NoSftp { target },
            Some(Ended::Lost(why)) => {
                Error::Lost { target, during: "the start of sftp".to_owned(), why: why.clone() }
            }
            None if self.is_silent() => no_answer(&target, "start sftp".to_owned(), self.limit),
            None => Error::SftpUnreadable { target },
        }
    }

    /// Why something that was begun got no answer.
    pub(super) fn during(&self, target: Target, what: String, error: &SftpError) -> Error {
        match self.ended.get() {
            Some(Ended::Lost(why)) => Error::Lost { target, during: what, why: why.clone() },
            Some(Ended::ByServer) => {
                Error::Lost { target, during: what, why: "the server ended its sftp".to_owned() }
            }
            None if self.is_silent() => no_answer(&target, what, self.limit),
            None => Error::Lost { target, during: what, why: error.to_string() },
        }
    }
}

fn no_answer(target: &Target, what: String, after: Duration) -> Error {
    Error::NoAnswer { target: target.clone(), what, after }
}
