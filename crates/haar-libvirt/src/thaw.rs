//! Guests whose file systems may be frozen, and their thaw in time.
//!
//! Promised: a guest is thawed when its time is over, or at once when nobody knows whether it was frozen; it is asked
//! again until it answers or is off. There is one timer for each guest: of the last freeze. Each such guest has a file
//! in a folder, from before the freeze on, so that what a killed process left frozen the next one thaws at its start.
//! Deliberately absent: what somebody else has frozen.
//!
//! Whoever calls [`Thaws::arm`] or [`Thaws::disarm`] has the guest's turn, and so has a timer while it thaws: they
//! never meet.

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

use crate::connection::Pool;
use crate::guest_agent;

/// Before the second try; before each further one twice as long.
const AGAIN: Duration = Duration::from_secs(1);
/// But no longer than this.
const MOST_AGAIN: Duration = Duration::from_secs(30);
/// What a file's name ends with.
const SUFFIX: &str = ".frozen";

type Thawing = Pin<Box<dyn Future<Output = Result<bool, Fault>> + Send>>;

/// Thaws the guest of that name and keeps its turn as long as that takes; whether it is not frozen any more.
type Thaw = Box<dyn Fn(String, Arc<kit::Turn>) -> Thawing + Send + Sync>;

/// The timers. Clones share them.
#[derive(Clone)]
pub(crate) struct Thaws(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    turns: kit::PerGuest,
    thaw: Thaw,
    timers: Mutex<HashMap<String, AbortHandle>>,
}

impl Thaws {
    /// Without timers yet; the folder need not be there.
    pub(crate) fn new(folder: PathBuf, turns: kit::PerGuest, pool: Pool) -> Thaws {
        let thaw: Thaw = Box::new(move |name, turn| {
            let pool = pool.clone();
            Box::pin(async move {
                pool.run(guest_agent::INSIDE, turn, move |connection| guest_agent::release(connection, &name))
                    .await
            })
        });
        Thaws::by(folder, turns, thaw)
    }

    fn by(folder: PathBuf, turns: kit::PerGuest, thaw: Thaw) -> Thaws {
        Thaws(Arc::new(Shared { folder, turns, thaw, timers: Mutex::default() }))
    }

