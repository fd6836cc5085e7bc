//! Images made by the real qemu-img, then patched: each flaw is found, sound ones pass.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// A folder for images of one test.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Bench { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn qemu_img(&self, arguments: &[&str]) {
        let output = Command::new("qemu-img").args(arguments).current_dir(&self.folder).output();
        let output = output.expect("this test needs qemu-img: install qemu-utils");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A raw disk with content all over, 3 MiB and a bit.
    fn content(&self) -> PathBuf {
        let path = self.path("content.raw");
        let bytes: Vec<u8> = (0..(3 << 20) + 512_u32).map(|number| (number / 7 % 251) as u8 + 1).collect();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The content as qcow2 with these extra arguments of `qemu-img convert`.
    fn converted(&self, extra: &[&str]) -> PathBuf {
        let content = self.content();
        let path = self.path("image.qcow2");
        let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2"];
        arguments.extend(extra);
        arguments.extend([content.to_str().unwrap(), path.to_str().unwrap()]);
        self.qemu_img(&arguments);
        path
    }

    /// A sound image with these bytes changed.
    fn patched(&self, offset: u64, bytes: &[u8]) -> PathBuf {
        let path = self.converted(&[]);
        patch(&path, offset, bytes);
        path
    }
}

fn patch(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

fn truncate(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn length(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

fn check(path: &Path, format: &str) -> Result<u64, Flaw> {
    let file = File::open(path).unwrap();
    if format == "raw" { check_raw(&file) } else { check_qcow2(&file) }
}

#[track_caller]
fn refused(path: &Path, format: &str, words: &str) {
    let flaw = check(path, format).expect_err("the image must be refused");
    assert!(!matches!(flaw, Flaw::Io(_)), "{flaw:?}");
    assert!(flaw.to_string().contains(words), "{flaw:?} should say {words:?}");
}

#[test]
fn sound_images_of_every_making_pass() {
    for extra in [
        &[][..],
        &["-c"],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=4096"],
        &["-o", "cluster_size=2M"],
        &["-o", "extended_l2=on"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=full"],
        &["-o", "lazy_refcounts=on"],
        &["-c", "-o", "compression_type=zstd"],
    ] {
        let bench = Bench::new();
        assert_eq!(check(&bench.converted(extra), "qcow2").unwrap(), (3 << 20) + 512, "{extra:?}");
    }
}

#[test]
fn an_empty_disk_of_many_gigabytes_passes() {
    let bench = Bench::new();
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "empty.qcow2", "10T"]);
    assert_eq!(check(&bench.path("empty.qcow2"), "qcow2").unwrap(), 10 << 40);
}

#[test]
fn a_disk_qemu_wrote_to_passes() {
    let bench = Bench::new();
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "used.qcow2", "100M"]);
    // The shortest write at the very end of the disk leaves the shortest last cluster there is.
    let arguments = ["-f", "qcow2", "-c", "write -P 7 104857088 512", "used.qcow2"];
    let output = Command::new("qemu-io").args(arguments).current_dir(&bench.folder).output();
    let output = output.expect("this test needs qemu-io: install qemu-utils");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(check(&bench.path("used.qcow2"), "qcow2").unwrap(), 100 << 20);
}

#[test]
fn an_image_with_a_snapshot_inside_passes() {
    let bench = Bench::new();
    let path = bench.converted(&[]);
    bench.qemu_img(&["snapshot", "-c", "one", path.to_str().unwrap()]);
    assert!(check(&path, "qcow2").is_ok());
}

#[test]
fn a_table_of_snapshots_that_is_none_is_refused() {
    for (offset, bytes, words) in [
        (60, &65_537_u32.to_be_bytes()[..], "table of snapshots"),
        (60, &u32::MAX.to_be_bytes(), "table of snapshots"),
        (64, &0_u64.to_be_bytes(), "table of offsets"),
        (64, &(1_u64 << 40).to_be_bytes(), "truncated"),
        (60, &60_000_u32.to_be_bytes(), "truncated"),
    ] {
        let bench = Bench::new();
        let path = bench.converted(&[]);
        bench.qemu_img(&["snapshot", "-c", "one", path.to_str().unwrap()]);
        patch(&path, offset, bytes);
        refused(&path, "qcow2", words);
    }
    let bench = Bench::new();
    let path = bench.converted(&[]);
    bench.qemu_img(&["snapshot", "-c", "one", path.to_str().unwrap()]);
    let table = read_qcow2_header(&File::open(&path).unwrap()).unwrap().snapshots_offset;
    patch(&path, table + 36, &1025_u32.to_be_bytes());
    refused(&path, "qcow2", "table of snapshots");
    patch(&path, table, &(1_u64 << 50).to_be_bytes());
    refused(&path, "qcow2", "a snapshot's level 1 table");
}

