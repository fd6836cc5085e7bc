//! Loads in the background: started or asked after by the same call, shared by all who ask. An image that a caller
//! makes itself stands among them for that long.
//!
//! ```text
//! (absent) ──LoadImage──▶ pending ──slot free──▶ downloading ──whole, verified──▶ (stored)
//!     ▲                                               │ any fault
//!     └── told once by the next LoadImage ── error ◀──┘
//!     ├────────── asked after by nobody ── error
//!     └────────── deleted ── pending, downloading, error
//! ```

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode, Image, ImageExtra, ImageRequest, ImageService, ImageWant};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::folders::Folders;
use super::images::{self, FORMAT, KIND};
use super::load::{self, Limits, Wanted};
use super::progress::Progress;
use super::source::{self, Origin};
use crate::arrival::{self, Arrival, lock};
use crate::storage::fetching::Secret;
use crate::storage::names::check_id;
use crate::storage::source::goes_direct;

/// Loads that run at once; others are `pending`.
const MAX_RUNNING: usize = 2;
/// Loads that are known at once, failed ones included.
const MAX_KNOWN: usize = 256;
/// How long a load may take to end that was told to.
const END_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);

type Known = HashMap<String, Arc<Load>>;

/// All loads that are not stored images yet.
#[derive(Debug)]
pub(super) struct Loads {
    folders: Arc<Folders>,
    image_dirs: Vec<PathBuf>,
    image_service: Option<ImageService>,
    limits: Limits,
    known: Mutex<Known>,
    slots: Semaphore,
    stopping: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Load {
    id: String,
    pin: String,
    progress: Progress,
    arrival: Arrival,
}

impl Loads {
    pub(super) fn new(
        folders: Arc<Folders>,
        image_dirs: Vec<PathBuf>,
        image_service: Option<ImageService>,
        limits: Limits,
    ) -> Self {
        Loads {
            folders,
            image_dirs,
            image_service,
            limits,
            known: Mutex::default(),
            slots: Semaphore::new(MAX_RUNNING),
            stopping: Arc::default(),
        }
    }

    /// Starts a load or tells how far it is. Must be called within a tokio runtime.
    pub(super) fn request(self: &Arc<Self>, request: &ImageRequest) -> Result<Image, Fault> {
        check_id("image", &request.id)?;
        let mut known = lock(&self.known);
        known.retain(|_, load| !load.arrival.is_forgotten());
        if let Some(load) = known.get(&request.id) {
            let failed = load.arrival.has_failed();
            if !failed {
                check_same(request, &load.pin)?;
            }
            let image = load.to_wire();
            if failed {
                known.remove(&request.id);
            }
            return Ok(image);
        }
        if let Some(facts) = images::find(&self.folders, &request.id)? {
            check_same(request, &facts.sha256)?;
            return Ok(facts.to_wire());
        }
        let wanted = read(request, self.image_service.as_ref())?;
        let load = self.add(&mut known, &wanted.id, &wanted.pin)?;
        let image = load.to_wire();
        tokio::spawn(Arc::clone(self).run(load, wanted));
        Ok(image)
    }

    fn add(&self, known: &mut Known, id: &str, pin: &str) -> Result<Arc<Load>, Fault> {
        if known.len() >= MAX_KNOWN {
            let text = format!("{MAX_KNOWN} images are being loaded already; ask again later");
            return Err(Fault::new(FaultCode::Unavailable, text));
        }
        let load = Arc::new(Load {
            id: id.to_owned(),
            pin: pin.to_owned(),
            progress: Progress::new(Arc::clone(&self.stopping)),
            arrival: Arrival::new(),
        });
        known.insert(id.to_owned(), Arc::clone(&load));
        Ok(load)
    }

    /// Has the caller make an image that is not there. It is told of like a load, and ended like one by whoever deletes
    /// it; what becomes of it is told to the caller alone.
    pub(super) fn while_making<R>(
        &self,
        id: &str,
        make: impl FnOnce(Limits, &Progress) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let load = {
            let mut known = lock(&self.known);
            // A failure of this image that nobody was told of is a past load's.
            known.retain(|known, load| {
                !load.arrival.is_forgotten() && (known != id || !load.arrival.has_failed())
            });
            if known.contains_key(id) || images::find(&self.folders, id)?.is_some() {
                let text =
                    format!("image {id} is here already, or on its way; delete it first or take another id");
                return Err(Fault::new(FaultCode::Conflict, text));
            }
            self.add(&mut known, id, "")?
        };
        load.arrival.begin();
        let _making = Making { loads: self, load: &load };
        make(self.limits, &load.progress)
    }

    /// How far a load is, without starting or forgetting anything.
    pub(super) fn look(&self, id: &str) -> Option<Image> {
        lock(&self.known).get(id).filter(|load| !load.arrival.is_forgotten()).map(|load| load.to_wire())
    }

    /// Waits until a load has ended, if there is one.
    pub(super) async fn arrived(&self, id: &str) -> Result<(), Fault> {
        arrival::arrived(&self.known, id).await
    }

    /// Every image that is not stored yet.
    pub(super) fn list(&self) -> Vec<Image> {
        let known = lock(&self.known);
        known.values().filter(|load| !load.arrival.is_forgotten()).map(|load| load.to_wire()).collect()
    }

