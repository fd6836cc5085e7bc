//! The cases that every provider is held to, through `haar-cloud`'s own handle.

use std::sync::Arc;

use haar_cloud::contract::{Setup, hold};
use haar_cloud::name::ResourceName;
use haar_cloud::provider::Ground;

use crate::harness::Cloud;

#[tokio::test]
async fn defect_38_openstack_keeps_the_contract() {
    let Some(there) = Cloud::working() else { return };
    let folder = tempfile::tempdir().unwrap();
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let setup = Setup {
        provider: Arc::new(there.connect("unlimited").await),
        folder: folder.path().to_owned(),
        name: ResourceName::parse(&format!("haar contract-{}", &unique[..8])).unwrap(),
        ground: Ground::default(),
        os: "Debian".to_owned(),
        user: "debian".to_owned(),
        flavor: "m.tiny".to_owned(),
        several: true,
        external: true,
    };
    hold(&setup).await;
}
