//! The record of what a deployment made: one file that is always whole, shared by processes.
//!
//! Beneath a folder each deployment has `PROVIDER.NAME.json` with its [`Record`], beside it
//! `PROVIDER.NAME.secrets.json` with its [`Secrets`], and `PROVIDER.NAME.lock`. All are for their owner
//! alone, also when a looser file was there before. A change is made under the lock, from what is on disk
//! at that moment, and replaces the file in one step once it is safely written: two processes never lose
//! each other's servers, and a process that is killed leaves the old content or the new.
//!
//! The way of a caller is write-ahead: note "about to create", create, note the id.
//! [`Record::plan`] and [`Record::made`] are these notes. Whatever is planned and has no id after a crash
//! may exist, and [`Record::unsettled`] names it.
//!
//! A record is of one cloud, region and project; with the login to another it is refused, so that nothing is
//! ever taken for gone because it was looked for elsewhere.
//!
//! The lock is held for a moment, never while a cloud is asked. A file that is damaged, or from a newer
//! version, is refused and left as it is. All this blocks on the disk; an async caller puts it on a thread
//! for blocking work.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::Result;
use crate::name::{DeploymentId, ResourceName};

mod entry;
mod error;
mod file;
mod folder;
mod record;
mod secrets;

pub use entry::{Entry, EntryId, Kind, Phase, PreparedServer, ServerDetails};
pub use error::Error;
pub use folder::folder_of;
pub use record::Record;
pub use secrets::Secrets;

/// The version of both files that this crate writes.
pub const VERSION: u32 = 1;

/// The files of one deployment.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    provider: String,
    name: ResourceName,
    place: Option<String>,
}

impl Store {
    /// The files of a deployment beneath `folder`. Nothing is touched yet.
    ///
    /// # Errors
    /// [`crate::Error::BadInput`] for a provider whose name could lead out of the folder.
    pub fn new(folder: impl Into<PathBuf>, provider: &str, name: &ResourceName) -> Result<Self> {
        if provider.is_empty() || !provider.chars().all(|sign| sign.is_ascii_alphanumeric() || sign == '-') {
            return Err(crate::Error::BadInput {
                what: "the provider's name",
                value: provider.to_owned(),
                why: "only letters, digits and hyphens may be in it".to_owned(),
            });
        }
        Ok(Self { folder: folder.into(), provider: provider.to_owned(), name: name.clone(), place: None })
    }

    /// The same for one place alone; see [`Provider::place`](crate::Provider::place). A record of another place is
    /// refused, and a new one bears it.
    #[must_use]
    pub fn at(self, place: Option<String>) -> Self {
        Self { place, ..self }
    }

