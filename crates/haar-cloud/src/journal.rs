//! How a provider notes what it makes: before it exists, and with its id as soon as there is one.
//!
//! [`Journal::make`] is the one way to make anything in a cloud. If the process ends between the note and
//! the id, the record has an entry that may exist, and its name. If the cloud clearly said no to the first
//! try, the note is taken back; after any other failure it stays, because nobody knows. The disk is touched on threads for
//! blocking work.

use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::state::{Entry, EntryId, Kind, Record, Store};
use crate::{Class, Error, Result};

/// The notes of one deployment.
#[derive(Debug, Clone)]
pub struct Journal {
    store: Arc<Store>,
    /// One at a time: a hundred spawns would otherwise be a hundred threads that try for the lock.
    turn: Arc<Mutex<()>>,
}

impl Journal {
    /// The notes in `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store: Arc::new(store), turn: Arc::default() }
    }

    /// Where they are kept.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes one thing: notes that it is about to be, asks for it by `create`, and notes the id it gives.
    ///
    /// # Errors
    /// What `create` fails with, and [`Error::State`] when the note cannot be written; then nothing was
    /// asked.
    pub async fn make<F>(&self, kind: Kind, name: &str, create: F) -> Result<(EntryId, String)>
    where
        F: Future<Output = Result<String>>,
    {
        let (entry, is_new) = self.plan_anew(kind, name).await?;
        match create.await {
            Ok(id) => {
                self.made(entry, &id).await?;
                Ok((entry, id))
            }
            Err(error) => {
                // A note of an earlier try stays: that one may have made it.
                if is_new && is_refusal(&error) {
                    self.gone(entry).await?;
                }
                Err(error)
            }
        }
    }

    /// Notes that something is about to be made.
    ///
    /// # Errors
    /// [`Error::State`]; a deployment that is being torn down takes nothing new.
    pub async fn plan(&self, kind: Kind, name: &str) -> Result<EntryId> {
        let name = name.to_owned();
        self.change(move |record| record.plan(kind, &name, Timestamp::now())).await
    }

    /// As [`Self::plan`], and whether there was no such entry before.
    async fn plan_anew(&self, kind: Kind, name: &str) -> Result<(EntryId, bool)> {
        let name = name.to_owned();
        self.change(move |record| {
            let is_new = record.find(kind, &name).is_none();
            Ok((record.plan(kind, &name, Timestamp::now())?, is_new))
        })
        .await
    }

    /// Notes the id of what was planned.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn made(&self, entry: EntryId, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.change(move |record| record.made(entry, &id)).await
    }

    /// Notes something that was found, is used, and is not ours.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn reuse(&self, kind: Kind, name: &str, id: &str) -> Result<EntryId> {
        let (name, id) = (name.to_owned(), id.to_owned());
        self.change(move |record| record.reuse(kind, &name, &id, Timestamp::now())).await
    }

    /// Notes that something is not there, or no longer.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn gone(&self, entry: EntryId) -> Result<()> {
        self.change(move |record| {
            record.gone(entry);
            Ok(())
        })
        .await
    }

    /// The entry of a kind with this name, if there is one.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn find(&self, kind: Kind, name: &str) -> Result<Option<Entry>> {
        let name = name.to_owned();
        self.on_disk(move |store| Ok(store.load()?.and_then(|record| record.find(kind, &name).cloned())))
            .await
    }

    /// Changes the record as it is on disk at that moment.
    ///
    /// # Errors
    /// What `change` refuses with, and [`Error::State`].
    pub async fn change<T, F>(&self, change: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Record) -> Result<T> + Send + 'static,
    {
        self.on_disk(move |store| store.change(change)).await
    }

    /// Does something with the files, on a thread that may block.
    ///
    /// # Errors
    /// What `work` fails with.
    pub async fn on_disk<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Store) -> Result<T> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let turn = Arc::clone(&self.turn).lock_owned().await;
        // The turn ends with the work, also when the caller has gone.
        let work = move || {
            let answer = work(&store);
            drop(turn);
            answer
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|cut_off| {
            std::panic::resume_unwind(cut_off.try_into_panic().unwrap_or_else(|cut_off| Box::new(cut_off)))
        })
    }
}

/// Whether the cloud clearly did not make it.
fn is_refusal(error: &Error) -> bool {
    !matches!(error.class(), Class::Transient | Class::Timeout | Class::Cancelled | Class::State)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ResourceName;

    async fn journal(folder: &tempfile::TempDir) -> Journal {
        let store = Store::new(folder.path(), "fake", &ResourceName::parse("a").unwrap()).unwrap();
        store.begin(Timestamp::UNIX_EPOCH).unwrap();
        Journal::new(store)
    }

    fn entries(journal: &Journal) -> Vec<String> {
        journal.store().load().unwrap().unwrap().entries().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn what_is_being_made_is_on_record_before_the_cloud_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder).await;
        let create = async {
            assert_eq!(entries(&journal), ["network a (no id yet)"]);
            Ok("7".to_owned())
        };
        let (_, id) = journal.make(Kind::Network, "a", create).await.unwrap();
        assert_eq!((id.as_str(), entries(&journal)), ("7", vec!["network a (7)".to_owned()]));
    }

    #[tokio::test]
    async fn a_clear_no_takes_the_note_back_and_a_doubtful_answer_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder).await;
        let no = async { Err(Error::NoHardware { message: "full".to_owned() }) };
        journal.make(Kind::Server, "s", no).await.unwrap_err();
        assert!(entries(&journal).is_empty());
        let doubt = async {
            Err(Error::Transient { what: "s".to_owned(), message: "reset".to_owned(), retry_after: None })
        };
        journal.make(Kind::Server, "s", doubt).await.unwrap_err();
        assert_eq!(entries(&journal), ["server s (no id yet)"]);
        let no = async { Err(Error::NoHardware { message: "full".to_owned() }) };
        journal.make(Kind::Server, "s", no).await.unwrap_err();
        assert_eq!(entries(&journal), ["server s (no id yet)"], "the first try may have made it");
    }

    #[tokio::test]
    async fn a_maker_that_is_dropped_leaves_its_note() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder).await;
        let never = std::future::pending();
        tokio::select! {
            biased;
            _ = journal.make(Kind::Server, "s", never) => unreachable!("it never ends"),
            () = async { while entries(&journal).is_empty() { tokio::task::yield_now().await } } => {}
        }
        assert_eq!(entries(&journal), ["server s (no id yet)"]);
    }
}
