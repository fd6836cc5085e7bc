//! Servers and their addresses: what is asked of the cloud, and what is understood of its answers.

use haar_cloud::Provider as _;
use haar_cloud::name::Owner;
use haar_cloud::provider::ServerState;
use haar_cloud::state::Kind;
use haar_openstack::OpenStack;
use serde_json::json;

use crate::fake::Fake;
use crate::support::{Site, prepared};

async fn deployed(name: &str) -> (Fake, OpenStack, Site) {
    let fake = Fake::start().await;
    let (cloud, site) = (OpenStack::connect(fake.settings()).await.unwrap(), Site::new(name));
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    (fake, cloud, site)
}

#[tokio::test]
async fn case_14_a_volume_is_booted_from_where_one_is_asked_for_and_goes_with_the_server() {
    let (fake, cloud, site) = deployed("a").await;
    let mut order = site.order(&cloud, "small", "Debian").await;
    cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
    let plain = fake.world().body("POST /compute/v2.1/servers")["server"].clone();
    assert_eq!((&plain["imageRef"], plain.get("block_device_mapping_v2")), (&json!("i1"), None));
    let (key, value) = site.deployment.id.metadata();
    assert_eq!(plain["metadata"], json!({key: value}));
    assert_eq!(plain["user_data"], json!("IyEvYmluL3NoCnRydWUK"));
    assert_eq!((&plain["key_name"], &plain["config_drive"]), (&json!("a"), &json!(false)));
    assert_eq!(plain["security_groups"][1], json!({"name": "default"}));

    order.volume_gb = Some(20);
    fake.world().without = vec!["volumev3"];
    let cloud = OpenStack::connect(fake.settings()).await.unwrap();
    prepared(&cloud, &site, &order).await;
    let made = cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
    assert_eq!(made.admin_password.as_deref(), Some("pw"));
    let booted = fake.world().body("POST /compute/v2.1/servers")["server"].clone();
    let volume = &booted["block_device_mapping_v2"][0];
    assert_eq!((&volume["volume_size"], &volume["delete_on_termination"]), (&json!(20), &json!(true)));
    assert_eq!(
        (&volume["source_type"], &volume["uuid"]),
        (&json!("image"), &json!("i1")),
        "Nova makes it there"
    );
    assert!(booted.get("imageRef").is_none());
}

#[tokio::test]
async fn a_server_is_told_with_whose_it_is_and_a_survey_knows_ours_by_the_mark_alone() {
    let (fake, cloud, site) = deployed("al").await;
    let order = site.order(&cloud, "small", "Debian").await;
    let made = cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
    let view = cloud.server(&made.id).await.unwrap();
    assert_eq!((view.state, view.status.as_str()), (ServerState::Building, "BUILD"));
    assert_eq!((view.flavor.as_str(), view.owner), ("f1", Owner::Another(site.deployment.id)));
    // Neither the longer name of another, nor one of our form without our mark, is ours.
    let alike = format!("al-{}", uuid::Uuid::new_v4());
    fake.world()
        .add("servers", json!({"name": format!("alice-{}", uuid::Uuid::new_v4()), "status": "ACTIVE"}));
    fake.world().add("servers", json!({"name": alike, "status": "ACTIVE"}));
    let survey = cloud.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap();
    let servers: Vec<(&str, bool)> = survey
        .iter()
        .filter(|found| found.kind == Kind::Server)
        .map(|found| (found.name.as_str(), found.ours))
        .collect();
    assert_eq!(servers, [(order.name.as_str(), true), (alike.as_str(), false)]);
}

#[tokio::test]
async fn an_address_is_always_a_new_one_and_one_whose_answer_was_lost_is_found_again() {
    let (fake, cloud, site) = deployed("a").await;
    let order = site.order(&cloud, "small", "Debian").await;
    let made = cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
    let view = cloud.server(&made.id).await.unwrap();
    let foreign = json!({"floating_ip_address": "203.0.113.250", "port_id": null, "tags": []});
    fake.world().add("floatingips", foreign);
    let first = cloud.add_external_address(&site.deployment, &view, &site.journal).await.unwrap();
    assert_ne!(first.to_string(), "203.0.113.250");
    let again = cloud.add_external_address(&site.deployment, &view, &site.journal).await.unwrap();
    assert_eq!((again, fake.world().of("floatingips").len()), (first, 2));
    let survey = cloud.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap();
    let ours: Vec<&str> = survey
        .iter()
        .filter(|found| found.kind == Kind::FloatingIp)
        .map(|found| found.name.as_str())
        .collect();
    assert_eq!(ours, [first.to_string()]);
}

#[tokio::test]
async fn case_20_a_server_without_an_address_gets_none_outside_and_is_told() {
    let (fake, cloud, site) = deployed("a").await;
    let order = site.order(&cloud, "small", "Debian").await;
    let made = cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap();
    let view = cloud.server(&made.id).await.unwrap();
    assert!(view.addresses.is_empty());
    fake.world().of("ports").clear();
    let error = cloud.add_external_address(&site.deployment, &view, &site.journal).await.unwrap_err();
    assert!(error.to_string().contains(&view.name), "{error}");
    assert!(fake.world().of("floatingips").is_empty());
}

#[tokio::test]
async fn without_a_deploy_there_is_nothing_for_a_server_to_stand_on() {
    let fake = Fake::start().await;
    let (cloud, site) = (OpenStack::connect(fake.settings()).await.unwrap(), Site::new("a"));
    let order = site.order(&cloud, "small", "Debian").await;
    let error = cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("deploy it first"), "{error}");
}

#[tokio::test]
async fn everything_can_be_taken_away_again_by_what_is_on_record() {
    let (fake, cloud, site) = deployed("a").await;
    for (kind, id) in site.ours() {
        cloud.delete(kind, &id).await.unwrap();
        let again = cloud.delete(kind, &id).await.unwrap_err();
        assert!(again.is_not_found(), "{kind}: {again:?}");
    }
    let survey = cloud.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap();
    assert!(survey.is_empty(), "{survey:?}");
    assert_eq!(fake.world().of("networks").len(), 1, "the one that leads out");
}
