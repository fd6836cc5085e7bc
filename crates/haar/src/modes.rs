//! The modes: what the binary does as a server. One row each; a mode reads its own words.

mod agent;
mod container;
mod controller;
mod doctor;
mod down;
mod folder;
mod machine;
mod process;
mod storage;
mod up;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::credentials::{self, Credentials, DEFAULT_CLOUD};
use crate::cli::output::quoted;

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
    Mode {
        word: "container",
        about: "the container sub-agent, started by the agent",
        grammar: container::grammar,
        main: container::main,
    },
];

/// Where a cloud's data are unless said.
const USUAL_DATA: &str = "/var/lib/haar";

/// The word for another data folder than the usual one, as a person would type it.
pub(crate) fn data_words(data: &Path) -> String {
    if data == Path::new(USUAL_DATA) {
        return String::new();
    }
    format!(" --data {}", quoted(&data.display().to_string()))
}

/// The data folder of the cloud that the command line would speak to, when `haar up` saved it here.
fn saved_data() -> Option<PathBuf> {
    let credentials = Credentials::load(&credentials::path().ok()?).ok()?;
    let named = std::env::var("HAAR_CLOUD").ok().filter(|name| !name.is_empty());
    credentials.clouds.get(named.as_deref().unwrap_or(DEFAULT_CLOUD))?.data.clone()
}

/// A range for a network that meets none of these, and no route of this machine.
pub(crate) fn free_range(taken: &[ipnet::IpNet]) -> Option<haar_core::address::Cidr> {
    machine::free_range(taken)
}

/// The modes as they stand in `haar help`; empty when there are none.
pub(crate) fn overview() -> String {
    if MODES.is_empty() {
        return String::new();
    }
    let rows: String = MODES.iter().map(|mode| format!("  {:<12} {}\n", mode.word, mode.about)).collect();
    format!("Servers (each has its own --help):\n{rows}\n")
}
