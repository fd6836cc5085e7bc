//! Removing a folder that a stranger filled, however deep its folders lie in each other.
//!
//! Promised: a fixed number of open files and of calls in each other, no symlink followed, nothing touched that is
//! mounted there. What lies deeper is lifted to the top, so that it lies deep no more. A removal that was cut off goes on
//! when it is asked again.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Folders that are open in each other. A rename to another folder is dear on some file systems, hence not one only.
const MAX_LEVELS: usize = 32;

/// Removes a folder with all that is in it.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = fs::open(path, flags, Mode::empty())?;
    Lifting { top: &top, number: 0 }.empty(&top, 0)?;
    Ok(fs::unlinkat(fs::CWD, path, AtFlags::REMOVEDIR)?)
}

struct Lifting<'a> {
    top: &'a OwnedFd,
    /// For the next name at the top.
    number: u64,
}

impl Lifting<'_> {
    /// Removes all that is in a folder, which lies so many levels below the top.
    fn empty(&mut self, folder: &OwnedFd, level: usize) -> rustix::io::Result<()> {
        let mut remove = |name: &CStr| match remove_file(folder, name)? {
            Removed::Yes => Ok(()),
            Removed::IsFolder if level < MAX_LEVELS => self.remove_level(folder, name, level + 1),
            Removed::IsFolder => self.lift(folder, name),
        };
        // What was lifted meanwhile may have been listed, or not.
        while each(folder, &mut remove)? > 0 {}
        Ok(())
    }

    fn remove_level(&mut self, parent: &OwnedFd, name: &CStr, level: usize) -> rustix::io::Result<()> {
        match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let folder = fs::openat2(parent, name, flags, Mode::empty(), here)?;
        self.empty(&folder, level)?;
        fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
    }

    /// Gives a folder a free name at the top.
    fn lift(&mut self, from: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        loop {
            self.number += 1;
            match fs::renameat(from, name, self.top, format!(".lifted-{}", self.number)) {
                // A stranger's, or of a removal that was cut off.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                renamed => return renamed,
            }
        }
    }
}

enum Removed {
    Yes,
    IsFolder,
}

fn remove_file(folder: &OwnedFd, name: &CStr) -> rustix::io::Result<Removed> {
    match fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removed::Yes),
        Err(Errno::ISDIR) => Ok(Removed::IsFolder),
        Err(error) => Err(error),
    }
}

/// Acts on every name in a folder, and answers how many there were.
fn each(folder: &OwnedFd, mut act: impl FnMut(&CStr) -> rustix::io::Result<()>) -> rustix::io::Result<usize> {
    let mut count = 0;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            act(name)?;
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::fs as files;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_of_any_depth_is_removed() {
        // In memory, where a folder is made and removed at once.
        let temp = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let top = temp.path().join("top");
        files::create_dir(&top).unwrap();
        // Far deeper than files may be open, and than a stack holds.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut folder = fs::open(&top, flags, Mode::empty()).unwrap();
        for _ in 0..20_000 {
            fs::mkdirat(&folder, "d", Mode::RWXU).unwrap();
            fs::mkdirat(&folder, ".lifted-1", Mode::RWXU).unwrap();
            fs::symlinkat("/", &folder, "link").unwrap();
            folder = fs::openat(&folder, "d", flags, Mode::empty()).unwrap();
        }
        drop(folder);
        remove_folder(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn what_a_link_leads_to_stays() {
        let temp = tempfile::tempdir().unwrap();
        let (top, outside) = (temp.path().join("top"), temp.path().join("outside"));
        files::create_dir_all(top.join("a/b/c")).unwrap();
        files::create_dir(&outside).unwrap();
        files::write(outside.join("kept"), "x").unwrap();
        for at in ["link", "a/link", "a/b/c/link"] {
            symlink(&outside, top.join(at)).unwrap();
        }
        files::hard_link(outside.join("kept"), top.join("a/b/file")).unwrap();
        remove_folder(&top).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
        symlink(&outside, &top).unwrap();
        assert!(remove_folder(&top).is_err(), "a link is no folder");
    }
}
