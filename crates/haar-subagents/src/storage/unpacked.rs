//! What an image service gives: an image as it is or compressed with gzip, and nobody says which, nor its format.
//!
//! Told by how it begins, as the originals do (`mistify-wire` §2.12). The format is looked for in what an operator's
//! service gives and never in what a guest wrote. Deliberately absent: ZFS streams, which only a pool can take.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use haar_api::rpc::{Fault, FaultCode};

use super::folders::io_fault;

const GZIP: &[u8] = &[0x1f, 0x8b];
const QCOW2: &[u8] = b"QFI\xfb";
/// How a ZFS stream tells itself from its ninth byte on, in one order of bytes or the other.
const ZFS: [[u8; 8]; 2] = [0x0002_f5ba_cbac_u64.to_le_bytes(), 0x0002_f5ba_cbac_u64.to_be_bytes()];
/// So much is unpacked at a time: a byte of gzip can stand for a thousand.
const PIECE: usize = 16 << 10;

/// A stream on its way, unpacked if it is packed.
#[derive(Default)]
pub(super) enum Unpacked {
    /// Nothing has come yet.
    #[default]
    Unknown,
    Plain,
    Gzip(Gzip),
    Ended,
}

impl Unpacked {
    /// What comes next; none at the end.
    pub(super) fn next(
        &mut self,
        next: &mut impl FnMut() -> Result<Option<Bytes>, Fault>,
    ) -> Result<Option<Bytes>, Fault> {
        if let Self::Unknown = self {
            let first = beginning(next)?;
            if !first.starts_with(GZIP) {
                *self = Self::Plain;
                return Ok(Some(first).filter(|first| !first.is_empty()));
            }
            *self = Self::Gzip(Gzip { decoder: Box::new(MultiGzDecoder::new(Vec::new())), rest: first });
        }
        match self {
            Self::Gzip(gzip) => {
                if let Some(unpacked) = gzip.next(next)? {
                    return Ok(Some(unpacked));
                }
                let Self::Gzip(gzip) = std::mem::replace(self, Self::Ended) else { return Ok(None) };
                gzip.end()
            }
            Self::Ended => Ok(None),
            Self::Plain | Self::Unknown => next(),
        }
    }
}

/// So much that it can be told what it is, if so much comes.
fn beginning(next: &mut impl FnMut() -> Result<Option<Bytes>, Fault>) -> Result<Bytes, Fault> {
    let mut first = Bytes::new();
    while first.len() < GZIP.len() {
        let Some(more) = next()? else { break };
        first = if first.is_empty() { more } else { [first, more].concat().into() };
    }
    Ok(first)
}

/// A gzip that is being unpacked.
pub(super) struct Gzip {
    decoder: Box<MultiGzDecoder<Vec<u8>>>,
    /// What has come and is still packed.
    rest: Bytes,
}

impl Gzip {
    /// None when nothing comes any more.
    fn next(
        &mut self,
        next: &mut impl FnMut() -> Result<Option<Bytes>, Fault>,
    ) -> Result<Option<Bytes>, Fault> {
        loop {
            if self.rest.is_empty() {
                let Some(more) = next()? else { return Ok(None) };
                self.rest = more;
            }
            let piece = self.rest.split_to(self.rest.len().min(PIECE));
            self.decoder.write_all(&piece).map_err(|error| broken(&error))?;
            let unpacked = std::mem::take(self.decoder.get_mut());
            if !unpacked.is_empty() {
                return Ok(Some(unpacked.into()));
            }
        }
    }

    /// The last of it, once it is known to be whole.
    fn end(mut self) -> Result<Option<Bytes>, Fault> {
        self.decoder.try_finish().map_err(|error| broken(&error))?;
        let last = std::mem::take(self.decoder.get_mut());
        Ok((!last.is_empty()).then(|| last.into()))
    }
}

fn broken(error: &io::Error) -> Fault {
    Fault::new(FaultCode::BadImage, format!("what the image service gives is no whole gzip: {error}"))
}

/// The format of a file that came so.
pub(super) fn format(path: &Path) -> Result<&'static str, Fault> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    read.map_err(|error| io_fault("read", path, &error))?;
    if head.get(8..).is_some_and(|magic| ZFS.iter().any(|zfs| zfs == magic)) {
        let text = "what the image service gives is a ZFS stream; give it the image as qcow2 or raw";
        return Err(Fault::new(FaultCode::BadImage, text));
    }
    Ok(if head.starts_with(QCOW2) { "qcow2" } else { "raw" })
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn all(pieces: &[&[u8]]) -> Result<Vec<u8>, Fault> {
        let mut pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece));
        let mut next = || Ok(pieces.next());
        let (mut unpacked, mut out) = (Unpacked::default(), Vec::new());
        while let Some(bytes) = unpacked.next(&mut next)? {
            assert!(!bytes.is_empty() && bytes.len() < 32 << 20, "{} bytes at a time", bytes.len());
            out.extend_from_slice(&bytes);
        }
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_packed_is_unpacked_however_it_is_cut() {
        let plain = [b"an image".as_slice(), &vec![0; 40 << 20]].concat();
        let packed = gzip(&plain);
        assert!(all(&[&packed]).unwrap() == plain);
        let (first, rest) = packed.split_at(1);
        assert!(all(&[first, rest]).unwrap() == plain);
        let pieces: Vec<&[u8]> = packed.chunks(7).collect();
        assert!(all(&pieces).unwrap() == plain);
        assert!(all(&[&packed, &gzip(b"more")]).unwrap() == [&plain, b"more".as_slice()].concat());
    }

    #[test]
    fn what_is_not_packed_is_left_as_it_is() {
        for plain in [b"".as_slice(), b"\x1f", b"QFI\xfb and more"] {
            assert_eq!(all(&[plain]).unwrap(), plain);
        }
        assert_eq!(all(&[b"\x1f", b"a", b"b"]).unwrap(), b"\x1fab");
    }

    #[test]
    fn half_a_gzip_is_no_image() {
        let packed = gzip(b"an image");
        assert_eq!(all(&[&packed[..packed.len() - 3]]).unwrap_err().code, FaultCode::BadImage);
        assert_eq!(all(&[b"\x1f\x8b and nonsense"]).unwrap_err().code, FaultCode::BadImage);
    }

    #[test]
    fn the_format_is_told_by_how_it_begins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let zfs = [[0; 8], ZFS[0]].concat();
        for (bytes, expected) in [(b"QFI\xfb".as_slice(), Some("qcow2")), (b"", Some("raw")), (&zfs, None)] {
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(format(file.path()).ok(), expected);
        }
    }
}
