//! The agent's sub-agents by its configuration: whether their programs are there and they answer, and whether the
//! actions that name foreign ones can be read. Only looked at: a connection is opened and closed.

use std::os::unix::net::UnixStream;
use std::path::Path;

use haar_agent::Config;
use haar_agent::hand::{Configured, Hand};
use haar_agent::local::Plan;

use super::{Check, Mark, is_there};

/// What is to be said of them. `is_up` is whether the cloud runs, and with it what it starts.
pub(super) fn checks(config: &Config, is_up: bool) -> Vec<Check> {
    let hands = Configured::of(config);
    let mut checks: Vec<Check> = hands.all().into_iter().filter_map(program).collect();
    let asked = hands.all().into_iter().filter(|hand| is_up || hand.program.is_none());
    let (answer, silent): (Vec<&Hand>, Vec<&Hand>) =
        asked.partition(|hand| UnixStream::connect(&hand.socket).is_ok());
    if !answer.is_empty() {
        let names: Vec<&str> = answer.iter().map(|hand| hand.name).collect();
        checks.push(Check::new(Mark::Good, format!("sub-agents answer: {}", names.join(", ")), ""));
    }
    let log = config.data_dir.join("log/agent.log");
    checks.extend(silent.iter().map(|hand| {
        let found = format!("the sub-agent {} does not answer on {}", hand.name, hand.socket.display());
        let note = match hand.program {
            Some(_) => format!("the agent goes on starting it; its log says why: {}", log.display()),
            None => "agent.toml says that somebody else runs it: start it".to_owned(),
        };
        Check::new(Mark::Bad, found, note)
    }));
    checks.extend(actions(config.rest.config.as_deref()));
    checks
}

/// A program of a sub-agent that is not there.
fn program(hand: &Hand) -> Option<Check> {
    let file = &hand.program.as_ref()?.file;
    if is_there(file) {
        return None;
    }
    let found = format!("the sub-agent {}'s program {} is missing", hand.name, file.display());
    Some(Check::new(Mark::Bad, found, "put it there, or change agent.toml"))
}

/// A file of actions that the agent could not start with.
fn actions(file: Option<&Path>) -> Option<Check> {
    let error = Plan::read(file?).err()?;
    let found = "the actions of the agent's REST cannot be used";
    Some(Check::new(Mark::Bad, found, format!("{:#}", anyhow::Error::from(error))))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn config(folder: &Path) -> Config {
        let text = include_str!("../../../../../etc/haar-agent.toml");
        let mut config: Config = toml::from_str(text).unwrap();
        config.run_dir = Some(folder.to_owned());
        config.libvirt.program = Some(folder.join("haar-libvirt"));
        config
    }

    fn found(checks: &[Check]) -> Vec<&str> {
        checks.iter().map(|check| check.found.as_str()).collect()
    }

    #[test]
    fn a_program_that_is_missing_is_named_whether_the_cloud_is_up_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let checks = checks(&config, false);
        assert_eq!(checks.len(), 1, "{checks:?}");
        assert!(checks[0].found.contains("libvirt's program") && checks[0].mark == Mark::Bad, "{checks:?}");
        std::fs::write(folder.path().join("haar-libvirt"), "").unwrap();
        assert_eq!(super::checks(&config, false), []);
    }

    #[test]
    fn of_a_cloud_that_is_up_those_that_answer_and_those_that_do_not_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        std::fs::write(folder.path().join("haar-libvirt"), "").unwrap();
        let _storage = UnixListener::bind(folder.path().join("storage.sock")).unwrap();
        let _libvirt = UnixListener::bind(folder.path().join("libvirt.sock")).unwrap();
        let checks = checks(&config, true);
        assert_eq!(found(&checks)[0], "sub-agents answer: storage, libvirt");
        assert!(checks[1].found.contains("container does not answer"), "{checks:?}");
        assert!(checks[1].note.contains("agent.log"), "{checks:?}");
    }

    #[test]
    fn a_file_of_actions_that_cannot_be_used_is_said_with_why() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.json");
        std::fs::write(&file, "{\"actions\": 7}").unwrap();
        let check = actions(Some(&file)).unwrap();
        assert!(check.note.contains("agent.json"), "{check:?}");
        assert!(actions(None).is_none());
    }
}
