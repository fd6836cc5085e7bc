//! The numbered cases of making one server, against a cloud in memory whose clock needs no time.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::bench::{Bench, busy, seconds};
use haar_cloud::fake::{Build, Call, Fault};
use haar_cloud::provider::ServerState;
use haar_cloud::quota::Quota;
use haar_cloud::state::{Kind, Phase};
use haar_cloud::{Class, Error, SpawnOrder};
use tokio::time::{Instant, timeout};

#[tokio::test(start_paused = true)]
async fn case_14_a_disk_that_is_too_small_boots_from_a_volume() {
    let bench = Bench::deployed().await;
    bench.fake.with(|world| world.images[0].min_disk_gb = 20);
    let plain = SpawnOrder { flavor: "large".to_owned(), disk_gb: 1, ..bench.order() };
    assert_eq!(bench.cloud.spawn(plain, || {}).await.unwrap().disk_gb(), 40);
    let server = bench.cloud.spawn(SpawnOrder { disk_gb: 1, ..bench.order() }, || {}).await.unwrap();
    assert_eq!(server.disk_gb(), 20);
    let mut volumes = bench.fake.with(|world| world.volumes());
    volumes.sort_unstable();
    assert_eq!(volumes, [None, Some(20)]);
}

#[tokio::test(start_paused = true)]
async fn case_15_defect_05_the_quota_is_told_once_before_the_server_runs_and_also_when_it_never_will() {
    let bench = Bench::deployed().await;
    let told = Arc::new(AtomicUsize::new(0));
    let tell = || {
        let (told, fake) = (Arc::clone(&told), bench.fake.clone());
        move || {
            let active = |view: &haar_cloud::provider::ServerView| view.state == ServerState::Active;
            assert!(!fake.with(|world| world.servers().iter().any(active)), "it runs already");
            told.fetch_add(1, Ordering::SeqCst);
        }
    };
    let no_image = SpawnOrder { os: "windows".to_owned(), ..bench.order() };
    bench.cloud.spawn(no_image, tell()).await.unwrap_err();
    assert_eq!(told.load(Ordering::SeqCst), 1, "also without an image");
    bench.fake.order(Call::CreateServer, Fault::Refuse(Error::OverQuota { lacks: Vec::new() }));
    bench.cloud.spawn(bench.order(), tell()).await.unwrap_err();
    assert_eq!(told.load(Ordering::SeqCst), 2, "also when it is refused");
    drop(bench.cloud.spawn(bench.order(), tell()));
    assert_eq!(told.load(Ordering::SeqCst), 3, "also when nobody ever waits for it");
    let large = SpawnOrder { flavor: "large".to_owned(), ..bench.order() };
    bench.cloud.spawn(large, tell()).await.unwrap();
    assert_eq!(told.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn case_16_defect_10_a_cloud_that_stumbles_while_a_server_is_made_does_not_lose_it() {
    let bench = Bench::deployed().await;
    bench.fake.with(|world| world.build = Build::After(seconds(60)));
    for _ in 0..5 {
        bench.fake.order(Call::Server, Fault::Refuse(busy()));
    }
    bench.fake.order(Call::Server, Fault::Hang);
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert_eq!(bench.cloud.server_state(server.id()).await.unwrap(), ServerState::Active);
}

#[tokio::test(start_paused = true)]
async fn case_16_defect_09_a_server_that_failed_is_gone_and_its_class_is_told() {
    let faults = [
        ("No valid host was found. ", Class::NoHardware),
        ("No valid host was found. There are not enough hosts available.", Class::NoHardware),
        ("Exceeded maximum number of retries. Exhausted all hosts available for 1.", Class::NoHardware),
        ("Exceeded max scheduling attempts 3 for instance 1.", Class::NoHardware),
        ("Insufficient compute resources: Free memory 1 MB < requested 2 MB.", Class::NoHardware),
        ("Build of instance 1 aborted: VolumeLimitExceeded: Maximum number of volumes.", Class::OverQuota),
        ("Build of instance 1 aborted: VolumeSizeExceedsAvailableQuota: too large.", Class::OverQuota),
        ("Quota exceeded for instances: Requested 1, but already used 9 of 9 instances", Class::OverQuota),
        ("Build of instance 1 aborted: no kernel", Class::Server),
        ("Image 1 is unacceptable: it is no image", Class::Server),
        ("", Class::Server),
    ];
    for (fault, class) in faults {
        let bench = Bench::deployed().await;
        bench.fake.with(|world| world.build = Build::Fails(fault));
        let error = bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
    }
    let bench = Bench::deployed().await;
    bench.fake.with(|world| world.limits = Quota { max_instances: Some(0), ..Quota::default() });
    let error = bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
    assert!(error.is_over_quota() && !error.is_no_hardware(), "{error}");
    bench.fake.with(|world| world.limits = Quota::default());
    // Others were faster than what the limits told.
    bench.fake.order(Call::CreateServer, Fault::Refuse(Error::OverQuota { lacks: Vec::new() }));
    let error = bench.process().spawn(bench.order(), || {}).await.unwrap_err();
    assert!(error.is_over_quota() && !error.is_no_hardware(), "{error}");
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn case_16_a_failed_server_that_cannot_be_deleted_stays_on_record() {
    let bench = Bench::deployed().await;
    bench.fake.with(|world| (world.build, world.leaving) = (Build::Fails("no kernel"), None));
    bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
    let record = bench.cloud.record().await.unwrap().unwrap();
    let leaving =
        record.entries().filter(|entry| matches!(entry.phase, Phase::Leaving { cloud_id: Some(_) }));
    assert_eq!(leaving.count(), 1);
    bench.fake.with(|world| world.leaving = Some(seconds(1)));
    bench.process().tear_down().await.unwrap();
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_answer_was_lost_is_found_by_its_name() {
    let bench = Bench::deployed().await;
    bench.fake.order(Call::CreateServer, Fault::Lose);
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (1, 1));
    // Not made, though nobody can know it at first.
    bench.fake.order(Call::CreateServer, Fault::Refuse(busy()));
    assert!(bench.cloud.spawn(bench.order(), || {}).await.unwrap_err().is_transient());
    assert_eq!(bench.servers_on_record(), 2, "it might still come");
    bench.cloud.settled().await;
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn case_17_a_server_that_never_runs_is_given_up_after_what_is_usual() {
    for (typical, limit) in [(None, 1200), (Some(10), 180), (Some(100), 400)] {
        let bench = Bench::deployed().await;
        if let Some(typical) = typical {
            bench.fake.with(|world| world.build = Build::After(seconds(typical)));
            for _ in 0..3 {
                bench.cloud.spawn(bench.order(), || {}).await.unwrap();
            }
        }
        bench.fake.with(|world| world.build = Build::Never);
        let error = bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
        let Error::Timeout { after, last, typical: told, .. } = &error else { panic!("{error}") };
        let longest = seconds(limit + limit / 10 + 10);
        assert!(*after >= seconds(limit) && *after <= longest, "{error}, not {limit}");
        assert_eq!((last.as_str(), told.is_some()), ("BUILD", typical.is_some()));
        assert_eq!(bench.servers_on_record(), bench.fake.servers_there());
    }
}

#[tokio::test(start_paused = true)]
async fn case_18_defect_35_after_a_failure_the_next_waits_and_can_be_cancelled_meanwhile() {
    let bench = Bench::deployed().await;
    let full = || Fault::Refuse(Error::NoHardware { message: "full".to_owned() });
    for _ in 0..5 {
        bench.fake.order(Call::CreateServer, full());
        bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
    }
    let asked = bench.fake.asked(Call::CreateServer);
    let began = Instant::now();
    timeout(Duration::from_millis(500), bench.cloud.spawn(bench.order(), || {})).await.unwrap_err();
    bench.cloud.settled().await;
    assert!(began.elapsed() < seconds(1) && bench.fake.asked(Call::CreateServer) == asked);
    let large = SpawnOrder { flavor: "large".to_owned(), ..bench.order() };
    bench.fake.with(|world| world.build = Build::After(Duration::ZERO));
    let began = Instant::now();
    bench.cloud.spawn(large, || {}).await.unwrap();
    assert!(began.elapsed() < seconds(1), "another flavor does not wait");
    let began = Instant::now();
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert!(began.elapsed() >= seconds(1) && began.elapsed() < seconds(7), "{:?}", began.elapsed());
    let began = Instant::now();
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert!(began.elapsed() < seconds(1), "success ends the waiting");
}

#[tokio::test(start_paused = true)]
async fn case_19_defect_07_external_addresses_are_not_shared_and_those_of_others_stay() {
    let bench = Bench::deployed().await;
    bench.fake.with(|world| world.put(Kind::FloatingIp, "theirs", None, "203.0.113.200"));
    let order = SpawnOrder { external: true, ..bench.order() };
    let spawn = || bench.cloud.spawn(order.clone(), || {});
    let (one, two) = tokio::join!(spawn(), spawn());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.address(), two.address());
    one.destroy_at_once().await.unwrap();
    let addresses =
        |bench: &Bench| bench.fake.left().iter().filter(|left| left.starts_with("floating")).count();
    assert_eq!(addresses(&bench), 2);
    bench.cloud.tear_down().await.unwrap();
    assert_eq!(bench.fake.left(), ["floating IP theirs"]);
}

#[tokio::test(start_paused = true)]
async fn case_19_an_address_whose_answer_was_lost_goes_with_its_server() {
    let bench = Bench::deployed().await;
    let order = SpawnOrder { external: true, ..bench.order() };
    bench.fake.order(Call::AddExternalAddress, Fault::Lose);
    let server = bench.cloud.spawn(order.clone(), || {}).await.unwrap();
    let addresses =
        |bench: &Bench| bench.fake.left().iter().filter(|left| left.starts_with("floating")).count();
    assert_eq!(addresses(&bench), 1, "asked again, it was found");
    server.destroy_at_once().await.unwrap();
    bench.fake.order(Call::AddExternalAddress, Fault::Lose);
    let no = Error::Forbidden { what: "x".to_owned(), message: "no".to_owned() };
    bench.fake.order(Call::AddExternalAddress, Fault::Refuse(no));
    bench.cloud.spawn(order, || {}).await.unwrap_err();
    assert!(!bench.fake.left().iter().any(|left| left.starts_with("floating")), "{:?}", bench.fake.left());
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn case_20_defect_08_a_server_without_an_address_inside_is_no_server() {
    let outside: IpAddr = "10.9.9.9".parse().unwrap();
    for (address, words) in [(None, "has none"), (Some(outside), "has 10.9.9.9")] {
        let bench = Bench::deployed().await;
        bench.fake.with(|world| world.build = Build::At(address));
        let error = bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
        assert!(matches!(error, Error::ServerFailed { .. }) && error.to_string().contains(words), "{error}");
        assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
    }
}
