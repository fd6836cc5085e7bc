//! Running commands: to their end, as streams, and left running.
//!
//! Promises: output beyond the cap is read and dropped, so that the command goes on and memory stays bounded; a
//! command whose caller cancels, runs out of time or goes away is ended on the server with all its process
//! group. Deliberately absent: terminals.

use std::time::Duration;

use bytes::Bytes;
use russh::ChannelMsg;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::command::{Chunk, Command, Exit, Output};
use crate::ending::{self, Line};
use crate::pid_line;
use crate::pool::Pool;
use crate::seats::Sharing;
use crate::{Error, Result};

/// How long a caller that cancelled is kept while its command is being ended; that goes on without it.
const ENDING: Duration = Duration::from_millis(800);
/// The wire's number for standard error.
const STDERR: u32 = 1;

impl Pool {
    /// Runs a command to its end. A status other than 0 is no error.
    ///
    /// # Errors
    /// [`Error::OverTime`], [`Error::Cancelled`] and [`Error::Closed`]; [`Error::Lost`] when the connection
    /// breaks while it runs; [`Error::ExecRefused`]; [`Error::BadInput`] for a text with a zero byte; and
    /// whatever keeps a connection from being made.
    pub async fn run(&self, command: &Command, cancel: &CancellationToken) -> Result<Output> {
        let mut running = self.start(command, cancel, Sharing::Shared).await?;
        let mut output = Output::default();
        let cap = self.limits().output_cap;
        while output.hear(running.next().await, cap)? {}
        let exit = running.exit()?;
        Ok(Output { status: exit.status, signal: exit.signal, ..output })
    }

    /// Starts a command whose output is wanted as it comes. It gets a connection of its own, as a reader that
    /// is slow holds up everything that goes over the same one.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub async fn spawn(&self, command: &Command, cancel: &CancellationToken) -> Result<Running> {
        self.start(command, cancel, Sharing::Alone).await
    }

    /// Starts a command that goes on by itself, without input and output, whatever becomes of the connection.
    /// Gives its process id.
    ///
    /// # Errors
    /// As for [`Self::run`]; [`Error::ExecRefused`] also when it could not be started.
    pub async fn background(&self, text: &str, cancel: &CancellationToken) -> Result<u32> {
        let output = self.run(&Command::background(text), cancel).await?;
        let pid = String::from_utf8_lossy(&output.stdout).trim().parse();
        pid.map_err(|_| Error::ExecRefused { target: self.target().clone(), command: text.to_owned() })
    }

    async fn start(
        &self,
        command: &Command,
        cancel: &CancellationToken,
        sharing: Sharing,
    ) -> Result<Running> {
        command.check()?;
        let Command { text, limit, stdin } = command.clone();
        let Some(session) = cancel.run_until_cancelled(self.session(sharing)).await else {
            return Err(Error::Cancelled { what: format!("`{text}`") });
        };
        let mut line = Line::new(session?);
        let sent = line.session.write().exec(true, pid_line::ask(&text, self.shell())).await;
        let mut input = None;
        let written = match stdin {
            Some(bytes) => {
                let mut writer = Box::pin(line.session.write().make_writer());
                // A command may end without having read it all, so nobody waits for this.
                input = Some(Input(tokio::spawn(async move {
                    if !bytes.is_empty() {
                        let _ = writer.write_all(&bytes).await;
                    }
                    let _ = writer.shutdown().await;
                })));
                Ok(())
            }
            None => line.session.write().eof().await,
        };
        let deadline = limit.map(|limit| Instant::now() + limit);
        let (pool, cancel) = (self.clone(), cancel.clone());
        let mut running =
            Running { pool, cancel, text, limit, deadline, line: Some(line), exit: None, _input: input };
        if sent.and(written).is_err() {
            return Err(running.lost());
        }
        Ok(running)
    }
}

/// A command that runs. Dropping it ends the command on the server.
pub struct Running {
    pool: Pool,
    cancel: CancellationToken,
    text: String,
    limit: Option<Duration>,
    deadline: Option<Instant>,
    line: Option<Line>,
    exit: Option<Exit>,
    _input: Option<Input>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Running").field("command", &self.text).finish_non_exhaustive()
    }
}

