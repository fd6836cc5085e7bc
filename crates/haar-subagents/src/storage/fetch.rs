//! Fetches in the background: started or asked after by the same call, shared by all who ask.
//!
//! ```text
//! (absent) ──request──▶ pending ──slot free──▶ downloading ──verified, checked──▶ (stored)
//!     ▲                                             │ any fault
//!     └── told once by the next request ── error ◀──┘
//!     ├────────── asked after by nobody ── error
//!     └────────── deleted ── pending, downloading, error
//! ```
//!
//! Promised: one fetch per image; a fault is told to whoever waits for it and the request after that tries again. Who
//! asks later than [`FAILURE_KEPT`](crate::arrival::FAILURE_KEPT) is not the one who waited: the source may be mended
//! since. How an image comes is in [`super::incoming`], how one is sent here in [`super::receive`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode, Image, ImageRequest, ImageService};
use tokio::sync::Semaphore;

use super::fetching::{Fetch, check_same};
use super::folders::Folders;
use super::{Config, images, names};
use crate::arrival::{self, lock};
use crate::kit::{self, PerGuest, Turn};

/// Fetches that run at once; others are `pending`.
const MAX_RUNNING: usize = 4;
/// Fetches that are known at once, failed ones included.
const MAX_KNOWN: usize = 256;
/// How long a fetch may take to end that was told to.
const END_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// All fetches that are not stored images yet.
#[derive(Debug)]
pub(super) struct Fetches {
    pub(super) folders: Arc<Folders>,
    pub(super) image_dirs: Vec<PathBuf>,
    image_service: Option<ImageService>,
    /// Nobody waits with this lock, for a file, a program or the books: it is also taken on the reactor, and a
    /// program that is waited for needs that.
    pub(super) known: Mutex<HashMap<String, Arc<Fetch>>>,
    turns: PerGuest,
    slots: Semaphore,
    stopping: AtomicBool,
}

impl Fetches {
    pub(super) fn new(folders: Arc<Folders>, config: &Config) -> Self {
        Fetches {
            folders,
            image_dirs: config.image_dirs.clone(),
            image_service: config.image_service.clone(),
            known: Mutex::default(),
            turns: kit::per_guest(),
            slots: Semaphore::new(MAX_RUNNING),
            stopping: AtomicBool::new(false),
        }
    }

    /// The turn of an image, which whoever requests, sends or removes it has.
    pub(super) async fn turn(&self, id: &str) -> Turn {
        self.turns.turn(id).await
    }

    /// Starts a fetch or tells how far it is. Must be called within a tokio runtime, with the image's turn.
    pub(super) fn request(self: &Arc<Self>, request: &ImageRequest) -> Result<Image, Fault> {
        names::check_id("image", &request.id)?;
        // Known before stored, here and wherever an image is shown: what was once told complete stays so.
        if let Some(image) = self.told(request)? {
            return Ok(image);
        }
        let Some(facts) = images::find(&self.folders, &request.id)? else {
            return self.begin(Fetch::read(request, self.image_service.as_ref())?);
        };
        check_same(request, &facts.sha256, &facts.format)?;
        if facts.base(&self.folders).is_err() {
            return self.begin(Fetch::again(&facts));
        }
        images::touch(&self.folders, &facts.id);
        Ok(facts.to_wire())
    }

    /// How far a fetch is; a failure is told once.
    fn told(&self, request: &ImageRequest) -> Result<Option<Image>, Fault> {
        let mut known = lock(&self.known);
        known.retain(|_, fetch| !fetch.arrival.is_forgotten());
        let Some(fetch) = known.get(&request.id) else { return Ok(None) };
        let failed = fetch.arrival.has_failed();
        if !failed {
            check_same(request, &fetch.pin.sha256, &fetch.format)?;
        }
        let image = fetch.to_wire();
        if failed {
            known.remove(&request.id);
        }
        Ok(Some(image))
    }

    fn begin(self: &Arc<Self>, fetch: Fetch) -> Result<Image, Fault> {
        let fetch = self.know(fetch)?;
        let image = fetch.to_wire();
        tokio::spawn(Arc::clone(self).run(fetch));
        Ok(image)
    }

    pub(super) fn know(&self, fetch: Fetch) -> Result<Arc<Fetch>, Fault> {
        let mut known = lock(&self.known);
        if known.len() >= MAX_KNOWN {
            let text = format!("{MAX_KNOWN} images are being fetched already; ask again later");
            return Err(Fault::new(FaultCode::Unavailable, text));
        }
        let fetch = Arc::new(fetch);
        known.insert(fetch.id.clone(), Arc::clone(&fetch));
        Ok(fetch)
    }

    /// How far a fetch is, without starting or forgetting anything.
    pub(super) fn look(&self, id: &str) -> Option<Image> {
        lock(&self.known).get(id).filter(|fetch| !fetch.arrival.is_forgotten()).map(|fetch| fetch.to_wire())
    }

    /// Waits until a fetch has ended, if there is one.
    pub(super) async fn arrived(&self, id: &str) -> Result<(), Fault> {
        arrival::arrived(&self.known, id).await
    }

