//! How many info actions and streams are under way at once, for each guest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::config::Limits;
use super::runners::Owner;

/// How long a turn is waited for.
const WAIT: Duration = Duration::from_secs(60);
/// From this many guests on, those nobody asks about are forgotten.
const MOST_KNOWN: usize = 4096;

/// The turns of every guest.
pub(crate) struct Throttles {
    limits: Limits,
    known: Mutex<BTreeMap<Owner, Turns>>,
}

#[derive(Clone)]
struct Turns {
    info: Arc<Semaphore>,
    stream: Arc<Semaphore>,
}

/// The turn did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Throttles {
    pub(crate) fn new(limits: Limits) -> Throttles {
        Throttles { limits, known: Mutex::new(BTreeMap::new()) }
    }

    /// A turn for an info action, held until dropped.
    pub(crate) async fn info(&self, owner: Owner) -> Result<OwnedSemaphorePermit, TooMany> {
        turn(self.turns(owner).info).await
    }

    /// A turn for a stream, held until dropped.
    pub(crate) async fn stream(&self, owner: Owner) -> Result<OwnedSemaphorePermit, TooMany> {
        turn(self.turns(owner).stream).await
    }

    /// Whether a stream is under way.
    pub(crate) fn streams(&self, owner: Owner) -> bool {
        self.turns(owner).stream.available_permits() < self.limits.stream as usize
    }

    fn turns(&self, owner: Owner) -> Turns {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            let in_use = |turns: &Semaphore, most: u32| turns.available_permits() < most as usize;
            let limits = self.limits;
            known.retain(|_, turns| in_use(&turns.info, limits.info) || in_use(&turns.stream, limits.stream));
        }
        let turns = known.entry(owner).or_insert_with(|| Turns {
            info: Arc::new(Semaphore::new(self.limits.info as usize)),
            stream: Arc::new(Semaphore::new(self.limits.stream as usize)),
        });
        turns.clone()
    }
}

async fn turn(turns: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, TooMany> {
    let waited = tokio::time::timeout(WAIT, turns.acquire_owned()).await;
    waited.map_err(|_| TooMany)?.map_err(|_| TooMany)
}
