//! `runc` or `crun`: which of them works on this host, and what it is asked to do.
//!
//! That a program is installed says little: a runtime may refuse the host's layout of cgroups. So each is tried at
//! start, with a container whose program never runs, and the first that works is used; while none does, they are tried
//! again now and then. What is tried has this process' number in its name: one that an earlier run was killed in the
//! middle of is another.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use haar_api::rpc::Fault;
use serde_json::json;

use super::bundle::system_mounts;
use super::folders::{Folders, remove};
use super::program;

/// In the order of preference.
const NAMES: [&str; 2] = ["runc", "crun"];
/// Where programs are when the path does not say.
const FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// How long nobody tries again.
const AGAIN: Duration = Duration::from_secs(30);
/// How long a runtime may take to make a container.
const MADE_LIMIT: Duration = Duration::from_secs(60);
const PROBE: &str = "probe-";

/// The runtime that works here, or why none does.
#[derive(Debug)]
pub(super) struct Runtimes {
    folders: Arc<Folders>,
    cgroup: String,
    found: Mutex<(Result<Runtime, String>, Instant)>,
}

impl Runtimes {
    /// Tries them. Must be called on a thread of tokio's that may block, and so must [`Runtimes::get`].
    pub(super) fn new(folders: Arc<Folders>, cgroup: String) -> Runtimes {
        let found = Runtime::probe(&folders, &cgroup);
        match &found {
            Ok(runtime) => tracing::info!(runtime = runtime.version, "container runtime"),
            Err(why) => tracing::warn!(why, "containers cannot run here"),
        }
        Runtimes { folders, cgroup, found: Mutex::new((found, Instant::now())) }
    }

    /// The one that works; while none does, they are tried again at most twice a minute.
    pub(super) fn get(&self) -> Result<Runtime, String> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.0.is_err() && found.1.elapsed() >= AGAIN {
            *found = (Runtime::probe(&self.folders, &self.cgroup), Instant::now());
            if let Ok(runtime) = &found.0 {
                tracing::info!(runtime = runtime.version, "containers can run here by now");
            }
        }
        found.0.clone()
    }
}

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
    fn probe(folders: &Folders, cgroup: &str) -> Result<Runtime, String> {
        let mut faults = Vec::new();
        sweep(folders, cgroup);
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
    let version = program::run(program, &["--version"], folders.work())?;
    let version = version.lines().next().unwrap_or_default().to_owned();
    let runtime = Runtime { program: program.to_owned(), version, state: state(folders) };
    let id = format!("{PROBE}{}", std::process::id());
    runtime.delete(folders, &id)?;
    let (bundle, cgroup) = (folders.run().join(&id), format!("{cgroup}/{id}"));
    write_bundle(&bundle, &cgroup)
        .map_err(|error| crate::storage::folders::io_fault("write", &bundle, &error))?;
    let made = make(&runtime, &bundle, &id);
    let deleted = runtime.delete(folders, &id);
    let swept = remove(&bundle);
    super::cgroups::remove(&cgroup);
    made?;
    deleted?;
    swept.map_err(|error| crate::storage::folders::io_fault("remove", &bundle, &error))?;
    Ok(runtime)
}

fn state(folders: &Folders) -> PathBuf {
    folders.run().join("runtime")
}

/// Removes what an earlier run that was killed left of what it tried.
fn sweep(folders: &Folders, cgroup: &str) {
    for folder in [folders.run().to_owned(), state(folders)] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(PROBE.as_bytes()) {
                // Its name is used by nobody again: it may as well stay.
                let _ = remove(&entry.path());
            }
        }
    }
    for name in super::cgroups::names_below(cgroup).iter().filter(|name| name.starts_with(PROBE)) {
        super::cgroups::remove(&format!("{cgroup}/{name}"));
    }
}

/// The container holds its maker's output: a pipe would not end before it does.
fn make(runtime: &Runtime, bundle: &Path, id: &str) -> Result<(), Fault> {
    let out = bundle.join("out");
    let failed = |error| crate::storage::folders::io_fault("write", &out, &error);
    let file = fs::File::create(&out).map_err(failed)?;
    let mut command = std::process::Command::new(&runtime.program);
    command.arg("--root").arg(&runtime.state).arg("create").arg("--bundle").arg(bundle).arg(id);
    command.stdin(std::process::Stdio::null());
    command.stdout(file.try_clone().map_err(failed)?).stderr(file);
    let status = crate::kit::program::wait(&mut command, MADE_LIMIT)
        .map_err(|error| Fault::parse(&format!("it cannot be run: {error}")))?;
    if status.success() {
        return Ok(());
    }
    let words = fs::read_to_string(&out).unwrap_or_default();
    Err(Fault::parse(&format!("it ended with {status}: {}", words.trim())))
}

fn write_bundle(bundle: &Path, cgroup: &str) -> io::Result<()> {
    remove(bundle)?;
    fs::create_dir_all(bundle.join("rootfs"))?;
    let program = bundle.join("rootfs/program");
    fs::write(&program, "")?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let kinds = ["pid", "ipc", "uts", "mount", "cgroup", "network"];
    let namespaces = kinds.map(|kind| json!({"type": kind}));
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/program"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": system_mounts(),
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {"memory": {"limit": 64 << 20}, "cpu": {"quota": 100_000, "period": 100_000}},
            "namespaces": namespaces,
        },
    });
    fs::write(bundle.join("config.json"), config.to_string())
}
