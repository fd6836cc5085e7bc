//! The files of a container as they are now, copied into the folder of an image; before that, those of its own alone, to
//! be laid above its image's again.
//!
//! Promised: the copy has what a layer could bring — folders, files with their holes, symlinks, hard links, FIFOs, their
//! owners, modes, times and those attributes that layers may have — and nothing else: no socket, no device unless the
//! operator allows them, nothing that is mounted there. It is bounded as a load is, and what is remembered of it is small.
//! Deliberately absent: seeing to it that nobody changes the files meanwhile.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use haar_api::rpc::Fault;
use rustix::fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags, SeekFrom};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::layer::{self, Devices};
use super::oci::{Digest, bad};
use super::progress::Progress;
use super::root::{self, Facts, Name, Root};
use super::space::{Meter, Room};
use crate::storage::folders::io_fault;

const COPY_BYTES: usize = 256 << 10;
/// The kernel has no longer attributes, nor longer lists of them.
const MAX_ATTRIBUTE_BYTES: usize = 64 << 10;
/// With these the overlay file system says of an entry what of it lies below.
const MARKS: [&str; 3] = ["trusted.overlay.opaque", "trusted.overlay.redirect", "trusted.overlay.metacopy"];
/// Names of files that are remembered for their other names; beyond that, another name is a file of its own.
const MAX_LINK_BYTES: usize = 64 << 20;

/// Copies all that lies in one folder into another, which is empty. Answers a digest of all that was copied.
///
/// # Errors
/// `bad_image` for more than an image may have, `no_space` for what does not fit, `failed` for what cannot be read.
pub(super) fn copy_tree(
    from: &Path,
    to: &Path,
    devices: Devices,
    room: &mut Room,
    progress: &Progress,
) -> Result<Digest, Fault> {
    copy(What::Tree, from, to, devices, room, progress)
}

/// Copies what an overlay keeps above its image, to be laid above that again: with its marks of what is gone, and with
/// one in the place of what no copy has. A file shares its bytes with the copy where the file system can do that.
///
/// # Errors
/// As [`copy_tree`].
pub(super) fn copy_upper(
    from: &Path,
    to: &Path,
    devices: Devices,
    room: &mut Room,
    progress: &Progress,
) -> Result<(), Fault> {
    copy(What::Upper, from, to, devices, room, progress).map(drop)
}

/// What is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Files as their users see them.
    Tree,
    /// An overlay's upper folder. It is not counted as progress, and has no digest.
    Upper,
}

impl What {
    /// Whether the copy has this attribute.
    fn keeps(self, attribute: &str) -> bool {
        layer::is_kept(attribute) || (self == What::Upper && MARKS.contains(&attribute))
    }
}

fn copy(
    what: What,
    from: &Path,
    to: &Path,
    devices: Devices,
    room: &mut Room,
    progress: &Progress,
) -> Result<Digest, Fault> {
    let unreadable = |error| io_fault("read", from, &error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = fs::open(from, flags, Mode::empty()).map_err(|error| unreadable(error.into()))?;
    let top = File::from(top);
    let facts = facts_of(&top.metadata().map_err(unreadable)?);
    let mut copying = Copying {
        what,
        from,
        root: Root::open(to).map_err(|error| io_fault("open", to, &error))?,
        devices,
        meter: Meter::new(room),
        progress,
        hash: Sha256::new(),
        links: HashMap::new(),
        links_bytes: 0,
        buffer: vec![0; COPY_BYTES],
    };
    copying.note(Kind::Folder, b"", facts, b"");
    copying.root.folder(&Name::read(b"").map_err(fault)?, facts).map_err(fault)?;
    copying.inside(&top, &mut Vec::new())?;
    copying.root.end_layer().map_err(fault)?;
    Ok(Digest::ended(copying.hash))
}

/// What an entry is, for the digest.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Kind {
    Folder = b'd',
    File = b'f',
    Symlink = b'l',
    Link = b'h',
    Special = b's',
}

