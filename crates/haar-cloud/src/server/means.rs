//! How a server is worked on: over ssh, or straight where it is this machine.

use std::path::Path;
use std::time::SystemTime;

use haar_ssh::{Chunk, Command, Exit, Output, Pool, Result};
use tokio_util::sync::CancellationToken;

use super::here::{self, Here};

/// What commands are run and files are copied with.
#[derive(Debug, Clone)]
pub(super) enum Means {
    Ssh(Pool),
    Here(Here),
}

impl Means {
    pub(super) async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output> {
        match self {
            Self::Ssh(pool) => pool.run(command, cancel).await,
            Self::Here(here) => here.run(command, cancel).await,
        }
    }

    pub(super) async fn spawn(&self, command: &Command, cancel: &CancellationToken) -> Result<Running> {
        match self {
            Self::Ssh(pool) => pool.spawn(command, cancel).await.map(Running::Ssh),
            Self::Here(here) => here.spawn(command, cancel).map(Running::Here),
        }
    }

    pub(super) async fn background(&self, text: &str, cancel: &CancellationToken) -> Result<u32> {
        match self {
            Self::Ssh(pool) => pool.background(text, cancel).await,
            Self::Here(here) => here.background(text, cancel).await,
        }
    }

    /// Its files; what keeps it from having any is told now.
    pub(super) async fn files(&self) -> Result<Files> {
        match self {
            Self::Ssh(pool) => {
                let files = pool.files();
                files.open().await.map(|()| Files::Ssh(files))
            }
            Self::Here(here) => Ok(Files::Here(here.files())),
        }
    }
}

/// A command that runs; dropping it ends the command.
#[derive(Debug)]
pub(super) enum Running {
    Ssh(haar_ssh::Running),
    Here(here::Running),
}

impl Running {
    pub(super) async fn next(&mut self) -> Result<Option<Chunk>> {
        match self {
            Self::Ssh(running) => running.next().await,
            Self::Here(running) => running.next().await,
        }
    }

    pub(super) async fn wait(self) -> Result<Exit> {
        match self {
            Self::Ssh(running) => running.wait().await,
            Self::Here(running) => running.wait().await,
        }
    }
}

/// The files of a server. A path that does not begin with `/` begins at the user's home.
#[derive(Debug)]
pub(super) enum Files {
    Ssh(haar_ssh::Files),
    Here(here::Files),
}

impl Files {
    /// Copies a file there, with other permissions than its own if `mode` tells some.
    pub(super) async fn upload(&self, local: &Path, remote: &str, mode: Option<u32>) -> Result<()> {
        match (self, mode) {
            (Self::Ssh(files), None) => files.upload(local, remote).await,
            (Self::Ssh(files), Some(mode)) => files.upload_as(local, remote, mode).await,
            (Self::Here(files), mode) => files.upload(local, remote, mode).await,
        }
    }

    pub(super) async fn download(&self, remote: &str, local: &Path) -> Result<()> {
        match self {
            Self::Ssh(files) => files.download(remote, local).await,
            Self::Here(files) => files.download(remote, local).await,
        }
    }

    pub(super) async fn write(&self, remote: &str, bytes: &[u8], mode: u32) -> Result<()> {
        match self {
            Self::Ssh(files) => files.write(remote, bytes, mode).await,
            Self::Here(files) => files.write(remote, bytes, mode).await,
        }
    }

    pub(super) async fn make_dir_all(&self, remote: &str) -> Result<()> {
        match self {
            Self::Ssh(files) => files.make_dir_all(remote).await,
            Self::Here(files) => files.make_dir_all(remote).await,
        }
    }

    pub(super) async fn exists(&self, remote: &str) -> Result<bool> {
        match self {
            Self::Ssh(files) => files.exists(remote).await,
            Self::Here(files) => files.exists(remote).await,
        }
    }

    pub(super) async fn set_modified(&self, remote: &str, time: SystemTime) -> Result<()> {
        match self {
            Self::Ssh(files) => files.set_modified(remote, time).await,
            Self::Here(files) => files.set_modified(remote, time).await,
        }
    }

    pub(super) async fn home_dir(&self) -> Result<String> {
        match self {
            Self::Ssh(files) => files.home_dir().await,
            Self::Here(files) => Ok(files.home_dir().to_string_lossy().into_owned()),
        }
    }
}
