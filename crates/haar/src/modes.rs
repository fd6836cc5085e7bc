//! The modes: what the binary does as a server. One row each; a mode reads its own words.

mod agent;
mod controller;
mod doctor;
mod down;
mod folder;
mod machine;
mod process;
mod storage;
mod up;

use std::process::ExitCode;

/// A mode.
pub(crate) struct Mode {
    /// The first word that chooses it.
    pub(crate) word: &'static str,
    /// One line for `haar help`.
    pub(crate) about: &'static str,
    /// The words it takes.
    pub(crate) grammar: fn() -> clap::Command,
    /// What it does with the words after its own.
    pub(crate) main: fn(&[String]) -> ExitCode,
}

/// Every mode, in the order of `haar help`.
pub(crate) const MODES: &[Mode] = &[
    Mode { word: "up", about: "a whole cloud on this machine", grammar: up::grammar, main: up::main },
    Mode { word: "down", about: "stop it; guests run on", grammar: down::grammar, main: down::main },
    Mode {
        word: "doctor",
        about: "look at this machine and say what guests would miss",
        grammar: doctor::grammar,
        main: doctor::main,
    },
    Mode {
        word: "controller",
        about: "the cloud's books, and the API",
        grammar: controller::grammar,
        main: controller::main,
    },
    Mode {
        word: "agent",
        about: "carry out on this machine what the controller wants",
        grammar: agent::grammar,
        main: agent::main,
    },
    Mode {
        word: "storage",
        about: "the storage sub-agent, started by the agent",
        grammar: storage::grammar,
        main: storage::main,
    },
];

/// The word for another data folder than the usual one, as a person would type it.
fn data_words(data: &std::path::Path) -> String {
    if data == std::path::Path::new("/var/lib/haar") {
        String::new()
    } else {
        format!(" --data {}", data.display())
    }
}

/// The modes as they stand in `haar help`; empty when there are none.
pub(crate) fn overview() -> String {
    if MODES.is_empty() {
        return String::new();
    }
    let rows: String = MODES.iter().map(|mode| format!("  {:<12} {}\n", mode.word, mode.about)).collect();
    format!("Servers (each has its own --help):\n{rows}\n")
}
