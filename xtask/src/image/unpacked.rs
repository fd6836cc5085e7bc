//! Debian's packages that only the tests' guest has: fetched once per cache with their libraries', and unpacked beside
//! the image that is being made.
//!
//! Nothing is installed on the host. As the kernel's, their versions stay until the cache is emptied. Deliberately
//! absent: what they depend on besides libraries, and libc, which is the host's as for the guest's other programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::root;
use crate::{packages, run};

/// Some packages, with those of their libraries, in the cache.
pub(super) struct Packages {
    files: Vec<PathBuf>,
}

/// The folder that they were unpacked in.
pub(super) struct Tree {
    folder: PathBuf,
}

impl Packages {
    /// Those in this folder of the cache; the newest of the package lists are fetched if there are none.
    pub(super) fn pinned(cache: &Path, folder: &str, wanted: &[&str]) -> Result<Self> {
        let folder = cache.join(folder);
        if !folder.is_dir() {
            let names = with_libraries(wanted)?;
            eprintln!("fetching {}", names.join(" "));
            let scratch = run::Scratch::inside(cache)?;
            let fetched = scratch.path().join("packages");
            std::fs::create_dir(&fetched)?;
            packages::download(&names.iter().map(String::as_str).collect::<Vec<_>>(), &fetched)?;
            // All of them or none.
            std::fs::rename(&fetched, &folder)?;
        }
        Ok(Self { files: packages::files(&folder)? })
    }

    /// The names of their files, for the cache's key.
    pub(super) fn recipe(&self) -> String {
        let names: Vec<_> = self.files.iter().filter_map(|file| file.file_name()).collect();
        format!("{names:?}\n")
    }

    /// Unpacks them all into a folder.
    pub(super) fn unpack(&self, folder: &Path) -> Result<Tree> {
        for file in &self.files {
            run::quietly(run::command("dpkg-deb").arg("-x").arg(file).arg(folder))?;
        }
        Ok(Tree { folder: folder.to_owned() })
    }
}

impl Tree {
    /// Puts a program and its libraries into the tree of a root file system, at another place than its own if need be.
    pub(super) fn add_program(&self, root: &Path, program: &str, to: &str) -> Result<()> {
        root::add_program(root, &self.file(program)?, to, Some(&self.folder))
    }

    /// A file that is wanted, by its place below `/usr` or `/`: Debian moved all from the one to the other.
    pub(super) fn file(&self, path: &str) -> Result<PathBuf> {
        let places = [self.folder.join("usr").join(path), self.folder.join(path)];
        places.into_iter().find(|place| place.exists()).with_context(|| format!("no package holds {path}"))
    }
}

/// These packages, and those of the libraries that they need, and those of theirs.
fn with_libraries(wanted: &[&str]) -> Result<Vec<String>> {
    let mut names: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let mut asked = 0;
    while asked < names.len() {
        let records =
            packages::newest_records(&names[asked..].iter().map(String::as_str).collect::<Vec<_>>())?;
        asked = names.len();
        for library in libraries(&records) {
            if !names.iter().any(|name| name == library) {
                names.push(library.to_owned());
            }
        }
    }
    Ok(names)
}

/// The libraries' packages that records name.
fn libraries(records: &str) -> Vec<&str> {
    let depends = records.lines().filter_map(|line| line.strip_prefix("Depends: "));
    let choices = depends.flat_map(|line| line.split(','));
    let first_words = choices.filter_map(|choice| choice.split([' ', ':']).find(|word| !word.is_empty()));
    first_words.filter(|name| name.starts_with("lib") && *name != "libc6").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_records_of_packages() {
        let agent = "Package: qemu-guest-agent\nVersion: 1\nDepends: libc6 (>= 2.34), libglib2.0-0t64 (>= 2.75.3), libudev1 | libeudev1, lsb-base\n";
        assert_eq!(libraries(agent), ["libglib2.0-0t64", "libudev1"]);
        let two = format!("{agent}\nPackage: b\nDepends: python3:any, libuuid1:any (>= 2)\n");
        assert_eq!(libraries(&two), ["libglib2.0-0t64", "libudev1", "libuuid1"]);
        assert!(libraries("Package: x\n").is_empty());
    }

    #[test]
    fn a_file_is_found_on_either_side_of_debians_move() {
        let scratch = run::Scratch::inside(&std::env::temp_dir()).unwrap();
        let tree = Tree { folder: scratch.path().to_owned() };
        for path in ["sbin/old", "usr/sbin/new"] {
            root::write(&scratch.path().join(path), "", 0o755).unwrap();
        }
        assert!(tree.file("sbin/old").unwrap().ends_with("sbin/old"));
        assert!(tree.file("sbin/new").unwrap().ends_with("usr/sbin/new"));
        assert!(tree.file("sbin/none").unwrap_err().to_string().contains("sbin/none"));
    }
}
