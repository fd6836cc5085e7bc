//! One layer: decompressed, verified by digest, and laid entry by entry.
//!
//! Promised: what is read is bounded — entries, bytes they unpack to, bytes of one entry's head — however small the
//! compressed layer is; a device is refused unless the operator allows devices; attributes that the overlay file
//! system gives a meaning to are never set. A layer that turns out wrong in the end has been laid by then: the caller
//! throws the whole folder away.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, BufReader, Read, Seek, Write as _};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use haar_api::rpc::Fault;
use nix::errno::Errno;
use rustix::fs::FileType;
use ruzstd::decoding::StreamingDecoder;
use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry, EntryType};

use super::load::Limits;
use super::oci::{Digest, bad};
use super::root::{self, Facts, Name, Root};
use super::space::{Meter, Room};
use crate::storage::folders::io_fault;

/// Bytes that the heads of one entry may take, long names and attributes included.
pub(super) const MAX_HEAD_BYTES: u64 = 1 << 20;
const COPY_BYTES: usize = 256 << 10;

/// Whether an image may bring device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Devices {
    /// It is refused.
    #[default]
    Refused,
    /// They are made.
    Made,
}

/// Lays one layer, compressed or not, into a folder of its own, as a load does for each. What is wrong with it may be
/// found only when a part of it has been laid.
///
/// # Errors
/// `bad_image` for what is unsafe or broken, `no_space` for what does not fit, `failed` when the folder cannot be used.
pub fn lay_layer(folder: &Path, layer: impl Read, limits: Limits) -> Result<Digest, Fault> {
    let mut root = Root::open(folder).map_err(|error| io_fault("open", folder, &error))?;
    lay(&mut root, layer, limits.devices, &mut limits.room())
}

/// Lays a layer, compressed or not, into the folder, and answers the digest of what it unpacked to.
///
/// # Errors
/// `bad_image` for what is unsafe or broken, `no_space` for what does not fit.
pub(super) fn lay(
    root: &mut Root,
    layer: impl Read,
    devices: Devices,
    room: &mut Room,
) -> Result<Digest, Fault> {
    let plain = decompress(layer).map_err(|error| unreadable(&error))?;
    let metered = Metered::new(plain);
    let (hash, left) = (Rc::clone(&metered.hash), metered.left());
    let mut archive = Archive::new(metered);
    let mut laying = Laying { root, devices, meter: Meter::new(room) };
    for entry in archive.entries().map_err(|error| unreadable(&error))? {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        left.set(u64::MAX);
        laying.entry(&mut entry)?;
        // Whatever of it nobody wanted; then only heads may come until the next.
        laying.skip(&mut entry)?;
        left.set(MAX_HEAD_BYTES);
    }
    left.set(MAX_HEAD_BYTES);
    // The digest is of the whole stream, also of what is behind the archive's end.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(|error| unreadable(&error))?;
    laying.root.end_layer().map_err(fault)?;
    drop(rest);
    Ok(Digest::ended(hash.take()))
}

struct Laying<'a> {
    root: &'a mut Root,
    devices: Devices,
    meter: Meter<'a>,
}

