//! A cloud of our own on this machine, for `demo` and `bench`: one folder, the programs copied into it, and
//! the public command line as the only way to speak to it.
//!
//! The folder carries a mark; a folder without it is never used nor removed. What the cloud has made on the
//! host is removed by its own command, which knows its own. Deliberately absent: how Haar does any of it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{packages, run};

/// Says in the folder that it is ours.
const MARK: &str = "made-by-cargo-xtask";
const PROGRAMS: &[&str] = &["haar", "haar-libvirt"];
const PORTS: std::ops::Range<u16> = 8600..8700;

/// A cloud in a folder.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    folder: PathBuf,
    saved: Saved,
    token: Arc<OnceLock<String>>,
}

/// Where the cloud's address and token are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Saved {
    /// With the user's clouds, so that a bare `haar guest list` works.
    ForUser,
    /// In the cloud's own folder.
    Apart,
}

impl Cloud {
    /// The cloud in this folder, which is made, or must be ours or empty.
    pub(crate) fn at(folder: &Path, saved: Saved) -> Result<Self> {
        if !folder.join(MARK).exists() {
            make_folder(folder)?;
            let mut entries =
                folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
            ensure!(
                entries.next().is_none(),
                "{} holds files that are not ours; name an empty folder",
                folder.display()
            );
            std::fs::write(folder.join(MARK), "This folder is removed by `--clean`.\n")?;
        }
        // Processes started from it must mean the same folder.
        Ok(Self { folder: folder.canonicalize()?, saved, token: Arc::default() })
    }

    /// The cloud in this folder, if there is one of ours.
    pub(crate) fn find(folder: &Path, saved: Saved) -> Option<Self> {
        let folder = folder.join(MARK).exists().then(|| folder.canonicalize().ok()).flatten()?;
        Some(Self { folder, saved, token: Arc::default() })
    }

