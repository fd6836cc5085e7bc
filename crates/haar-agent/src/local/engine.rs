//! The engine of the REST: one thread owns the runners and their store; what waits is decided together and made
//! durable in one commit, and only then answered and acted on.

use std::time::{SystemTime, UNIX_EPOCH};

use haar_core::fence::WallMs;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::runners::{Answer, Call, Change, Env, Input, Refused, Runners};
use super::store::{self, Store};

/// Inputs that may wait; whoever gives more waits.
const QUEUE: usize = 1024;
/// Inputs of one commit.
const BATCH: usize = 256;

/// A handle to the engine; the engine ends when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Engine {
    sender: mpsc::Sender<Message>,
}

type Reading = Box<dyn FnOnce(&Runners) + Send>;

enum Message {
    Input(Box<Input>, Option<oneshot::Sender<Result<Answer, Refused>>>),
    Read(Reading),
}

/// What is done once a batch is durable.
enum After {
    Answer(oneshot::Sender<Result<Answer, Refused>>, Result<Answer, Refused>),
    Read(Reading),
}

/// The engine has ended, because the agent stops or its store failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping, or its store failed; its log says which")]
pub(crate) struct Stopped;

impl Engine {
    /// Starts the engine's thread. It answers with its end: an error when the store failed for good.
    pub(crate) fn start(
        runners: Runners,
        store: Store,
        calls: mpsc::UnboundedSender<Call>,
    ) -> (Engine, JoinHandle<Result<(), store::Error>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let owner = Owner { runners, store, calls };
        (Engine { sender }, tokio::task::spawn_blocking(move || owner.run(receiver)))
    }

    /// Gives an input without waiting for what becomes of it.
    pub(crate) async fn give(&self, input: Input) -> Result<(), Stopped> {
        self.sender.send(Message::Input(Box::new(input), None)).await.map_err(|_| Stopped)
    }

    /// Gives an input and waits until it is durable or refused.
    pub(crate) async fn submit(&self, input: Input) -> Result<Result<Answer, Refused>, Stopped> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Input(Box::new(input), Some(answer));
        self.sender.send(message).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Reads what is durable, as of all inputs given before.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Runners) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        let reading: Reading = Box::new(move |runners| {
            // Whoever asked may have gone away.
            let _ = answer.send(read(runners));
        });
        self.sender.send(Message::Read(reading)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}

struct Owner {
    runners: Runners,
    store: Store,
    calls: mpsc::UnboundedSender<Call>,
}

impl Owner {
    fn run(mut self, mut messages: mpsc::Receiver<Message>) -> Result<(), store::Error> {
        while let Some(first) = messages.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH
                && let Ok(more) = messages.try_recv()
            {
                batch.push(more);
            }
            self.turn(batch)?;
        }
        Ok(())
    }

    /// decide and apply, one after the other; commit the lot; answer, read and act.
    fn turn(&mut self, batch: Vec<Message>) -> Result<(), store::Error> {
        let env = Env { now: now() };
        let (mut changes, mut calls, mut after): (Vec<Change>, Vec<Call>, Vec<After>) = Default::default();
        for message in batch {
            match message {
                Message::Read(read) => after.push(After::Read(read)),
                Message::Input(input, answer) => {
                    let decided = self.runners.decide(*input, &env).map(|decision| {
                        changes.extend_from_slice(&decision.changes);
                        calls.extend(decision.calls);
                        self.runners.apply(decision.changes);
                        decision.answer
                    });
                    after.extend(answer.map(|answer| After::Answer(answer, decided)));
                }
            }
        }
        // A failure ends the thread: what was applied above and is not durable is seen by nobody.
        self.store.commit(&changes)?;
        for after in after {
            match after {
                // Whoever asked may have gone away.
                After::Answer(sender, answer) => drop(sender.send(answer)),
                After::Read(read) => read(&self.runners),
            }
        }
        for call in calls {
            // Nobody calls any more when the agent stops; the job goes on after its next start.
            let _ = self.calls.send(call);
        }
        Ok(())
    }
}

/// Now, for labels.
pub(crate) fn now() -> WallMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
