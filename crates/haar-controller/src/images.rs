//! Uploaded images on the controller's disk: written aside, hashed, checked, and named when whole.
//!
//! `<id>.<sha256>` is an image's bytes: bytes under a name never change, whichever upload comes second.
//! `.upload-…` is what an upload has so far, removed when it fails. Whoever writes or removes files of an
//! image holds its [`Place`], an upload until the books have answered. What the books do not name goes
//! when the place is next given back in order, and at the next start. What a hypervisor would refuse as a
//! base image is refused here, by the same check (`haar_api::image_check`), before the upload is
//! answered. Deliberately absent: deciding what the books say.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use haar_api::image_check::{self, Flaw};
use haar_core::fleet::Fleet;
use haar_core::id::ImageId;
use haar_core::image::{Format, ImageData, Source};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::config::Limits;

/// What files of uploads under way begin with.
const ASIDE: &str = ".upload-";
/// Bytes written between two looks at the free space.
const STRIDE: u64 = 16 << 20;

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
    /// The disk has no room beside what the books need.
    #[error(
        "the controller's disk has no room for this image and for its books; free some space in its data folder, then upload again"
    )]
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
    spare_bytes: u64,
    /// Bytes free on the file system of a folder.
    free: fn(&Path) -> std::io::Result<u64>,
    places: Arc<Places>,
}

/// What is said of an upload.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// Its format.
    pub(crate) format: Format,
    /// How many bytes will come, if that was said.
    pub(crate) length: Option<u64>,
    /// What the bytes must hash to, lower-case hex.
    pub(crate) sha256: Option<String>,
    /// How long the sender may be silent.
    pub(crate) patience: std::time::Duration,
}

/// An upload that has come whole and is durable, but has no name yet. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Whole {
    aside: Aside,
    data: ImageData,
}

impl Whole {
    /// What the bytes hash to.
    pub(crate) fn sha256(&self) -> &str {
        &self.data.sha256
    }
}

