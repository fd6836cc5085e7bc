//! Logging in: each way, each way it fails, and tokens that run out.

use haar_cloud::{Class, Error, Provider as _};
use haar_openstack::{OpenStack, Settings};

use crate::fake::{Fake, Fault};

async fn refusal(settings: Settings) -> Error {
    OpenStack::connect(settings).await.expect_err("this login must fail")
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once_and_as_such() {
    let fake = Fake::start().await;
    let error = refusal(fake.settings_with(&[("OS_PASSWORD", "wrong")])).await;
    assert!(matches!(error, Error::Auth { .. }), "{error:?}");
    assert!(!error.to_string().contains("wrong)"), "{error}");
    for part in [fake.url.as_str(), "the environment (OS_PASSWORD,", "OS_USERNAME"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn case_02_what_is_missing_is_named_together_before_anybody_is_asked() {
    let fake = Fake::start().await;
    let set = [("OS_AUTH_URL", fake.url.as_str()), ("OS_USERNAME", "demo"), ("HOME", "/h")];
    let value = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let error = Settings::read(value).unwrap_err();
    assert!(matches!(error, Error::MissingEnv { .. }), "{error:?}");
    for part in ["set OS_PASSWORD, OS_REGION_NAME,", "/h/.config/openstack/clouds.yaml"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(fake.world().asked.is_empty(), "{:?}", fake.world().asked);
}

#[tokio::test]
async fn application_credentials_and_tokens_open_the_door_too() {
    let fake = Fake::start().await;
    let credential = [("OS_APPLICATION_CREDENTIAL_ID", "c"), ("OS_APPLICATION_CREDENTIAL_SECRET", "secret")];
    let token = [("OS_TOKEN", "given")];
    for set in [&credential[..], &token[..]] {
        let cloud = OpenStack::connect(fake.settings_with(set)).await.unwrap();
        assert_eq!(cloud.flavors().await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_region_that_is_not_there_is_told_with_those_that_are() {
    let fake = Fake::start().await;
    let error = refusal(fake.settings_with(&[("OS_REGION_NAME", "three")])).await;
    assert_eq!(error.class(), Class::Input);
    assert!(error.to_string().contains("`three`") && error.to_string().contains("one, two"), "{error}");
}

#[tokio::test]
async fn a_region_is_a_place_and_the_address_of_keystone_is_none() {
    let fake = Fake::start().await;
    let place = async |set: &[(&str, &str)]| {
        OpenStack::connect(fake.settings_with(set)).await.unwrap().place().unwrap()
    };
    let (one, two) = (place(&[]).await, place(&[("OS_REGION_NAME", "two")]).await);
    assert!(one.contains("region one") && two.contains("region two"), "{one} {two}");
    let longer = format!("{}/v3/", fake.url);
    assert_eq!(place(&[("OS_AUTH_URL", &longer)]).await, one);
}

#[tokio::test]
async fn a_cloud_without_volumes_has_no_limit_of_them_and_one_without_a_network_says_so() {
    let fake = Fake::start().await;
    fake.world().without = vec!["volumev3", "network"];
    let cloud = OpenStack::connect(fake.settings()).await.unwrap();
    let quota = cloud.quota().await.unwrap();
    assert_eq!((quota.max_volume_gb, quota.used.volume_gb), (None, 0));
    let name = haar_cloud::name::ResourceName::parse("a").unwrap();
    let error = cloud.survey(&name, None).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("network (region one"), "{error}");
}

#[tokio::test]
async fn defect_33_what_answers_in_keystones_place_is_no_wrong_password() {
    let fake = Fake::start().await;
    for (status, body) in
        [(200, "<html>welcome</html>"), (502, "<html>bad gateway</html>"), (503, ""), (201, "")]
    {
        fake.fault("POST /v3/auth/tokens", 1, status, body);
        let error = refusal(fake.settings()).await;
        assert!(error.is_transient() && error.to_string().contains("Keystone http"), "{status}: {error}");
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let error = refusal(fake.settings_with(&[("OS_AUTH_URL", &url)])).await;
    assert!(error.is_transient() && error.to_string().contains(&url), "{error}");
    let error = refusal(fake.settings_with(&[("OS_AUTH_URL", "nowhere")])).await;
    assert_eq!(error.class(), Class::Input, "{error}");
}

#[tokio::test]
async fn defect_33_a_login_that_ends_half_way_gives_no_half_cloud() {
    let fake = Fake::start().await;
    let headers = &[("x-subject-token", "t")];
    let on = "POST /v3/auth/tokens";
    // A token of no project, of no catalog, and one that nobody tells.
    for (headers, body, class) in [
        (
            &headers[..],
            r#"{"token": {"catalog": [], "issued_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T01:00:00Z"}}"#,
            Class::Auth,
        ),
        (&headers[..], r#"{"token": {"project": {"id": "p1"}}}"#, Class::Input),
        (&[][..], r#"{"token": {"project": {"id": "p1"}, "catalog": []}}"#, Class::Transient),
    ] {
        fake.world().faults.push(Fault { on, times: 1, status: 201, headers, body });
        let error = refusal(fake.settings()).await;
        assert_eq!(error.class(), class, "{body}: {error:?}");
    }
    OpenStack::connect(fake.settings()).await.unwrap();
}

#[tokio::test]
async fn case_36_a_token_that_runs_out_is_replaced_unseen_and_only_once() {
    let fake = Fake::start().await;
    let cloud = OpenStack::connect(fake.settings()).await.unwrap();
    cloud.servers().await.unwrap();
    assert_eq!(fake.world().logins, 1);
    fake.world().tokens.clear();
    // Many find out at the same moment.
    let asked = (0..20).map(|_| cloud.servers());
    for answer in futures_util::future::join_all(asked).await {
        answer.unwrap();
    }
    assert_eq!(fake.world().logins, 2);
}

#[tokio::test]
async fn a_login_that_is_refused_later_is_told_and_not_tried_for_ever() {
    let fake = Fake::start().await;
    let cloud = OpenStack::connect(fake.settings()).await.unwrap();
    fake.fault("GET /compute/v2.1/servers", usize::MAX, 401, "");
    let error = cloud.servers().await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error:?}");
    assert_eq!(fake.world().logins, 2);
}

#[tokio::test]
async fn a_password_that_is_refused_is_not_tried_once_for_each_who_needs_it() {
    let fake = Fake::start().await;
    let cloud = OpenStack::connect(fake.settings()).await.unwrap();
    // It was changed, and the tokens do not count any more.
    fake.world().tokens.clear();
    fake.fault("POST /v3/auth/tokens", usize::MAX, 401, r#"{"error": {"code": 401, "message": "no"}}"#);
    let asked = (0..100).map(|_| cloud.servers());
    for answer in futures_util::future::join_all(asked).await {
        assert!(matches!(answer, Err(Error::Auth { .. })), "{answer:?}");
    }
    assert!(matches!(cloud.flavors().await, Err(Error::Auth { .. })));
    let tried = fake.world().asked.iter().filter(|line| line.contains("/auth/tokens")).count();
    assert_eq!(tried, 2, "the first login, and one more");
}

#[tokio::test]
async fn a_file_of_certificates_that_is_none_is_named() {
    let fake = Fake::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    for text in [None, Some("no certificate\n")] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let error = refusal(fake.settings_with(&[("OS_CACERT", file.to_str().unwrap())])).await;
        assert!(error.to_string().contains("ca.pem"), "{error}");
    }
}
