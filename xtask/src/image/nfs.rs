//! NFS for the guest of which tests make two, one that shares a disk and one that mounts it.
//!
//! The programs are Debian's own, the modules those of the guest's kernel; both lie in the root file system and are of
//! use only once something calls for them, so that no start of the guest takes longer. NFSv4 alone is served: it needs
//! neither portmapper nor lock daemon.

use std::path::Path;

use anyhow::Result;

use super::unpacked::Packages;
use super::{kernel, root};

/// Where its packages are in the cache, and what they are. busybox's mount calls no mount.nfs.
pub(super) const FOLDER: &str = "nfs";
pub(super) const PACKAGES: &[&str] = &["nfs-common", "nfs-kernel-server", "mount"];

/// Programs, by their place in the packages below `/usr` or `/`, and the guest's place for them.
const PROGRAMS: &[(&str, &str)] = &[
    ("bin/mount", "usr/bin/mount"),
    ("sbin/exportfs", "usr/sbin/exportfs"),
    ("sbin/rpc.mountd", "usr/sbin/rpc.mountd"),
    ("sbin/rpc.nfsd", "usr/sbin/rpc.nfsd"),
    // Behind the script that loads the modules first.
    ("sbin/mount.nfs", "usr/lib/nfs/mount.nfs"),
];

/// Files of the root: where, with which mode, what.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/haar/nfs-modules", 0o755, include_str!("guest/nfs-modules")),
    ("sbin/mount.nfs", 0o755, include_str!("guest/mount.nfs")),
    ("usr/sbin/service", 0o755, include_str!("guest/service")),
    // exportfs wants Debian's list of nothing.
    ("etc/exports", 0o644, ""),
    // There is no /etc/services to look the port up in.
    ("etc/nfs.conf", 0o644, "[nfsd]\nport=2049\nthreads=2\nvers3=n\ngrace-time=10\n"),
    ("var/lib/nfs/etab", 0o644, ""),
    ("var/lib/nfs/rmtab", 0o644, ""),
];

/// Where the kernel keeps who its clients are; without it, it waits for those of an earlier start for as long as it may.
const CLIENTS_FOLDER: &str = "var/lib/nfs/v4recovery";
/// What the transports are called; from a library's package.
const NETCONFIG: &str = "etc/netconfig";
/// Server and client.
const MODULES: &[&str] = &["nfsd", "nfsv4"];
/// Where the modules are, with a list of them in the order to load them in.
const MODULES_FOLDER: &str = "usr/lib/nfs/modules";

/// The part of the recipe that lives here, for the cache's key.
pub(super) fn recipe() -> String {
    format!("{PROGRAMS:?}{FILES:?}{CLIENTS_FOLDER} {NETCONFIG} {MODULES:?}{MODULES_FOLDER}\n")
}

/// Puts all of it into the tree of a root file system; the packages are unpacked in `scratch`.
pub(super) fn add(packages: &Packages, kernel: &kernel::Tree, scratch: &Path, root: &Path) -> Result<()> {
    let unpacked = packages.unpack(scratch)?;
    for (program, to) in PROGRAMS {
        unpacked.add_program(root, program, to)?;
    }
    std::fs::copy(unpacked.file(NETCONFIG)?, root.join(NETCONFIG))?;
    root::write_all(root, FILES)?;
    std::fs::create_dir_all(root.join(CLIENTS_FOLDER))?;
    root::add_modules(&kernel.in_load_order(MODULES)?, &root.join(MODULES_FOLDER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run;

    #[test]
    fn its_scripts_are_valid_shell() {
        for (path, _, text) in FILES.iter().filter(|(.., text)| text.starts_with("#!/bin/sh")) {
            run::filter("sh", &["-n"], text.as_bytes()).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}
