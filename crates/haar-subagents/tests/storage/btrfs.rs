//! A btrfs of the test's own, in a file, mounted for as long as the test runs. Needs root and btrfs-progs.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, umount2};

use crate::harness::left_out;

/// Gone with the test, the loop device too.
pub(crate) struct Btrfs {
    pub(crate) path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Btrfs {
    /// None, and said, where it cannot be had.
    pub(crate) fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (image, path) = (folder.path().join("image"), folder.path().join("mounted"));
        std::fs::create_dir(&path).unwrap();
        std::fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
        for (program, words) in [
            ("mkfs.btrfs", vec!["-q".as_ref(), image.as_os_str()]),
            ("mount", vec!["-o".as_ref(), "loop".as_ref(), image.as_os_str(), path.as_os_str()]),
        ] {
            match Command::new(program).args(words).output() {
                Ok(output) if output.status.success() => {}
                Ok(output) => {
                    let words = String::from_utf8_lossy(&output.stderr);
                    left_out(&format!("{program} fails ({}); run as root with loop devices", words.trim()));
                    return None;
                }
                Err(error) => {
                    left_out(&format!("{program} cannot be run ({error}); install btrfs-progs"));
                    return None;
                }
            }
        }
        Some(Btrfs { path, _folder: folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.path
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        // The loop device goes by itself with the last user of the mount.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}
