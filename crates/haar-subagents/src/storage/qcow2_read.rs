//! The bytes of a snapshot inside a qcow2 file: what lies plain is read from the file and its base image, what is
//! compressed or of another kind comes through `qemu-nbd`.
//!
//! A copy less and a program less on the way of every byte, and holes are not read at all. `qemu-nbd` is started
//! when the first byte needs it. Deliberately absent: chains longer than a disk and its image, for we make none.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use haar_api::image_check::read_qcow2_header;

use super::backend::{Content, Taken};
use super::buffers::Buffers;
use super::nbd::Client;
use super::qcow2_map::{Map, Run};
use super::qcow2_table;

/// How a snapshot is read.
pub(super) struct Snapshot {
    /// None when nothing of it is plain.
    plain: Option<Plain>,
    server: Server,
}

/// The tables of a disk and what lies below it.
struct Plain {
    disk: Map,
    base: Base,
}

enum Base {
    Nothing,
    Raw { file: File, size_bytes: u64 },
    Qcow2 { map: Map, size_bytes: u64 },
}

/// QEMU's own reader, started when it is needed.
struct Server {
    /// The disk as QEMU's options.
    options: String,
    /// The snapshot's name inside the file.
    name: String,
    streams: PathBuf,
    client: Option<Client>,
}

impl Snapshot {
    /// `options` and `name` are for `qemu-nbd`, whose socket is made in `streams`.
    pub(super) fn open(
        path: &Path,
        taken: &Taken,
        options: String,
        name: String,
        streams: &Path,
    ) -> io::Result<Self> {
        let server = Server { options, name, streams: streams.to_owned(), client: None };
        Ok(Snapshot { plain: Plain::open(path, taken)?, server })
    }
}

impl Content for Snapshot {
    fn read(&mut self, offset: u64, most: u64, buffers: &Buffers) -> io::Result<Bytes> {
        let Some(plain) = &mut self.plain else { return self.server.read(offset, most, buffers) };
        let (run, most) = plain.disk.run(offset, most)?;
        match run {
            Run::Data(at) => buffers.of_file(plain.disk.file(), at, most),
            Run::Zeros => Ok(buffers.zeros(most)),
            Run::Coded => self.server.read(offset, most, buffers),
            Run::Below => match plain.base.read(offset, most, buffers)? {
                Ok(bytes) => Ok(bytes),
                Err(most) => self.server.read(offset, most, buffers),
            },
        }
    }
}

impl Plain {
    fn open(path: &Path, taken: &Taken) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let unreadable = |_| io::Error::from(io::ErrorKind::InvalidData);
        let backing = read_qcow2_header(&file).map_err(unreadable)?.backing_file(&file)?;
        let Some(level1) = qcow2_table::level1(&file, taken)? else { return Ok(None) };
        let Some(disk) = Map::open(file, level1)? else { return Ok(None) };
        let base = match backing {
            None => Some(Base::Nothing),
            Some(backing) => Base::open(Path::new(&backing))?,
        };
        Ok(base.map(|base| Plain { disk, base }))
    }
}

impl Base {
    /// The image, by the ending that images are stored under. None when it is not plain.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("raw") => {
                let size_bytes = file.metadata()?.len();
                Ok(Some(Base::Raw { file, size_bytes }))
            }
            Some("qcow2") => {
                let leans = read_qcow2_header(&file).ok().and_then(|header| header.backing_file(&file).ok());
                // An image of ours leans on nothing.
                if leans != Some(None) {
                    return Ok(None);
                }
                Ok(Map::of_disk(file)?.map(|(map, size_bytes)| Base::Qcow2 { map, size_bytes }))
            }
            _ => Ok(None),
        }
    }

    /// A piece; or how many bytes are not plain.
    fn read(&mut self, offset: u64, most: u64, buffers: &Buffers) -> io::Result<Result<Bytes, u64>> {
        let size_bytes = match self {
            Base::Nothing => 0,
            Base::Raw { size_bytes, .. } | Base::Qcow2 { size_bytes, .. } => *size_bytes,
        };
        let Some(left) = size_bytes.checked_sub(offset).filter(|left| *left > 0) else {
            return Ok(Ok(buffers.zeros(most)));
        };
        let most = most.min(left);
        match self {
            Base::Nothing => Ok(Ok(buffers.zeros(most))),
            Base::Raw { file, .. } => buffers.of_file(file, offset, most).map(Ok),
            Base::Qcow2 { map, .. } => match map.run(offset, most)? {
                (Run::Data(at), most) => buffers.of_file(map.file(), at, most).map(Ok),
                (Run::Zeros | Run::Below, most) => Ok(Ok(buffers.zeros(most))),
                (Run::Coded, most) => Ok(Err(most)),
            },
        }
    }
}

impl Server {
    fn read(&mut self, offset: u64, most: u64, buffers: &Buffers) -> io::Result<Bytes> {
        if self.client.is_none() {
            let client = Client::start(&self.options, &self.name, &self.streams);
            self.client = Some(client.map_err(|fault| io::Error::other(fault.to_string()))?);
        }
        let Some(client) = &mut self.client else { return Err(io::ErrorKind::NotConnected.into()) };
        buffers.filled(most, |buffer| client.read_at(buffer, offset))
    }
}
