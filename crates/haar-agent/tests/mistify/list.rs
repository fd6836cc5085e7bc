//! docs/mistify-cases.md says which test shows which number of the fact sheet: each that it names is there and is run,
//! and each test that bears such a number is named by it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The letters of the fact sheet's numbers, and the first and last that concern the agent and its sub-agents.
const NUMBERS: [(char, u32, u32); 4] = [('T', 41, 67), ('A', 1, 30), ('V', 1, 14), ('S', 1, 8)];
/// Where such tests are.
const CRATES: [&str; 3] = ["haar-agent", "haar-libvirt", "haar-subagents"];

#[test]
fn every_number_is_listed_with_tests_that_are_there_and_every_such_test_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let list = std::fs::read_to_string(root.join("docs/mistify-cases.md")).unwrap();
    let rows: Vec<&str> = list.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    let mut without = Vec::new();
    let mut listed = BTreeSet::new();
    for (letter, first, last) in NUMBERS {
        for number in first..=last {
            let begin = format!("| {letter}{number} |");
            match rows.iter().find(|row| row.starts_with(&begin)) {
                Some(row) => listed.extend(check(&root, row)),
                None => without.push(format!("{letter}{number}")),
            }
        }
    }
    assert!(without.is_empty(), "these have no test: {without:?}");
    let mut there = BTreeSet::new();
    for name in CRATES {
        for folder in ["src", "tests"] {
            collect(&root.join("crates").join(name).join(folder), &mut there);
        }
    }
    let unlisted: Vec<&String> = there.difference(&listed).collect();
    assert!(
        unlisted.is_empty(),
        "these bear a number, and docs/mistify-cases.md does not name them: {unlisted:?}"
    );
}

/// The tests of a row stand as `file` `name`, with more names behind where a file has several. Answers the names.
fn check(root: &Path, row: &str) -> Vec<String> {
    let tests = row.rsplit_once(" | ").unwrap().1.trim_end_matches(" |");
    let mut names = Vec::new();
    for test in tests.split("<br>") {
        let mut words = test.split('`').skip(1).step_by(2);
        let file = words.next().unwrap();
        let text = std::fs::read_to_string(root.join("crates").join(file));
        let text = text.unwrap_or_else(|error| panic!("{file}: {error}"));
        let before = names.len();
        for name in words {
            assert!(is_run(&text, name), "{row}: {file} runs no test {name}");
            names.push(name.to_owned());
        }
        assert!(names.len() > before, "{row}: no test of {file} is named");
    }
    names
}

/// Whether a file has the function as a test, or as a case of a table that one runs.
fn is_run(text: &str, name: &str) -> bool {
    let Some(at) = text.find(&format!("fn {name}(")) else { return false };
    let attributes = text[..at].rsplit("\n\n").next().unwrap_or_default();
    attributes.contains("test]") || attributes.contains("test(") || text.contains(&format!("=> {name},"))
}

/// The functions in a folder's files that bear a number.
fn collect(folder: &Path, there: &mut BTreeSet<String>) {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in entries {
        if path.is_dir() {
            collect(&path, there);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names =
                text.lines().filter_map(|line| line.trim_start().split("fn ").nth(1)?.split('(').next());
            there.extend(names.filter(|name| bears_a_number(name)).map(str::to_owned));
        }
    }
}

/// Whether it begins like `t41` or `a09_words`.
fn bears_a_number(name: &str) -> bool {
    let number = name.split('_').next().unwrap_or_default();
    let mut letters = number.chars();
    let letter = letters.next().map(|letter| letter.to_ascii_uppercase());
    let Ok(number) = letters.as_str().parse::<u32>() else { return false };
    NUMBERS.iter().any(|(known, first, last)| Some(*known) == letter && (*first..=*last).contains(&number))
}