    /// The file of the record.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.file("json")
    }

    /// The file of the secrets.
    #[must_use]
    pub fn secrets_path(&self) -> PathBuf {
        self.file("secrets.json")
    }

    /// The record, if there is one.
    ///
    /// # Errors
    /// [`Error`], if the file is damaged, newer, or cannot be read.
    pub fn load(&self) -> Result<Option<Record>> {
        let record: Option<Record> = file::read(&self.path())?;
        if let Some(record) = &record {
            self.check(record)?;
        }
        Ok(record)
    }

    /// The record; a new one, already on disk, if there was none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn begin(&self, now: Timestamp) -> Result<Record> {
        self.begin_as(DeploymentId::random(), now)
    }

    /// As [`Self::begin`]; a new record is of the deployment with this id, for one whose record was lost.
    ///
    /// # Errors
    /// [`Error`].
    pub fn begin_as(&self, deployment: DeploymentId, now: Timestamp) -> Result<Record> {
        let _lock = self.lock()?;
        if let Some(record) = self.load()? {
            return Ok(record);
        }
        let mut record = Record::new(&self.provider, &self.name, deployment, now);
        if let Some(place) = &self.place {
            record.set_place(place);
        }
        file::write(&self.path(), &record)?;
        Ok(record)
    }

    /// Changes the record as it is on disk now. When this returns well, the change will be there after a
    /// crash; when `change` refuses, nothing is written.
    ///
    /// # Errors
    /// What `change` refuses with, [`Error::Absent`] without a record, and what the disk says.
    pub fn change<T>(&self, change: impl FnOnce(&mut Record) -> Result<T>) -> Result<T> {
        let _lock = self.lock()?;
        let absent = || Error::Absent { path: self.path(), name: self.name.to_string() };
        let mut record = self.load()?.ok_or_else(absent)?;
        let answer = change(&mut record)?;
        file::write(&self.path(), &record)?;
        Ok(answer)
    }

    /// The secrets; none if there is no file of them.
    ///
    /// # Errors
    /// [`Error`].
    pub fn secrets(&self) -> Result<Secrets> {
        Ok(file::read(&self.secrets_path())?.unwrap_or_default())
    }

    /// Changes the secrets as they are on disk now; as safe as [`Self::change`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn change_secrets<T>(&self, change: impl FnOnce(&mut Secrets) -> T) -> Result<T> {
        let _lock = self.lock()?;
        let mut secrets = self.secrets()?;
        let answer = change(&mut secrets);
        file::write(&self.secrets_path(), &secrets)?;
        Ok(answer)
    }

    /// Takes a deployment for oneself, for as long as its networks are made or torn down: of two at once,
    /// both would make each thing. Spawning needs it not. Goes with the value, and with the process.
    ///
    /// # Errors
    /// [`Error::Busy`], at once, while another has it.
    pub fn exclusive(&self) -> Result<Exclusive> {
        let lock = file::try_lock(&self.folder, &self.file("deploy.lock"))?;
        let busy = || Error::Busy { name: self.name.to_string() };
        Ok(Exclusive { _lock: lock.ok_or_else(busy)? })
    }

    /// Removes all files of a deployment of which nothing is left. What is not there is no fault.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] while something is on record.
    pub fn remove(&self) -> Result<()> {
        let lock = self.lock()?;
        if let Some(record) = self.load()?.filter(|record| !record.is_empty()) {
            let left = record.entries().map(Entry::to_string).collect();
            return Err(Error::NotEmpty { path: self.path(), left }.into());
        }
        // The secrets last: a record without its key could no longer be used.
        file::remove(&self.path())?;
        file::remove(&self.secrets_path())?;
        // Whoever still has the deployment for itself has a file that nobody else will open.
        file::remove(&self.file("deploy.lock"))?;
        lock.remove()?;
        Ok(())
    }

    fn lock(&self) -> Result<file::Lock> {
        Ok(file::lock(&self.folder, &self.file("lock"))?)
    }

    /// A file that was copied under another name would lead to the wrong things being destroyed.
    fn check(&self, record: &Record) -> Result<(), Error> {
        if record.provider() != self.provider || *record.name() != self.name {
            let found = format!("{}.{}", record.provider(), record.name());
            return Err(Error::Foreign { path: self.path(), found });
        }
        if let (Some(of), Some(here)) = (record.place(), &self.place)
            && of != here
        {
            let (of, here) = (of.to_owned(), here.clone());
            return Err(Error::Elsewhere { path: self.path(), of, here });
        }
        match record.damage() {
            Some(why) => Err(Error::Damaged { path: self.path(), why }),
            None => Ok(()),
        }
    }

    fn file(&self, ending: &str) -> PathBuf {
        Path::new(&self.folder).join(format!("{}.{}.{ending}", self.provider, self.name))
    }
}

/// A deployment that nobody else makes or tears down as long as this value lives.
#[derive(Debug)]
#[must_use]
pub struct Exclusive {
    _lock: file::Lock,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store(folder: &tempfile::TempDir) -> Store {
        Store::new(folder.path().join("new"), "openstack", &ResourceName::parse("a b").unwrap()).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn message(result: Result<Option<Record>>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let name = ResourceName::parse("a").unwrap();
        for provider in ["", "../x", "a/b", "a.b"] {
            assert!(Store::new("/tmp", provider, &name).is_err(), "{provider}");
        }
    }

    #[test]
    fn without_a_deployment_there_is_nothing_to_change_and_the_message_says_deploy() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        assert!(store.load().unwrap().is_none());
        let error = store.change(|_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("a b") && error.contains("deploy"), "{error}");
    }

    #[test]
    fn a_deployment_keeps_the_id_it_began_with() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let first = store.begin(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(store.begin(Timestamp::UNIX_EPOCH).unwrap().deployment(), first.deployment());
    }

