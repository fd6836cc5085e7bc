//! Debian's own QEMU guest agent, for the guest that tests freeze.
//!
//! The demo's guest has no agent, and stays as small as it is.

use std::path::Path;

use anyhow::{Context, Result};

use super::root;
use super::unpacked::Packages;

/// Where its packages are in the cache, and what they are.
pub(super) const FOLDER: &str = "guest-agent";
pub(super) const PACKAGES: &[&str] = &["qemu-guest-agent"];
/// Below `/usr`: where Debian has it, and where the guest's script looks for it.
const PROGRAM: &str = "sbin/qemu-ga";
const SCRIPT: (&str, &str) = ("etc/haar/guest-agent", include_str!("guest/guest-agent"));
/// Once all else has started; it needs nothing of it but `/run`.
const INITTAB_LINE: &str = "::once:/etc/haar/guest-agent\n";

/// The part of the recipe that lives here, for the cache's key.
pub(super) fn recipe() -> String {
    format!("{PROGRAM} {SCRIPT:?} {INITTAB_LINE:?}\n")
}

/// Puts the agent into the tree of a root file system; the packages are unpacked in `scratch`.
pub(super) fn add(packages: &Packages, scratch: &Path, root: &Path) -> Result<()> {
    let unpacked = packages.unpack(scratch)?;
    unpacked.add_program(root, PROGRAM, &format!("usr/{PROGRAM}"))?;
    root::write(&root.join(SCRIPT.0), SCRIPT.1, 0o755)?;
    let inittab = root.join("etc/inittab");
    let lines = std::fs::read_to_string(&inittab).context("the guest has no inittab")?;
    root::write(&inittab, &format!("{lines}{INITTAB_LINE}"), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run;

    #[test]
    fn its_script_is_valid_shell() {
        run::filter("sh", &["-n"], SCRIPT.1.as_bytes()).unwrap();
    }
}
