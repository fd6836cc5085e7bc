//! What was answered is there, whatever fails: the process, the disk, the folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use haar_controller::{AdminToken, Error, LoadError, folder};
use haar_store::{
    Disk, Error as StoreError, FailingDisk, Fault, Faults, Fence, Kind, MemoryDisk, MemoryMedium, Op,
};
use serde_json::{Value, json};

use super::agent::{Agent, Outcome};
use super::cloud::{Cloud, LIMIT, guest, uuid};

fn flavor(name: &str) -> Value {
    json!({"name": name, "cpu": 1, "memory": 64, "disk": 1})
}

/// A cloud on a disk that fails as the plan says.
async fn on_failing_disk() -> (Cloud, Faults, MemoryMedium) {
    let faults = Faults::none();
    let disk = MemoryDisk::new();
    let medium = disk.medium();
    let failing = FailingDisk::new(disk, faults.clone());
    let cloud = Cloud::start_with(|config| config.disk = Some(Box::new(failing))).await;
    (cloud, faults, medium)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_is_told_as_unknown_and_asking_again_settles_it() {
    let (cloud, faults, _) = on_failing_disk().await;
    let unknown = (503, "outcome_unknown");
    for (number, fault, told, status) in [
        (1, Fault::BeforeEffect, unknown, 201),
        (2, Fault::AfterEffect, unknown, 200),
        (3, Fault::Full, (507, "store_full"), 201),
    ] {
        let path = format!("/v1/flavors/{}", uuid(number));
        let body = flavor(&format!("f-{number}"));
        faults.push(Some(fault));
        let reply = cloud.ask("PUT", &path).json(&body).send().await;
        assert_eq!((reply.status, reply.code().as_str()), told, "{fault:?}");
        assert_eq!(reply.header("retry-after"), if told == unknown { "1" } else { "" });
        let again = cloud.ask("PUT", &path).json(&body).send().await;
        assert_eq!(again.status, status, "{fault:?}: {}", again.text());
    }
    assert_eq!(cloud.get("/v1/check").await["faults"], json!([]));
    cloud.stop().await;
}

/// A disk whose commit meets a defect when told to.
struct Defective(MemoryDisk, Arc<AtomicBool>);

impl Disk for Defective {
    fn load(&mut self, skip: &[Kind], each: &mut haar_store::Visit<'_>) -> Result<Fence, StoreError> {
        self.0.load(skip, each)
    }
    fn commit(&mut self, ops: &[Op], expected: Fence, new: Fence) -> Result<(), StoreError> {
        assert!(!self.1.swap(false, Ordering::SeqCst), "a planned defect");
        self.0.commit(ops, expected, new)
    }
    fn limits(&self) -> haar_store::Limits {
        self.0.limits()
    }
    fn reopen(&mut self) -> Result<(), StoreError> {
        self.0.reopen()
    }
    fn reader(&self) -> Box<dyn haar_store::Reader> {
        self.0.reader()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defect_costs_its_batch_and_not_the_controller() {
    let defect = Arc::new(AtomicBool::new(false));
    let disk = Defective(MemoryDisk::new(), Arc::clone(&defect));
    let cloud = Cloud::start_with(|config| config.disk = Some(Box::new(disk))).await;
    defect.store(true, Ordering::SeqCst);
    let path = format!("/v1/flavors/{}", uuid(1));
    assert_eq!(cloud.ask("PUT", &path).json(&flavor("f")).send().await.code(), "outcome_unknown");
    assert_eq!(cloud.put(&path, flavor("f")).await["name"], "f");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_comes_back_late_is_waited_for() {
    let (cloud, faults, _) = on_failing_disk().await;
    faults.fail_reopens(3);
    faults.push(Some(Fault::BeforeEffect));
    let path = format!("/v1/flavors/{}", uuid(1));
    assert_eq!(cloud.ask("PUT", &path).json(&flavor("f")).send().await.code(), "outcome_unknown");
    let deadline = Instant::now() + LIMIT;
    while cloud.ask("GET", "/readyz").send().await.status != 200 {
        assert!(Instant::now() < deadline, "the controller did not become ready again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(cloud.put(&path, flavor("f")).await["name"], "f");
    assert_eq!(faults.fired().reopens, 3);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_stays_dead_ends_the_controller() {
    let faults = Faults::none();
    let failing = FailingDisk::new(MemoryDisk::new(), faults.clone());
    let (told, mut telling) = tokio::sync::mpsc::channel(1);
    let cloud = Cloud::start_with(|config| {
        config.disk = Some(Box::new(failing));
        config.on_fatal = Box::new(move |cause| told.blocking_send(cause).unwrap());
    })
    .await;
    faults.fail_reopens(u64::MAX);
    faults.push(Some(Fault::BeforeEffect));
    let path = format!("/v1/flavors/{}", uuid(1));
    assert_eq!(cloud.ask("PUT", &path).json(&flavor("f")).send().await.code(), "outcome_unknown");
    let cause = tokio::time::timeout(LIMIT, telling.recv()).await.unwrap().unwrap();
    assert!(cause.contains("cannot be read again"), "{cause}");
    // What came just before the end was not carried out either, and is told that nobody knows.
    let deadline = Instant::now() + LIMIT;
    loop {
        match cloud.ask("PUT", &path).json(&flavor("f")).send().await.code().as_str() {
            "not_ready" => break,
            code => assert_eq!(code, "outcome_unknown"),
        }
        assert!(Instant::now() < deadline, "the controller goes on taking changes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(cloud.ask("GET", "/readyz").send().await.status, 503);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_a_restart_and_a_job_goes_on() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let path = format!("/v1/guests/{}", uuid(100));
    assert_eq!(cloud.ask("PUT", &path).json(&guest("web")).send().await.status, 202);
    let before = cloud.get(&path).await;

    let cloud = cloud.restart().await;
    let after = cloud.get(&path).await;
    for field in ["ip", "mac", "hypervisor", "job", "revision", "created_at"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let agent = agent.hello_again(cloud.addr).await;
    let _work = agent.work(Outcome::Settled);
    let reply = cloud.ask("PUT", &format!("{path}?wait=60s")).json(&guest("web")).send().await;
    assert_eq!((reply.status, reply.json()["state"].as_str()), (200, Some("running")), "{}", reply.text());
    assert_eq!(cloud.get("/v1/check").await["faults"], json!([]));
    cloud.stop().await;
}

#[test]
fn what_was_answered_is_there_after_a_kill_in_mid_create() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let first = runtime();
    let (folder, admin) = first.block_on(async {
        let cloud = Cloud::start().await;
        cloud.image().await;
        Agent::join(&cloud, 1).await;
        let path = format!("/v1/guests/{}", uuid(100));
        assert_eq!(cloud.ask("PUT", &path).json(&guest("web")).send().await.status, 202);
        // Another is under way when the end comes.
        tokio::spawn(
            cloud.ask("PUT", &format!("/v1/guests/{}?wait=60s", uuid(101))).json(&guest("db")).send(),
        );
        let Cloud { folder, admin, .. } = cloud;
        (folder, admin)
    });
    // Nothing is told to stop: every task is dropped where it is.
    first.shutdown_timeout(Duration::from_secs(10));
    runtime().block_on(async {
        let cloud = once_free(folder, admin).await;
        let guest = cloud.get("/v1/guests/web").await;
        assert_eq!((&guest["state"], &guest["ip"]), (&json!("creating"), &json!("10.77.0.2")));
        assert_eq!(cloud.get("/v1/check").await["faults"], json!([]));
        cloud.stop().await;
    });
}

/// A process that was killed leaves its locks at once; threads of this one take a moment.
async fn once_free(folder: tempfile::TempDir, admin: String) -> Cloud {
    let deadline = Instant::now() + LIMIT;
    loop {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let config = super::cloud::config(folder.path());
        match haar_controller::start(config, async { drop(stopped.await) }).await {
            Ok(running) => return Cloud { addr: running.addr, admin, folder, stop, running },
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_controllers_do_not_share_a_folder() {
    let cloud = Cloud::start().await;
    let config = super::cloud::config(cloud.folder.path());
    let error = haar_controller::start(config, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, Error::Folder(folder::Error::InUse(_))), "{error}");
    assert!(error.to_string().contains("in use by another controller"), "{error}");
    assert_eq!(cloud.ask("GET", "/readyz").send().await.status, 200);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_refused_and_left_as_it_is() {
    let cloud = Cloud::start().await;
    let (folder, _) = cloud.stop().await;
    let store = folder.path().join("controller/store.redb");
    let mut bytes = std::fs::read(&store).unwrap();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    std::fs::write(&store, &bytes).unwrap();
    let config = super::cloud::config(folder.path());
    let error = haar_controller::start(config, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(std::fs::read(&store).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_named() {
    let (cloud, _, medium) = on_failing_disk().await;
    let path = format!("/v1/flavors/{}", uuid(7));
    cloud.put(&path, flavor("f")).await;
    let (folder, _) = cloud.stop().await;
    let mut disk = MemoryDisk::on(medium.clone(), haar_store::Limits::NONE);
    let key = uuid::Uuid::from_u128(7).as_bytes().to_vec();
    let fence = medium.fence();
    let spoil = Op::Put { kind: Kind(4 + 1), key, value: b"{\"v\":1,\"record\":{}}".to_vec() };
    disk.commit(&[spoil], fence, haar_store::Fence { revision: fence.revision + 1, ..fence }).unwrap();
    let mut config = super::cloud::config(folder.path());
    config.disk = Some(Box::new(disk));
    let error = haar_controller::start(config, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, Error::Load(LoadError::Record(_))), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("flavor") && message.contains(&uuid(7)) && message.contains("missing field"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_the_folder_gets_a_fresh_token() {
    let cloud = Cloud::start().await;
    let old = cloud.admin.clone();
    let (folder, _) = cloud.stop().await;
    let cloud = Cloud::start_in(folder, None, |config| config.admin = AdminToken::Fresh).await.unwrap();
    assert_ne!(cloud.admin, old);
    assert!(cloud.get("/v1/whoami").await["name"].as_str().unwrap().starts_with("admin-"));
    let (folder, admin) = cloud.stop().await;
    // Told once: another start tells nothing.
    let cloud = Cloud::start_in(folder, Some(admin.clone()), |_| {}).await.unwrap();
    assert_eq!(cloud.admin, admin);
    cloud.get("/v1/whoami").await;
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let cloud = Cloud::start().await;
    let mode = |name: &str| {
        let path = cloud.folder.path().join("controller").join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("store.redb"), mode("LOCK"), mode("images")), (0o600, 0o600, 0o700));
    let bytes = std::fs::read(cloud.folder.path().join("controller/store.redb")).unwrap();
    let secret = cloud.admin.as_bytes();
    assert!(!bytes.windows(secret.len()).any(|window| window == secret), "the secret is stored");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_loopback_is_listened_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = super::cloud::config(folder.path());
    config.listen = "0.0.0.0:0".parse().unwrap();
    let error = haar_controller::start(config, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("TLS does not exist yet"), "{error}");
    assert!(!folder.path().join("controller").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_begins_a_new_epoch_when_an_agent_knows_more() {
    let disk = MemoryDisk::new();
    let medium = disk.medium();
    let cloud = Cloud::start_with(|config| config.disk = Some(Box::new(disk))).await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let backup = medium.copy();
    let work = agent.work(Outcome::Settled);
    let path = format!("/v1/guests/{}?wait=60s", uuid(100));
    assert_eq!(cloud.ask("PUT", &path).json(&guest("web")).send().await.status, 201);
    let seen = agent.poll(None).await.json()["fence"].as_str().unwrap().to_owned();
    drop(work);
    let (folder, admin) = cloud.stop().await;

    let old = MemoryDisk::on(backup, haar_store::Limits::NONE);
    let cloud =
        Cloud::start_in(folder, Some(admin), |config| config.disk = Some(Box::new(old))).await.unwrap();
    assert!(cloud.get("/v1/status").await["revision"].as_str().unwrap().starts_with("1."));
    let feed = agent.at(cloud.addr).poll(Some(&seen)).await;
    assert!(feed.json()["fence"].as_str().unwrap().starts_with("2."), "{}", feed.text());
    assert!(cloud.get("/v1/status").await["revision"].as_str().unwrap().starts_with("2."));
    cloud.stop().await;
}
