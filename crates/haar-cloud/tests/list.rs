//! docs/cloud-cases.md says which test shows which number of the older system's cases and defects: each test that it
//! names is there and is run, each test that bears a number stands behind it, and no number is missing.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[path = "../../../tests/pages.rs"]
mod pages;

/// The words that numbers follow in names, what stands before them on the page, and how many there are.
const KINDS: [(&str, &str, u32); 2] = [("case", "", 36), ("defect", "D", 41)];
/// Where such tests are.
const CRATES: [&str; 4] = ["haar-ssh", "haar-cloud", "haar-openstack", "haar"];

#[test]
fn every_number_is_listed_with_tests_that_are_there_and_every_such_test_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut listed = BTreeMap::<String, BTreeSet<String>>::new();
    for row in pages::rows(&root.join("docs/cloud-cases.md")) {
        let number = row.trim_start_matches("| ").split(" |").next().unwrap().to_owned();
        listed.entry(number).or_default().extend(pages::tests(&root, &row));
    }
    let there = pages::numbered(&root, &CRATES, |name| !numbers(name).is_empty());
    let mut faults = Vec::new();
    for (word, sign, last) in KINDS {
        for number in (1..=last).map(|number| format!("{sign}{number}")) {
            let by_number = |name: &&String| numbers(name).contains(&number);
            let shown = listed.get(&number).is_some_and(|names| names.iter().any(|name| by_number(&name)));
            if !shown {
                faults.push(format!("{word} {number} is on the page with no test of its number"));
            }
        }
    }
    for name in &there {
        for number in numbers(name) {
            if !listed.get(&number).is_some_and(|names| names.contains(name)) {
                faults.push(format!("{name} does not stand behind {number}"));
            }
        }
    }
    assert!(faults.is_empty(), "docs/cloud-cases.md: {faults:#?}");
}

#[test]
fn a_name_tells_its_numbers() {
    assert_eq!(numbers("case_28_defect_07_words_of_9"), ["28", "D7"]);
    assert!(numbers("case_by_case").is_empty() && numbers("a_case_7").is_empty());
}

/// The numbers that a name begins with, as they stand on the page: `case_28_defect_40_words`.
fn numbers(name: &str) -> Vec<String> {
    let words: Vec<&str> = name.split('_').collect();
    let number = |pair: &[&str]| {
        let sign = KINDS.iter().find(|(word, ..)| pair[0] == *word)?.1;
        Some(format!("{sign}{}", pair.get(1)?.parse::<u32>().ok()?))
    };
    words.chunks(2).map_while(number).collect()
}
