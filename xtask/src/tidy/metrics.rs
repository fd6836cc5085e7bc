//! Every metric of `/metrics` is explained in `docs/operating.md`.
//!
//! Metrics are the first literals given to `registry.register` in the controller's file of metrics; the page names
//! each in backquotes, with the prefix and perhaps labels or `_total` behind.

use super::{Fault, Source};

const FILE: &str = "crates/haar-controller/src/metrics.rs";
const PAGE: &str = "docs/operating.md";

/// One fault for each metric without a place on the page.
pub(super) fn check(sources: &[Source]) -> Vec<Fault> {
    let text =
        |path: &str| sources.iter().find(|source| source.path == path).map(|source| source.text.as_str());
    let (Some(code), Some(page)) = (text(FILE), text(PAGE)) else { return Vec::new() };
    let names = names(code);
    if names.is_empty() {
        return vec![Fault::new(FILE, "registers no metric that tidy can see")];
    }
    let is_explained = |name: &&String| {
        ["`", "{", "_total`", "_total{"].iter().any(|end| page.contains(&format!("`haar_{name}{end}")))
    };
    let missing = names.iter().filter(|name| !is_explained(name));
    missing.map(|name| Fault::new(FILE, format!("metric `haar_{name}` is not explained in {PAGE}"))).collect()
}

fn names(code: &str) -> Vec<String> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let calls = code.split("registry.register(").skip(1);
    calls
        .filter_map(|call| call.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_the_page_does_not_name_is_at_fault() {
        let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
        let code = "registry.register(\"depth\", \"x\", a);\nregistry.register(\n  \"guests\",\n \"y\", b);\n\
                    registry.register(\"requests\", \"z\", c);";
        let page = "`haar_guests{state}` and `haar_requests_total{class}`; haar_depth without its quotes";
        let faults = check(&[file(FILE, code), file(PAGE, page)]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].what.contains("haar_depth"));
    }
}
