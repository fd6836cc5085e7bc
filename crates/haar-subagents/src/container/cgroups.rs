//! Cgroups of containers, found by path in whatever hierarchies this host has.
//!
//! The runtime makes and removes them. What is here finds and ends what a killed runtime left, only ever below a path
//! of our own.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long processes may take to be gone after they were killed.
const GONE_LIMIT: Duration = Duration::from_secs(10);

/// The cgroup that holds all containers of a cloud. Nobody else's is above it: one that clouds shared would be removed
/// by one of them just when the runtime of another makes its own in it.
pub(super) fn of_cloud(tag: &str) -> String {
    format!("/haar-{tag}")
}

/// The cgroup of a container.
pub(super) fn of(tag: &str, id: &str) -> String {
    format!("{}/{id}", of_cloud(tag))
}

/// The names of the cgroups directly below this one, in any hierarchy.
pub(super) fn names_below(cgroup: &str) -> Vec<String> {
    let mut names = Vec::new();
    for folder in folders(cgroup) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                names.extend(entry.file_name().into_string().ok());
            }
        }
    }
    names.sort();
    names.dedup();
    names
}

/// Whether the processes of a cgroup are held.
pub(super) fn is_frozen(cgroup: &str) -> bool {
    let says = |folder: &Path, file: &str, words: &[&str]| {
        fs::read_to_string(folder.join(file)).is_ok_and(|text| words.contains(&text.trim()))
    };
    folders(cgroup).iter().any(|folder| {
        says(folder, "freezer.state", &["FROZEN", "FREEZING"]) || says(folder, "cgroup.freeze", &["1"])
    })
}

/// Kills what is in a cgroup and those below it, and removes them; what is not there is fine. Answers whether all is
/// gone.
pub(super) fn remove(cgroup: &str) -> bool {
    let deadline = Instant::now() + GONE_LIMIT;
    loop {
        let left: Vec<PathBuf> = folders(cgroup).into_iter().filter(|folder| !end(folder)).collect();
        if left.is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            tracing::warn!(cgroup, "processes in this cgroup do not end");
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes a cloud's cgroup where nothing is in it.
pub(super) fn leave(tag: &str) {
    for folder in folders(&of_cloud(tag)) {
        // That it is not empty is what is to be found out.
        let _ = fs::remove_dir(folder);
    }
}

fn end(folder: &Path) -> bool {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            end(&entry.path());
        }
    }
    // Killed while held, they would end only when let go.
    for (file, word) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
        let file = fs::OpenOptions::new().write(true).open(folder.join(file));
        let _ = file.and_then(|mut file| file.write_all(word.as_bytes()));
    }
    let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
        // It may have ended in this very moment.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    matches!(fs::remove_dir(folder).map_err(|error| error.kind()), Ok(()) | Err(io::ErrorKind::NotFound))
}

/// Where a cgroup is in each hierarchy that has it.
fn folders(cgroup: &str) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let point = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(point))
    };
    let folder = |point: PathBuf| point.join(cgroup.trim_start_matches('/'));
    table.lines().filter_map(point).map(folder).filter(|folder| folder.is_dir()).collect()
}
