//! A deployment in a cloud in memory, with a folder that goes when the test ends.
//!
//! The folder is in memory where that can be had: the record is synced at each change, and a test makes
//! thousands of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use haar_cloud::cloud::{Access, Way};
use haar_cloud::fake::Fake;
use haar_cloud::provider::Ground;
use haar_cloud::state::Kind;
use haar_cloud::{Cloud, Error, SpawnOrder};
use tempfile::TempDir;

/// So many seconds.
pub(crate) fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A failure that may pass.
pub(crate) fn busy() -> Error {
    Error::Transient { what: "x".to_owned(), message: "status 503".to_owned(), retry_after: None }
}

/// A folder, in memory if possible.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a folder for this test")
}

/// A deployment called `a`.
pub(crate) struct Bench {
    /// Its cloud.
    pub(crate) fake: Arc<Fake>,
    /// Its handle.
    pub(crate) cloud: Cloud,
    folder: TempDir,
}

impl Bench {
    /// Nothing is deployed.
    pub(crate) fn new() -> Self {
        let (fake, folder) = (Arc::new(Fake::default()), folder());
        let cloud = Cloud::new(fake.clone(), &"a".parse().unwrap(), folder.path()).unwrap();
        Self { fake, cloud, folder }
    }

    /// Deployed.
    pub(crate) async fn deployed() -> Self {
        let bench = Self::new();
        bench.cloud.deploy(Ground::default()).await.unwrap();
        bench
    }

    /// The handle of another process.
    pub(crate) fn process(&self) -> Cloud {
        Cloud::new(self.fake.clone(), self.cloud.name(), self.folder.path()).unwrap()
    }

    /// The handle of another process, which goes to servers this way.
    pub(crate) fn process_by(&self, way: Way) -> Cloud {
        let access = Access { way, ..Access::default() };
        Cloud::with(self.fake.clone(), self.cloud.name(), self.folder.path(), access, None).unwrap()
    }

    /// The same record with another, empty cloud.
    pub(crate) fn beside(bench: &Self) -> Cloud {
        Cloud::new(Arc::new(Fake::default()), bench.cloud.name(), bench.folder.path()).unwrap()
    }

    /// A small server.
    pub(crate) fn order(&self) -> SpawnOrder {
        SpawnOrder::new("debian-12", "debian", "small")
    }

    /// How many servers the record has, however far they are.
    pub(crate) fn servers_on_record(&self) -> usize {
        let record = self.cloud.journal().store().load().unwrap();
        record.iter().flat_map(|record| record.entries()).filter(|entry| entry.kind == Kind::Server).count()
    }

    /// The record as it is on disk.
    pub(crate) fn record_text(&self) -> String {
        std::fs::read_to_string(self.cloud.journal().store().path()).unwrap()
    }

    /// Whether nothing is left, neither in the cloud nor in the folder.
    pub(crate) fn is_clean(&self) -> bool {
        self.fake.left().is_empty() && std::fs::read_dir(self.folder.path()).unwrap().count() == 0
    }
}
