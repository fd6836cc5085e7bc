//! Waiting and asking again: how long, and how often.
//!
//! Only what may succeed in a moment is asked again, with growing pauses or the pause that the cloud asks
//! for, up to a limit. No single question may hang. The clock is tokio's, so tests need no time.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::{Error, Result};

/// How long one question may take.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(60);
/// How long something is read again and again.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(60);
/// How long one such question may take, so that there is time for another.
const READ_ASK_LIMIT: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause between two looks of one who looks alone.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// What each who looks adds to the pause of all: twenty looks in a second are enough for any cloud.
const SHARE: Duration = Duration::from_millis(50);

/// Pauses that grow.
#[derive(Debug)]
pub(super) struct Patience {
    began: Instant,
    limit: Duration,
    pause: Duration,
}

impl Patience {
    /// Patience for as long as `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self { began: Instant::now(), limit, pause: FIRST_PAUSE }
    }

    /// Waits before the next try; whether there is one.
    pub(super) async fn pause_after(&mut self, error: &Error) -> bool {
        let wait = retry_after(error).unwrap_or(self.pause).max(self.pause);
        if self.began.elapsed() + wait > self.limit {
            return false;
        }
        sleep(wait).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// How long the cloud asks us to wait.
pub(super) fn retry_after(error: &Error) -> Option<Duration> {
    match error {
        Error::Transient { retry_after, .. } => *retry_after,
        _ => None,
    }
}

/// Whether the same request may succeed in a while.
pub(super) fn may_pass(error: &Error) -> bool {
    error.is_transient() || matches!(error, Error::Conflict { .. })
}

/// Asks once, and takes silence for a failure that may pass.
pub(super) async fn bounded<T>(
    limit: Duration,
    what: &str,
    ask: impl Future<Output = Result<T>>,
) -> Result<T> {
    timeout(limit, ask).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", limit.as_secs());
        Err(Error::Transient { what: what.to_owned(), message, retry_after: None })
    })
}

/// Reads until there is an answer that asking again would not change.
pub(super) async fn patiently<T, F, A>(limit: Duration, what: &str, ask: F) -> Result<T>
where
    F: Fn() -> A,
    A: Future<Output = Result<T>>,
{
    let mut patience = Patience::new(limit);
    loop {
        match bounded(READ_ASK_LIMIT, what, ask()).await {
            Err(error) if error.is_transient() && patience.pause_after(&error).await => {}
            answer => return answer,
        }
    }
}

/// Who looks at the cloud again and again, so that all together do not look too often.
#[derive(Debug, Default)]
pub(super) struct Lookers(AtomicU32);

/// One who looks, as long as this value lives.
#[derive(Debug)]
pub(super) struct Looker<'a> {
    all: &'a Lookers,
    began: Instant,
}

impl Lookers {
    /// One more who looks, since `began`.
    pub(super) fn join(&self, began: Instant) -> Looker<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Looker { all: self, began }
    }
}

impl Looker<'_> {
    /// The pause until the next look: short at first, then a tenth of what has passed, and longer where many
    /// look.
    pub(super) fn pause(&self) -> Duration {
        let alone = (self.began.elapsed() / 10).clamp(FIRST_PAUSE, LONGEST_LOOK);
        alone.max(SHARE * self.all.0.load(Ordering::Relaxed))
    }
}

impl Drop for Looker<'_> {
    fn drop(&mut self) {
        self.all.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn transient(retry_after: Option<Duration>) -> Error {
        Error::Transient { what: "x".to_owned(), message: "503".to_owned(), retry_after }
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_asked_again_until_the_limit_and_a_clear_no_is_not() {
        let asked = Cell::new(0);
        let failing = || {
            asked.set(asked.get() + 1);
            async { Err::<(), _>(transient(None)) }
        };
        let began = Instant::now();
        assert!(patiently(READ_LIMIT, "x", failing).await.unwrap_err().is_transient());
        assert!(asked.get() > 4 && began.elapsed() <= READ_LIMIT, "{}", asked.get());
        asked.set(0);
        let refused = || {
            asked.set(asked.get() + 1);
            async { Err::<(), _>(Error::Auth { message: "no".to_owned() }) }
        };
        patiently(READ_LIMIT, "x", refused).await.unwrap_err();
        assert_eq!(asked.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cloud_that_asks_for_a_pause_gets_it() {
        let asked = Cell::new(0);
        let busy = || {
            asked.set(asked.get() + 1);
            let first = asked.get() == 1;
            async move { if first { Err(transient(Some(Duration::from_secs(7)))) } else { Ok(()) } }
        };
        let began = Instant::now();
        patiently(READ_LIMIT, "x", busy).await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_who_look_are_no_flood_and_one_is_soon_told() {
        let lookers = Lookers::default();
        let alone = lookers.join(Instant::now());
        assert_eq!(alone.pause(), FIRST_PAUSE);
        let others: Vec<Looker<'_>> = (0..99).map(|_| lookers.join(Instant::now())).collect();
        assert_eq!(alone.pause(), Duration::from_secs(5));
        drop(others);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(alone.pause(), Duration::from_secs(2));
        sleep(Duration::from_secs(600)).await;
        assert_eq!(alone.pause(), LONGEST_LOOK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_without_an_answer_does_not_hang() {
        let error = bounded(ASK_LIMIT, "x", std::future::pending::<Result<()>>()).await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("60 s"), "{error}");
    }
}
