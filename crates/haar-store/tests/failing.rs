//! The failing disk fails as told, and looks to its caller like a real one that failed.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use haar_store::{Disk, Error, FailingDisk, Fault, Faults, Fence, Fired, Kind, MemoryDisk, Odds, Op};

const KIND: Kind = Kind(1);

fn at(revision: u64) -> Fence {
    Fence { epoch: 0, revision }
}

fn commit(disk: &mut impl Disk, revision: u64) -> Result<(), Error> {
    let op = Op::Put { kind: KIND, key: b"counter".to_vec(), value: revision.to_be_bytes().to_vec() };
    disk.commit(&[op], at(revision - 1), at(revision))
}

fn fence_of(disk: &mut impl Disk) -> Fence {
    disk.load(&[], &mut |_, _, _| ()).unwrap()
}

#[test]
fn a_fault_before_the_effect_leaves_nothing_and_one_after_leaves_all() {
    for (fault, expected) in [(Fault::BeforeEffect, at(1)), (Fault::AfterEffect, at(2)), (Fault::Full, at(1))]
    {
        let mut disk = FailingDisk::new(MemoryDisk::new(), Faults::scripted([None, Some(fault)]));
        commit(&mut disk, 1).unwrap();
        let error = commit(&mut disk, 2).unwrap_err();
        match fault {
            Fault::Full => assert!(matches!(error, Error::Full { .. })),
            _ => assert!(matches!(error, Error::OutcomeUnknown { .. })),
        }
        assert!(error.needs_reopen());
        disk.reopen().unwrap();
        assert_eq!(fence_of(&mut disk), expected, "{fault:?}");
        commit(&mut disk, expected.revision + 1).unwrap();
    }
}

#[test]
fn a_failed_disk_does_nothing_until_it_is_reopened() {
    let mut disk = FailingDisk::new(MemoryDisk::new(), Faults::none());
    let (faults, reader) = (disk.faults(), disk.reader());
    faults.push(Some(Fault::AfterEffect));
    faults.fail_reopens(2);
    commit(&mut disk, 1).unwrap_err();
    for _ in 0..2 {
        assert!(matches!(commit(&mut disk, 2), Err(Error::NeedsReopen { .. })));
        assert!(matches!(disk.load(&[], &mut |_, _, _| ()), Err(Error::NeedsReopen { .. })));
        assert!(matches!(reader.scan(KIND, b"", 1), Err(Error::NeedsReopen { .. })));
        assert!(matches!(disk.reopen(), Err(Error::Io { .. })));
    }
    disk.reopen().unwrap();
    assert_eq!(reader.scan(KIND, b"", 1).unwrap().len(), 1);
    commit(&mut disk, 2).unwrap();
    assert_eq!(faults.fired(), Fired { after_effect: 1, reopens: 2, ..Fired::default() });
}

#[test]
fn a_refusal_is_answered_even_where_a_fault_was_planned() {
    let mut disk = FailingDisk::new(MemoryDisk::new(), Faults::scripted([Some(Fault::AfterEffect)]));
    let error = disk.commit(&[], at(7), at(8)).unwrap_err();
    assert!(matches!(error, Error::Fenced { .. }));
    commit(&mut disk, 1).unwrap();
}

/// Runs 500 commits and tells, for each, whether it failed; ends with what was fired.
fn run(seed: u64) -> (Vec<bool>, Fired) {
    let odds = Odds { one_in: 5, failed_reopens: 2 };
    let mut disk = FailingDisk::new(MemoryDisk::new(), Faults::seeded(seed, odds));
    let mut failed = Vec::new();
    for _ in 0..500 {
        let next = fence_of(&mut disk).revision + 1;
        failed.push(commit(&mut disk, next).is_err());
        while disk.load(&[], &mut |_, _, _| ()).is_err() {
            // The error is the planned one, and the plan ends.
            drop(disk.reopen());
        }
    }
    (failed, disk.faults().fired())
}

#[test]
fn a_seed_gives_every_fault_and_always_the_same() {
    let (failed, fired) = run(7);
    assert_eq!((failed, fired), run(7));
    assert_ne!(run(7).0, run(8).0);
    for count in [fired.before_effect, fired.after_effect, fired.full, fired.reopens] {
        assert!(count > 10, "{fired:?}");
    }
}
