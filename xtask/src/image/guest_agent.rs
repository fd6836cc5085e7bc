//! Debian's own QEMU guest agent, for the guest that tests freeze: its package and its libraries', fetched once per cache.
//!
//! Nothing is installed on the host: the packages are unpacked beside the image that is being made. As the kernel's,
//! their versions stay until the cache is emptied. The demo's guest has no agent, and stays as small as it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::root;
use crate::{packages, run};

const PACKAGE: &str = "qemu-guest-agent";
/// Where Debian has it, and where the guest's script looks for it.
const PROGRAM: &str = "usr/sbin/qemu-ga";
const SCRIPT: (&str, &str) = ("etc/haar/guest-agent", include_str!("guest/guest-agent"));
/// Once all else has started; it needs nothing of it but `/run`.
const INITTAB_LINE: &str = "::once:/etc/haar/guest-agent\n";

/// The packages in the cache.
pub(crate) struct Packages {
    files: Vec<PathBuf>,
}

impl Packages {
    /// The cache's packages; the newest of the package lists are fetched if there are none.
    pub(crate) fn pinned(cache: &Path) -> Result<Self> {
        let folder = cache.join("guest-agent");
        if !folder.is_dir() {
            let record = packages::newest_record(PACKAGE)?;
            let mut names = vec![PACKAGE];
            names.extend(libraries(&record));
            eprintln!("fetching {}", names.join(" "));
            let scratch = run::Scratch::inside(cache)?;
            let fetched = scratch.path().join("packages");
            std::fs::create_dir(&fetched)?;
            packages::download(&names, &fetched)?;
            // All of them or none.
            std::fs::rename(&fetched, &folder)?;
        }
        Ok(Self { files: packages::files(&folder)? })
    }

    /// The part of the recipe that lives here, for the cache's key.
    pub(crate) fn recipe(&self) -> String {
        let names: Vec<_> = self.files.iter().filter_map(|file| file.file_name()).collect();
        format!("{PROGRAM} {SCRIPT:?} {INITTAB_LINE:?} {names:?}\n")
    }

    /// Puts the agent into the tree of a root file system; the packages are unpacked in `scratch`.
    pub(crate) fn add(&self, scratch: &Path, root: &Path) -> Result<()> {
        for file in &self.files {
            run::quietly(run::command("dpkg-deb").arg("-x").arg(file).arg(scratch))?;
        }
        root::add_program(root, &scratch.join(PROGRAM), PROGRAM, Some(scratch))?;
        root::write(&root.join(SCRIPT.0), SCRIPT.1, 0o755)?;
        let inittab = root.join("etc/inittab");
        let lines = std::fs::read_to_string(&inittab).context("the guest has no inittab")?;
        root::write(&inittab, &format!("{lines}{INITTAB_LINE}"), 0o644)
    }
}

/// The libraries' packages that the record names. libc is the host's, as it is for the guest's other programs.
fn libraries(record: &str) -> Vec<&str> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
    let first_words = depends.split(',').filter_map(|choice| choice.split_whitespace().next());
    first_words.filter(|name| name.starts_with("lib") && *name != "libc6").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_libraries_are_read_from_its_record() {
        let record = "Package: qemu-guest-agent\nVersion: 1\nDepends: libc6 (>= 2.34), libglib2.0-0t64 (>= 2.75.3), libudev1 | libeudev1, lsb-base\n";
        assert_eq!(libraries(record), ["libglib2.0-0t64", "libudev1"]);
        assert!(libraries("Package: x\n").is_empty());
    }

    #[test]
    fn its_script_is_valid_shell() {
        run::filter("sh", &["-n"], SCRIPT.1.as_bytes()).unwrap();
    }
}
