//! `Libvirt.Shutdown` with a limit: the button, and in the end the plug.
//!
//! Promised: no call waits for the guest. Until it is off the answer says `retry`, and whoever asks again within that
//! time finds the shutdown under way: the button is pressed once more where a guest that booted did not hear it, and
//! the plug is pulled when the limit is over. That libvirt cannot be asked meanwhile ends nothing.
//! Deliberately absent: a limit for whoever does not ask again; then the guest was only asked, as without one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Seconds to the next question.
pub(crate) const RETRY_S: u32 = 1;
/// After this long the button is pressed again.
const PRESS_AGAIN: Duration = Duration::from_secs(10);
/// Whoever does not ask for this long has gone away.
const GONE: Duration = Duration::from_secs(20);
/// For how long after the limit it is tried to pull the plug.
const GRACE: Duration = Duration::from_secs(20);

/// What is to be done with a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Press,
    Look,
    PullPlug,
}

/// The shutdowns under way. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Shutdowns(Arc<Mutex<HashMap<String, UnderWay>>>);

struct UnderWay {
    began: Instant,
    pressed: Instant,
    /// When a question was last answered.
    asked: Instant,
}

impl Shutdowns {
    /// What is to be done now, by a question about this guest.
    pub(crate) fn next(&self, id: &str, limit: Duration) -> Act {
        let now = Instant::now();
        let mut all = self.all();
        all.retain(|_, under_way| now - under_way.asked < GONE);
        let Some(under_way) = all.get_mut(id) else {
            all.insert(id.to_owned(), UnderWay { began: now, pressed: now, asked: now });
            return Act::Press;
        };
        under_way.asked = now;
        if now - under_way.began >= limit {
            Act::PullPlug
        } else if now - under_way.pressed >= PRESS_AGAIN {
            under_way.pressed = now;
            Act::Press
        } else {
            Act::Look
        }
    }

    /// The guest is not off yet, and that was answered.
    pub(crate) fn goes_on(&self, id: &str) {
        if let Some(under_way) = self.all().get_mut(id) {
            under_way.asked = Instant::now();
        }
    }

    /// Whether it is no end that libvirt did not answer.
    pub(crate) fn bears_silence(&self, id: &str, limit: Duration) -> bool {
        self.all().get(id).is_some_and(|under_way| under_way.began.elapsed() < limit + GRACE)
    }

    /// The guest is off, or will not be.
    pub(crate) fn end(&self, id: &str) {
        self.all().remove(id);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, UnderWay>> {
        // Each step leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn after(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_button_is_pressed_again_and_the_plug_is_pulled_at_last() {
        let shutdowns = Shutdowns::default();
        let mut acts = Vec::new();
        for _ in 0..7 {
            acts.push(shutdowns.next("g", LIMIT));
            after(5).await;
            shutdowns.goes_on("g");
        }
        let (press, look, pull) = (Act::Press, Act::Look, Act::PullPlug);
        assert_eq!(acts, [press, look, press, look, press, look, pull]);
        assert!(shutdowns.bears_silence("g", LIMIT));
        after(16).await;
        assert!(!shutdowns.bears_silence("g", LIMIT));
        shutdowns.end("g");
        assert_eq!(shutdowns.next("g", LIMIT), Act::Press, "another shutdown");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_that_nobody_asks_about_any_more_is_no_reason_to_pull_the_plug() {
        let shutdowns = Shutdowns::default();
        shutdowns.next("g", LIMIT);
        after(40).await;
        assert_eq!(shutdowns.next("g", LIMIT), Act::Press);
        assert!(!shutdowns.bears_silence("h", LIMIT), "nothing of it has begun");
    }
}
