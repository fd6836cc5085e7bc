//! Who may import whom: the table of crates, held against what cargo says.
//!
//! Only what is built into a crate counts; tests may use more. A crate that is not there yet is no fault.

use anyhow::Result;

use super::Fault;
use crate::run;

/// Each crate and those of ours it may import.
const TABLE: &[(&str, &[&str])] = &[
    ("haar-core", &[]),
    ("haar-store", &[]),
    ("haar-zdb", &[]),
    ("haar-api", &["haar-core"]),
    ("haar-controller", &["haar-core", "haar-api", "haar-store"]),
    ("haar-agent", &["haar-core", "haar-api", "haar-store"]),
    ("haar-subagents", &["haar-api"]),
    ("haar-libvirt", &["haar-api", "haar-subagents"]),
    ("haar-ssh", &[]),
    ("haar-cloud", &["haar-api", "haar-ssh"]),
    ("haar-openstack", &["haar-cloud"]),
    ("haar-world", &["haar-core", "haar-store"]),
    (
        "haar",
        &[
            "haar-core",
            "haar-store",
            "haar-api",
            "haar-controller",
            "haar-agent",
            "haar-subagents",
            "haar-zdb",
            "haar-cloud",
            "haar-openstack",
            "haar-ssh",
        ],
    ),
    ("xtask", &[]),
];

/// What a crate may not contain however deep, and why.
const BANS: &[(&str, &[&str], &str)] = &[
    (
        "haar-core",
        &["tokio", "rand", "tracing", "log", "redb", "reqwest", "axum"],
        "the core does no I/O, draws no lots, writes no log",
    ),
    (
        "haar",
        &["virt", "virt-sys", "openssl-sys", "native-tls"],
        "the haar binary links no C library of the host",
    ),
    (
        "haar",
        &["haar-openstack"],
        "ordinary builds of haar do not pay for OpenStack; its feature is off by default",
    ),
    ("xtask", &["virt-sys", "tokio"], "xtask is the first thing a fresh machine builds"),
];

/// Asks cargo and compares.
pub(super) fn check() -> Result<Vec<Fault>> {
    let tree = run::quiet(
        "cargo",
        [
            "tree",
            "--workspace",
            "--edges",
            "normal,build",
            "--depth",
            "1",
            "--prefix",
            "depth",
            "--all-features",
            "--no-dedupe",
        ],
    )?;
    let edges = edges(&tree);
    let mut faults = compare(&edges);
    for (package, banned, why) in BANS {
        if edges.iter().all(|(known, _)| known != package) {
            continue;
        }
        let tree = run::quiet(
            "cargo",
            ["tree", "--package", package, "--edges", "normal,build", "--prefix", "none"],
        )?;
        let contains = |name: &&&str| tree.lines().any(|line| line.split(' ').next() == Some(**name));
        for name in banned.iter().filter(contains) {
            faults.push(Fault::new(format!("crate {package}"), format!("contains `{name}`, but {why}")));
        }
    }
    Ok(faults)
}

/// Each crate of the workspace with all it imports directly.
fn edges(tree: &str) -> Vec<(String, Vec<String>)> {
    let mut edges: Vec<(String, Vec<String>)> = Vec::new();
    for line in tree.lines() {
        let Some(name) = line.get(1..).and_then(|rest| rest.split(' ').next()) else { continue };
        if line.starts_with('0') {
            edges.push((name.to_owned(), Vec::new()));
        } else if let Some((_, imports)) = edges.last_mut() {
            imports.push(name.to_owned());
        }
    }
    edges
}

fn compare(edges: &[(String, Vec<String>)]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (package, imports) in edges {
        let place = format!("crate {package}");
        let Some((_, allowed)) = TABLE.iter().find(|(known, _)| known == package) else {
            faults.push(Fault::new(
                place,
                "is not in the table of who may import whom (xtask/src/tidy/imports.rs)",
            ));
            continue;
        };
        let is_ours = |name: &&String| *name == "haar" || name.starts_with("haar-");
        for import in imports.iter().filter(is_ours).filter(|name| !allowed.contains(&name.as_str())) {
            faults.push(Fault::new(&place, format!("may not import `{import}`; it may import {allowed:?}")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_edge_is_found() {
        let tree = "0haar-agent v0.1.0 (/x)\n1haar-core v0.1.0 (/x)\n1haar-controller v0.1.0 (/x)\n1serde v1.0.0\n\n0haar-core v0.1.0 (/x)\n";
        let faults = compare(&edges(tree));
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].what.contains("haar-controller"));
    }

    #[test]
    fn a_crate_nobody_placed_is_found() {
        assert_eq!(compare(&edges("0haar-surprise v0.1.0 (/x)\n")).len(), 1);
    }
}
