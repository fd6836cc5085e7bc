//! What a project may have, and lists in pages.

use haar_cloud::quota::Resource;
use haar_cloud::{Error, Provider as _};
use haar_openstack::OpenStack;

use crate::harness::Cloud;
use crate::support::Site;

#[tokio::test]
async fn case_34_defect_11_limits_are_numbers_and_no_limit_is_none() {
    let Some(there) = Cloud::working() else { return };
    let quota = there.connect("demo").await.quota().await.unwrap();
    let limits = (quota.max_instances, quota.max_cores, quota.max_ram_mb, quota.max_volume_gb);
    assert_eq!(limits, (Some(10), Some(20), Some(51200), Some(500)));
    let quota = there.connect("unlimited").await.quota().await.unwrap();
    let limits = (quota.max_instances, quota.max_cores, quota.max_ram_mb, quota.max_volume_gb);
    assert_eq!(limits, (None, None, None, None));
}

#[tokio::test]
async fn case_16_defect_09_too_much_for_the_quota_tells_what_lacks_and_makes_nothing() {
    let Some(there) = Cloud::working() else { return };
    let cloud = there.connect("demo").await;
    let site = Site::new(&format!("haar quota {}", uuid::Uuid::new_v4().simple()));
    // Its ground is another project's network in name only: the quota is looked at before.
    cloud.deploy(&site.deployment, &site.journal).await.unwrap();
    let order = site.order(&cloud, "c.xxl", "Debian 12").await;
    let refused = cloud.create_server(&site.deployment, &order, &site.journal).await;
    crate::harness::tear_down(&cloud, &site).await;
    let Err(Error::OverQuota { lacks }) = refused else { panic!("{refused:?}") };
    let [lack] = &lacks[..] else { panic!("{lacks:?}") };
    assert_eq!((&lack.what, lack.need), (&Resource::Cores, Some(32)));
    assert!(lack.have.is_some_and(|have| have <= 20), "{lack:?}");
}

#[tokio::test]
async fn pages_of_two_lead_to_the_same_lists_and_only_whole_images_are_told() {
    let Some(there) = Cloud::working() else { return };
    let whole = there.connect("unlimited").await;
    let mut settings = there.settings("unlimited", &[]);
    settings.page_size = Some(2);
    let paged = OpenStack::connect(settings).await.unwrap();
    let flavors = whole.flavors().await.unwrap();
    assert_eq!(flavors.len(), 9);
    let ids = |flavors: Vec<haar_cloud::flavor::Flavor>| {
        let mut ids: Vec<String> = flavors.into_iter().map(|flavor| flavor.id).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(paged.flavors().await.unwrap()), ids(flavors));
    let mut names: Vec<String> = paged.images().await.unwrap().into_iter().map(|image| image.name).collect();
    names.sort();
    assert_eq!(names, ["Debian 12", "Ubuntu Jammy"], "the empty one is not ready");
    let jammy = whole.images().await.unwrap().into_iter().find(|image| image.name == "Ubuntu Jammy").unwrap();
    assert_eq!((jammy.min_disk_gb, jammy.created_at.is_some()), (3, true));
    let site = Site::new("haar nothing of this name");
    assert!(paged.survey(&site.deployment.name, Some(site.deployment.id)).await.unwrap().is_empty());
}
