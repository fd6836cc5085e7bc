//! What a cloud offers, as it changes under those who ask: flavors and images that come and go.

use std::time::Duration;

use crate::bench::{Bench, seconds};
use haar_cloud::fake::{Call, Fault};
use haar_cloud::flavor::{Need, Wanted};
use haar_cloud::image::Image;
use haar_cloud::space::Cores;
use haar_cloud::{Cloud, Error};
use tokio::time::sleep;

async fn cheapest(cloud: &Cloud) -> String {
    let need = Need { cores: Cores::whole(1), ram_mb: 1 };
    cloud.cheapest_flavor(&Wanted { need, pattern: None, prices: None }).await.unwrap().name
}

fn withdraw_small(bench: &Bench) {
    bench.fake.with(|world| world.flavors.retain(|flavor| flavor.name != "small"));
}

fn image(name: &str, day: &str) -> Image {
    let created_at = format!("{day}T00:00:00Z").parse().ok();
    Image { id: format!("id-{name}"), name: name.to_owned(), created_at, min_disk_gb: 1, min_ram_mb: 1 }
}

#[tokio::test(start_paused = true)]
async fn case_12_defect_12_a_failed_look_leaves_the_old_flavors_and_the_next_call_looks_again() {
    let bench = Bench::deployed().await;
    assert_eq!(cheapest(&bench.cloud).await, "small");
    withdraw_small(&bench);
    assert_eq!(cheapest(&bench.cloud).await, "small", "no look is due yet");
    sleep(seconds(1800)).await;
    // More than one call asks.
    for _ in 0..50 {
        let busy = Error::Transient { what: "x".to_owned(), message: "503".to_owned(), retry_after: None };
        bench.fake.order(Call::Flavors, Fault::Refuse(busy));
    }
    assert_eq!(cheapest(&bench.cloud).await, "small", "the old list is still good");
    bench.fake.be_good();
    let before = bench.fake.asked(Call::Flavors);
    for _ in 0..3 {
        assert_eq!(cheapest(&bench.cloud).await, "large");
    }
    assert_eq!(bench.fake.asked(Call::Flavors), before + 1, "the next call looked, and then it was good");
}

#[tokio::test(start_paused = true)]
async fn case_12_a_flavor_that_vanished_unseen_is_refused_by_name_and_offered_no_more() {
    let bench = Bench::deployed().await;
    assert_eq!(cheapest(&bench.cloud).await, "small");
    withdraw_small(&bench);
    let error = bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("flavor-small"), "{error}");
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
    assert_eq!(cheapest(&bench.cloud).await, "large");
    let error = bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("[small]"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn case_13_defect_13_images_that_came_or_went_are_seen() {
    let bench = Bench::deployed().await;
    let meant = async |text: &str| bench.cloud.image_by_prefix(text).await.map(|choice| choice.image.name);
    assert_eq!(meant("debian").await.unwrap(), "debian-12");
    let error = meant("ubuntu").await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("[ubuntu]"), "{error}");
    bench.fake.with(|world| {
        world.images.push(image("ubuntu-24", "2024-04-25"));
        world.images.push(image("debian-13", "2025-08-09"));
    });
    assert_eq!(meant("ubuntu").await.unwrap(), "ubuntu-24", "what was missed is looked for again");
    assert_eq!(meant("debian").await.unwrap(), "debian-13");
    // One that is hit is looked at again after five minutes, or when the cloud does not take it.
    bench.fake.with(|world| world.images.retain(|image| image.name != "debian-13"));
    assert_eq!(meant("debian").await.unwrap(), "debian-13");
    sleep(Duration::from_secs(301)).await;
    assert_eq!(meant("debian").await.unwrap(), "debian-12");
    bench.fake.with(|world| world.images.retain(|image| image.name != "debian-12"));
    let error = bench.cloud.spawn(bench.order(), || {}).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("image-debian-12"), "{error}");
    assert_eq!(meant("debian").await.unwrap(), "debian-11");
}
