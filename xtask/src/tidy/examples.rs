//! Every example in `etc/` is what its ending says, and a test reads it as the program would.
//!
//! Here each is parsed: TOML, JSON, and systemd units as far as sections, keys and an `ExecStart`. Which keys and
//! words are known is the program's business: a test beside the code that reads such a file must include it.

use super::{Fault, Source};

/// One fault for each example that cannot be read, and for each that no test includes.
pub(super) fn check(sources: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for source in sources {
        let Some(name) = source.path.strip_prefix("etc/") else { continue };
        match parse(name, &source.text) {
            Ok(()) => {}
            Err(why) => faults.push(Fault::new(&source.path, why)),
        }
        let is_included = sources.iter().any(|other| other.is_rust() && includes(&other.text, name));
        if !is_included {
            faults.push(Fault::new(&source.path, "no test includes this example; add one that reads it"));
        }
    }
    faults
}

fn parse(name: &str, text: &str) -> Result<(), String> {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("toml") => toml::from_str::<toml::Table>(text).map(drop).map_err(|error| error.to_string()),
        Some("json") => {
            serde_json::from_str::<serde_json::Value>(text).map(drop).map_err(|error| error.to_string())
        }
        Some("service") => unit(text),
        _ => Err("is of a kind that tidy cannot read; teach it, or name the file otherwise".to_owned()),
    }
}

/// A unit has `Key=Value` lines below section headings, and starts an absolute path.
fn unit(text: &str) -> Result<(), String> {
    let mut section = "";
    let mut starts = false;
    for (number, line) in text.lines().map(str::trim).enumerate() {
        let at = number + 1;
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            continue;
        }
        let (key, value) =
            line.split_once('=').ok_or_else(|| format!("line {at} is neither key nor section"))?;
        if section.is_empty() || value.is_empty() {
            return Err(format!("line {at}: `{key}` has no section or no value"));
        }
        if (section, key) == ("Service", "ExecStart") {
            starts = value.starts_with('/');
        }
    }
    if starts { Ok(()) } else { Err("has no ExecStart= with an absolute path in [Service]".to_owned()) }
}

/// Whether a file with tests includes the example.
fn includes(text: &str, name: &str) -> bool {
    let includes = text.match_indices("include_str!(\"").any(|(at, begin)| {
        let path = text[at + begin.len()..].split('"').next().unwrap_or_default();
        path.ends_with(&format!("/etc/{name}"))
    });
    includes && text.contains("#[test]")
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "#[test]\nfn f() { include_str!(\"../../../etc/one.toml\"); }";

    #[test]
    fn an_example_that_no_test_includes_is_at_fault() {
        let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let naming = file("crates/x/src/z.rs", "// \"etc/two.json\"\n#[test]");
        let faults =
            check(&[file("etc/one.toml", ""), file("etc/two.json", "{}"), file("x.rs", READER), naming]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].place, "etc/two.json");
    }

    #[test]
    fn an_example_that_is_not_what_its_ending_says_is_at_fault() {
        assert!(parse("a.toml", "x = 1\n[y]\nz = []\n").is_ok());
        assert!(parse("a.service", "[Service]\n# words\nExecStart=/usr/bin/haar up\n").is_ok());
        for (name, text) in [
            ("a.toml", "x = \n"),
            ("a.json", "{"),
            ("a.service", "ExecStart=/usr/bin/haar\n"),
            ("a.service", "[Service]\nExecStart=haar up\n"),
            ("a.service", "[Service]\nRestart\n"),
            ("a.yaml", "x: 1\n"),
        ] {
            assert!(parse(name, text).is_err(), "{name} {text}");
        }
    }
}
