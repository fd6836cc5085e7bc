//! One image's way in: from where it is, over its digests, into a folder of its own.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use haar_api::rpc::{Fault, FaultCode};
use sha2::{Digest as _, Sha256};

use super::folders::Folders;
use super::images::{Facts, Part};
use super::layer::{self, Devices};
use super::oci::{self, Descriptor, Digest, Document, ImageConfig, bad};
use super::progress::Progress;
use super::registry::{self, Registry};
use super::root::Root;
use super::source::{Files, Origin, Reference};
use super::space::{Filling, Room};
use crate::storage::fetching::Secret;
use crate::storage::folders::io_fault;
use crate::storage::source::open_file;

/// What an image may take, and what it may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one image: those that come, and those of its files.
    pub bytes: u64,
    /// Entries of all its layers.
    pub entries: u64,
    /// Whether it may bring device nodes.
    pub devices: Devices,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 64 << 30, entries: 4_000_000, devices: Devices::Refused }
    }
}

impl Limits {
    /// All of it, for one image.
    pub(super) fn room(self) -> Room {
        Room { bytes: self.bytes, entries: self.entries }
    }
}

/// What is wanted.
pub(super) struct Wanted {
    pub(super) id: String,
    pub(super) origin: Origin,
    /// 64 hex digits, or empty.
    pub(super) pin: String,
    pub(super) authorization: Secret,
}

/// Loads an image. Belongs on a thread of tokio's that may block; nothing is seen of it before it is whole.
pub(super) fn load(
    folders: &Folders,
    image_dirs: &[PathBuf],
    limits: Limits,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<(), Fault> {
    progress.begin();
    progress.check()?;
    let part = Part::begin(folders, &wanted.id)?;
    let mut loading = Loading { part: part.path(), limits, progress, room: limits.room(), came: 0 };
    let (sha256, digest, config) = match &wanted.origin {
        Origin::Registry(reference) => loading.load_registry(reference, wanted)?,
        Origin::Web(url) => {
            let file = part.path().join("archive");
            let most = limits.bytes;
            let found =
                registry::archive(url, &wanted.authorization, !wanted.pin.is_empty(), &file, most, progress)?;
            check_pin(&wanted.pin, &found)?;
            let files = loading.open_archive(&file)?;
            let (digest, config) = loading.load_archive(&files, "")?;
            fs::remove_file(&file).map_err(|error| io_fault("remove", &file, &error))?;
            (found.hex().to_owned(), digest, config)
        }
        Origin::Path(path, tag) => loading.load_path(path, image_dirs, tag, &wanted.pin)?,
    };
    let facts = Facts {
        v: 1,
        id: wanted.id.clone(),
        sha256,
        digest,
        config,
        file_bytes: loading.came,
        unpacked_bytes: limits.bytes - loading.room.bytes,
    };
    part.keep(folders, &facts)
}

struct Loading<'a> {
    part: &'a Path,
    limits: Limits,
    progress: &'a Progress,
    room: Room,
    came: u64,
}

type Loaded = (Digest, ImageConfig);

