//! An image that its sender streams, stored as a fetched one is.

use std::sync::Arc;

use bytes::Bytes;
use haar_api::rpc::{Fault, FaultCode, Image, ImageRequest};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::fetch::{Fetches, blocking, stopped};
use super::fetching::{Fetch, check_same};
use super::images::{self, Facts};
use super::names;
use super::part::Part;
use crate::arrival::lock;

impl Fetches {
    /// Takes an image that its sender streams; answers it, and whether it is new. `body` gives the bytes, and an
    /// empty piece at the end. When the caller goes away, its channel says so.
    pub(super) async fn upload(
        self: &Arc<Self>,
        request: ImageRequest,
        length: Option<u64>,
        body: mpsc::Receiver<Result<Bytes, Fault>>,
    ) -> Result<(Image, bool), Fault> {
        names::check_id("image", &request.id)?;
        // On a task of its own: it tidies up also when nobody waits for the answer any more.
        let taking = tokio::spawn(Arc::clone(self).take(request, length, body));
        taking.await.unwrap_or_else(|_| Err(stopped()))
    }

    async fn take(
        self: Arc<Self>,
        request: ImageRequest,
        length: Option<u64>,
        mut body: mpsc::Receiver<Result<Bytes, Fault>>,
    ) -> Result<(Image, bool), Fault> {
        let (fetches, turn) = (Arc::clone(&self), self.turn(&request.id).await);
        let begun = blocking(move || {
            let _turn = turn;
            fetches.begin_upload(&request)
        });
        let fetch = match begun.await? {
            Begun::Stored(facts) => return Ok((facts.to_wire(), false)),
            Begun::New(fetch) => fetch,
        };
        let (fetches, upload) = (Arc::clone(&self), Arc::clone(&fetch));
        let stored = blocking(move || {
            let mut coming = async || {
                tokio::select! {
                    piece = body.recv() => piece.unwrap_or_else(|| Err(broken_off())),
                    fault = fetch.cancelled() => Err(fault),
                }
            };
            let mut next = || Handle::current().block_on(coming());
            let part = Part::begin(&fetches.folders, &fetch.id, None)?;
            fetches.store(&fetch, part, length, || {
                next().map(|bytes| Some(bytes).filter(|bytes| !bytes.is_empty()))
            })?;
            images::require(&fetches.folders, &fetch.id)
        })
        .await;
        lock(&self.known).remove(&upload.id);
        // What became of it is the sender's to hear; who waits for the image looks for it.
        upload.arrival.end(Ok(()));
        Ok((stored?.to_wire(), true))
    }

    fn begin_upload(&self, request: &ImageRequest) -> Result<Begun, Fault> {
        {
            let mut known = lock(&self.known);
            // A failure of this image is told by what comes of the upload; those of others are theirs to hear.
            known.retain(|id, fetch| {
                !fetch.arrival.is_forgotten() && (*id != request.id || !fetch.arrival.has_failed())
            });
            if known.contains_key(&request.id) {
                let text = format!("image {} is on its way already; ask again later", request.id);
                return Err(Fault::new(FaultCode::Conflict, text));
            }
        }
        if let Some(facts) = images::find(&self.folders, &request.id)? {
            check_same(request, &facts.sha256, &facts.format)?;
            images::touch(&self.folders, &facts.id);
            return Ok(Begun::Stored(facts));
        }
        let fetch = self.know(Fetch::of_upload(request)?)?;
        fetch.arrival.begin();
        Ok(Begun::New(fetch))
    }
}

/// What an upload finds.
enum Begun {
    Stored(Facts),
    New(Arc<Fetch>),
}

fn broken_off() -> Fault {
    Fault::new(FaultCode::Unavailable, "the upload broke off; send the image again")
}
