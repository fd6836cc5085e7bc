//! The user's handle on one deployment in one cloud.
//!
//! A [`Cloud`] adds to a [`Provider`] all that is the same everywhere: the record, waiting, asking again, the
//! pace of spawning, and that nothing is forgotten. It is cheap to clone and may be used from many tasks;
//! several processes may use one folder at once. Every method may be dropped at any await. What was begun
//! for a dropped [`Cloud::spawn`] is undone by a task of its own, which [`Cloud::settled`] waits for; when
//! the whole process ends, the record has what is needed to undo it.
//!
//! ```
//! # use std::sync::Arc;
//! # use haar_cloud::cloud::{Cloud, SpawnOrder};
//! # use haar_cloud::flavor::{Need, Wanted};
//! # use haar_cloud::provider::Ground;
//! # use haar_cloud::{Provider, Result};
//! # use haar_cloud::space::Cores;
//! async fn one_server(provider: Arc<dyn Provider>) -> Result<()> {
//!     let cloud = Cloud::new(provider, &"render farm".parse()?, "/var/lib/farm")?;
//!     cloud.deploy(Ground::default()).await?;
//!     let need = Need { cores: Cores::whole(1), ram_mb: 2048 };
//!     let flavor = cloud.cheapest_flavor(&Wanted { need, pattern: None, prices: None }).await?;
//!     let server = cloud.spawn(SpawnOrder::new("debian-12", "debian", &flavor.id), || {}).await?;
//!     println!("{} at {:?}", server.name(), server.address());
//!     cloud.tear_down().await?;
//!     Ok(())
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use haar_ssh::{Limits, Pool};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::journal::Journal;
use crate::name::ResourceName;
use crate::pace::Pace;
use crate::provider::{Deployment, Ground};
use crate::server::WeakServer;
use crate::state::{self, Record, Store};
use crate::user_data::SENTINEL;
use crate::{Error, Provider, Result};

mod arrive;
mod catalog;
mod claim;
mod create;
mod deploy;
mod leftover;
mod prepare;
mod servers;
mod spawn;
mod teardown;
mod wait;

pub use catalog::ChosenImage;
pub use deploy::PlannedThing;
pub use spawn::SpawnOrder;
pub use teardown::{Left, TornDown};

/// The fact of the record that holds the ground.
const GROUND: &str = "ground";
/// The fact of the record that holds the public key.
const PUBLIC_KEY: &str = "public_key";

/// What is being done and waited for, for a person to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// What it is about: `server farm-1b2c…`, `network farm`.
    pub about: String,
    /// What is done with it or waited for: `being built (BUILD)`.
    pub doing: String,
}

impl fmt::Display for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.about, self.doing)
    }
}

/// Who is told what is being done. Called often, so it should be quick.
pub type Observer = Arc<dyn Fn(&Progress) + Send + Sync>;

/// Which way leads to servers that have no external address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Way {
    /// Straight to each.
    #[default]
    Direct,
    /// Through the first server with an external address, if there is one and this program runs on no server of
    /// the cloud.
    HeadNode,
    /// Through the server of this name or id.
    Through(String),
}

/// How servers are reached by ssh, and how long things on them may take.
#[derive(Debug, Clone)]
pub struct Access {
    /// The port that their sshd listens on.
    pub port: u16,
    /// A server to go through to every other, one that is none of the deployment's.
    pub jump: Option<Pool>,
    /// The way where there is no such server.
    pub way: Way,
    /// How long ssh waits for what.
    pub limits: Limits,
    /// The file on a server that is there when its first boot is done.
    pub sentinel: String,
    /// The folder on a server for scripts; from the home on, unless it begins with `/`.
    pub folder: String,
    /// How long a server's first boot may take, from its first ssh session on.
    pub boot_limit: Duration,
    /// How long a start-up or destroy script may run.
    pub script_limit: Duration,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            port: 22,
            jump: None,
            way: Way::default(),
            limits: Limits::default(),
            sentinel: SENTINEL.to_owned(),
            folder: ".haar".to_owned(),
            boot_limit: Duration::from_secs(10 * 60),
            script_limit: Duration::from_secs(15 * 60),
        }
    }
}

/// One deployment in one cloud.
#[derive(Debug, Clone)]
pub struct Cloud {
    inner: Arc<Inner>,
}

struct Inner {
    provider: Arc<dyn Provider>,
    name: ResourceName,
    journal: Journal,
    began: Instant,
    /// Whether the record is known to be of this place.
    claimed: AtomicBool,
    access: Access,
    observer: Option<Observer>,
    pace: Mutex<Pace>,
    catalog: catalog::Catalog,
    lookers: wait::Lookers,
    /// Servers that somebody holds, by the cloud's id: all hold the same life.
    held: Mutex<BTreeMap<String, WeakServer>>,
    /// Connections that others are reached through, by the cloud's id of their server.
    ways: Mutex<BTreeMap<String, Pool>>,
    /// Names of the servers that this process ends when they idle.
    kept: Mutex<BTreeSet<String>>,
    /// Whether a task goes on ending what should be gone.
    ending: AtomicBool,
    background: TaskTracker,
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = self.journal.store();
        formatter
            .debug_struct("Inner")
            .field("provider", &self.provider)
            .field("store", store)
            .finish_non_exhaustive()
    }
}

