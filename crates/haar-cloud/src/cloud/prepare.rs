//! What has to be there before a server can be asked for: the volume that it boots from.
//!
//! It is asked for once, looked at until it is there, and goes with its server; also when the server is never
//! asked for, because somebody left or the cloud said no. A cancellation counts between two questions only, so
//! that what was asked for is on record.

use tokio::time::{Instant, sleep};

use super::Cloud;
use super::arrive::SILENCE_LIMIT;
use super::spawn::{Draft, Spawn};
use super::wait::{ASK_LIMIT, bounded, retry_after};
use crate::provider::Prepared;
use crate::state::EntryId;
use crate::{Class, Error, Result};

impl Spawn {
    /// Waits until the server can be asked for.
    pub(super) async fn until_prepared(&self, draft: &Draft) -> Result<()> {
        let (cloud, began) = (&self.cloud, Instant::now());
        let limit = cloud.pace().limit(draft.boot);
        let what = format!("server {}", draft.name());
        let (mut last, mut answered) = (String::new(), Instant::now());
        let looker = cloud.lookers().join(began);
        loop {
            let mut pause = looker.pause();
            let ask = cloud.provider().prepare_server(&draft.deployment, &draft.order, cloud.journal());
            match bounded(ASK_LIMIT, &what, ask).await {
                Ok(Prepared::Ready) => return Ok(()),
                Ok(Prepared::Making(doing)) => {
                    answered = Instant::now();
                    if last != doing {
                        cloud.tell(&what, doing.as_str());
                    }
                    last = doing;
                }
                Err(error) if error.is_transient() && answered.elapsed() < SILENCE_LIMIT => {
                    pause = retry_after(&error).unwrap_or(pause).max(pause);
                }
                Err(error) => return Err(error),
            }
            if began.elapsed() >= limit {
                let typical = cloud.pace().typical(draft.boot);
                return Err(Error::Timeout { what, after: began.elapsed(), last, typical });
            }
            let rest = limit.saturating_sub(began.elapsed());
            let slept = self.cancel.run_until_cancelled(sleep(pause.min(rest))).await;
            slept.ok_or_else(|| Error::Cancelled { what: draft.name().to_owned() })?;
        }
    }
}

impl Cloud {
    /// As [`Self::abandon`], after a no: what the cloud did not take is asked for anew.
    pub(super) async fn refused(&self, draft: &Draft, entry: EntryId, error: &Error) -> Result<()> {
        if matches!(error.class(), Class::NotFound | Class::Input) {
            self.doubt_offers().await;
        }
        self.abandon(draft, entry).await
    }

    /// Forgets a server that was never made, and ends what was made for it.
    pub(super) async fn abandon(&self, draft: &Draft, entry: EntryId) -> Result<()> {
        self.forget_entry(entry).await?;
        // A server without a volume of its own had nothing made for it.
        if draft.order.volume_gb.is_some() {
            self.end_orphans_of(draft.name()).await;
        }
        Ok(())
    }
}
