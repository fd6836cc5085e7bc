//! A server's connections, shared by all who want something of it.
//!
//! Promises: nothing is dialled before it is needed; no lock is held while dialling; callers that come together
//! share a dial; a place on a connection returns when its user is done, fails or is dropped. Once the pool is
//! closed everything that goes on over it fails at once. Deliberately absent: what is done on a connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{Connection, NotOpened, Purpose};
use crate::detach::Detach;
use crate::dial::dial;
use crate::error::Obstacle;
use crate::files::Files;
use crate::options::{Limits, Options, Target};
use crate::seats::{Seats, Sharing};
use crate::session::{Session, Tunnel};
use crate::shell::Shell;
use crate::{Error, Result};

/// How many times a session is asked for again: on a connection that died unnoticed, or that refuses the first.
const ATTEMPTS: u32 = 5;

/// The connections to one server. Clones share them; the last one dropped closes them.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    options: Arc<Options>,
    seats: Mutex<Seats<Connection>>,
    changed: Notify,
    closed: CancellationToken,
    has_worked: AtomicBool,
    shell: Shell,
    background: TaskTracker,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Pool")
            .field("target", &self.target().to_string())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self::tracked_by(options, TaskTracker::new())
    }

    /// The same; what has to be done for callers that went away is done by tasks of `background`, which its owner
    /// may wait for as with [`Self::settled`].
    #[must_use]
    pub fn tracked_by(options: Options, background: TaskTracker) -> Self {
        // So that waiting for it ends when nothing is under way; it still takes new tasks.
        background.close();
        let seats = Mutex::new(Seats::new(options.limits.sessions_per_connection));
        let shared = Shared {
            options: Arc::new(options),
            seats,
            changed: Notify::new(),
            closed: CancellationToken::new(),
            has_worked: AtomicBool::new(false),
            shell: Shell::default(),
            background,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The server, and the user there.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.shared.options.target
    }

    /// How long it waits for what.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.options.limits
    }

    /// How many connections are open and logged in.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lock().alive()
    }

    /// Closes every connection; whatever goes on over them, and all that is asked later, fails with
    /// [`Error::Closed`]. Processes on the server are not ended.
    pub fn close(&self) {
        self.shared.closed.cancel();
        for connection in self.shared.lock().drain() {
            connection.cut();
        }
        self.shared.changed.notify_waiters();
    }

    /// Waits until nothing is done any more for callers that went away or gave up: their commands are ended on the
    /// server, and what they had begun to write is removed. To be called before a process ends.
    pub async fn settled(&self) {
        self.shared.background.wait().await;
    }

    /// Whether it was closed, or the one that it goes through.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let jump = self.shared.options.jump.as_ref();
        self.shared.closed.is_cancelled() || jump.is_some_and(Self::is_closed)
    }

    /// Files on the server.
    #[must_use]
    pub fn files(&self) -> Files {
        Files::new(self.clone())
    }

    /// What is known of the user's login shell.
    pub(crate) fn shell(&self) -> &Shell {
        &self.shared.shell
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.shared.background
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.shared.closed
    }

    pub(crate) fn closed_error(&self) -> Error {
        Error::Closed { target: self.target().clone() }
    }

    /// Opens a session. What the server grants after the caller has gone is closed.
    pub(crate) async fn session(&self, sharing: Sharing) -> Result<Session> {
        let (mut refusals, mut deaths) = (0, 0);
        loop {
            let place = self.place(sharing).await?;
            match self.open(place, Purpose::Session).await {
                Ok(session) => return Ok(session),
                Err(NotOpened::Refused { open, .. }) => refusals += u32::from(open == 0),
                Err(NotOpened::Lost { .. }) if deaths < ATTEMPTS => deaths += 1,
                Err(NotOpened::Lost { why }) => {
                    let during = "the opening of a session".to_owned();
                    return Err(Error::Lost { target: self.target().clone(), during, why });
                }
                Err(NotOpened::NoAnswer) => {
                    let (what, after) = ("open a session".to_owned(), self.limits().session);
                    return Err(Error::NoAnswer { target: self.target().clone(), what, after });
                }
            }
            if refusals > ATTEMPTS {
                return Err(Error::SessionRefused { target: self.target().clone() });
            }
        }
    }

    /// Opens a TCP connection from this server to another.
    pub(crate) async fn tunnel(&self, target: &Target) -> Result<Tunnel> {
        let behind = || Error::Unreachable { target: target.clone(), obstacle: Obstacle::BehindJump };
        for _ in 0..ATTEMPTS {
            let place = Box::pin(self.place(Sharing::Shared)).await?;
            let purpose = Purpose::Tunnel { host: target.host.clone(), port: target.port };
            match self.open(place, purpose).await {
                Ok(session) => return Ok(Tunnel::new(session)),
                Err(NotOpened::Refused { reason, .. }) => {
                    return Err(match reason {
                        russh::ChannelOpenFailure::AdministrativelyProhibited => {
                            Error::ForwardingRefused { jump: self.target().clone(), target: target.clone() }
                        }
                        _ => behind(),
                    });
                }
                Err(NotOpened::Lost { .. }) => {}
                Err(NotOpened::NoAnswer) => break,
            }
        }
        Err(behind())
    }

    /// Opens a channel, and keeps the place until the server has answered, also when nobody waits for that any
    /// more.
    async fn open(&self, place: Place, purpose: Purpose) -> Result<Session, NotOpened> {
        let connection = Arc::clone(&place.connection);
        let heard = connection.heard();
        let opening = Detach::new(async move {
            match place.connection.open(&purpose).await {
                Ok(channel) => Ok(Session::new(channel, place)),
                Err(reason) => {
                    if let (NotOpened::Refused { open, .. }, Purpose::Session) = (&reason, &purpose) {
                        place.shared.lock().refused(place.id, *open);
                    }
                    Err(reason)
                }
            }
        });
        match tokio::time::timeout(self.limits().session, opening).await {
            Ok(outcome) => outcome,
            Err(_) if connection.heard() == heard => {
                // Nothing at all arrived in all that time: the connection is dead, or as good as.
                connection.cut();
                Err(NotOpened::Lost { why: "the server did not answer any more".to_owned() })
            }
            Err(_) => Err(NotOpened::NoAnswer),
        }
    }

    /// Waits for a place on a connection, dialling one where that is needed.
    async fn place(&self, sharing: Sharing) -> Result<Place> {
        let shared = &self.shared;
        let waiting = Waiting::new(shared, sharing);
        loop {
            let mut changed = std::pin::pin!(shared.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if shared.closed.is_cancelled() {
                return Err(self.closed_error());
            }
            let pause = match self.look(&waiting)? {
                Look::Place(place) => return Ok(place),
                Look::Wait(until) => until,
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => {}
                () = shared.closed.cancelled() => {}
            }
        }
    }

    fn look(&self, waiting: &Waiting<'_>) -> Result<Look> {
        let now = Instant::now();
        let mut seats = self.shared.lock();
        seats.prune(now);
        if let Some((id, connection)) = seats.take(waiting.sharing) {
            return Ok(Look::Place(Place { shared: Arc::clone(&self.shared), id, connection }));
        }
        // Where other connections live, a place on one of them may come free, or a dial work in the end.
        let is_over = seats.is_empty() || now.duration_since(waiting.since) >= self.limits().dial;
        if is_over && seats.failures() > waiting.failures_before && seats.no_dial_before().is_some() {
            return Err(seats.last_failure().unwrap_or_else(|| self.closed_error()));
        }
        if seats.begin_dial(now) {
            drop(seats);
            self.dial();
            return Ok(Look::Wait(None));
        }
        Ok(Look::Wait(seats.no_dial_before().filter(|time| *time > now)))
    }

    /// Dials in a task of its own, so that whoever began it may leave without the others losing it.
    fn dial(&self) {
        let options = Arc::clone(&self.shared.options);
        let pool = Arc::downgrade(&self.shared);
        let cut = self.shared.closed.child_token();
        tokio::spawn(async move {
            let outcome = dial(&options, cut).await;
            // Without the pool there is nobody to use the connection.
            let Some(shared) = pool.upgrade() else { return };
            match outcome {
                Ok(connection) => {
                    tracing::debug!(target = %options.target, "connected");
                    shared.has_worked.store(true, Ordering::SeqCst);
                    let mut seats = shared.lock();
                    seats.dialled(connection, Instant::now());
                    if shared.closed.is_cancelled() {
                        seats.drain().iter().for_each(|connection| connection.cut());
                    }
                }
                Err(error) => {
                    tracing::debug!(target = %options.target, %error, "no connection");
                    let error = shared.sharpen(error);
                    shared.lock().dial_failed(error, Instant::now());
                }
            }
            shared.changed.notify_waiters();
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seats<Connection>> {
        // Nothing that is done under the lock leaves the books half written.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says more of an error where it is known that ssh worked before.
    fn sharpen(&self, error: Error) -> Error {
        match error {
            Error::Unreachable { target, obstacle: Obstacle::NoRoute }
                if self.has_worked.load(Ordering::SeqCst) =>
            {
                Error::RouteLost { target }
            }
            error => error,
        }
    }
}

enum Look {
    Place(Place),
    /// Until something changes, or this time.
    Wait(Option<Instant>),
}

/// Somebody who waits for a place; stops waiting when dropped.
struct Waiting<'pool> {
    shared: &'pool Shared,
    sharing: Sharing,
    since: Instant,
    failures_before: u64,
}

impl<'pool> Waiting<'pool> {
    fn new(shared: &'pool Shared, sharing: Sharing) -> Self {
        let mut seats = shared.lock();
        seats.begin_waiting(sharing);
        let failures_before = seats.failures();
        Self { shared, sharing, since: Instant::now(), failures_before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.lock().end_waiting(self.sharing);
    }
}

/// A place on a connection; goes back when dropped.
pub(crate) struct Place {
    shared: Arc<Shared>,
    id: u64,
    connection: Arc<Connection>,
}

impl Place {
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.lock().give_back(self.id, Instant::now());
        self.shared.changed.notify_one();
    }
}
