//! Waiting for something of one key to happen: a hypervisor's desired set, a job.
//!
//! A wake is only a hint to look again; whoever waits looks before and after. Entries live only as long
//! as somebody waits. Deliberately absent: what happened.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

/// Those who wait, by key.
#[derive(Debug)]
pub(crate) struct Wakes<K> {
    waiting: Mutex<HashMap<K, Arc<Notify>>>,
}

/// Whether there was something before the time was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited<T> {
    /// There was.
    Found(T),
    /// The time is over.
    TimeOver,
}

impl<K> Default for Wakes<K> {
    fn default() -> Self {
        Wakes { waiting: Mutex::default() }
    }
}

impl<K: Hash + Eq + Copy> Wakes<K> {
    /// Looks now and at every wake of `key` until `look` finds something or the time is over.
    pub(crate) async fn wait_for<T>(
        &self,
        key: K,
        until: Instant,
        mut look: impl FnMut() -> Option<T>,
    ) -> Waited<T> {
        let place = Place { wakes: self, key, notify: Arc::clone(self.map().entry(key).or_default()) };
        loop {
            let woken = place.notify.notified();
            tokio::pin!(woken);
            // Enabled before looking: a wake between the look and the wait is not lost.
            woken.as_mut().enable();
            if let Some(found) = look() {
                return Waited::Found(found);
            }
            if tokio::time::timeout_at(until, woken).await.is_err() {
                return look().map_or(Waited::TimeOver, Waited::Found);
            }
        }
    }

    /// Lets those who wait for `key` look.
    pub(crate) fn wake(&self, key: K) {
        if let Some(notify) = self.map().get(&key) {
            notify.notify_waiters();
        }
    }

    /// Lets everybody look.
    pub(crate) fn wake_all(&self) {
        for notify in self.map().values() {
            notify.notify_waiters();
        }
    }

    fn map(&self) -> MutexGuard<'_, HashMap<K, Arc<Notify>>> {
        // A map of handles is whole whatever panicked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiter's entry; the last one removes it, also when the waiting is cancelled.
struct Place<'a, K: Hash + Eq + Copy> {
    wakes: &'a Wakes<K>,
    key: K,
    notify: Arc<Notify>,
}

impl<K: Hash + Eq + Copy> Drop for Place<'_, K> {
    fn drop(&mut self) {
        let mut map = self.wakes.map();
        // The map's own and this one.
        if Arc::strong_count(&self.notify) <= 2 {
            map.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_wake_lets_the_waiter_look_and_leaves_no_entry() {
        let wakes = Arc::new(Wakes::<u8>::default());
        let there = Arc::new(AtomicBool::new(false));
        let waiter = tokio::spawn({
            let (wakes, there) = (Arc::clone(&wakes), Arc::clone(&there));
            async move {
                let until = Instant::now() + Duration::from_secs(30);
                wakes.wait_for(7, until, || there.load(Ordering::SeqCst).then_some("there")).await
            }
        });
        while wakes.map().is_empty() {
            tokio::task::yield_now().await;
        }
        there.store(true, Ordering::SeqCst);
        wakes.wake(7);
        assert_eq!(waiter.await.unwrap(), Waited::Found("there"));
        assert!(wakes.map().is_empty());
    }

    #[tokio::test]
    async fn the_time_can_be_over() {
        let wakes = Wakes::<u8>::default();
        let waited = wakes.wait_for(1, Instant::now(), || None::<u8>).await;
        assert_eq!(waited, Waited::TimeOver);
    }
}