#[test]
fn subclusters_need_large_clusters() {
    let bench = Bench::new();
    let path = bench.converted(&["-o", "cluster_size=8192"]);
    patch(&path, 72, &incompatible::EXTENDED_L2.to_be_bytes());
    refused(&path, "qcow2", "cluster size");
}

#[test]
fn what_an_image_holds_is_counted_as_it_will_be_written() {
    let data_bytes = |path: &Path| qcow2_data_bytes(&File::open(path).unwrap()).unwrap();
    let content = (3 << 20) + 512_u64;
    for (extra, cluster) in [
        (&[][..], 65536),
        (&["-c"], 65536),
        (&["-o", "cluster_size=4096"], 4096),
        (&["-o", "extended_l2=on"], 65536),
    ] {
        let bench = Bench::new();
        assert_eq!(data_bytes(&bench.converted(extra)), content.next_multiple_of(cluster), "{extra:?}");
    }
    let bench = Bench::new();
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "empty.qcow2", "10T"]);
    assert_eq!(data_bytes(&bench.path("empty.qcow2")), 0);
    // One cluster that all of a table names: half a gigabyte when it is written out.
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "bomb.qcow2", "512M"]);
    let path = bench.path("bomb.qcow2");
    let header = read_qcow2_header(&File::open(&path).unwrap()).unwrap();
    let table = length(&path).next_multiple_of(65536);
    truncate(&path, table + 2 * 65536);
    patch(&path, header.l1_offset, &(table | 1 << 63).to_be_bytes());
    patch(&path, table, &(table + 65536).to_be_bytes().repeat(8192));
    assert_eq!(data_bytes(&path), 512 << 20);
}

#[test]
fn raw_images_pass_when_whole() {
    let bench = Bench::new();
    let path = bench.content();
    assert_eq!(check(&path, "raw").unwrap(), (3 << 20) + 512);
    truncate(&path, 1_000_000);
    refused(&path, "raw", "not a multiple of 512");
    truncate(&path, 0);
    refused(&path, "raw", "empty");
    refused(&path, "qcow2", "empty");
}

#[test]
fn a_label_that_lies_is_found() {
    let bench = Bench::new();
    refused(&bench.content(), "qcow2", "import it with format raw");
    refused(&bench.converted(&[]), "raw", "it is a qcow2 image; import it with format qcow2");
    for (format, words) in
        [("vmdk", "VMDK"), ("vdi", "VDI"), ("vhdx", "VHDX"), ("vpc", "VHD"), ("qed", "QED")]
    {
        bench.qemu_img(&["create", "-q", "-f", format, "other", "1M"]);
        refused(&bench.path("other"), "raw", words);
        refused(&bench.path("other"), "qcow2", words);
        std::fs::remove_file(bench.path("other")).unwrap();
    }
    for (bytes, words) in [(&b"\x1f\x8b\x08"[..], "gzip"), (b"<!DOCTYPE html>", "web page")] {
        std::fs::write(bench.path("other"), bytes).unwrap();
        refused(&bench.path("other"), "raw", words);
    }
}

#[test]
fn an_image_that_leans_on_another_file_is_refused() {
    let bench = Bench::new();
    let base = bench.converted(&[]);
    let base = base.to_str().unwrap();
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, "overlay.qcow2"]);
    refused(&bench.path("overlay.qcow2"), "qcow2", "backing file");
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "split.qcow2", "1M"]);
    refused(&bench.path("split.qcow2"), "qcow2", "in another file");
    // The name alone, without the feature bit, is refused as well.
    patch(&bench.path("split.qcow2"), 72, &0_u64.to_be_bytes());
    refused(&bench.path("split.qcow2"), "qcow2", "in another file");
}

#[test]
fn a_backing_file_of_an_old_version_is_refused() {
    let bench = Bench::new();
    let path = bench.converted(&["-o", "compat=0.10"]);
    patch(&path, 8, &512_u64.to_be_bytes());
    patch(&path, 16, &11_u32.to_be_bytes());
    patch(&path, 512, b"/etc/shadow");
    refused(&path, "qcow2", "backing file");
}

#[test]
fn features_and_marks_that_forbid_use_are_refused() {
    for (offset, bytes, words) in [
        (4, &4_u32.to_be_bytes()[..], "version 4"),
        (32, &1_u32.to_be_bytes(), "encrypted"),
        (32, &2_u32.to_be_bytes(), "encrypted"),
        (72, &(1_u64 << 0).to_be_bytes(), "not closed cleanly"),
        (72, &(1_u64 << 1).to_be_bytes(), "marked corrupt"),
        (72, &(1_u64 << 2).to_be_bytes(), "in another file"),
        (72, &(1_u64 << 40).to_be_bytes(), "unknown features"),
    ] {
        let bench = Bench::new();
        refused(&bench.patched(offset, bytes), "qcow2", words);
    }
}

