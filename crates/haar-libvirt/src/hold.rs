//! Guests that are held still, frozen or suspended, and let go in time.
//!
//! Promised: a guest is let go when its time is over, or at once when nobody knows whether it is held; that is tried
//! again until it goes on or is off. There is one timer for each guest: of the last call that held it. Each such guest
//! has a file in a folder, from before it is held on, so that what a killed process left held the next one lets go at its
//! start.
//! Deliberately absent: what somebody else holds, and what shall stay held until it is asked otherwise.
//!
//! Whoever calls [`Holds::arm`] or [`Holds::disarm`] has the guest's turn, and so has a timer while it lets a guest go:
//! they never meet.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use haar_api::rpc::{Fault, FaultCode};
use haar_subagents::kit;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use virt::connect::Connect;

use crate::connection::Pool;
use crate::{guest_agent, power};

/// When a guest is let go of which this process does not hear any more what became of the call that held it.
const UNHEARD: Duration = Duration::from_secs(300);
/// Before the second try; before each further one twice as long.
const AGAIN: Duration = Duration::from_secs(1);
/// But no longer than this.
const MOST_AGAIN: Duration = Duration::from_secs(30);
/// How long a guest is held at most.
pub(crate) const MOST_HELD: Duration = Duration::from_secs(60);

/// Why a guest writes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its file systems are frozen.
    Frozen,
    /// Its processors stand still.
    Suspended,
}

impl Kind {
    /// What the files' names end with.
    fn suffix(self) -> &'static str {
        match self {
            Kind::Frozen => ".frozen",
            Kind::Suspended => ".suspended",
        }
    }

    fn release(self) -> fn(&Connect, &str) -> Result<bool, Fault> {
        match self {
            Kind::Frozen => guest_agent::release,
            Kind::Suspended => power::release,
        }
    }
}

/// When a guest is to be let go after a call that may have held it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// It is not held any more.
    Never,
    /// When it was to be before the call, which has changed nothing.
    AsBefore,
    /// After so long; so many of its file systems are frozen.
    In(Duration, u32),
}

impl Due {
    /// Nobody knows whether it is held.
    pub(crate) const NOW: Due = Due::In(Duration::ZERO, 0);

    /// After a call that has failed.
    pub(crate) fn after(fault: &Fault) -> Due {
        match fault.code {
            // It has not begun.
            FaultCode::NotFound | FaultCode::Invalid | FaultCode::Conflict => Due::AsBefore,
            _ => Due::NOW,
        }
    }
}

/// After how long what is held is let go: an argument of a request, in seconds.
///
/// # Errors
/// `invalid` for what is no number of seconds up to 60.
pub(crate) fn limit(name: &str, text: Option<&String>) -> Result<Option<Duration>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let seconds = text.parse().ok().map(Duration::from_secs);
    match seconds.filter(|limit| (Duration::from_secs(1)..=MOST_HELD).contains(limit)) {
        Some(limit) => Ok(Some(limit)),
        None => {
            let most = MOST_HELD.as_secs();
            let message = format!("{name} is {text:?}: it must be from 1 to {most} seconds");
            Err(Fault::new(FaultCode::Invalid, message))
        }
    }
}

type Releasing = Pin<Box<dyn Future<Output = Result<bool, Fault>> + Send>>;

/// Lets the guest of that name go and keeps its turn as long as that takes; whether it is not held any more.
type Release = Box<dyn Fn(String, Arc<kit::Turn>) -> Releasing + Send + Sync>;

/// The timers of one kind. Clones share them.
#[derive(Clone)]
pub(crate) struct Holds(Arc<Shared>);

struct Shared {
    kind: Kind,
    folder: PathBuf,
    turns: kit::PerGuest,
    release: Release,
    held: Mutex<HashMap<String, Held>>,
}

struct Held {
    timer: AbortHandle,
    due: Instant,
    file_systems: u32,
}

/// What was known of a guest that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Before {
    /// How long it was to be held yet.
    pub(crate) left: Duration,
    /// How many of its file systems are frozen.
    pub(crate) file_systems: u32,
}

impl Holds {
    /// Without timers yet; the folder need not be there.
    pub(crate) fn new(kind: Kind, folder: PathBuf, turns: kit::PerGuest, pool: Pool) -> Holds {
        let release: Release = Box::new(move |name, turn| {
            let (pool, release) = (pool.clone(), kind.release());
            Box::pin(async move {
                pool.run(guest_agent::INSIDE, turn, move |connection| release(connection, &name)).await
            })
        });
        Holds::by(kind, folder, turns, release)
    }

