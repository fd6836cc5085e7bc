//! Waiting for a server that is being made.
//!
//! Promises: what time can mend is waited for until the patience is over; a refused login, as cloud-init makes
//! users late, for a grace that is time and no number of attempts; all else is told at once. A route that
//! vanishes after ssh has worked is told at once too. Deliberately absent: what "ready" means beyond a session.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::pool::Pool;
use crate::seats::Sharing;
use crate::{Error, Result};

/// Between two attempts that got as far as the server and no session.
const PAUSE: Duration = Duration::from_millis(500);

impl Pool {
    /// Looks whether the server grants a session now.
    ///
    /// # Errors
    /// Whatever keeps a connection from being made, or a session from being opened on it.
    pub async fn connect(&self) -> Result<()> {
        self.session(Sharing::Shared).await.map(drop)
    }

    /// Waits until the server grants a session. Returns at once when it does already.
    ///
    /// # Errors
    /// [`Error::NotReady`] when the patience is over, with the last failure as its source;
    /// [`Error::LoginRefused`] when the login is refused for longer than the grace; [`Error::RouteLost`] when
    /// ssh worked before and there is no route any more; [`Error::HostKey`] and all else that waiting does not
    /// mend at once; [`Error::Cancelled`] and [`Error::Closed`].
    pub async fn wait_until_ready(&self, cancel: &CancellationToken) -> Result<()> {
        let waiting = cancel.run_until_cancelled(self.keep_trying());
        waiting.await.unwrap_or_else(|| {
            Err(Error::Cancelled { what: format!("waiting for ssh to {}", self.target()) })
        })
    }

    async fn keep_trying(&self) -> Result<()> {
        let began = Instant::now();
        let limits = self.limits();
        let mut refused_since = None;
        let mut last: Option<Error> = None;
        loop {
            // The pool itself makes pauses between dials that fail.
            let attempt =
                tokio::time::timeout_at(began + limits.patience, self.session(Sharing::Shared)).await;
            let Ok(outcome) = attempt else {
                let source = last.unwrap_or_else(|| Error::NoAnswer {
                    target: self.target().clone(),
                    what: "open a session".to_owned(),
                    after: limits.patience,
                });
                let (target, waited) = (self.target().clone(), began.elapsed());
                return Err(Error::NotReady { target, waited, source: Box::new(source) });
            };
            match outcome {
                Ok(_session) => return Ok(()),
                Err(error @ Error::LoginRefused { .. }) => {
                    let since = *refused_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= limits.login_grace {
                        return Err(error);
                    }
                    last = Some(error);
                }
                Err(error @ Error::Unreachable { .. }) if error.may_pass() => last = Some(error),
                Err(error) if error.may_pass() => {
                    // It was reached, so that the pool sees no reason for a pause.
                    last = Some(error);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
