//! How an image comes: from a file or the web, or by an earlier coming of its own; verified, checked, and kept.
//!
//! Promised: an image appears only whole, verified and checked. A stream that broke off is gone on with by the next
//! request, where its source gives parts ([`Part`]). Whoever is told to end leaves nothing that it still works on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use haar_api::rpc::{Fault, FaultCode};
use tokio::sync::mpsc;

use super::expand::expand;
use super::fetch::{Fetches, blocking, stopped};
use super::fetching::Fetch;
use super::folders::io_fault;
use super::images::{self, Facts};
use super::part::{Note, Part, Pin};
use super::reach::Pace;
use super::source::{self, GoOn, Opened, Source};
use super::space::Grant;
use super::unpacked::{self, Unpacked};

const READ_BYTES: usize = 1 << 20;

impl Fetches {
    /// Brings an image, from wherever it is.
    pub(super) async fn fetch(self: Arc<Self>, fetch: Arc<Fetch>) -> Result<(), Fault> {
        let Some(source) = &fetch.source else {
            return blocking(move || {
                let facts = images::require(&self.folders, &fetch.id)?;
                let from = self.folders.image(&facts.id, &facts.format);
                expand(&self.folders, &facts, &from, &|| self.check(&fetch))
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
        let opened = tokio::select! {
            opened = source::open_web(url, fetch.authorization.reveal(), fetch.pin.is_known(), go_on) => opened,
            fault = fetch.cancelled() => Err(fault),
        };
        let opened = match opened {
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
        // What is unpacked as it comes cannot be gone on with.
        let validator = validator.filter(|_| fetch.pin.is_known());
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
        let mut pace = Pace::default();
        loop {
            let begun = Instant::now();
            let came = tokio::select! {
                came = response.chunk() => came.map_err(|error| source::web_fault(url, error)),
                fault = fetch.cancelled() => Err(fault),
            };
            let chunk = match came {
                Ok(Some(chunk)) if chunk.is_empty() => continue,
                Ok(Some(chunk)) => {
                    pace.came(chunk.len() as u64);
                    pace.waited(begun.elapsed()).map(|()| chunk)
                }
                Ok(None) => Ok(Bytes::new()),
                Err(fault) => Err(fault),
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
    pub(super) fn store(
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
        let mut unpacked = Unpacked::default();
        loop {
            let came = if fetch.pin.is_known() { next() } else { unpacked.next(&mut next) };
            let came = came.and_then(|bytes| self.check(fetch).map(|()| bytes));
            let bytes = match came {
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
        let Pin { sha256, file_bytes } = part.verify(&fetch.pin)?;
        let format = match fetch.format.as_str() {
            "" => unpacked::format(part.path())?.to_owned(),
            format => format.to_owned(),
        };
        let virtual_bytes = images::check(part.path(), &format)?;
        let (id, kind) = (fetch.id.clone(), fetch.kind.clone());
        let facts = Facts { v: 1, id, kind, format, sha256, file_bytes, virtual_bytes };
        expand(&self.folders, &facts, part.path(), &|| self.check(fetch))?;
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
