//! The engine's thread: takes what waits, has it decided and committed as one, publishes, answers, wakes.
//!
//! When a commit fails, or a defect shows while a batch is decided, the whole batch is told that its
//! outcome is unknown, the disk is opened and read again, and the books are replaced; when that fails too,
//! the process must end. Deliberately absent: retrying a batch, for whoever asked is there to ask again.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use haar_core::batch;
use haar_core::fleet::Fleet;
use haar_core::fleet::change::{Change, Decision, Effect, Record};
use haar_core::fleet::command::{Answer, Command, Decided};
use haar_core::id::Kind;
use haar_core::refusal::Refusal;
use tokio::sync::oneshot;

use super::disk::DiskCommit;
use super::{Failure, OnFatal, Shared};

/// Commands taken from the queue for one turn; the store's limits may take fewer.
const BATCH: usize = 1_024;
/// How long the thread sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(1);
/// How often opening the disk again is tried, and how long between.
const REOPENS: u32 = 20;
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// Turns in a row that may meet a defect before the process ends.
const DEFECTS: u32 = 8;

/// Whoever waits for a command's answer; nobody for the engine's own.
type Ticket = Option<oneshot::Sender<Result<Answer, Failure>>>;

/// What is sent to the thread.
pub(super) enum Message {
    /// Decide this and answer.
    Command(Box<Command>, oneshot::Sender<Result<Answer, Failure>>),
    /// Finish what waits, then end.
    Stop(oneshot::Sender<()>),
}

/// The thread's own.
pub(super) struct Loop {
    receiver: Receiver<Message>,
    shared: Arc<Shared>,
    working: Fleet,
    commit: DiskCommit,
    queue: VecDeque<(Ticket, Command)>,
    stop: Option<oneshot::Sender<()>>,
    defects: u32,
}

impl Loop {
    pub(super) fn new(
        receiver: Receiver<Message>,
        shared: Arc<Shared>,
        working: Fleet,
        commit: DiskCommit,
    ) -> Loop {
        Loop { receiver, shared, working, commit, queue: VecDeque::new(), stop: None, defects: 0 }
    }

