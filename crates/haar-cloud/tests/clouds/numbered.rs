//! The numbered cases that need a cloud, against one in memory whose clock needs no time.
//!
//! The numbers are those of the list of black-box cases that this crate is held to.

use std::time::Duration;

use crate::bench::{Bench, busy, seconds};
use haar_cloud::fake::{Build, Call, Fault};
use haar_cloud::name::DeploymentId;
use haar_cloud::provider::Ground;
use haar_cloud::state::Kind;
use haar_cloud::{Cloud, Error, SpawnOrder};
use tokio::time::{Instant, sleep, timeout};

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
    // Others are reached through it; when it goes, the other one takes its place.
    let head = bench.process().head_node().await.unwrap().unwrap();
    assert!(head.is_head_node());
    bench.process().destroy(head.id()).await.unwrap();
    let next = bench.process().head_node().await.unwrap().unwrap();
    assert_ne!(next.id(), head.id());
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
