//! `runc` or `crun`: which of them works on this host, and what it is asked to do.
//!
//! That a program is installed says little: a runtime may refuse the host's layout of cgroups. So each is tried once
//! at start, with a container whose program never runs, and the first that works is used.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use haar_api::rpc::Fault;
use serde_json::json;

use super::folders::{Folders, remove};
use super::program;

/// In the order of preference.
const NAMES: [&str; 2] = ["runc", "crun"];
/// Where programs are when the path does not say.
const FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// A runtime that works here.
#[derive(Debug, Clone)]
pub(super) struct Runtime {
    pub(super) program: PathBuf,
    /// Its first line of `--version`.
    pub(super) version: String,
    /// Where it keeps its state; gone after the host's restart, as its containers are.
    pub(super) state: PathBuf,
}

impl Runtime {
    /// Tries the runtimes. Must be called on a thread of tokio's that may block.
    ///
    /// # Errors
    /// What is wrong with each.
    pub(super) fn probe(folders: &Folders, cgroup: &str) -> Result<Runtime, String> {
        let mut faults = Vec::new();
        for name in NAMES {
            let Some(program) = find(name) else {
                faults.push(format!("{name} is not installed"));
                continue;
            };
            match try_out(folders, &program, cgroup) {
                Ok(runtime) => return Ok(runtime),
                Err(fault) => faults.push(format!("{name}: {}", fault.message)),
            }
        }
        Err(format!("no container runtime works here ({}); install runc or crun", faults.join("; ")))
    }

    /// Sends a signal to a container's first process.
    pub(super) fn kill(&self, folders: &Folders, id: &str, signal: &str) -> Result<(), Fault> {
        self.call(folders, &["kill", id, signal])
    }

    /// Holds all processes of a container.
    pub(super) fn pause(&self, folders: &Folders, id: &str) -> Result<(), Fault> {
        self.call(folders, &["pause", id])
    }

    /// Lets them go on.
    pub(super) fn resume(&self, folders: &Folders, id: &str) -> Result<(), Fault> {
        self.call(folders, &["resume", id])
    }

    /// Ends a container and forgets it; one that is not there is fine.
    pub(super) fn delete(&self, folders: &Folders, id: &str) -> Result<(), Fault> {
        if !self.knows(id) {
            return Ok(());
        }
        let deleted = self.call(folders, &["delete", "--force", id]);
        if deleted.is_err() && self.knows(id) {
            // State that a killed runtime left half written; the cgroup's processes are ended by the caller.
            let state = self.state.join(id);
            tracing::warn!(state = %state.display(), "the runtime cannot read its state; it is removed");
            return remove(&state)
                .map_err(|error| crate::storage::folders::io_fault("remove", &state, &error));
        }
        Ok(())
    }

    /// Whether the runtime has state of this container.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.state.join(id).exists()
    }

    fn call(&self, folders: &Folders, words: &[&str]) -> Result<(), Fault> {
        let mut arguments = vec!["--root".as_ref(), self.state.as_os_str()];
        arguments.extend(words.iter().map(std::ffi::OsStr::new));
        program::run(&self.program, &arguments, folders.work()).map(drop)
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Makes a container, whose program is an empty file, and deletes it again.
fn try_out(folders: &Folders, program: &Path, cgroup: &str) -> Result<Runtime, Fault> {
    const ID: &str = "probe";
    let version = program::run(program, &["--version"], folders.work())?;
    let version = version.lines().next().unwrap_or_default().to_owned();
    let runtime = Runtime { program: program.to_owned(), version, state: folders.run().join("runtime") };
    runtime.delete(folders, ID)?;
    let bundle = folders.run().join("probe");
    write_bundle(&bundle, cgroup)
        .map_err(|error| crate::storage::folders::io_fault("write", &bundle, &error))?;
    let path = bundle.as_os_str();
    let create = ["--root".as_ref(), runtime.state.as_os_str(), "create".as_ref(), "--bundle".as_ref(), path];
    let (out, words) = (bundle.join("out"), [&create[..], &[ID.as_ref()]].concat());
    let made = made_apart(program, &words, &out);
    let deleted = runtime.delete(folders, ID);
    let swept = remove(&bundle);
    super::cgroups::remove(&format!("{cgroup}/{ID}"));
    made?;
    deleted?;
    swept.map_err(|error| crate::storage::folders::io_fault("remove", &bundle, &error))?;
    Ok(runtime)
}

/// The container holds its maker's output: a pipe would not end before it does.
fn made_apart(program: &Path, words: &[&std::ffi::OsStr], out: &Path) -> Result<(), Fault> {
    let failed = |error| crate::storage::folders::io_fault("write", out, &error);
    let file = fs::File::create(out).map_err(failed)?;
    let mut command = std::process::Command::new(program);
    command.args(words).stdin(std::process::Stdio::null());
    command.stdout(file.try_clone().map_err(failed)?).stderr(file);
    let status = command.status().map_err(|error| Fault::parse(&format!("it cannot be started: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let words = fs::read_to_string(out).unwrap_or_default();
    Err(Fault::parse(&format!("it ended with {status}: {}", words.trim())))
}

fn write_bundle(bundle: &Path, cgroup: &str) -> io::Result<()> {
    remove(bundle)?;
    fs::create_dir_all(bundle.join("rootfs"))?;
    let program = bundle.join("rootfs/program");
    fs::write(&program, "")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/program"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "cgroupsPath": format!("{cgroup}/probe"),
            "resources": {"memory": {"limit": 64 << 20}, "cpu": {"quota": 100_000, "period": 100_000}},
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}],
        },
    });
    fs::write(bundle.join("config.json"), config.to_string())
}
