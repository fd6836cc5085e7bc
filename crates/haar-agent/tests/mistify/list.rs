//! docs/mistify-cases.md says which test shows which number of the fact sheet: each that it names is there and is run,
//! and each test that bears such a number is named by it.

use std::collections::BTreeSet;
use std::path::Path;

#[path = "../../../../tests/pages.rs"]
mod pages;

/// The letters of the fact sheet's numbers, and the first and last that concern the agent and its sub-agents.
const NUMBERS: [(char, u32, u32); 4] = [('T', 41, 67), ('A', 1, 30), ('V', 1, 14), ('S', 1, 8)];
/// Where such tests are.
const CRATES: [&str; 3] = ["haar-agent", "haar-libvirt", "haar-subagents"];

#[test]
fn every_number_is_listed_with_tests_that_are_there_and_every_such_test_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rows = pages::rows(&root.join("docs/mistify-cases.md"));
    let mut without = Vec::new();
    let mut listed = BTreeSet::new();
    for (letter, first, last) in NUMBERS {
        for number in first..=last {
            let begin = format!("| {letter}{number} |");
            match rows.iter().find(|row| row.starts_with(&begin)) {
                Some(row) => listed.extend(pages::tests(&root, row)),
                None => without.push(format!("{letter}{number}")),
            }
        }
    }
    assert!(without.is_empty(), "these have no test: {without:?}");
    let there = pages::numbered(&root, &CRATES, bears_a_number);
    let unlisted: Vec<&String> = there.difference(&listed).collect();
    assert!(
        unlisted.is_empty(),
        "these bear a number, and docs/mistify-cases.md does not name them: {unlisted:?}"
    );
}

/// Whether it begins like `t41` or `a09_words`.
fn bears_a_number(name: &str) -> bool {
    let number = name.split('_').next().unwrap_or_default();
    let mut letters = number.chars();
    let letter = letters.next().map(|letter| letter.to_ascii_uppercase());
    let Ok(number) = letters.as_str().parse::<u32>() else { return false };
    NUMBERS.iter().any(|(known, first, last)| Some(*known) == letter && (*first..=*last).contains(&number))
}
