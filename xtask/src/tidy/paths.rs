//! No file names a folder of some developer's machine.

use super::{Fault, Source};

/// Beginnings of such folders, written in two halves so that this file is not at fault itself.
const FOREIGN: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/var/tmp/", "target"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// One fault for each line that has one.
pub(super) fn check(sources: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for source in sources {
        for (number, line) in source.text.lines().enumerate() {
            if let Some(path) = FOREIGN.iter().find(|path| begins_in(line, path)) {
                let place = format!("{}:{}", source.path, number + 1);
                faults.push(Fault::new(place, format!("names `{path}…`, a folder of one machine only")));
            }
        }
    }
    faults
}

/// Whether `path` begins somewhere in the line, rather than being the middle of a longer path or URL.
fn begins_in(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|sign| sign.is_alphanumeric() || "_-.}/".contains(sign))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_url_is_no_folder() {
        assert!(begins_in(concat!("x = \"/wo", "rk/main\""), FOREIGN[0]));
        assert!(!begins_in(concat!("GET /v1/wo", "rk/7"), FOREIGN[0]));
    }
}
