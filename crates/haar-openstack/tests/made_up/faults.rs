//! Answers that are no answers, limits, and lists in pages.

use std::time::Duration;

use haar_cloud::{Class, Error, Provider as _};
use haar_openstack::OpenStack;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fake::{Fake, Fault};

async fn cloud(fake: &Fake) -> OpenStack {
    OpenStack::connect(fake.settings()).await.unwrap()
}

#[tokio::test]
async fn whatever_comes_in_place_of_an_answer_is_to_be_asked_again() {
    let fake = Fake::start().await;
    let cloud = cloud(&fake).await;
    let page = "<html><head><title>503</title></head></html>";
    for (status, body) in
        [(503, ""), (500, page), (502, page), (504, "{}"), (404, page), (200, page), (200, ""), (200, "{}")]
    {
        fake.fault("GET /compute/v2.1/servers/s1", 1, status, body);
        let error = cloud.server("s1").await.unwrap_err();
        assert!(error.is_transient(), "{status} {body}: {error:?}");
    }
    let error = cloud.server("s1").await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("s1"), "{error:?}");
}

#[tokio::test]
async fn the_clouds_wish_for_a_pause_reaches_the_caller() {
    let fake = Fake::start().await;
    let cloud = cloud(&fake).await;
    let headers = &[("retry-after", "17")];
    let on = "GET /compute/v2.1/flavors";
    fake.world().faults.push(Fault { on, times: 1, status: 429, headers, body: "" });
    let error = cloud.flavors().await.unwrap_err();
    let Error::Transient { retry_after, .. } = error else { panic!("{error:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(17)));
    assert_eq!(
        fake.world().asked.iter().filter(|line| line.starts_with(on)).count(),
        1,
        "it waits for nothing"
    );
}

#[tokio::test]
async fn nothing_at_all_is_to_be_asked_again() {
    let fake = Fake::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    // Takes connections, and closes them without a word.
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let error = OpenStack::connect(fake.settings_with(&[("OS_AUTH_URL", &silent)])).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_tls_that_breaks_off_is_to_be_asked_again_and_no_bad_certificate() {
    let fake = Fake::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    // A balancer that restarts: to each hello it says that it has an internal error.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = [0; 512];
            let _ = stream.read(&mut hello).await;
            let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, 80]).await;
            // Until it has left, so that the alert arrives.
            while stream.read(&mut hello).await.is_ok_and(|bytes| bytes > 0) {}
        }
    });
    let error = OpenStack::connect(fake.settings_with(&[("OS_AUTH_URL", &url)])).await.unwrap_err();
    assert!(error.is_transient() && !error.to_string().contains("certificate"), "{error:?}");
}

#[tokio::test]
async fn case_36_every_list_is_read_to_its_last_page() {
    let fake = Fake::start().await;
    let cloud = cloud(&fake).await;
    {
        let mut world = fake.world();
        world.page = Some(2);
        for number in 0..7 {
            world.add("servers", json!({"name": format!("s{number}"), "status": "ACTIVE"}));
            let id = world.new_id();
            world.of("images").push(json!({"id": id, "name": "more", "status": "active"}));
            world.of("flavors").push(json!({"id": id, "name": "more", "vcpus": 1, "ram": 1, "disk": 1}));
        }
    }
    assert_eq!(cloud.servers().await.unwrap().len(), 7);
    assert_eq!(cloud.images().await.unwrap().len(), 8, "one of nine is not ready");
    assert_eq!(cloud.flavors().await.unwrap().len(), 9);
}

#[tokio::test]
async fn pages_as_large_as_one_asks_for_lead_to_the_same_lists() {
    let fake = Fake::start().await;
    for number in 0..5 {
        fake.world().add("servers", json!({"name": format!("s{number}"), "status": "ACTIVE"}));
    }
    let mut settings = fake.settings();
    settings.page_size = Some(2);
    let cloud = OpenStack::connect(settings).await.unwrap();
    assert_eq!(cloud.servers().await.unwrap().len(), 5);
    assert_eq!(fake.world().asked.iter().filter(|line| line.contains("servers")).count(), 3);
}

#[tokio::test]
async fn a_list_whose_pages_lead_back_to_themselves_ends() {
    let fake = Fake::start().await;
    let cloud = cloud(&fake).await;
    let body = r#"{"servers": [{"id": "1", "status": "ACTIVE"}],
        "servers_links": [{"rel": "next", "href": "http://x/?marker=1"}]}"#;
    fake.fault("GET /compute/v2.1/servers", usize::MAX, 200, body);
    let error = cloud.servers().await.unwrap_err();
    assert!(error.to_string().contains("no end"), "{error}");
}

#[tokio::test]
async fn case_34_defect_11_no_limit_is_none_and_volumes_count_where_there_are_any() {
    let fake = Fake::start().await;
    let quota = cloud(&fake).await.quota().await.unwrap();
    assert_eq!((quota.max_instances, quota.max_cores), (None, Some(20)));
    assert_eq!((quota.used.instances, quota.used.cores, quota.used.ram_mb), (4, 6, 6144));
    assert_eq!((quota.max_volume_gb, quota.used.volume_gb), (None, 8), "what is promised counts as used");
}

#[tokio::test]
async fn a_no_is_told_by_its_status_and_fault() {
    let fake = Fake::start().await;
    let cloud = cloud(&fake).await;
    let cases = [
        (
            409,
            r#"{"NeutronError": {"type": "SubnetInUse", "message": "Unable", "detail": ""}}"#,
            Class::Conflict,
        ),
        (
            409,
            r#"{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded", "detail": ""}}"#,
            Class::OverQuota,
        ),
        (
            403,
            r#"{"NeutronError": {"type": "PolicyNotAuthorized", "message": "no", "detail": ""}}"#,
            Class::Auth,
        ),
        (
            404,
            r#"{"NeutronError": {"type": "SubnetNotFound", "message": "no", "detail": ""}}"#,
            Class::NotFound,
        ),
    ];
    for (status, body, class) in cases {
        fake.fault("DELETE /network/v2.0/subnets/s", 1, status, body);
        let error = cloud.delete(haar_cloud::state::Kind::Subnet, "s").await.unwrap_err();
        assert_eq!(error.class(), class, "{error:?}");
    }
    let body = r#"{"badRequest": {"code": 400, "message": "Volume status must be available"}}"#;
    fake.fault("DELETE /volume", 1, 400, body);
    let error = cloud.delete(haar_cloud::state::Kind::Volume, "v").await.unwrap_err();
    assert_eq!(error.class(), Class::Conflict, "{error:?}");
}
