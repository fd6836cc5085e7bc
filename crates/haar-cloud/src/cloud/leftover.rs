//! What should be gone and is not: servers whose end failed, and volumes whose server never came.
//!
//! Each stays on record until it is gone. After a failure a task tries again, less and less often, for as long as
//! somebody holds the cloud; so does each look that makes the record good. During a tear-down nothing is done
//! here: that ends all of it by itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::Cloud;
use super::servers::IN_USE_LIMIT;
use crate::Result;
use crate::state::{Entry, Kind, Phase, Record};

const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
/// How many are ended at once.
const AT_ONCE: usize = 16;

impl Cloud {
    /// Tries once more to end what should be gone, in a task that [`Self::settled`] waits for.
    pub(super) fn end_leftovers_in_background(&self) {
        let cloud = self.clone();
        self.background().spawn(async move {
            if !cloud.end_leftovers().await {
                cloud.end_leftovers_later();
            }
        });
    }

    /// Sees to it that somebody tries again, and again.
    pub(super) fn end_leftovers_later(&self) {
        // Without a runtime the process ends; all of it is on record.
        let Ok(runtime) = Handle::try_current() else { return };
        if self.inner.ending.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(&self.inner);
        runtime.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                sleep(pause).await;
                let Some(inner) = weak.upgrade() else { return };
                let cloud = Self { inner };
                pause = (pause * 2).min(LONGEST_PAUSE);
                if !cloud.tried_again().await {
                    continue;
                }
                cloud.inner.ending.store(false, Ordering::Release);
                // Another end may have failed just now, of one that counted on this task.
                let is_done = cloud.leftovers().await.is_ok_and(|left| left.is_empty());
                if is_done || cloud.inner.ending.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    /// Ends the volumes that were made for a server which is not on record any more.
    pub(super) async fn end_orphans_of(&self, name: &str) {
        let left = self.leftovers().await.unwrap_or_default();
        let mut all_gone = true;
        for entry in left.iter().filter(|entry| entry.kind == Kind::Volume && entry.name == name) {
            all_gone &= self.ended(entry).await;
        }
        if !all_gone {
            self.end_leftovers_later();
        }
    }

    /// Learns first what has come of requests whose answers were lost. Whether nothing is left.
    async fn tried_again(&self) -> bool {
        if let Err(error) = self.make_record_good().await {
            tracing::warn!(%error, "cannot look what is left of what should be gone");
            return false;
        }
        self.end_leftovers().await
    }

    /// Ends all that should be gone. Whether nothing of it is left.
    async fn end_leftovers(&self) -> bool {
        let left = match self.leftovers().await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(%error, "cannot read what should be gone");
                return false;
            }
        };
        let ends: Vec<_> = left.iter().map(|entry| self.ended(entry)).collect();
        let ends: Vec<bool> = stream::iter(ends).buffer_unordered(AT_ONCE).collect().await;
        ends.into_iter().all(|is_gone| is_gone)
    }

    /// Ends one. Whether it is gone.
    async fn ended(&self, entry: &Entry) -> bool {
        // A request for it may still be on its way.
        let Some(id) = entry.cloud_id() else { return false };
        let end = async {
            if entry.kind == Kind::Server {
                return self.destroy(id).await;
            }
            self.delete_thing(entry.kind, id, IN_USE_LIMIT).await?;
            self.forget_entry(entry.id).await
        };
        match end.await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, kind = %entry.kind, name = entry.name, "it should be gone, and may cost");
                false
            }
        }
    }

    async fn leftovers(&self) -> Result<Vec<Entry>> {
        let record = self.record().await?;
        Ok(record.as_ref().map(leftovers).unwrap_or_default())
    }
}

fn leftovers(record: &Record) -> Vec<Entry> {
    if record.is_tearing_down() {
        return Vec::new();
    }
    let is_left = |entry: &&Entry| match entry.kind {
        Kind::Server => matches!(entry.phase, Phase::Leaving { cloud_id: Some(_) }),
        Kind::Volume => entry.is_ours() && !has_server(record, entry),
        _ => false,
    };
    record.entries().filter(is_left).cloned().collect()
}

/// A volume has the name of its server, which is on record before it.
fn has_server(record: &Record, volume: &Entry) -> bool {
    record.entries().any(|entry| entry.kind == Kind::Server && entry.name == volume.name)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::name::ResourceName;
    use crate::state::Store;

    #[test]
    fn what_should_be_gone_is_a_server_that_leaves_and_a_volume_without_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "fake", &ResourceName::parse("a").unwrap()).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let mut record = store.begin(now).unwrap();
        let mut make = |kind: Kind, name: &str| {
            let entry = record.plan(kind, name, now).unwrap();
            record.made(entry, &format!("{kind}-{name}")).unwrap();
            entry
        };
        let leaves = make(Kind::Server, "a-1");
        for (kind, name) in [
            (Kind::Volume, "a-1"),
            (Kind::Server, "a-2"),
            (Kind::Volume, "a-2"),
            (Kind::Volume, "a-3"),
            (Kind::FloatingIp, "a-4"),
        ] {
            make(kind, name);
        }
        record.leaving(leaves);
        let left: Vec<String> = leftovers(&record).iter().map(ToString::to_string).collect();
        assert_eq!(left, ["server a-1 (server-a-1)", "volume a-3 (volume-a-3)"]);
        record.begin_tear_down(now);
        assert!(leftovers(&record).is_empty(), "a tear-down ends them");
    }
}