    /// Thaws the guest after this long, and no more after what was said of it before. Whether there was a timer.
    ///
    /// # Errors
    /// `unavailable` when its file cannot be made: then it must not be frozen.
    pub(crate) fn arm(&self, id: &str, after: Duration) -> Result<bool, Fault> {
        let file = self.file(id);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0.folder);
        made.and_then(|()| std::fs::write(&file, "")).map_err(|error| {
            let message =
                format!("{} cannot be made, and nothing is frozen without it: {error}", file.display());
            Fault::new(FaultCode::Unavailable, message)
        })?;
        Ok(self.start(id, after))
    }

    /// The guest is not frozen.
    pub(crate) fn disarm(&self, id: &str) {
        if let Some(timer) = self.timers().remove(id) {
            timer.abort();
        }
        self.remove_file(id);
    }

    /// Thaws what an earlier process left frozen.
    pub(crate) fn recover(&self) {
        let entries = std::fs::read_dir(&self.0.folder).into_iter().flatten();
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            if let Some(id) = name.strip_suffix(SUFFIX) {
                tracing::info!(guest = id, "may have been left frozen, is thawed");
                self.start(id, Duration::ZERO);
            }
        }
    }

    fn start(&self, id: &str, after: Duration) -> bool {
        let timer = tokio::spawn(self.clone().in_time(id.to_owned(), after)).abort_handle();
        let before = self.timers().insert(id.to_owned(), timer);
        before.inspect(AbortHandle::abort).is_some()
    }

    async fn in_time(self, id: String, after: Duration) {
        tokio::time::sleep(after).await;
        let (mut pause, mut is_news) = (AGAIN, true);
        loop {
            let turn = Arc::new(self.0.turns.turn(&id).await);
            match (self.0.thaw)(id.clone(), Arc::clone(&turn)).await {
                Ok(true) => {
                    self.timers().remove(&id);
                    return self.remove_file(&id);
                }
                // Said once: a guest that has begun anew meanwhile may never have an agent again.
                Ok(false) if is_news => {
                    tracing::warn!(guest = id, "may be frozen, and its agent does not answer; asked again");
                }
                Err(error) if is_news => {
                    tracing::warn!(guest = id, %error, "may be frozen, and cannot be thawed yet; tried again");
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
        self.0.folder.join(format!("{id}{SUFFIX}"))
    }

    fn remove_file(&self, id: &str) {
        match std::fs::remove_file(self.file(id)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                // It costs a thaw that is not needed, at the next start.
                tracing::warn!(guest = id, %error, "the file of a guest that is not frozen stays");
            }
            _ => {}
        }
    }

    fn timers(&self) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
        // Each step leaves it whole.
        self.0.timers.lock().unwrap_or_else(PoisonError::into_inner)
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
        thawed: Vec<Duration>,
        /// What comes of the next times.
        outcomes: VecDeque<Result<bool, Fault>>,
    }

    impl Guest {
        fn thaws(&self, folder: &TempDir) -> Thaws {
            let (guest, began) = (self.clone(), tokio::time::Instant::now());
            let thaw: Thaw = Box::new(move |_, _turn| {
                let mut state = guest.0.lock().unwrap();
                state.thawed.push(began.elapsed());
                let outcome = state.outcomes.pop_front().unwrap_or(Ok(true));
                Box::pin(std::future::ready(outcome))
            });
            Thaws::by(folder.path().join("frozen"), kit::per_guest(), thaw)
        }

        fn times(&self) -> Vec<u64> {
            self.0.lock().unwrap().thawed.iter().map(Duration::as_secs).collect()
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
        let thaws = guest.thaws(&folder);
        assert!(!thaws.arm("g", s(60)).unwrap());
        tokio::time::sleep(s(30)).await;
        thaws.disarm("g");
        assert_eq!(files(&folder), 0);
        assert!(!thaws.arm("g", s(60)).unwrap());
        tokio::time::sleep(s(20)).await;
        assert!(thaws.arm("g", s(60)).unwrap(), "there was one");
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
        let thaws = guest.thaws(&folder);
        thaws.arm("g", s(10)).unwrap();
        tokio::time::sleep(s(16)).await;
        assert_eq!((guest.times(), files(&folder)), (vec![10, 11, 13], 1));
        tokio::time::sleep(s(1000)).await;
        assert_eq!((guest.times(), files(&folder)), (vec![10, 11, 13, 17], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_killed_process_left_frozen_is_thawed_by_the_next_one() {
        let (folder, guest) = (tempfile::tempdir().unwrap(), Guest::default());
        let (killed, next) = (guest.thaws(&folder), guest.thaws(&folder));
        killed.arm("a guest", s(60)).unwrap();
        killed.timers()["a guest"].abort();
        next.recover();
        tokio::time::sleep(s(100)).await;
        assert_eq!((guest.times(), files(&folder)), (vec![0], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_thawed_in_anothers_turn() {
        let (folder, guest) = (tempfile::tempdir().unwrap(), Guest::default());
        let thaws = guest.thaws(&folder);
        let turn = thaws.0.turns.turn("g").await;
        thaws.arm("g", s(1)).unwrap();
        tokio::time::sleep(s(50)).await;
        thaws.arm("g", s(20)).unwrap();
        drop(turn);
        tokio::time::sleep(s(10)).await;
        assert!(guest.times().is_empty(), "{:?}", guest.times());
    }

    #[tokio::test]
    async fn without_its_file_a_guest_must_not_be_frozen() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("frozen"), "").unwrap();
        let refused = Guest::default().thaws(&folder).arm("g", s(60)).unwrap_err();
        assert_eq!(refused.code, FaultCode::Unavailable);
    }
}