    #[test]
    fn a_looser_file_is_closed_by_the_next_look_and_by_the_next_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        store.begin(Timestamp::UNIX_EPOCH).unwrap();
        store.change_secrets(|secrets| secrets.set_private_key("PEM")).unwrap();
        for path in [store.path(), store.secrets_path()] {
            assert_eq!(mode(&path), 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        store.load().unwrap();
        store.change_secrets(|_| ()).unwrap();
        assert_eq!((mode(&store.path()), mode(&store.secrets_path())), (0o600, 0o600));
        assert_eq!(mode(store.path().parent().unwrap()), 0o700);
    }

    #[test]
    fn a_refused_change_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        store.begin(Timestamp::UNIX_EPOCH).unwrap();
        let refuse = |record: &mut Record| {
            record.plan(Kind::Network, "a b", Timestamp::UNIX_EPOCH)?;
            Err::<(), _>(crate::Error::Cancelled { what: "it".to_owned() })
        };
        assert!(store.change(refuse).is_err());
        assert!(store.load().unwrap().unwrap().is_empty());
    }

    #[test]
    fn a_damaged_file_is_refused_left_as_it_is_and_can_be_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        store.begin(Timestamp::UNIX_EPOCH).unwrap();
        let whole = fs::read(store.path()).unwrap();
        for end in [0, 1, whole.len() / 2, whole.len() - 2] {
            fs::write(store.path(), &whole[..end]).unwrap();
            let text = message(store.load());
            assert!(text.contains("a b.json") && text.contains("move it away"), "{text}");
            assert!(store.change(|_| Ok(())).is_err() && store.begin(Timestamp::UNIX_EPOCH).is_err());
            assert_eq!(fs::read(store.path()).unwrap(), &whole[..end]);
        }
        fs::remove_file(store.path()).unwrap();
        assert!(store.begin(Timestamp::UNIX_EPOCH).is_ok());
    }

    #[test]
    fn a_file_whose_numbers_would_mix_up_two_things_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        store.begin(Timestamp::UNIX_EPOCH).unwrap();
        store.change(|record| record.plan(Kind::Network, "a b", Timestamp::UNIX_EPOCH)).unwrap();
        let text = fs::read_to_string(store.path()).unwrap();
        fs::write(store.path(), text.replace("\"next_entry\": 2", "\"next_entry\": 1")).unwrap();
        assert!(message(store.load()).contains("damaged"));
    }

    #[test]
    fn a_newer_file_is_refused_and_says_upgrade() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        store.begin(Timestamp::UNIX_EPOCH).unwrap();
        fs::write(store.path(), r#"{"version": 2, "all": "different"}"#).unwrap();
        let text = message(store.load());
        assert!(text.contains("version 2") && text.contains("newer"), "{text}");
    }

    #[test]
    fn the_file_of_another_deployment_under_our_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (store(&folder), ResourceName::parse("b").unwrap());
        let theirs = Store::new(folder.path().join("new"), "openstack", &theirs).unwrap();
        theirs.begin(Timestamp::UNIX_EPOCH).unwrap();
        fs::copy(theirs.path(), ours.path()).unwrap();
        assert!(message(ours.load()).contains("openstack.b"));
    }

    #[test]
    fn a_change_that_cannot_be_written_is_refused_and_the_old_content_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let before = store.begin(Timestamp::UNIX_EPOCH).unwrap();
        // A folder stands where the new content would be written.
        fs::create_dir(store.path().with_extension("json.new")).unwrap();
        let error =
            store.change(|record| record.plan(Kind::Network, "a", Timestamp::UNIX_EPOCH)).unwrap_err();
        assert!(matches!(error, crate::Error::State(Error::Io { .. })), "{error:?}");
        assert_eq!(store.load().unwrap().unwrap(), before);
    }

    #[test]
    fn of_two_deploys_at_once_the_second_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let first = store.exclusive().unwrap();
        let error = store.exclusive().unwrap_err();
        assert!(matches!(error, crate::Error::State(Error::Busy { .. })), "{error:?}");
        store.begin(Timestamp::UNIX_EPOCH).unwrap();
        drop(first);
        let _second = store.exclusive().unwrap();
    }

    #[test]
    fn files_go_only_when_nothing_is_on_record() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        store.begin(Timestamp::UNIX_EPOCH).unwrap();
        let _exclusive = store.exclusive().unwrap();
        let entry = store.change(|record| record.plan(Kind::Network, "a b", Timestamp::UNIX_EPOCH)).unwrap();
        let error = store.remove().unwrap_err().to_string();
        assert!(error.contains("network a b"), "{error}");
        let forget = |record: &mut Record| {
            record.gone(entry);
            Ok(())
        };
        store.change(forget).unwrap();
        store.remove().unwrap();
        store.remove().unwrap();
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 0);
    }
}
