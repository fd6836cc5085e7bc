//! A ZFS pool of the test's own, in a file, and where the kernel has no ZFS a `zfs-fuse` of its own. Needs root.
//!
//! There is one `zfs-fuse` on a machine at a time, so tests take turns by a lock that ends with its holder.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};

use crate::harness::{LIMIT, may_be_left_out};

/// Gone with the test, the pool and the daemon too.
pub(crate) struct Zfs {
    folder: tempfile::TempDir,
    mounted: PathBuf,
    pool: String,
    daemon: Option<Child>,
    _turn: File,
}

impl Zfs {
    /// None, and said, where it cannot be had.
    pub(crate) fn mount() -> Option<Self> {
        let turn = File::create(std::env::temp_dir().join("haar-test-zfs.lock")).unwrap();
        turn.lock().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pool = format!("haartest{}", std::process::id());
        let mounted = folder.path().join("mounted");
        let mut zfs = Zfs { folder, mounted, pool, daemon: None, _turn: turn };
        match zfs.begin() {
            Ok(()) => Some(zfs),
            Err(words) => {
                // Neither every kernel has ZFS or FUSE, nor every distribution zfs-fuse.
                may_be_left_out(&format!(
                    "there is no ZFS ({words}); run as root, install zfsutils-linux or zfs-fuse"
                ));
                None
            }
        }
    }

    /// The same where new disks are files.
    pub(crate) fn mount_for_files() -> Option<Self> {
        let zfs = Self::mount()?;
        if has_volumes() {
            may_be_left_out("this host's ZFS makes volumes, so no new disk is a file");
            return None;
        }
        Some(zfs)
    }

    fn begin(&mut self) -> Result<(), String> {
        if run("zpool", &["list", "-H"]).is_err() {
            let mut daemon = Command::new("zfs-fuse");
            daemon.args(["--no-daemon", "--no-kstat-mount", "--max-arc-size", "64"]);
            daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            self.daemon = Some(daemon.spawn().map_err(|error| format!("zfs-fuse: {error}"))?);
            let begun = Instant::now();
            while let Err(words) = run("zpool", &["list", "-H"]) {
                let has_ended =
                    self.daemon.as_mut().is_some_and(|daemon| matches!(daemon.try_wait(), Ok(Some(_))));
                if has_ended || begun.elapsed() > LIMIT {
                    return Err(words);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        let (image, mounted) = (self.folder.path().join("image"), &self.mounted);
        File::create(&image).unwrap().set_len(1 << 30).unwrap();
        let (image, mounted) = (image.display().to_string(), mounted.display().to_string());
        run("zpool", &["create", "-o", "cachefile=none", "-m", &mounted, &self.pool, &image])
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.mounted
    }

    /// The dataset that all others are in.
    pub(crate) fn pool(&self) -> &str {
        &self.pool
    }

    /// The names of the pool's datasets, volumes and snapshots.
    pub(crate) fn names(&self) -> Vec<String> {
        let words = ["list", "-H", "-r", "-t", "filesystem,volume,snapshot", "-o", "name", &self.pool];
        let output = Command::new("zfs").args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(ToOwned::to_owned).collect()
    }
}

impl Drop for Zfs {
    fn drop(&mut self) {
        match &mut self.daemon {
            Some(daemon) => {
                // The pool is in a file that goes as well.
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            None => {
                let begun = Instant::now();
                // A sub-agent may have files open a moment longer than its test.
                while run("zpool", &["destroy", "-f", &self.pool]).is_err() && begun.elapsed() < LIMIT {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        detach(self.folder.path());
    }
}

/// Whether this host's ZFS makes volumes: that of FUSE does not.
pub(crate) fn has_volumes() -> bool {
    Path::new("/dev/zfs").exists()
}

/// Mounts whose daemon is gone.
fn detach(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut places: Vec<&Path> = places.filter(|place| place.starts_with(folder)).collect();
    places.sort();
    for place in places.iter().rev() {
        let _ = umount2(*place, MntFlags::MNT_DETACH);
    }
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(words) }
}
