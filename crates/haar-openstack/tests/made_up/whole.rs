//! A deployment's own handle over the made-up cloud: what the provider and the record only show together.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use haar_cloud::provider::Ground;
use haar_cloud::state::Kind;
use haar_cloud::{Class, Cloud, SpawnOrder};
use haar_openstack::OpenStack;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake::{Fake, Fault};

/// A deployment, and its record in a folder that goes with it.
struct Whole {
    fake: Fake,
    cloud: Cloud,
    folder: TempDir,
}

impl Whole {
    async fn deployed(name: &str) -> Self {
        let (fake, folder) = (Fake::start().await, tempfile::tempdir().unwrap());
        let cloud = process(&fake, name, &folder).await;
        cloud.deploy(Ground { ports: vec![22, 80], ..Ground::default() }).await.unwrap();
        Self { fake, cloud, folder }
    }

    fn order(&self) -> SpawnOrder {
        SpawnOrder::new("Debian", "debian", "small")
    }

    /// What the cloud has beside what its operator put there.
    fn left(&self) -> Vec<(&'static str, usize)> {
        let mut world = self.fake.world();
        let kinds = [
            "servers",
            "keypairs",
            "networks",
            "subnets",
            "routers",
            "ports",
            "floatingips",
            "security-groups",
        ];
        let counts = kinds.map(|kind| (kind, world.of(kind).len()));
        counts.into_iter().filter(|(kind, count)| *count > usize::from(*kind == "networks")).collect()
    }
}

/// The handle of a process that has just begun.
async fn process(fake: &Fake, name: &str, folder: &TempDir) -> Cloud {
    let provider = OpenStack::connect(fake.settings()).await.unwrap();
    Cloud::new(Arc::new(provider), &name.parse().unwrap(), folder.path()).unwrap()
}

fn running() -> Value {
    json!({"status": "ACTIVE",
        "addresses": {"a": [{"addr": "192.168.64.7", "OS-EXT-IPS:type": "fixed"}]}})
}

#[tokio::test]
async fn case_05_the_record_is_private_and_its_key_is_the_clouds() {
    let whole = Whole::deployed("a").await;
    let record = whole.cloud.record().await.unwrap().unwrap();
    assert_eq!(record.to_destroy().len(), 6);
    assert_eq!(record.unsettled().count(), 0);
    for file in std::fs::read_dir(whole.folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
    }
    let private_key = whole.cloud.private_key().await.unwrap().unwrap();
    assert!(private_key.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
    let deployment = whole.cloud.deployment().await.unwrap();
    let key = |text: &str| text.split(' ').nth(1).unwrap().trim().to_owned();
    let known = whole.fake.world().of("keypairs")[0]["public_key"].as_str().unwrap().to_owned();
    assert_eq!(key(&known), key(&deployment.public_key));
}

#[tokio::test]
async fn case_03_every_sign_that_a_name_may_have_goes_there_and_back() {
    let mut name: String = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain("_ -".chars()).collect();
    name = format!(" {name} ");
    let whole = Whole::deployed(&name).await;
    whole.fake.world().becomes = Some((0, running()));
    let server = whole.cloud.spawn(whole.order(), || {}).await.unwrap();
    assert!(server.name().starts_with(&name));
    let cloud = process(&whole.fake, &name, &whole.folder).await;
    assert_eq!(cloud.servers().await.unwrap().len(), 1);
    cloud.tear_down().await.unwrap();
    assert_eq!(whole.left(), []);
    assert_eq!(std::fs::read_dir(whole.folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn case_16_defect_10_a_build_is_followed_to_its_end_whatever_stumbles() {
    let whole = Whole::deployed("a").await;
    whole.fake.world().becomes = Some((3, running()));
    whole.fake.world().changes();
    whole.fake.fault("GET /compute/v2.1/servers/", 1, 503, "<html>503</html>");
    whole.fake.fault("GET /compute/v2.1/servers/", 1, 503, "");
    let server = whole.cloud.spawn(whole.order(), || {}).await.unwrap();
    assert_eq!(server.address().unwrap().to_string(), "192.168.64.7");
    let looks = |line: &&String| line.starts_with("GET /compute/v2.1/servers/");
    assert_eq!(whole.fake.world().asked.iter().filter(looks).count(), 6);
}

#[tokio::test]
async fn case_16_defect_09_a_servers_fault_is_told_by_its_class_and_the_server_is_gone() {
    let whole = Whole::deployed("a").await;
    for (code, message, class) in [
        (500, "No valid host was found. ", Class::NoHardware),
        (500, "No valid host was found. There are not enough hosts available.", Class::NoHardware),
        (500, "Build of instance 1 aborted: VolumeLimitExceeded: no more.", Class::OverQuota),
        (400, "Image 1 is unacceptable: it is no image", Class::Server),
    ] {
        // Nobody waits here after what happened to another process.
        let cloud = process(&whole.fake, "a", &whole.folder).await;
        let fault = json!({"code": code, "message": message, "created": "2026-01-01T00:00:00Z"});
        whole.fake.world().becomes = Some((1, json!({"status": "ERROR", "fault": fault})));
        let error = cloud.spawn(whole.order(), || {}).await.unwrap_err();
        assert_eq!(error.class(), class, "{error:?}");
        assert!(whole.fake.world().of("servers").is_empty(), "{message}");
        assert!(cloud.servers().await.unwrap().is_empty(), "{message}");
    }
    let body = r#"{"forbidden": {"code": 403, "message":
        "Quota exceeded for cores: Requested 1, but already used 20 of 20 cores"}}"#;
    whole.fake.fault("POST /compute/v2.1/servers", 1, 403, body);
    let error = whole.cloud.spawn(whole.order(), || {}).await.unwrap_err();
    assert!(error.is_over_quota() && error.to_string().contains("cores: 1 needed, 0 left"), "{error}");
    let record = whole.cloud.record().await.unwrap().unwrap();
    assert!(!record.entries().any(|entry| entry.kind == Kind::Server), "nothing was made");
}

#[tokio::test]
async fn case_34_a_limit_of_nothing_is_one_and_the_cloud_is_not_even_asked() {
    let whole = Whole::deployed("a").await;
    let limits = r#"{"limits": {"rate": [], "absolute": {
        "maxTotalInstances": 0, "maxTotalCores": -1, "maxTotalRAMSize": -1,
        "totalInstancesUsed": 0, "totalCoresUsed": 0, "totalRAMUsed": 0}}}"#;
    whole.fake.fault("GET /compute/v2.1/limits", 1, 200, limits);
    let error = whole.cloud.spawn(whole.order(), || {}).await.unwrap_err();
    assert!(error.is_over_quota() && error.to_string().contains("instances: 1 needed, 0 left"), "{error}");
    let made = whole.fake.world().changes();
    assert!(!made.iter().any(|line| line.contains("servers")), "{made:?}");
}

