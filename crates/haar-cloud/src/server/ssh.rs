//! Commands on a server, and how it is known to be the right one.
//!
//! The key that a server must show was given to it with its user data, or is read from its console through
//! the cloud; nothing is ever believed at first sight. While a command runs the server does not idle, and
//! when the server is destroyed its commands are ended. Dropping a method ends its command on the server.

use std::io::ErrorKind;
use std::time::Duration;

use haar_ssh::{Chunk, Command, Exit, FileFault, HostKeys, Login, Options, Output, Pool, Target};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Server;
use super::here::Here;
use super::means::{Means, Running};
use crate::user_data::{host_keys_from_console, is_host_key};
use crate::{Error, Result};

/// How long a server may take to show that it is alive.
const ALIVE_LIMIT: Duration = Duration::from_secs(15);

/// A command whose output comes as it is written. Dropping it ends the command on the server.
#[derive(Debug)]
pub struct Streaming {
    running: Running,
    in_use: InUse,
}

impl Streaming {
    /// What the command writes next; `None` when it has ended.
    ///
    /// # Errors
    /// [`Error::Ssh`], [`Error::Timeout`] beyond the command's limit, [`Error::Cancelled`] when the server is
    /// destroyed.
    pub async fn next(&mut self) -> Result<Option<Chunk>> {
        self.running.next().await.map_err(|error| self.in_use.0.ssh_error(&error))
    }

    /// Waits for the command's end; what it still writes is dropped.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn wait(self) -> Result<Exit> {
        let Self { running, in_use } = self;
        running.wait().await.map_err(|error| in_use.0.ssh_error(&error))
    }
}

/// Something goes on at a server, which therefore does not idle.
#[derive(Debug)]
pub(super) struct InUse(Server);

impl Drop for InUse {
    fn drop(&mut self) {
        let server = &self.0;
        server.guarded().life.command_ended(server.cloud().now());
        server.watch_idle();
    }
}

impl Server {
    /// Runs a command to its end. Its status is part of the answer, and no error.
    ///
    /// # Errors
    /// [`Error::Ssh`], or [`Error::Local`] on this machine; [`Error::Timeout`] beyond the command's limit,
    /// [`Error::Cancelled`] when the server is destroyed meanwhile.
    pub async fn run(&self, command: &Command) -> Result<Output> {
        let _in_use = self.in_use()?;
        let end = &self.until_destroyed();
        self.work(|means| async move { means.run(command, end).await }).await
    }

    /// Runs a command that is to succeed.
    ///
    /// # Errors
    /// As [`Self::run`], and [`Error::RemoteExit`] with the status and the end of what it complained of.
    pub async fn run_to_success(&self, command: &str) -> Result<Output> {
        let output = self.run(&Command::new(command)).await?;
        self.succeeded(command, output)
    }

