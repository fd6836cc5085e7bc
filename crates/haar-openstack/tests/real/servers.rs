//! Servers: addresses of their own, volumes to boot from, builds that fail.

use haar_cloud::provider::ServerState;
use haar_cloud::state::Kind;
use haar_cloud::{Class, Provider as _};

use crate::harness::{Cloud, destroyed, released, spawned, until};
use crate::support::Site;

#[tokio::test]
async fn case_19_defect_07_two_servers_at_once_get_an_address_each_that_nobody_had() {
    let Some(there) = Cloud::working() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, site: std::sync::Arc<Site>| async move {
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        let order = site.order(&*cloud, "m.tiny", "Debian 12").await;
        let other = site.order(&*cloud, "m.tiny", "Debian 12").await;
        let first = spawned(&cloud, &site, &order).await;
        let second = spawned(&cloud, &site, &other).await;
        let (one, two) = tokio::join!(
            cloud.add_external_address(&site.deployment, &first, &site.journal),
            cloud.add_external_address(&site.deployment, &second, &site.journal),
        );
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_ne!(one, two);
        let shown = || async {
            let view = cloud.server(&first.id).await.unwrap();
            (!view.external_addresses.is_empty()).then_some(view.external_addresses)
        };
        assert_eq!(until("the address to be shown", shown).await, [one]);
        let again = cloud.add_external_address(&site.deployment, &first, &site.journal).await.unwrap();
        assert_eq!(again, one);
        let addresses = site.ours().iter().filter(|(kind, _)| *kind == Kind::FloatingIp).count();
        assert_eq!(addresses, 2);
        destroyed(&cloud, &first.id).await;
        let error = cloud.server(&first.id).await.unwrap_err();
        assert!(error.is_not_found(), "{error:?}");
    };
    there.on_site("haar addresses", body).await;
}

#[tokio::test]
async fn case_14_a_volume_to_boot_from_comes_and_goes_with_its_server() {
    let Some(there) = Cloud::working() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, site: std::sync::Arc<Site>| async move {
        let used = || async { cloud.quota().await.unwrap().used.volume_gb };
        let before = used().await;
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        let mut order = site.order(&*cloud, "m.tiny", "Ubuntu").await;
        order.volume_gb = Some(5);
        let view = spawned(&cloud, &site, &order).await;
        assert_eq!(view.state, ServerState::Active, "{view:?}");
        assert_eq!(used().await, before + 5);
        let survey = cloud.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap();
        let volume = survey.into_iter().find(|found| found.kind == Kind::Volume).unwrap();
        assert!(volume.ours && volume.name == view.name, "{volume:?}");
        assert!(site.ours().contains(&(Kind::Volume, volume.id)));
        destroyed(&cloud, &view.id).await;
        until("the volume to go", || async { (used().await == before).then_some(()) }).await;
    };
    there.on_site("haar volume", body).await;
}

#[tokio::test]
async fn case_16_defect_09_no_machine_for_it_is_told_as_that_and_the_server_can_be_taken_away() {
    let Some(there) = Cloud::working() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, site: std::sync::Arc<Site>| async move {
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        // More cores than any one host has.
        let order = site.order(&*cloud, "c.xl", "Debian 12").await;
        let view = spawned(&cloud, &site, &order).await;
        assert_eq!(view.state, ServerState::Failed);
        assert!(view.fault.as_ref().unwrap().is_no_hardware(), "{view:?}");
        destroyed(&cloud, &view.id).await;
    };
    there.on_site("haar hardware", body).await;
}

#[tokio::test]
async fn a_flavor_or_image_that_has_vanished_is_refused_with_its_name() {
    let Some(there) = Cloud::working() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, site: std::sync::Arc<Site>| async move {
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        let order = site.order(&*cloud, "m.tiny", "Debian 12").await;
        let mut flavorless = order.clone();
        flavorless.flavor.id = "gone".to_owned();
        let mut imageless = order;
        imageless.image.id = uuid::Uuid::new_v4().to_string();
        for order in [flavorless, imageless] {
            let error = cloud.create_server(&site.deployment, &order, &site.journal).await.unwrap_err();
            assert_eq!(error.class(), Class::Input, "{error}");
            assert!(error.to_string().contains(&order.name), "{error}");
        }
    };
    there.on_site("haar vanished", body).await;
}

#[tokio::test]
async fn a_build_that_fails_for_no_lack_of_machines_says_so_and_leaves_no_volume() {
    let Some(there) = Cloud::aborting() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, site: std::sync::Arc<Site>| async move {
        let used = || async { cloud.quota().await.unwrap().used.volume_gb };
        let before = used().await;
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        for volume_gb in [None, Some(5)] {
            let mut order = site.order(&*cloud, "m.tiny", "Debian 12").await;
            order.volume_gb = volume_gb;
            let view = spawned(&cloud, &site, &order).await;
            assert_eq!(view.state, ServerState::Failed);
            let fault = view.fault.as_ref().unwrap();
            assert!(fault.class() == Class::Server && fault.to_string().contains(&view.name), "{fault}");
            destroyed(&cloud, &view.id).await;
            released(&cloud, &site).await;
        }
        until("the volume to go", || async { (used().await == before).then_some(()) }).await;
    };
    there.on_site("haar aborted", body).await;
}
