//! Whether the record is of the cloud that is spoken to.
//!
//! A record bears the place it was made in, and is refused elsewhere by whoever reads it. Older programs did not
//! note it: such a record is taken when the cloud has something of it, and bears the place from then on. What
//! the cloud does not know is gone only in the place where it was, so that this comes before all that may take
//! something for gone.

use std::sync::atomic::Ordering;

use super::Cloud;
use crate::Result;
use crate::state::{self, Entry, Record};

impl Cloud {
    /// Makes sure of it, by the record alone where that says it.
    pub(super) async fn claim(&self) -> Result<()> {
        let Some(here) = self.provider().place() else { return Ok(()) };
        if self.inner.claimed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(record) = self.record().await? else { return Ok(()) };
        if record.place().is_none() {
            if has_something(&record) && !self.knows_something_of(&record).await? {
                let path = self.journal().store().path();
                return Err(state::Error::Unknown { path, here }.into());
            }
            let note = move |record: &mut Record| {
                record.set_place(&here);
                Ok(())
            };
            self.journal().change(note).await?;
        }
        self.inner.claimed.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn knows_something_of(&self, record: &Record) -> Result<bool> {
        let found = self.survey(Some(record.deployment())).await?;
        Ok(found.iter().any(|thing| thing.ours))
    }
}

/// Whether anything on it should be in the cloud.
fn has_something(record: &Record) -> bool {
    record.entries().any(|entry: &Entry| entry.cloud_id().is_some())
}
