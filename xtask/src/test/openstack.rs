//! `cargo xtask test --only openstack`: the tests against a real OpenStack, from bringing it up to taking
//! it down.
//!
//! Where its packages are not there and cannot be installed, the tests are left out, and that is said.

use std::time::Instant;

use anyhow::{Context, Result};

use super::cargo;
use crate::openstack::{self, Cloud};
use crate::run;

/// What stands for each fake driver of Nova that is tried: its name, and the arguments of cargo.
const PASSES: &[(&str, &[&str])] = &[
    ("MediumFake", &["test", "-p", "haar-openstack"]),
    ("MediumFake", &["test", "-p", "haar", "--features", "openstack", "--test", "cli", "openstack::"]),
    ("FakeBuildAbort", &["test", "-p", "haar-openstack", "--test", "real"]),
];

pub(super) fn main() -> Result<()> {
    let began = Instant::now();
    if let Some(why) = openstack::missing() {
        eprintln!("\n1 left out:\n  the tests against OpenStack: {why}");
        return Ok(());
    }
    // First, so that what does not compile costs no bringing up.
    cargo(&["test", "-p", "haar-openstack", "--no-run"])?;
    cargo(&["test", "-p", "haar", "--features", "openstack", "--test", "cli", "--no-run"])?;
    let cloud = Cloud::choose()?;
    for (compute, arguments) in PASSES {
        eprintln!("\n== openstack with {compute}");
        cloud.up(compute)?;
        run::shown(cloud.told(run::cargo().args(*arguments), compute)).context("FAILED against OpenStack")?;
    }
    drop(cloud);
    eprintln!("\nPASSED against OpenStack in {:.0} s", began.elapsed().as_secs_f32());
    Ok(())
}
