//! Clouds, regions and projects are told apart: no record is ever used with another than its own.

use std::sync::Arc;

use haar_cloud::fake::Fake;
use haar_cloud::provider::Ground;
use haar_cloud::state::{self, folder_of};
use haar_cloud::{Cloud, Error, Result, SpawnOrder};

use crate::bench::folder;

/// A cloud in memory that is at a place, or does not say where.
fn at(place: Option<&str>) -> Arc<Fake> {
    let fake = Fake::default();
    fake.with(|world| world.place = place.map(str::to_owned));
    Arc::new(fake)
}

fn order() -> SpawnOrder {
    SpawnOrder::new("debian-12", "debian", "small")
}

/// What becomes of everything that could take something for gone, or make it once more.
async fn refusals(cloud: &Cloud, server: &str) -> Vec<Error> {
    fn no<T: std::fmt::Debug>(answer: Result<T>) -> Error {
        answer.expect_err("it is another cloud's record")
    }
    vec![
        no(cloud.deploy(Ground::default()).await),
        no(cloud.spawn(order(), || {}).await),
        no(cloud.destroy(server).await),
        no(cloud.recover().await),
        no(cloud.tear_down().await),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_record_is_refused_in_another_place_and_nothing_of_it_is_forgotten() {
    let folder = folder();
    let handle = |fake: &Arc<Fake>| Cloud::new(fake.clone(), &"a".parse().unwrap(), folder.path()).unwrap();
    let (one, two) = (at(Some("region one")), at(Some("region two")));
    let cloud = handle(&one);
    cloud.deploy(Ground::default()).await.unwrap();
    let server = cloud.spawn(order(), || {}).await.unwrap();
    let path = cloud.journal().store().path();
    let before = std::fs::read_to_string(&path).unwrap();

    for error in refusals(&handle(&two), server.id()).await {
        assert!(matches!(error, Error::State(state::Error::Elsewhere { .. })), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("region one") && text.contains("region two"), "{text}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    assert!(two.left().is_empty(), "nothing is made there");
    cloud.tear_down().await.unwrap();
    assert!(one.left().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_does_not_say_where_is_used_only_where_something_of_it_is() {
    let folder = folder();
    let handle = |fake: &Arc<Fake>| Cloud::new(fake.clone(), &"a".parse().unwrap(), folder.path()).unwrap();
    let (one, two) = (at(None), at(Some("region two")));
    let cloud = handle(&one);
    cloud.deploy(Ground::default()).await.unwrap();
    let server = cloud.spawn(order(), || {}).await.unwrap();
    let path = cloud.journal().store().path();
    let before = std::fs::read_to_string(&path).unwrap();
    assert!(!before.contains("place"));

    for error in refusals(&handle(&two), server.id()).await {
        let is_unknown = matches!(error, Error::State(state::Error::Unknown { .. }));
        assert!(is_unknown || matches!(error, Error::NothingToTearDown { .. }), "{error:?}");
    }
    // Nor where somebody holds it by what the record says.
    let elsewhere = handle(&two);
    let held = elsewhere.servers().await.unwrap();
    let error = elsewhere.destroy(held[0].id()).await.unwrap_err();
    assert!(matches!(error, Error::State(state::Error::Unknown { .. })), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);

    // The newer program, where it all is.
    one.with(|world| world.place = Some("region one".to_owned()));
    let cloud = handle(&one);
    cloud.destroy(server.id()).await.unwrap();
    assert_eq!(cloud.record().await.unwrap().unwrap().place(), Some("region one"));
    cloud.deploy(Ground::default()).await.unwrap();
    let error = handle(&two).deploy(Ground::default()).await.unwrap_err();
    assert!(matches!(error, Error::State(state::Error::Elsewhere { .. })), "{error:?}");
    cloud.tear_down().await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn deployments_of_one_name_in_two_places_have_a_folder_each_and_an_old_one_keeps_its_own() {
    let base = folder();
    let name = "a".parse().unwrap();
    let (one, two) = (at(Some("region one")), at(Some("region two")));
    let of = |fake: &Arc<Fake>| folder_of(base.path(), base.path(), fake.as_ref(), &name).unwrap();
    assert_ne!(of(&one), of(&two));
    assert_eq!(of(&at(None)), base.path(), "where there is but one place");
    for fake in [&one, &two] {
        let cloud = Cloud::new(fake.clone(), &name, of(fake)).unwrap();
        cloud.deploy(Ground::default()).await.unwrap();
        cloud.tear_down().await.unwrap();
    }

    // Made by a program that knew no places.
    let old = at(None);
    let cloud = Cloud::new(old.clone(), &name, base.path()).unwrap();
    cloud.deploy(Ground::default()).await.unwrap();
    old.with(|world| world.place = Some("region one".to_owned()));
    assert_eq!(of(&old), base.path());
    let cloud = Cloud::new(old.clone(), &name, of(&old)).unwrap();
    cloud.deploy(Ground::default()).await.unwrap();
    assert_eq!(of(&old), base.path());
    assert_ne!(of(&two), base.path(), "it is known by now whose it is");
    cloud.tear_down().await.unwrap();
    assert_ne!(of(&old), base.path());
}
