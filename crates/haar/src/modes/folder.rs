//! The data folder of `haar up`: who has it, what is where, and of which layout it is.
//!
//! ```text
//! LOCK             held by the `haar up` that has the folder; its process id inside
//! VERSION          the layout's number, written whole or not at all
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
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::unistd::Pid;

use super::process::AlreadyUp;

/// The layout this release writes and reads.
const LAYOUT: u32 = 1;
/// How long the processes of a `haar up` that was killed may take to end by themselves.
const FORMER_LIMIT: Duration = Duration::from_secs(30);
/// Who holds what in the folder beside `haar up` itself.
const FORMER: &[(&str, &str)] = &[("controller", "controller/LOCK"), ("storage", "storage/lock")];

/// A data folder, whoever has it.
#[derive(Debug, Clone)]
pub(super) struct Folder(pub(super) PathBuf);

/// The right to a folder, until dropped.
#[derive(Debug)]
pub(super) struct Taken {
    lock: File,
}

impl Drop for Taken {
    /// Closing alone leaves it locked for as long as a child of this process that is just being started, which
    /// shares the file until it runs its program.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
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
        // What may not be looked at is there.
        self.path("controller/store.redb").try_exists().unwrap_or(true)
    }

    /// Whether this machine is a hypervisor of a cloud whose books are gone.
    pub(super) fn has_lost_its_books(&self) -> bool {
        !self.is_founded() && self.path("agent.toml").exists()
    }

    /// Whether it is a data folder at all: it has a layout, or a first start got no further than its lock.
    pub(super) fn is_ours(&self) -> bool {
        let Ok(entries) = std::fs::read_dir(&self.0) else { return false };
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        let early = ["LOCK", "VERSION.new", "log"];
        names.iter().any(|name| name == "VERSION")
            || (names.iter().any(|name| name == "LOCK")
                && names.iter().all(|name| early.iter().any(|known| name == known)))
    }

    /// Makes the folder and the one for logs if need be.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        make(&self.0)?;
        make(&self.path("log"))
    }

    /// Makes the folder if need be and takes it.
    pub(super) fn take(&self) -> anyhow::Result<Taken> {
        self.make()?;
        let mut taken = self.lock()?;
        self.check_version()?;
        taken.lock.set_permissions(Permissions::from_mode(0o600))?;
        taken.lock.set_len(0)?;
        writeln!(taken.lock, "{}", std::process::id()).context("the folder's lock cannot be written")?;
        Ok(taken)
    }

    /// Takes a folder in order to remove it: nothing is written, so that a full disk is no hindrance.
    pub(super) fn take_to_remove(&self) -> anyhow::Result<Taken> {
        self.lock()
    }

    fn lock(&self) -> anyhow::Result<Taken> {
        let path = self.path("LOCK");
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let lock = open.with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Taken { lock }),
            Err(TryLockError::WouldBlock) => Err(self.in_use().into()),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// What to tell whoever wants a folder that is taken.
    pub(super) fn in_use(&self) -> AlreadyUp {
        let holder = self.holder().map(|pid| format!(" (process {pid})")).unwrap_or_default();
        let data = self.0.display();
        AlreadyUp(format!(
            "a cloud is up in {data} already{holder}; see `haar status`, or stop it: haar down --data {data}"
        ))
    }

    /// Whether somebody has it.
    ///
    /// # Errors
    /// The lock is there and may not be looked at; only root may.
    pub(super) fn is_taken(&self) -> std::io::Result<bool> {
        is_held(&self.path("LOCK"))
    }

    /// Waits until the processes of a `haar up` that was killed have ended; they do so by themselves. True when
    /// there were any. Blocks.
    ///
    /// # Errors
    /// The time is over, and somebody still holds a part of the folder.
    pub(super) fn wait_for_the_former(&self) -> anyhow::Result<bool> {
        self.wait_for_the_former_until(Instant::now() + FORMER_LIMIT)
    }

    fn wait_for_the_former_until(&self, deadline: Instant) -> anyhow::Result<bool> {
        let mut waited = false;
        for (role, lock) in FORMER {
            let path = self.path(lock);
            while is_held(&path).with_context(|| format!("cannot look at {}", path.display()))? {
                waited = true;
                if Instant::now() >= deadline {
                    bail!(
                        "a {role} of a former start still runs and holds {}; end it, then try again",
                        path.display()
                    );
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(waited)
    }

    /// The process that has it: the one the lock names, if it really holds that very file open.
    pub(super) fn holder(&self) -> Option<Pid> {
        if !self.is_taken().unwrap_or(false) {
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
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        // An empty one is what a full disk left of a first start.
        if text.trim().is_empty() {
            return self.write_version().with_context(|| format!("cannot write {}", path.display()));
        }
        match text.trim().parse::<u32>() {
            Ok(LAYOUT) => Ok(()),
            Ok(found) => bail!(
                "the data folder {} has layout {found}, this release knows {LAYOUT}; run the release that wrote it",
                self.0.display()
            ),
            Err(_) => bail!("{} holds no layout number; is this folder Haar's?", path.display()),
        }
    }

    fn write_version(&self) -> std::io::Result<()> {
        let aside = self.path("VERSION.new");
        let mut file = File::create(&aside)?;
        writeln!(file, "{LAYOUT}")?;
        file.sync_all()?;
        std::fs::rename(&aside, self.path("VERSION"))
    }

    /// The last lines of a log; a line that is repeated counts once.
    pub(super) fn log_end(&self, name: &str, lines: usize) -> String {
        let text = std::fs::read_to_string(self.path("log").join(name)).unwrap_or_default();
        let mut all: Vec<&str> = text.lines().collect();
        all.dedup();
        let end: Vec<String> =
            all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}")).collect();
        end.join("\n")
    }
}

/// Whether somebody has the file locked; nobody has one that is not there.
fn is_held(path: &Path) -> std::io::Result<bool> {
    let lock = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    match lock.try_lock() {
        // Given back here and not by closing it, as that leaves it to a child that is just being started.
        Ok(()) => lock.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
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
        assert!(!folder.is_taken().unwrap() && folder.holder().is_none());
    }

    #[test]
    fn a_lock_that_names_somebody_else_names_nobody() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path()).unwrap();
        let _taken = folder.take().unwrap();
        std::fs::write(folder.path("LOCK"), "1\n").unwrap();
        assert!(folder.is_taken().unwrap());
        assert_eq!(folder.holder(), None);
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("VERSION"), "2\n").unwrap();
        let error = Folder::at(root.path()).unwrap().take().unwrap_err().to_string();
        assert!(error.contains("layout 2"), "{error}");
    }

    #[test]
    fn what_a_full_disk_left_of_a_first_start_is_taken_up_or_removed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("VERSION"), "").unwrap();
        let folder = Folder::at(root.path()).unwrap();
        drop(folder.take().unwrap());
        assert_eq!(std::fs::read_to_string(root.path().join("VERSION")).unwrap(), "1\n");

        let early = tempfile::tempdir().unwrap();
        let folder = Folder::at(early.path()).unwrap();
        assert!(!folder.is_ours(), "an empty folder is nobody's");
        drop(folder.take_to_remove().unwrap());
        assert!(folder.is_ours() && !early.path().join("VERSION").exists());
        std::fs::write(early.path().join("letter"), "dear").unwrap();
        assert!(!folder.is_ours(), "a stranger's file makes it a stranger's");
    }

    #[test]
    fn a_lock_that_may_not_be_looked_at_is_not_free() {
        let root = tempfile::tempdir().unwrap();
        // Root may look at everything, but follows no link to itself.
        std::os::unix::fs::symlink("LOCK", root.path().join("LOCK")).unwrap();
        assert!(Folder::at(root.path()).unwrap().is_taken().is_err());
    }

    #[test]
    fn lost_books_are_told_from_a_first_start() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path()).unwrap();
        assert!(!folder.has_lost_its_books());
        std::fs::write(folder.path("agent.toml"), "").unwrap();
        assert!(folder.has_lost_its_books());
        std::fs::create_dir(folder.path("controller")).unwrap();
        std::fs::write(folder.path("controller/store.redb"), "").unwrap();
        assert!(!folder.has_lost_its_books());
    }

    #[test]
    fn the_end_of_a_log_says_each_thing_once() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path()).unwrap();
        std::fs::create_dir(folder.path("log")).unwrap();
        std::fs::write(folder.path("log/a.log"), "one\ntwo\nthree\nthree\nthree\n").unwrap();
        assert_eq!(folder.log_end("a.log", 2), "    two\n    three");
    }

    #[test]
    fn a_start_waits_for_the_processes_of_a_killed_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(root.path()).unwrap();
        assert!(!folder.wait_for_the_former().unwrap());
        std::fs::create_dir(folder.path("controller")).unwrap();
        let former = File::create(folder.path("controller/LOCK")).unwrap();
        former.lock().unwrap();
        let error = folder.wait_for_the_former_until(Instant::now()).unwrap_err().to_string();
        assert!(error.contains("a controller of a former start"), "{error}");
        let waiting = std::thread::spawn(move || folder.wait_for_the_former());
        drop(former);
        waiting.join().unwrap().unwrap();
    }
}
