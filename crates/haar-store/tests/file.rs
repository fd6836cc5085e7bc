//! The store's file: damaged, foreign, empty, locked, full, and whose it is.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../../haar/tests/left_out/mod.rs"]
mod left_out;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haar_store::{Disk, Error, Fence, Kind, Op, Options, RedbDisk};
use nix::mount::{MsFlags, mount, umount};
use tempfile::TempDir;

const KIND: Kind = Kind(1);

fn at(revision: u64) -> Fence {
    Fence { epoch: u64::from(revision > 0), revision }
}

fn open(path: &Path) -> Result<RedbDisk, Error> {
    RedbDisk::open(path, Options::default())
}

fn value(number: u64) -> Vec<u8> {
    format!("the value of record {number} ").repeat(1 + (number % 40) as usize).into_bytes()
}

/// A closed store of 200 records in 20 commits.
fn filled(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("store.redb");
    let mut disk = open(&path).unwrap();
    for revision in 0..20_u64 {
        let ops: Vec<Op> = (revision * 10..revision * 10 + 10)
            .map(|n| Op::Put { kind: KIND, key: n.to_be_bytes().to_vec(), value: value(n) })
            .collect();
        disk.commit(&ops, at(revision), at(revision + 1)).unwrap();
    }
    path
}

/// Whether the store is exactly what [`filled`] made.
fn is_whole(disk: &mut RedbDisk) -> bool {
    let mut count = 0_u64;
    let mut right = true;
    let fence = disk.load(&[], &mut |kind, key, found| {
        right &= kind == KIND && key == count.to_be_bytes() && found == value(count);
        count += 1;
    });
    fence.unwrap() == at(20) && count == 200 && right
}

/// Opening must fail with the one clear error and leave the file as it is.
fn assert_refused_untouched(path: &Path, about: &str) {
    let before = fs::read(path).unwrap();
    let Err(error) = open(path) else { panic!("{about}: opened") };
    let Error::Corrupt { path: named, .. } = &error else { panic!("{about}: {error:?}") };
    assert_eq!(named, path);
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()) && message.contains("restore a backup"), "{message}");
    assert!(fs::read(path).unwrap() == before, "{about}: the file was changed");
}

#[test]
fn what_is_no_store_is_refused_and_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let foreign_text = "not a store\n".repeat(10_000);
    for (about, bytes) in [
        ("an empty file", Vec::new()),
        ("a short text", b"hello\n".to_vec()),
        ("a long text", foreign_text.into_bytes()),
        ("zeros", vec![0; 1 << 20]),
    ] {
        fs::write(&path, bytes).unwrap();
        assert_refused_untouched(&path, about);
    }
    fs::remove_file(&path).unwrap();
    let other = redb::Database::create(&path).unwrap();
    let transaction = other.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("somebody else's")).unwrap();
    transaction.commit().unwrap();
    drop(other);
    assert_refused_untouched(&path, "another program's redb file");
}

#[test]
fn a_truncated_store_is_refused_and_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(&folder);
    let whole = fs::read(&path).unwrap();
    for length in [1, 63, 64, 319, 320, 4_095, 4_096, 4_097, 20_000, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert_refused_untouched(&path, &format!("{length} of {} bytes", whole.len()));
    }
    fs::write(&path, &whole).unwrap();
    assert!(is_whole(&mut open(&path).unwrap()));
}

#[test]
fn a_flipped_byte_is_refused_or_was_of_no_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(&folder);
    let whole = fs::read(&path).unwrap();
    let header = 0..320;
    let used = (320..whole.len()).filter(|at| whole[*at] != 0);
    let step = used.clone().count() / 400;
    let (mut refused, mut harmless) = (0, 0);
    for at in header.chain(used.step_by(step.max(1))) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        fs::write(&path, &damaged).unwrap();
        match open(&path) {
            Ok(mut disk) => {
                assert!(is_whole(&mut disk), "byte {at} was flipped and nobody noticed");
                harmless += 1;
            }
            Err(Error::Corrupt { .. }) => {
                assert!(fs::read(&path).unwrap() == damaged, "byte {at}: the file was changed");
                refused += 1;
            }
            Err(other) => panic!("byte {at}: {other:?}"),
        }
    }
    println!("{refused} flips refused, {harmless} in bytes of no use");
    assert!(refused > 100);
}

