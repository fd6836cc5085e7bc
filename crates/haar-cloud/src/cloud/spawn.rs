//! Spawning a server: from an order to a server with an address, or to nothing at all.
//!
//! ```text
//!   draft ─▶ pace ─▶ note ─▶ prepare ─▶ create ─▶ active ─▶ address ─▶ on record, with the caller
//!     └───────┴─────▶ an error ◀─┴──────────┘        └───────────┴─────▶ deleted until gone, then an error
//! ```
//!
//! It runs as a task of its own. If the caller drops it, the task undoes what it did: a request that was
//! sent is never left without somebody who waits for its answer. Errors come back when the server is really
//! gone; one that could not be deleted is on record as leaving.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Cloud;
use super::create::Created;
use crate::image::boot_disk;
use crate::key;
use crate::pace::Boot;
use crate::provider::{Deployment, ServerOrder};
use crate::server::Server;
use crate::state::{EntryId, Kind, ServerDetails};
use crate::user_data::UserData;
use crate::{Class, Error, Result};

/// A server that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnOrder {
    /// The image: its id, its name, or how its name begins.
    pub os: String,
    /// Who logs in.
    pub user: String,
    /// The flavor: its id, or its exact name.
    pub flavor: String,
    /// The least disk in GB; the image and the flavor may make it more.
    pub disk_gb: u64,
    /// How long it may idle after it was used; 0 is for ever. The process that spawns it sees to that; see
    /// [`Server::take_over`].
    pub ttd: Duration,
    /// Whether it gets an address that others can reach.
    pub external: bool,
}

impl SpawnOrder {
    /// A server with the disk of its flavor, inside only, that stays until it is destroyed.
    #[must_use]
    pub fn new(os: &str, user: &str, flavor: &str) -> Self {
        Self {
            os: os.to_owned(),
            user: user.to_owned(),
            flavor: flavor.to_owned(),
            disk_gb: 0,
            ttd: Duration::ZERO,
            external: false,
        }
    }
}

/// An order with everything looked up.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) deployment: Deployment,
    pub(super) order: ServerOrder,
    pub(super) boot: Boot,
    pub(super) details: ServerDetails,
}

impl Draft {
    pub(super) fn name(&self) -> &str {
        &self.order.name
    }
}

/// Tells once, at the latest when it is dropped.
struct Once(Option<Box<dyn FnOnce() + Send>>);

impl Drop for Once {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell();
        }
    }
}

/// A server that is destroyed unless somebody takes it.
struct Fresh(Option<Server>);

impl Drop for Fresh {
    fn drop(&mut self) {
        // Without a runtime nothing can be asked of the cloud; the server is on record.
        if let Some(server) = self.0.take().filter(|_| Handle::try_current().is_ok()) {
            let background = server.cloud().background().clone();
            background.spawn(async move {
                if let Err(error) = server.cloud().remove(server.id()).await {
                    tracing::warn!(%error, server = server.name(), "a server nobody wants is still there");
                }
            });
        }
    }
}

impl Cloud {
    /// Makes a server, and gives it when it runs and has an address. `using_quota` is called exactly once:
    /// as soon as the cloud counts the server, or when it never will.
    ///
    /// Dropping this future cancels it. What was made by then is deleted by a task of its own; see
    /// [`Self::settled`].
    ///
    /// # Errors
    /// [`Error::NotFound`] for an image or flavor, [`Error::OverQuota`], [`Error::NoHardware`],
    /// [`Error::Timeout`], [`Error::ServerFailed`], [`Error::State`] before a deploy and during a tear-down,
    /// and what else the cloud says.
    pub fn spawn<F>(
        &self,
        order: SpawnOrder,
        using_quota: F,
    ) -> impl Future<Output = Result<Server>> + Send + use<F>
    where
        F: FnOnce() + Send + 'static,
    {
        // Not in the future itself, which may never be begun.
        let told = Once(Some(Box::new(using_quota)));
        let cloud = self.clone();
        async move { cloud.spawn_in_background(order, told).await }
    }

    async fn spawn_in_background(self, order: SpawnOrder, told: Once) -> Result<Server> {
        let cancel = CancellationToken::new();
        let _cancel_when_dropped = cancel.clone().drop_guard();
        let (hand_over, answer) = oneshot::channel();
        let background = self.background().clone();
        let spawn = Spawn { cloud: self, cancel };
        background.spawn(async move {
            let fresh = spawn.run(&order, told).await.map(|server| Fresh(Some(server)));
            // A caller that left meanwhile does not take it, and it is destroyed.
            drop(hand_over.send(fresh));
        });
        let mut fresh = answer.await.unwrap_or_else(|_| Err(cancelled("a server")))?;
        Ok(fresh.0.take().expect("a fresh server is taken once"))
    }

