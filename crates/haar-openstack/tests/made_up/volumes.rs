//! Volumes to boot from: on record and marked before their server, found again, and never left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use haar_cloud::provider::{Found, Ground, Prepared};
use haar_cloud::state::Kind;
use haar_cloud::{Class, Cloud, Provider as _, SpawnOrder};
use haar_openstack::OpenStack;
use serde_json::{Value, json};

use crate::fake::{Fake, Fault};
use crate::support::{Site, prepared};

const MAKE: &str = "POST /volume/v3/p1/volumes";

async fn deployed() -> (Fake, OpenStack, Site) {
    let fake = Fake::start().await;
    let (cloud, site) = (OpenStack::connect(fake.settings()).await.unwrap(), Site::new("a"));
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    (fake, cloud, site)
}

async fn volumes(cloud: &OpenStack, site: &Site) -> Vec<Found> {
    let mut found = cloud.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap();
    found.retain(|found| found.kind == Kind::Volume);
    found
}

fn asked(fake: &Fake, on: &str) -> usize {
    fake.world().asked.iter().filter(|line| *line == on).count()
}

#[tokio::test]
async fn case_14_a_volume_is_on_record_and_marked_before_its_server_is_asked_for() {
    let (fake, cloud, site) = deployed().await;
    let mut order = site.order(&cloud, "small", "Debian").await;
    order.volume_gb = Some(20);
    let first = cloud.prepare_server(&site.deployment, &order, &site.journal).await.unwrap();
    assert!(matches!(&first, Prepared::Making(doing) if doing.contains("creating")), "{first:?}");
    let (key, value) = site.deployment.id.metadata();
    let volume = fake.world().body(MAKE)["volume"].clone();
    let wanted = json!({"name": order.name, "size": 20, "imageRef": "i1", "metadata": {key: value}});
    assert_eq!(volume, wanted);
    let found = volumes(&cloud, &site).await;
    assert!(site.ours().contains(&(Kind::Volume, found[0].id.clone())));
    assert!(found.len() == 1 && found[0].ours && found[0].name == order.name, "{found:?}");
    prepared(&cloud, &site, &order).await;
    cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
    let server = fake.world().body("POST /compute/v2.1/servers")["server"].clone();
    let device = json!({"uuid": found[0].id, "source_type": "volume", "destination_type": "volume",
        "boot_index": 0, "delete_on_termination": true});
    assert_eq!((&server["block_device_mapping_v2"], server.get("imageRef")), (&json!([device]), None));
    assert_eq!(asked(&fake, MAKE), 1);
}

#[tokio::test]
async fn a_volume_whose_answer_was_lost_is_looked_for_and_never_asked_for_again() {
    let (fake, cloud, site) = deployed().await;
    let mut order = site.order(&cloud, "small", "Debian").await;
    order.volume_gb = Some(20);
    let prepare = || cloud.prepare_server(&site.deployment, &order, &site.journal);
    fake.fault(MAKE, 1, 504, "<html>a gateway</html>");
    for _ in 0..2 {
        assert!(prepare().await.unwrap_err().is_transient());
    }
    let (key, value) = site.deployment.id.metadata();
    fake.world().add("volumes", json!({"name": order.name, "status": "available", "metadata": {}}));
    assert!(prepare().await.is_err(), "one of that name is not ours by its name");
    let late = json!({"name": order.name, "status": "available", "metadata": {key: value}});
    let id = fake.world().add("volumes", late);
    assert_eq!(prepare().await.unwrap(), Prepared::Ready);
    assert!(site.ours().contains(&(Kind::Volume, id)));
    assert_eq!(asked(&fake, MAKE), 1);
}

#[tokio::test]
async fn a_cinder_that_is_busy_is_asked_again_and_a_volume_that_failed_is_told() {
    let (fake, cloud, site) = deployed().await;
    let mut order = site.order(&cloud, "small", "Debian").await;
    order.volume_gb = Some(20);
    let headers = &[("retry-after", "1")];
    fake.world().faults.push(Fault { on: MAKE, times: 1, status: 429, headers, body: "" });
    let prepare = || cloud.prepare_server(&site.deployment, &order, &site.journal);
    assert!(prepare().await.unwrap_err().is_transient());
    assert!(matches!(prepare().await.unwrap(), Prepared::Making(_)));
    fake.world().of("volumes")[0]["status"] = "error".into();
    let error = prepare().await.unwrap_err();
    assert!(error.class() == Class::Server && error.to_string().contains(&order.name), "{error}");
}

#[tokio::test]
async fn whoever_may_not_look_at_volumes_has_none() {
    let (fake, cloud, site) = deployed().await;
    let body = r#"{"forbidden": {"code": 403, "message": "Policy doesn't allow volume:get_all"}}"#;
    fake.fault("GET /volume/v3/p1/volumes/detail", 1, 403, body);
    assert!(volumes(&cloud, &site).await.is_empty());
}

#[tokio::test]
async fn a_spawn_that_is_dropped_in_the_midst_leaves_no_volume_that_nova_left() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let provider = Arc::new(OpenStack::connect(fake.settings()).await.unwrap());
    let cloud = Cloud::new(provider, &"a".parse().unwrap(), folder.path()).unwrap();
    cloud.deploy(Ground::default()).await.unwrap();
    let order = SpawnOrder { disk_gb: 30, ..SpawnOrder::new("Debian", "debian", "small") };
    let there = |kind: &'static str| fake.world().of(kind).len();
    // Once while the volume is made, once while the server is.
    for kind in ["volumes", "servers"] {
        let spawn = tokio::spawn(cloud.spawn(order.clone(), || {}));
        let end = Instant::now() + Duration::from_secs(60);
        while there(kind) == 0 {
            assert!(Instant::now() < end && !spawn.is_finished(), "no {kind} came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        spawn.abort();
        let _ = spawn.await;
        cloud.settled().await;
        assert_eq!((there("servers"), there("volumes")), (0, 0), "{kind}");
        let record = cloud.record().await.unwrap().unwrap();
        let kinds: Vec<Kind> = record.entries().map(|entry| entry.kind).collect();
        assert!(!kinds.contains(&Kind::Server) && !kinds.contains(&Kind::Volume), "{kinds:?}");
    }
    // One that no record knows goes with the deployment.
    let id = cloud.record().await.unwrap().unwrap().deployment();
    let (key, value) = id.metadata();
    let stray = json!({"name": "stray", "status": "available", "metadata": {key: value}});
    let theirs = json!({"name": "theirs", "status": "available", "metadata": {}});
    fake.world().add("volumes", stray);
    fake.world().add("volumes", theirs);
    let torn = cloud.tear_down().await.unwrap();
    assert!(torn.destroyed.iter().any(|thing| thing.kind == Kind::Volume && thing.name == "stray"));
    let left: Vec<Value> = fake.world().of("volumes").iter().map(|volume| volume["name"].clone()).collect();
    assert_eq!(left, [json!("theirs")]);
}