#[tokio::test]
async fn a_cloud_that_is_too_busy_for_a_server_is_asked_again_after_its_pause() {
    let whole = Whole::deployed("a").await;
    whole.fake.world().becomes = Some((0, running()));
    let on = "POST /compute/v2.1/servers";
    let headers = &[("retry-after", "1")];
    whole.fake.world().faults.push(Fault { on, times: 2, status: 429, headers, body: "" });
    whole.cloud.spawn(whole.order(), || {}).await.unwrap();
    assert_eq!(whole.fake.world().asked.iter().filter(|line| *line == on).count(), 3);
    assert_eq!(whole.fake.world().of("servers").len(), 1);
}

#[tokio::test]
async fn defect_27_a_server_that_is_off_stays_on_record() {
    let whole = Whole::deployed("a").await;
    whole.fake.world().becomes = Some((0, running()));
    let server = whole.cloud.spawn(whole.order(), || {}).await.unwrap();
    for status in ["SHUTOFF", "REBOOT", "PAUSED", "SUSPENDED"] {
        whole.fake.world().of("servers")[0]["status"] = status.into();
        whole.fake.world().of("servers")[0]["later"] = json!(null);
        assert!(!server.is_running().await.unwrap() && server.is_known().await.unwrap(), "{status}");
        let other = process(&whole.fake, "a", &whole.folder).await;
        let known = other.servers().await.unwrap();
        assert_eq!((known.len(), known[0].id()), (1, server.id()), "{status}");
    }
    server.destroy().await.unwrap();
    assert!(whole.fake.world().of("servers").is_empty());
}

#[tokio::test]
async fn case_36_a_token_that_runs_out_while_a_server_is_built_is_replaced_unseen() {
    let whole = Whole::deployed("a").await;
    whole.fake.world().becomes = Some((2, running()));
    whole.fake.fault("GET /compute/v2.1/servers/", 1, 401, "");
    whole.cloud.spawn(whole.order(), || {}).await.unwrap();
    assert_eq!(whole.fake.world().logins, 2);
}

#[tokio::test]
async fn case_36_a_tear_down_reads_every_list_to_its_last_page() {
    let whole = Whole::deployed("a").await;
    whole.fake.world().becomes = Some((0, running()));
    for number in 0..3 {
        let foreign = json!({"name": format!("b{number}"), "status": "ACTIVE"});
        whole.fake.world().add("servers", foreign);
        for kind in ["networks", "routers", "subnets", "security-groups"] {
            let foreign = json!({"name": "b", "tags": [], "network_id": "n", "cidr": "10.0.0.0/8"});
            whole.fake.world().of(kind).insert(0, foreign);
            let id = whole.fake.world().new_id();
            whole.fake.world().of(kind)[0]["id"] = id.into();
        }
    }
    for _ in 0..3 {
        let order = SpawnOrder { external: true, ..whole.order() };
        whole.cloud.spawn(order, || {}).await.unwrap();
    }
    whole.fake.world().page = Some(2);
    // From a record that knows nothing of all that.
    let mark = whole.cloud.record().await.unwrap().unwrap().deployment();
    whole.cloud.forget().await.unwrap();
    let other = process(&whole.fake, "a", &whole.folder).await;
    assert_eq!(other.adopt(mark).await.unwrap().len(), 12);
    other.tear_down().await.unwrap();
    let foreign = [("servers", 3), ("networks", 4), ("subnets", 3), ("routers", 3), ("security-groups", 3)];
    assert_eq!(whole.left(), foreign);
}
