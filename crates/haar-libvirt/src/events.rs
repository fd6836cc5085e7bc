//! What happened to domains, as libvirt tells it: a journal that callers wait at (`Libvirt.Changes`).
//!
//! ```text
//!  libvirt ──event──▶ journal ──▶ whoever waits with an older cursor
//!  connection lost ──▶ journal: everything may have changed
//! ```
//! Promised: whatever happens after a cursor was given is told to the next question with it, or `all` is said. An
//! event only says "look at this one": what is so, `Status` and `List` tell.
//! Deliberately absent: events kept beyond this process; its cursors are worth nothing to the next one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use haar_api::rpc::libvirt::{Change, ChangesRequest, ChangesResponse};
use tokio::sync::watch;
use virt::connect::Connect;
use virt_sys as sys;

use crate::connection::Pool;
use crate::ffi::{self, Happened, Told};

/// Events kept; whoever is further behind looks at everything.
const KEPT: usize = 1024;
/// Between two looks whether the connection lives, and between two tries to connect.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The longest a question may wait.
const MOST_WAIT: Duration = Duration::from_secs(60);

/// The journal. Clones share it.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Shared>);

struct Shared {
    /// Tells this process's cursors from another's.
    epoch: String,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    newest: u64,
    /// Nothing older than this can be told.
    oldest: u64,
    changes: VecDeque<(u64, Change)>,
}

impl Journal {
    /// An empty one.
    pub(crate) fn new() -> Journal {
        let epoch = uuid::Uuid::new_v4().simple().to_string();
        Journal(Arc::new(Shared { epoch, kept: Mutex::default(), newest: watch::Sender::new(0) }))
    }

