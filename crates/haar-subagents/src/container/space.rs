//! What images take of a file system, and what they leave of it for others.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use haar_api::rpc::{Fault, FaultCode};

use super::oci::bad;
use super::progress::Progress;
use crate::storage::folders::io_fault;

/// How often free space is looked at where there is much.
const LOOK_EVERY_BYTES: u64 = 16 << 20;
/// What an entry takes of the file system at least, whatever it holds.
const ENTRY_BYTES: u64 = 4096;
/// The share of the file system that images leave free: one part in so many.
const KEPT_FREE: u64 = 20;
const COPY_BYTES: usize = 256 << 10;

/// What is left of what an image may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes of its files.
    pub bytes: u64,
    /// Entries of its layers, whiteouts included.
    pub entries: u64,
}

/// Counts what is laid, before it is, against what the image may take and what the file system has.
#[derive(Debug)]
pub(super) struct Meter<'a> {
    room: &'a mut Room,
    space: Space,
}

impl<'a> Meter<'a> {
    pub(super) fn new(room: &'a mut Room) -> Meter<'a> {
        Meter { room, space: Space::new() }
    }

    /// Counts an entry, also one that lays nothing: reading it takes time.
    pub(super) fn entry(&mut self, path: &Path) -> Result<(), Fault> {
        self.room.entries = self.room.entries.checked_sub(1).ok_or_else(|| {
            bad("the image has more entries than this host takes; its operator may raise the limit")
        })?;
        self.space.take(path, ENTRY_BYTES)
    }

    /// Counts bytes of a file.
    pub(super) fn bytes(&mut self, path: &Path, bytes: u64) -> Result<(), Fault> {
        self.room.bytes = self.room.bytes.checked_sub(bytes).ok_or_else(|| {
            bad("the image unpacks to more bytes than this host takes; its operator may raise the limit")
        })?;
        self.space.take(path, bytes)
    }
}

/// Looks at free space before the first byte, and the more often the less there is.
#[derive(Debug)]
pub(super) struct Space {
    /// Bytes until the next look.
    left: u64,
}

impl Space {
    pub(super) fn new() -> Space {
        Space { left: 0 }
    }

    /// Refuses bytes that would take what is left free.
    pub(super) fn take(&mut self, path: &Path, bytes: u64) -> Result<(), Fault> {
        if bytes < self.left {
            self.left -= bytes;
            return Ok(());
        }
        let space = rustix::fs::statvfs(path).map_err(|error| io_fault("look at", path, &error.into()))?;
        let kept = space.f_blocks / KEPT_FREE;
        // A file system that counts no files says that it has none.
        if space.f_bavail < kept || space.f_favail < space.f_files / KEPT_FREE {
            let text = format!("the file system of {} is full but for a twentieth", path.display());
            return Err(Fault::new(FaultCode::NoSpace, text));
        }
        let more = (space.f_bavail - kept).saturating_mul(space.f_frsize);
        self.left = (more / 2).min(LOOK_EVERY_BYTES);
        Ok(())
    }
}

/// A new file that is being filled: as long as it is not too long, others have room, and the load shall go on.
pub(super) struct Filling<'a> {
    file: File,
    path: &'a Path,
    most: u64,
    written: u64,
    space: Space,
    progress: &'a Progress,
}

impl<'a> Filling<'a> {
    /// Begins; what stood there goes.
    pub(super) fn begin(path: &'a Path, most: u64, progress: &'a Progress) -> Result<Self, Fault> {
        let _ = std::fs::remove_file(path);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| io_fault("make", path, &error))?;
        Ok(Filling { file, path, most, written: 0, space: Space::new(), progress })
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.progress.check()?;
        self.written += bytes.len() as u64;
        if self.written > self.most {
            return Err(bad(format!("the source gives more than {} bytes", self.most)));
        }
        self.space.take(self.path, bytes.len() as u64)?;
        self.file.write_all(bytes).map_err(|error| io_fault("write", self.path, &error))
    }

    /// Puts all that a reader gives.
    pub(super) fn copy(&mut self, mut from: impl Read) -> Result<(), Fault> {
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => self.put(&buffer[..read])?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(bad(format!("the archive cannot be read: {error}"))),
            }
        }
    }

    /// The file, at its beginning.
    pub(super) fn done(mut self) -> Result<File, Fault> {
        self.file.rewind().map_err(|error| io_fault("read", self.path, &error))?;
        Ok(self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_filled_to_its_bound_and_no_further() {
        let temp = tempfile::tempdir().unwrap();
        let (path, progress) = (temp.path().join("x"), Progress::default());
        let mut filling = Filling::begin(&path, 6, &progress).unwrap();
        filling.copy(&b"123"[..]).unwrap();
        filling.put(b"456").unwrap();
        assert_eq!(filling.put(b"7").unwrap_err().code, FaultCode::BadImage);
        let mut text = String::new();
        filling.done().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "123456");
        assert_eq!(Filling::begin(&path, 6, &progress).unwrap().written, 0, "what stood there goes");
    }

    #[test]
    fn a_load_that_shall_end_fills_nothing_more() {
        let temp = tempfile::tempdir().unwrap();
        let (path, progress) = (temp.path().join("x"), Progress::default());
        let mut filling = Filling::begin(&path, 6, &progress).unwrap();
        progress.cancel();
        assert_eq!(filling.put(b"1").unwrap_err().code, FaultCode::Unavailable);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }
}
