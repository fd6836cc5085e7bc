//! Every Rust file begins by saying what is in it.

use super::{Fault, Source};

/// One fault for each Rust file whose first line is no `//!` line with words.
pub(super) fn check(sources: &[Source]) -> Vec<Fault> {
    let lacks = |source: &&Source| {
        let first = source.text.lines().next().unwrap_or_default();
        first.strip_prefix("//! ").is_none_or(|words| words.trim().len() <= 5)
    };
    let bare = sources.iter().filter(|source| source.is_rust()).filter(lacks);
    bare.map(|source| Fault::new(&source.path, "begins with no `//!` line that says what is in it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_without_a_heading_is_at_fault() {
        let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let sources = [
            file("a.rs", "//! What a is.\n"),
            file("b.rs", "use x;\n"),
            file("c.rs", "//!\n"),
            file("d.md", "no\n"),
        ];
        let places: Vec<String> = check(&sources).into_iter().map(|fault| fault.place).collect();
        assert_eq!(places, ["b.rs", "c.rs"]);
    }
}
