//! How an image comes: what is told of it meanwhile, and who waits for it.
//!
//! ```text
//! pending ──begin──▶ downloading ──end──▶ ended
//!    └───────────────────┴───────end───▶ failed
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use haar_api::rpc::{Fault, Image};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::kit::Caller;

/// How long a failure waits to be told; whoever waits for the image asks every two seconds.
pub(crate) const FAILURE_KEPT: Duration = Duration::from_secs(10);

/// Where an image is on its way.
#[derive(Debug)]
pub(crate) struct Arrival(watch::Sender<State>);

#[derive(Debug)]
enum State {
    Pending,
    Downloading,
    /// It is stored, or was taken back by whoever brought it: to be looked for.
    Ended,
    Failed(Fault, Instant),
}

impl Arrival {
    /// Of an image that waits for its turn.
    pub(crate) fn new() -> Self {
        Arrival(watch::Sender::new(State::Pending))
    }

    /// It comes from here on.
    pub(crate) fn begin(&self) {
        self.0.send_replace(State::Downloading);
    }

    /// The same, unless the check refuses; nobody is told of a state between.
    pub(crate) fn begin_if(&self, check: impl FnOnce() -> bool) -> bool {
        self.0.send_if_modified(|state| {
            let begins = check();
            if begins {
                *state = State::Downloading;
            }
            begins
        })
    }

    /// It comes no more.
    pub(crate) fn end(&self, outcome: Result<(), Fault>) {
        self.0.send_replace(match outcome {
            Ok(()) => State::Ended,
            Err(fault) => State::Failed(fault, Instant::now()),
        });
    }

    /// Acts while it cannot begin; answers whether it is coming.
    pub(crate) fn is_coming_after(&self, act: impl FnOnce()) -> bool {
        let state = self.0.borrow();
        act();
        matches!(*state, State::Downloading)
    }

    pub(crate) fn is_coming(&self) -> bool {
        self.is_coming_after(|| {})
    }

    pub(crate) fn has_failed(&self) -> bool {
        matches!(*self.0.borrow(), State::Failed(..))
    }

    /// Whether it failed and nobody came to be told.
    pub(crate) fn is_forgotten(&self) -> bool {
        matches!(&*self.0.borrow(), State::Failed(_, since) if since.elapsed() >= FAILURE_KEPT)
    }

    /// The status on the wire, and the failure's words.
    pub(crate) fn words(&self) -> (&'static str, String) {
        match &*self.0.borrow() {
            State::Pending => ("pending", String::new()),
            State::Downloading => ("downloading", String::new()),
            State::Ended => ("complete", String::new()),
            State::Failed(fault, _) => ("error", fault.to_string()),
        }
    }

    /// Waits until it comes no more.
    ///
    /// # Errors
    /// The failure, to everybody who waits.
    pub(crate) async fn ended(&self) -> Result<(), Fault> {
        let mut states = self.0.subscribe();
        let ended = states.wait_for(|state| matches!(state, State::Ended | State::Failed(..))).await;
        match ended.as_deref() {
            Ok(State::Failed(fault, _)) => Err(fault.clone()),
            // The sender is here: it is not dropped meanwhile.
            _ => Ok(()),
        }
    }
}

/// Waits until the image of this id comes no more, if it is coming. A failure is told to all who wait, and to nobody after
/// them.
pub(crate) async fn arrived<T: AsRef<Arrival>>(
    known: &Mutex<HashMap<String, Arc<T>>>,
    id: &str,
) -> Result<(), Fault> {
    let Some(coming) = lock(known).get(id).cloned() else { return Ok(()) };
    let ended = (*coming).as_ref().ended().await;
    if ended.is_err() {
        lock(known).retain(|_, other| !Arc::ptr_eq(other, &coming));
    }
    ended
}

/// Locks what is known of the images that are coming.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing behind these locks is changed in more than one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request for an image is answered. Whoever asks again is told how far it is; others wait until it is there or
/// has failed, as with the originals (`mistify-wire` §2.12).
pub(crate) async fn answer<Asked, Arrived>(
    caller: Caller,
    ask: impl Fn() -> Asked,
    arrived: impl Fn() -> Arrived,
) -> Result<Image, Fault>
where
    Asked: Future<Output = Result<Image, Fault>>,
    Arrived: Future<Output = Result<(), Fault>>,
{
    loop {
        let image = ask().await?;
        match (caller, image.status.as_str()) {
            (Caller::AsksAgain, _) | (Caller::Waits, "complete") => return Ok(image),
            (Caller::Waits, "error") => {
                return Err(Fault::parse(&image.haar.map(|extra| extra.error).unwrap_or_default()));
            }
            (Caller::Waits, _) => arrived().await?,
        }
    }
}
