//! Uploaded images on the controller's disk: written aside, hashed, checked, and named when whole.
//!
//! `<id>` is an image's bytes; `.upload-…` is what an upload has so far, removed when it fails and at the
//! next start. What a hypervisor would refuse as a base image is refused here, by the same check
//! (`haar_api::image_check`), before the upload is answered. Deliberately absent: the books.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use haar_api::image_check::{self, Flaw};
use haar_core::id::ImageId;
use haar_core::image::{Format, ImageData};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// Why an upload failed. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Another upload of the same image is under way.
    #[error("another upload of this image is under way; wait for it to end")]
    Busy,
    /// The bytes are not what was said.
    #[error("the bytes have SHA-256 {found}, not {expected}; send the right file, or the right sum")]
    Checksum {
        /// What was said.
        expected: String,
        /// What came.
        found: String,
    },
    /// The bytes cannot be a base image of the format told.
    #[error("the image cannot be used: {0}")]
    Format(Flaw),
    /// More bytes than are taken.
    #[error("the image has more than {0} bytes, the most this controller takes")]
    TooLarge(u64),
    /// The disk is full.
    #[error("the controller's disk is full; free some space in its data folder, then upload again")]
    NoSpace,
    /// The sender went silent or away.
    #[error("the upload stopped before its end; send it again")]
    Stopped,
    /// The disk fails.
    #[error("the image cannot be written")]
    Io(#[from] std::io::Error),
}

/// The folder of uploaded images.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    folder: PathBuf,
    most_bytes: u64,
    uploading: Arc<Mutex<HashSet<ImageId>>>,
}

/// What is said of an upload.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Which image.
    pub(crate) id: ImageId,
    /// Its format.
    pub(crate) format: Format,
    /// What the bytes must hash to, lower-case hex.
    pub(crate) sha256: Option<String>,
    /// How long the sender may be silent.
    pub(crate) patience: std::time::Duration,
}

impl Images {
    /// The folder, rid of what earlier uploads left.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn open(folder: PathBuf, most_bytes: u64) -> std::io::Result<Images> {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(".upload-") {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Images { folder, most_bytes, uploading: Arc::default() })
    }

    /// Takes an image's bytes. When it returns they are durable under the image's name.
    ///
    /// # Errors
    /// [`Error`]; nothing is left.
    pub(crate) async fn take<S, E>(&self, told: &Told, bytes: S) -> Result<ImageData, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let _place = self.place(told.id)?;
        let aside = self.folder.join(format!(".upload-{}", told.id));
        let remains = Aside(Some(&aside));
        let data = self.write(&aside, told, bytes).await.map_err(sort_io)?;
        tokio::fs::rename(&aside, self.path(told.id)).await?;
        File::open(&self.folder).await?.sync_all().await?;
        remains.keep();
        Ok(data)
    }

    /// An image's bytes and how many there are.
    ///
    /// # Errors
    /// When they are not there.
    pub(crate) async fn read(&self, id: ImageId) -> std::io::Result<(File, u64)> {
        let file = File::open(self.path(id)).await?;
        let length = file.metadata().await?.len();
        Ok((file, length))
    }

    /// Forgets an image's bytes.
    pub(crate) async fn remove(&self, id: ImageId) {
        match tokio::fs::remove_file(self.path(id)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(image = %id, %error, "the bytes of a deleted image cannot be removed");
            }
            _ => {}
        }
    }

    fn path(&self, id: ImageId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    async fn write<S, E>(&self, aside: &Path, told: &Told, mut bytes: S) -> Result<ImageData, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(aside).await?;
        let (mut hash, mut length) = (Sha256::new(), 0_u64);
        loop {
            let next = tokio::time::timeout(told.patience, bytes.next()).await.map_err(|_| Error::Stopped)?;
            let Some(chunk) = next else { break };
            let chunk = chunk.map_err(|_| Error::Stopped)?;
            length += chunk.len() as u64;
            if length > self.most_bytes {
                return Err(Error::TooLarge(self.most_bytes));
            }
            hash.update(&chunk);
            file.write_all(&chunk).await?;
        }
        let found = hex::encode(hash.finalize());
        if let Some(expected) = told.sha256.as_ref().filter(|expected| **expected != found) {
            return Err(Error::Checksum { expected: expected.clone(), found });
        }
        file.flush().await?;
        let virtual_bytes = check(aside, told.format).await?;
        file.sync_all().await?;
        Ok(ImageData { sha256: found, file_bytes: length, virtual_bytes })
    }

    fn place(&self, id: ImageId) -> Result<Place, Error> {
        if !lock(&self.uploading).insert(id) {
            return Err(Error::Busy);
        }
        Ok(Place { uploading: Arc::clone(&self.uploading), id })
    }
}

