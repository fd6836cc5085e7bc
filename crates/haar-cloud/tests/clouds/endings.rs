//! Servers that go although something else is amiss, and all that goes with them.

use crate::bench::Bench;
use haar_cloud::fake::Call;
use haar_cloud::state::Kind;
use haar_cloud::{Error, SpawnOrder};

#[tokio::test(start_paused = true)]
async fn an_address_that_was_found_and_not_noted_goes_with_its_server() {
    let bench = Bench::deployed().await;
    let order = || SpawnOrder { external: true, ..bench.order() };
    let server = bench.cloud.spawn(order(), || {}).await.unwrap();
    let other = bench.cloud.spawn(order(), || {}).await.unwrap();
    // The process that made them ended before it noted the ids; a later one has found the addresses.
    let named = |record: &mut haar_cloud::state::Record| {
        let addresses = record.entries().filter(|entry| entry.kind == Kind::FloatingIp);
        let addresses: Vec<_> = addresses.map(|entry| entry.id).collect();
        addresses.into_iter().for_each(|entry| record.gone(entry));
        Ok(())
    };
    bench.cloud.journal().change(named).await.unwrap();
    assert_eq!(bench.cloud.recover().await.unwrap().len(), 2);
    let process = bench.process();
    process.destroy(server.id()).await.unwrap();
    let left = bench.fake.left();
    let addresses: Vec<_> = left.iter().filter(|thing| thing.starts_with("floating")).collect();
    assert!(addresses.len() == 1 && addresses[0].contains(&other.address().unwrap().to_string()), "{left:?}");
    let record = process.record().await.unwrap().unwrap();
    assert_eq!(record.entries().filter(|entry| entry.kind == Kind::FloatingIp).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_such_an_address_is_not_looked_at_once_more() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    let before = bench.fake.requests().len();
    server.destroy_at_once().await.unwrap();
    let asked = bench.fake.requests()[before..].to_vec();
    assert_eq!(asked.first(), Some(&Call::Delete(Kind::Server)), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_keeps_no_server_alive() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    let (path, text) = (bench.cloud.journal().store().path(), bench.record_text());
    std::fs::write(&path, "{\"version\": 1, ").unwrap();
    let error = server.destroy_at_once().await.unwrap_err();
    assert!(matches!(error, Error::State(_)), "{error}");
    assert_eq!(bench.fake.servers_there(), 0);
    // A stranger's server is another matter.
    let theirs = bench.fake.with(|world| world.put(Kind::Server, "a-b", None, ""));
    assert!(matches!(bench.cloud.destroy(&theirs).await, Err(Error::State(_))));
    assert_eq!(bench.fake.servers_there(), 1);
    std::fs::write(&path, text).unwrap();
    server.destroy_at_once().await.unwrap();
    assert_eq!(bench.servers_on_record(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_that_fail_together_make_the_next_wait_as_for_one() {
    let bench = Bench::deployed().await;
    bench.fake.with(|world| world.build = haar_cloud::fake::Build::Fails("No valid host was found"));
    let spawns = (0..20).map(|_| bench.cloud.spawn(bench.order(), || {}));
    for server in futures_util::future::join_all(spawns).await {
        server.unwrap_err();
    }
    bench.fake.with(|world| world.build = haar_cloud::fake::Build::After(std::time::Duration::ZERO));
    let began = tokio::time::Instant::now();
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert!(began.elapsed().as_secs() <= 4, "{:?}", began.elapsed());
}
