//! The engine: one thread owns the working fleet and the disk; everybody else sends commands and reads
//! the published fleet.
//!
//! ```text
//!   handlers ──submit──▶ queue ──▶ decide → commit → apply (published) ──▶ answers, wakes
//!      ▲                            └── one commit for all that waits ──┘        │
//!      └───────────────── read the published fleet ◀────────────────────────────┘
//! ```
//!
//! Nobody is answered before the commit. Deliberately absent: HTTP, and every rule about the books.

mod disk;
mod reader;
mod run;
mod wakes;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use haar_core::fence::Fence;
use haar_core::fleet::Fleet;
use haar_core::fleet::command::{Answer, Command, Env};
use haar_core::id::{HypervisorId, JobId};
use haar_core::job::{Job, Status};
use haar_core::refusal::Refusal;
use haar_store::{Disk, Reader};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::events::EventLog;
use crate::liveness::{Clock, Liveness};
use crate::metrics::Metrics;

pub use self::disk::LoadError;
pub(crate) use self::disk::{Books, DiskCommit, load, store_fence};
use self::reader::ClosableReader;
pub(crate) use self::run::chain;
use self::run::{Loop, Message};
use self::wakes::{Waited, Wakes};

/// Commands that may wait.
const QUEUE: usize = 4_096;

/// Why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The brain's no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The commit failed: it may have taken effect or not.
    #[error(
        "the store failed while this was being written; it may have taken effect or not: ask again with the same id"
    )]
    OutcomeUnknown,
    /// No room for the store; nothing was written.
    #[error("no space left for {}: nothing was changed; free some on its file system, then ask again", path.display())]
    Full {
        /// The store's file.
        path: PathBuf,
    },
    /// Too much waits.
    #[error("too many requests wait for the books; ask again shortly")]
    Overloaded,
    /// The controller ends.
    #[error("the controller is stopping; ask again when it is back")]
    Stopping,
}

/// What is called when the engine cannot go on: by default the process ends.
pub type OnFatal = Box<dyn FnOnce(String) + Send>;

/// What engine and handlers share.
pub(crate) struct Shared {
    published: RwLock<Fleet>,
    pub(crate) liveness: Liveness,
    pub(crate) events: EventLog,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    reader: ClosableReader,
    hypervisors: Wakes<HypervisorId>,
    jobs: Wakes<JobId>,
    waiting: AtomicUsize,
    ready: AtomicBool,
}

impl Shared {
    /// Looks at the published fleet; nothing in `look` may wait.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Fleet) -> T) -> T {
        // Only `apply` writes, which cannot fail half way but by a defect; then the engine ends anyway.
        look(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Fleet) -> T) -> T {
        change(&mut self.published.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a decision or a dry run may know besides the books.
    pub(crate) fn env(&self) -> Env<'_> {
        Env { now: self.clock.now(), wall: Clock::wall(), lot: lot(), alive: &self.liveness }
    }
}

/// The handle of the engine. Clones are cheap.
#[derive(Clone)]
pub(crate) struct Engine {
    sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl std::ops::Deref for Engine {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Engine {
    /// Starts the thread on books that were loaded from `disk`.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    pub(crate) fn start(
        disk: Box<dyn Disk>,
        books: Books,
        clock: Clock,
        metrics: Metrics,
        on_fatal: OnFatal,
    ) -> std::io::Result<Engine> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(QUEUE);
        let reader = ClosableReader::new(disk.reader());
        let shared = Arc::new(Shared {
            liveness: Liveness::new(clock, books.fleet.config().liveness_ttl_ms()),
            events: EventLog::new(Box::new(reader.clone()), books.ring),
            reader,
            published: RwLock::new(books.fleet.clone()),
            clock,
            metrics,
            hypervisors: Wakes::default(),
            jobs: Wakes::default(),
            waiting: AtomicUsize::new(0),
            ready: AtomicBool::new(true),
        });
        let commit = DiskCommit::new(disk, Arc::clone(&shared), books.ring);
        let engine = Loop::new(receiver, Arc::clone(&shared), books.fleet, commit);
        std::thread::Builder::new().name("engine".into()).spawn(move || engine.run(on_fatal))?;
        Ok(Engine { sender, shared })
    }