/// One upload of an image at a time.
struct Place {
    uploading: Arc<Mutex<HashSet<ImageId>>>,
    id: ImageId,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.uploading).remove(&self.id);
    }
}

fn lock(set: &Mutex<HashSet<ImageId>>) -> MutexGuard<'_, HashSet<ImageId>> {
    // A set is whole whatever panicked.
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an upload has so far; removed when it does not come to its end, also when it is cancelled.
struct Aside<'a>(Option<&'a Path>);

impl Aside<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            // It may never have been made; the next start looks again.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn sort_io(error: Error) -> Error {
    match error {
        Error::Io(cause) if matches!(cause.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            Error::NoSpace
        }
        other => other,
    }
}

/// Bytes of a disk cloned from the image in this file.
async fn check(path: &Path, format: Format) -> Result<u64, Error> {
    let path = path.to_owned();
    let checked = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(path).map_err(Flaw::Io)?;
        match format {
            Format::Raw => image_check::check_raw(&file),
            Format::Qcow2 => image_check::check_qcow2(&file),
        }
    });
    match checked.await {
        Ok(Ok(virtual_bytes)) => Ok(virtual_bytes),
        Ok(Err(Flaw::Io(error))) => Err(Error::Io(error)),
        Ok(Err(flaw)) => Err(Error::Format(flaw)),
        Err(stopped) => Err(Error::Io(std::io::Error::other(stopped))),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::stream;
    use uuid::Uuid;

    use super::*;

    /// A sound and empty qcow2 disk of 1 MiB with clusters of 512 bytes: header, refcount table, level 1 table.
    fn qcow2() -> Vec<u8> {
        let mut bytes = vec![0; 3 * 512];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        for (offset, number) in [(4, 2), (20, 9), (36, 32), (56, 1)] {
            bytes[offset..offset + 4].copy_from_slice(&u32::to_be_bytes(number));
        }
        for (offset, number) in [(24, 1 << 20), (40, 1024), (48, 512)] {
            bytes[offset..offset + 8].copy_from_slice(&u64::to_be_bytes(number));
        }
        bytes
    }

    fn told(format: Format, sha256: Option<&str>) -> Told {
        let id = ImageId(Uuid::from_u128(5));
        Told { id, format, sha256: sha256.map(str::to_owned), patience: Duration::from_secs(30) }
    }

    async fn take(images: &Images, told: &Told, bytes: Vec<u8>) -> Result<ImageData, Error> {
        let chunks: Vec<Result<Bytes, Infallible>> =
            bytes.chunks(7).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        images.take(told, stream::iter(chunks)).await
    }

    #[tokio::test]
    async fn an_upload_is_kept_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open(folder.path().to_path_buf(), 2000).unwrap();
        let files = || std::fs::read_dir(folder.path()).unwrap().count();
        let wrong = told(Format::Qcow2, Some("00"));
        let good = qcow2();
        assert!(matches!(take(&images, &wrong, good.clone()).await, Err(Error::Checksum { .. })));
        assert!(matches!(take(&images, &told(Format::Raw, None), good.clone()).await, Err(Error::Format(_))));
        let large = take(&images, &told(Format::Raw, None), vec![1; 2001]).await;
        assert!(matches!(large, Err(Error::TooLarge(2000))));
        assert_eq!(files(), 0);

        let sum = crate::auth::sha256(&good);
        let data = take(&images, &told(Format::Qcow2, Some(&sum)), good.clone()).await.unwrap();
        assert_eq!(data, ImageData { sha256: sum, file_bytes: 1536, virtual_bytes: 1 << 20 });
        assert_eq!(files(), 1);
        assert_eq!(images.read(ImageId(Uuid::from_u128(5))).await.unwrap().1, 1536);
    }

    #[tokio::test]
    async fn an_upload_that_stops_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images::open(folder.path().to_path_buf(), 200).unwrap();
        let chunks: Vec<Result<Bytes, &str>> = vec![Ok(Bytes::from_static(b"abc")), Err("gone")];
        let answer = images.take(&told(Format::Raw, None), stream::iter(chunks)).await;
        assert!(matches!(answer, Err(Error::Stopped)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
