//! The folder that the layers of an image are laid into, one over the other, as root and from an unknown hand.
//!
//! Promised: nothing outside the folder is read or changed, whatever names, links and whiteouts say. Every folder on
//! the way is opened by the kernel with `RESOLVE_IN_ROOT`: a symlink in it is followed as the container would follow
//! it, with this folder as `/`. The last part of a name is never followed. Depth and length of names are bounded.
//! What is remembered of a layer is small, however many entries it has and however long their names are.
//! Deliberately absent: what an entry holds, and how much of it: see [`super::layer`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};

use super::own::Own;

/// Folders that may lie in each other.
const MAX_DEPTH: usize = 128;
const MAX_PATH_BYTES: usize = 4096;
const MAX_NAME_BYTES: usize = 255;
/// Names of folders that are remembered for their time.
const MAX_TIMED_BYTES: usize = 64 << 20;

/// Why an entry cannot be laid.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It may not be.
    #[error("{0}")]
    Unsafe(String),
    /// The system refuses.
    #[error("cannot unpack {path:?}: {source}")]
    Io {
        /// The entry.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Whose an entry is, what may be done with it, and from when it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The twelve lowest bits count.
    pub(super) mode: u32,
    /// Seconds since 1970.
    pub(super) modified_s: i64,
}

/// A name inside the folder: its folders, then its own part. Empty for the folder itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(Vec<OsString>);

impl Name {
    /// Reads a name of an archive, which may begin with `./`.
    pub(super) fn read(bytes: &[u8]) -> Result<Name, Error> {
        let refuse = |why: &str| {
            let shown: String = String::from_utf8_lossy(bytes).chars().take(80).collect();
            Err(Error::Unsafe(format!("the layer's entry {shown:?} {why}")))
        };
        if bytes.len() > MAX_PATH_BYTES {
            return refuse("has a name that is too long");
        }
        if bytes.starts_with(b"/") {
            return refuse("has an absolute name");
        }
        if bytes.contains(&0) {
            return refuse("has a zero byte in its name");
        }
        let mut parts = Vec::new();
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return refuse("leads out of its folder"),
                part if part.len() > MAX_NAME_BYTES => return refuse("has a name that is too long"),
                part => parts.push(OsString::from_vec(part.to_vec())),
            }
        }
        if parts.len() > MAX_DEPTH {
            return refuse("lies too deep");
        }
        Ok(Name(parts))
    }

    /// The folders and the own part; none for the root.
    fn split(&self) -> Option<(&[OsString], &OsStr)> {
        self.0.split_last().map(|(last, folders)| (folders, last.as_os_str()))
    }

    /// The own part.
    pub(super) fn last(&self) -> Option<&[u8]> {
        self.0.last().map(|last| last.as_bytes())
    }

    fn path(&self) -> PathBuf {
        self.0.iter().collect()
    }
}

/// An opened folder of the tree, with its true name.
struct Parent {
    fd: OwnedFd,
    inode: u64,
    path: PathBuf,
}

/// Whether what the present layer laid goes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Lower,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    /// As the kernel names it.
    path: PathBuf,
    /// A whiteout does not concern them.
    own: Own,
    /// When folders were changed, set once nothing is laid into them any more.
    folder_times: BTreeMap<PathBuf, i64>,
    timed_bytes: usize,
}

