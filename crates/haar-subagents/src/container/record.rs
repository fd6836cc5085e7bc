//! What is written of a container, in its folder, and who writes it.
//!
//! ```text
//! <id>/container.json    what was asked for, and the goal              the sub-agent
//! <id>/run.json          what a monitor shall run                      the sub-agent, before each run
//! <id>/config.json       the same for the runtime; 0600, it holds the environment
//! <id>/monitor.lock      held by the monitor of the present run        the monitor
//! <id>/monitor.json      which process that is                         the monitor
//! <id>/begun.json        which process it began with                   the monitor
//! <id>/exit.json         how it ended                                  the monitor
//! <id>/log, log.1        what the container printed
//! <id>/held              while it is held to be saved, and to be let go then
//! <id>/upper, work, rootfs    its own files, and where they are mounted over the image's
//! ```
//!
//! What must be changed for a container to end can be changed on a full disk: it is written with room behind it, and
//! over itself where no new file can be had.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use haar_api::rpc::{Fault, FaultCode, Nic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::decide::{Goal, Restart, Run, Seen};
use super::folders::Folders;
use super::process;
use crate::storage::folders::{io_fault, write_json};

const HELD: &str = "held";

/// What stands in `container.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Version of this record.
    pub(super) v: u32,
    pub(super) id: String,
    pub(super) cloud: String,
    /// The placement that made it; empty for what a stranger's agent made.
    pub(super) life: String,
    pub(super) created_s: u64,
    /// What was asked for; another wish is another container.
    pub(super) wish: Wish,
    pub(super) goal: Goal,
    /// How often it was run.
    pub(super) run: u64,
    /// How often of that by itself, since it was last started by somebody.
    #[serde(default)]
    pub(super) restarts: u64,
}

/// What a container shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    pub(super) image: String,
    pub(super) hostname: String,
    /// MiB, 0 for no limit.
    pub(super) memory: u64,
    /// 0 for no limit.
    pub(super) cpu: u32,
    pub(super) nics: Vec<Nic>,
    pub(super) restart: Restart,
    /// Instead of the image's; empty for the image's.
    pub(super) entrypoint: Vec<String>,
    pub(super) command: Vec<String>,
    /// Beside the image's.
    pub(super) env: Vec<String>,
}

/// What stands in `run.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) run: u64,
    pub(super) runtime: std::path::PathBuf,
    pub(super) state: std::path::PathBuf,
}

/// What stands in `begun.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) run: u64,
    pub(super) process: process::Process,
    pub(super) at_s: u64,
    /// Whether it was let go; before, it waits for that, and without a monitor for ever.
    #[serde(default = "yes")]
    pub(super) is_started: bool,
}

/// What begun.json meant before it said so.
fn yes() -> bool {
    true
}

/// What stands in `exit.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Exit {
    pub(super) run: u64,
    /// As a shell has it: 128 and the signal's number for one that was killed.
    pub(super) code: i32,
    /// Why it was never begun.
    pub(super) error: String,
    pub(super) at_s: u64,
}

/// Reads a container; none when it is not there. The id must have been checked.
pub(super) fn find(folders: &Folders, id: &str) -> Result<Option<Record>, Fault> {
    let path = folders.container(id).join("container.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_fault("read", &path, &error)),
    };
    match serde_json::from_slice::<Record>(&text) {
        Ok(record) if record.id == id => Ok(Some(record)),
        other => {
            let why = other.err().map_or_else(|| "it names another".to_owned(), |error| error.to_string());
            let text = format!("the record of container {id} is damaged ({why}); an operator must look");
            Err(Fault::new(FaultCode::Conflict, text))
        }
    }
}

/// Reads a container or says that there is none.
pub(super) fn require(folders: &Folders, id: &str) -> Result<Record, Fault> {
    find(folders, id)?
        .ok_or_else(|| Fault::new(FaultCode::NotFound, format!("there is no container {id} here")))
}

/// Writes a container's record.
pub(super) fn save(folders: &Folders, record: &Record) -> Result<(), Fault> {
    let path = folders.container(&record.id).join("container.json");
    write(&path, record).map_err(|error| io_fault("write", &path, &error))
}