    /// Starts a command whose output is wanted as it comes.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_streaming(&self, command: &Command) -> Result<Streaming> {
        let in_use = self.in_use()?;
        let end = &self.until_destroyed();
        let running = self.work(|means| async move { means.spawn(command, end).await }).await?;
        Ok(Streaming { running, in_use })
    }

    /// Starts a command that goes on by itself, without input and output. Gives its process id. It does not
    /// keep the server from idling.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_in_background(&self, command: &str) -> Result<u32> {
        let _in_use = self.in_use()?;
        let end = &self.until_destroyed();
        self.work(|means| async move { means.background(command, end).await }).await
    }

    /// Whether it runs, and a command can be run on it now. To look is no use of it: it idles on.
    ///
    /// # Errors
    /// What the cloud says, if it says neither yes nor no.
    pub async fn is_alive(&self) -> Result<bool> {
        if !self.is_running().await? {
            return Ok(false);
        }
        let look = async {
            let means = self.means().await.ok()?;
            means.run(&Command::new("true"), &self.until_destroyed()).await.ok()
        };
        // A server may well take a command and never begin it: its home hangs, it can start no process.
        Ok(timeout(ALIVE_LIMIT, look).await.is_ok_and(|answer| answer.is_some()))
    }

    /// Its connections of ssh, shared by all who hold it. Nothing is dialled before it is needed.
    ///
    /// # Errors
    /// [`Error::Ssh`] without an address or a host key to expect, [`Error::BadInput`] for this machine itself, and
    /// [`Error::State`].
    pub async fn ssh(&self) -> Result<Pool> {
        if self.cloud().provider().is_this_machine() {
            let why = "it is this machine, to which nobody logs in".to_owned();
            return Err(Error::BadInput { what: "ssh to the server", value: self.name().to_owned(), why });
        }
        if let Some(pool) = self.guarded().ssh.clone().filter(|pool| !pool.is_closed()) {
            return Ok(pool);
        }
        let keys = self.expected_keys();
        if keys.is_empty() {
            self.learn_keys().await?;
        }
        let options = self.ssh_options().await?;
        let mut guarded = self.guarded();
        guarded.ssh.take_if(|pool| pool.is_closed());
        let background = self.cloud().background().clone();
        Ok(guarded.ssh.get_or_insert_with(|| Pool::tracked_by(options, background)).clone())
    }

    /// As [`Self::ssh`], with a connection that is there now.
    ///
    /// # Errors
    /// As [`Self::ssh`] and [`Self::run`].
    pub async fn reach(&self) -> Result<Pool> {
        self.by_ssh(|pool| async move { pool.connect().await.map(|()| pool) }).await
    }

    /// What it is worked on with.
    pub(super) async fn means(&self) -> Result<Means> {
        match self.here() {
            Some(here) => Ok(Means::Here(here)),
            None => self.ssh().await.map(Means::Ssh),
        }
    }

    fn here(&self) -> Option<Here> {
        let cloud = self.cloud();
        let here = || Here::new(&cloud.access().limits, cloud.background().clone());
        cloud.provider().is_this_machine().then(here)
    }

    /// Does something on the server.
    pub(super) async fn work<T, F>(&self, work: impl Fn(Means) -> F) -> Result<T>
    where
        F: Future<Output = haar_ssh::Result<T>>,
    {
        match self.here() {
            Some(here) => work(Means::Here(here)).await.map_err(|error| self.ssh_error(&error)),
            None => self.by_ssh(|pool| work(Means::Ssh(pool))).await,
        }
    }

    /// The host keys that it may show: the one that it was given, and those that it has told on its console,
    /// which is read unless somebody has done so before.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn host_keys(&self) -> Result<Vec<String>> {
        if self.expected_keys().len() < 2 {
            match self.learn_keys().await {
                Err(error @ Error::State(_)) => return Err(error),
                Err(error) => tracing::debug!(%error, server = self.name(), "its console cannot be read"),
                Ok(_) => {}
            }
        }
        Ok(self.expected_keys())
    }

    /// Does something by ssh. Where the server shows a key that it was not given, it is done once more if the
    /// server has told that key on its console, which nobody may have read before.
    async fn by_ssh<T, F>(&self, work: impl Fn(Pool) -> F) -> Result<T>
    where
        F: Future<Output = haar_ssh::Result<T>>,
    {
        let pool = self.ssh().await?;
        let known = self.expected_keys();
        let mut answer = work(pool).await;
        if matches!(answer, Err(haar_ssh::Error::HostKey { .. })) {
            // Another task may have read it meanwhile.
            if self.expected_keys() == known
                && let Err(error) = self.learn_keys().await
            {
                tracing::debug!(%error, server = self.name(), "its console cannot be read");
            }
            if self.expected_keys() != known {
                answer = work(self.ssh().await?).await;
            }
        }
        answer.map_err(|error| self.ssh_error(&error))
    }

    async fn ssh_options(&self) -> Result<Options> {
        let unusable =
            |message: &str| Error::Ssh { server: self.name().to_owned(), message: message.to_owned() };
        let address = self.address().ok_or_else(|| unusable("it has no address on record"))?;
        let private_key = self.cloud().private_key().await?;
        let key = private_key.ok_or_else(|| unusable("the key of the deployment is not on record"))?;
        let access = self.cloud().access();
        let target = Target::new(address.to_string(), self.user()).port(access.port);
        let keys = self.expected_keys();
        let host_keys =
            HostKeys::pinned(keys.iter().map(String::as_str)).map_err(|error| self.ssh_error(&error))?;
        let options = Options::new(target, vec![Login::Key(key)], host_keys);
        Ok(Options { jump: self.way().await?, limits: access.limits.clone(), ..options })
    }

    /// The host keys that it may show: the one it was given, and those it told on its console. What is on
    /// record and is no key keeps nobody from the others.
    fn expected_keys(&self) -> Vec<String> {
        let mut keys = self.details().host_keys.clone();
        keys.extend(self.guarded().learned_keys.iter().cloned());
        keys.retain(|key| is_host_key(key));
        keys
    }

    /// Reads the host keys from the console, where the server told them. Whether there are new ones, which
    /// then are on record for every process.
    pub(super) async fn learn_keys(&self) -> Result<bool> {
        let console = self.cloud().provider().console(self.id()).await?;
        let known = self.expected_keys();
        let new: Vec<String> =
            host_keys_from_console(&console).into_iter().filter(|key| !known.contains(key)).collect();
        if new.is_empty() {
            return Ok(false);
        }
        let keys = new.clone();
        let note = self.note(move |details| {
            let known = details.host_keys.clone();
            details.host_keys.extend(keys.into_iter().filter(|key| !known.contains(key)));
        });
        note.await?;
        let mut guarded = self.guarded();
        guarded.learned_keys.extend(new);
        guarded.ssh = None;
        Ok(true)
    }

    /// The next use dials anew; what goes on keeps its connections.
    pub(super) fn renew_ssh(&self) {
        self.guarded().ssh = None;
    }

    /// Ends what goes on over ssh; the next use dials anew.
    pub(super) fn close_ssh(&self) {
        if let Some(pool) = self.guarded().ssh.take() {
            pool.close();
        }
    }

    /// The connections that are there already.
    pub(super) fn open_ssh(&self) -> Option<Pool> {
        self.guarded().ssh.clone()
    }

    pub(super) fn in_use(&self) -> Result<InUse> {
        let begun = self.guarded().life.command_began();
        let refused = |error: crate::space::NoRoom| Error::Ssh {
            server: self.name().to_owned(),
            message: error.to_string(),
        };
        begun.map(|()| InUse(self.clone())).map_err(refused)
    }

    /// Cancelled when the server is destroyed.
    pub(super) fn until_destroyed(&self) -> CancellationToken {
        self.inner.end.child_token()
    }

    pub(super) fn succeeded(&self, command: &str, output: Output) -> Result<Output> {
        succeeded(self.name(), command, output)
    }

    pub(super) fn ssh_error(&self, error: &haar_ssh::Error) -> Error {
        error_of(self.name(), self.cloud().provider().is_this_machine(), error)
    }
}

