//! Every example configuration in `etc/` is read by some test.
//!
//! Whether it parses is the test's business; here is only checked that one names the file.

use super::{Fault, Source};

/// One fault for each example that no Rust file names.
pub(super) fn check(sources: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for source in sources {
        let Some(name) = source.path.strip_prefix("etc/") else { continue };
        if !name.ends_with(".toml") && !name.ends_with(".json") {
            continue;
        }
        let is_named = sources.iter().any(|other| other.is_rust() && names(&other.text, name));
        if !is_named {
            faults.push(Fault::new(&source.path, "no test reads this example; add one that parses it"));
        }
    }
    faults
}

fn names(text: &str, name: &str) -> bool {
    text.contains(&format!("etc/{name}\"")) || text.contains(&format!("\"{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_that_no_test_names_is_at_fault() {
        let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let reader = file("crates/x/tests/y.rs", "include_str!(\"../../../etc/one.toml\")");
        let faults = check(&[file("etc/one.toml", ""), file("etc/two.json", ""), reader]);
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].place, "etc/two.json");
    }
}
