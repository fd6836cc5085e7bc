//! Running other programs: one way to start them, to say which one failed, and to read
//! what they print. A failure carries the program's own words; nothing is retried here.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command whose `PATH` also has the system folders, which a plain user's may lack.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")).env("LC_ALL", "C.UTF-8");
    command
}

/// A cargo that builds as one started by hand does: `cargo run` tells us which package we are, build scripts
/// watch some of that, and half of the dependencies would be built anew each time the two take turns.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Runs a program quietly and returns what it printed; on failure the error holds its words.
pub(crate) fn quiet<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<String> {
    quietly(command(program).args(arguments))
}

/// As [`quiet`], for a command that needs more than arguments.
pub(crate) fn quietly(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout);
        bail!("`{}` ended with {}: {}{}", line(command), output.status, printed.trim(), words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with our own terminal, so that its progress is seen.
pub(crate) fn shown(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Gives a program `input` and returns the bytes it prints.
pub(crate) fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut command = command(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| cannot_start(&command))?;
    let mut to_child = child.stdin.take().context("the program has no input")?;
    let mut from_child = child.stdout.take().context("the program has no output")?;
    let mut printed = Vec::new();
    // Written by a second thread: both ends block once a pipe is full.
    std::thread::scope(|scope| {
        scope.spawn(move || to_child.write_all(input));
        from_child.read_to_end(&mut printed)
    })?;
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(&command));
    }
    Ok(printed)
}

/// Whether this process may do everything.
pub(crate) fn is_root() -> bool {
    quiet("id", ["-u"]).is_ok_and(|id| id.trim() == "0")
}

/// Where a program is, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).exists().then(|| program.into());
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    path.split(':').map(|folder| Path::new(folder).join(program)).find(|file| file.is_file())
}

/// Whether systemd runs this machine (and not just is installed).
pub(crate) fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Where cargo puts what it builds.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let metadata = quiet("cargo", ["metadata", "--no-deps", "--format-version", "1"])?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo printed no JSON")?;
    let folder = metadata["target_directory"].as_str().context("cargo names no target folder")?;
    Ok(folder.into())
}

/// A program that is ended when this value goes.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder that is removed when this value goes.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a new folder inside `parent`, which is made as well.
    pub(crate) fn inside(parent: &Path) -> Result<Self> {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make the folder {}", parent.display()))?;
        for attempt in 0.. {
            let folder = parent.join(format!(".xtask-{}-{attempt}", std::process::id()));
            // What lies in it may be secret, and its parent may be everybody's.
            match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(Self(folder)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot write in {}", parent.display()));
                }
            }
        }
        bail!("every name in {} is taken", parent.display())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`: is it installed?", command.get_program().to_string_lossy())
}
