//! `cargo xtask tidy`: the manners of the repository that no compiler checks.
//!
//! Each check is a function from the sources to a list of faults; all run, all faults are printed.
//! A check says so when what it looks at is not there, so that none goes blind unseen.

mod codes;
mod examples;
mod headers;
mod imports;
mod metrics;
mod paths;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run;

pub(crate) const HELP: &str = "\
cargo xtask tidy

Checks who imports whom, that each Rust file says what is in it, that every error code and
metric is in docs/operating.md, that each example in etc/ can be read and a test reads it, and that no file names a developer's machine.";

/// Something that is not as it should be: where, and what to do.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    place: String,
    what: String,
}

impl Fault {
    fn new(place: impl fmt::Display, what: impl Into<String>) -> Self {
        Self { place: place.to_string(), what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.what)
    }
}

/// A text file of the repository, by its path from the top.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// The command.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    if let Some(word) = arguments.first() {
        bail!("`tidy` takes no arguments, and got `{word}`");
    }
    check()
}

/// Runs every check; the error counts the faults, which are printed.
pub(crate) fn check() -> Result<()> {
    let sources = sources(&top()?)?;
    let mut faults = imports::check()?;
    faults.extend(headers::check(&sources));
    faults.extend(codes::check(&sources));
    faults.extend(metrics::check(&sources));
    faults.extend(examples::check(&sources));
    faults.extend(paths::check(&sources));
    for fault in &faults {
        eprintln!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} fault(s)", faults.len());
    }
    eprintln!("tidy: {} files, no fault", sources.len());
    Ok(())
}

/// The top folder of the repository.
pub(crate) fn top() -> Result<PathBuf> {
    let manifest = run::quiet("cargo", ["locate-project", "--workspace", "--message-format", "plain"])?;
    let folder = Path::new(manifest.trim()).parent().context("the workspace's manifest has no folder")?;
    Ok(folder.to_owned())
}

/// The text files of the repository, sorted; what git ignores by name is left out.
fn sources(top: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if kind.is_dir() && !["target", "data", ".git"].iter().any(|ignored| name == *ignored) {
                folders.push(entry.path());
            } else if kind.is_file() && name != ".git" {
                // Bytes that are no text are nobody's manners.
                let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
                let path = entry
                    .path()
                    .strip_prefix(top)
                    .context("a file lies below the top")?
                    .display()
                    .to_string();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}