    /// Fills it from libvirt's events, for as long as this is awaited; the connection is one of its own.
    pub(crate) async fn follow(self, pool: Pool) {
        let mut was_heard = true;
        loop {
            let (journal, opening) = (self.clone(), pool.clone());
            let opened = tokio::task::spawn_blocking(move || listen(&opening, &journal)).await;
            match opened {
                Ok(Ok(connection)) => {
                    was_heard = true;
                    // What happened before is nobody's to tell.
                    self.lose();
                    self.until_dead(connection).await;
                    tracing::warn!("the connection that tells of events is lost, made anew");
                }
                Ok(Err(why)) if was_heard => {
                    was_heard = false;
                    tracing::warn!(why, "libvirt's events are not heard; tried again");
                }
                Ok(Err(_)) | Err(_) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn until_dead(&self, connection: Connect) {
        let mut connection = connection;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = tokio::task::spawn_blocking(move || {
                let is_alive = connection.is_alive().unwrap_or(false);
                (connection, is_alive)
            });
            match looked.await {
                Ok((back, true)) => connection = back,
                Ok((_, false)) | Err(_) => return self.lose(),
            }
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Each step leaves it whole.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, id: &str, what: &'static str) {
        let mut kept = self.kept();
        kept.newest += 1;
        let number = kept.newest;
        kept.changes.push_back((number, Change { id: id.to_owned(), what: what.to_owned() }));
        if kept.changes.len() > KEPT {
            kept.changes.pop_front();
            kept.oldest = number - KEPT as u64;
        }
        drop(kept);
        self.wake(number);
    }

    /// Events may have been lost.
    fn lose(&self) {
        let mut kept = self.kept();
        kept.newest += 1;
        kept.oldest = kept.newest;
        kept.changes.clear();
        let newest = kept.newest;
        drop(kept);
        self.wake(newest);
    }

    fn wake(&self, newest: u64) {
        // Closed stays closed.
        self.0.newest.send_if_modified(|told| {
            let is_news = newest > *told;
            *told = newest.max(*told);
            is_news
        });
    }

    /// Lets nobody wait any more.
    pub(crate) fn close(&self) {
        self.0.newest.send_replace(u64::MAX);
    }

    /// What happened after the cursor; waits for it if there is nothing yet.
    pub(crate) async fn changes(&self, request: &ChangesRequest) -> ChangesResponse {
        let since = self.place(&request.cursor);
        let mut newest = self.0.newest.subscribe();
        let wait = Duration::from_secs(request.wait_s.into()).min(MOST_WAIT);
        if let Some(since) = since {
            // Time over, or the journal's end: both are told as they are.
            let _ = tokio::time::timeout(wait, newest.wait_for(|newest| *newest > since)).await;
        }
        let kept = self.kept();
        let all = since.is_none_or(|since| since < kept.oldest);
        let after =
            kept.changes.iter().filter(|(number, _)| !all && since.is_some_and(|since| *number > since));
        let changes = after.map(|(_, change)| change.clone()).collect();
        ChangesResponse { cursor: format!("{}.{}", self.0.epoch, kept.newest), all, changes }
    }

    /// None for what is not a cursor of this journal.
    fn place(&self, cursor: &str) -> Option<u64> {
        let (epoch, number) = cursor.split_once('.')?;
        let number = number.parse().ok()?;
        (epoch == self.0.epoch && number <= self.kept().newest).then_some(number)
    }
}

fn listen(pool: &Pool, journal: &Journal) -> Result<Connect, String> {
    let connection = pool.open().map_err(|fault| fault.to_string())?;
    let journal = journal.clone();
    let told: Arc<Told> = Arc::new(move |name: &str, happened: Happened| journal.note(name, word(happened)));
    ffi::on_changes(&connection, &told).map_err(|error| error.message().to_owned())?;
    Ok(connection)
}

fn word(happened: Happened) -> &'static str {
    let Happened::Lifecycle(number) = happened else { return "reset" };
    // Numbers that are not negative.
    match u32::try_from(number).unwrap_or(u32::MAX) {
        sys::VIR_DOMAIN_EVENT_DEFINED => "defined",
        sys::VIR_DOMAIN_EVENT_UNDEFINED => "undefined",
        sys::VIR_DOMAIN_EVENT_STARTED => "started",
        sys::VIR_DOMAIN_EVENT_SUSPENDED => "suspended",
        sys::VIR_DOMAIN_EVENT_RESUMED => "resumed",
        sys::VIR_DOMAIN_EVENT_STOPPED => "stopped",
        sys::VIR_DOMAIN_EVENT_SHUTDOWN => "shutdown",
        sys::VIR_DOMAIN_EVENT_PMSUSPENDED => "pmsuspended",
        sys::VIR_DOMAIN_EVENT_CRASHED => "crashed",
        _ => "changed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The names in an answer, each once.
    fn names(response: &ChangesResponse) -> BTreeSet<&str> {
        response.changes.iter().map(|change| change.id.as_str()).collect()
    }

    async fn ask(journal: &Journal, cursor: &str) -> ChangesResponse {
        journal.changes(&ChangesRequest { cursor: cursor.into(), wait_s: 0 }).await
    }

    #[tokio::test]
    async fn what_happened_is_told_once_to_each_cursor() {
        let journal = Journal::new();
        let first = ask(&journal, "").await;
        assert!(first.all, "nobody knows what was before");
        assert_eq!(ask(&journal, &first.cursor).await, ChangesResponse { all: false, ..first.clone() });
        journal.note("a", "started");
        journal.note("b", "stopped");
        let second = ask(&journal, &first.cursor).await;
        assert_eq!((second.all, names(&second)), (false, ["a", "b"].into()));
        assert_eq!(ask(&journal, &second.cursor).await.changes, []);
        assert_eq!(
            ask(&journal, &first.cursor).await,
            second,
            "an answer that was lost can be asked for again"
        );
    }

    #[tokio::test]
    async fn who_cannot_be_told_is_told_to_look_at_everything() {
        let journal = Journal::new();
        let first = ask(&journal, "").await.cursor;
        for _ in 0..=KEPT {
            journal.note("a", "started");
        }
        assert!(ask(&journal, &first).await.all);
        let now = ask(&journal, "").await.cursor;
        journal.lose();
        assert!(ask(&journal, &now).await.all);
        let own = ask(&journal, "").await.cursor;
        for foreign in
            [Journal::new().changes(&ChangesRequest::default()).await.cursor, format!("{own}9"), "x".into()]
        {
            assert!(ask(&journal, &foreign).await.all, "{foreign}");
        }
    }

    #[tokio::test]
    async fn a_question_waits_for_what_happens() {
        let journal = Journal::new();
        let cursor = ask(&journal, "").await.cursor;
        let waiting = journal.clone();
        let asked =
            tokio::spawn(async move { waiting.changes(&ChangesRequest { cursor, wait_s: 60 }).await });
        journal.note("a", "crashed");
        assert_eq!(asked.await.unwrap().changes, [Change { id: "a".into(), what: "crashed".into() }]);
    }
}
