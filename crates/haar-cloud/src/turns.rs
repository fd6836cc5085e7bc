//! Something that one at a time asks for, while the others wait for what comes of it.
//!
//! Promises: a failure is shared as an answer is. Who waited while somebody was told no takes that no, and does
//! not ask for it again: a hundred who wait for a service that hangs wait as long as one. Deliberately absent:
//! for how long what was told is good, which is for each thing to know.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::time::Instant;

use crate::cloud::locked;
use crate::{Error, Result};

/// What was last told, and whose turn it is to ask.
#[derive(Default)]
pub struct Turns<T> {
    told: tokio::sync::Mutex<T>,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    count: u64,
    last: Option<(Instant, Error)>,
}

impl<T> fmt::Debug for Turns<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Turns").finish_non_exhaustive()
    }
}

/// The turn of one who asks; gives what was last told.
pub struct Turn<'a, T> {
    told: MutexGuard<'a, T>,
    failures: &'a Mutex<Failures>,
    /// How many failures there were when this one began to wait.
    before: u64,
}

impl<T> Turns<T> {
    /// Waits for one's turn.
    pub async fn turn(&self) -> Turn<'_, T> {
        let before = locked(&self.failures).count;
        Turn { told: self.told.lock().await, failures: &self.failures, before }
    }
}

impl<T> Turn<'_, T> {
    /// Asks, unless another was told no while this one waited: then it is told the same.
    ///
    /// # Errors
    /// What `ask` fails with, for this one or for the other.
    pub async fn ask<A>(&mut self, ask: impl Future<Output = Result<A>>) -> Result<A> {
        if let Some(error) = self.told_another() {
            return Err(error);
        }
        let answer = ask.await;
        if let Err(error) = &answer {
            let mut failures = locked(self.failures);
            failures.count += 1;
            failures.last = error.for_another().map(|error| (Instant::now(), error));
            self.before = failures.count;
        }
        answer
    }

    /// The last failure, if it is no older than this.
    #[must_use]
    pub fn failure_within(&self, age: Duration) -> Option<Error> {
        let failures = locked(self.failures);
        let (at, error) = failures.last.as_ref()?;
        (at.elapsed() < age).then(|| error.for_another())?
    }

    fn told_another(&self) -> Option<Error> {
        let failures = locked(self.failures);
        let (_, error) = failures.last.as_ref().filter(|_| failures.count != self.before)?;
        error.for_another()
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.told
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.told
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::sleep;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_hundred_who_wait_for_what_hangs_wait_as_long_as_one() {
        let (turns, asked) = (Turns::<()>::default(), Cell::new(0));
        let ask = || async {
            asked.set(asked.get() + 1);
            sleep(LONG).await;
            Err::<(), _>(Error::Auth { message: "no".to_owned() })
        };
        let began = Instant::now();
        let all = (0..100).map(|_| async { turns.turn().await.ask(ask()).await });
        for answer in futures_util::future::join_all(all).await {
            assert!(matches!(answer, Err(Error::Auth { .. })), "{answer:?}");
        }
        assert_eq!((asked.get(), began.elapsed()), (1, LONG));
        turns.turn().await.ask(ask()).await.unwrap_err();
        assert_eq!(asked.get(), 2, "who comes later asks anew");
        let turn = turns.turn().await;
        assert!(turn.failure_within(LONG).is_some());
        sleep(LONG).await;
        assert!(turn.failure_within(LONG).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_goes_away_leaves_the_turn_to_the_next() {
        let turns = Turns::<u8>::default();
        let hangs = async { turns.turn().await.ask(std::future::pending::<Result<()>>()).await };
        assert!(tokio::time::timeout(LONG, hangs).await.is_err());
        let mut turn = turns.turn().await;
        *turn = turn.ask(async { Ok(7) }).await.unwrap();
        assert_eq!(*turn, 7);
    }
}
