//! The disk image itself: boot record, a FAT partition for syslinux and the kernel, an ext4 root.
//!
//! Everything is written into a plain file at its offset; nothing is mounted and no loop device used.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run;

const SYSLINUX: &str = include_str!("guest/syslinux.cfg");
const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;
const BOOT_START_MIB: u64 = 1;
const BOOT_MIB: u64 = 31;
/// The root's first size; a guest grows it to its disk at each start.
const ROOT_MIB: u64 = 96;
/// Between this and byte 512 lies the partition table.
const BOOT_CODE_BYTES: usize = 440;

/// The part of the recipe that lives here, for the cache's key.
pub(crate) fn recipe() -> String {
    format!("{SYSLINUX}{BOOT_START_MIB} {BOOT_MIB} {ROOT_MIB}\n")
}

/// Makes the image in `folder`.
pub(crate) fn make(folder: &Path, vmlinuz: &Path, initramfs: &Path, root: &Path) -> Result<PathBuf> {
    let raw = folder.join("disk.raw");
    let root_start = BOOT_START_MIB + BOOT_MIB;
    File::create(&raw)?.set_len((root_start + ROOT_MIB) * MIB)?;
    write_boot_record(&raw)?;
    write_boot_partition(&raw, vmlinuz, initramfs, folder)?;
    let mut format = run::command("mkfs.ext4");
    // 64-byte-wide groups and metadata sums cost start time and help nobody here; resize_inode lets it grow.
    format.args(["-q", "-F", "-L", "haar-root", "-m", "0", "-O", "resize_inode,^64bit,^metadata_csum"]);
    format.arg("-E").arg(format!("offset={},root_owner=0:0", root_start * MIB)).arg("-d").arg(root);
    run::quietly(format.arg(&raw).arg(format!("{ROOT_MIB}M")))?;
    let image = folder.join("disk.qcow2");
    run::quietly(
        run::command("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&image),
    )?;
    Ok(image)
}

/// The partition table, and before it the code that starts the active partition.
fn write_boot_record(raw: &Path) -> Result<()> {
    let root_start = BOOT_START_MIB + BOOT_MIB;
    let table = format!(
        "label: dos\nstart={BOOT_START_MIB}MiB, size={BOOT_MIB}MiB, type=c, bootable\nstart={root_start}MiB, type=83\n"
    );
    run::filter("sfdisk", &["--quiet", &raw.to_string_lossy()], table.as_bytes())?;
    let places =
        ["/usr/lib/SYSLINUX/mbr.bin", "/usr/lib/syslinux/mbr/mbr.bin", "/usr/share/syslinux/mbr.bin"];
    let code_file =
        places.iter().find(|file| Path::new(file).exists()).context("syslinux's mbr.bin is not installed")?;
    let code = std::fs::read(code_file)?;
    let disk = File::options().write(true).open(raw)?;
    disk.write_all_at(&code[..code.len().min(BOOT_CODE_BYTES)], 0)?;
    Ok(())
}

fn write_boot_partition(raw: &Path, vmlinuz: &Path, initramfs: &Path, folder: &Path) -> Result<()> {
    let start_sector = (BOOT_START_MIB * MIB / SECTOR).to_string();
    let mut format = run::command("mkfs.vfat");
    format.args(["-n", "HAARBOOT", "-F", "16", "-h", &start_sector, "--offset", &start_sector]).arg(raw);
    run::quietly(format.arg((BOOT_MIB * 1024).to_string()))?;
    let offset = BOOT_START_MIB * MIB;
    run::quietly(run::command("syslinux").args(["--offset", &offset.to_string(), "--install"]).arg(raw))?;
    let config = folder.join("syslinux.cfg");
    std::fs::write(&config, SYSLINUX)?;
    let inside = format!("{}@@{offset}", raw.display());
    for (from, to) in [(vmlinuz, "::vmlinuz"), (initramfs, "::initrd.img"), (&config, "::syslinux.cfg")] {
        run::quietly(run::command("mcopy").args(["-i", &inside]).arg(from).arg(to))?;
    }
    Ok(())
}