    /// The folder with all of it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of ours beside the cloud's data.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The cloud's own data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("cloud")
    }

    /// The program as a person would type it.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("bin/haar")
    }

    /// Puts freshly built programs into the folder; says whether they differ from those that were there.
    pub(crate) fn install(&self, built: &Path) -> Result<Installed> {
        let bin = self.folder.join("bin");
        std::fs::create_dir_all(&bin)?;
        let mut installed = Installed::Same;
        for program in PROGRAMS {
            let new = std::fs::read(built.join(program))
                .with_context(|| format!("cannot read {}", built.join(program).display()))?;
            let target = bin.join(program);
            if std::fs::read(&target).is_ok_and(|old| old == new) {
                continue;
            }
            // Beside and renamed: a program that runs cannot be written, but its name can be given away.
            let beside = bin.join(format!(".{program}.new"));
            std::fs::copy(built.join(program), &beside)?;
            std::fs::rename(&beside, &target)?;
            installed = Installed::New;
        }
        Ok(installed)
    }

    /// A command of the public command line that speaks to this cloud.
    pub(crate) fn haar<S: AsRef<str>>(&self, words: &[S]) -> Command {
        let mut command = run::command(&self.program().to_string_lossy());
        self.environment(&mut command);
        command.args(words.iter().map(AsRef::as_ref));
        command
    }

    /// The environment of a command that speaks to this cloud. Its own token is the proof that it is this one:
    /// another cloud at the address, such as the user's own, refuses it.
    fn environment(&self, command: &mut Command) {
        // Nothing that the caller's shell sets may lead to another cloud.
        for name in ["HAAR_URL", "HAAR_CLOUD", "HAAR_TOKEN", "HAAR_PROJECT", "HAAR_LIBVIRT"] {
            command.env_remove(name);
        }
        if let Some(port) = self.noted_port() {
            command.env("HAAR_URL", format!("http://127.0.0.1:{port}"));
            command.env("HAAR_TOKEN", self.token());
        }
        if self.saved == Saved::Apart {
            command.env("XDG_CONFIG_HOME", self.folder.join("config")).env_remove("SUDO_USER");
        }
        command.env("NO_COLOR", "1");
    }

    /// The token of this very cloud; one that nobody knows while it has none.
    fn token(&self) -> String {
        if let Some(token) = self.token.get() {
            return token.clone();
        }
        let file = self.data().join("admin.token");
        let read = packages::as_root("cat").and_then(|mut cat| run::quietly(cat.arg(&file)));
        match read.map(|text| text.trim().to_owned()) {
            Ok(token) if !token.is_empty() => self.token.get_or_init(|| token).clone(),
            _ => "none-yet".to_owned(),
        }
    }

    /// What must stand before a bare `haar …` for it to mean this cloud: nothing, or its address.
    pub(crate) fn address_words(&self) -> Result<String> {
        let ours = text(&self.json(&["config", "show"])?, "cloud")?;
        let named = format!("haar-{}", &ours[..8]);
        let means_ours = |name: Option<&str>| {
            let mut bare = self.haar(&["config", "show", "-o", "json"]);
            bare.env_remove("HAAR_URL").env_remove("HAAR_TOKEN");
            bare.envs(name.map(|name| ("HAAR_CLOUD", name)));
            run::quietly(&mut bare).is_ok_and(|printed| printed.contains(&ours))
        };
        if means_ours(None) {
            return Ok(String::new());
        }
        if means_ours(Some(&named)) {
            return Ok(format!("HAAR_CLOUD={named} "));
        }
        let port = self.noted_port().context("the cloud has no port noted")?;
        Ok(format!("HAAR_URL=http://127.0.0.1:{port} "))
    }

    /// Runs a command and returns what it printed.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        run::quietly(&mut self.haar(words))
    }

    /// Runs a command and reads its JSON.
    pub(crate) fn json(&self, words: &[&str]) -> Result<Value> {
        let printed = self.run(&[words, &["-o", "json"]].concat())?;
        serde_json::from_str(&printed)
            .with_context(|| format!("`haar {}` printed no JSON: {printed}", words.join(" ")))
    }

    /// Whether this cloud's controller answers, and no other one at its address.
    pub(crate) fn is_up(&self) -> bool {
        self.program().exists() && self.noted_port().is_some() && self.json(&["status"]).is_ok()
    }

    /// The words of `haar up` for this cloud, on the first port that nobody listens on.
    pub(crate) fn up_words(&self) -> Result<Vec<String>> {
        let data = self.data().display().to_string();
        let listen = format!("127.0.0.1:{}", self.choose_port()?);
        Ok(["up", "--data", &data, "--listen", &listen].map(str::to_owned).into())
    }

    /// The port this cloud had, else a free one.
    fn choose_port(&self) -> Result<u16> {
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let port = self.noted_port().filter(is_free).or_else(|| PORTS.clone().find(is_free));
        let port = port.with_context(|| format!("every port of {PORTS:?} is in use on 127.0.0.1"))?;
        std::fs::write(self.folder.join("port"), format!("{port}\n"))?;
        Ok(port)
    }

    fn noted_port(&self) -> Option<u16> {
        std::fs::read_to_string(self.folder.join("port")).ok()?.trim().parse().ok()
    }

    /// As root, with our environment: `haar up` and `haar down`.
    pub(crate) fn as_root(&self, words: &[String]) -> Result<Command> {
        let mut command = packages::as_root(&self.program().to_string_lossy())?;
        self.environment(&mut command);
        command.args(words);
        Ok(command)
    }

    /// Stops the cloud's processes; guests run on.
    pub(crate) fn down(&self) -> Result<String> {
        let data = self.data().display().to_string();
        run::quietly(&mut self.as_root(&["down", "--data", &data].map(str::to_owned))?)
    }

    /// Removes the cloud with all it made on this machine, then the folder. If the cloud cannot remove what it
    /// made, nothing else is removed either.
    pub(crate) fn remove(&self) -> Result<()> {
        if self.program().exists() && self.data().join("VERSION").exists() {
            let data = self.data().display().to_string();
            let words = ["down", "--data", &data, "--purge", "--yes"].map(str::to_owned);
            run::quietly(&mut self.as_root(&words)?).context("the cloud could not be removed")?;
        }
        let mut remove = packages::as_root("rm")?;
        run::quietly(remove.args(["-rf", "--one-file-system", "--"]).arg(&self.folder)).map(drop)
    }
}