    /// Acts on an image that nobody loads: a load of it is told to end, and waited for. Blocks; what is done with it must
    /// be short, for all other loads wait.
    pub(super) fn while_idle<R>(&self, id: &str, act: impl FnOnce() -> Result<R, Fault>) -> Result<R, Fault> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            let mut known = lock(&self.known);
            let Some(load) = known.get(id) else { return act() };
            if load.cancel() {
                known.remove(id);
                return act();
            }
            drop(known);
            if Instant::now() >= deadline {
                let text = format!("image {id} is being loaded and was told to end; ask again");
                return Err(Fault::new(FaultCode::Conflict, text));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Has running loads end soon; what they hold is removed.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits until those have ended that were told to: who saves a container lets it go before.
    pub(super) async fn ended(&self) {
        let deadline = Instant::now() + END_LIMIT;
        while lock(&self.known).values().any(|load| load.arrival.is_coming()) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn run(self: Arc<Self>, load: Arc<Load>, wanted: Wanted) {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        if !load.begin() {
            return;
        }
        let (loads, loading) = (Arc::clone(&self), Arc::clone(&load));
        let task = tokio::task::spawn_blocking(move || {
            load::load(&loads.folders, &loads.image_dirs, loads.limits, &wanted, &loading.progress)
        });
        let outcome = task.await.unwrap_or_else(|error| {
            Err(Fault::new(FaultCode::Failed, format!("the load stopped by a defect: {error}")))
        });
        match outcome {
            Ok(()) => {
                tracing::info!(image = load.id, "image stored");
                lock(&self.known).remove(&load.id);
                load.arrival.end(Ok(()));
            }
            Err(fault) => {
                tracing::warn!(image = load.id, %fault, "image not stored");
                load.arrival.end(Err(fault));
            }
        }
    }
}

/// An image that a caller makes; known no more when dropped.
struct Making<'a> {
    loads: &'a Loads,
    load: &'a Load,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        lock(&self.loads.known).remove(&self.load.id);
        // Who waits for the image looks for it.
        self.load.arrival.end(Ok(()));
    }
}

impl AsRef<Arrival> for Load {
    fn as_ref(&self) -> &Arrival {
        &self.arrival
    }
}

impl Load {
    /// Begins, unless it was cancelled before its turn came.
    fn begin(&self) -> bool {
        self.arrival.begin_if(|| self.progress.check().is_ok())
    }

    /// Tells it to end; answers whether it does nothing any more.
    fn cancel(&self) -> bool {
        let is_coming = self.arrival.is_coming_after(|| self.progress.cancel());
        if !is_coming {
            self.arrival.end(self.progress.check());
        }
        !is_coming
    }

    fn to_wire(&self) -> Image {
        let (status, error) = self.arrival.words();
        let (done_bytes, file_bytes) = self.progress.bytes();
        Image {
            id: self.id.clone(),
            kind: KIND.to_owned(),
            status: status.to_owned(),
            haar: Some(ImageExtra {
                format: FORMAT.to_owned(),
                sha256: self.pin.clone(),
                file_bytes,
                virtual_bytes: 0,
                done_bytes,
                error,
            }),
            ..Image::default()
        }
    }
}

fn read(request: &ImageRequest, service: Option<&ImageService>) -> Result<Wanted, Fault> {
    let invalid = |text: &str| Fault::new(FaultCode::Invalid, text);
    if !matches!(request.kind.as_str(), "" | KIND) {
        return Err(invalid("the image's type must be container; other images are the storage sub-agent's"));
    }
    let ImageWant { format, sha256, authorization, .. } = request.haar.clone().unwrap_or_default();
    if !matches!(format.as_str(), "" | FORMAT) {
        return Err(invalid("the image's format must be oci"));
    }
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !sha256.is_empty() && (sha256.len() != 64 || !sha256.bytes().all(lower_hex)) {
        return Err(invalid("the image's sha256 must be 64 lower-case hex digits"));
    }
    let service = service.filter(|_| request.source.is_empty());
    let origin = match service {
        Some(service) => source::parse(&service.download(&request.id))?,
        None => source::parse(&request.source)?,
    };
    let (url, is_pinned) = match &origin {
        Origin::Registry(reference) => {
            (Some(&reference.base), reference.digest.is_some() || !sha256.is_empty())
        }
        Origin::Web(url) => (Some(url), !sha256.is_empty()),
        Origin::Path(..) => (None, true),
    };
    // Over plain HTTP anybody on the way chooses what runs here; of the service the operator knows it.
    if !is_pinned
        && service.is_none()
        && url.is_some_and(|url| url.scheme() == "http" && !goes_direct(url, ""))
    {
        return Err(invalid("an image that comes over plain HTTP needs a sha256 to verify it by"));
    }
    Ok(Wanted { id: request.id.clone(), origin, pin: sha256, authorization: Secret::new(authorization) })
}

/// An image's id stands for one content; a request without a pin takes what is there.
fn check_same(request: &ImageRequest, sha256: &str) -> Result<(), Fault> {
    let want = request.haar.as_ref().map_or("", |want| want.sha256.as_str());
    if want.is_empty() || want == sha256 {
        return Ok(());
    }
    let text =
        format!("image {} is here with SHA-256 {sha256:?}, {want} was asked for; use another id", request.id);
    Err(Fault::new(FaultCode::Conflict, text))
}
