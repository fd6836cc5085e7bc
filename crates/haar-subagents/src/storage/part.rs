//! The file an image is streamed into: hashed, counted and judged before it becomes an image.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use haar_api::rpc::{Fault, FaultCode};
use sha2::{Digest as _, Sha256};

use super::folders::{Folders, io_fault};

/// What the file must turn out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    /// Lower-case hex.
    pub(super) sha256: String,
    /// 0 when unknown.
    pub(super) file_bytes: u64,
}

/// A file in progress; removed when dropped before it was kept.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    hash: Sha256,
    written: u64,
}

impl Part {
    /// Begins anew, whatever an earlier attempt left. One fetch per image is the caller's promise.
    pub(super) fn begin(folders: &Folders, id: &str) -> Result<Self, Fault> {
        let path = folders.image_part(id);
        let failed = |error| io_fault("write", &path, &error);
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        Ok(Part { file, hash: Sha256::new(), written: 0, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
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

    /// Judges size and hash once everything has come.
    pub(super) fn verify(&mut self, pin: &Pin) -> Result<u64, Fault> {
        if pin.file_bytes != 0 && self.written != pin.file_bytes {
            let text =
                format!("the source gave {} bytes, {} were asked for; {WRONG}", self.written, pin.file_bytes);
            return Err(Fault::new(FaultCode::BadImage, text));
        }
        let found = hex::encode(std::mem::take(&mut self.hash).finalize());
        if found != pin.sha256 {
            let text = format!("its SHA-256 is {found}, {} was asked for; {WRONG}", pin.sha256);
            return Err(Fault::new(FaultCode::BadImage, text));
        }
        Ok(self.written)
    }
}

const WRONG: &str = "the source changed or is the wrong one";

impl Drop for Part {
    fn drop(&mut self) {
        // After it was kept there is nothing of this name any more.
        let _ = fs::remove_file(&self.path);
    }
}
