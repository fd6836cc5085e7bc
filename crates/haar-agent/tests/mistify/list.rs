//! docs/mistify-cases.md says which test shows which number of the fact sheet: each that it names is there.

use std::path::Path;

#[test]
fn every_number_is_listed_with_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let list = std::fs::read_to_string(root.join("docs/mistify-cases.md")).unwrap();
    let rows: Vec<&str> = list.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    let mut without = Vec::new();
    for (letter, first, last) in [('T', 41, 67), ('A', 1, 30), ('V', 1, 14), ('S', 1, 8)] {
        for number in first..=last {
            let begin = format!("| {letter}{number} |");
            match rows.iter().find(|row| row.starts_with(&begin)) {
                Some(row) => check(&root, row),
                None => without.push(format!("{letter}{number}")),
            }
        }
    }
    assert!(without.is_empty(), "these have no test: {without:?}");
}

/// The tests of a row stand as `file` `name`.
fn check(root: &Path, row: &str) {
    let tests = row.rsplit_once(" | ").unwrap().1.trim_end_matches(" |");
    for test in tests.split("<br>") {
        let words: Vec<&str> = test.split('`').collect();
        let (file, name) = (words[1], words[3]);
        let text = std::fs::read_to_string(root.join("crates").join(file));
        let text = text.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(&format!("fn {name}(")), "{row}: {file} has no test {name}");
    }
}