impl Images {
    /// The folder, rid of what the books do not name: failed uploads, and bytes of images that are gone.
    ///
    /// # Errors
    /// When the folder cannot be read or changed.
    pub(crate) fn open(folder: PathBuf, limits: &Limits, fleet: &Fleet) -> std::io::Result<Images> {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.split('.').next().and_then(|id| Uuid::try_parse(id).ok());
            let Some(id) = id.filter(|id| name.starts_with(&id.to_string())).map(ImageId) else {
                if name.starts_with(ASIDE) {
                    std::fs::remove_file(entry.path())?;
                }
                continue;
            };
            match named(fleet, id) {
                Some(sha256) if name == file_name(id, &sha256) => {}
                // As earlier releases named it.
                Some(sha256) if name == id.to_string() => {
                    std::fs::rename(entry.path(), folder.join(file_name(id, &sha256)))?;
                }
                _ => std::fs::remove_file(entry.path())?,
            }
        }
        let (most_bytes, spare_bytes) = (limits.image_bytes, limits.spare_bytes);
        Ok(Images { folder, most_bytes, spare_bytes, free: free_bytes, places: Arc::default() })
    }

    /// The place of one who writes or removes files of an image.
    ///
    /// # Errors
    /// [`Error::Busy`] when another has it.
    pub(crate) fn place(&self, id: ImageId) -> Result<Place, Error> {
        if !self.places.taken().insert(id) {
            return Err(Error::Busy);
        }
        Ok(Place { places: Arc::clone(&self.places), id })
    }

    /// The same, once it is free.
    pub(crate) async fn wait_for_place(&self, id: ImageId) -> Place {
        loop {
            let freed = self.places.freed.notified();
            tokio::pin!(freed);
            // Enabled before looking: a place given back in between is not missed.
            freed.as_mut().enable();
            if let Ok(place) = self.place(id) {
                return place;
            }
            freed.await;
        }
    }

    /// Takes an image's bytes. When it returns they are durable; [`Images::keep`] names them.
    ///
    /// # Errors
    /// [`Error`]; nothing is left.
    pub(crate) async fn take<S, E>(&self, told: &Told, bytes: S) -> Result<Whole, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let length = told.length.unwrap_or(0);
        if length > self.most_bytes {
            return Err(Error::TooLarge(self.most_bytes));
        }
        self.has_room(length).await?;
        // A name of its own: what a cancelled upload still does to its file is done to no other's.
        let name = format!("{ASIDE}{}", hex::encode(crate::auth::random::<16>()));
        let aside = Aside(self.folder.join(name));
        let data = self.write(&aside.0, told, bytes).await.map_err(sort_io)?;
        Ok(Whole { aside, data })
    }

    /// Names the bytes. Cancelled half way, they may be there or not.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) async fn keep(&self, place: &Place, whole: Whole) -> Result<ImageData, Error> {
        let Whole { aside, data } = whole;
        let named = async {
            tokio::fs::rename(&aside.0, self.path(place.id, &data.sha256)).await?;
            File::open(&self.folder).await?.sync_all().await
        };
        named.await.map_err(|error| sort_io(error.into()))?;
        Ok(data)
    }

    /// An image's bytes and how many there are.
    ///
    /// # Errors
    /// When they are not there.
    pub(crate) async fn read(&self, id: ImageId, sha256: &str) -> std::io::Result<(File, u64)> {
        let file = File::open(self.path(id, sha256)).await?;
        let length = file.metadata().await?.len();
        Ok((file, length))
    }

    /// Forgets an image's bytes, but for those that the books name.
    pub(crate) async fn keep_only(&self, place: &Place, sha256: Option<String>) {
        let (folder, id) = (self.folder.clone(), place.id);
        let kept = sha256.map(|sha256| file_name(id, &sha256));
        let remove = move || -> std::io::Result<()> {
            let own = format!("{id}.");
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(&own) && Some(&name) != kept.as_ref() {
                    std::fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        let removed = tokio::task::spawn_blocking(remove).await;
        if let Err(error) = removed.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped))) {
            tracing::warn!(image = %place.id, %error, "bytes of an image that nothing names cannot be removed; the next start tries again");
        }
    }

    fn path(&self, id: ImageId, sha256: &str) -> PathBuf {
        self.folder.join(file_name(id, sha256))
    }

    async fn has_room(&self, more: u64) -> Result<(), Error> {
        let (free, folder) = (self.free, self.folder.clone());
        let asked = tokio::task::spawn_blocking(move || free(&folder)).await;
        let free = asked.unwrap_or_else(|stopped| Err(std::io::Error::other(stopped)))?;
        if free < self.spare_bytes.saturating_add(more) { Err(Error::NoSpace) } else { Ok(()) }
    }

    async fn write<S, E>(&self, aside: &Path, told: &Told, mut bytes: S) -> Result<ImageData, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
    {
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(aside).await?;
        let (mut hash, mut length, mut checked) = (Sha256::new(), 0_u64, 0_u64);
        loop {
            let next = tokio::time::timeout(told.patience, bytes.next()).await.map_err(|_| Error::Stopped)?;
            let Some(chunk) = next else { break };
            let chunk = chunk.map_err(|_| Error::Stopped)?;
            length += chunk.len() as u64;
            if length > self.most_bytes {
                return Err(Error::TooLarge(self.most_bytes));
            }
            // What others wrote meanwhile counts too, and so do bytes that nobody announced.
            if length - checked >= STRIDE {
                self.has_room(chunk.len() as u64).await?;
                checked = length;
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
}

/// The SHA-256 of the uploaded bytes that the books name for an image.
pub(crate) fn named(fleet: &Fleet, id: ImageId) -> Option<String> {
    let record = fleet.image(id).filter(|record| matches!(record.spec.source, Source::Upload))?;
    record.data.as_ref().map(|data| data.sha256.clone())
}

fn file_name(id: ImageId, sha256: &str) -> String {
    format!("{id}.{sha256}")
}

fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    let status = nix::sys::statvfs::statvfs(folder)?;
    Ok(status.blocks_available().saturating_mul(status.fragment_size()))
}

#[derive(Debug, Default)]
struct Places {
    taken: Mutex<HashSet<ImageId>>,
    freed: Notify,
}

impl Places {
    fn taken(&self) -> MutexGuard<'_, HashSet<ImageId>> {
        // A set is whole whatever panicked.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One at a time writes or removes the files of an image.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    /// Which image.
    pub(crate) id: ImageId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(&self.id);
        self.places.freed.notify_waiters();
    }
}

