//! The file an image is streamed into: hashed, counted and judged before it becomes an image.
//!
//! ```text
//! .part-<id>        the bytes so far
//! .part-<id>.note   beside it when the source can be asked for the rest: which source, and which of its versions
//! ```
//!
//! Promised: a part without a note, or with another image's or another source's, is never gone on with; what is
//! gone on with was hashed again from the disk. A part is removed unless its stream broke off, and a kept one
//! that nobody asks for is removed a day later, by the next start or the next pruning.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::folders::{Folders, io_fault, write_json};
use super::found::names_in;
use super::names::check_id;

/// How long a part waits to be gone on with.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const PREFIX: &str = ".part-";
const NOTE: &str = ".note";
const READ_BYTES: usize = 256 << 10;

/// What the file must turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    /// Lower-case hex; empty where it is taken as it comes.
    pub(super) sha256: String,
    /// 0 when unknown.
    pub(super) file_bytes: u64,
}

impl Pin {
    pub(super) fn is_known(&self) -> bool {
        !self.sha256.is_empty()
    }
}

/// What must be the same for a part to be gone on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Version of this record.
    v: u32,
    /// SHA-256 of the source's address, which may hold secrets.
    source: String,
    /// Of the whole image.
    sha256: String,
    /// The version that the source gave, as `If-Range` takes it.
    pub(super) validator: String,
}

impl Note {
    pub(super) fn new(source: &str, pin: &Pin, validator: String) -> Self {
        let source = hex::encode(Sha256::digest(source));
        Note { v: 1, source, sha256: pin.sha256.clone(), validator }
    }
}

/// What becomes of the file of a part that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Removed,
    Kept,
}

/// A file in progress; removed when dropped before it was stored, unless it was left for later.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    hash: Sha256,
    written: u64,
    note: Option<Note>,
    rest: Rest,
}

impl Part {
    /// Begins anew, whatever an earlier attempt left. One fetch per image is the caller's promise.
    pub(super) fn begin(folders: &Folders, id: &str, note: Option<Note>) -> Result<Self, Fault> {
        let path = folders.image_part(id);
        let failed = |error| io_fault("write", &path, &error);
        remove(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        if let Some(note) = &note {
            write_json(&note_of(&path), note).map_err(failed)?;
        }
        Ok(Part { file, hash: Sha256::new(), written: 0, path, note, rest: Rest::Removed })
    }

    /// What an earlier attempt left of this image from this source, hashed again; none when there is nothing.
    pub(super) fn left(folders: &Folders, id: &str, source: &str, pin: &Pin) -> Result<Option<Self>, Fault> {
        let path = folders.image_part(id);
        let Some(note) = read_note(&path) else { return Ok(None) };
        let same = Note::new(source, pin, note.validator.clone()) == note;
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if !same || length == 0 || (pin.file_bytes != 0 && length >= pin.file_bytes) {
            return Ok(None);
        }
        let failed = |error| io_fault("read", &path, &error);
        let mut file = OpenOptions::new().read(true).append(true).open(&path).map_err(failed)?;
        let (mut hash, mut written, mut buffer) = (Sha256::new(), 0, vec![0; READ_BYTES]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(&buffer[..read]);
                    written += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(Some(Part { path, file, hash, written, note: Some(note), rest: Rest::Removed }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The version that the rest must be of.
    pub(super) fn validator(&self) -> Option<&str> {
        self.note.as_ref().map(|note| note.validator.as_str())
    }

    /// Takes the next bytes; refuses more than were announced. Answers the bytes so far.
    pub(super) fn write(&mut self, bytes: &[u8], pin: &Pin) -> Result<u64, Fault> {
        let written = self.written + bytes.len() as u64;
        if pin.file_bytes != 0 && written > pin.file_bytes {
            let text = format!("the source gives more than the {} bytes asked for; {WRONG}", pin.file_bytes);
            return Err(Fault::new(FaultCode::BadImage, text));
        }
        self.file.write_all(bytes).map_err(|error| io_fault("write", &self.path, &error))?;
        self.hash.update(bytes);
        self.written = written;
        Ok(written)
    }

    /// Judges size and hash once everything has come; answers what they are.
    pub(super) fn verify(&mut self, pin: &Pin) -> Result<Pin, Fault> {
        if pin.file_bytes != 0 && self.written != pin.file_bytes {
            let text =
                format!("the source gave {} bytes, {} were asked for; {WRONG}", self.written, pin.file_bytes);
            return Err(Fault::new(FaultCode::BadImage, text));
        }
        let found = hex::encode(std::mem::take(&mut self.hash).finalize());
        if pin.is_known() && found != pin.sha256 {
            let text = format!("its SHA-256 is {found}, {} was asked for; {WRONG}", pin.sha256);
            return Err(Fault::new(FaultCode::BadImage, text));
        }
        Ok(Pin { sha256: found, file_bytes: self.written })
    }

    /// Gives it up for now: the stream broke off, and the next attempt may go on.
    pub(super) fn leave(mut self) {
        if self.note.is_some() {
            self.rest = Rest::Kept;
        }
    }
}

const WRONG: &str = "the source changed or is the wrong one";

impl Drop for Part {
    fn drop(&mut self) {
        if self.rest == Rest::Removed {
            // After it was stored only the note is of this name any more.
            remove(&self.path);
        }
    }
}

/// Removes what is left of an image's fetches.
pub(super) fn forget(folders: &Folders, id: &str) {
    remove(&folders.image_part(id));
}

/// Whether this name among the images is a part, or its note, that may be gone on with.
pub(super) fn may_go_on(images: &Path, name: &str) -> bool {
    let part = name.strip_suffix(NOTE).unwrap_or(name);
    let ours = part.strip_prefix(PREFIX).is_some_and(|id| check_id("image", id).is_ok());
    let path = images.join(part);
    let fresh = || {
        let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
        // A time in the future is one of a clock that was set back.
        written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age < KEPT))
    };
    ours && read_note(&path).is_some() && fresh()
}

/// The images whose parts nobody came back for; those under way are among them.
pub(super) fn list_old(folders: &Folders) -> Result<Vec<String>, Fault> {
    let images = folders.images();
    let names = names_in(&images)?.into_iter().filter(|name| !may_go_on(&images, name));
    let ids = names.filter_map(|name| name.strip_prefix(PREFIX).map(ToOwned::to_owned));
    Ok(ids.filter(|id| check_id("image", id).is_ok()).collect())
}

fn note_of(part: &Path) -> PathBuf {
    let mut path = part.as_os_str().to_owned();
    path.push(NOTE);
    path.into()
}

fn read_note(part: &Path) -> Option<Note> {
    let note: Note = serde_json::from_slice(&fs::read(note_of(part)).ok()?).ok()?;
    Some(note).filter(|note| note.v == 1)
}

/// The note first: a part without one is nobody's.
fn remove(part: &Path) {
    let _ = fs::remove_file(note_of(part));
    let _ = fs::remove_file(part);
}
