//! A server that runs: its room, its health, its idle time, its end; and its commands and files, by ssh, or straight
//! where it is this machine.
//!
//! A [`Server`] is a handle: cheap to clone, for many tasks at once; all handles of a process for one server
//! share one life. What is decided about that life is decided beneath one short lock in [`crate::life`], so
//! that a server is never given to somebody and destroyed; nothing is waited for beneath it. A countdown is
//! a task, so room is given back within a tokio runtime. Deliberately absent: telling other processes what
//! is in use here; hence a server that idles is ended by the process that spawned it, and by no other.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use haar_ssh::Pool;
use tokio_util::sync::CancellationToken;

use crate::Result;
use crate::cloud::{Cloud, locked};
use crate::copy_list::CopyList;
use crate::flavor::Flavor;
use crate::life::Life;
use crate::name::host_name;
use crate::provider::ServerState;
use crate::space::{NoRoom, Request, Space};
use crate::state::{Entry, Kind, PreparedServer, ServerDetails};

mod end;
mod files;
pub mod here;
mod idle;
mod means;
mod ready;
mod script;
mod shared_disk;
mod ssh;
mod way;

pub use haar_ssh::{Chunk, Command, Exit, Output};
pub use shared_disk::create_shared_disk;
pub use ssh::Streaming;

/// A server of a deployment.
#[derive(Debug, Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

/// A server that somebody else may hold.
#[derive(Debug, Clone)]
pub(crate) struct WeakServer(Weak<Inner>);

#[derive(Debug)]
struct Inner {
    cloud: Cloud,
    id: String,
    name: String,
    details: ServerDetails,
    guarded: Mutex<Guarded>,
    /// Ends commands when the server is destroyed.
    end: CancellationToken,
    /// One at a time destroys it; the others wait and see that it is gone.
    ending: tokio::sync::Mutex<()>,
}

/// What is changed beneath the lock, each time in one step.
struct Guarded {
    life: Life,
    /// Whether a task looks at the idle time.
    watched: bool,
    /// What this process has seen to be on it.
    ready: Option<PreparedServer>,
    /// What is on it, whoever put it there.
    prepared: Option<PreparedServer>,
    shared_disk: bool,
    destroy_script: Option<Vec<u8>>,
    /// Host keys that the server told on its console.
    learned_keys: Vec<String>,
    ssh: Option<Pool>,
}

/// Scripts and files often hold secrets, and are not shown.
impl fmt::Debug for Guarded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Guarded").field("life", &self.life).finish_non_exhaustive()
    }
}

/// What somebody wants of a server.
#[derive(Debug, Clone, Copy)]
pub struct Likeness<'a> {
    /// The operating system, as it is asked for.
    pub os: &'a str,
    /// The script that was run on it; empty for none.
    pub script: &'a [u8],
    /// The files that were copied to it.
    pub files: &'a CopyList,
    /// The id of its flavor; `None` is any.
    pub flavor: Option<&'a str>,
    /// Whether it has the shared disk.
    pub shared_disk: bool,
}

impl WeakServer {
    pub(crate) fn upgrade(&self) -> Option<Server> {
        self.0.upgrade().map(|inner| Server { inner })
    }
}

impl Server {
    pub(crate) fn new(cloud: Cloud, id: &str, name: &str, details: ServerDetails) -> Self {
        let flavor = &details.flavor;
        let space = Space::new(flavor.cores, flavor.ram_mb, details.disk_gb);
        let life = Life::new(space, Duration::from_millis(details.ttd_ms));
        let guarded = Guarded {
            life,
            watched: false,
            ready: None,
            prepared: details.prepared.clone(),
            shared_disk: details.shared_disk,
            destroy_script: None,
            learned_keys: Vec::new(),
            ssh: None,
        };
        let inner = Inner {
            cloud,
            id: id.to_owned(),
            name: name.to_owned(),
            details,
            guarded: Mutex::new(guarded),
            end: CancellationToken::new(),
            ending: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn downgrade(&self) -> WeakServer {
        WeakServer(Arc::downgrade(&self.inner))
    }

    /// The cloud it is in.
    #[must_use]
    pub fn cloud(&self) -> &Cloud {
        &self.inner.cloud
    }

    /// The cloud's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Its name in the cloud.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The name its own operating system knows it by.
    #[must_use]
    pub fn host_name(&self) -> String {
        host_name(self.name())
    }

    /// Its address: the external one where it has one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.inner.details.address
    }

    /// Who logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.inner.details.user
    }

    /// The operating system, as it was asked for.
    #[must_use]
    pub fn os(&self) -> &str {
        &self.inner.details.os
    }

    /// Its size.
    #[must_use]
    pub fn flavor(&self) -> &Flavor {
        &self.inner.details.flavor
    }

    /// Its disk in GB.
    #[must_use]
    pub fn disk_gb(&self) -> u64 {
        self.inner.details.disk_gb
    }

    /// How long it may idle; 0 is for ever.
    #[must_use]
    pub fn ttd(&self) -> Duration {
        Duration::from_millis(self.inner.details.ttd_ms)
    }

