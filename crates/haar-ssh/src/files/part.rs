//! A file of this machine while it is being written: beside its place, and moved there when it is whole.
//!
//! Links are followed. What is no plain file, and what lies where nothing may be made beside it, is written to
//! in place.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that is being written; a part is removed when dropped before its end.
#[derive(Debug)]
pub struct Part {
    /// What is written to in place of the file itself, and where it goes in the end.
    beside: Option<(PathBuf, PathBuf)>,
}

impl Part {
    /// Opens what is to become `local`, for its owner alone. The directory must be there.
    ///
    /// # Errors
    /// The system's; of a directory, that it is one.
    pub fn begin(local: &Path) -> io::Result<(Self, File)> {
        let (there, target) = match std::fs::metadata(local) {
            Ok(there) => (Some(there), local.canonicalize()?),
            Err(_) => (None, local.to_owned()),
        };
        if there.as_ref().is_some_and(|there| !there.is_file()) {
            return Self::in_place(local);
        }
        match Self::create(&target) {
            Err(error) if there.is_some() && error.kind() == io::ErrorKind::PermissionDenied => {
                Self::in_place(local)
            }
            created => created,
        }
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(mut self) -> io::Result<()> {
        let Some((part, target)) = &self.beside else { return Ok(()) };
        std::fs::rename(part, target)?;
        self.beside = None;
        Ok(())
    }

    fn in_place(local: &Path) -> io::Result<(Self, File)> {
        Ok((Self { beside: None }, File::options().write(true).truncate(true).open(local)?))
    }

    fn create(target: &Path) -> io::Result<(Self, File)> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(format!(".{}-{number}.part", std::process::id()));
        let part = target.with_file_name(part);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&part)?;
        Ok((Self { beside: Some((part, target.to_owned())) }, file))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.beside {
            // It may be gone already; then there is nothing to do.
            let _ = std::fs::remove_file(part);
        }
    }
}
