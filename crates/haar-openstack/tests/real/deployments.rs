//! Deployments: made, found again, finished, told apart, and taken away.

use haar_cloud::provider::{Found, ServerState};
use haar_cloud::state::Kind;
use haar_cloud::{Class, Provider as _};

use crate::harness::{Cloud, spawned, tear_down};
use crate::support::{OTHER_KEY, Site};

fn ours(survey: &[Found]) -> Vec<(Kind, String)> {
    let mut all: Vec<(Kind, String)> =
        survey.iter().filter(|found| found.ours).map(|found| (found.kind, found.id.clone())).collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_deployment_is_made_once_used_and_taken_away_without_a_trace() {
    let Some(there) = Cloud::working() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, site: std::sync::Arc<Site>| async move {
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        let made = site.ours();
        let kinds: Vec<Kind> = made.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds.len(), 6, "{made:?}");
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        assert_eq!(site.ours(), made);
        let survey = cloud.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap();
        assert_eq!(ours(&survey), made);

        let order = site.order(&*cloud, "m.tiny", "Debian 12").await;
        let view = spawned(&cloud, &site, &order).await;
        assert_eq!(view.state, ServerState::Active, "{view:?}");
        let inside = match view.addresses[..] {
            [std::net::IpAddr::V4(address)] => site.deployment.ground.cidr.contains(&address),
            _ => false,
        };
        assert!(inside, "{view:?}");
        assert!(cloud.console(&view.id).await.unwrap().contains("FAKE CONSOLE OUTPUT"));
        let error = cloud.delete(Kind::Subnet, &made[2].1).await.unwrap_err();
        assert_eq!((made[2].0, error.class()), (Kind::Subnet, Class::Conflict), "{error}");

        tear_down(&cloud, &site).await;
        let survey = cloud.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap();
        assert!(survey.is_empty(), "{survey:?}");
        for (kind, id) in made {
            let error = cloud.delete(kind, &id).await.unwrap_err();
            assert!(error.is_not_found(), "{kind}: {error:?}");
        }
    };
    there.on_site("haar once", body).await;
}

#[tokio::test]
async fn case_07_defect_01_a_deploy_that_failed_half_way_is_finished_by_the_next() {
    let Some(there) = Cloud::working() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, site: std::sync::Arc<Site>| async move {
        let mut wrong = site.deployment.clone();
        wrong.ground.external_network = Some("nowhere".to_owned());
        let error = cloud.deploy(&wrong, &site.journal).await.unwrap_err();
        assert!(error.to_string().contains("nowhere") && error.to_string().contains("public ("), "{error}");
        let begun = site.ours();
        assert_eq!(begun.len(), 4, "{begun:?}");
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        let all = site.ours();
        assert!(all.len() == 6 && begun.iter().all(|one| all.contains(one)), "{all:?}");
    };
    there.on_site("haar half", body).await;
}

#[tokio::test]
async fn case_21_defect_02_the_shorter_name_takes_nothing_of_the_longer_one() {
    let Some(there) = Cloud::working() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, al: std::sync::Arc<Site>| async move {
        let alice = Site::new(&format!("{}ice", al.name()));
        let mut views = Vec::new();
        for site in [&*al, &alice] {
            cloud.deploy(&site.deployment, &site.journal).await.unwrap();
            let order = site.order(&*cloud, "m.tiny", "Debian 12").await;
            views.push(spawned(&cloud, site, &order).await);
        }
        let survey = cloud.survey(&al.deployment.name, Some(al.deployment.id)).await.unwrap();
        tear_down(&cloud, &al).await;
        let left = cloud.server(&views[1].id).await.map(|view| view.state);
        let whole = ours(&cloud.survey(&alice.deployment.name, Some(alice.deployment.id)).await.unwrap());
        tear_down(&cloud, &alice).await;
        assert!(survey.iter().all(|found| found.id != views[1].id && found.ours));
        assert_eq!(left.unwrap(), ServerState::Active);
        assert_eq!(whole.len(), 7, "{whole:?}");
    };
    there.on_site("haar al", body).await;
}

#[tokio::test]
async fn case_08_a_key_pair_of_the_name_with_another_key_is_refused() {
    let Some(there) = Cloud::working() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, site: std::sync::Arc<Site>| async move {
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        let mut other = site.deployment.clone();
        other.public_key = OTHER_KEY.to_owned();
        let error = cloud.deploy(&other, &site.journal).await.unwrap_err();
        assert!(error.class() == Class::Conflict && error.to_string().contains("another key"), "{error}");
    };
    there.on_site("haar key", body).await;
}

#[tokio::test]
async fn a_narrower_source_replaces_the_rules_and_others_deployments_are_in_the_way() {
    let Some(there) = Cloud::working() else { return };
    let body = |cloud: std::sync::Arc<haar_openstack::OpenStack>, site: std::sync::Arc<Site>| async move {
        cloud.deploy(&site.deployment, &site.journal).await.unwrap();
        let mut narrow = site.deployment.clone();
        narrow.ground.sources = vec!["198.51.100.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        cloud.deploy(&narrow, &site.journal).await.unwrap();
        cloud.deploy(&narrow, &site.journal).await.unwrap();
        // The same name, by somebody who has another record.
        let stranger = Site::new(site.name());
        let error = cloud.deploy(&stranger.deployment, &stranger.journal).await.unwrap_err();
        assert!(error.class() == Class::Conflict, "{error}");
        assert!(error.to_string().contains(&site.deployment.id.to_string()), "{error}");
        // Without a record, everything is still found by its name, and nothing taken for ours.
        let survey = cloud.survey(&site.deployment.name, None).await.unwrap();
        let kinds = [Kind::Router, Kind::Subnet, Kind::Network, Kind::SecurityGroup, Kind::KeyPair];
        assert!(kinds.iter().all(|kind| survey.iter().any(|found| found.kind == *kind)), "{survey:?}");
        assert!(survey.iter().all(|found| !found.ours));
    };
    there.on_site("haar rules", body).await;
}
