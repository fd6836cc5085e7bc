//! What the checks of pages share that name tests by number: a page's rows, and whether what they name is run.
//!
//! Included by the tests of the crates that such a page is about. A row ends with its tests, each file's as
//! `file` `name` and more names behind; files are parted by `<br>`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The rows of a page that name tests.
pub(crate) fn rows(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    rows.map(str::to_owned).collect()
}

/// The names of a row's tests, each of which must be there and be run.
pub(crate) fn tests(root: &Path, row: &str) -> Vec<String> {
    let tests = row.rsplit_once(" | ").unwrap().1.trim_end_matches(" |");
    let mut names = Vec::new();
    for test in tests.split("<br>") {
        let mut words = test.split('`').skip(1).step_by(2);
        let file = words.next().unwrap_or_else(|| panic!("{row}: no file is named"));
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

/// The functions of some crates that bear a number.
pub(crate) fn numbered(root: &Path, crates: &[&str], bears: fn(&str) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in crates {
        for folder in ["src", "tests"] {
            collect(&root.join("crates").join(name).join(folder), bears, &mut found);
        }
    }
    found
}

fn collect(folder: &Path, bears: fn(&str) -> bool, found: &mut BTreeSet<String>) {
    let entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for path in entries {
        if path.is_dir() {
            collect(&path, bears, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names =
                text.lines().filter_map(|line| line.trim_start().split("fn ").nth(1)?.split('(').next());
            found.extend(names.filter(|name| bears(name)).map(str::to_owned));
        }
    }
}