impl Loading<'_> {
    fn load_registry(
        &mut self,
        reference: &Reference,
        wanted: &Wanted,
    ) -> Result<(String, Digest, ImageConfig), Fault> {
        let is_pinned = reference.digest.is_some() || !wanted.pin.is_empty();
        let mut registry = Registry::new(reference, &wanted.authorization, is_pinned, self.progress);
        let top = registry.manifest(reference.wanted())?;
        let found = Digest::of(&top);
        if let Some(digest) = &reference.digest {
            digest.check("the manifest", &found)?;
        }
        check_pin(&wanted.pin, &found)?;
        let (config, layers) = resolve(&top, |one| registry.manifest(one.digest.as_str()))?;
        self.progress.announce(config.size.saturating_add(bytes_of(&layers)));
        let file = self.part.join("blob");
        let mut blob = registry.blob(&config.digest, &file, oci::MAX_DOCUMENT_BYTES)?;
        let mut text = Vec::new();
        blob.read_to_end(&mut text).map_err(|error| io_fault("read", &file, &error))?;
        self.came += text.len() as u64;
        let image = self.config(&text, layers.len())?;
        for (layer, diff) in layers.iter().zip(&image.rootfs.diff_ids) {
            let left = self.limits.bytes.saturating_sub(self.came);
            let blob = registry.blob(&layer.digest, &file, left)?;
            self.lay(blob, None, diff)?;
        }
        fs::remove_file(&file).map_err(|error| io_fault("remove", &file, &error))?;
        Ok((found.hex().to_owned(), config.digest, image))
    }

    fn load_path(
        &mut self,
        path: &Path,
        image_dirs: &[PathBuf],
        tag: &str,
        pin: &str,
    ) -> Result<(String, Digest, ImageConfig), Fault> {
        let Some(files) = Files::of_folder(path, image_dirs) else {
            // From beginning to end, so that what is read later is what was verified.
            let copy = self.part.join("archive");
            let found = self.copy(&open_file(path, image_dirs)?.0, &copy)?;
            check_pin(pin, &found)?;
            let files = self.open_archive(&copy)?;
            let (digest, config) = self.load_archive(&files, tag)?;
            fs::remove_file(&copy).map_err(|error| io_fault("remove", &copy, &error))?;
            return Ok((found.hex().to_owned(), digest, config));
        };
        // Read once: a folder may have another one the next moment.
        let top = top_document(&files, tag)?;
        let found = Digest::of(&top);
        check_pin(pin, &found)?;
        let (digest, config) = self.load_layout(&files, &top)?;
        Ok((found.hex().to_owned(), digest, config))
    }

    fn copy(&mut self, from: &fs::File, to: &Path) -> Result<Digest, Fault> {
        let failed = |error| io_fault("copy the image to", to, &error);
        let length = from.metadata().map_err(failed)?.len();
        if length > self.limits.bytes {
            return Err(bad(format!("the archive has more than {} bytes", self.limits.bytes)));
        }
        self.progress.announce(length);
        let mut reader = Hashed::new(from, self.progress, Counted::Yes);
        Filling::begin(to, self.limits.bytes, self.progress)?.copy(&mut reader)?;
        Ok(Digest::ended(reader.hash))
    }

    /// Opens an archive of our own, decompressed first where it is compressed.
    fn open_archive(&mut self, path: &Path) -> Result<Files<'static>, Fault> {
        let failed = |error| io_fault("read", path, &error);
        let open = || fs::File::open(path).map_err(failed);
        self.came = open()?.metadata().map_err(failed)?.len();
        let plain = self.part.join("plain");
        let mut filling = Filling::begin(&plain, self.limits.bytes, self.progress)?;
        let reader = layer::decompress(open()?);
        filling.copy(reader.map_err(|error| bad(format!("the archive cannot be read: {error}")))?)?;
        let into = filling.done()?;
        // The open file is all that is needed of it.
        fs::remove_file(&plain).map_err(failed)?;
        Files::of_archive(into)
    }

    fn load_archive(&mut self, files: &Files<'_>, tag: &str) -> Result<Loaded, Fault> {
        if files.has("index.json") {
            return self.load_layout(files, &top_document(files, tag)?);
        }
        if files.has("manifest.json") {
            return self.load_saved(files, tag);
        }
        Err(bad("the source is neither an OCI layout nor what docker save writes"))
    }

    fn load_layout(&mut self, files: &Files<'_>, top: &[u8]) -> Result<Loaded, Fault> {
        let (config, layers) = resolve(top, |one| blob_document(files, one))?;
        if matches!(files, Files::Folder(..)) {
            self.progress.announce(bytes_of(&layers));
        }
        let image = self.config(&blob_document(files, &config)?, layers.len())?;
        for (layer, diff) in layers.iter().zip(&image.rootfs.diff_ids) {
            self.lay(files.file(&blob_name(&layer.digest))?, Some(&layer.digest), diff)?;
        }
        Ok((config.digest, image))
    }

    fn load_saved(&mut self, files: &Files<'_>, tag: &str) -> Result<Loaded, Fault> {
        let saved = oci::parse_saved(&files.document("manifest.json")?)?;
        let is_wanted = |one: &&oci::Saved| one.repo_tags.iter().any(|name| name == tag);
        let one = match (tag, &saved[..]) {
            ("", [only]) => only,
            _ => saved
                .iter()
                .find(is_wanted)
                .ok_or_else(|| which(saved.iter().flat_map(|one| &one.repo_tags)))?,
        };
        let text = files.document(&one.config)?;
        let digest = Digest::of(&text);
        // The name is the digest, wherever a builder put it.
        let name = one.config.rsplit('/').next().unwrap_or_default();
        if let Ok(named) = Digest::parse(&format!("sha256:{}", name.trim_end_matches(".json"))) {
            named.check("the configuration", &digest)?;
        }
        let image = self.config(&text, one.layers.len())?;
        for (layer, diff) in one.layers.iter().zip(&image.rootfs.diff_ids) {
            self.lay(files.file(layer)?, None, diff)?;
        }
        Ok((digest, image))
    }

    fn config(&self, text: &[u8], layers: usize) -> Result<ImageConfig, Fault> {
        let image = ImageConfig::parse(text)?;
        let named = image.rootfs.diff_ids.len();
        if named == layers {
            return Ok(image);
        }
        Err(bad(format!("the manifest has {layers} layers and the configuration names {named}")))
    }

    /// Lays one layer, and holds it against its digest, unless that was done, and against that of what it unpacks to.
    fn lay(&mut self, blob: impl Read, digest: Option<&Digest>, diff: &Digest) -> Result<(), Fault> {
        self.progress.check()?;
        let rootfs = self.part.join("rootfs");
        let mut root = Root::open(&rootfs).map_err(|error| io_fault("open", &rootfs, &error))?;
        // What was verified before was counted then.
        let counted = if digest.is_some() { Counted::Yes } else { Counted::No };
        let mut reader = Hashed::new(blob, self.progress, counted);
        let laid = layer::lay(&mut root, &mut reader, self.limits.devices, &mut self.room);
        self.progress.check()?;
        if let Some(digest) = digest {
            io::copy(&mut reader, &mut io::sink())
                .map_err(|error| bad(format!("the layer cannot be read: {error}")))?;
            self.came += reader.came;
            // Bytes that are not those named explain whatever else is wrong.
            digest.check("a layer", &Digest::ended(reader.hash))?;
        }
        let laid = laid?;
        diff.check("an unpacked layer", &laid)
    }
}

