//! Fetches in the background: started or asked after by the same call, shared by all who ask.
//!
//! ```text
//! (absent) ──request──▶ pending ──slot free──▶ downloading ──verified, checked──▶ (stored)
//!     ▲                                             │ any fault
//!     └── told once by the next request ── error ◀──┘
//!     └────────── asked after by nobody ── error
//! ```
//!
//! Promised: one fetch per image; an image appears only whole, verified and checked; a fault is told to whoever
//! waits for it and the request after that tries again. Who asks later than [`FAILURE_KEPT`](super::fetching::FAILURE_KEPT) is not the one who
//! waited: the source may be mended since. A stream that broke off is gone on with by the next request, where its
//! source gives parts ([`Part`]).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use haar_api::rpc::{Fault, FaultCode, Image, ImageRequest};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::expand::expand;
use super::fetching::{Fetch, State, check_same};
use super::folders::{Folders, io_fault};
use super::images::{self, Facts};
use super::names;
use super::part::{Note, Part};
use super::reach::Pace;
use super::source::{self, GoOn, Opened, Source};
use super::space::Grant;
use crate::kit::{self, PerGuest, Turn};

/// Fetches that run at once; others are `pending`.
const MAX_RUNNING: usize = 4;
/// Fetches that are known at once, failed ones included.
const MAX_KNOWN: usize = 256;
const READ_BYTES: usize = 1 << 20;

/// All fetches that are not stored images yet.
#[derive(Debug)]
pub(super) struct Fetches {
    folders: Arc<Folders>,
    image_dirs: Vec<PathBuf>,
    /// Nobody waits with this lock, for a file, a program or the books: it is also taken on the reactor, and a
    /// program that is waited for needs that.
    known: Mutex<HashMap<String, Arc<Fetch>>>,
    turns: PerGuest,
    slots: Semaphore,
    stopping: AtomicBool,
}

