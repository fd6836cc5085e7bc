//! The numbered cases that need a cloud, against one in memory whose clock needs no time.
//!
//! The numbers are those of the list of black-box cases that this crate is held to.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::bench::{Bench, seconds};
use haar_cloud::fake::{Build, Call, Fault};
use haar_cloud::name::DeploymentId;
use haar_cloud::provider::{Ground, ServerState};
use haar_cloud::quota::Quota;
use haar_cloud::state::{Kind, Phase};
use haar_cloud::{Class, Cloud, Error, SpawnOrder};
use tokio::time::{Instant, sleep, timeout};

fn busy() -> Error {
    Error::Transient { what: "x".to_owned(), message: "status 503".to_owned(), retry_after: None }
}

#[tokio::test(start_paused = true)]
async fn case_06_a_second_deploy_makes_nothing_and_keeps_the_key() {
    let bench = Bench::deployed().await;
    let (left, key) = (bench.fake.left(), bench.cloud.private_key().await.unwrap());
    bench.cloud.deploy(Ground::default()).await.unwrap();
    let process = bench.process();
    process.deploy(Ground::default()).await.unwrap();
    assert_eq!((bench.fake.left(), process.private_key().await.unwrap()), (left, key));
}

#[tokio::test(start_paused = true)]
async fn case_07_defect_01_a_deploy_that_failed_keeps_its_key_and_the_next_one_works() {
    let bench = Bench::new();
    (0..500).for_each(|_| bench.fake.order(Call::Make(Kind::Router), Fault::Refuse(busy())));
    let error = bench.cloud.deploy(Ground::default()).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    bench.fake.be_good();
    let process = bench.process();
    let deployment = process.deploy(Ground::default()).await.unwrap();
    let known = bench.fake.with(|world| world.public_key("a").map(str::to_owned));
    assert_eq!(known, Some(deployment.public_key));
    process.spawn(bench.order(), || {}).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn case_07_defect_39_a_tear_down_after_a_failed_deploy_leaves_nothing() {
    for kind in [Kind::SecurityGroup, Kind::Network, Kind::Router, Kind::RouterInterface] {
        let bench = Bench::new();
        bench.fake.order(Call::Make(kind), Fault::Lose);
        let refuse = || Error::Refused { what: "x".to_owned(), status: 400, message: "no".to_owned() };
        bench.fake.order(Call::Make(kind), Fault::Refuse(refuse()));
        bench.cloud.deploy(Ground::default()).await.unwrap_err();
        bench.process().tear_down().await.unwrap();
        assert!(bench.is_clean(), "{kind}: {:?}", bench.fake.left());
    }
}

#[tokio::test(start_paused = true)]
async fn case_08_a_key_pair_whose_key_is_lost_is_said_at_deploy() {
    let bench = Bench::deployed().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Cloud::new(bench.fake.clone(), &"a".parse().unwrap(), elsewhere.path()).unwrap();
    let error = other.deploy(Ground::default()).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }) && error.to_string().contains("key pair"), "{error}");
}

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

