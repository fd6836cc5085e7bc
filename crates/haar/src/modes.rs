//! The modes: what the binary does as a server. One row each; a mode reads its own words.

use std::process::ExitCode;

/// A mode.
pub(crate) struct Mode {
    /// The first word that chooses it.
    pub(crate) word: &'static str,
    /// One line for `haar help`.
    pub(crate) about: &'static str,
    /// What it does with the words after its own.
    pub(crate) main: fn(&[String]) -> ExitCode,
}

/// Every mode, in the order of `haar help`.
pub(crate) const MODES: &[Mode] = &[];

/// The modes as they stand in `haar help`; empty when there are none.
pub(crate) fn overview() -> String {
    if MODES.is_empty() {
        return String::new();
    }
    let rows: String = MODES.iter().map(|mode| format!("  {:<12} {}\n", mode.word, mode.about)).collect();
    format!("Servers (each has its own --help):\n{rows}\n")
}
