//! Contents of files, from here to a server and back.
//!
//! Promises: many requests are on their way at a time, so that neither end waits for the other; memory is
//! bounded by their number; a file appears under its name when it is complete, or not at all. Deliberately
//! absent: going on with a transfer that broke off.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use super::draft::Draft;
use super::part::Part;
use super::sftp::Sftp;
use crate::{Error, Result};

/// How many bytes may be on their way, each way.
const FLYING: usize = 4 << 20;
/// How many pieces may lie between the disk and the network.
const PIECES: usize = 4;

/// How many requests of a length may be on their way.
fn at_a_time(length: usize) -> usize {
    (FLYING / length.max(1)).clamp(1, 128)
}

/// Copies a local file to the server, with other permissions than its own if `mode` tells some.
pub(super) async fn upload(sftp: &Arc<Sftp>, local: &Path, remote: &str, mode: Option<u32>) -> Result<()> {
    let (file, own_mode) = open(local).await?;
    let draft = Draft::begin(sftp, remote, mode.unwrap_or(own_mode)).await?;
    let mut pieces = read_pieces(file, sftp.write_length);
    let pieces = stream::poll_fn(move |context| pieces.poll_recv(context));
    let pieces = pieces.map(|piece| piece.map_err(|error| Error::local("read", local, error)));
    send(sftp, remote, draft.handle(), pieces).await?;
    draft.finish().await
}

/// Writes bytes to a file on the server.
pub(super) async fn write(sftp: &Arc<Sftp>, remote: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let draft = Draft::begin(sftp, remote, mode).await?;
    let begins = (0..bytes.len()).step_by(sftp.write_length);
    let pieces = stream::iter(begins.map(|begin| {
        let end = bytes.len().min(begin + sftp.write_length);
        Ok(bytes[begin..end].to_vec())
    }));
    send(sftp, remote, draft.handle(), pieces).await?;
    draft.finish().await
}

async fn send(
    sftp: &Sftp,
    remote: &str,
    handle: &str,
    pieces: impl Stream<Item = Result<Vec<u8>>>,
) -> Result<()> {
    let mut offset = 0;
    let writes = pieces.map(|piece| {
        let begin = offset;
        offset += piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
        async move {
            let written = sftp.raw.write(handle, begin, piece?).await;
            written.map(drop).map_err(|error| sftp.fault("write", remote, error))
        }
    });
    let mut writes = std::pin::pin!(writes.buffer_unordered(at_a_time(sftp.write_length)));
    while let Some(()) = writes.try_next().await? {}
    Ok(())
}

/// Copies a file of the server to this machine.
pub(super) async fn download(sftp: &Sftp, remote: &str, local: &Path) -> Result<()> {
    if local.is_dir() {
        return Err(Error::IsDirectory { path: local.display().to_string() });
    }
    let fault = |error| sftp.fault("read", remote, error);
    let opened = sftp.raw.open(remote, OpenFlags::READ, FileAttributes::default()).await;
    let handle = opened.map_err(fault)?.handle;
    let outcome = receive(sftp, remote, &handle, local).await;
    sftp.close(&handle).await;
    outcome
}

async fn receive(sftp: &Sftp, remote: &str, handle: &str, local: &Path) -> Result<()> {
    let fault = |error| sftp.fault("read", remote, error);
    let attributes = sftp.raw.fstat(handle).await.map_err(fault)?.attrs;
    if attributes.is_dir() {
        return Err(Error::IsDirectory { path: remote.to_owned() });
    }
    let size = attributes.size.unwrap_or(0);
    let here = |error| Error::local("write", local, error);
    let (part, file) = Part::begin(local).map_err(here)?;
    let (sink, writer) = write_pieces(file);

    let step = sftp.read_length as usize;
    let pieces = stream::iter((0..size).step_by(step)).map(|offset| read_piece(sftp, handle, offset));
    let mut pieces = std::pin::pin!(pieces.buffered(at_a_time(step)));
    let mut offset = 0;
    while let Some(piece) = pieces.try_next().await.map_err(fault)? {
        let length = piece.len();
        offset += length as u64;
        // A writer that is gone has a reason, which it gives below. A short piece is the end of the file.
        if sink.send(piece).await.is_err() || length < step {
            break;
        }
    }
    // A file that grew, or one of those that tell no size.
    while offset >= size {
        let piece = read_piece(sftp, handle, offset).await.map_err(fault)?;
        offset += piece.len() as u64;
        if piece.is_empty() || sink.send(piece).await.is_err() {
            break;
        }
    }
    drop(sink);
    writer.await.expect("writing a file does not panic, and nobody aborts it").map_err(here)?;
    part.finish().map_err(here)
}

/// Reads one piece in full, unless the file ends before.
async fn read_piece(sftp: &Sftp, handle: &str, offset: u64) -> Result<Vec<u8>, SftpError> {
    let mut bytes = Vec::new();
    while bytes.len() < sftp.read_length as usize {
        let wanted = sftp.read_length - bytes.len() as u32;
        match sftp.raw.read(handle, offset + bytes.len() as u64, wanted).await {
            Ok(data) if bytes.is_empty() => bytes = data.data,
            Ok(data) if data.data.is_empty() => break,
            Ok(data) => bytes.extend_from_slice(&data.data),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => break,
            Err(error) => return Err(error),
        }
        if bytes.is_empty() {
            break;
        }
    }
    Ok(bytes)
}

/// Opens a local file that can be copied, and tells its permissions.
async fn open(local: &Path) -> Result<(File, u32)> {
    let path = local.to_owned();
    let opened = spawn_blocking(move || {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        io::Result::Ok((file, metadata))
    });
    let opened = opened.await.expect("opening a file does not panic, and nobody aborts it");
    let (file, metadata) = opened.map_err(|error| Error::local("read", local, error))?;
    if metadata.is_dir() {
        return Err(Error::IsDirectory { path: local.display().to_string() });
    }
    if !metadata.is_file() {
        let why = "it is no regular file".to_owned();
        return Err(Error::BadInput { what: "file to upload", value: local.display().to_string(), why });
    }
    Ok((file, metadata.mode()))
}

/// Reads a file in a thread for such work; ends when nobody takes the pieces any more.
fn read_pieces(mut file: File, length: usize) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sink, pieces) = mpsc::channel(PIECES);
    spawn_blocking(move || {
        loop {
            let mut piece = Vec::with_capacity(length);
            let piece = match Read::by_ref(&mut file).take(length as u64).read_to_end(&mut piece) {
                Ok(0) => return,
                Ok(_) => Ok(piece),
                Err(error) => Err(error),
            };
            let is_last = piece.is_err();
            if sink.blocking_send(piece).is_err() || is_last {
                return;
            }
        }
    });
    pieces
}

/// Writes a file in a thread for such work, until the sender is dropped.
fn write_pieces(mut file: File) -> (mpsc::Sender<Vec<u8>>, JoinHandle<io::Result<()>>) {
    let (sink, mut pieces) = mpsc::channel::<Vec<u8>>(PIECES);
    let writer = spawn_blocking(move || {
        while let Some(piece) = pieces.blocking_recv() {
            file.write_all(&piece)?;
        }
        Ok(())
    });
    (sink, writer)
}