    /// Every image that is not stored yet.
    pub(super) fn list(&self) -> Vec<Image> {
        lock(&self.known)
            .values()
            .filter(|fetch| !fetch.arrival.is_forgotten())
            .map(|fetch| fetch.to_wire())
            .collect()
    }

    /// Refuses while the image is being fetched, and forgets a fetch of it that failed. For as long as the caller has
    /// the image's turn, no new one begins.
    pub(super) fn check_idle(&self, id: &str) -> Result<(), Fault> {
        let mut known = lock(&self.known);
        let Some(fetch) = known.get(id) else { return Ok(()) };
        if !fetch.arrival.has_failed() {
            let text = format!("image {id} is being fetched; ask again when that has ended");
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        known.remove(id);
        Ok(())
    }

    /// Has a fetch of the image end, and forgets it. For as long as the caller has the image's turn, no new one begins.
    /// Blocks until nothing is written for it any more.
    pub(super) fn end(&self, id: &str) -> Result<(), Fault> {
        let begun = std::time::Instant::now();
        loop {
            let Err(busy) = self.check_idle(id) else { return Ok(()) };
            if let Some(fetch) = lock(&self.known).get(id) {
                fetch.cancel();
            }
            if begun.elapsed() >= END_LIMIT {
                return Err(busy);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Refuses to go on with a fetch that shall end.
    pub(super) fn check(&self, fetch: &Fetch) -> Result<(), Fault> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        fetch.check()
    }

    /// Has running fetches end soon.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    async fn run(self: Arc<Self>, fetch: Arc<Fetch>) {
        let outcome = tokio::select! {
            slot = self.slots.acquire() => {
                let _slot = slot.expect("the semaphore is never closed");
                fetch.arrival.begin();
                // On a task of its own, so that a defect in it ends as a failed fetch and not as one for ever running.
                let fetching = tokio::spawn(Arc::clone(&self).fetch(Arc::clone(&fetch)));
                fetching.await.unwrap_or_else(|error| {
                    Err(Fault::new(FaultCode::Failed, format!("the fetch stopped by a defect: {error}")))
                })
            }
            fault = fetch.cancelled() => Err(fault),
        };
        match outcome {
            Ok(()) => {
                tracing::info!(image = fetch.id, "image stored");
                lock(&self.known).remove(&fetch.id);
                fetch.arrival.end(Ok(()));
            }
            Err(fault) => {
                tracing::warn!(image = fetch.id, %fault, "image not stored");
                fetch.arrival.end(Err(fault));
            }
        }
    }
}

pub(super) fn stopped() -> Fault {
    Fault::new(FaultCode::Unavailable, "the storage sub-agent is stopping; ask again")
}

pub(super) async fn blocking<R: Send + 'static>(
    act: impl FnOnce() -> Result<R, Fault> + Send + 'static,
) -> Result<R, Fault> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|error| {
        Err(Fault::new(FaultCode::Failed, format!("the work stopped by a defect: {error}")))
    })
}

#[cfg(test)]
mod tests {
    use haar_api::rpc::ImageWant;

    use super::*;
    use crate::arrival::FAILURE_KEPT;
    use haar_api::rpc::storage::Backend;

    const ID: &str = "0b5c0c5e-6f3e-4d69-9a57-1f2d9c0a3c11";

    fn status(image: &Image) -> &str {
        &image.status
    }

    /// Waits in real time, while the clock of the fetches stands still.
    async fn ended(fetches: &Fetches) {
        let begun = std::time::Instant::now();
        while fetches.look(ID).is_none_or(|image| image.status != "error") {
            assert!(begun.elapsed() < Duration::from_secs(30), "the fetch never failed");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_nobody_waited_for_is_not_told_to_the_next() {
        let temp = tempfile::tempdir().unwrap();
        let folders = Arc::new(Folders::open(&temp.path().join("storage"), Backend::Auto, "").unwrap());
        let config = Config {
            listen: kit::Listen::Loopback(0),
            root: temp.path().join("storage"),
            image_dirs: vec![temp.path().to_owned()],
            image_service: None,
            backend: Backend::Auto,
            cloud: String::new(),
        };
        let fetches = Arc::new(Fetches::new(folders, &config));
        let request = ImageRequest {
            id: ID.to_owned(),
            source: format!("file://{}/absent.raw", temp.path().display()),
            haar: Some(ImageWant {
                format: "raw".to_owned(),
                sha256: "0".repeat(64),
                ..ImageWant::default()
            }),
            ..ImageRequest::default()
        };
        assert_eq!(status(&fetches.request(&request).unwrap()), "pending");
        ended(&fetches).await;
        assert_eq!(status(&fetches.request(&request).unwrap()), "error", "who waits is told");

        assert_eq!(status(&fetches.request(&request).unwrap()), "pending", "and then it is tried again");
        ended(&fetches).await;
        tokio::time::advance(FAILURE_KEPT).await;
        assert!(fetches.look(ID).is_none() && fetches.list().is_empty());
        assert_eq!(status(&fetches.request(&request).unwrap()), "pending", "who comes later begins anew");
        ended(&fetches).await;
    }
}
