//! One connection to a server, logged in.
//!
//! Promises: it knows exactly how many sessions the server had granted when it refused one more; it can be
//! cut at any time; dropping it closes it. Deliberately absent: who may use it, which is the seats' matter.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use russh::client::{self, DisconnectReason, Handle, Msg};
use russh::keys::PublicKeyOrCertificate;
use russh::{Channel, ChannelId, ChannelOpenFailure};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Error;
use crate::host_keys::HostKeys;
use crate::options::Target;

/// How many times a session is asked for on one connection before a refusal is believed in any case.
const REFUSALS: u64 = 12;
/// How long an opening waits for channels that are being closed.
const CLOSING: Duration = Duration::from_secs(1);

/// A connection on which sessions can be opened.
pub(crate) struct Connection {
    handle: Handle<Client>,
    seen: Arc<Seen>,
    heard: Arc<AtomicU64>,
    /// One for each channel that is being closed; cancelled when it is.
    closings: Mutex<Vec<CancellationToken>>,
    cut: CancellationToken,
    _cut_on_drop: DropGuard,
}

/// What was told of a connection while it was used.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Channels that the server has granted and not closed.
    open: AtomicUsize,
    /// The same at the latest refusal.
    open_at_refusal: AtomicUsize,
    /// The most that were open at a time.
    most_open: AtomicUsize,
    /// Why the connection ended.
    lost: OnceLock<String>,
}

/// Why no channel was opened.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// The server refuses a further one beside those that were open then.
    Refused { reason: ChannelOpenFailure, open: usize },
    /// The connection is dead.
    Lost { why: String },
    /// No answer, although the connection lives.
    NoAnswer,
}

/// What a channel is to lead to.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// A command or a subsystem.
    Session,
    /// A TCP connection from the server to somewhere else.
    Tunnel { host: String, port: u16 },
}

impl Connection {
    pub(crate) fn new(
        handle: Handle<Client>,
        seen: Arc<Seen>,
        heard: Arc<AtomicU64>,
        cut: CancellationToken,
    ) -> Self {
        let cut_on_drop = cut.clone().drop_guard();
        Self { handle, seen, heard, closings: Mutex::default(), cut, _cut_on_drop: cut_on_drop }
    }

    /// Whether it can still be used, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        !self.cut.is_cancelled() && !self.handle.is_closed()
    }

    /// Ends it and all that goes on over it, at once.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// Why it ended, if it has.
    pub(crate) fn why_lost(&self) -> String {
        let known = self.seen.lost.get().cloned();
        known.unwrap_or_else(|| "the server closed it".to_owned())
    }

    /// Takes note that we closed a channel before the server did.
    pub(crate) fn closed_by_us(&self) {
        self.seen.closed();
    }

    /// Takes note that a channel is being closed, until the token is cancelled.
    pub(crate) fn closing(&self, closed: CancellationToken) {
        let mut closings = self.closings.lock().unwrap_or_else(PoisonError::into_inner);
        closings.retain(|closed| !closed.is_cancelled());
        closings.push(closed);
    }

    /// Waits for the channels that are being closed now: dropbear takes the end of one for the end of the next,
    /// if that is opened meanwhile.
    async fn closed(&self) {
        let closings = self.closings.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let all = async {
            for closed in &closings {
                closed.cancelled().await;
            }
        };
        // One whose program does not end keeps nobody for long.
        let _ = timeout(CLOSING, all).await;
    }

    /// How many bytes have arrived on it.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Opens a channel, however long the server takes for its answer. Not to be dropped midway: the server
    /// might grant what nobody closes.
    ///
    /// A session that has just ended is off the server's books a moment later only, so a refusal is believed
    /// when it is repeated, and as many are open as there ever were.
    pub(crate) async fn open(&self, purpose: &Purpose) -> Result<Channel<Msg>, NotOpened> {
        let mut refusals = 0;
        self.closed().await;
        loop {
            let reason = match self.open_once(purpose).await {
                Err(NotOpened::Refused { reason, .. }) => reason,
                outcome => return outcome,
            };
            if matches!(purpose, Purpose::Tunnel { .. }) {
                return Err(NotOpened::Refused { reason, open: 0 });
            }
            refusals += 1;
            // The server answers in order: after this it has gone through its books, and so have we.
            self.barrier().await?;
            let open = self.seen.open_at_refusal.load(Ordering::SeqCst);
            let is_believed = refusals > 1 && open >= self.seen.most_open.load(Ordering::SeqCst).max(1);
            if is_believed || refusals == REFUSALS {
                return Err(NotOpened::Refused { reason, open });
            }
            tokio::time::sleep(Duration::from_millis(5 * (refusals - 1))).await;
        }
    }

    /// Waits until the server has answered all that it was asked so far, or for a second.
    pub(crate) async fn barrier(&self) -> Result<(), NotOpened> {
        // Whether it was answered in time does not matter: what follows is asked in any case.
        let _ = timeout(Duration::from_secs(1), self.handle.send_ping()).await;
        if self.is_alive() { Ok(()) } else { Err(self.lost()) }
    }

    async fn open_once(&self, purpose: &Purpose) -> Result<Channel<Msg>, NotOpened> {
        let outcome = match purpose {
            Purpose::Session => self.handle.channel_open_session().await,
            Purpose::Tunnel { host, port } => {
                let (host, port) = (host.as_str(), u32::from(*port));
                self.handle.channel_open_direct_tcpip(host, port, "127.0.0.1", 0).await
            }
        };
        match outcome {
            Ok(channel) => Ok(channel),
            Err(russh::Error::ChannelOpenFailure(reason)) => Err(NotOpened::Refused { reason, open: 0 }),
            Err(_) => Err(self.lost()),
        }
    }

    fn lost(&self) -> NotOpened {
        NotOpened::Lost { why: self.why_lost() }
    }
}

