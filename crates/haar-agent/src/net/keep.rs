//! Keeping the host's network as the ledger wants it: at start, at every change, and for each guest in turn.
//!
//! One lock, for the rules are one text for all networks. What no guest needs any more is removed only after a
//! desired set was taken: before that, the ledger may not know all.

use std::sync::Arc;
use std::time::Duration;

use haar_core::id::CloudId;
use haar_core::order::NetworkOrder;
use tokio::sync::{Mutex, watch};

use super::Error;
use crate::engine::View;

/// After a failure it is tried again this much later.
const TRY_AGAIN: Duration = Duration::from_secs(15);

/// The networks of this host.
#[derive(Clone)]
pub(crate) struct Networks {
    cloud: CloudId,
    lock: Arc<Mutex<()>>,
    view: watch::Receiver<View>,
    is_left_alone: bool,
}

impl Networks {
    /// Networks as the engine's view has them.
    pub(crate) fn new(cloud: CloudId, view: watch::Receiver<View>) -> Networks {
        Networks { cloud, lock: Arc::default(), view, is_left_alone: false }
    }

    /// Networks that are never made: every promise here is empty.
    pub(crate) fn left_alone(cloud: CloudId, view: watch::Receiver<View>) -> Networks {
        Networks { is_left_alone: true, ..Networks::new(cloud, view) }
    }

    /// This network is there, with all others.
    ///
    /// # Errors
    /// [`Error`] says what the host refused.
    pub(crate) async fn ensure(&self, network: &NetworkOrder) -> Result<(), Error> {
        if self.is_left_alone {
            return Ok(());
        }
        let _turn = self.lock.lock().await;
        let mut all = self.view.borrow().networks.as_ref().clone();
        all.retain(|known| known.id != network.id);
        all.push(network.clone());
        // Others that cannot be made are their own guests' trouble, and said by `keep`.
        let refused = super::make(self.cloud, &all).await?;
        let own = refused.into_iter().find(|(id, _)| *id == network.id);
        own.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Follows the view until the engine ends.
    pub(crate) async fn keep(mut self) {
        let mut said = String::new();
        loop {
            let view = self.view.borrow_and_update().clone();
            if let Err(error) = self.follow(&view).await {
                // It may need a person, and until then it is the same each time.
                let words = error.to_string();
                if words != said {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the host's network is not as it should be, tried again");
                    said = words;
                }
                tokio::time::sleep(TRY_AGAIN).await;
                continue;
            }
            said.clear();
            let networks = Arc::clone(&view.networks);
            let changed = self.view.wait_for(|new| new.networks != networks || new.fed != view.fed).await;
            if changed.is_err() {
                return;
            }
        }
    }

    async fn follow(&self, view: &View) -> Result<(), Error> {
        if self.is_left_alone {
            return Ok(());
        }
        let _turn = self.lock.lock().await;
        let refused = if view.networks.is_empty() {
            Vec::new()
        } else {
            super::make(self.cloud, &view.networks).await?
        };
        if view.fed {
            super::prune(self.cloud, &view.networks).await?;
        }
        refused.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }
}
