//! The buffers of one download: each is used again when the connection has sent what was in it.
//!
//! Fresh memory is what costs a stream its speed: every page of it is first zeroed and then faulted in. Hence a
//! buffer comes back when its last reader lets go of it, and nothing in it is cleared; only what was filled is
//! given out. Zeros are one piece of memory that all share.
//! Deliberately absent: a limit; whoever reads ahead keeps a bounded queue.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes of a piece at most. A handful of them fit into a processor's cache on their way through.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// Where buffers come from and go back to.
#[derive(Debug)]
pub(super) struct Buffers {
    idle: Idle,
    zeros: Bytes,
}

type Idle = Arc<Mutex<Vec<Vec<u8>>>>;

impl Buffers {
    pub(super) fn new() -> Self {
        Buffers { idle: Idle::default(), zeros: Bytes::from(vec![0; PIECE_BYTES]) }
    }

    /// So many zeros, or a piece of them.
    pub(super) fn zeros(&self, most: u64) -> Bytes {
        self.zeros.slice(..within(most))
    }

    /// So many bytes, or a piece of them, as `fill` writes them.
    pub(super) fn filled(
        &self,
        most: u64,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<Bytes> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = idle.unwrap_or_else(|| vec![0; PIECE_BYTES]);
        let mut buffer = Buffer { bytes, length: within(most), idle: Arc::clone(&self.idle) };
        fill(&mut buffer.bytes[..buffer.length])?;
        Ok(Bytes::from_owner(buffer))
    }

    /// A piece of a file. What lies beyond its end reads as zeros, as QEMU has it.
    pub(super) fn of_file(&self, file: &File, offset: u64, most: u64) -> io::Result<Bytes> {
        self.filled(most, |buffer| {
            let mut filled = 0;
            while filled < buffer.len() {
                match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            buffer[filled..].fill(0);
            Ok(())
        })
    }
}

fn within(most: u64) -> usize {
    usize::try_from(most).map_or(PIECE_BYTES, |most| most.min(PIECE_BYTES))
}

/// A buffer that goes home when it is dropped.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    idle: Idle,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // A list of buffers is sound whatever its last user did.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_shows_nothing_of_before() {
        let buffers = Buffers::new();
        let sevens = |buffer: &mut [u8]| {
            buffer.fill(7);
            Ok(())
        };
        let first = buffers.filled(10, sevens).unwrap();
        let place = first.as_ptr();
        assert_eq!(&first[..], [7; 10]);
        drop(first);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        let second = buffers.of_file(&file, 1, 6).unwrap();
        assert_eq!((second.as_ptr(), &second[..]), (place, &b"bc\0\0\0\0"[..]));
        let third = buffers.filled(4, |_| Ok(())).unwrap();
        assert_ne!(third.as_ptr(), place, "the second is still being read");
    }

    #[test]
    fn a_piece_has_its_limit() {
        let buffers = Buffers::new();
        assert_eq!(buffers.zeros(u64::MAX).len(), PIECE_BYTES);
        assert_eq!(buffers.zeros(3), vec![0; 3]);
        assert_eq!(buffers.filled(u64::MAX, |_| Ok(())).unwrap().len(), PIECE_BYTES);
    }
}
