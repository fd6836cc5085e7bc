//! File systems in files, for as long as the bench runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::storage::{GIB, LIMIT, Outcome, run, text};

/// A btrfs.
pub(crate) struct Btrfs {
    mounted: PathBuf,
    _folder: tempfile::TempDir,
}

impl Btrfs {
    pub(crate) fn mount() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let (image, mounted) = (folder.path().join("image"), folder.path().join("mounted"));
        std::fs::create_dir(&mounted)?;
        File::create(&image)?.set_len(96 * GIB)?;
        run("mkfs.btrfs", &["-q", text(&image)?])?;
        run("mount", &["-o", "loop", text(&image)?, text(&mounted)?])?;
        Ok(Self { mounted, _folder: folder })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mounted
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}

/// A ZFS pool, and where the kernel has no ZFS a `zfs-fuse` of its own.
pub(crate) struct Zfs {
    folder: tempfile::TempDir,
    pool: String,
    daemon: Option<Child>,
}

impl Zfs {
    pub(crate) fn mount() -> Outcome<Self> {
        let pool = format!("haarbench{}", std::process::id());
        let mut zfs = Self { folder: tempfile::tempdir()?, pool, daemon: None };
        if run("zpool", &["list", "-H"]).is_err() {
            zfs.start()?;
        }
        let (image, mounted) = (zfs.folder.path().join("image"), zfs.folder.path().join("mounted"));
        File::create(&image)?.set_len(64 * GIB)?;
        run("zpool", &["create", "-o", "cachefile=none", "-m", text(&mounted)?, &zfs.pool, text(&image)?])?;
        Ok(zfs)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn start(&mut self) -> Outcome<()> {
        let mut daemon = Command::new("zfs-fuse");
        daemon.args(["--no-daemon", "--no-kstat-mount", "--max-arc-size", "256"]);
        daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.daemon = Some(daemon.spawn()?);
        let began = Instant::now();
        while let Err(error) = run("zpool", &["list", "-H"]) {
            let ended = self.daemon.as_mut().is_some_and(|daemon| matches!(daemon.try_wait(), Ok(Some(_))));
            if ended || began.elapsed() > LIMIT {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Zfs {
    fn drop(&mut self) {
        match &mut self.daemon {
            // The pool is in a file that goes as well.
            Some(daemon) => {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            None => {
                let _ = Command::new("zpool").args(["destroy", "-f", &self.pool]).status();
            }
        }
        // Each dataset of a daemon that is gone is still mounted.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = |place: &&str| Path::new(place).starts_with(self.folder.path());
        for place in mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(ours) {
            let _ = Command::new("umount").arg("-l").arg(place).status();
        }
    }
}
