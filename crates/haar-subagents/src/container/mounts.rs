//! Mounts: an overlay per running container, and what is mounted below a folder.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts an overlay file system at `at`, unless one is there. The paths hold no comma, colon or backslash.
pub(super) fn overlay(lower: &Path, upper: &Path, work: &Path, at: &Path, flags: MsFlags) -> io::Result<()> {
    if is_mounted(at)? {
        return Ok(());
    }
    let mut options = OsString::from("lowerdir=");
    for (word, path) in [("", lower), (",upperdir=", upper), (",workdir=", work)] {
        options.push(word);
        options.push(path);
    }
    mount(Some("overlay"), at, Some("overlay"), flags, Some(options.as_os_str())).map_err(io::Error::from)
}

/// Mounts these folders over each other, the first on top, for nobody to write to. The paths are as for [`overlay`].
pub(super) fn stack(folders: &[&Path], at: &Path, flags: MsFlags) -> io::Result<()> {
    let mut options = OsString::from("lowerdir=");
    for (number, folder) in folders.iter().enumerate() {
        options.push(if number > 0 { ":" } else { "" });
        options.push(folder);
    }
    let flags = flags | MsFlags::MS_RDONLY;
    mount(Some("overlay"), at, Some("overlay"), flags, Some(options.as_os_str())).map_err(io::Error::from)
}

/// Whether something is mounted exactly there.
pub(super) fn is_mounted(at: &Path) -> io::Result<bool> {
    Ok(below(at)?.iter().any(|mounted| mounted == at))
}

/// Takes away everything mounted at this path or below it, the last mounted first.
pub(super) fn unmount_below(path: &Path) -> io::Result<()> {
    for mounted in below(path)?.iter().rev() {
        // Lazily, for a process that somebody has put there may hold it; nothing new finds the way in.
        match umount2(mounted, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What is mounted at this path or below it, in the order of mounting.
fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(points(&table).filter(|point| point.starts_with(path)).collect())
}

fn points(table: &[u8]) -> impl Iterator<Item = PathBuf> {
    let point = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescape);
    table.split(|byte| *byte == b'\n').filter_map(point)
}

/// The kernel writes what would break its lines as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Whether a path can stand in a mount's options.
pub(super) fn is_plain(path: &Path) -> bool {
    !path.as_os_str().as_bytes().iter().any(|byte| b",:\\\n\"".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read_with_its_escapes() {
        let table = b"21 1 0:5 / /proc rw - proc proc rw\n22 1 0:6 / /a\\040b/c rw - overlay overlay rw\n";
        let found: Vec<PathBuf> = points(table).collect();
        assert_eq!(found, [PathBuf::from("/proc"), PathBuf::from("/a b/c")]);
    }

    #[test]
    fn nothing_is_mounted_in_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_mounted(folder.path()).unwrap());
        unmount_below(folder.path()).unwrap();
    }
}
