//! What fails halfway: nothing is made twice, spoilt, or left behind.

use crate::bench::{Bench, seconds};
use haar_cloud::Error;
use haar_cloud::fake::{Call, Fault};
use haar_cloud::provider::Ground;
use haar_cloud::state::Kind;

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