    /// Has the command decided and made durable.
    ///
    /// # Errors
    /// [`Failure`] says whether nothing happened or nobody knows.
    pub(crate) async fn submit(&self, command: Command) -> Result<Answer, Failure> {
        let (answer, answered) = oneshot::channel();
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.sender.try_send(Message::Command(Box::new(command), answer)).map_err(|error| {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => Failure::Overloaded,
                TrySendError::Disconnected(_) => Failure::Stopping,
            }
        })?;
        // The thread only drops an answer when it ends in the middle of a turn.
        answered.await.unwrap_or(Err(Failure::OutcomeUnknown))
    }

    /// Has an agent's word taken. When it has seen more than these books, they were restored: a new epoch
    /// begins first.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub(crate) async fn submit_from_agent(&self, command: Command) -> Result<Answer, Failure> {
        match self.submit(command.clone()).await {
            Err(Failure::Refused(Refusal::BooksRestored { seen, .. })) => {
                self.begin_epoch_after(seen).await?;
                self.submit(command).await
            }
            answer => answer,
        }
    }

    /// Begins a new epoch if `seen` is newer than these books.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub(crate) async fn begin_epoch_after(&self, seen: Fence) -> Result<(), Failure> {
        if seen <= self.read(Fleet::fence) {
            return Ok(());
        }
        tracing::warn!(%seen, "an agent has seen newer books than these: they were restored; a new epoch begins");
        self.submit(Command::BeginEpoch(seen.epoch.saturating_add(1))).await.map(|_| ())
    }

    /// Waits until the hypervisor's desired set is newer than `since`, or the time is over.
    pub(crate) async fn wait_for_hypervisor<T>(
        &self,
        hypervisor: HypervisorId,
        until: Instant,
        look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        match self.shared.hypervisors.wait_for(hypervisor, until, look).await {
            Waited::Found(found) => Some(found),
            Waited::TimeOver => None,
        }
    }

    /// Lets the polls of this hypervisor look again.
    pub(crate) fn wake_hypervisor(&self, hypervisor: HypervisorId) {
        self.shared.hypervisors.wake(hypervisor);
    }

    /// Lets everybody who waits look again: the controller ends.
    pub(crate) fn wake_everybody(&self) {
        self.shared.hypervisors.wake_all();
        self.shared.jobs.wake_all();
    }

    /// Waits until the job has ended, at most so long; the job as it is then, none if it is gone.
    pub(crate) async fn wait_for_job(&self, job: JobId, wait: Duration) -> Option<Arc<Job>> {
        let now = || self.read(|fleet| fleet.job(job).cloned());
        let ended = || match now() {
            Some(found) if !matches!(found.status, Status::Done | Status::Error) => None,
            other => Some(other),
        };
        match self.shared.jobs.wait_for(job, Instant::now() + wait, ended).await {
            Waited::Found(found) => found,
            Waited::TimeOver => now(),
        }
    }

    /// The bytes of a blob, if it is kept. Blocks on the disk: in a thread of its own.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn blob(&self, sha256: String) -> Result<Option<Vec<u8>>, haar_store::Error> {
        let shared = Arc::clone(&self.shared);
        let read = move || {
            let found = shared.reader.scan(crate::records::BLOBS, sha256.as_bytes(), 1)?;
            Ok(found.into_iter().find(|(key, _)| key == sha256.as_bytes()).map(|(_, bytes)| bytes))
        };
        tokio::task::spawn_blocking(read).await.unwrap_or(Ok(None))
    }

    /// Commands that wait or are being decided.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Whether the books can be written.
    pub(crate) fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Relaxed)
    }

    /// What is shared, for those who outlive a borrow.
    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Takes what waits, commits it for the last time, ends the thread, and lets go of the store.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        let sender = self.sender.clone();
        // The queue may be full: a thread waits for its turn.
        let sent = tokio::task::spawn_blocking(move || sender.send(Message::Stop(done)).is_ok()).await;
        if sent.unwrap_or(false) {
            // An error means that the thread has ended already.
            let _ = stopped.await;
        }
        let reader = self.shared.reader.clone();
        let closed = tokio::task::spawn_blocking(move || reader.close()).await;
        closed.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    }
}

/// Random bits for one decision.
pub(crate) fn lot() -> u128 {
    u128::from_le_bytes(crate::auth::random())
}