/// Whether the programs changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Installed {
    Same,
    New,
}

/// Builds the programs in release; the folder they are in.
pub(crate) fn build() -> Result<PathBuf> {
    let mut cargo = run::cargo();
    cargo.args(["build", "--release", "--quiet", "--package", "haar", "--package", "haar-libvirt"]);
    run::shown(&mut cargo)?;
    Ok(run::target_folder()?.join("release"))
}

/// Asks until there is an answer or the time is over; then the error is the last look's.
pub(crate) fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        match look() {
            Err(error) if began.elapsed() > limit => {
                return Err(error.context(format!("not within {} s", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
            found => return found,
        }
    }
}

/// A field that must be text.
pub(crate) fn text(object: &Value, field: &str) -> Result<String> {
    object[field].as_str().map(str::to_owned).with_context(|| format!("there is no `{field}` in {object}"))
}

/// Makes the folder for the one who calls, also where only root may.
fn make_folder(folder: &Path) -> Result<()> {
    if std::fs::create_dir_all(folder).is_ok() {
        return Ok(());
    }
    let user = run::quiet("id", ["-u"])?;
    let mut install = packages::as_root("install")?;
    install.args(["-d", "-m", "0755", "-o", user.trim()]).arg(folder);
    run::quietly(&mut install).map(drop).with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_foreign_files_is_neither_used_nor_found() -> Result<()> {
        let scratch = run::Scratch::inside(&std::env::temp_dir())?;
        let foreign = scratch.path().join("foreign");
        std::fs::create_dir(&foreign)?;
        std::fs::write(foreign.join("letter"), "dear\n")?;
        ensure!(Cloud::at(&foreign, Saved::Apart).is_err() && Cloud::find(&foreign, Saved::Apart).is_none());
        let ours = scratch.path().join("new/ours");
        Cloud::at(&ours, Saved::Apart)?;
        std::fs::write(ours.join("key"), "k\n")?;
        ensure!(Cloud::at(&ours, Saved::Apart).is_ok() && Cloud::find(&ours, Saved::Apart).is_some());
        Ok(())
    }

    #[test]
    fn another_cloud_at_the_address_is_not_taken_for_ours() -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = run::Scratch::inside(&std::env::temp_dir())?;
        let cloud = Cloud::at(&scratch.path().join("demo"), Saved::Apart)?;
        for folder in ["bin", "cloud"] {
            std::fs::create_dir(cloud.file(folder))?;
        }
        // In place of a program that asks a controller: it answers who shows its own cloud's token.
        let answer = "#!/bin/sh\n[ \"$HAAR_TOKEN\" = \"$(cat \"$0.knows\")\" ] && echo '{}'\n";
        std::fs::write(cloud.program(), answer)?;
        std::fs::set_permissions(cloud.program(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::write(cloud.file("port"), "8600\n")?;
        std::fs::write(cloud.data().join("admin.token"), "ours\n")?;
        let knows = cloud.file("bin/haar.knows");
        std::fs::write(&knows, "the-users-own")?;
        ensure!(!cloud.is_up());
        if run::is_root() {
            std::fs::write(&knows, "ours")?;
            ensure!(cloud.is_up());
        }
        Ok(())
    }

    #[test]
    fn a_wait_ends_with_the_last_looks_words() {
        let error = wait_for::<()>(Duration::ZERO, || anyhow::bail!("the guest is stopped")).unwrap_err();
        assert!(format!("{error:#}").contains("the guest is stopped"));
    }
}
