//! The contract that every provider is held to, for those that need no network.
//!
//! Providers in other crates call the same function from their own tests.

use std::sync::Arc;

use haar_cloud::contract::{Setup, hold};
use haar_cloud::fake::Fake;
use haar_cloud::local::Local;
use haar_cloud::provider::Ground;
use haar_cloud::{Cloud, Error, Provider, SpawnOrder};

#[tokio::test(start_paused = true)]
async fn defect_38_the_cloud_in_memory_holds_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Arc::new(Fake::default());
    let setup = Setup {
        provider: fake.clone(),
        folder: folder.path().to_owned(),
        name: "contract".parse().unwrap(),
        ground: Ground::default(),
        os: "debian-12".to_owned(),
        user: "debian".to_owned(),
        flavor: "small".to_owned(),
        several: true,
        external: true,
    };
    hold(&setup).await;
    assert_eq!(fake.left(), Vec::<String>::new());
}

#[tokio::test]
async fn defect_38_this_machine_holds_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::new(folder.path());
    let ground = match Local::ground() {
        Err(error) if error.is_not_found() => return println!("left out: {error}"),
        ground => ground.unwrap(),
    };
    let os = local.images().await.unwrap().remove(0).name;
    let setup = Setup {
        provider: Arc::new(local),
        folder: folder.path().to_owned(),
        name: "contract".parse().unwrap(),
        ground,
        os,
        user: "root".to_owned(),
        flavor: "localhost".to_owned(),
        several: false,
        external: false,
    };
    hold(&setup).await;
}

#[tokio::test]
async fn this_machine_is_one_server_and_no_second() {
    let folder = tempfile::tempdir().unwrap();
    let Ok(ground) = Local::ground() else { return println!("left out: no address besides loopback") };
    let local = Arc::new(Local::new(folder.path()));
    let os = local.images().await.unwrap().remove(0).name;
    let cloud = Cloud::new(local, &"a".parse().unwrap(), folder.path()).unwrap();
    cloud.deploy(ground).await.unwrap();
    let order = SpawnOrder::new(&os, "root", "localhost");
    let server = cloud.spawn(order.clone(), || {}).await.unwrap();
    assert!(server.flavor().cores > 0 && server.address().is_some());
    let error = cloud.spawn(order.clone(), || {}).await.unwrap_err();
    assert!(matches!(error, Error::OverQuota { .. }), "{error}");
    server.destroy().await.unwrap();
    let again = cloud.spawn(order, || {}).await.unwrap();
    assert!(!again.is_destroyed(), "the same id, and another server");
    cloud.tear_down().await.unwrap();
}