#[tokio::test(start_paused = true)]
async fn case_21_defect_02_only_what_bears_our_mark_is_torn_down() {
    let bench = Bench::deployed().await;
    let (alice, other) = (DeploymentId::random(), "a-2b1f9a52-4b0e-4d07-93c8-7a3c2f1d0e55");
    bench.fake.with(|world| {
        world.put(Kind::Server, "alice-1", Some(alice), "");
        world.put(Kind::Server, other, None, "");
        world.put(Kind::Server, "a-3", Some(alice), "")
    });
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    bench.cloud.tear_down().await.unwrap();
    assert_eq!(bench.fake.left().len(), 3, "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn case_21_defect_03_the_server_we_run_on_survives_and_is_named() {
    let bench = Bench::deployed().await;
    let order = SpawnOrder { external: true, ..bench.order() };
    let own = bench.cloud.spawn(order.clone(), || {}).await.unwrap();
    bench.cloud.spawn(order, || {}).await.unwrap();
    bench.fake.with(|world| world.here = Some(own.id().to_owned()));
    let plan = bench.cloud.tear_down_plan().await.unwrap();
    assert!(!plan.iter().any(|thing| thing.name == own.name() && thing.kind == Kind::Server));
    let error = bench.cloud.tear_down().await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(own.name()) && text.contains(own.id()) && text.contains("runs on it"), "{text}");
    assert_eq!(bench.fake.servers_there(), 1);
    let floating = bench.fake.left().iter().filter(|left| left.starts_with("floating")).count();
    assert_eq!(floating, 1, "its own address stays, the other one goes");
    bench.fake.with(|world| world.here = None);
    bench.process().tear_down().await.unwrap();
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn case_22_things_go_in_their_order_and_what_is_in_use_is_tried_again() {
    let bench = Bench::deployed().await;
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    for _ in 0..3 {
        let in_use = Error::Conflict { what: "x".to_owned(), message: "in use".to_owned() };
        bench.fake.order(Call::Delete(Kind::RouterInterface), Fault::Refuse(in_use));
    }
    let torn = bench.cloud.tear_down().await.unwrap();
    let kinds: Vec<Kind> = torn.destroyed.iter().map(|thing| thing.kind).collect();
    let order = [
        Kind::Server,
        Kind::RouterInterface,
        Kind::Router,
        Kind::Subnet,
        Kind::Network,
        Kind::SecurityGroup,
        Kind::KeyPair,
    ];
    assert_eq!(kinds, order);
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
    let again = bench.cloud.tear_down().await.unwrap_err();
    assert!(matches!(again, Error::NothingToTearDown { .. }), "{again}");
}

#[tokio::test(start_paused = true)]
async fn case_22_what_is_left_is_named_and_the_files_stay_until_it_is_gone() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    bench.fake.with(|world| world.leaving = None);
    let error = bench.cloud.tear_down().await.unwrap_err();
    let Error::LeftOver { left, .. } = &error else { panic!("{error}") };
    assert!(left.iter().any(|left| left.id.as_deref() == Some(server.id())), "{error}");
    assert!(
        bench.cloud.record().await.unwrap().is_some() && bench.cloud.private_key().await.unwrap().is_some()
    );
    let refused = bench.process().spawn(bench.order(), || {}).await.unwrap_err();
    assert!(refused.to_string().contains("torn down"), "{refused}");
    bench.fake.with(|world| world.leaving = Some(seconds(1)));
    bench.process().tear_down().await.unwrap();
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_during_a_tear_down_goes_with_it() {
    let bench = Bench::deployed().await;
    bench.fake.with(|world| world.build = Build::After(seconds(30)));
    let spawn = bench.cloud.spawn(bench.order(), || {});
    let process = bench.process();
    let tear_down = async {
        sleep(seconds(5)).await;
        process.tear_down().await
    };
    let (spawned, torn) = tokio::join!(spawn, tear_down);
    torn.unwrap();
    spawned.unwrap_err();
    bench.cloud.settled().await;
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn case_23_defect_41_with_the_wrong_login_nothing_is_forgotten() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    let before = bench.record_text();
    let elsewhere = Bench::beside(&bench);
    assert!(!elsewhere.server(server.id()).await.unwrap().is_known().await.unwrap());
    let error = elsewhere.tear_down().await.unwrap_err();
    assert!(matches!(error, Error::NothingToTearDown { .. }), "{error}");
    assert_eq!(bench.record_text(), before);
    bench.cloud.tear_down().await.unwrap();
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn case_23_defect_04_a_damaged_record_can_be_begun_anew_by_its_mark() {
    let bench = Bench::deployed().await;
    bench.cloud.spawn(SpawnOrder { external: true, ..bench.order() }, || {}).await.unwrap();
    let id = bench.cloud.record().await.unwrap().unwrap().deployment();
    std::fs::write(bench.cloud.journal().store().path(), "{\"half").unwrap();
    let process = bench.process();
    let error = process.tear_down().await.unwrap_err();
    assert!(error.to_string().contains("move it away"), "{error}");
    std::fs::remove_file(bench.cloud.journal().store().path()).unwrap();
    assert!(process.adopt(id).await.unwrap().len() > 6);
    process.tear_down().await.unwrap();
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn case_24_two_processes_spawn_into_one_record() {
    let bench = Bench::deployed().await;
    let other = bench.process();
    let order = SpawnOrder { external: true, ..bench.order() };
    let (one, two) = tokio::join!(bench.cloud.spawn(order.clone(), || {}), other.spawn(order, || {}));
    let (one, two) = (one.unwrap(), two.unwrap());
    let known = bench.process().servers().await.unwrap();
    assert_eq!(known.len(), 2);
    for server in [one, two] {
        assert!(known.iter().any(|known| known.id() == server.id() && known.address() == server.address()));
    }
    assert_eq!(known.iter().filter(|server| server.is_head_node()).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_deploys_at_once_one_is_told_to_wait() {
    let bench = Bench::new();
    bench.fake.draw_faults(1, 0, seconds(2));
    let other = bench.process();
    let deploys = tokio::join!(bench.cloud.deploy(Ground::default()), other.deploy(Ground::default()));
    let errors = [deploys.0.err(), deploys.1.err()];
    assert_eq!(errors.iter().flatten().count(), 1);
    let error = errors.into_iter().flatten().next().unwrap().to_string();
    assert!(error.contains("another process"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_knows_less_than_the_cloud_is_made_good() {
    let bench = Bench::deployed().await;
    let old = bench.record_text();
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    std::fs::write(bench.cloud.journal().store().path(), old).unwrap();
    let adopted = bench.process().recover().await.unwrap();
    assert_eq!(adopted.iter().map(|thing| thing.kind).collect::<Vec<_>>(), [Kind::Server]);
    bench.process().tear_down().await.unwrap();
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_came_and_was_not_taken_is_destroyed() {
    let bench = Bench::deployed().await;
    let mut spawn = Box::pin(bench.cloud.spawn(bench.order(), || {}));
    timeout(Duration::from_millis(1), spawn.as_mut()).await.unwrap_err();
    // It runs by then, and nobody has looked.
    sleep(seconds(20)).await;
    assert_eq!(bench.fake.servers_there(), 1);
    drop(spawn);
    bench.cloud.settled().await;
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_never_answers_holds_up_nobody_for_ever() {
    let bench = Bench::deployed().await;
    bench.fake.order(Call::CreateServer, Fault::Hang);
    let error = bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("no answer"), "{error}");
    bench.cloud.settled().await;
    assert_eq!(bench.servers_on_record(), 0);
    for call in [Call::Flavors, Call::Images, Call::Quota, Call::Survey, Call::Delete(Kind::Router)] {
        bench.fake.order(call, Fault::Hang);
    }
    bench.process().spawn(bench.order(), || {}).await.unwrap();
    bench.cloud.tear_down().await.unwrap();
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn a_cloud_that_asks_for_a_pause_is_asked_again_after_it() {
    let bench = Bench::deployed().await;
    let retry_after = Some(seconds(9));
    let pause = Error::Transient { what: "x".to_owned(), message: "status 429".to_owned(), retry_after };
    bench.fake.order(Call::CreateServer, Fault::Refuse(pause));
    let began = Instant::now();
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert!(began.elapsed() >= seconds(9));
    assert_eq!(bench.fake.asked(Call::CreateServer), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_to_be_gone_can_be_forgotten() {
    let bench = Bench::deployed().await;
    let elsewhere = Bench::beside(&bench);
    elsewhere.tear_down().await.unwrap_err();
    elsewhere.forget().await.unwrap();
    assert!(bench.cloud.record().await.unwrap().is_none());
    assert!(bench.cloud.private_key().await.unwrap().is_none());
}