#[test]
fn one_file_admits_one_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(&folder);
    let mut first = open(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(&error, Error::Locked { path: named } if *named == path), "{error:?}");
    first.commit(&[], at(20), at(21)).unwrap();
    drop(first);
    let mut second = open(&path).unwrap();
    assert_eq!(second.load(&[], &mut |_, _, _| ()).unwrap(), at(21));
}

#[test]
fn a_new_store_is_private_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(&folder);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&path).unwrap());
    assert_eq!(mode(&path), 0o600);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["store.redb"]);
}

#[test]
fn a_missing_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(&folder.path().join("absent/store.redb")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert!(error.to_string().contains("absent/store.redb"));
}

#[test]
fn threads_that_make_one_store_at_once_make_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let opened: Vec<Result<RedbDisk, Error>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&path))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winners = opened.iter().filter(|disk| disk.is_ok()).count();
    assert_eq!(winners, 1);
    assert!(opened.iter().all(|disk| matches!(disk, Ok(_) | Err(Error::Locked { .. }))), "{opened:?}");
}

#[test]
fn flushes_are_counted_and_can_be_slowed() {
    let folder = tempfile::tempdir().unwrap();
    let flush_delay = Duration::from_millis(5);
    let options = Options { flush_delay, ..Options::default() };
    let mut disk = RedbDisk::open(folder.path().join("store.redb"), options).unwrap();
    let meter = disk.meter();
    let before = (disk.flushes(), meter.writes(), meter.bytes_written());
    let started = std::time::Instant::now();
    disk.commit(&[], at(0), at(1)).unwrap();
    let flushes = disk.flushes() - before.0;
    assert!(flushes >= 2, "a commit is flushed twice: {flushes}");
    assert!(meter.writes() > before.1 && meter.bytes_written() > before.2);
    assert!(started.elapsed() >= flush_delay * u32::try_from(flushes).unwrap());
}

/// A file system of 3 MiB, unmounted when dropped.
struct SmallFileSystem(TempDir);

impl SmallFileSystem {
    fn mount() -> Result<Self, nix::Error> {
        let folder = tempfile::tempdir().unwrap();
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some("size=3m,mode=700"))?;
        Ok(Self(folder))
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        umount(self.0.path()).unwrap();
    }
}

#[test]
fn a_full_file_system_is_named_and_the_store_works_on_when_there_is_space() {
    let small = match SmallFileSystem::mount() {
        Ok(small) => small,
        Err(error) => {
            let name = "haar-store a_full_file_system_is_named_and_the_store_works_on_when_there_is_space";
            return left_out::left_out(name, &format!("mounting a tmpfs needs root ({error})"));
        }
    };
    let ballast = small.0.path().join("ballast");
    fs::write(&ballast, vec![1; 1 << 20]).unwrap();
    let path = small.0.path().join("store.redb");
    let mut disk = open(&path).unwrap();
    let op = |n: u64| [Op::Put { kind: KIND, key: n.to_be_bytes().to_vec(), value: vec![n as u8; 50_000] }];
    let mut done = 0;
    let error = loop {
        match disk.commit(&op(done), at(done), at(done + 1)) {
            Ok(()) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 100, "the file system never got full");
    };
    assert!(matches!(&error, Error::Full { path: named } if *named == path), "{error:?}");
    fs::remove_file(&ballast).unwrap();
    disk.reopen().unwrap();
    let mut count = 0;
    assert_eq!(disk.load(&[], &mut |_, _, _| count += 1).unwrap(), at(done));
    assert_eq!(count, done);
    for more in done..done + 5 {
        disk.commit(&op(more), at(more), at(more + 1)).unwrap();
    }
    drop(disk);
    let mut disk = open(&path).unwrap();
    assert_eq!(disk.load(&[], &mut |_, _, _| ()).unwrap(), at(done + 5));
    drop(disk);
}