    /// Looks up all that an order names.
    async fn draft(&self, order: &SpawnOrder) -> Result<Draft> {
        self.claim().await?;
        let deployment = self.deployment().await?;
        let image = self.image_by_prefix(&order.os).await?.image;
        let flavor = self.flavor(&order.flavor).await?;
        let disk = boot_disk(&image, order.disk_gb, flavor.disk_gb);
        if image.min_ram_mb > flavor.ram_mb {
            let why = format!("the image {} needs {} MB of memory", image.name, image.min_ram_mb);
            return Err(Error::BadInput { what: "the flavor", value: flavor.name, why });
        }
        self.check_quota(&flavor, disk.volume_gb).await?;
        let host_key = key::generate()?;
        let user_data =
            UserData { user: &order.user, authorized_key: &deployment.public_key, host_key: &host_key };
        let details = ServerDetails {
            os: order.os.clone(),
            user: order.user.clone(),
            flavor: flavor.clone(),
            disk_gb: disk.server_gb,
            ttd_ms: u64::try_from(order.ttd.as_millis()).unwrap_or(u64::MAX),
            external: order.external,
            head_node: false,
            address: None,
            host_keys: vec![host_key.public.trim().to_owned()],
            prepared: None,
            shared_disk: false,
        };
        let server = ServerOrder {
            name: deployment.name.server(Uuid::new_v4()),
            image,
            flavor,
            volume_gb: disk.volume_gb,
            user_data: user_data.cloud_config(),
            user: order.user.clone(),
        };
        let boot = if disk.volume_gb.is_some() { Boot::Volume } else { Boot::Plain };
        Ok(Draft { deployment, order: server, boot, details })
    }

    /// Notes a server that is about to be made, with all that another process needs to use it.
    async fn note(&self, draft: &Draft) -> Result<EntryId> {
        let (name, details) = (draft.name().to_owned(), draft.details.clone());
        self.journal()
            .change(move |record| {
                let entry = record.plan(Kind::Server, &name, Timestamp::now())?;
                record.describe_server(entry, details)?;
                Ok(entry)
            })
            .await
    }
}

/// One spawn under way.
pub(super) struct Spawn {
    pub(super) cloud: Cloud,
    pub(super) cancel: CancellationToken,
}

impl Spawn {
    async fn run(&self, order: &SpawnOrder, told: Once) -> Result<Server> {
        let draft = self.until_cancelled("a server", self.cloud.draft(order)).await?;
        self.keep_pace(&draft).await?;
        let entry = self.cloud.note(&draft).await?;
        // Many may have waited for their turn to note.
        if self.cancel.is_cancelled() {
            self.cloud.forget_entry(entry).await?;
            return Err(cancelled(draft.name()));
        }
        let start = self.cloud.now();
        if let Err(error) = self.until_prepared(&draft).await {
            self.count_failure(&draft, start, &error);
            self.cloud.refused(&draft, entry, &error).await?;
            return Err(error);
        }
        let began = Instant::now();
        self.cloud.tell(format_args!("server {}", draft.name()), "asking the cloud for it");
        let created = self.create(&draft, entry).await;
        drop(told);
        let created = created.inspect_err(|error| self.count_failure(&draft, start, error))?;
        let answer = self.bring_up(&draft, entry, &created, began).await;
        if let Err(error) = &answer {
            self.count_failure(&draft, start, error);
            self.cloud.tell(format_args!("server {}", draft.name()), format!("deleting it: {error}"));
            if let Err(left) = self.cloud.discard(Some(entry), &created.id, draft.name()).await {
                tracing::warn!(error = %left, server = draft.name(), "it stays on record, it may be there still");
            }
        }
        answer
    }

    /// Waits after failures of the same flavor and image.
    async fn keep_pace(&self, draft: &Draft) -> Result<()> {
        let lot = (Uuid::new_v4().as_u128() >> 64) as f64 / u64::MAX as f64;
        let (flavor, image) = (&draft.order.flavor.id, &draft.order.image.id);
        let wait = self.cloud.pace().wait(flavor, image, lot);
        if wait.is_zero() {
            return Ok(());
        }
        let doing = format!("waiting {:.1} s after a failure of this flavor", wait.as_secs_f64());
        self.cloud.tell(format_args!("server {}", draft.name()), doing);
        let pause = async {
            sleep(wait).await;
            Ok(())
        };
        self.until_cancelled(draft.name(), pause).await
    }

    /// Counts the failure of a spawn that began `start` after the cloud's handle was made.
    fn count_failure(&self, draft: &Draft, start: Duration, error: &Error) {
        if !matches!(error.class(), Class::Cancelled | Class::State) {
            let (flavor, image) = (&draft.order.flavor.id, &draft.order.image.id);
            self.cloud.pace().failed(flavor, image, start, self.cloud.now());
        }
    }

    /// From a server that the cloud began to make to one that can be used.
    async fn bring_up(
        &self,
        draft: &Draft,
        entry: EntryId,
        created: &Created,
        began: Instant,
    ) -> Result<Server> {
        let (cloud, name) = (&self.cloud, draft.name());
        cloud.note_made(entry, &created.id, created.admin_password.clone()).await?;
        let view = self.until_cancelled(name, cloud.until_active(draft, &created.id, began)).await?;
        let took = began.elapsed();
        let (view, inside) = self.until_cancelled(name, cloud.until_addressed(draft, view)).await?;
        // Not to be cut off: the address would be there, and nobody would know its id.
        let address = match draft.details.external {
            true => cloud.external_address(draft, &view).await?,
            false => inside,
        };
        if self.cancel.is_cancelled() {
            return Err(cancelled(name));
        }
        let details = cloud.note_arrival(entry, address).await?;
        cloud.kept().insert(name.to_owned());
        let (flavor, image) = (&draft.order.flavor.id, &draft.order.image.id);
        cloud.pace().succeeded(flavor, image, draft.boot, took);
        cloud.tell(format_args!("server {name}"), format!("runs at {address}"));
        Ok(cloud.handle(&created.id, name, details))
    }

    async fn until_cancelled<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(cancelled(what)))
    }
}

fn cancelled(what: impl fmt::Display) -> Error {
    Error::Cancelled { what: what.to_string() }
}
