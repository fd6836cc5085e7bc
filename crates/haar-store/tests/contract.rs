//! What every disk promises, shown on every implementation by the same cases.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use haar_store::{
    Disk, Error, FailingDisk, Faults, Fence, Kind, Limits, MemoryDisk, Op, Options, Record, RedbDisk, copy,
};
use tempfile::TempDir;

const GUEST: Kind = Kind(3);
const EVENT: Kind = Kind(255);
const FIRST: Kind = Kind(0);

/// A disk and what must outlive it.
struct Case {
    name: &'static str,
    disk: Box<dyn Disk>,
    _folder: Option<TempDir>,
}

/// Every implementation, empty, with these limits.
fn every_disk(limits: Limits) -> Vec<Case> {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { limits, ..Options::default() };
    let redb = RedbDisk::open(folder.path().join("store.redb"), options).unwrap();
    let memory = || MemoryDisk::on(MemoryDisk::new().medium(), limits);
    vec![
        Case { name: "memory", disk: Box::new(memory()), _folder: None },
        Case { name: "failing", disk: Box::new(FailingDisk::new(memory(), Faults::none())), _folder: None },
        Case { name: "redb", disk: Box::new(redb), _folder: Some(folder) },
    ]
}

fn for_every_disk(limits: Limits, mut case: impl FnMut(&mut dyn Disk)) {
    for mut each in every_disk(limits) {
        println!("on {}", each.name);
        case(each.disk.as_mut());
    }
}

fn put(kind: Kind, key: &str, value: &str) -> Op {
    Op::Put { kind, key: key.into(), value: value.into() }
}

fn delete(kind: Kind, key: &str) -> Op {
    Op::Delete { kind, key: key.into() }
}

fn record(kind: Kind, key: &str, value: &str) -> Record {
    Record { kind, key: key.into(), value: value.into() }
}

fn at(revision: u64) -> Fence {
    Fence { epoch: 1, revision }
}

fn load(disk: &mut dyn Disk, skip: &[Kind]) -> (Fence, Vec<Record>) {
    let mut records = Vec::new();
    let fence = disk
        .load(skip, &mut |kind, key, value| {
            records.push(Record { kind, key: key.to_vec(), value: value.to_vec() });
        })
        .unwrap();
    (fence, records)
}

#[test]
fn a_new_store_is_empty_at_fence_zero() {
    for_every_disk(Limits::NONE, |disk| {
        assert_eq!(load(disk, &[]), (Fence::default(), vec![]));
        assert_eq!(disk.reader().scan(GUEST, b"", 10).unwrap(), vec![]);
    });
}

#[test]
fn what_was_committed_is_there_in_order_and_after_a_reopen() {
    for_every_disk(Limits::NONE, |disk| {
        let ops = [put(EVENT, "e", "5"), put(GUEST, "b", "2"), put(GUEST, "a", "1"), put(FIRST, "", "")];
        disk.commit(&ops, Fence::default(), at(1)).unwrap();
        let whole = vec![
            record(FIRST, "", ""),
            record(GUEST, "a", "1"),
            record(GUEST, "b", "2"),
            record(EVENT, "e", "5"),
        ];
        assert_eq!(load(disk, &[]), (at(1), whole.clone()));
        disk.reopen().unwrap();
        assert_eq!(load(disk, &[]), (at(1), whole));
    });
}

#[test]
fn skipped_kinds_are_not_loaded() {
    for_every_disk(Limits::NONE, |disk| {
        let ops = [put(FIRST, "f", "0"), put(GUEST, "a", "1"), put(Kind(4), "n", "2"), put(EVENT, "e", "3")];
        disk.commit(&ops, Fence::default(), at(1)).unwrap();
        let (_, records) = load(disk, &[EVENT, GUEST]);
        assert_eq!(records, [record(FIRST, "f", "0"), record(Kind(4), "n", "2")]);
        let (_, records) = load(disk, &[FIRST]);
        assert_eq!(records.len(), 3);
    });
}

#[test]
fn operations_apply_in_their_order_and_overwrite() {
    for_every_disk(Limits::NONE, |disk| {
        disk.commit(&[put(GUEST, "a", "1"), put(GUEST, "b", "1")], Fence::default(), at(1)).unwrap();
        let ops = [
            delete(GUEST, "a"),
            put(GUEST, "a", "2"),
            put(GUEST, "b", "2"),
            delete(GUEST, "b"),
            delete(GUEST, "never there"),
        ];
        disk.commit(&ops, at(1), at(2)).unwrap();
        assert_eq!(load(disk, &[]), (at(2), vec![record(GUEST, "a", "2")]));
    });
}

#[test]
fn another_fence_refuses_the_commit_and_the_disk_works_on() {
    for_every_disk(Limits::NONE, |disk| {
        disk.commit(&[put(GUEST, "a", "1")], Fence::default(), at(5)).unwrap();
        let late = Fence { epoch: 0, revision: 5 };
        for expected in [Fence::default(), at(4), at(6), late] {
            let error = disk.commit(&[put(GUEST, "a", "2")], expected, at(7)).unwrap_err();
            assert!(matches!(error, Error::Fenced { found, .. } if found == at(5)), "{error:?}");
            assert!(!error.needs_reopen());
        }
        assert_eq!(load(disk, &[]), (at(5), vec![record(GUEST, "a", "1")]));
        disk.commit(&[put(GUEST, "a", "3")], at(5), at(6)).unwrap();
        assert_eq!(load(disk, &[]), (at(6), vec![record(GUEST, "a", "3")]));
    });
}