impl Seen {
    fn closed(&self) {
        let less = |open: usize| Some(open.saturating_sub(1));
        let _ = self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }
}

/// What the SSH library tells of a connection, in the order in which the server said it.
pub(crate) struct Client {
    target: Target,
    host_keys: HostKeys,
    seen: Arc<Seen>,
}

impl Client {
    pub(crate) fn new(target: Target, host_keys: HostKeys, seen: Arc<Seen>) -> Self {
        Self { target, host_keys, seen }
    }
}

/// Why a connection could not be made or ended.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// Ours.
    Refused(Error),
    /// The library's.
    Ssh(russh::Error),
}

impl From<russh::Error> for ClientError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl client::Handler for Client {
    type Error = ClientError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        self.host_keys.check(&self.target, &shown.public_key()).map_err(ClientError::Refused)?;
        Ok(true)
    }

    async fn channel_open_confirmation(
        &mut self,
        _: ChannelId,
        _: u32,
        _: u32,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        let open = self.seen.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most_open.fetch_max(open, Ordering::SeqCst);
        Ok(())
    }

    async fn channel_close(&mut self, _: ChannelId, _: &mut client::Session) -> Result<(), Self::Error> {
        self.seen.closed();
        Ok(())
    }

    async fn channel_open_failure(
        &mut self,
        _: ChannelId,
        _: ChannelOpenFailure,
        _: &str,
        _: &str,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        self.seen.open_at_refusal.store(self.seen.open.load(Ordering::SeqCst), Ordering::SeqCst);
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Self::Error>) -> Result<(), Self::Error> {
        let why = match reason {
            DisconnectReason::ReceivedDisconnect(info) => format!("the server said: {}", info.message),
            DisconnectReason::Error(ClientError::Refused(error)) => error.to_string(),
            DisconnectReason::Error(ClientError::Ssh(russh::Error::KeepaliveTimeout)) => {
                "it gave no sign of life".to_owned()
            }
            DisconnectReason::Error(ClientError::Ssh(russh::Error::Disconnect | russh::Error::HUP)) => {
                "the server closed it".to_owned()
            }
            DisconnectReason::Error(ClientError::Ssh(error)) => error.to_string(),
        };
        // The first reason is the cause; what follows are its consequences.
        let _ = self.seen.lost.set(why);
        Ok(())
    }
}