/// The task that writes a command's input; ends with it.
struct Input(JoinHandle<()>);

impl Drop for Input {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    /// What the command writes next, as it comes; `None` when it has ended. May be dropped and called again
    /// without anything being lost.
    ///
    /// # Errors
    /// As for [`Pool::run`], once the command was started.
    pub async fn next(&mut self) -> Result<Option<Chunk>> {
        loop {
            let Some(line) = &mut self.line else { return Ok(None) };
            let message = tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    self.end().await;
                    return Err(Error::Cancelled { what: format!("`{}`", self.text) });
                }
                () = self.pool.closed().cancelled() => {
                    self.line = None;
                    return Err(self.pool.closed_error());
                }
                limit = over_time(self.deadline, self.limit) => {
                    self.end().await;
                    let output = Box::default();
                    return Err(Error::OverTime { command: self.text.clone(), limit, output });
                }
                message = line.session.next() => message,
            };
            if let Some(chunk) = self.hear(message)? {
                return Ok(Some(chunk));
            }
        }
    }

    /// Waits for the command's end; what it still writes is dropped.
    ///
    /// # Errors
    /// As for [`Pool::run`], once the command was started.
    pub async fn wait(mut self) -> Result<Exit> {
        while self.next().await?.is_some() {}
        self.exit()
    }

    fn hear(&mut self, message: Option<ChannelMsg>) -> Result<Option<Chunk>> {
        let Some(line) = &mut self.line else { return Ok(None) };
        let said = match message {
            Some(ChannelMsg::Data { data }) => line.pid.pass(data, self.pool.shell()),
            Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => return Ok(Some(Chunk::Stderr(data))),
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                self.exit = Some(Exit { status: exit_status, signal: None });
                Bytes::new()
            }
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                self.exit = Some(Exit::by_signal(&signal_name));
                Bytes::new()
            }
            Some(ChannelMsg::Failure) => {
                line.session.stayed_empty();
                self.line = None;
                let (target, command) = (self.pool.target().clone(), self.text.clone());
                return Err(Error::ExecRefused { target, command });
            }
            Some(ChannelMsg::Eof) => line.pid.give_up(),
            Some(ChannelMsg::Close) => {
                let rest = line.pid.give_up();
                self.line = None;
                rest
            }
            Some(_) => Bytes::new(),
            None => return Err(self.lost()),
        };
        Ok((!said.is_empty()).then_some(Chunk::Stdout(said)))
    }

    fn exit(&mut self) -> Result<Exit> {
        self.exit.take().ok_or_else(|| Error::Lost {
            target: self.pool.target().clone(),
            during: format!("`{}`", self.text),
            why: "the server closed the session without a status".to_owned(),
        })
    }

    fn lost(&mut self) -> Error {
        if self.pool.closed().is_cancelled() {
            return self.pool.closed_error();
        }
        let why = self.line.take().map_or_else(String::new, |mut line| line.session.why_lost());
        Error::Lost { target: self.pool.target().clone(), during: format!("`{}`", self.text), why }
    }

    /// Ends the command on the server, and waits a moment for that.
    async fn end(&mut self) {
        if let Some(line) = self.line.take() {
            let ending = self.pool.tasks().spawn(ending::end(self.pool.clone(), line));
            let _ = tokio::time::timeout(ENDING, ending).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(line) = self.line.take() else { return };
        if line.session.is_closed() {
            return;
        }
        // Without a runtime there is no connection any more either.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.pool.tasks().spawn_on(ending::end(self.pool.clone(), line), &runtime);
        }
    }
}

/// Gives the limit when its time has come.
async fn over_time(deadline: Option<Instant>, limit: Option<Duration>) -> Duration {
    match (deadline, limit) {
        (Some(deadline), Some(limit)) => {
            tokio::time::sleep_until(deadline).await;
            limit
        }
        _ => std::future::pending().await,
    }
}