    fn by(kind: Kind, folder: PathBuf, turns: kit::PerGuest, release: Release) -> Holds {
        Holds(Arc::new(Shared { kind, folder, turns, release, held: Mutex::default() }))
    }

    /// Does what may hold a guest, in its turn; what comes of it says when the guest is to be let go. `run` is told how
    /// many of its file systems were frozen, as far as that is known.
    ///
    /// # Errors
    /// `run`'s, and `unavailable` when the guest must not be held.
    pub(crate) async fn meanwhile<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        id: &str,
        run: impl FnOnce(u32) -> F,
        due: impl FnOnce(&Result<T, Fault>) -> Due,
    ) -> Result<T, Fault> {
        let before = self.arm(id, UNHEARD, 0)?;
        let known = before.map_or(0, |before| before.file_systems);
        let outcome = run(known).await;
        let held = match due(&outcome) {
            Due::Never => None,
            Due::AsBefore => before.map(|before| (before.left, known)),
            Due::In(after, file_systems) => Some((after, file_systems)),
        };
        match held {
            Some((after, file_systems)) => {
                self.arm(id, after, file_systems)?;
            }
            None => self.disarm(id),
        }
        outcome
    }

    /// Lets the guest, with so many frozen file systems, go after this long, and no more after what was said of it
    /// before, which is the answer.
    ///
    /// # Errors
    /// `unavailable` when its file cannot be made: then it must not be held.
    pub(crate) fn arm(&self, id: &str, after: Duration, file_systems: u32) -> Result<Option<Before>, Fault> {
        let file = self.file(id);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0.folder);
        made.and_then(|()| std::fs::write(&file, "")).map_err(|error| {
            let message =
                format!("{} cannot be made, and nothing is held without it: {error}", file.display());
            Fault::new(FaultCode::Unavailable, message)
        })?;
        Ok(self.start(id, after, file_systems))
    }

    /// The guest is not held, or shall stay so.
    pub(crate) fn disarm(&self, id: &str) {
        if let Some(held) = self.held().remove(id) {
            held.timer.abort();
        }
        self.remove_file(id);
    }

    /// Lets go what an earlier process left held.
    pub(crate) fn recover(&self) {
        let entries = std::fs::read_dir(&self.0.folder).into_iter().flatten();
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            if let Some(id) = name.strip_suffix(self.0.kind.suffix()) {
                tracing::info!(guest = id, held = ?self.0.kind, "may have been left so, is let go");
                self.start(id, Duration::ZERO, 0);
            }
        }
    }

    fn start(&self, id: &str, after: Duration, file_systems: u32) -> Option<Before> {
        let timer = tokio::spawn(self.clone().in_time(id.to_owned(), after)).abort_handle();
        let now = Instant::now();
        let before = self.held().insert(id.to_owned(), Held { timer, due: now + after, file_systems })?;
        before.timer.abort();
        let left = before.due.saturating_duration_since(now);
        Some(Before { left, file_systems: before.file_systems })
    }

    async fn in_time(self, id: String, after: Duration) {
        tokio::time::sleep(after).await;
        let (mut pause, mut is_news) = (AGAIN, true);
        loop {
            let turn = Arc::new(self.0.turns.turn(&id).await);
            match (self.0.release)(id.clone(), Arc::clone(&turn)).await {
                Ok(true) => {
                    self.held().remove(&id);
                    return self.remove_file(&id);
                }
                // Said once: a guest that has begun anew meanwhile may never have an agent again.
                Ok(false) if is_news => {
                    tracing::warn!(guest = id, held = ?self.0.kind, "may be held, and its agent does not answer; asked again");
                }
                Err(error) if is_news => {
                    tracing::warn!(guest = id, held = ?self.0.kind, %error, "may be held, and cannot be let go yet; tried again");
                }
                Ok(false) | Err(_) => {}
            }
            is_news = false;
            drop(turn);
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(MOST_AGAIN);
        }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.0.folder.join(format!("{id}{}", self.0.kind.suffix()))
    }

    fn remove_file(&self, id: &str) {
        match std::fs::remove_file(self.file(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                // It costs a look that is not needed, at the next start.
                tracing::warn!(guest = id, %error, "the file of a guest that is not held stays");
            }
            _ => {}
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        // Each step leaves it whole.
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tempfile::TempDir;

    use super::*;

    /// A guest; it is thawed well when nothing else is said.
    #[derive(Clone, Default)]
    struct Guest(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        released: Vec<Duration>,
        /// What comes of the next times.
        outcomes: VecDeque<Result<bool, Fault>>,
    }

    impl Guest {
        fn holds(&self, folder: &TempDir) -> Holds {
            let (guest, began) = (self.clone(), tokio::time::Instant::now());
            let release: Release = Box::new(move |_, _turn| {
                let mut state = guest.0.lock().unwrap();
                state.released.push(began.elapsed());
                let outcome = state.outcomes.pop_front().unwrap_or(Ok(true));
                Box::pin(std::future::ready(outcome))
            });
            Holds::by(Kind::Frozen, folder.path().join("frozen"), kit::per_guest(), release)
        }

        fn times(&self) -> Vec<u64> {
            self.0.lock().unwrap().released.iter().map(Duration::as_secs).collect()
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn files(folder: &TempDir) -> usize {
        std::fs::read_dir(folder.path().join("frozen")).unwrap().count()
    }

    // The clock stands still until all that is left to do is to wait.
    #[tokio::test(start_paused = true)]
    async fn a_timer_of_an_earlier_freeze_thaws_no_later_one() {
        let (folder, guest) = (tempfile::tempdir().unwrap(), Guest::default());
        let holds = guest.holds(&folder);
        assert_eq!(holds.arm("g", s(60), 1).unwrap(), None);
        tokio::time::sleep(s(30)).await;
        holds.disarm("g");
        assert_eq!(files(&folder), 0);
        assert_eq!(holds.arm("g", s(60), 2).unwrap(), None);
        tokio::time::sleep(s(20)).await;
        let before = holds.arm("g", s(60), 2).unwrap();
        assert_eq!(before, Some(Before { left: s(40), file_systems: 2 }), "there was one");
        tokio::time::sleep(s(59)).await;
        assert_eq!((guest.times(), files(&folder)), (vec![], 1));
        tokio::time::sleep(s(100)).await;
        assert_eq!((guest.times(), files(&folder)), (vec![110], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_cannot_be_thawed_is_asked_until_it_is() {
        let (folder, guest) = (tempfile::tempdir().unwrap(), Guest::default());
        let broken = Err(Fault::new(FaultCode::Unavailable, "libvirtd does not answer"));
        guest.0.lock().unwrap().outcomes = [Ok(false), broken, Ok(false)].into();
        let holds = guest.holds(&folder);
        holds.arm("g", s(10), 1).unwrap();
        tokio::time::sleep(s(16)).await;
        assert_eq!((guest.times(), files(&folder)), (vec![10, 11, 13], 1));
        tokio::time::sleep(s(1000)).await;
        assert_eq!((guest.times(), files(&folder)), (vec![10, 11, 13, 17], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_killed_process_left_frozen_is_thawed_by_the_next_one() {
        let (folder, guest) = (tempfile::tempdir().unwrap(), Guest::default());
        let (killed, next) = (guest.holds(&folder), guest.holds(&folder));
        killed.arm("a guest", s(60), 1).unwrap();
        killed.held()["a guest"].timer.abort();
        next.recover();
        tokio::time::sleep(s(100)).await;
        assert_eq!((guest.times(), files(&folder)), (vec![0], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_thawed_in_anothers_turn() {
        let (folder, guest) = (tempfile::tempdir().unwrap(), Guest::default());
        let holds = guest.holds(&folder);
        let turn = holds.0.turns.turn("g").await;
        holds.arm("g", s(1), 1).unwrap();
        tokio::time::sleep(s(50)).await;
        holds.arm("g", s(20), 1).unwrap();
        drop(turn);
        tokio::time::sleep(s(10)).await;
        assert!(guest.times().is_empty(), "{:?}", guest.times());
    }

    #[test]
    fn a_limit_is_a_number_of_seconds_up_to_a_minute() {
        let limit = |text: &str| super::limit("thaw_after_s", Some(&text.to_owned()));
        assert_eq!((limit("1").unwrap(), limit("60").unwrap()), (Some(s(1)), Some(s(60))));
        assert_eq!(super::limit("thaw_after_s", None).unwrap(), None);
        for wrong in ["0", "61", "-1", "soon", ""] {
            assert_eq!(limit(wrong).unwrap_err().code, FaultCode::Invalid, "{wrong}");
        }
    }

    #[tokio::test]
    async fn without_its_file_a_guest_must_not_be_frozen() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("frozen"), "").unwrap();
        let refused = Guest::default().holds(&folder).arm("g", s(60), 1).unwrap_err();
        assert_eq!(refused.code, FaultCode::Unavailable);
    }
}
