//! Our side: a deployment of the library, with a record of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use haar_cloud::provider::Ground;
use haar_cloud::state::Kind;
use haar_cloud::{Cloud, SpawnOrder};
use haar_openstack::OpenStack;

use crate::{FLAVOR, IMAGE, Outcome, PROJECT, member};

/// A deployment without servers.
pub(crate) struct Ours {
    cloud: Cloud,
    _record: tempfile::TempDir,
}

impl Ours {
    pub(crate) async fn deployed(folder: &Path) -> Outcome<Self> {
        let settings = member::settings(folder, PROJECT, &[])?;
        let record = tempfile::tempdir()?;
        let provider = Arc::new(OpenStack::connect(settings).await?);
        let cloud = Cloud::new(provider, &"haar-bench".parse()?, record.path())?;
        cloud.deploy(Ground::default()).await?;
        Ok(Self { cloud, _record: record })
    }

    pub(crate) fn name(&self) -> &str {
        self.cloud.name().as_str()
    }

    /// Spawns all at once; the time until the last is there.
    pub(crate) async fn spawn(&self, servers: usize) -> Outcome<Duration> {
        let order = SpawnOrder::new(IMAGE, "debian", FLAVOR);
        let began = Instant::now();
        try_join_all((0..servers).map(|_| self.cloud.spawn(order.clone(), || {}))).await?;
        Ok(began.elapsed())
    }

    /// Destroys so many.
    pub(crate) async fn destroy(&self, servers: usize) -> Outcome<()> {
        let there = self.cloud.servers().await?;
        try_join_all(there.iter().take(servers).map(|server| self.cloud.destroy(server.id()))).await?;
        Ok(())
    }

    /// Tears everything down, which is so many servers and what they stand on.
    pub(crate) async fn tear_down(&self, servers: usize) -> Outcome<Duration> {
        let began = Instant::now();
        let torn_down = self.cloud.tear_down().await?;
        let took = began.elapsed();
        let found = torn_down.destroyed.iter().filter(|thing| thing.kind == Kind::Server).count();
        if found == servers { Ok(took) } else { Err(format!("{found} of {servers} servers went").into()) }
    }

    /// Takes everything for gone.
    pub(crate) async fn forget(&self) -> Outcome<()> {
        Ok(self.cloud.forget().await?)
    }
}
