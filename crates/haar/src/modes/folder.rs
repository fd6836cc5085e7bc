//! The data folder of `haar up`: who has it, what is where, and of which layout it is.
//!
//! ```text
//! LOCK             held by the `haar up` that has the folder; its process id inside
//! VERSION          the layout's number
//! admin.token      how `haar up` itself speaks to its controller   0600
//! agent.toml       the agent's configuration, written once it is enrolled
//! agent.token      the agent's token                               0600
//! controller/      the books and uploaded images
//! agent/           the ledger
//! seeds/           seed disks
//! storage/         images/ and disks/
//! log/             controller.log agent.log up.log console/
//! ```

use std::fs::{File, Permissions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::unistd::Pid;

/// The layout this release writes and reads.
const LAYOUT: u32 = 1;

/// A data folder, whoever has it.
#[derive(Debug, Clone)]
pub(super) struct Folder(pub(super) PathBuf);

/// The right to a folder, until dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _lock: File,
}

impl Folder {
    /// The folder by its absolute path, so that processes started from it mean the same one.
    pub(super) fn at(path: &Path) -> anyhow::Result<Folder> {
        let path = std::path::absolute(path).with_context(|| format!("no such path: {}", path.display()))?;
        Ok(Folder(path))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Whether a cloud was founded in it.
    pub(super) fn is_founded(&self) -> bool {
        self.path("controller/store.redb").exists()
    }

    /// Makes the folder and the one for logs if need be.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        make(&self.0)?;
        make(&self.path("log"))
    }

    /// Makes the folder if need be and takes it.
    pub(super) fn take(&self) -> anyhow::Result<Taken> {
        self.make()?;
        let path = self.path("LOCK");
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut lock = open.with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("{}", self.in_use()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        self.check_version()?;
        lock.set_permissions(Permissions::from_mode(0o600))?;
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Taken { _lock: lock })
    }

    /// What to tell whoever wants a folder that is taken.
    pub(super) fn in_use(&self) -> String {
        let holder = self.holder().map(|pid| format!(" (process {pid})")).unwrap_or_default();
        let data = self.0.display();
        format!(
            "a cloud is up in {data} already{holder}; see `haar status`, or stop it: haar down --data {data}"
        )
    }

    /// Whether somebody has it.
    pub(super) fn is_taken(&self) -> bool {
        let Ok(lock) = File::open(self.path("LOCK")) else { return false };
        matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// The process that has it: the one the lock names, if it really holds that very file open.
    pub(super) fn holder(&self) -> Option<Pid> {
        if !self.is_taken() {
            return None;
        }
        let mut text = String::new();
        let mut lock = File::open(self.path("LOCK")).ok()?;
        lock.read_to_string(&mut text).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        let ours = lock.metadata().ok()?;
        let is_ours = |entry: std::fs::DirEntry| {
            let open = std::fs::metadata(entry.path());
            open.is_ok_and(|open| (open.dev(), open.ino()) == (ours.dev(), ours.ino()))
        };
        let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        open.any(is_ours).then(|| Pid::from_raw(pid))
    }

    fn check_version(&self) -> anyhow::Result<()> {
        let path = self.path("VERSION");
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::write(&path, format!("{LAYOUT}\n"))
                    .with_context(|| format!("cannot write {}", path.display()))
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(LAYOUT) => Ok(()),
                Ok(found) => bail!(
                    "the data folder {} has layout {found}, this release knows {LAYOUT}; run the release that wrote it",
                    self.0.display()
                ),
                Err(_) => bail!("{} holds no layout number; is this folder Haar's?", path.display()),
            },
        }
    }

    /// The last lines of a log.
    pub(super) fn log_end(&self, name: &str, lines: usize) -> String {
        let text = std::fs::read_to_string(self.path("log").join(name)).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        let end: Vec<String> =
            all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}")).collect();
        end.join("\n")
    }
}

/// Makes a folder that QEMU's user can pass, and its parents.
fn make(path: &Path) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let cannot = || format!("cannot make the folder {}", path.display());
    if let Some(parent) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).with_context(cannot)?;
    }
    std::fs::DirBuilder::new().recursive(true).create(path).with_context(cannot)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o711)).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_who_can_be_named() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(&root.path().join("haar")).unwrap();
        assert_eq!(folder.holder(), None);
        let taken = folder.take().unwrap();
        assert_eq!(folder.holder(), Some(nix::unistd::getpid()));
        let error = folder.take().unwrap_err().to_string();
        assert!(error.contains("is up in") && error.contains(&std::process::id().to_string()), "{error}");
        drop(taken);
        assert!(!folder.is_taken() && folder.holder().is_none());
    }

    #[test]
    fn a_lock_that_names_somebody_else_names_nobody() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path()).unwrap();
        let _taken = folder.take().unwrap();
        std::fs::write(folder.path("LOCK"), "1\n").unwrap();
        assert!(folder.is_taken());
        assert_eq!(folder.holder(), None);
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("VERSION"), "2\n").unwrap();
        let error = Folder::at(root.path()).unwrap().take().unwrap_err().to_string();
        assert!(error.contains("layout 2"), "{error}");
    }
}
