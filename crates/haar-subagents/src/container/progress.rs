//! How far a load is, and whether it shall go on: not when nobody wants it any more, its source trickles, or it takes too
//! long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use haar_api::rpc::{Fault, FaultCode};

use crate::storage::reach::Pace;

/// How long a load may take in any case.
const MOST_TIME: Duration = Duration::from_secs(24 * 3600);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How far it is, and whether it shall go on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    begun: OnceLock<Instant>,
    pace: Mutex<Pace>,
    cancelled: AtomicBool,
    stopping: Arc<AtomicBool>,
}

impl Progress {
    pub(super) fn new(stopping: Arc<AtomicBool>) -> Self {
        Progress { stopping, ..Progress::default() }
    }

    /// From here on its time counts.
    pub(super) fn begin(&self) {
        self.begun.get_or_init(Instant::now);
    }

    /// Has the load end soon.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Bytes that came, and those to come in all; 0 while unknown.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    pub(super) fn announce(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn came(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.pace().came(bytes);
    }

    /// Refuses to go on when nobody wants it any more, or it takes too long.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let unavailable = |text: &str| Err(Fault::new(FaultCode::Unavailable, text));
        if self.stopping.load(Ordering::Relaxed) {
            return unavailable("the container sub-agent is stopping; ask again");
        }
        if self.cancelled.load(Ordering::Relaxed) {
            return unavailable("the image was deleted before it was whole");
        }
        match self.begun.get() {
            Some(begun) if begun.elapsed() > MOST_TIME => {
                unavailable("the image was not whole within a day; ask again, or take another source")
            }
            _ => Ok(()),
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Each step leaves it whole.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what comes from elsewhere, as long as the load shall go on. Must be called on a thread of tokio's that
    /// may block.
    pub(super) fn wait<T>(&self, coming: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::runtime::Handle::current().block_on(async {
            let mut coming = std::pin::pin!(coming);
            loop {
                self.check()?;
                let begun = Instant::now();
                let came = tokio::time::timeout(LOOK_EVERY, coming.as_mut()).await;
                self.pace().waited(begun.elapsed())?;
                if let Ok(came) = came {
                    return Ok(came);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_source_that_trickles_is_given_up_where_it_is_waited_for() {
        let wait = async |bytes: u64| {
            let progress = Arc::new(Progress::default());
            progress.pace().waited(Pace::WINDOW - Duration::from_nanos(1)).unwrap();
            progress.came(bytes);
            progress.check().unwrap();
            let slow = tokio::time::sleep(Duration::from_millis(1));
            tokio::task::spawn_blocking(move || progress.wait(slow)).await.unwrap()
        };
        assert_eq!(wait(1000).await.unwrap_err().code, FaultCode::Unavailable);
        wait(Pace::LEAST_BYTES).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_wait_ends_when_the_load_shall() {
        let progress = Arc::new(Progress::default());
        let waiting = Arc::clone(&progress);
        let waiting = tokio::task::spawn_blocking(move || waiting.wait(std::future::pending::<()>()));
        progress.cancel();
        assert_eq!(waiting.await.unwrap().unwrap_err().code, FaultCode::Unavailable);
    }
}