impl Laying<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Fault> {
        let kind = entry.header().entry_type();
        self.meter.entry(self.root.path())?;
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let name = Name::read(&entry.path_bytes()).map_err(fault)?;
        if let Some(hidden) = name.last().and_then(|last| last.strip_prefix(b".wh.")) {
            return self.whiteout(&entry.path_bytes(), hidden);
        }
        let facts = facts(entry)?;
        match kind {
            EntryType::Directory => self.root.folder(&name, facts).map_err(fault),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &name, facts)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                self.root.symlink(&name, &target, facts).map_err(fault)
            }
            EntryType::Link => {
                let target = Name::read(&entry.link_name_bytes().unwrap_or_default()).map_err(fault)?;
                self.root.hard_link(&name, &target).map_err(fault)
            }
            EntryType::Fifo => self.root.special(&name, FileType::Fifo, 0, facts).map_err(fault),
            EntryType::Char => self.device(entry, &name, FileType::CharacterDevice, facts),
            EntryType::Block => self.device(entry, &name, FileType::BlockDevice, facts),
            other => Err(bad(format!("the layer's entry {} is of an unknown kind {other:?}", shown(entry)))),
        }
    }

    /// `.wh.<name>` hides a name, `.wh..wh..opq` the whole folder; other names of that kind are a builder's own.
    fn whiteout(&mut self, path: &[u8], hidden: &[u8]) -> Result<(), Fault> {
        let folder = path.rsplitn(2, |byte| *byte == b'/').nth(1).unwrap_or_default();
        if hidden == b".wh..opq" {
            let folder = Name::read(folder).map_err(fault)?;
            return self.root.white_out_all(&folder).map_err(fault);
        }
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(bad("the layer has a whiteout of nothing"));
        }
        let name = [folder, b"/", hidden].concat();
        let name = Name::read(name.strip_prefix(b"/").unwrap_or(&name)).map_err(fault)?;
        self.root.white_out(&name).map_err(fault)
    }

    fn device(
        &mut self,
        entry: &Entry<'_, impl Read>,
        name: &Name,
        kind: FileType,
        facts: Facts,
    ) -> Result<(), Fault> {
        let number = |number: io::Result<Option<u32>>| number.ok().flatten().unwrap_or_default();
        let (major, minor) = (number(entry.header().device_major()), number(entry.header().device_minor()));
        // To the overlay file system this one means that a file of a lower layer is gone.
        let is_whiteout = kind == FileType::CharacterDevice && (major, minor) == (0, 0);
        if self.devices == Devices::Refused || is_whiteout {
            return Err(bad(format!("the layer's entry {} is a device, which is refused", shown(entry))));
        }
        self.root.special(name, kind, rustix::fs::makedev(major, minor), facts).map_err(fault)
    }

    fn file(&mut self, entry: &mut Entry<'_, impl Read>, name: &Name, facts: Facts) -> Result<(), Fault> {
        let attributes = attributes(entry)?;
        let mut file = self.root.file(name).map_err(fault)?;
        let size = entry.size();
        let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(size).unwrap_or(COPY_BYTES)).max(1)];
        let mut written = 0;
        loop {
            let read = entry.read(&mut buffer).map_err(|error| unreadable(&error))?;
            if read == 0 {
                break;
            }
            self.meter.bytes(self.root.path(), read as u64)?;
            file.write_all(&buffer[..read]).map_err(|error| io_fault("write", self.root.path(), &error))?;
            written += read as u64;
        }
        if written != size {
            return Err(bad(format!("the layer ends in the middle of {}", shown(entry))));
        }
        Root::finish(name, &file, facts, &attributes).map_err(fault)
    }

    fn skip(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Fault> {
        let mut buffer = [0; 4096];
        loop {
            match entry.read(&mut buffer).map_err(|error| unreadable(&error))? {
                0 => return Ok(()),
                read => self.meter.bytes(self.root.path(), read as u64)?,
            }
        }
    }
}

fn facts(entry: &Entry<'_, impl Read>) -> Result<Facts, Fault> {
    let header = entry.header();
    let wrong = || bad(format!("the layer's entry {} has a head that cannot be", shown(entry)));
    // The highest number means "leave it" to the system.
    let id = |id: io::Result<u64>| {
        id.ok().and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX).ok_or_else(wrong)
    };
    Ok(Facts {
        uid: id(header.uid())?,
        gid: id(header.gid())?,
        mode: header.mode().map_err(|_| wrong())?,
        // A time that cannot be is no reason to refuse a file.
        modified_s: header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0),
    })
}

/// Capabilities and the attributes of users; `trusted.overlay.*` would give the image power over the mount.
pub(super) fn is_kept(attribute: &str) -> bool {
    let is_known = attribute == "security.capability" || attribute.starts_with("user.");
    is_known && attribute.len() <= 255 && !attribute.contains('\0')
}

