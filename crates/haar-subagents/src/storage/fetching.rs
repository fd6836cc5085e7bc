//! One fetch: what is wanted, from where, how far it is, and how that is told.

use std::sync::atomic::{AtomicU64, Ordering};

use haar_api::rpc::{Fault, FaultCode, Image, ImageExtra, ImageRequest, ImageService, ImageWant};
use tokio::sync::watch;

use super::images::Facts;
use super::part::Pin;
use super::source::{self, Source};
use crate::arrival::Arrival;

#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) id: String,
    pub(super) kind: String,
    /// `qcow2` or `raw`; empty while it is to be found out.
    pub(super) format: String,
    pub(super) pin: Pin,
    /// None for an upload, and for an image that is stored and only misses its raw file.
    pub(super) source: Option<Source>,
    pub(super) authorization: Secret,
    pub(super) done_bytes: AtomicU64,
    /// 0 while unknown.
    pub(super) total_bytes: AtomicU64,
    pub(super) arrival: Arrival,
    /// Whether it shall end.
    deleted: watch::Sender<bool>,
}

/// A header value that no log shows.
pub(crate) struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Secret {
    /// Keeps a value from every log.
    pub(crate) fn new(value: String) -> Self {
        Secret(value)
    }

    /// The header's value.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl AsRef<Arrival> for Fetch {
    fn as_ref(&self) -> &Arrival {
        &self.arrival
    }
}

impl Fetch {
    pub(super) fn read(request: &ImageRequest, service: Option<&ImageService>) -> Result<Self, Fault> {
        if let (None, "", Some(service)) = (&request.haar, request.source.as_str(), service) {
            let source = source::parse(&service.download(&request.id))?;
            return Ok(Fetch { source: Some(source), ..Self::new(request, &ImageWant::default()) });
        }
        let source = source::parse(&request.source);
        let fetch = Self::of_upload(request)?;
        Ok(Fetch { source: Some(source?), ..fetch })
    }

    /// Of an image whose bytes the caller brings.
    pub(super) fn of_upload(request: &ImageRequest) -> Result<Self, Fault> {
        let invalid = |text: &str| Fault::new(FaultCode::Invalid, text);
        let want = request.haar.as_ref().ok_or_else(|| {
            invalid(
                "the image is not stored and the request names no format and SHA-256 to verify it by; by its id alone \
                 an image comes only where an image service is configured",
            )
        })?;
        if !matches!(want.format.as_str(), "qcow2" | "raw") {
            return Err(invalid("the image's format must be qcow2 or raw"));
        }
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if want.sha256.len() != 64 || !want.sha256.bytes().all(lower_hex) {
            return Err(invalid("the image's sha256 must be 64 lower-case hex digits"));
        }
        Ok(Self::new(request, want))
    }

    fn new(request: &ImageRequest, want: &ImageWant) -> Self {
        Fetch {
            id: request.id.clone(),
            kind: if request.kind.is_empty() { "kvm".to_owned() } else { request.kind.clone() },
            format: want.format.clone(),
            pin: Pin { sha256: want.sha256.clone(), file_bytes: want.file_bytes },
            source: None,
            authorization: Secret::new(want.authorization.clone()),
            done_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(want.file_bytes),
            arrival: Arrival::new(),
            deleted: watch::Sender::new(false),
        }
    }

    /// Of an image that came before the back end was chosen.
    pub(super) fn again(facts: &Facts) -> Self {
        Fetch {
            id: facts.id.clone(),
            kind: facts.kind.clone(),
            format: facts.format.clone(),
            pin: Pin { sha256: facts.sha256.clone(), file_bytes: facts.file_bytes },
            source: None,
            authorization: Secret::new(String::new()),
            done_bytes: AtomicU64::new(facts.file_bytes),
            total_bytes: AtomicU64::new(facts.file_bytes),
            arrival: Arrival::new(),
            deleted: watch::Sender::new(false),
        }
    }

    /// Has it end soon, wherever it is.
    pub(super) fn cancel(&self) {
        self.deleted.send_replace(true);
    }

    /// Refuses to go on when it was told to end.
    pub(super) fn check(&self) -> Result<(), Fault> {
        if *self.deleted.borrow() { Err(deleted()) } else { Ok(()) }
    }

    /// Waits until it is told to end, and answers why.
    pub(super) async fn cancelled(&self) -> Fault {
        // Its other end is here: it is not dropped meanwhile.
        let _ = self.deleted.subscribe().wait_for(|deleted| *deleted).await;
        deleted()
    }

    pub(super) fn to_wire(&self) -> Image {
        let (status, error) = self.arrival.words();
        Image {
            id: self.id.clone(),
            kind: self.kind.clone(),
            status: status.to_owned(),
            haar: Some(ImageExtra {
                format: self.format.clone(),
                sha256: self.pin.sha256.clone(),
                file_bytes: self.total_bytes.load(Ordering::Relaxed),
                virtual_bytes: 0,
                done_bytes: self.done_bytes.load(Ordering::Relaxed),
                error,
            }),
            ..Image::default()
        }
    }
}

fn deleted() -> Fault {
    Fault::new(FaultCode::Unavailable, "the image was deleted before it was whole")
}

/// An image's id stands for one content; a request without wishes takes what is there.
pub(super) fn check_same(request: &ImageRequest, sha256: &str, format: &str) -> Result<(), Fault> {
    let Some(want) = &request.haar else { return Ok(()) };
    if sha256.is_empty() {
        let text = format!("image {} comes from the image service just now; ask again then", request.id);
        return Err(Fault::new(FaultCode::Conflict, text));
    }
    if want.sha256 == sha256 && want.format == format {
        return Ok(());
    }
    let text = format!(
        "image {} is here as {format} with SHA-256 {sha256}, {} with {} was asked for; use another id",
        request.id, want.format, want.sha256
    );
    Err(Fault::new(FaultCode::Conflict, text))
}
