//! Defects of the older system that no case of its list shows, by their numbers, against a cloud in memory.

use crate::bench::{Bench, seconds};
use haar_cloud::copy_list::CopyList;
use haar_cloud::fake::{Build, Call, Fault};
use haar_cloud::provider::Ground;
use haar_cloud::server::{Command, Likeness};
use haar_cloud::space::{Cores, Request};
use haar_cloud::state::Kind;
use haar_cloud::{Cloud, Error};
use tokio::time::{sleep, timeout};

#[tokio::test(start_paused = true)]
async fn defect_03_capitals_and_signs_in_a_name_do_not_hide_the_own_server() {
    let bench = Bench::new();
    let folder = crate::bench::folder();
    let cloud = Cloud::new(bench.fake.clone(), &"wr-dev-Foo_Bar 1".parse().unwrap(), folder.path()).unwrap();
    cloud.deploy(Ground::default()).await.unwrap();
    let own = cloud.spawn(bench.order(), || {}).await.unwrap();
    cloud.spawn(bench.order(), || {}).await.unwrap();
    assert_ne!(own.host_name(), own.name());
    bench.fake.with(|world| world.here = Some(own.id().to_owned()));
    cloud.tear_down().await.unwrap_err();
    assert_eq!(bench.fake.servers_there(), 1);
    assert!(cloud.server_state(own.id()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn defect_08_a_server_without_an_address_is_not_looked_for_on_this_machine() {
    let bench = Bench::deployed().await;
    bench.fake.with(|world| world.build = Build::Never);
    let mut spawn = Box::pin(bench.cloud.spawn(bench.order(), || {}));
    timeout(seconds(5), spawn.as_mut()).await.unwrap_err();
    // Another process sees it before it has one.
    let [half_made] = &bench.process().servers().await.unwrap()[..] else { panic!("it is on record") };
    assert_eq!(half_made.address(), None);
    let error = half_made.run(&Command::new("true")).await.unwrap_err();
    assert!(matches!(&error, Error::Ssh { message, .. } if message.contains("no address")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn defect_28_a_second_deploy_leaves_servers_as_they_are() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    let files = CopyList::default();
    let flavor = Some(server.flavor().id.as_str());
    let like = Likeness { os: "debian-12", script: b"", files: &files, flavor, shared_disk: false };
    let whole = Request { cores: Cores::whole(1), ..Request::default() };
    for cloud in [bench.cloud.clone(), bench.process()] {
        cloud.deploy(Ground::default()).await.unwrap();
        let found = cloud.server_by_host_name(&server.host_name()).await.unwrap().unwrap();
        assert_eq!((found.user(), found.flavor(), found.disk_gb()), ("debian", server.flavor(), 10));
        assert!(found.matches(&like));
        assert_eq!((found.has_space_for(&whole), found.address()), (1, server.address()));
    }
}

#[tokio::test(start_paused = true)]
async fn defect_34_whatever_is_still_in_use_is_tried_again_by_a_tear_down() {
    let kinds = [
        Kind::RouterInterface,
        Kind::Router,
        Kind::Subnet,
        Kind::Network,
        Kind::SecurityGroup,
        Kind::KeyPair,
    ];
    for kind in kinds {
        let bench = Bench::deployed().await;
        for _ in 0..5 {
            let in_use = Error::Conflict { what: "x".to_owned(), message: "in use".to_owned() };
            bench.fake.order(Call::Delete(kind), Fault::Refuse(in_use));
        }
        bench.cloud.tear_down().await.unwrap();
        assert!(bench.is_clean(), "{kind}: {:?}", bench.fake.left());
        assert_eq!(bench.fake.asked(Call::Delete(kind)), 6, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_22_a_key_pair_that_stays_keeps_its_key() {
    let bench = Bench::deployed().await;
    let key = bench.cloud.private_key().await.unwrap();
    let no = Error::Forbidden { what: "the key pair".to_owned(), message: "no".to_owned() };
    bench.fake.order(Call::Delete(Kind::KeyPair), Fault::Refuse(no));
    let error = bench.cloud.tear_down().await.unwrap_err();
    assert!(matches!(&error, Error::LeftOver { left, .. } if left.len() == 1), "{error}");
    assert_eq!(bench.fake.left(), ["key pair a"]);
    assert!(key.is_some() && bench.cloud.private_key().await.unwrap() == key);
    bench.process().tear_down().await.unwrap();
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}

#[tokio::test(start_paused = true)]
async fn defect_37_a_tear_down_keeps_other_processes_from_deploying_and_spawning() {
    let bench = Bench::deployed().await;
    bench.fake.with(|world| world.leaving = Some(seconds(60)));
    bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    let other = bench.process();
    let meanwhile = async {
        sleep(seconds(10)).await;
        (other.deploy(Ground::default()).await, other.spawn(bench.order(), || {}).await)
    };
    let (torn, (deployed, spawned)) = tokio::join!(bench.cloud.tear_down(), meanwhile);
    torn.unwrap();
    let (deployed, spawned) = (deployed.unwrap_err().to_string(), spawned.unwrap_err().to_string());
    assert!(deployed.contains("another process"), "{deployed}");
    assert!(spawned.contains("torn down"), "{spawned}");
    assert!(bench.is_clean(), "{:?}", bench.fake.left());
}