struct Copying<'a> {
    what: What,
    from: &'a Path,
    root: Root,
    devices: Devices,
    meter: Meter<'a>,
    progress: &'a Progress,
    hash: Sha256,
    /// Files with several names, by device and inode: the first that was met.
    links: HashMap<(u64, u64), Vec<u8>>,
    links_bytes: usize,
    buffer: Vec<u8>,
}

impl Copying<'_> {
    /// Copies what lies in the folder of this name. Calls itself as deep as names may be, which is bounded.
    fn inside(&mut self, folder: &File, path: &mut Vec<u8>) -> Result<(), Fault> {
        for entry in Dir::read_from(folder).map_err(|error| self.unreadable(path, error))? {
            let entry = entry.map_err(|error| self.unreadable(path, error))?;
            let last = entry.file_name();
            if matches!(last.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(last.to_bytes());
            self.entry(folder, last, path)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, folder: &File, last: &CStr, path: &mut Vec<u8>) -> Result<(), Fault> {
        self.progress.check()?;
        self.meter.entry(self.root.path())?;
        let name = Name::read(path).map_err(fault)?;
        let found = self.open(folder, last, path, OFlags::PATH)?;
        let metadata = found.metadata().map_err(|error| self.unreadable(path, error))?;
        let (kind, facts) = (metadata.file_type(), facts_of(&metadata));
        if kind.is_dir() {
            let inner = self.open(folder, last, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            self.note(Kind::Folder, path, facts, b"");
            self.root.folder(&name, facts).map_err(fault)?;
            if self.what == What::Upper {
                let marks = self.attributes(&inner).map_err(|error| self.unreadable(path, error))?;
                self.root.mark(&name, &marks).map_err(fault)?;
            }
            return self.inside(&inner, path);
        }
        if kind.is_file() {
            let file = self.open(folder, last, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
            return self.file(&file, path, &name);
        }
        if kind.is_symlink() {
            let target = fs::readlinkat(folder, last, Vec::new());
            let target = target.map_err(|error| self.unreadable(path, error))?;
            self.note(Kind::Symlink, path, facts, target.to_bytes());
            return self.root.symlink(&name, target.to_bytes(), facts).map_err(fault);
        }
        let Some((kind, device)) = self.special(&metadata) else { return Ok(()) };
        self.note(Kind::Special, path, facts, &device.to_le_bytes());
        self.root.special(&name, kind, device, facts).map_err(fault)
    }

    /// What is made of that which is neither file nor folder nor link; none when it is left out.
    fn special(&self, metadata: &Metadata) -> Option<(FileType, u64)> {
        let (kind, device) = (metadata.file_type(), metadata.rdev());
        if kind.is_fifo() {
            return Some((FileType::Fifo, 0));
        }
        let kind = match (kind.is_char_device(), kind.is_block_device()) {
            (true, _) => Some(FileType::CharacterDevice),
            (_, true) => Some(FileType::BlockDevice),
            _ => None,
        };
        // To the overlay file system the device without a number means that a file is gone.
        let made = kind.filter(|_| self.devices == Devices::Made && device != 0).map(|kind| (kind, device));
        // What is left out still hides what lies below it.
        made.or((self.what == What::Upper).then_some((FileType::CharacterDevice, 0)))
    }

    fn file(&mut self, from: &File, path: &[u8], name: &Name) -> Result<(), Fault> {
        let metadata = from.metadata().map_err(|error| self.unreadable(path, error))?;
        let (inode, facts) = ((metadata.dev(), metadata.ino()), facts_of(&metadata));
        if let Some(first) = self.links.get(&inode).cloned() {
            self.note(Kind::Link, path, facts, &first);
            return self.root.hard_link(name, &Name::read(&first).map_err(fault)?).map_err(fault);
        }
        let attributes = self.attributes(from).map_err(|error| self.unreadable(path, error))?;
        self.note(Kind::File, path, facts, &metadata.len().to_le_bytes());
        for (key, value) in &attributes {
            self.piece(key.as_bytes());
            self.piece(value);
        }
        let into = self.root.file(name).map_err(fault)?;
        self.fill(from, &into, metadata.len(), path)?;
        Root::finish(name, &into, facts, &attributes).map_err(fault)?;
        if metadata.nlink() > 1 && self.links_bytes + path.len() <= MAX_LINK_BYTES {
            self.links_bytes += path.len();
            self.links.insert(inode, path.to_vec());
        }
        Ok(())
    }

    /// Copies what a file holds. Holes stay holes: the container has them without the room for what they seem to hold.
    fn fill(&mut self, from: &File, into: &File, length: u64, path: &[u8]) -> Result<(), Fault> {
        if self.what == What::Upper && fs::ioctl_ficlone(into, from).is_ok() {
            return Ok(());
        }
        let mut at = 0;
        while let Some((begin, end)) = data_from(from, at).map_err(|error| self.unreadable(path, error))? {
            self.piece(&begin.to_le_bytes());
            at = begin;
            while at < end {
                self.progress.check()?;
                let most = COPY_BYTES.min(usize::try_from(end - at).unwrap_or(COPY_BYTES));
                let read = match from.read_at(&mut self.buffer[..most], at) {
                    Ok(0) => return Err(self.unreadable(path, io::ErrorKind::UnexpectedEof)),
                    read => read.map_err(|error| self.unreadable(path, error))?,
                };
                self.meter.bytes(self.root.path(), read as u64)?;
                into.write_all_at(&self.buffer[..read], at).map_err(|error| self.unwritable(&error))?;
                if self.what == What::Tree {
                    self.hash.update(&self.buffer[..read]);
                    self.progress.came(read as u64);
                }
                at += read as u64;
            }
        }
        into.set_len(length).map_err(|error| self.unwritable(&error))
    }

    /// Whatever lies there, without following it, and nothing that is mounted on it.
    fn open(&self, folder: &File, last: &CStr, path: &[u8], flags: OFlags) -> Result<File, Fault> {
        let here = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::openat2(folder, last, flags, Mode::empty(), here);
        opened.map(File::from).map_err(|error| self.unreadable(path, error))
    }

    /// Those attributes of a file or folder that the copy has.
    fn attributes(&mut self, file: &File) -> rustix::io::Result<Vec<(String, Vec<u8>)>> {
        let buffer = &mut self.buffer[..MAX_ATTRIBUTE_BYTES];
        let length = match fs::flistxattr(file, &mut *buffer) {
            Err(Errno::OPNOTSUPP) => 0,
            listed => listed?,
        };
        let names =
            buffer[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok());
        let names: Vec<String> = names.filter(|name| self.what.keeps(name)).map(ToOwned::to_owned).collect();
        let mut attributes = Vec::with_capacity(names.len());
        for name in names {
            let length = fs::fgetxattr(file, name.as_str(), &mut *buffer)?;
            attributes.push((name, buffer[..length].to_vec()));
        }
        Ok(attributes)
    }

    fn unreadable(&self, path: &[u8], error: impl Into<io::Error>) -> Fault {
        let path: PathBuf = self.from.join(OsStr::from_bytes(path));
        io_fault("read", &path, &error.into())
    }

    fn unwritable(&self, error: &io::Error) -> Fault {
        io_fault("write", self.root.path(), error)
    }

    fn note(&mut self, kind: Kind, path: &[u8], facts: Facts, rest: &[u8]) {
        self.hash.update([kind as u8]);
        self.piece(path);
        for number in [facts.uid, facts.gid, facts.mode & 0o7777] {
            self.hash.update(number.to_le_bytes());
        }
        self.hash.update(facts.modified_s.to_le_bytes());
        self.piece(rest);
    }

    /// With its length, so that no two pieces run into each other.
    fn piece(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }
}

fn facts_of(metadata: &Metadata) -> Facts {
    Facts { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode(), modified_s: metadata.mtime() }
}

/// The next part of a file that is no hole.
fn data_from(file: &File, at: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    match fs::seek(file, SeekFrom::Data(at)) {
        Ok(begin) => Ok(Some((begin, fs::seek(file, SeekFrom::Hole(begin))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

fn fault(error: root::Error) -> Fault {
    match error {
        root::Error::Unsafe(why) => bad(why),
        root::Error::Io { path, source } => io_fault("copy", &path, &source),
    }
}

#[cfg(test)]
mod tests;