#[test]
fn numbers_out_of_range_are_refused() {
    let huge = u64::MAX.to_be_bytes();
    for (offset, bytes, words) in [
        (20, &8_u32.to_be_bytes()[..], "cluster size"),
        (20, &22_u32.to_be_bytes(), "cluster size"),
        (20, &u32::MAX.to_be_bytes(), "cluster size"),
        (24, &0_u64.to_be_bytes(), "virtual size"),
        (24, &1000_u64.to_be_bytes(), "virtual size"),
        (24, &((64_u64 << 40) + 512).to_be_bytes(), "virtual size"),
        (24, &(1_u64 << 40).to_be_bytes(), "level 1 table's length"),
        (36, &0_u32.to_be_bytes(), "level 1 table's length"),
        (36, &u32::MAX.to_be_bytes(), "level 1 table's length"),
        (40, &0_u64.to_be_bytes(), "table of offsets"),
        (40, &huge, "table of offsets"),
        (40, &(1_u64 << 40).to_be_bytes(), "truncated"),
        (48, &(1_u64 << 40).to_be_bytes(), "truncated"),
        (48, &17_u64.to_be_bytes(), "table of offsets"),
        (56, &0_u32.to_be_bytes(), "refcount table's length"),
        (56, &u32::MAX.to_be_bytes(), "refcount table's length"),
        (96, &7_u32.to_be_bytes(), "refcount width"),
        (100, &0_u32.to_be_bytes(), "header length"),
        (100, &105_u32.to_be_bytes(), "header length"),
        (100, &u32::MAX.to_be_bytes(), "header"),
        (104, &[1], "compression type"),
    ] {
        let bench = Bench::new();
        refused(&bench.patched(offset, bytes), "qcow2", words);
    }
}

#[test]
fn a_truncated_image_is_refused_wherever_it_was_cut() {
    for extra in [&[][..], &["-c"], &["-o", "extended_l2=on"], &["-o", "cluster_size=4096"]] {
        let bench = Bench::new();
        let path = bench.converted(extra);
        let whole = length(&path);
        for cut in [whole - 65536, whole / 2, whole / 4, 70_000, 512, 100, 80, 40] {
            truncate(&path, cut);
            refused(&path, "qcow2", "truncated");
        }
        truncate(&path, 3);
        refused(&path, "qcow2", "does not begin");
    }
}

#[test]
fn tables_that_point_nowhere_are_refused() {
    let bench = Bench::new();
    let path = bench.converted(&[]);
    let header = read_qcow2_header(&File::open(&path).unwrap()).unwrap();
    let mut entry = [0; 8];
    File::open(&path).unwrap().read_exact_at(&mut entry, header.l1_offset).unwrap();
    let level2 = u64_at(&entry, 0) & OFFSET_MASK;

    patch(&path, level2, &(1_u64 << 40 | 1 << 63).to_be_bytes());
    refused(&path, "qcow2", "a data cluster");
    patch(&path, level2, &(513_u64 << 9 | 1 << 63).to_be_bytes());
    refused(&path, "qcow2", "table of offsets");
    patch(&path, level2, &(COMPRESSED | 1 << 40).to_be_bytes());
    refused(&path, "qcow2", "a compressed cluster");
    patch(&path, level2, &(u64::MAX >> 1).to_be_bytes());
    refused(&path, "qcow2", "truncated");
    patch(&path, header.l1_offset, &(1_u64 << 50 | 1 << 63).to_be_bytes());
    refused(&path, "qcow2", "a level 2 table");
}

#[test]
fn one_table_named_a_million_times_is_refused_quickly() {
    let bench = Bench::new();
    bench.qemu_img(&["create", "-q", "-f", "qcow2", "wide.qcow2", "60T"]);
    let path = bench.path("wide.qcow2");
    let header = read_qcow2_header(&File::open(&path).unwrap()).unwrap();
    let table = length(&path).next_multiple_of(65536);
    truncate(&path, table + 65536);
    let entries = header.l1_entries as usize;
    patch(&path, header.l1_offset, &(table | 1 << 63).to_be_bytes().repeat(entries));
    assert!(entries > 100_000);
    refused(&path, "qcow2", "level 1 table");
}

#[test]
fn no_byte_of_the_header_makes_the_check_panic() {
    let bench = Bench::new();
    let path = bench.converted(&[]);
    for offset in 0..128 {
        for byte in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut before = [0];
            File::open(&path).unwrap().read_exact_at(&mut before, offset).unwrap();
            patch(&path, offset, &[byte]);
            let _ = check(&path, "qcow2");
            patch(&path, offset, &before);
        }
    }
    assert!(check(&path, "qcow2").is_ok(), "the image itself is sound");
}
