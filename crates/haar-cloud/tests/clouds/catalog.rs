//! What a cloud offers, when a part of it hangs or fails for many at once.

use crate::bench::{Bench, seconds};
use futures_util::future::join_all;
use haar_cloud::fake::{Call, Fault};
use tokio::time::{Instant, sleep};

fn hang(bench: &Bench, call: Call) {
    (0..10_000).for_each(|_| bench.fake.order(call, Fault::Hang));
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_hangs_holds_up_a_hundred_spawns_as_long_as_one() {
    let bench = Bench::deployed().await;
    hang(&bench, Call::Quota);
    let began = Instant::now();
    for server in join_all((0..100).map(|_| bench.cloud.spawn(bench.order(), || {}))).await {
        server.unwrap();
    }
    assert!(began.elapsed() < seconds(100), "{:?}", began.elapsed());
    let began = Instant::now();
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert!(began.elapsed() < seconds(20), "{:?}", began.elapsed());
    assert_eq!(bench.fake.asked(Call::Quota), 1);
}

#[tokio::test(start_paused = true)]
async fn images_that_cannot_be_read_are_told_to_all_who_wait_for_them_at_once() {
    let bench = Bench::deployed().await;
    hang(&bench, Call::Images);
    let began = Instant::now();
    for image in join_all((0..100).map(|_| bench.cloud.image_by_prefix("debian-12"))).await {
        assert!(image.unwrap_err().is_transient());
    }
    assert!(began.elapsed() <= seconds(65), "{:?}", began.elapsed());
    bench.fake.be_good();
    bench.cloud.image_by_prefix("debian-12").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn flavors_that_were_once_read_will_do_while_they_cannot_be_read_again() {
    let bench = Bench::deployed().await;
    let known = bench.cloud.flavors().await.unwrap();
    sleep(seconds(31 * 60)).await;
    hang(&bench, Call::Flavors);
    let began = Instant::now();
    for flavors in join_all((0..100).map(|_| bench.cloud.flavors())).await {
        assert_eq!(flavors.unwrap(), known);
    }
    assert!(began.elapsed() <= seconds(65), "{:?}", began.elapsed());
    bench.fake.be_good();
    bench.fake.with(|world| world.flavors.truncate(1));
    assert_eq!(bench.cloud.flavors().await.unwrap().len(), 1);
}
