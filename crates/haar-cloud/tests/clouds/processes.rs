//! Several processes with the same servers: what one does, another must not undo.

use crate::bench::{Bench, seconds};
use haar_cloud::space::{Cores, Request};
use haar_cloud::{Cloud, Server, SpawnOrder};
use tokio::time::sleep;

fn work() -> Request {
    Request { cores: Cores::whole(1), ram_mb: 1, disk_gb: 0 }
}

async fn idler(bench: &Bench) -> Server {
    let order = SpawnOrder { ttd: seconds(2), ..bench.order() };
    bench.cloud.spawn(order, || {}).await.unwrap()
}

async fn the_one(cloud: &Cloud) -> Server {
    let mut servers = cloud.servers().await.unwrap();
    assert_eq!(servers.len(), 1);
    servers.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_server_in_use_is_not_ended_by_another_process_where_it_idles() {
    let bench = Bench::deployed().await;
    let server = idler(&bench).await;
    server.allocate(&work()).unwrap();
    let process = bench.process();
    let same = the_one(&process).await;
    same.allocate(&work()).unwrap();
    same.release(&work());
    sleep(seconds(10)).await;
    assert!(!same.is_destroyed() && server.is_running().await.unwrap(), "it was ended under its user");
    server.release(&work());
    sleep(seconds(3)).await;
    bench.cloud.settled().await;
    assert_eq!(bench.fake.servers_there(), 0, "who spawned it ends it");
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_server_over_ends_it_when_it_idles() {
    let bench = Bench::deployed().await;
    drop(idler(&bench).await);
    // The process that spawned it is no more.
    let process = bench.process();
    let server = the_one(&process).await;
    server.take_over();
    sleep(seconds(1)).await;
    server.allocate(&work()).unwrap();
    sleep(seconds(10)).await;
    assert!(server.is_running().await.unwrap(), "it is in use");
    server.release(&work());
    sleep(seconds(3)).await;
    process.settled().await;
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
    let bench = Bench::deployed().await;
    idler(&bench).await;
    let process = bench.process();
    the_one(&process).await.take_over();
    sleep(seconds(3)).await;
    process.settled().await;
    assert_eq!(bench.fake.servers_there(), 0, "also one that is never used again");
}

#[tokio::test(start_paused = true)]
async fn whoever_spawned_a_server_and_let_go_of_it_still_ends_it() {
    let bench = Bench::deployed().await;
    drop(idler(&bench).await);
    let server = the_one(&bench.cloud).await;
    server.allocate(&work()).unwrap();
    server.release(&work());
    sleep(seconds(3)).await;
    bench.cloud.settled().await;
    assert_eq!(bench.fake.servers_there(), 0);
}
