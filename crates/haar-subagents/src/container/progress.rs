//! How far a load is, and whether it shall go on: not when nobody wants it any more, or it takes too long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use haar_api::rpc::{Fault, FaultCode};

/// How long a load may take in any case.
const MOST_TIME: Duration = Duration::from_secs(24 * 3600);
/// How long it may take, and more by this many bytes that came in a second.
const SLOW_TIME: Duration = Duration::from_secs(600);
const SLOW_BYTES: u64 = 16 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How far it is, and whether it shall go on.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    begun: OnceLock<Instant>,
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
            Some(begun) if is_too_slow(begun.elapsed(), self.bytes().0) => {
                unavailable("the image's source is too slow; ask again, or take another one")
            }
            _ => Ok(()),
        }
    }

    /// Waits for what comes from elsewhere, as long as the load shall go on. Must be called on a thread of tokio's that
    /// may block.
    pub(super) fn wait<T>(&self, coming: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::runtime::Handle::current().block_on(async {
            let mut coming = std::pin::pin!(coming);
            loop {
                self.check()?;
                if let Ok(came) = tokio::time::timeout(LOOK_EVERY, coming.as_mut()).await {
                    return Ok(came);
                }
            }
        })
    }
}

fn is_too_slow(since: Duration, bytes: u64) -> bool {
    since > MOST_TIME || since > SLOW_TIME + Duration::from_secs(bytes / SLOW_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_drips_is_given_up() {
        let hour = Duration::from_secs(3600);
        assert!(!is_too_slow(SLOW_TIME, 0) && is_too_slow(hour, 1000), "ten minutes are anybody's");
        assert!(!is_too_slow(hour, 60 << 20) && is_too_slow(25 * hour, u64::MAX));
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