fn attributes(entry: &mut Entry<'_, impl Read>) -> Result<Vec<(String, Vec<u8>)>, Fault> {
    let mut attributes = Vec::new();
    let Some(extensions) = entry.pax_extensions().map_err(|error| unreadable(&error))? else {
        return Ok(attributes);
    };
    for extension in extensions {
        let extension = extension.map_err(|error| unreadable(&error))?;
        let Some(key) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else {
            continue;
        };
        if is_kept(key) {
            attributes.push((key.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(attributes)
}

fn shown(entry: &Entry<'_, impl Read>) -> String {
    let name: String = String::from_utf8_lossy(&entry.path_bytes()).chars().take(80).collect();
    format!("{name:?}")
}

fn unreadable(error: &io::Error) -> Fault {
    bad(format!("the layer cannot be read: {error}"))
}

fn fault(error: root::Error) -> Fault {
    match error {
        root::Error::Unsafe(why) => bad(why),
        root::Error::Io { path, source } => match source.raw_os_error().map(Errno::from_raw) {
            // What the layer itself made wrong, not this host.
            Some(Errno::ENOTDIR | Errno::EEXIST | Errno::ELOOP | Errno::ENOENT | Errno::ENAMETOOLONG) => {
                bad(format!("the layer's entry {path:?} cannot lie where it should: {source}"))
            }
            _ => io_fault("unpack", &path, &source),
        },
    }
}

/// Hashes what passes, and lets only so much pass.
pub(super) struct Metered<R> {
    inner: R,
    hash: Rc<RefCell<Sha256>>,
    left: Rc<Cell<u64>>,
}

impl<R> Metered<R> {
    /// Lets the head of one entry pass.
    pub(super) fn new(inner: R) -> Self {
        Metered { inner, hash: Rc::default(), left: Rc::new(Cell::new(MAX_HEAD_BYTES)) }
    }

    /// What may still pass; set anew by whoever knows what comes next.
    pub(super) fn left(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.left)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left.get()).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::other(
                "the head of an entry is too long, or something follows the archive",
            ));
        }
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        self.hash.borrow_mut().update(&buffer[..read]);
        Ok(read)
    }
}

/// gzip, zstd or neither: the first bytes say it, whatever the manifest calls it.
pub(super) fn decompress<'a>(layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut layer = BufReader::with_capacity(COPY_BYTES, layer);
    let head = layer.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(layer)));
    }
    let is_zstd = head.starts_with(&ZSTD) || (head.len() >= 4 && is_skippable(&head[..4]));
    Ok(if is_zstd { Box::new(Zstd::Between(layer)) } else { Box::new(layer) })
}

const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

fn is_skippable(magic: &[u8]) -> bool {
    magic[0] & 0xf0 == 0x50 && magic[1..] == [0x2a, 0x4d, 0x18]
}

type Headed<R> = io::Chain<io::Cursor<[u8; 4]>, R>;

/// The frames of a zstd stream, one after the other; the decoder itself knows one only.
enum Zstd<R: Read> {
    Between(R),
    Inside(Box<StreamingDecoder<Headed<R>, ruzstd::decoding::FrameDecoder>>),
    Ended,
}

impl<R: Read> Zstd<R> {
    /// Goes on to the next frame.
    fn enter(mut source: R) -> io::Result<Zstd<R>> {
        loop {
            let mut magic = [0; 4];
            match source.read(&mut magic[..1])? {
                0 => return Ok(Zstd::Ended),
                _ => source.read_exact(&mut magic[1..])?,
            }
            if !is_skippable(&magic) {
                let headed = io::Cursor::new(magic).chain(source);
                let decoder = StreamingDecoder::new(headed).map_err(io::Error::other)?;
                return Ok(Zstd::Inside(Box::new(decoder)));
            }
            let mut length = [0; 4];
            source.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            if io::copy(&mut source.by_ref().take(length), &mut io::sink())? != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, Zstd::Ended) {
                Zstd::Ended => return Ok(0),
                Zstd::Between(source) => *self = Zstd::enter(source)?,
                Zstd::Inside(mut decoder) => {
                    let read = decoder.read(buffer)?;
                    if read > 0 || buffer.is_empty() {
                        *self = Zstd::Inside(decoder);
                        return Ok(read);
                    }
                    *self = Zstd::Between(decoder.into_inner().into_inner().1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
