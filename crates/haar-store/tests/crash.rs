//! The disk dies at every write, flush and growth of a scripted history.
//!
//! What was answered is there; the commit in flight is there wholly or not at all; nothing else is.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{History, Medium, Unflushed, fence, history, load};
use haar_store::{Disk, Error, Kind, Op};

const COMMITS: u64 = 30;

/// Writes the history from commit `from` on until it ends or the power does; how many commits then were
/// answered in all.
fn write(disk: &mut dyn Disk, history: &History, from: usize) -> usize {
    for (number, ops) in history.commits.iter().enumerate().skip(from) {
        if let Err(error) = disk.commit(ops, fence(number), fence(number + 1)) {
            assert!(error.needs_reopen(), "{error:?}");
            let next = disk.commit(&[], fence(number), fence(number + 1)).unwrap_err();
            assert!(matches!(next, Error::NeedsReopen { .. }), "{next:?}");
            return number;
        }
    }
    history.commits.len()
}

/// The bytes of a store that has seen no commit.
fn empty_store() -> Vec<u8> {
    let medium = Medium::default();
    drop(medium.open().unwrap());
    medium.live()
}

/// Opens what is left and checks it against what was answered; how many commits it holds.
fn check(medium: &Medium, history: &History, answered: usize, about: &str) -> usize {
    let mut disk = medium.open().unwrap_or_else(|error| panic!("{about}: {error}"));
    let (found, content) = load(&mut disk);
    let commits = found.revision as usize;
    assert!(
        commits == answered || commits == (answered + 1).min(history.commits.len()),
        "{about}: {answered} commits were answered, {commits} are there"
    );
    assert_eq!(found, fence(commits), "{about}");
    assert!(content == history.states[commits], "{about}: the records are not those of commit {commits}");
    commits
}

#[test]
fn a_disk_that_dies_at_any_step_keeps_what_was_answered() {
    let history = history(COMMITS);
    let empty = empty_store();
    let whole = Medium::holding(empty.clone());
    let mut disk = whole.open().unwrap();
    let steps_of_opening = whole.steps();
    assert_eq!(write(&mut disk, &history, 0), history.commits.len());
    drop(disk);
    let steps = whole.steps() - steps_of_opening;
    let mut took_effect_unanswered = 0;
    let mut was_undone = 0;
    for step in 1..=steps {
        let medium = Medium::holding(empty.clone());
        let mut disk = medium.open().unwrap();
        medium.die_at(step);
        let answered = write(&mut disk, &history, 0);
        drop(disk);
        assert!(medium.is_dead(), "step {step} was not reached");
        for unflushed in [Unflushed::Lost, Unflushed::Kept, Unflushed::Drawn(step)] {
            let about = format!("power ended at step {step}, unflushed writes {unflushed:?}");
            let commits = check(&medium.after_crash(unflushed), &history, answered, &about);
            if commits > answered {
                took_effect_unanswered += 1;
            } else if answered < history.commits.len() {
                was_undone += 1;
            }
        }
    }
    println!("{steps} steps; unanswered commits: {took_effect_unanswered} took effect, {was_undone} did not");
    assert!(took_effect_unanswered > 0 && was_undone > 0, "both outcomes of a commit in flight are reached");
}

#[test]
fn a_second_crash_while_recovering_loses_nothing_either() {
    let history = history(COMMITS);
    let empty = empty_store();
    for seed in 0..200 {
        let mut lot = seed;
        let medium = Medium::holding(empty.clone());
        let mut disk = medium.open().unwrap();
        medium.die_at(1 + common::draw(&mut lot) % 300);
        let answered = write(&mut disk, &history, 0);
        drop(disk);
        let second = medium.after_crash(Unflushed::Drawn(seed));
        second.die_at(1 + common::draw(&mut lot) % 25);
        let mut answered_then = answered;
        if let Ok(mut disk) = second.open() {
            // The power may end while reading, too: then nothing was answered in this life.
            if let Ok(found) = disk.load(&[], &mut |_, _, _| ()) {
                answered_then = write(&mut disk, &history, found.revision as usize);
            }
        }
        let third = second.after_crash(Unflushed::Drawn(!seed));
        let about = format!("seed {seed}");
        let commits = if answered_then == answered {
            // What the first crash left in flight may have been found, and nothing written since; or one
            // more commit was in flight on top of it.
            let mut disk = third.open().unwrap_or_else(|error| panic!("{about}: {error}"));
            let (found, content) = load(&mut disk);
            let commits = found.revision as usize;
            assert!((answered..=answered + 2).contains(&commits), "{about}: {answered} then {commits}");
            assert!(content == history.states[commits], "{about}");
            commits
        } else {
            check(&third, &history, answered_then, &about)
        };
        let mut disk = third.open().unwrap();
        assert_eq!(write(&mut disk, &history, commits), history.commits.len(), "{about}: it works on");
    }
}

#[test]
fn a_crash_while_a_store_is_made_leaves_none_or_an_empty_one() {
    let whole = Medium::default();
    drop(whole.open().unwrap());
    for step in 1..=whole.steps() {
        for unflushed in [Unflushed::Lost, Unflushed::Kept, Unflushed::Drawn(step)] {
            let medium = Medium::default();
            medium.die_at(step);
            drop(medium.open());
            match medium.after_crash(unflushed).open() {
                Ok(mut disk) => assert_eq!(load(&mut disk), (fence(0), common::Content::new())),
                Err(Error::Corrupt { .. }) => {}
                Err(other) => panic!("power ended at step {step}, unflushed {unflushed:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn after_a_failed_commit_a_reopen_on_the_spot_tells_the_outcome() {
    let history = history(8);
    let probe = Medium::default();
    let mut disk = probe.open().unwrap();
    let before = probe.steps();
    write(&mut disk, &history, 0);
    for step in 1..=probe.steps() - before {
        let medium = Medium::default();
        let mut disk = medium.open().unwrap();
        let reader = disk.reader();
        medium.die_at(step);
        let answered = write(&mut disk, &history, 0);
        assert!(matches!(reader.scan(Kind(0), b"", 1), Err(Error::NeedsReopen { .. })));
        assert!(disk.reopen().is_err(), "without power there is no reopening");
        medium.revive();
        disk.reopen().unwrap();
        let (found, content) = load(&mut disk);
        let commits = found.revision as usize;
        assert!(commits == answered || commits == answered + 1, "step {step}");
        assert!(content == history.states[commits], "step {step}");
        assert_eq!(write(&mut disk, &history, commits), history.commits.len());
        reader.scan(Kind(0), b"", 1).unwrap();
    }
}

#[test]
fn a_full_medium_refuses_and_works_again_when_there_is_space() {
    let large = |n: usize| {
        vec![Op::Put { kind: Kind(1), key: n.to_be_bytes().to_vec(), value: vec![n as u8; 100_000] }]
    };
    let medium = Medium::default();
    let mut disk = medium.open().unwrap();
    medium.set_capacity(Some(medium.live().len() + 1_000_000));
    let mut done = 0;
    let error = loop {
        match disk.commit(&large(done), fence(done), fence(done + 1)) {
            Ok(()) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 100, "the medium never got full");
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(error.needs_reopen());
    assert!(done > 0);
    medium.set_capacity(None);
    disk.reopen().unwrap();
    let (found, content) = load(&mut disk);
    assert_eq!((found, content.len()), (fence(done), done), "the refused commit left nothing");
    disk.commit(&large(done), fence(done), fence(done + 1)).unwrap();
    assert_eq!(load(&mut disk).1.len(), done + 1);
}
