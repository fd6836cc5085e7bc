//! What the tests of both clouds share: a deployment with a record of its own.

use std::time::{Duration, Instant};

use haar_cloud::image::choose;
use haar_cloud::name::ResourceName;
use haar_cloud::provider::{Deployment, Ground, Prepared, ServerOrder};
use haar_cloud::state::{Kind, Store};
use haar_cloud::{Journal, Provider};
use jiff::Timestamp;
use uuid::Uuid;

/// Public keys of nobody.
pub(crate) const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS test";
pub(crate) const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAT test";

/// A deployment, and its record in a folder that goes with it.
pub(crate) struct Site {
    pub(crate) deployment: Deployment,
    pub(crate) journal: Journal,
    _folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = ResourceName::parse(name).unwrap();
        let store = Store::new(folder.path(), "openstack", &name).unwrap();
        let id = store.begin(Timestamp::now()).unwrap().deployment();
        let sources = vec!["0.0.0.0/0".parse().unwrap()];
        let ground = Ground { ports: vec![22, 80], sources, ..Ground::default() };
        let deployment = Deployment { name, id, ground, public_key: KEY.to_owned() };
        Self { deployment, journal: Journal::new(store), _folder: folder }
    }

    pub(crate) fn name(&self) -> &str {
        self.deployment.name.as_str()
    }

    /// What is on record: kind and id, in the order in which it can be destroyed.
    pub(crate) fn ours(&self) -> Vec<(Kind, String)> {
        let record = self.journal.store().load().unwrap().unwrap();
        let id = |id: Option<&str>| id.unwrap_or("no id").to_owned();
        record.to_destroy().iter().map(|entry| (entry.kind, id(entry.cloud_id()))).collect()
    }

    /// An order of the first flavor and image whose names begin so.
    pub(crate) async fn order(&self, cloud: &dyn Provider, flavor: &str, image: &str) -> ServerOrder {
        let flavors = cloud.flavors().await.unwrap();
        let images = cloud.images().await.unwrap();
        ServerOrder {
            name: self.deployment.name.server(Uuid::new_v4()),
            image: choose(&images, image).unwrap().image.clone(),
            flavor: flavors.into_iter().find(|known| known.name == flavor).unwrap(),
            volume_gb: None,
            user_data: "#!/bin/sh\ntrue\n".to_owned(),
            user: "debian".to_owned(),
        }
    }
}

/// Waits until a server can be asked for.
pub(crate) async fn prepared(cloud: &dyn Provider, site: &Site, order: &ServerOrder) {
    let end = Instant::now() + Duration::from_secs(180);
    while cloud.prepare_server(&site.deployment, order, &site.journal).await.unwrap() != Prepared::Ready {
        assert!(Instant::now() < end, "gave up waiting for what the server needs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