impl Cloud {
    /// The deployment `name` in a cloud, with its record beneath `folder`. Nothing is asked or touched yet.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a provider whose name could lead out of the folder.
    pub fn new(provider: Arc<dyn Provider>, name: &ResourceName, folder: impl Into<PathBuf>) -> Result<Self> {
        Self::with(provider, name, folder, Access::default(), None)
    }

    /// As [`Self::new`], with another way to servers, and somebody who is told what is being done.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with(
        provider: Arc<dyn Provider>,
        name: &ResourceName,
        folder: impl Into<PathBuf>,
        access: Access,
        observer: Option<Observer>,
    ) -> Result<Self> {
        let store = Store::new(folder, provider.kind(), name)?.at(provider.place());
        let background = TaskTracker::new();
        // So that waiting for it ends when nothing is under way; it still takes new tasks.
        background.close();
        let inner = Inner {
            provider,
            name: name.clone(),
            journal: Journal::new(store),
            began: Instant::now(),
            claimed: AtomicBool::new(false),
            access,
            observer,
            pace: Mutex::default(),
            catalog: catalog::Catalog::default(),
            lookers: wait::Lookers::default(),
            held: Mutex::default(),
            ways: Mutex::default(),
            kept: Mutex::default(),
            ending: AtomicBool::default(),
            background,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The provider.
    #[must_use]
    pub fn provider(&self) -> &dyn Provider {
        self.inner.provider.as_ref()
    }

    /// The name of the deployment.
    #[must_use]
    pub fn name(&self) -> &ResourceName {
        &self.inner.name
    }

    /// The notes of the deployment.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Waits until nothing is done any more for what was dropped or failed: servers of a dropped spawn are
    /// gone, or on record; commands on servers are ended, and files that were being copied there removed. To be
    /// called before a process ends.
    pub async fn settled(&self) {
        self.inner.background.wait().await;
    }

    /// The record, if there is one.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn record(&self) -> Result<Option<Record>> {
        self.journal().on_disk(Store::load).await
    }

    /// The private key that opens the servers, in OpenSSH's form; `None` before the first deploy.
    ///
    /// # Errors
    /// [`Error::State`].
    pub async fn private_key(&self) -> Result<Option<String>> {
        self.journal().on_disk(|store| Ok(store.secrets()?.private_key().map(str::to_owned))).await
    }

    /// The deployment as it was last deployed, from any process.
    ///
    /// # Errors
    /// [`Error::State`]; without a deployment the message says to deploy.
    pub async fn deployment(&self) -> Result<Deployment> {
        let name = self.name().clone();
        let read = self.journal().on_disk(move |store| {
            let absent = || state::Error::Absent { path: store.path(), name: name.to_string() };
            let record = store.load()?.ok_or_else(absent)?;
            let ground = ground_of(&record).ok_or_else(absent)?;
            let secrets = store.secrets()?;
            let private_key = secrets.private_key().ok_or_else(absent)?;
            let public_key = match record.fact(PUBLIC_KEY) {
                Some(public_key) => public_key.to_owned(),
                None => crate::key::public_of(private_key)?,
            };
            Ok(Deployment { name: name.clone(), id: record.deployment(), ground, public_key })
        });
        read.await
    }

    pub(crate) fn access(&self) -> &Access {
        &self.inner.access
    }

    /// Connections that others are reached through, by the cloud's id of their server.
    pub(crate) fn ways(&self) -> MutexGuard<'_, BTreeMap<String, Pool>> {
        locked(&self.inner.ways)
    }

    /// Time since this handle was made: the clock of lists, lives and paces.
    pub(crate) fn now(&self) -> Duration {
        self.inner.began.elapsed()
    }

    pub(crate) fn background(&self) -> &TaskTracker {
        &self.inner.background
    }

    /// Does something that goes on when whoever asked for it has left; [`Self::settled`] waits for it.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.background().spawn(work).await.unwrap_or_else(|cut_off| match cut_off.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Cancelled { what: format!("deployment {}", self.name()) }),
        })
    }

    pub(crate) fn tell(&self, about: impl fmt::Display, doing: impl Into<String>) {
        if let Some(observer) = &self.inner.observer {
            observer(&Progress { about: about.to_string(), doing: doing.into() });
        }
    }

    fn lookers(&self) -> &wait::Lookers {
        &self.inner.lookers
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        locked(&self.inner.pace)
    }

    /// Names of the servers that this process ends when they idle.
    pub(crate) fn kept(&self) -> MutexGuard<'_, BTreeSet<String>> {
        locked(&self.inner.kept)
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, WeakServer>> {
        locked(&self.inner.held)
    }
}

/// A lock whose holder panicked is still good here: each change beneath it is made in one step.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ground_of(record: &Record) -> Option<Ground> {
    record.fact(GROUND).and_then(|json| serde_json::from_str(json).ok())
}
