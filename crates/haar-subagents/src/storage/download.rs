//! `POST /snapshots/download`: a snapshot's bytes as a stream, resumable by `Range` (`mistify-wire` §2.7, §2.12).
//!
//! | snapshot | what comes |
//! | --- | --- |
//! | of one disk | the disk as raw bytes, whatever the back end, as long as it was |
//! | of a guest | a tar archive of `disk-<n>.raw` |
//!
//! Promised: the length is told before the first byte; the same snapshot gives the same bytes, and its `ETag`
//! tells it from another of the same name, so that what broke off goes on with `Range` and `If-Range`; what is
//! being read is not deleted meanwhile. Holes come as zeros. Deliberately absent: several ranges in one answer,
//! compression.

use std::convert::Infallible;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use haar_api::rpc::{Fault, FaultCode, SnapshotRequest};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::backend::Content;
use super::buffers::{Buffers, PIECE_BYTES};
use super::folders::Folders;
use super::methods::{Store, off_reactor};
use super::names::disk_name;
use super::readers::Reading;
use super::snapshots;
use super::tar;

/// Where the seed's agent asks (§2.4).
pub(super) const PATH: &str = "/snapshots/download";

const MAX_BODY_BYTES: usize = 64 << 10;
/// How long a request may take to come.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// Downloads at once: each keeps a thread.
const MAX_RUNNING: usize = 16;
/// Pieces read ahead.
const AHEAD: usize = 4;
/// How long a client may take nothing.
const STALL_LIMIT: Duration = Duration::from_secs(300);

/// The handler.
pub(super) fn route(store: &Arc<Store>) -> MethodRouter<(), Infallible> {
    let (store, running) = (Arc::clone(store), Arc::new(Semaphore::new(MAX_RUNNING)));
    post(move |request: Request| {
        let (store, running) = (Arc::clone(&store), Arc::clone(&running));
        async move { answer(&store, running, request).await.unwrap_or_else(|fault| refused(&fault)) }
    })
}

async fn answer(store: &Arc<Store>, running: Arc<Semaphore>, request: Request) -> Result<Response, Fault> {
    let (head, body) = request.into_parts();
    let wanted = read_request(body).await?;
    let turn = store.turn_of(&wanted.id).await;
    // Not before: whoever sends nothing, or waits, takes nobody's place.
    let permit = running.try_acquire_owned().map_err(|_| {
        let text = format!("{MAX_RUNNING} snapshots are being downloaded already; ask again later");
        Fault::new(FaultCode::Unavailable, text)
    })?;
    let shared = Arc::clone(store);
    let archive = off_reactor(move || {
        let _turn = turn;
        Archive::open(shared.folders(), shared.cloud(), &wanted.id)
    })
    .await?;
    Ok(respond(&head.headers, archive, permit).await)
}

async fn read_request(body: Body) -> Result<SnapshotRequest, Fault> {
    let reading = tokio::time::timeout(BODY_LIMIT, Limited::new(body, MAX_BODY_BYTES).collect());
    let slow = |_| invalid(format!("the body did not come within {} s", BODY_LIMIT.as_secs()));
    let body = reading.await.map_err(slow)?;
    let body = body.map_err(|error| invalid(format!("the body cannot be read: {error}")))?.to_bytes();
    let unreadable = |error| invalid(format!("the body is no snapshot request: {error}"));
    // An object and nothing else: a list would be read as the fields in their order.
    let object: serde_json::Map<String, Value> = serde_json::from_slice(&body).map_err(unreadable)?;
    let wanted: SnapshotRequest = serde_json::from_value(Value::Object(object)).map_err(unreadable)?;
    if wanted.id.is_empty() {
        return Err(invalid("the body names no snapshot: id is missing".to_owned()));
    }
    Ok(wanted)
}

async fn respond(headers: &HeaderMap, archive: Archive, permit: OwnedSemaphorePermit) -> Response {
    let length = archive.length();
    let etag = HeaderValue::from_str(&archive.etag).expect("hex digits in quotes are a header value");
    let same = headers.get(header::IF_RANGE).is_none_or(|known| *known == etag);
    let asked = headers.get(header::RANGE).filter(|_| same).and_then(|range| range.to_str().ok());
    let (status, range) = match asked.map_or(Asked::Everything, |range| parse_range(range, length)) {
        Asked::Everything => (StatusCode::OK, 0..length),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, 0..0),
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(header::ETAG, etag);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let place = match status {
        StatusCode::PARTIAL_CONTENT => format!("bytes {}-{}/{length}", range.start, range.end - 1),
        StatusCode::RANGE_NOT_SATISFIABLE => format!("bytes */{length}"),
        _ => String::new(),
    };
    if let (false, Ok(place)) = (place.is_empty(), HeaderValue::from_str(&place)) {
        fields.insert(header::CONTENT_RANGE, place);
    }
    if range.is_empty() {
        // Closing it may take a program.
        drop(tokio::task::spawn_blocking(move || drop(archive)).await);
    } else {
        *response.body_mut() = Body::new(stream(archive, range, permit));
    }
    response
}

/// What of the bytes is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Everything,
    Part(Range<u64>),
    Nothing,
}

/// One range is honoured; what is none, or several, asks for everything, as the protocol allows.
fn parse_range(text: &str, length: u64) -> Asked {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Asked::Everything;
    };
    let range = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..length.min(last.saturating_add(1)),
        (Ok(first), Err(_)) if last.trim().is_empty() => first..length,
        (Err(_), Ok(last)) if first.trim().is_empty() => length.saturating_sub(last)..length,
        _ => return Asked::Everything,
    };
    if range.is_empty() { Asked::Nothing } else { Asked::Part(range) }
}