impl Fetches {
    pub(super) fn new(folders: Arc<Folders>, image_dirs: Vec<PathBuf>) -> Self {
        Fetches {
            folders,
            image_dirs,
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
            return self.begin(Fetch::read(request)?);
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
        known.retain(|_, fetch| !fetch.is_forgotten());
        let Some(fetch) = known.get(&request.id) else { return Ok(None) };
        let failed = matches!(*lock(&fetch.state), State::Failed(..));
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

    fn know(&self, fetch: Fetch) -> Result<Arc<Fetch>, Fault> {
        let mut known = lock(&self.known);
        if known.len() >= MAX_KNOWN {
            let text = format!("{MAX_KNOWN} images are being fetched already; ask again later");
            return Err(Fault::new(FaultCode::Unavailable, text));
        }
        let fetch = Arc::new(fetch);
        known.insert(fetch.id.clone(), Arc::clone(&fetch));
        Ok(fetch)
    }

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
        let (fetches, id) = (Arc::clone(&self), fetch.id.clone());
        let stored = blocking(move || {
            let mut next = || body.blocking_recv().unwrap_or_else(|| Err(broken_off()));
            let part = Part::begin(&fetches.folders, &fetch.id, None)?;
            fetches.store(&fetch, part, length, || {
                next().map(|bytes| Some(bytes).filter(|bytes| !bytes.is_empty()))
            })?;
            images::require(&fetches.folders, &fetch.id)
        })
        .await;
        lock(&self.known).remove(&id);
        Ok((stored?.to_wire(), true))
    }

    fn begin_upload(&self, request: &ImageRequest) -> Result<Begun, Fault> {
        {
            let mut known = lock(&self.known);
            // A failure of this image is told by what comes of the upload; those of others are theirs to hear.
            known.retain(|id, fetch| {
                !fetch.is_forgotten()
                    && (*id != request.id || !matches!(*lock(&fetch.state), State::Failed(..)))
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
        *lock(&fetch.state) = State::Downloading;
        Ok(Begun::New(fetch))
    }

    /// How far a fetch is, without starting or forgetting anything.
    pub(super) fn look(&self, id: &str) -> Option<Image> {
        lock(&self.known).get(id).filter(|fetch| !fetch.is_forgotten()).map(|fetch| fetch.to_wire())
    }

    /// Every image that is not stored yet.
    pub(super) fn list(&self) -> Vec<Image> {
        lock(&self.known)
            .values()
            .filter(|fetch| !fetch.is_forgotten())
            .map(|fetch| fetch.to_wire())
            .collect()
    }

    /// Refuses while the image is being fetched, and forgets a fetch of it that failed. For as long as the caller has
    /// the image's turn, no new one begins.
    pub(super) fn check_idle(&self, id: &str) -> Result<(), Fault> {
        let mut known = lock(&self.known);
        let Some(fetch) = known.get(id) else { return Ok(()) };
        if !matches!(*lock(&fetch.state), State::Failed(..)) {
            let text = format!("image {id} is being fetched; ask again when that has ended");
            return Err(Fault::new(FaultCode::Conflict, text));
        }
        known.remove(id);
        Ok(())
    }

    /// Has running fetches end soon.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    async fn run(self: Arc<Self>, fetch: Arc<Fetch>) {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        *lock(&fetch.state) = State::Downloading;
        // On a task of its own, so that a defect in it ends as a failed fetch and not as one for ever running.
        let fetching = tokio::spawn(Arc::clone(&self).fetch(Arc::clone(&fetch)));
        let outcome = fetching.await.unwrap_or_else(|error| {
            Err(Fault::new(FaultCode::Failed, format!("the fetch stopped by a defect: {error}")))
        });
        match outcome {
            Ok(()) => {
                tracing::info!(image = fetch.id, "image stored");
                lock(&self.known).remove(&fetch.id);
            }
            Err(fault) => {
                tracing::warn!(image = fetch.id, %fault, "image not stored");
                *lock(&fetch.state) = State::Failed(fault, Instant::now());
            }
        }
    }

    async fn fetch(self: Arc<Self>, fetch: Arc<Fetch>) -> Result<(), Fault> {
        let Some(source) = &fetch.source else {
            return blocking(move || {
                let facts = images::require(&self.folders, &fetch.id)?;
                let from = self.folders.image(&facts.id, &facts.format);
                expand(&self.folders, &facts, &from, &self.stopping)
            })
            .await;
        };
        match source {
            Source::File(path) => {
                let path = path.clone();
                blocking(move || {
                    let (mut file, length) = source::open_file(&path, &self.image_dirs)?;
                    let mut buffer = vec![0; READ_BYTES];
                    let part = Part::begin(&self.folders, &fetch.id, None)?;
                    self.store(&fetch, part, Some(length), || {
                        match std::io::Read::read(&mut file, &mut buffer) {
                            Ok(0) => Ok(None),
                            Ok(read) => Ok(Some(Bytes::copy_from_slice(&buffer[..read]))),
                            Err(error) => Err(io_fault("read", &path, &error)),
                        }
                    })
                })
                .await
            }
            Source::Web(url) => {
                let url = url.clone();
                self.fetch_web(&fetch, &url).await
            }
        }
    }

    /// Goes on with what an earlier attempt left, if the source agrees; else begins anew.
    async fn fetch_web(self: Arc<Self>, fetch: &Arc<Fetch>, url: &reqwest::Url) -> Result<(), Fault> {
        let left = {
            let (fetches, fetch, source) = (Arc::clone(&self), Arc::clone(fetch), url.to_string());
            blocking(move || Part::left(&fetches.folders, &fetch.id, &source, &fetch.pin)).await?
        };
        let Some(left) = left else { return self.stream(fetch, url, None).await };
        let bytes = left.written();
        match Arc::clone(&self).stream(fetch, url, Some(left)).await {
            // What was left may have lost bytes when the power went, before they were on the disk.
            Err(fault) if fault.code == FaultCode::BadImage => {
                tracing::warn!(image = fetch.id, bytes, %fault, "what was gone on with is wrong, begun anew");
                self.stream(fetch, url, None).await
            }
            outcome => outcome,
        }
    }

    async fn stream(
        self: Arc<Self>,
        fetch: &Arc<Fetch>,
        url: &reqwest::Url,
        left: Option<Part>,
    ) -> Result<(), Fault> {
        let go_on = left
            .as_ref()
            .and_then(|part| part.validator().map(|validator| GoOn { from: part.written(), validator }));
        let opened = match source::open_web(url, fetch.authorization.reveal(), go_on).await {
            Ok(opened) => opened,
            Err(fault) => {
                // A token that has run out, too: the next request brings another.
                if let (Some(part), FaultCode::Unavailable | FaultCode::Invalid) = (left, fault.code) {
                    part.leave();
                }
                return Err(fault);
            }
        };
        let Opened { mut response, from, length, validator } = opened;
        let (sender, mut receiver) = mpsc::channel::<Result<Bytes, Fault>>(16);
        let note = validator.map(|validator| Note::new(url.as_str(), &fetch.pin, validator));
        let stored = Arc::clone(fetch);
        let storing = tokio::spawn(blocking(move || {
            let part = match left.filter(|part| from > 0 && part.written() == from) {
                Some(part) => part,
                None => Part::begin(&self.folders, &stored.id, note)?,
            };
            let mut next = || receiver.blocking_recv().unwrap_or_else(|| Err(stopped())).map(Some);
            self.store(&stored, part, length, || next().map(|bytes| bytes.filter(|bytes| !bytes.is_empty())))
        }));
        // An empty chunk says that the body is whole; a sender that vanishes says that it is not.
        let mut pace = Pace::new();
        loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) if chunk.is_empty() => continue,
                Ok(Some(chunk)) => pace.came(chunk.len()).map(|()| chunk),
                Ok(None) => Ok(Bytes::new()),
                Err(error) => Err(source::web_fault(url, error)),
            };
            let last = chunk.as_ref().map_or(true, Bytes::is_empty);
            if sender.send(chunk).await.is_err() || last {
                break;
            }
        }
        storing.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Takes everything `next` gives, verifies and checks it, and makes it the image. A part whose stream broke
    /// off is left for the next attempt.
    fn store(
        &self,
        fetch: &Fetch,
        mut part: Part,
        length: Option<u64>,
        mut next: impl FnMut() -> Result<Option<Bytes>, Fault>,
    ) -> Result<(), Fault> {
        let total = self.announce(fetch, length)?;
        let mut grant = Grant::new(&self.folders, &fetch.id);
        grant.wrote(part.written());
        grant.raise_to(total)?;
        fetch.done_bytes.store(part.written(), Ordering::Relaxed);
        loop {
            let bytes = match next() {
                Ok(_) if self.stopping.load(Ordering::Relaxed) => Err(stopped()),
                bytes => bytes,
            };
            let bytes = match bytes {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(fault) => {
                    part.leave();
                    return Err(fault);
                }
            };
            grant.reach(bytes.len() as u64)?;
            let written = part.write(&bytes, &fetch.pin)?;
            grant.wrote(written);
            fetch.done_bytes.store(written, Ordering::Relaxed);
        }
        let file_bytes = part.verify(&fetch.pin)?;
        let virtual_bytes = images::check(part.path(), &fetch.format)?;
        let facts = Facts {
            v: 1,
            id: fetch.id.clone(),
            kind: fetch.kind.clone(),
            format: fetch.format.clone(),
            sha256: fetch.pin.sha256.clone(),
            file_bytes,
            virtual_bytes,
        };
        expand(&self.folders, &facts, part.path(), &self.stopping)?;
        images::keep(&self.folders, part.path(), &facts)
    }

    /// Settles the bytes to come, 0 while unknown.
    fn announce(&self, fetch: &Fetch, length: Option<u64>) -> Result<u64, Fault> {
        let wanted = fetch.pin.file_bytes;
        if let Some(length) = length
            && wanted != 0
            && length != wanted
        {
            let text = format!(
                "the source has {length} bytes, {wanted} were asked for; the source changed or is the wrong one"
            );
            return Err(Fault::new(FaultCode::BadImage, text));
        }
        let total = length.unwrap_or(wanted);
        fetch.total_bytes.store(total, Ordering::Relaxed);
        Ok(total)
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

fn stopped() -> Fault {
    Fault::new(FaultCode::Unavailable, "the storage sub-agent is stopping; ask again")
}

async fn blocking<R: Send + 'static>(
    act: impl FnOnce() -> Result<R, Fault> + Send + 'static,
) -> Result<R, Fault> {
    tokio::task::spawn_blocking(act).await.unwrap_or_else(|error| {
        Err(Fault::new(FaultCode::Failed, format!("the work stopped by a defect: {error}")))
    })
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing behind these locks is changed in more than one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use haar_api::rpc::ImageWant;

    use super::super::fetching::FAILURE_KEPT;
    use super::*;
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
        let fetches = Arc::new(Fetches::new(folders, vec![temp.path().to_owned()]));
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