fn bytes_of(layers: &[Descriptor]) -> u64 {
    layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
}

/// Follows indexes to the manifest for this machine.
fn resolve(
    top: &[u8],
    mut fetch: impl FnMut(&Descriptor) -> Result<Vec<u8>, Fault>,
) -> Result<(Descriptor, Vec<Descriptor>), Fault> {
    let mut document = Document::parse(top)?;
    for _ in 0..=oci::MAX_INDEX_DEPTH {
        let manifests = match document {
            Document::Manifest { config, layers } => return Ok((config, layers)),
            Document::Index(manifests) => manifests,
        };
        let one = oci::for_this_machine(&manifests)?;
        let text = fetch(one)?;
        one.digest.check("a manifest", &Digest::of(&text))?;
        document = Document::parse(&text)?;
    }
    Err(bad("the image's index leads to ever more indexes"))
}

/// The manifest or index that the layout's index names, the one of this tag if there are several.
fn top_document(files: &Files<'_>, tag: &str) -> Result<Vec<u8>, Fault> {
    const NAME: &str = "org.opencontainers.image.ref.name";
    let Document::Index(manifests) = Document::parse(&files.document("index.json")?)? else {
        return Err(bad("the layout's index.json is no index"));
    };
    let name = |one: &Descriptor| one.annotations.get(NAME).cloned().unwrap_or_default();
    let one = match (tag, &manifests[..]) {
        ("", [only]) => only,
        // Several without a word: one image for several machines, or several images.
        ("", several) if several.iter().all(|one| one.platform.is_some()) => oci::for_this_machine(several)?,
        _ => {
            let found = manifests.iter().find(|one| !tag.is_empty() && name(one) == tag);
            found.ok_or_else(|| which(manifests.iter().map(name).collect::<Vec<_>>().iter()))?
        }
    };
    blob_document(files, one)
}

fn which<'a>(names: impl Iterator<Item = &'a String>) -> Fault {
    let names: Vec<&str> = names.take(32).map(String::as_str).collect();
    let text = format!("the source holds several images; put # and a tag behind it: {}", names.join(", "));
    Fault::new(FaultCode::Invalid, text)
}

fn blob_document(files: &Files<'_>, one: &Descriptor) -> Result<Vec<u8>, Fault> {
    let text = files.document(&blob_name(&one.digest))?;
    one.digest.check("a document of the image", &Digest::of(&text))?;
    Ok(text)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn check_pin(pin: &str, found: &Digest) -> Result<(), Fault> {
    if pin.is_empty() || pin == found.hex() {
        return Ok(());
    }
    Err(bad(format!(
        "its SHA-256 is {}, {pin} was asked for; the source changed or is the wrong one",
        found.hex()
    )))
}

/// Whether bytes are of those that come, as far as the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    Yes,
    No,
}

/// Hashes and counts what passes, as long as the load shall go on.
struct Hashed<'a, R> {
    inner: R,
    hash: Sha256,
    came: u64,
    counted: Counted,
    progress: &'a Progress,
}

impl<'a, R> Hashed<'a, R> {
    fn new(inner: R, progress: &'a Progress, counted: Counted) -> Self {
        Hashed { inner, hash: Sha256::new(), came: 0, counted, progress }
    }
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.progress.check().map_err(|fault| io::Error::other(fault.message))?;
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.came += read as u64;
        if self.counted == Counted::Yes {
            self.progress.came(read as u64);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_cannot_be_do_not_overflow() {
        let digest = Digest::of(b"");
        let one = Descriptor { digest, size: u64::MAX, platform: None, annotations: Default::default() };
        assert_eq!(bytes_of(&[one.clone(), one]), u64::MAX);
    }
}