/// What an upload has so far; removed when it was not named, also when it is cancelled.
#[derive(Debug)]
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        // It may never have been made, or has its name; the next start looks again.
        let _ = std::fs::remove_file(&self.0);
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

    const ID: ImageId = ImageId(Uuid::from_u128(5));
    const LIMITS: Limits = Limits {
        connections: 1,
        json_bytes: 1,
        image_bytes: 2000,
        spare_bytes: 0,
        upload_silence: Duration::from_secs(30),
    };

    fn told(format: Format, sha256: Option<&str>) -> Told {
        Told { format, length: None, sha256: sha256.map(str::to_owned), patience: LIMITS.upload_silence }
    }

    fn open(folder: &tempfile::TempDir, limits: &Limits) -> Images {
        Images::open(folder.path().to_path_buf(), limits, &Fleet::empty()).unwrap()
    }

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let files = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> =
            files.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    async fn take(images: &Images, told: &Told, bytes: Vec<u8>) -> Result<Whole, Error> {
        let chunks: Vec<Result<Bytes, Infallible>> =
            bytes.chunks(7).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        images.take(told, stream::iter(chunks)).await
    }

    #[tokio::test]
    async fn an_upload_is_kept_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let images = open(&folder, &LIMITS);
        let wrong = told(Format::Qcow2, Some("00"));
        let good = qcow2();
        assert!(matches!(take(&images, &wrong, good.clone()).await, Err(Error::Checksum { .. })));
        assert!(matches!(take(&images, &told(Format::Raw, None), good.clone()).await, Err(Error::Format(_))));
        let large = take(&images, &told(Format::Raw, None), vec![1; 2001]).await;
        assert!(matches!(large, Err(Error::TooLarge(2000))));
        drop(take(&images, &told(Format::Qcow2, None), good.clone()).await.unwrap());
        assert_eq!(names(&folder), [""; 0]);

        let sum = crate::auth::sha256(&good);
        let place = images.place(ID).unwrap();
        let whole = take(&images, &told(Format::Qcow2, Some(&sum)), good.clone()).await.unwrap();
        let data = images.keep(&place, whole).await.unwrap();
        assert_eq!(data, ImageData { sha256: sum.clone(), file_bytes: 1536, virtual_bytes: 1 << 20 });
        assert_eq!(names(&folder), [file_name(ID, &sum)]);
        assert_eq!(images.read(ID, &sum).await.unwrap().1, 1536);
        std::fs::write(folder.path().join(file_name(ID, "other")), "other").unwrap();
        images.keep_only(&place, Some(sum.clone())).await;
        assert_eq!(names(&folder), [file_name(ID, &sum)]);
        images.keep_only(&place, None).await;
        assert_eq!(names(&folder), [""; 0]);
    }

    #[tokio::test]
    async fn an_upload_that_stops_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let images = open(&folder, &LIMITS);
        let chunks: Vec<Result<Bytes, &str>> = vec![Ok(Bytes::from_static(b"abc")), Err("gone")];
        let answer = images.take(&told(Format::Raw, None), stream::iter(chunks)).await;
        assert!(matches!(answer, Err(Error::Stopped)));
        assert_eq!(names(&folder), [""; 0]);
    }

    #[tokio::test]
    async fn a_place_is_one_s_own_and_the_next_gets_it_when_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let images = open(&folder, &LIMITS);
        let place = images.place(ID).unwrap();
        assert!(matches!(images.place(ID), Err(Error::Busy)));
        let mut next = std::pin::pin!(images.wait_for_place(ID));
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        drop(place);
        assert_eq!(next.await.id, ID);
    }

    /// A disk of 64 MiB that holds nothing but this folder.
    fn small_disk(folder: &Path) -> std::io::Result<u64> {
        let mut free = 64 << 20;
        for entry in std::fs::read_dir(folder)? {
            free -= entry?.metadata()?.len();
        }
        Ok(free)
    }

    #[tokio::test]
    async fn an_upload_leaves_the_books_their_room() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { image_bytes: 1 << 40, spare_bytes: 24 << 20, ..LIMITS };
        let images = Images { free: small_disk, ..open(&folder, &limits) };
        let mut least = u64::MAX;
        let chunk = Bytes::from(vec![7; 1 << 20]);
        let endless = stream::iter(0..64).map(|_| {
            least = least.min(small_disk(folder.path()).unwrap());
            Ok::<_, Infallible>(chunk.clone())
        });
        let answer = images.take(&told(Format::Raw, None), endless).await;
        assert!(matches!(answer, Err(Error::NoSpace)), "{answer:?}");
        assert!(least >= limits.spare_bytes - STRIDE, "only {least} bytes were left free");
        assert_eq!(names(&folder), [""; 0]);

        // One that says how much comes is refused before anything of it is read.
        let unread = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> {
            panic!("nothing was to be read")
        });
        let told = Told { length: Some((40 << 20) + 1), ..told(Format::Raw, None) };
        assert!(matches!(images.take(&told, unread).await, Err(Error::NoSpace)));
    }
}