impl Root {
    /// Opens an existing folder, which is no symlink.
    pub(super) fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty())?;
        let path = true_path(&fd)?;
        Ok(Root { fd, path, own: Own::default(), folder_times: BTreeMap::new(), timed_bytes: 0 })
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// From here on another layer is laid.
    pub(super) fn end_layer(&mut self) -> Result<(), Error> {
        self.own.clear();
        self.timed_bytes = 0;
        for (path, modified_s) in std::mem::take(&mut self.folder_times) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // A later entry or whiteout may have taken it away.
            if let Ok(folder) = self.resolve(&path, flags) {
                fs::futimens(&folder, &times(modified_s)).map_err(failed(&path))?;
            }
        }
        Ok(())
    }

    pub(super) fn folder(&mut self, name: &Name, facts: Facts) -> Result<(), Error> {
        let path = name.path();
        let Some((folders, last)) = name.split() else {
            let root = self.resolve(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY);
            return set_facts(&root.map_err(failed(&path))?, facts).map_err(failed(&path));
        };
        let parent = self.parent(folders, &path)?;
        if self.kind(&parent, last, &path)? != Some(FileType::Directory) {
            self.clear(&parent, last, &path)?;
            fs::mkdirat(&parent.fd, last, Mode::RWXU).map_err(failed(&path))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = fs::openat(&parent.fd, last, flags, Mode::empty()).map_err(failed(&path))?;
        set_facts(&folder, facts).map_err(failed(&path))?;
        self.own.insert(parent.inode, last);
        self.note_time(parent.path.join(last), facts.modified_s);
        Ok(())
    }

    /// Makes an empty file; its facts are set once it is full.
    pub(super) fn file(&mut self, name: &Name) -> Result<File, Error> {
        let path = name.path();
        let (parent, last) = self.place(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&parent.fd, &last, flags, Mode::RUSR | Mode::WUSR).map_err(failed(&path))?;
        self.own.insert(parent.inode, &last);
        Ok(File::from(file))
    }

    /// Sets what a full file is; extended attributes come last, for a change of owner takes capabilities away.
    pub(super) fn finish(
        name: &Name,
        file: &File,
        facts: Facts,
        attributes: &[(String, Vec<u8>)],
    ) -> Result<(), Error> {
        let set = || {
            set_facts(file, facts)?;
            for (key, value) in attributes {
                fs::fsetxattr(file, key.as_str(), value, XattrFlags::empty())?;
            }
            fs::futimens(file, &times(facts.modified_s))
        };
        set().map_err(failed(&name.path()))
    }

    /// Gives a folder that was laid extended attributes.
    pub(super) fn mark(&self, name: &Name, attributes: &[(String, Vec<u8>)]) -> Result<(), Error> {
        if attributes.is_empty() {
            return Ok(());
        }
        let path = name.path();
        let set = || {
            let folder = self.resolve(&path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)?;
            for (key, value) in attributes {
                fs::fsetxattr(&folder, key.as_str(), value, XattrFlags::empty())?;
            }
            Ok(())
        };
        set().map_err(failed(&path))
    }

    /// Makes a symlink; where it points is looked at by nobody here.
    pub(super) fn symlink(&mut self, name: &Name, target: &[u8], facts: Facts) -> Result<(), Error> {
        let path = name.path();
        if target.is_empty() || target.len() >= MAX_PATH_BYTES || target.contains(&0) {
            return Err(Error::Unsafe(format!("the layer's symlink {path:?} has no target that can be")));
        }
        let (parent, last) = self.place(name)?;
        let make = || {
            fs::symlinkat(OsStr::from_bytes(target), &parent.fd, &last)?;
            set_owner(&parent.fd, &last, facts)?;
            fs::utimensat(&parent.fd, &last, &times(facts.modified_s), AtFlags::SYMLINK_NOFOLLOW)
        };
        make().map_err(failed(&path))?;
        self.own.insert(parent.inode, &last);
        Ok(())
    }

    /// Gives a file or symlink that is there a second name.
    pub(super) fn hard_link(&mut self, name: &Name, target: &Name) -> Result<(), Error> {
        let path = name.path();
        let refuse = || {
            let target = target.path();
            Err(Error::Unsafe(format!(
                "the layer's entry {path:?} is a link to {target:?}, which is no file"
            )))
        };
        let Some((folders, target_last)) = target.split() else { return refuse() };
        let Ok(source) = self.resolve_folder(folders) else { return refuse() };
        if !matches!(self.kind(&source, target_last, &path)?, Some(FileType::RegularFile | FileType::Symlink))
        {
            return refuse();
        }
        if name == target {
            return Ok(());
        }
        let (parent, last) = self.place(name)?;
        fs::linkat(&source.fd, target_last, &parent.fd, &last, AtFlags::empty()).map_err(failed(&path))?;
        self.own.insert(parent.inode, &last);
        Ok(())
    }

    /// Makes a FIFO or, for whoever has allowed that, a device.
    pub(super) fn special(
        &mut self,
        name: &Name,
        kind: FileType,
        device: u64,
        facts: Facts,
    ) -> Result<(), Error> {
        let path = name.path();
        let (parent, last) = self.place(name)?;
        let make = || {
            fs::mknodat(&parent.fd, &last, kind, Mode::RUSR | Mode::WUSR, device)?;
            set_owner(&parent.fd, &last, facts)?;
            // Nobody else is in this folder: what was just made there is no symlink.
            fs::chmodat(&parent.fd, &last, mode(facts), AtFlags::empty())?;
            fs::utimensat(&parent.fd, &last, &times(facts.modified_s), AtFlags::SYMLINK_NOFOLLOW)
        };
        make().map_err(failed(&path))?;
        self.own.insert(parent.inode, &last);
        Ok(())
    }

    /// Removes what lower layers laid under this name; what is not there is fine.
    pub(super) fn white_out(&mut self, name: &Name) -> Result<(), Error> {
        let path = name.path();
        let Some((folders, last)) = name.split() else { return Ok(()) };
        let Ok(parent) = self.resolve_folder(folders) else { return Ok(()) };
        self.remove(&parent.fd, parent.inode, last, Which::Lower).map(drop).map_err(failed(&path))
    }

    /// Removes all that lower layers laid into this folder; a folder that is not there is fine.
    pub(super) fn white_out_all(&mut self, folder: &Name) -> Result<(), Error> {
        let path = folder.path();
        let Ok(folder) = self.resolve_folder(&folder.0) else { return Ok(()) };
        self.remove_inside(&folder.fd, folder.inode, Which::Lower).map(drop).map_err(failed(&path))
    }

    /// Answers whether the folder is empty then.
    fn remove_inside(&mut self, folder: &OwnedFd, inode: u64, which: Which) -> rustix::io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut is_empty = true;
        for entry in fs::Dir::new(fs::openat(folder, ".", flags, Mode::empty())?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                is_empty &= self.remove(folder, inode, OsStr::from_bytes(name), which)?;
            }
        }
        Ok(is_empty)
    }

    /// Answers whether nothing of this name is there then. As deep as folders may lie, which is bounded.
    fn remove(
        &mut self,
        parent: &OwnedFd,
        inode: u64,
        last: &OsStr,
        which: Which,
    ) -> rustix::io::Result<bool> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let stays = which == Which::Lower && self.own.contains(inode, last);
        let kind = match fs::openat(parent, last, flags, Mode::empty()) {
            Ok(folder) => {
                let inner = fs::fstat(&folder)?.st_ino;
                if !self.remove_inside(&folder, inner, which)? {
                    return Ok(false);
                }
                AtFlags::REMOVEDIR
            }
            Err(rustix::io::Errno::NOENT) => return Ok(true),
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => AtFlags::empty(),
            Err(error) => return Err(error),
        };
        if stays {
            return Ok(false);
        }
        fs::unlinkat(parent, last, kind)?;
        self.own.forget(inode, last);
        Ok(true)
    }

    /// Makes the place of a new entry free.
    fn place(&mut self, name: &Name) -> Result<(Parent, OsString), Error> {
        let path = name.path();
        let Some((folders, last)) = name.split() else {
            return Err(Error::Unsafe("the layer's root is no folder".to_owned()));
        };
        let parent = self.parent(folders, &path)?;
        self.clear(&parent, last, &path)?;
        Ok((parent, last.to_owned()))
    }

    fn clear(&mut self, parent: &Parent, last: &OsStr, path: &Path) -> Result<(), Error> {
        // Of a folder all goes, also what this layer laid into it.
        self.remove(&parent.fd, parent.inode, last, Which::All).map(drop).map_err(failed(path))
    }

    fn kind(&self, parent: &Parent, last: &OsStr, path: &Path) -> Result<Option<FileType>, Error> {
        match fs::statat(&parent.fd, last, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode as RawMode))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(path)(error)),
        }
    }

    /// Opens the folder an entry lies in, and makes those that no entry has named.
    fn parent(&mut self, folders: &[OsString], path: &Path) -> Result<Parent, Error> {
        if let Ok(parent) = self.resolve_folder(folders) {
            return self.shallow(parent, path);
        }
        let mut parent = self.resolve_folder(&[]).map_err(failed(path))?;
        for depth in 1..=folders.len() {
            parent = match self.resolve_folder(&folders[..depth]) {
                Ok(folder) => folder,
                Err(rustix::io::Errno::NOENT) => {
                    let last = &folders[depth - 1];
                    parent = self.shallow(parent, path)?;
                    // A symlink that leads nowhere is there already, and stays.
                    fs::mkdirat(&parent.fd, last, Mode::from_raw_mode(0o755)).map_err(failed(path))?;
                    self.own.insert(parent.inode, last);
                    self.resolve_folder(&folders[..depth]).map_err(failed(path))?
                }
                Err(error) => return Err(failed(path)(error)),
            };
        }
        self.shallow(parent, path)
    }

    /// Refuses a folder that lies too deep for another entry, whatever symlinks its name led through.
    fn shallow(&self, parent: Parent, path: &Path) -> Result<Parent, Error> {
        let inside = parent.path.strip_prefix(&self.path).unwrap_or(&parent.path);
        if inside.components().count() < MAX_DEPTH {
            return Ok(parent);
        }
        Err(Error::Unsafe(format!("the layer's entry {path:?} lies too deep")))
    }

    fn resolve_folder(&self, folders: &[OsString]) -> rustix::io::Result<Parent> {
        let name: PathBuf = folders.iter().collect();
        let name = if folders.is_empty() { Path::new(".") } else { &name };
        let fd = self.resolve(name, OFlags::PATH | OFlags::DIRECTORY)?;
        let (path, inode) = (true_path(&fd)?, fs::fstat(&fd)?.st_ino);
        Ok(Parent { fd, inode, path })
    }

    fn resolve(&self, name: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let name = name.strip_prefix(&self.path).unwrap_or(name);
        let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
        fs::openat2(&self.fd, name, flags | OFlags::CLOEXEC, Mode::empty(), inside)
    }

    /// Beyond the bound a folder keeps the time at which it was laid.
    fn note_time(&mut self, path: PathBuf, modified_s: i64) {
        let bytes = path.as_os_str().len();
        if self.timed_bytes + bytes <= MAX_TIMED_BYTES {
            self.timed_bytes += bytes;
            self.folder_times.insert(path, modified_s);
        }
    }
}

fn true_path(fd: &OwnedFd) -> rustix::io::Result<PathBuf> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = fs::readlinkat(fs::CWD, link, Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

fn set_facts(file: impl AsFd, facts: Facts) -> rustix::io::Result<()> {
    let (owner, group) = owner(facts);
    fs::fchown(&file, owner, group)?;
    // After the owner: a change of it takes the bits of setuid away.
    fs::fchmod(&file, mode(facts))
}

fn set_owner(parent: &OwnedFd, last: &OsStr, facts: Facts) -> rustix::io::Result<()> {
    let (owner, group) = owner(facts);
    fs::chownat(parent, last, owner, group, AtFlags::SYMLINK_NOFOLLOW)
}

fn owner(facts: Facts) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(facts.uid)), Some(Gid::from_raw(facts.gid)))
}

fn mode(facts: Facts) -> Mode {
    Mode::from_raw_mode(facts.mode & 0o7777)
}

fn times(modified_s: i64) -> Timestamps {
    let time = Timespec { tv_sec: modified_s, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn failed(path: &Path) -> impl FnOnce(rustix::io::Errno) -> Error {
    let path = path.to_owned();
    move |error| Error::Io { path, source: error.into() }
}
