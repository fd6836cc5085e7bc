//! A file on a server while it is being written: beside its place, and moved there when it is whole.
//!
//! Promises: however a transfer ends, the name has the old file or the whole new one; what was begun is removed
//! again, also when the caller goes away; links are followed, a file that was there keeps its owner. What is no
//! plain file, and what lies where nothing may be made beside it, is written to in place. Deliberately absent:
//! parts that a lost connection leaves behind, which nobody can reach any more.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use russh_sftp::protocol::{FileAttributes, OpenFlags};
use tokio::time::timeout;

use super::sftp::{Sftp, parent};
use crate::{Error, FileFault, Result};

/// The bits of a mode that tell what a file is, and those of a plain one.
const KIND: u32 = 0o170_000;
const PLAIN: u32 = 0o100_000;
/// So much of a name goes into the name of its part: names have 255 bytes.
const NAME_KEPT: usize = 200;
/// How long a server may take to remove a part.
const REMOVING: Duration = Duration::from_secs(10);

/// A file that is being written. Dropped before its end, it is gone again.
pub(super) struct Draft {
    sftp: Arc<Sftp>,
    /// As the caller has it, for messages.
    remote: String,
    handle: String,
    /// What is written to in place of the file itself, and where it goes in the end.
    beside: Option<(String, String)>,
    is_open: bool,
}

impl Draft {
    /// Opens what is to become `remote`, with the permissions it is to have.
    pub(super) async fn begin(sftp: &Arc<Sftp>, remote: &str, mode: u32) -> Result<Self> {
        let there = sftp.look_at(remote).await?;
        if there.as_ref().is_some_and(FileAttributes::is_dir) {
            return Err(Error::IsDirectory { path: remote.to_owned() });
        }
        if !there.as_ref().is_none_or(is_plain) {
            let draft = Self::in_place(sftp, remote, mode).await?;
            // A device keeps the permissions it has, where it is somebody else's.
            let _ = draft.set_mode(mode).await;
            return Ok(draft);
        }
        let target = match &there {
            Some(_) => sftp.real_path(remote).await,
            None => None,
        };
        let target = target.unwrap_or_else(|| remote.to_owned());
        let part = part_name(&target);
        let mut draft = match sftp.open_new(&part, remote, OpenFlags::EXCLUDE, mode).await {
            Ok(handle) => Self::opened(sftp, remote, handle, Some((part, target))),
            Err(Error::File { fault: FileFault::PermissionDenied, .. }) if there.is_some() => {
                Self::in_place(sftp, remote, mode).await?
            }
            Err(error) => return Err(error),
        };
        if !draft.takes_owner_of(there.as_ref()).await {
            draft.give_up().await;
            draft = Self::in_place(sftp, remote, mode).await?;
        }
        draft.set_mode(mode).await?;
        Ok(draft)
    }

    async fn in_place(sftp: &Arc<Sftp>, remote: &str, mode: u32) -> Result<Self> {
        let handle = sftp.open_new(remote, remote, OpenFlags::TRUNCATE, mode).await?;
        Ok(Self::opened(sftp, remote, handle, None))
    }

    fn opened(sftp: &Arc<Sftp>, remote: &str, handle: String, beside: Option<(String, String)>) -> Self {
        Self { sftp: Arc::clone(sftp), remote: remote.to_owned(), handle, beside, is_open: true }
    }

    /// What to write to.
    pub(super) fn handle(&self) -> &str {
        &self.handle
    }

    /// Closes it, as a server may tell only now that something was not written, and gives it its name.
    pub(super) async fn finish(mut self) -> Result<()> {
        let fault = |sftp: &Sftp, remote: &str, error| sftp.fault("write", remote, error);
        self.sftp.raw.close(&*self.handle).await.map_err(|error| fault(&self.sftp, &self.remote, error))?;
        if let Some((part, target)) = &self.beside {
            let replaced = self.sftp.replace(part, target).await;
            replaced.map_err(|error| fault(&self.sftp, &self.remote, error))?;
        }
        self.is_open = false;
        Ok(())
    }

    /// The server's umask has its way with a new file, and one that was there keeps what it had.
    async fn set_mode(&self, mode: u32) -> Result<()> {
        let attributes = FileAttributes { permissions: Some(mode & 0o7777), ..FileAttributes::default() };
        let set = self.sftp.raw.fsetstat(&*self.handle, attributes).await;
        set.map(drop).map_err(|error| self.sftp.fault("set the permissions of", &self.remote, error))
    }

    /// Whether it belongs to whom the file belongs that it replaces.
    async fn takes_owner_of(&self, there: Option<&FileAttributes>) -> bool {
        if self.beside.is_none() {
            return true;
        }
        let owner = |attributes: &FileAttributes| attributes.uid.zip(attributes.gid);
        let Some((uid, gid)) = there.and_then(owner) else { return true };
        let ours = self.sftp.raw.fstat(&*self.handle).await;
        if ours.is_ok_and(|ours| owner(&ours.attrs) == Some((uid, gid))) {
            return true;
        }
        let attributes = FileAttributes { uid: Some(uid), gid: Some(gid), ..FileAttributes::default() };
        self.sftp.raw.fsetstat(&*self.handle, attributes).await.is_ok()
    }

    async fn give_up(&mut self) {
        self.is_open = false;
        remove(&self.sftp, &self.handle, self.beside.take()).await;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Without a runtime there is no connection any more either.
        if !self.is_open || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (sftp, handle, beside) = (Arc::clone(&self.sftp), self.handle.clone(), self.beside.take());
        self.sftp.background().spawn(async move { remove(&sftp, &handle, beside).await });
    }
}

/// Takes back what was begun. What fails here is not the fault to be told.
async fn remove(sftp: &Sftp, handle: &str, beside: Option<(String, String)>) {
    let remove = async {
        sftp.close(handle).await;
        if let Some((part, _)) = beside {
            let _ = sftp.raw.remove(part).await;
        }
    };
    let _ = timeout(REMOVING, remove).await;
}

fn is_plain(attributes: &FileAttributes) -> bool {
    let kind = attributes.permissions.map(|mode| mode & KIND);
    // A server need not tell it.
    kind.is_none_or(|kind| kind == PLAIN || kind == 0)
}

/// A name beside a file that nobody else has.
fn part_name(path: &str) -> String {
    let path = path.trim_end_matches('/');
    let name = path.rsplit('/').next().unwrap_or_default();
    let mut kept = name.len().min(NAME_KEPT);
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    let unique = RandomState::new().hash_one(path);
    let part = format!(".{}.{unique:016x}.part", &name[..kept]);
    match parent(path) {
        None => part,
        Some("/") => format!("/{part}"),
        Some(above) => format!("{above}/{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_lies_beside_its_file_under_a_name_of_its_own() {
        for (path, begin) in [("a", ".a."), ("/a", "/.a."), ("b/a/", "b/.a."), ("/x//a", "/x/.a.")] {
            let part = part_name(path);
            assert!(part.starts_with(begin) && part.ends_with(".part"), "{path}: {part}");
        }
        assert_ne!(part_name("a"), part_name("a"));
        let long = "ü".repeat(127);
        assert!(part_name(&long).len() <= 255);
    }
}