/// The output of a command that is to have succeeded.
pub(super) fn succeeded(server: &str, command: &str, output: Output) -> Result<Output> {
    if output.is_success() {
        return Ok(output);
    }
    Err(Error::RemoteExit {
        server: server.to_owned(),
        command: command.to_owned(),
        status: output.status,
        stderr: end_of(&output.stderr),
    })
}

/// What went wrong on a server, which may be this machine.
pub(super) fn error_of(server: &str, is_here: bool, error: &haar_ssh::Error) -> Error {
    match error {
        haar_ssh::Error::Cancelled { what } => Error::Cancelled { what: what.clone() },
        haar_ssh::Error::OverTime { command, limit, .. } => Error::Timeout {
            what: format!("`{command}` on {server}"),
            after: *limit,
            last: "running, and was ended".to_owned(),
            typical: None,
        },
        haar_ssh::Error::File { action, path, fault: FileFault::NotFound, .. } => {
            Error::NoSuchFile { action, path: path.clone(), place: format!("on {server}") }
        }
        haar_ssh::Error::Local { action, path, source } if source.kind() == ErrorKind::NotFound => {
            Error::NoSuchFile { action, path: path.display().to_string(), place: "here".to_owned() }
        }
        other if is_here => Error::Local { message: with_sources(other) },
        other => Error::Ssh { server: server.to_owned(), message: with_sources(other) },
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        source = deeper.source();
    }
    text
}

/// The end of what a command wrote: the cause stands at the end.
fn end_of(bytes: &[u8]) -> String {
    const KEPT: usize = 4000;
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(KEPT)..]).into_owned()
}
