//! What disks are made of on this machine, whether its file system can do that, and how much room there is.
//!
//! Only looked at, never tried: whether an xfs shares extents shows at the start of the storage sub-agent.

use std::path::{Path, PathBuf};

use haar_api::rpc::storage::Backend;

use super::{Check, Mark, version};

/// Below it, a warning.
const LITTLE: u64 = 1 << 30;

/// The back end in its folder, the room there, and what else this file system could do.
pub(super) fn check(data: &Path, backend: Backend) -> Check {
    let folder = data.join("storage");
    let there = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let word = if backend == Backend::Auto { Backend::Qcow2 } else { backend };
    let found = format!("storage  {word} in {}", folder.join("disks").display());
    let Ok(space) = nix::sys::statvfs::statvfs(there) else {
        return Check::new(Mark::Bad, found, "the file system does not answer");
    };
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let real = std::fs::canonicalize(there).unwrap_or_else(|_| there.to_owned());
    let kind = file_system(&table, &real);
    // A program is run for it, which is for those who asked for zfs.
    let has_zfs = || version("zfs").is_some() || super::on_path(Path::new("zfs"));
    if let Some(advice) = unfit(word, &kind, has_zfs) {
        return Check::new(Mark::Bad, found, advice);
    }
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    let mut note = format!("{:.1} GiB free", free as f64 / f64::from(1 << 30));
    if word == Backend::Qcow2
        && let Some(better) = offers(&kind)
    {
        note = format!("{note}; {kind} could do --storage-backend {better}");
    }
    Check::new(if free < LITTLE { Mark::Warning } else { Mark::Good }, found, note)
}

/// Why the back end cannot work on such a file system, and what to do.
fn unfit(backend: Backend, kind: &str, has_zfs: impl FnOnce() -> bool) -> Option<String> {
    match backend {
        Backend::Auto | Backend::Qcow2 => None,
        Backend::Reflink if offers(kind) == Some(Backend::Reflink) => None,
        Backend::Reflink => Some(format!(
            "{kind} shares no extents: put the folder on btrfs, or on xfs made with reflink=1, or take qcow2"
        )),
        Backend::Zfs if !has_zfs() => {
            Some("the program zfs is missing: apt install zfsutils-linux".to_owned())
        }
        // What zfs-fuse mounts says no more than that.
        Backend::Zfs if matches!(kind, "zfs" | "fuse" | "fuse.zfs") => None,
        Backend::Zfs => Some(format!(
            "it is {kind}: make a dataset for the folder `storage`: zfs create -o mountpoint=FOLDER POOL/haar"
        )),
    }
}

/// The back end besides qcow2 that a file system is made for.
fn offers(kind: &str) -> Option<Backend> {
    match kind {
        "btrfs" | "xfs" => Some(Backend::Reflink),
        "zfs" => Some(Backend::Zfs),
        _ => None,
    }
}

/// The type of the file system that a folder lies on, out of the kernel's table of mounts.
fn file_system(table: &str, folder: &Path) -> String {
    let mounts = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        // Blanks in a path are written as octal numbers.
        Some((PathBuf::from(fields.next()?.replace("\\040", " ")), fields.next()?))
    });
    // Of two on one point, the later one covers the earlier.
    let on_the_way = mounts.filter(|(point, _)| folder.starts_with(point));
    let nearest = on_the_way.max_by_key(|(point, _)| point.components().count());
    nearest.map_or_else(|| "an unknown file system".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "rootfs / rootfs rw 0 0\n/dev/vda / ext4 rw 0 0\n/dev/vdb /srv btrfs rw 0 0\n\
        tank/my\\040disks /srv/my\\040disks zfs rw 0 0\n";

    #[test]
    fn the_nearest_mount_says_what_a_folder_lies_on() {
        assert_eq!(file_system(TABLE, Path::new("/var/lib/haar")), "ext4");
        assert_eq!(file_system(TABLE, Path::new("/srv/haar")), "btrfs");
        assert_eq!(file_system(TABLE, Path::new("/srv/my disks/storage")), "zfs");
        assert_eq!(file_system(TABLE, Path::new("/srvs")), "ext4");
        assert_eq!(file_system("", Path::new("/")), "an unknown file system");
    }

    #[test]
    fn a_back_end_that_cannot_work_is_said_with_what_to_do() {
        let advice = |backend, kind, has_zfs| unfit(backend, kind, || has_zfs).unwrap_or_default();
        assert!(advice(Backend::Reflink, "ext4", true).contains("btrfs"));
        assert!(advice(Backend::Zfs, "zfs", false).contains("apt install"));
        assert!(advice(Backend::Zfs, "ext4", true).contains("zfs create"));
        for (backend, kind) in [(Backend::Reflink, "xfs"), (Backend::Zfs, "fuse"), (Backend::Qcow2, "ext4")] {
            assert_eq!(unfit(backend, kind, || true), None);
        }
    }

    #[test]
    fn the_folder_of_a_cloud_that_is_not_yet_there_is_checked_where_it_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let check = check(&folder.path().join("not/yet"), Backend::Auto);
        assert!(check.found.contains("qcow2 in") && check.note.contains("GiB free"), "{check:?}");
    }
}