    /// Whether it was the first with an external address.
    #[must_use]
    pub fn is_head_node(&self) -> bool {
        self.inner.details.head_node
    }

    /// What is on record about it.
    #[must_use]
    pub fn details(&self) -> &ServerDetails {
        &self.inner.details
    }

    /// The administrator's password, where the cloud made one.
    ///
    /// # Errors
    /// [`Error::State`](crate::Error::State).
    pub async fn admin_password(&self) -> Result<Option<String>> {
        let id = self.id().to_owned();
        let read = self
            .cloud()
            .journal()
            .on_disk(move |store| Ok(store.secrets()?.admin_password(&id).map(str::to_owned)));
        read.await
    }

    /// How many such items still fit; none on a server that is destroyed.
    #[must_use]
    pub fn has_space_for(&self, request: &Request) -> u64 {
        self.guarded().life.room_for(request)
    }

    /// What is used of it.
    #[must_use]
    pub fn used(&self) -> Space {
        self.guarded().life.space().clone()
    }

    /// Takes room for one item. From then on the server only goes when it is told to.
    ///
    /// # Errors
    /// [`NoRoom`] says what ran out.
    pub fn allocate(&self, request: &Request) -> Result<(), NoRoom> {
        self.guarded().life.allocate(request)
    }

    /// Gives room back. With the last of it, the countdown to the server's end begins.
    pub fn release(&self, request: &Request) {
        self.guarded().life.release(self.cloud().now(), request);
        self.watch_idle();
    }

    /// Marks it as bad: something does not work. With a problem it is so for good; the last one counts.
    pub fn gone_bad(&self, problem: Option<&str>) {
        self.guarded().life.gone_bad(self.cloud().now(), problem);
    }

    /// Takes it for good again. Whether it is: not when it is destroyed, nor with a problem for good.
    #[must_use]
    pub fn not_bad(&self) -> bool {
        self.guarded().life.not_bad()
    }

    /// Whether it is marked as bad.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        self.guarded().life.is_bad()
    }

    /// For how long it has been bad; 0 when it is good.
    #[must_use]
    pub fn bad_for(&self) -> Duration {
        self.guarded().life.bad_for(self.cloud().now())
    }

    /// The problem that is for good.
    #[must_use]
    pub fn permanent_problem(&self) -> Option<String> {
        self.guarded().life.permanent_problem().map(str::to_owned)
    }

    /// Whether it is gone or to go, as far as this process knows.
    #[must_use]
    pub fn is_destroyed(&self) -> bool {
        self.guarded().life.is_destroyed()
    }

    /// Whether the cloud knows it under these credentials.
    ///
    /// # Errors
    /// What the cloud says, if it says neither yes nor no.
    pub async fn is_known(&self) -> Result<bool> {
        match self.cloud().server_state(self.id()).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the cloud says that it runs.
    ///
    /// # Errors
    /// What the cloud says, if it says neither yes nor no.
    pub async fn is_running(&self) -> Result<bool> {
        if self.is_destroyed() {
            return Ok(false);
        }
        match self.cloud().server_state(self.id()).await {
            Ok(state) => Ok(state == ServerState::Active),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether it is what somebody wants, whichever process prepared it, as far as the record told when this
    /// process last looked for it. Two spellings of one image are two operating systems.
    #[must_use]
    pub fn matches(&self, wanted: &Likeness<'_>) -> bool {
        let like = PreparedServer::new(wanted.script, wanted.files);
        let guarded = self.guarded();
        self.os() == wanted.os
            && guarded.prepared.as_ref().unwrap_or(&PreparedServer::default()) == &like
            && wanted.flavor.is_none_or(|flavor| flavor == self.flavor().id)
            && guarded.shared_disk == wanted.shared_disk
    }

    /// Takes note of what is on record about it by now.
    pub(crate) fn learn(&self, details: &ServerDetails) {
        let mut guarded = self.guarded();
        guarded.prepared.clone_from(&details.prepared);
        guarded.shared_disk = details.shared_disk;
    }

    /// Puts on record what other processes are to know of it.
    async fn note(&self, change: impl FnOnce(&mut ServerDetails) + Send + 'static) -> Result<()> {
        let id = self.id().to_owned();
        let note = self.cloud().journal().change(move |record| {
            let is_it = |entry: &&Entry| entry.kind == Kind::Server && entry.cloud_id() == Some(&id);
            let found = record.entries().find(is_it).map(|entry| (entry.id, entry.server.clone()));
            if let Some((entry, Some(mut details))) = found {
                change(&mut details);
                record.describe_server(entry, details)?;
            }
            Ok(())
        });
        note.await
    }

    /// What is run on the server before it is destroyed: the content of a script, with its `#!` line.
    pub fn set_destroy_script(&self, script: Option<Vec<u8>>) {
        self.guarded().destroy_script = script;
    }

    fn guarded(&self) -> MutexGuard<'_, Guarded> {
        locked(&self.inner.guarded)
    }
}