/// What is sent, piece by piece of several kinds.
struct Archive {
    parts: Vec<(u64, Part)>,
    etag: String,
    buffers: Buffers,
    _reading: Vec<Reading>,
}

enum Part {
    Bytes(Vec<u8>),
    Disk(Box<dyn Content>),
    Zeros,
}

impl Archive {
    fn open(folders: &Folders, cloud: &str, id: &str) -> Result<Self, Fault> {
        let (dataset, name) = snapshots::parse(id)?;
        let disks = snapshots::look(folders, cloud, &dataset)?;
        let taken = snapshots::find_all(id, &name, &disks)?;
        let of_guest = matches!(dataset, super::names::Dataset::Guest(_));
        let (mut parts, mut reading, mut hash) = (Vec::new(), Vec::new(), Sha256::new());
        for (disk, taken) in disks.iter().zip(taken) {
            let (found, size) = (&disk.found, taken.size_bytes);
            let content = found.volumes.open(&found.spot, taken, &folders.streams())?;
            hash.update(format!("{}@{name} {} {size}\n", found.volume(), taken.identity));
            reading.push(folders.readers().begin(format!("{}@{name}", found.volume())));
            if of_guest {
                let head = tar::head(&format!("{}.raw", disk_name(found.spot.index)), size, taken.created_s);
                parts.push((head.len() as u64, Part::Bytes(head)));
            }
            parts.push((size, Part::Disk(content)));
            if of_guest {
                parts.push((tar::padding(size), Part::Zeros));
            }
        }
        if of_guest {
            parts.push((tar::END, Part::Zeros));
        }
        let etag = format!("\"{}\"", hex::encode(&hash.finalize()[..16]));
        Ok(Archive { parts, etag, buffers: Buffers::new(), _reading: reading })
    }

    fn length(&self) -> u64 {
        self.parts.iter().map(|(length, _)| length).sum()
    }

    /// The next bytes from this offset, at most `most`, which lie inside.
    fn read(&mut self, offset: u64, most: u64) -> io::Result<Bytes> {
        let mut begin = 0;
        for (length, part) in &mut self.parts {
            let end = begin + *length;
            if (begin..end).contains(&offset) {
                let most = most.min(end - offset).min(PIECE_BYTES as u64);
                return part.read(offset - begin, most, &self.buffers);
            }
            begin = end;
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

impl Part {
    fn read(&mut self, offset: u64, most: u64, buffers: &Buffers) -> io::Result<Bytes> {
        match self {
            Part::Bytes(bytes) => {
                let at = usize::try_from(offset).unwrap_or(usize::MAX);
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                let bytes = bytes.get(at..).and_then(|bytes| bytes.get(..most));
                Ok(Bytes::copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?))
            }
            Part::Disk(content) => content.read(offset, most, buffers),
            Part::Zeros => Ok(buffers.zeros(most)),
        }
    }
}

/// A body that a thread reads ahead of, a little.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.receiver.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

fn stream(mut archive: Archive, range: Range<u64>, permit: OwnedSemaphorePermit) -> Pieces {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let send = |piece| {
            let sending = async { tokio::time::timeout(STALL_LIMIT, sender.send(piece)).await };
            matches!(Handle::current().block_on(sending), Ok(Ok(())))
        };
        let mut offset = range.start;
        loop {
            let read = archive.read(offset, range.end - offset);
            if let Err(error) = &read {
                tracing::error!(%error, "a snapshot cannot be read to its end");
            }
            offset = read.as_ref().map_or(range.end, |piece| offset + piece.len() as u64);
            if offset >= range.end {
                // Whoever has had the last byte finds the snapshot free again. A body that ends in an error is
                // cut, and the client sees that bytes are missing.
                drop(archive);
                send(read);
                return;
            }
            if !send(read) {
                return;
            }
        }
    });
    Pieces { receiver }
}

/// A fault as a status and text; also that of an upload.
pub(super) fn refused(fault: &Fault) -> Response {
    let status = match fault.code {
        FaultCode::Invalid | FaultCode::BadImage => StatusCode::BAD_REQUEST,
        FaultCode::NotFound => StatusCode::NOT_FOUND,
        FaultCode::Conflict => StatusCode::CONFLICT,
        FaultCode::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        FaultCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        FaultCode::Lost | FaultCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = Response::new(Body::from(format!("{fault}\n")));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn invalid(text: String) -> Fault {
    Fault::new(FaultCode::Invalid, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_honoured() {
        for (text, asked) in [
            ("bytes=0-", Asked::Part(0..100)),
            ("bytes=10-19", Asked::Part(10..20)),
            ("bytes=90-1000", Asked::Part(90..100)),
            ("bytes=-30", Asked::Part(70..100)),
            ("bytes=-1000", Asked::Part(0..100)),
            ("bytes=100-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=18446744073709551615-18446744073709551615", Asked::Nothing),
            ("bytes=20-10", Asked::Everything),
            ("bytes=0-1,5-6", Asked::Everything),
            ("lines=0-", Asked::Everything),
            ("bytes=x-", Asked::Everything),
        ] {
            assert_eq!(parse_range(text, 100), asked, "{text}");
        }
    }
}
