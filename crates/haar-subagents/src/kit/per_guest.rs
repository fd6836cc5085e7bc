//! One call at a time per guest: a lock by key.
//!
//! Promised: those who wait for one key are served in the order they asked; other keys do not wait; a key
//! nobody holds or waits for takes no memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Locks = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// Locks by guest id. Clones share the locks.
#[derive(Debug, Clone, Default)]
pub struct PerGuest {
    locks: Arc<Locks>,
}

/// No locks held yet.
pub fn per_guest() -> PerGuest {
    PerGuest::default()
}

impl PerGuest {
    /// Waits until every earlier asker for this key is done; the key is held until the turn is dropped.
    pub async fn turn(&self, key: &str) -> Turn {
        let lock = Arc::clone(with(&self.locks).entry(key.to_owned()).or_default());
        self.wait(key, lock).await
    }

    /// The same; none when so many hold this key or wait for it already. One guest that is stuck shall not take every
    /// place there is.
    pub async fn turn_among(&self, key: &str, most: usize) -> Option<Turn> {
        let lock = {
            let mut locks = with(&self.locks);
            let lock = locks.entry(key.to_owned()).or_default();
            // One is the map's own.
            if Arc::strong_count(lock) > most {
                return None;
            }
            Arc::clone(lock)
        };
        Some(self.wait(key, lock).await)
    }

    async fn wait(&self, key: &str, lock: Arc<tokio::sync::Mutex<()>>) -> Turn {
        // The turn exists before the wait, so that a caller who stops waiting tidies up too.
        let mut turn = Turn { locks: Arc::clone(&self.locks), key: key.to_owned(), held: None };
        turn.held = Some(lock.lock_owned().await);
        turn
    }
}

/// The right to act on one guest, until dropped.
#[derive(Debug)]
#[must_use = "the guest is free again as soon as the turn is dropped"]
pub struct Turn {
    locks: Arc<Locks>,
    key: String,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.held = None;
        let mut locks = with(&self.locks);
        // Whoever waits holds a clone, taken under this same lock.
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

fn with(locks: &Locks) -> std::sync::MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
    // A map of locks cannot be left half changed by a panic.
    locks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn calls_for_one_guest_are_served_in_order_of_arrival() {
        let guests = per_guest();
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = guests.turn("a").await;
        let mut waiting = Vec::new();
        for number in 0..8 {
            let (guests_of_task, order_of_task) = (guests.clone(), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let _turn = guests_of_task.turn("a").await;
                order_of_task.lock().unwrap().push(number);
            }));
            // On one thread a yield lets the task run up to its wait.
            tokio::task::yield_now().await;
        }
        assert!(order.lock().unwrap().is_empty(), "nobody may act while the first turn lasts");
        drop(first);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..8).collect::<Vec<_>>());
        assert!(with(&guests.locks).is_empty(), "a free key takes no memory");
    }

    #[tokio::test]
    async fn another_guest_does_not_wait() {
        let guests = per_guest();
        let _first = guests.turn("a").await;
        let second = tokio::time::timeout(Duration::from_secs(60), guests.turn("b")).await;
        assert!(second.is_ok());
    }

    #[tokio::test]
    async fn only_so_many_wait_for_one_guest() {
        let guests = per_guest();
        let first = guests.turn_among("a", 2).await.unwrap();
        let waiting = tokio::spawn({
            let guests = guests.clone();
            async move { guests.turn_among("a", 2).await.is_some() }
        });
        // On one thread a yield lets the task run up to its wait.
        tokio::task::yield_now().await;
        assert!(guests.turn_among("a", 2).await.is_none(), "there is no third place");
        assert!(guests.turn_among("b", 2).await.is_some(), "another guest has its own");
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(guests.turn_among("a", 2).await.is_some());
        assert!(with(&guests.locks).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_stops_waiting_leaves_nothing_behind() {
        let guests = per_guest();
        let first = guests.turn("a").await;
        let waited = tokio::time::timeout(Duration::from_secs(1), guests.turn("a")).await;
        assert!(waited.is_err(), "the key is held");
        drop(first);
        assert!(with(&guests.locks).is_empty());
    }
}
