//! The heads of a tar archive of large files, enough for every tar to read.
//!
//! Sizes over 8 GiB are written in the binary form that GNU tar began and all others took over. Deliberately
//! absent: sparse files, links, folders.

const BLOCK: u64 = 512;
/// The largest size that eleven octal digits hold.
const MOST_OCTAL: u64 = (1 << 33) - 1;

/// The head of a regular file that only root may read. The name has at most 100 bytes.
pub(super) fn head(name: &str, size: u64, modified_s: u64) -> Vec<u8> {
    let mut head = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size <= MOST_OCTAL {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, format!("{:011o}\0", modified_s.min(MOST_OCTAL)).as_bytes());
    // The sum counts its own field as spaces.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

/// Zeros that follow a file of so many bytes.
pub(super) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// Zeros at the end of the archive.
pub(super) const END: u64 = 2 * BLOCK;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_every_magnitude_are_written() {
        assert_eq!(&head("a", 10, 0)[124..136], b"00000000012\0");
        let large = head("a", 20 << 30, 0);
        assert_eq!((large[124], &large[128..136]), (0x80, &(20_u64 << 30).to_be_bytes()[..]));
        assert_eq!((padding(0), padding(1), padding(512)), (0, 511, 0));
    }
}
