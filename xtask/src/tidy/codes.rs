//! Every error code a caller can meet is explained in `docs/operating.md`.
//!
//! The codes are the string literals of the functions `code()` in the files below; the page names
//! each in backquotes. Before the page or a file exists, there is nothing to compare.

use super::{Fault, Source};

/// The files whose `code()` is part of the API.
const FILES: &[&str] = &["crates/haar-core/src/refusal.rs", "crates/haar-api/src/problem.rs"];
const PAGE: &str = "docs/operating.md";

/// One fault for each code without a place on the page.
pub(super) fn check(sources: &[Source]) -> Vec<Fault> {
    let Some(page) = sources.iter().find(|source| source.path == PAGE) else { return Vec::new() };
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| FILES.contains(&source.path.as_str())) {
        let codes = codes(&source.text);
        if codes.is_empty() {
            faults.push(Fault::new(
                &source.path,
                "has no `fn code` with string literals after `=>`; tidy cannot see its codes",
            ));
        }
        let unexplained = codes.iter().filter(|code| !page.text.contains(&format!("`{code}`")));
        faults.extend(
            unexplained
                .map(|code| Fault::new(&source.path, format!("code `{code}` is not explained in {PAGE}"))),
        );
    }
    faults
}

/// The string literals after `=>` in the functions named `code` that return text.
fn codes(text: &str) -> Vec<String> {
    let mut codes = Vec::new();
    for part in text.split("fn code(").skip(1) {
        let Some((head, body)) = part.split_once('{') else { continue };
        if !head.contains("str") {
            continue;
        }
        for arm in function_body(body).split("=>").skip(1) {
            if let Some(rest) = arm.trim_start().strip_prefix('"') {
                codes.extend(rest.split('"').next().map(str::to_owned));
            }
        }
    }
    codes
}

/// What comes before the brace that closes a body whose opening brace is already past.
fn function_body(text: &str) -> &str {
    let mut depth = 1;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = r#"
        pub fn code(&self) -> &'static str { match self { A { .. } => "in_use", B(_) => "busy", } }
        fn category(&self) -> &str { match self { A => "elsewhere" } }
    "#;

    #[test]
    fn codes_are_the_literals_of_the_function_code_only() {
        assert_eq!(codes(CODE), ["in_use", "busy"]);
    }

    #[test]
    fn a_code_the_page_does_not_name_is_at_fault() {
        let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let faults = check(&[file(FILES[0], CODE), file(PAGE, "### `in_use`\nSomeone uses it.\n")]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].what.contains("busy"));
    }
}
