//! Checks every page of a store against its checksum without writing a byte to it.
//!
//! redb's own opening writes (it marks the file as in use, and repairs), and it believes pages it has not
//! checked. So the check opens the file through an overlay that keeps all writes in memory: what a power
//! cut left is recovered there first, as the real opening will do, and then all of it is verified.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{BackendError, Database, StorageBackend};

use super::layout;
use crate::Error;

/// Says whether the store in `backend` is whole and of a format this program reads.
pub(super) fn check(backend: Box<dyn StorageBackend>, path: &Path, cache_bytes: usize) -> Result<(), Error> {
    // Damage can make redb's parsers panic: to the operator, damage like any other.
    catch_unwind(AssertUnwindSafe(|| check_pages(backend, path, cache_bytes)))
        .unwrap_or_else(|_| Err(corrupt(path, "its pages make no sense")))
}

fn check_pages(backend: Box<dyn StorageBackend>, path: &Path, cache_bytes: usize) -> Result<(), Error> {
    let overlay = Overlay::new(backend).map_err(|error| Error::from_io(path, "read", error))?;
    let mut database = Database::builder()
        .set_cache_size(cache_bytes)
        .create_with_backend(overlay)
        .map_err(|error| Error::from_redb(path, "open", error))?;
    match database.check_integrity() {
        Ok(true) => layout::check_format(&database, path),
        Ok(false) => Err(corrupt(path, "its free space does not match what is in use")),
        Err(error) => Err(Error::from_redb(path, "check", error)),
    }
}

fn corrupt(path: &Path, why: &str) -> Error {
    Error::Corrupt { path: path.to_path_buf(), why: why.into() }
}

const BLOCK: u64 = 4096;

/// A backend that reads from another one and writes to memory. Locks are those of the other.
#[derive(Debug)]
struct Overlay {
    base: Box<dyn StorageBackend>,
    layer: Mutex<Layer>,
}

struct Layer {
    length: u64,
    /// Up to where the base may still be read: cutting and growing leaves zeros, not the old bytes.
    base_length: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK as usize]>>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Layer").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Overlay {
    fn new(base: Box<dyn StorageBackend>) -> io::Result<Self> {
        let length = base.len()?;
        let layer = Layer { length, base_length: length, blocks: BTreeMap::new() };
        Ok(Self { base, layer: Mutex::new(layer) })
    }

    fn layer(&self) -> MutexGuard<'_, Layer> {
        self.layer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `out` from the base at `offset`, with zeros beyond its end.
    fn read_base(&self, layer: &Layer, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let available = layer.base_length.saturating_sub(offset).min(out.len() as u64) as usize;
        if available > 0 {
            self.base.read(offset, &mut out[..available])?;
        }
        out[available..].fill(0);
        Ok(())
    }
}

/// Cuts `length` bytes at `offset` into pieces that each lie in one block: (block, start in it, length).
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset + length as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (block, start) = (at / BLOCK, at % BLOCK);
        let size = (BLOCK - start).min(end - at);
        at += size;
        Some((block, start as usize, size as usize))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.layer().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let layer = self.layer();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > layer.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_base(&layer, offset, out)?;
        let mut done = 0;
        for (block, start, size) in pieces(offset, out.len()) {
            if let Some(written) = layer.blocks.get(&block) {
                out[done..done + size].copy_from_slice(&written[start..start + size]);
            }
            done += size;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        let mut layer = self.layer();
        layer.base_length = layer.base_length.min(len);
        layer.length = len;
        let kept_blocks = len.div_ceil(BLOCK);
        layer.blocks.retain(|block, _| *block < kept_blocks);
        if let Some(last) = layer.blocks.get_mut(&(len / BLOCK)) {
            last[(len % BLOCK) as usize..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let mut layer = self.layer();
        let mut done = 0;
        for (block, start, size) in pieces(offset, data.len()) {
            if !layer.blocks.contains_key(&block) {
                let mut fresh = Box::new([0; BLOCK as usize]);
                self.read_base(&layer, block * BLOCK, fresh.as_mut_slice())?;
                layer.blocks.insert(block, fresh);
            }
            if let Some(content) = layer.blocks.get_mut(&block) {
                content[start..start + size].copy_from_slice(&data[done..done + size]);
            }
            done += size;
        }
        layer.length = layer.length.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> Result<(), io::Error> {
        self.base.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn an_overlay_shows_its_writes_and_leaves_the_base_alone() {
        let base = InMemoryBackend::new();
        base.set_len(10_000).unwrap();
        base.write(0, &[7; 10_000]).unwrap();
        let overlay = Overlay::new(Box::new(base)).unwrap();
        overlay.write(4_000, &[1; 5_000]).unwrap();
        overlay.set_len(8_500).unwrap();
        overlay.set_len(9_500).unwrap();
        let mut seen = vec![0; 9_500];
        overlay.read(0, &mut seen).unwrap();
        assert!(seen[..4_000].iter().all(|byte| *byte == 7));
        assert!(seen[4_000..8_500].iter().all(|byte| *byte == 1));
        assert!(seen[8_500..].iter().all(|byte| *byte == 0), "what was cut off does not come back");
        assert!(overlay.read(9_499, &mut [0; 2]).is_err());
        let mut kept = vec![0; 10_000];
        overlay.base.read(0, &mut kept).unwrap();
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