/// Writes one of the small files, with room for what may stand there next.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    #[derive(Serialize)]
    struct Roomy<'a, T> {
        #[serde(flatten)]
        value: &'a T,
        room: &'static str,
    }
    let room = "                                                ";
    match write_json(path, &Roomy { value, room }) {
        Err(error) if is_full(&error) => write_over(path, value, error),
        written => written,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes into the blocks that the file has; `full` when it has none, or too few.
fn write_over<T: Serialize>(path: &Path, value: &T, full: io::Error) -> io::Result<()> {
    let Ok(mut file) = OpenOptions::new().write(true).open(path) else { return Err(full) };
    let room = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut text = serde_json::to_vec_pretty(value)?;
    if text.len() > room {
        return Err(full);
    }
    text.resize(room, b' ');
    file.write_all(&text)?;
    file.sync_data()
}

/// Reads one of the small files; none when it is absent or damaged, for it then says nothing.
pub(super) fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    let text = fs::read(folder.join(name)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// How a container stands.
pub(super) fn look(folders: &Folders, record: &Record) -> Seen {
    let folder = folders.container(&record.id);
    // In this order: who has a monitor may end meanwhile, and has written its end before it lets the lock go.
    let is_watched = is_watched(&folder);
    let begun = read::<Begun>(&folder, "begun.json").filter(|begun| begun.run == record.run);
    let exit = read::<Exit>(&folder, "exit.json").filter(|exit| exit.run == record.run);
    let run = match (exit, begun) {
        (Some(exit), _) => Run::Ended(Some(exit.code)),
        (None, Some(begun)) if begun.is_started && begun.process.is_alive() => Run::Alive,
        (None, _) if is_watched => Run::Watched,
        (None, Some(_)) => Run::Ended(None),
        (None, None) => Run::Never,
    };
    let is_held = folder.join(HELD).exists();
    Seen { goal: record.goal, restart: record.wish.restart, run, is_held }
}

/// Whether the present run's program was begun.
pub(super) fn has_begun(folders: &Folders, record: &Record) -> bool {
    let begun = read::<Begun>(&folders.container(&record.id), "begun.json");
    begun.is_some_and(|begun| begun.run == record.run && begun.is_started)
}

/// Notes that a container is going to be held, and for how long: until whoever has its turn lets it go, or has it no more.
pub(super) fn mark_held(folders: &Folders, id: &str) -> Result<(), Fault> {
    let path = folders.container(id).join(HELD);
    fs::write(&path, "").map_err(|error| io_fault("write", &path, &error))
}

/// Notes that it is not, or that somebody else holds it.
pub(super) fn unmark_held(folders: &Folders, id: &str) -> Result<(), Fault> {
    let path = folders.container(id).join(HELD);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_fault("remove", &path, &error)),
        _ => Ok(()),
    }
}

/// Whether a monitor is there.
pub(super) fn is_watched(folder: &Path) -> bool {
    let file = File::open(folder.join("monitor.lock"));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Opens the file that a monitor locks.
pub(super) fn lock_file(folder: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join("monitor.lock"))
}

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            v: 1,
            id: "a".to_owned(),
            cloud: String::new(),
            life: String::new(),
            created_s: 1,
            wish: Wish::default(),
            goal: Goal::Run,
            run: 9,
            restarts: 0,
        }
    }

    #[test]
    fn a_record_is_written_over_itself_when_nothing_else_can_be_written() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("container.json");
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(write_over(&path, &record(), full()).is_err(), "there is nothing to write over");
        write(&path, &record()).unwrap();
        for (goal, run) in [(Goal::Restart, 10), (Goal::Gone, u64::MAX), (Goal::Stop, 0)] {
            let changed = Record { goal, run, ..record() };
            write_over(&path, &changed, full()).unwrap();
            assert_eq!(read::<Record>(temp.path(), "container.json"), Some(changed));
        }
        let long = Record { cloud: "x".repeat(100), ..record() };
        assert_eq!(write_over(&path, &long, full()).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_process_that_nobody_will_let_go_has_ended() {
        let temp = tempfile::tempdir().unwrap();
        let folders = Folders::open(&temp.path().join("root"), &temp.path().join("run")).unwrap();
        let folder = folders.container("a");
        fs::create_dir(&folder).unwrap();
        let process = process::Process::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        let mut begun = Begun { run: 9, process, at_s: 1, is_started: false };
        write(&folder.join("begun.json"), &begun).unwrap();
        assert_eq!(look(&folders, &record()).run, Run::Ended(None));
        let monitor = lock_file(&folder).unwrap();
        monitor.lock().unwrap();
        assert_eq!(look(&folders, &record()).run, Run::Watched, "its monitor will");
        begun.is_started = true;
        write(&folder.join("begun.json"), &begun).unwrap();
        assert_eq!(look(&folders, &record()).run, Run::Alive);
        drop(monitor);
        assert_eq!(look(&folders, &record()).run, Run::Alive, "it runs on without");
    }
}
