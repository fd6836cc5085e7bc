//! Base images that nobody needs any more are removed from this host.
//!
//! Such an image is not in the controller's books, so that no guest will be made of it; no guest in the ledger is
//! of it; and no disk here is cloned from it, which the storage sub-agent knows and refuses by. A controller that
//! does not tell its images gets nothing removed. Deliberately absent: removing images that are only unused, for
//! they are what makes the next guest quick.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use haar_api::rpc;
use haar_core::id::ImageId;
use haar_core::node::GuestRecord;
use tokio::sync::watch;

use crate::call::Ended;
use crate::engine::{Engine, Stopped};
use crate::link::Link;
use crate::stages::Hands;

/// How long the storage sub-agent may take for one answer.
const LIMIT: Duration = Duration::from_secs(30);
/// What could not be removed is tried again this much later, or with the next desired set.
const TRY_AGAIN: Duration = Duration::from_secs(600);

/// The images there are in the controller's books; None before it was told.
pub(crate) type Catalogue = Option<Arc<BTreeSet<ImageId>>>;

/// Removes after every desired set what it makes needless, until the engine ends.
pub(crate) async fn keep<L: Link>(
    hands: Arc<Hands<L>>,
    engine: Engine,
    mut catalogue: watch::Receiver<Catalogue>,
) {
    loop {
        let known = catalogue.borrow_and_update().clone();
        if let Some(known) = known
            && sweep(&hands, &engine, &known).await.is_err()
        {
            return;
        }
        if let Ok(Err(_)) = tokio::time::timeout(TRY_AGAIN, catalogue.changed()).await {
            return;
        }
    }
}

async fn sweep<L: Link>(hands: &Hands<L>, engine: &Engine, known: &BTreeSet<ImageId>) -> Result<(), Stopped> {
    let everything = rpc::ImageRequest::default();
    let listed = hands.storage.ask::<_, rpc::ImageResponse>("ImageStore.ListImages", &everything, LIMIT);
    let images = match listed.await {
        Ok(listed) => listed.images.unwrap_or_default(),
        Err(fault) => {
            tracing::debug!(%fault, "the images on this host cannot be listed");
            return Ok(());
        }
    };
    let complete = images.into_iter().filter(|image| image.status == "complete");
    for id in complete.filter_map(|image| image.id.parse::<ImageId>().ok()) {
        // Asked after the list: an image that came with a newer set is in the ledger before it is fetched.
        let is_needed = engine.read(move |node| node.guests().any(|record| needs(record, id)));
        if known.contains(&id) || is_needed.await? {
            continue;
        }
        let request = rpc::ImageRequest { id: id.to_string(), ..rpc::ImageRequest::default() };
        let removed =
            hands.storage.change::<_, rpc::ImageResponse>("ImageStore.DeleteImage", &request, LIMIT).await;
        match removed {
            Ok(_) => tracing::info!(image = %id, "removed: it is in no book and no guest is of it"),
            // As when a disk of a guest that nobody knows is cloned from it.
            Err(Ended::Fault(fault)) => tracing::info!(image = %id, %fault, "a needless image stays"),
            Err(Ended::Cancelled) => {}
        }
    }
    Ok(())
}

/// Whether a guest in the ledger is of the image, as told or as its mark says.
fn needs(record: &GuestRecord, id: ImageId) -> bool {
    let told = record.order.as_ref().map(|order| order.image);
    let marked = record.claim.as_ref().map(|claim| claim.image);
    !record.ended() && (told == Some(id) || marked == Some(id))
}