#[test]
fn a_commit_without_operations_moves_the_fence() {
    for_every_disk(Limits::NONE, |disk| {
        disk.commit(&[], Fence::default(), at(1)).unwrap();
        assert_eq!(load(disk, &[]).0, at(1));
    });
}

#[test]
fn limits_admit_what_just_fits_and_refuse_one_more() {
    let limits = Limits::ETCD;
    assert_eq!((limits.ops, limits.bytes), (128, 1_572_864));
    for_every_disk(limits, |disk| {
        assert_eq!(disk.limits(), limits);
        let many: Vec<Op> = (0..129).map(|n| put(GUEST, &format!("{n:03}"), "v")).collect();
        let error = disk.commit(&many, Fence::default(), at(1)).unwrap_err();
        assert!(matches!(error, Error::TooLarge { ops: 129, .. }), "{error:?}");
        assert!(!error.needs_reopen());
        let value = vec![7; limits.bytes - 2];
        let just = Op::Put { kind: GUEST, key: b"k".to_vec(), value: value.clone() };
        let over = Op::Put { kind: GUEST, key: b"kk".to_vec(), value };
        let error = disk.commit(&[over], Fence::default(), at(1)).unwrap_err();
        assert!(matches!(error, Error::TooLarge { ops: 1, .. }), "{error:?}");
        assert_eq!(load(disk, &[]), (Fence::default(), vec![]));
        disk.commit(&many[..128], Fence::default(), at(1)).unwrap();
        disk.commit(&[just], at(1), at(2)).unwrap();
        assert_eq!(load(disk, &[]).1.len(), 129);
    });
}

#[test]
fn a_scan_stays_in_its_kind_begins_at_its_key_and_ends_at_its_limit() {
    for_every_disk(Limits::NONE, |disk| {
        let reader = disk.reader();
        for kind in [GUEST, EVENT] {
            let keys = ["a", "b", "ba", "c"];
            let ops: Vec<Op> = keys.iter().map(|key| put(kind, key, "v")).collect();
            let (fence, _) = load(disk, &[]);
            disk.commit(&ops, fence, at(fence.revision + 1)).unwrap();
            let keys = |from: &str, limit| -> Vec<String> {
                let found = reader.scan(kind, from.as_bytes(), limit).unwrap();
                found.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
            };
            assert_eq!(keys("", 99), ["a", "b", "ba", "c"]);
            assert_eq!(keys("b", 99), ["b", "ba", "c"]);
            assert_eq!(keys("b\0", 1), ["ba"]);
            assert_eq!(keys("d", 99), [""; 0]);
            assert_eq!(keys("", 0), [""; 0]);
        }
    });
}

#[test]
fn a_reader_outlives_a_reopen_and_sees_later_commits() {
    for_every_disk(Limits::NONE, |disk| {
        let reader = disk.reader();
        disk.reopen().unwrap();
        disk.commit(&[put(GUEST, "a", "1")], Fence::default(), at(1)).unwrap();
        assert_eq!(reader.scan(GUEST, b"", 9).unwrap(), [(b"a".to_vec(), b"1".to_vec())]);
        let mut seen = 0;
        assert_eq!(reader.snapshot(&[], &mut |_, _, _| seen += 1).unwrap(), at(1));
        assert_eq!(seen, 1);
    });
}

#[test]
fn a_copy_holds_everything_and_only_a_whole_one_has_the_fence() {
    let source: Vec<Op> = (0..300).map(|n| put(Kind((n % 7) as u8), &format!("{n}"), "value")).collect();
    let mut from = MemoryDisk::new();
    from.commit(&source, Fence::default(), at(9)).unwrap();
    for_every_disk(Limits::ETCD, |to| {
        assert_eq!(copy(from.reader().as_ref(), to).unwrap(), at(9));
        assert_eq!(load(to, &[]), load(&mut from, &[]));
        let again = copy(from.reader().as_ref(), to).unwrap_err();
        assert!(matches!(again, Error::Fenced { .. }), "a copy never mixes into another store: {again:?}");
    });
    let faults = Faults::scripted([None, Some(haar_store::Fault::BeforeEffect)]);
    let mut to = FailingDisk::new(MemoryDisk::on(MemoryDisk::new().medium(), Limits::ETCD), faults);
    copy(from.reader().as_ref(), &mut to).unwrap_err();
    to.reopen().unwrap();
    let (fence, records) = load(&mut to, &[]);
    assert_eq!((fence, records.len()), (Fence::default(), 128), "half a copy says so by its fence");
}

#[test]
fn a_commit_is_visible_to_readers_on_other_threads() {
    for_every_disk(Limits::NONE, |disk| {
        let reader = disk.reader();
        disk.commit(&[put(GUEST, "a", "1")], Fence::default(), at(1)).unwrap();
        let seen = std::thread::spawn(move || reader.scan(GUEST, b"", 9).unwrap().len()).join().unwrap();
        assert_eq!(seen, 1);
    });
}
