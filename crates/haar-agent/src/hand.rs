//! The agent's sub-agents by its configuration: where each listens, and how it is started.
//!
//! Looked at only; `supervise` starts them, and `haar doctor` asks whether they are there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::{Config, beside};
use crate::supervise::Program;

/// A sub-agent: where it listens, and how it is started unless somebody else runs it.
pub struct Hand {
    /// What people call it.
    pub name: &'static str,
    /// Its socket.
    pub socket: PathBuf,
    /// Its program.
    pub program: Option<Program>,
}

/// The three that an agent has.
pub struct Configured {
    /// Images and guests' disks.
    pub storage: Hand,
    /// Domains.
    pub libvirt: Hand,
    /// Containers, which only the agent's own REST speaks to.
    pub container: Hand,
}

impl Configured {
    /// Those of a configuration.
    pub fn of(config: &Config) -> Configured {
        Configured { storage: storage(config), libvirt: libvirt(config), container: container(config) }
    }

    /// All of them.
    pub fn all(&self) -> [&Hand; 3] {
        [&self.storage, &self.libvirt, &self.container]
    }
}

fn storage(config: &Config) -> Hand {
    let words: [OsString; 2] = ["--backend".into(), config.storage.backend.to_string().into()];
    let set = (&config.storage.socket, &config.storage.program);
    mode_of_haar(config, "storage", set, words)
}

fn container(config: &Config) -> Hand {
    let folder = config.run_dir().join("container");
    let set = (&config.container.socket, &config.container.program);
    mode_of_haar(config, "container", set, ["--run-dir".into(), folder.into_os_string()])
}

/// One that is a mode of `haar` and keeps images in a folder of its own name.
fn mode_of_haar(
    config: &Config,
    name: &'static str,
    set: (&Option<PathBuf>, &Option<PathBuf>),
    words: impl IntoIterator<Item = OsString>,
) -> Hand {
    let own = || std::env::current_exe().unwrap_or_else(|_| "haar".into());
    let file = set.1.clone().unwrap_or_else(own);
    let mut args: Vec<OsString> = vec![name.into()];
    args.extend(["--root".into(), config.data_dir.join(name).into_os_string()]);
    args.extend(["--cloud".into(), config.cloud.to_string().into()]);
    args.extend(words);
    for folder in &config.image_dirs {
        args.extend(["--image-dir".into(), folder.clone().into_os_string()]);
    }
    if let Some(service) = &config.image_service {
        args.extend(["--image-service".into(), service.to_string().into()]);
    }
    hand(config, name, set.0.as_deref(), file, args)
}

fn libvirt(config: &Config) -> Hand {
    let mut args: Vec<OsString> = vec!["--uri".into(), config.libvirt.uri.clone().into()];
    args.extend(["--run-dir".into(), config.run_dir().into_os_string()]);
    args.extend(["--log-dir".into(), config.data_dir.join("log").into_os_string()]);
    let file = config.libvirt.program.clone().unwrap_or_else(|| beside("haar-libvirt"));
    hand(config, "libvirt", config.libvirt.socket.as_deref(), file, args)
}

fn hand(
    config: &Config,
    name: &'static str,
    foreign: Option<&Path>,
    file: PathBuf,
    mut args: Vec<OsString>,
) -> Hand {
    if let Some(socket) = foreign {
        return Hand { name, socket: socket.to_owned(), program: None };
    }
    let socket = config.run_dir().join(format!("{name}.sock"));
    args.extend(["--supervised".into(), "--socket".into(), socket.clone().into()]);
    Hand { name, socket, program: Some(Program { name, file, args, log: None }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(more: &str) -> Config {
        let text = include_str!("../../../etc/haar-agent.toml");
        let config: Config = toml::from_str(text).unwrap();
        let more: toml::Table = more.parse().unwrap();
        let mut table = toml::Table::try_from(&config).unwrap();
        table.extend(more);
        table.try_into().unwrap()
    }

    fn words(hand: &Hand) -> String {
        let program = hand.program.as_ref().unwrap();
        program.args.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_back_end_of_the_configuration_reaches_the_storage_sub_agent() {
        assert!(words(&Configured::of(&config("")).storage).contains("--backend auto "));
        let chosen = Configured::of(&config("storage = { backend = \"reflink\" }"));
        let words = words(&chosen.storage);
        assert!(words.starts_with("storage --root /var/lib/haar/storage --cloud "), "{words}");
        assert!(words.contains("--backend reflink ") && words.ends_with("/storage.sock"), "{words}");
    }

    #[test]
    fn a_sub_agent_with_a_socket_of_its_own_is_somebody_elses_to_run() {
        let hands = Configured::of(&config("libvirt = { socket = \"/run/other.sock\" }"));
        assert!(hands.libvirt.program.is_none() && hands.libvirt.socket == Path::new("/run/other.sock"));
        assert!(hands.all().iter().filter(|hand| hand.program.is_some()).count() == 2);
    }

    #[test]
    fn a_back_end_that_is_none_is_refused_with_those_there_are() {
        let error = toml::from_str::<crate::config::StorageConfig>("backend = \"zvol\"").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("qcow2") && text.contains("reflink") && text.contains("zfs"), "{text}");
    }
}
