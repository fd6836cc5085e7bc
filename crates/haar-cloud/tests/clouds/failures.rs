//! What fails halfway: nothing is made twice, spoilt, or left behind.

use std::time::Duration;

use crate::bench::{Bench, seconds};
use haar_cloud::fake::{Call, Fault};
use haar_cloud::provider::Ground;
use haar_cloud::state::Kind;
use haar_cloud::{Error, SpawnOrder};
use tokio::time::{sleep, timeout};

fn busy() -> Error {
    let retry_after = Some(seconds(2));
    Error::Transient { what: "x".to_owned(), message: "status 503".to_owned(), retry_after }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_made_in_spite_of_a_busy_answer_is_not_made_again() {
    let bench = Bench::deployed().await;
    bench.fake.order(Call::CreateServer, Fault::Deny(busy()));
    // Neither can be told at first whether it is there.
    bench.fake.order(Call::Servers, Fault::Refuse(busy()));
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (1, 1));
    assert!(server.is_running().await.unwrap());
    // Also when there is no time left for another try.
    let long = |seconds_long| Error::Transient {
        what: "x".to_owned(),
        message: "status 503".to_owned(),
        retry_after: Some(seconds(seconds_long)),
    };
    bench.fake.order(Call::CreateServer, Fault::Deny(long(1000)));
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (2, 2));
    bench.fake.order(Call::CreateServer, Fault::Refuse(long(1000)));
    bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (2, 2));
}

/// Volumes that the cloud has, and those that are on record.
fn volumes(bench: &Bench) -> (usize, usize) {
    let there = bench.fake.left().iter().filter(|left| left.starts_with("volume")).count();
    let record = bench.cloud.journal().store().load().unwrap().unwrap();
    (there, record.entries().filter(|entry| entry.kind == Kind::Volume).count())
}

#[tokio::test(start_paused = true)]
async fn a_volume_goes_with_its_server_and_with_one_that_never_comes() {
    let bench = Bench::deployed().await;
    let order = SpawnOrder { disk_gb: 30, ..bench.order() };
    let server = bench.cloud.spawn(order.clone(), || {}).await.unwrap();
    assert_eq!(volumes(&bench), (1, 1));
    server.destroy().await.unwrap();
    assert_eq!(volumes(&bench), (0, 0));
    let full = || Error::NoHardware { message: "full".to_owned() };
    bench.fake.order(Call::CreateServer, Fault::Refuse(full()));
    bench.cloud.spawn(order.clone(), || {}).await.unwrap_err();
    assert_eq!((volumes(&bench), bench.servers_on_record()), ((0, 0), 0), "the server was refused");
    // Its answer is lost, and it is found by its name.
    bench.fake.order(Call::Make(Kind::Volume), Fault::Refuse(busy()));
    bench.fake.order(Call::Make(Kind::Volume), Fault::Lose);
    bench.fake.order(Call::Make(Kind::Volume), Fault::Lose);
    bench.cloud.spawn(order.clone(), || {}).await.unwrap().destroy().await.unwrap();
    assert_eq!((volumes(&bench), bench.servers_on_record()), ((0, 0), 0));
    for wait in [1, 100, 300, 1000, 4000] {
        let spawn = bench.cloud.spawn(order.clone(), || {});
        if let Ok(server) = timeout(Duration::from_millis(wait), spawn).await {
            server.unwrap().destroy().await.unwrap();
        }
        bench.cloud.settled().await;
        assert_eq!((volumes(&bench), bench.servers_on_record()), ((0, 0), 0), "dropped after {wait} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn what_should_be_gone_is_ended_later_by_this_process_or_the_next() {
    for by_the_next in [false, true] {
        let bench = Bench::deployed().await;
        bench.fake.with(|world| world.leaving = None);
        let order = SpawnOrder { disk_gb: 30, ..bench.order() };
        bench.cloud.spawn(order, || {}).await.unwrap().destroy().await.unwrap_err();
        assert_eq!((bench.fake.servers_there(), bench.servers_on_record(), volumes(&bench)), (1, 1, (1, 1)));
        if by_the_next {
            bench.fake.with(|world| world.leaving = Some(seconds(1)));
            let process = bench.process();
            process.deploy(Ground::default()).await.unwrap();
            process.settled().await;
        } else {
            // For a day nobody can delete anything.
            sleep(seconds(3600 * 24)).await;
            assert_eq!(bench.fake.servers_there(), 1);
            bench.fake.with(|world| world.leaving = Some(seconds(1)));
            sleep(seconds(900)).await;
        }
        let left = (bench.fake.servers_there(), bench.servers_on_record(), volumes(&bench));
        assert_eq!(left, (0, 0, (0, 0)), "by the next: {by_the_next}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_waits_for_goes_on_until_all_is_settled() {
    let bench = Bench::deployed().await;
    for gracefully in [false, true] {
        let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
        let process = bench.process();
        let end =
            async { if gracefully { server.destroy().await } else { process.destroy(server.id()).await } };
        timeout(Duration::from_millis(10), end).await.unwrap_err();
        assert_eq!(bench.fake.servers_there(), 1);
        bench.cloud.settled().await;
        process.settled().await;
        assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_of_ours_the_cloud_has_can_be_destroyed_by_its_id() {
    let bench = Bench::deployed().await;
    bench.fake.with(|world| world.leaving = None);
    let leaving = bench.cloud.spawn(bench.order(), || {}).await.unwrap().id().to_owned();
    bench.cloud.destroy(&leaving).await.unwrap_err();
    let id = bench.cloud.record().await.unwrap().unwrap().deployment();
    let stray = bench.fake.with(|world| world.put(Kind::Server, "a-stray", Some(id), ""));
    bench.fake.with(|world| world.leaving = Some(seconds(1)));
    let process = bench.process();
    process.destroy(&leaving).await.unwrap();
    process.destroy(&stray).await.unwrap();
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deploy_that_fails_leaves_the_ground_as_it_was() {
    let bench = Bench::deployed().await;
    let network = "10.0.0.0/16".parse().unwrap();
    let other = Ground { cidr: network, gateway: [10, 0, 0, 1].into(), ..Ground::default() };
    let conflict = Error::Conflict { what: "network a".to_owned(), message: "another range".to_owned() };
    bench.fake.order(Call::Make(Kind::Network), Fault::Refuse(conflict));
    bench.cloud.deploy(other.clone()).await.unwrap_err();
    assert_eq!(bench.process().deployment().await.unwrap().ground, Ground::default());
    bench.process().spawn(bench.order(), || {}).await.unwrap();
    bench.cloud.deploy(other.clone()).await.unwrap();
    assert_eq!(bench.process().deployment().await.unwrap().ground, other);
}