    /// Runs until stopped; a defect or a dead disk ends in `on_fatal`.
    pub(super) fn run(mut self, on_fatal: OnFatal) {
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| self.turns()));
        self.shared.ready.store(false, Ordering::Relaxed);
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => on_fatal(cause),
            Err(_) => {
                on_fatal("the engine met a defect and cannot go on; the books on disk are whole".into());
            }
        }
        // Dropped last: whoever waits for the stop knows that the disk is closed.
        let stop = self.stop.take();
        drop(self);
        if let Some(stop) = stop {
            let _ = stop.send(());
        }
    }

    fn turns(&mut self) -> Result<(), String> {
        loop {
            let open = self.take_messages();
            self.add_overdue();
            while !self.queue.is_empty() {
                self.turn()?;
            }
            if !open {
                return Ok(());
            }
        }
    }

    /// Fills the queue; false once nobody can send any more, or nobody shall.
    fn take_messages(&mut self) -> bool {
        let mut message = match self.receiver.recv_timeout(self.until_due()) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        while let Some(next) = message.take() {
            match next {
                Message::Command(command, answer) => self.queue.push_back((Some(answer), *command)),
                Message::Stop(done) => self.stop = Some(done),
            }
            // After a stop all that still waits is taken, so that nobody is left without an answer.
            if self.queue.len() < BATCH || self.stop.is_some() {
                message = self.receiver.try_recv().ok();
            }
        }
        self.stop.is_none()
    }

    fn until_due(&self) -> Duration {
        let now = self.shared.clock.now();
        let due = self.working.next_due().map(|due| Duration::from_millis(due.0.saturating_sub(now.0)));
        due.map_or(IDLE, |due| due.clamp(Duration::from_millis(10), IDLE))
    }

    fn add_overdue(&mut self) {
        for (job, due) in self.working.overdue(self.shared.clock.now()) {
            self.queue.push_back((None, Command::Overdue(job, due)));
        }
    }

    fn turn(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let before = self.queue.len();
        self.commit.begin();
        // Those of the front are in the batch; on failure `turn` cannot hand their tickets back, so they
        // stay here, and the queue carries places.
        let mut tickets: Vec<Ticket> = Vec::with_capacity(before);
        let mut numbered = VecDeque::with_capacity(before);
        for (place, (ticket, command)) in self.queue.drain(..).enumerate() {
            tickets.push(ticket);
            numbered.push_back((place as u64, command));
        }
        let shared = Arc::clone(&self.shared);
        let (working, commit) = (&mut self.working, &mut self.commit);
        // A defect leaves `working` in doubt, which is replaced then, and the queue whole.
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            batch::turn(working, &mut numbered, || shared.env(), commit)
        }));
        if result.is_err() {
            // The command under decision is still at the front: it goes with its batch.
            numbered.pop_front();
        }
        let rest = tickets.split_off(before - numbered.len());
        self.queue.extend(rest.into_iter().zip(numbered.into_iter().map(|(_, command)| command)));
        let mut told = Failure::OutcomeUnknown;
        let cause = match result {
            Ok(Ok(outcomes)) => {
                self.defects = 0;
                self.measure(began, outcomes.len());
                self.settle(tickets, outcomes.into_iter().map(|(_, decided)| decided).collect());
                return Ok(());
            }
            Ok(Err(haar_store::Error::TooLarge { .. })) => {
                self.refuse_the_last(tickets);
                return Ok(());
            }
            Ok(Err(error)) => {
                if let haar_store::Error::Full { path } = &error {
                    told = Failure::Full { path: path.clone() };
                }
                chain(&error)
            }
            Err(_) => self.count_defect()?,
        };
        self.shared.metrics.commits_failed.inc();
        tracing::error!(cause, batch = tickets.len(), "commit failed; the store is read again");
        for ticket in tickets {
            self.answer(ticket, Err(told.clone()));
        }
        self.reload()
    }

    /// One change alone was more than a commit takes: it was the last of its batch, and nothing was written.
    fn refuse_the_last(&mut self, mut tickets: Vec<Ticket>) {
        self.working = self.shared.read(Clone::clone);
        let problem = "this change alone is more than the store takes at once; ask for less".to_owned();
        if let Some(last) = tickets.pop() {
            self.answer(last, Err(Failure::Refused(Refusal::BadField { field: "body", problem })));
        }
        for ticket in tickets {
            self.answer(ticket, Err(Failure::Overloaded));
        }
    }

    fn count_defect(&mut self) -> Result<String, String> {
        self.defects += 1;
        let text = "a defect showed while a batch was decided".to_owned();
        if self.defects < DEFECTS { Ok(text) } else { Err(text) }
    }

    /// Published, then answered, then acted on.
    fn settle(&mut self, tickets: Vec<Ticket>, outcomes: Vec<Decided>) {
        let decisions: Vec<&Decision> = outcomes.iter().flatten().collect();
        if decisions.iter().any(|decision| !decision.changes.is_empty()) {
            self.shared.write(|fleet| decisions.iter().for_each(|decision| fleet.apply(decision)));
            self.notice_settings(&decisions);
            self.shared.events.publish(self.commit.take_events());
        }
        let mut effects: Vec<Effect> =
            decisions.iter().flat_map(|decision| decision.effects.iter().copied()).collect();
        effects.sort_unstable();
        effects.dedup();
        for (ticket, decided) in tickets.into_iter().zip(outcomes) {
            self.answer(ticket, decided.map(|decision| decision.answer).map_err(Failure::Refused));
        }
        for effect in effects {
            match effect {
                Effect::WakeHypervisor(hypervisor) => self.shared.hypervisors.wake(hypervisor),
                Effect::WakeJob(job) => self.shared.jobs.wake(job),
            }
        }
    }

    /// Settings that the shell itself goes by.
    fn notice_settings(&self, decisions: &[&Decision]) {
        for change in decisions.iter().flat_map(|decision| &decision.changes) {
            match change {
                Change::Put(Record::Config(config)) => {
                    self.shared.liveness.set_ttl_ms(config.liveness_ttl_ms());
                }
                Change::Delete(Kind::Hypervisor, id) => self.shared.liveness.forget((*id).into()),
                _ => {}
            }
        }
    }

    fn answer(&self, ticket: Ticket, answer: Result<Answer, Failure>) {
        let Some(ticket) = ticket else { return };
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        // Whoever asked may have gone; what was decided stands.
        let _ = ticket.send(answer);
    }

    fn measure(&self, began: Instant, batch: usize) {
        let metrics = &self.shared.metrics;
        let deciding = match self.commit.last {
            Some((commit_began, took)) => {
                metrics.commit_seconds.observe(took.as_secs_f64());
                metrics.batch_size.observe(batch as f64);
                commit_began.duration_since(began)
            }
            None => began.elapsed(),
        };
        metrics.decide_seconds.observe(deciding.as_secs_f64() / batch.max(1) as f64);
    }

    fn reload(&mut self) -> Result<(), String> {
        self.shared.ready.store(false, Ordering::Relaxed);
        let mut tries = 1;
        let books = loop {
            match self.commit.reload(self.shared.clock.now()) {
                Ok(books) => break books,
                Err(error) if tries >= REOPENS => {
                    return Err(format!(
                        "the store cannot be read again after a failed commit: {}",
                        chain(&error)
                    ));
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), tries, "the store cannot be read yet; trying again");
                    tries += 1;
                    std::thread::sleep(REOPEN_PAUSE);
                }
            }
        };
        self.working = books.fleet.clone();
        self.shared.liveness.set_ttl_ms(books.fleet.config().liveness_ttl_ms());
        self.shared.write(|fleet| *fleet = books.fleet);
        self.shared.events.reload(books.ring);
        self.shared.ready.store(true, Ordering::Relaxed);
        self.shared.hypervisors.wake_all();
        self.shared.jobs.wake_all();
        tracing::info!(fence = %self.working.fence(), "the store was read again");
        Ok(())
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
