//! Servers in use: idle time, health, and one life for all who hold a server, on a clock that needs no time.

use std::time::Duration;

use crate::bench::{Bench, seconds};
use haar_cloud::cloud::Way;
use haar_cloud::copy_list::CopyList;
use haar_cloud::fake::{Call, Fault};
use haar_cloud::server::Likeness;
use haar_cloud::space::{Cores, NoRoom, Request};
use haar_cloud::state::Kind;
use haar_cloud::{Error, Server, SpawnOrder};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

fn work() -> Request {
    Request { cores: Cores::from_f64(0.1).expect("a number of cores"), ram_mb: 1, disk_gb: 0 }
}

#[tokio::test(start_paused = true)]
async fn servers_inside_are_reached_through_the_head_node_and_straight_from_one_of_their_own() {
    let bench = Bench::deployed().await;
    let inside = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert!(inside.through().await.unwrap().is_none(), "unless a way is said it is straight");
    let process = bench.process_by(Way::HeadNode);
    let inside = process.server(inside.id()).await.unwrap();
    assert!(inside.through().await.unwrap().is_none(), "there is no head node");
    let head = SpawnOrder { external: true, ..bench.order() };
    let head = process.spawn(head, || {}).await.unwrap();
    assert_eq!(inside.through().await.unwrap().unwrap().id(), head.id());
    assert!(head.through().await.unwrap().is_none());
    bench.fake.with(|world| world.here = Some(inside.id().to_owned()));
    assert!(inside.through().await.unwrap().is_none());
    bench.fake.with(|world| world.here = None);
    let process = bench.process_by(Way::Through("no-such".to_owned()));
    let error = process.server(inside.id()).await.unwrap().through().await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("no-such"), "{error}");
}

async fn idler(bench: &Bench) -> Server {
    let order = SpawnOrder { ttd: seconds(2), ..bench.order() };
    bench.cloud.spawn(order, || {}).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn case_26_a_server_goes_when_it_idles_and_not_before() {
    let bench = Bench::deployed().await;
    let server = idler(&bench).await;
    sleep(seconds(3)).await;
    assert!(server.is_running().await.unwrap(), "it was never used");
    server.allocate(&work()).unwrap();
    server.release(&work());
    sleep(seconds(1)).await;
    server.allocate(&work()).unwrap();
    sleep(seconds(3)).await;
    assert!(server.is_running().await.unwrap(), "it was taken again after a second");
    server.release(&work());
    sleep(Duration::from_millis(1900)).await;
    assert!(!server.is_destroyed());
    sleep(Duration::from_millis(200)).await;
    assert!(server.is_destroyed() && !server.is_running().await.unwrap());
    bench.cloud.settled().await;
    assert!(bench.cloud.server_state(server.id()).await.unwrap_err().is_not_found());
    assert_eq!(bench.servers_on_record(), 0);
}

#[tokio::test(start_paused = true)]
async fn case_26_an_idle_server_that_does_not_go_is_told_so_again() {
    let bench = Bench::deployed().await;
    let server = idler(&bench).await;
    bench.fake.with(|world| world.leaving = None);
    server.allocate(&work()).unwrap();
    server.release(&work());
    sleep(seconds(150)).await;
    assert!(server.is_destroyed() && bench.servers_on_record() == 1);
    bench.fake.with(|world| world.leaving = Some(seconds(1)));
    sleep(seconds(60)).await;
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn case_26_defect_19_many_tasks_never_get_room_on_a_server_that_goes() {
    let bench = Bench::deployed().await;
    for seed in 0..20_u64 {
        let server = idler(&bench).await;
        let mut tasks = JoinSet::new();
        for task in 0..50_u64 {
            let server = server.clone();
            tasks.spawn(async move {
                sleep(Duration::from_millis((seed * 37 + task * 131) % 4000)).await;
                match server.allocate(&work()) {
                    Ok(()) => {
                        sleep(Duration::from_millis(task * 17 % 900)).await;
                        assert!(!server.is_destroyed(), "allocated and destroyed");
                        server.release(&work());
                    }
                    Err(NoRoom::Destroyed) => assert!(server.is_destroyed()),
                    Err(_) => assert!(server.has_space_for(&work()) == 0 || server.is_destroyed()),
                }
            });
        }
        while let Some(answer) = tasks.join_next().await {
            answer.unwrap();
        }
        sleep(seconds(3)).await;
        bench.cloud.settled().await;
        assert_eq!(bench.fake.servers_there(), 0, "round {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn defect_18_an_end_and_the_end_of_the_countdown_do_not_wait_for_each_other() {
    let bench = Bench::deployed().await;
    for moment in 1995..=2005 {
        let server = idler(&bench).await;
        server.allocate(&work()).unwrap();
        server.release(&work());
        sleep(Duration::from_millis(moment)).await;
        let ends = async {
            tokio::join!(server.destroy(), server.destroy_at_once(), async { server.allocate(&work()) })
        };
        let (one, other, taken) = timeout(seconds(60), ends).await.expect("they wait for each other");
        assert!(one.is_ok() && other.is_ok(), "{moment}: {one:?} {other:?}");
        assert_eq!(taken, Err(NoRoom::Destroyed), "{moment}");
        bench.cloud.settled().await;
        assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0), "{moment}");
    }
}

#[tokio::test(start_paused = true)]
async fn case_33_defect_26_only_what_is_gone_is_destroyed() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    bench.fake.with(|world| world.leaving = None);
    let error = server.destroy().await.unwrap_err();
    let Error::Timeout { last, .. } = &error else { panic!("{error}") };
    assert_eq!(last, "DELETING");
    let message = "it is being deleted".to_owned();
    let no = Error::Refused { what: "the server".to_owned(), status: 400, message };
    bench.fake.order(Call::Delete(Kind::Server), Fault::Refuse(no));
    let error = server.destroy().await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(server.is_known().await.unwrap());
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (1, 1));
    bench.fake.with(|world| world.leaving = Some(seconds(1)));
    server.destroy().await.unwrap();
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn case_27_a_bad_server_can_be_good_again_unless_it_goes() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    assert!(!server.is_bad() && server.bad_for().is_zero());
    server.gone_bad(None);
    sleep(seconds(5)).await;
    assert!(server.is_bad() && server.bad_for() == seconds(5) && server.not_bad());
    server.gone_bad(Some("no disk"));
    assert!(!server.not_bad() && server.permanent_problem().as_deref() == Some("no disk"));
    let other = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    other.destroy().await.unwrap();
    assert!(other.is_bad() && !other.not_bad());
}

#[tokio::test(start_paused = true)]
async fn all_who_hold_a_server_share_its_life() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    let same = bench.cloud.server_by_host_name(&server.host_name()).await.unwrap().unwrap();
    let whole = Request { cores: Cores::whole(1), ..Request::default() };
    server.allocate(&whole).unwrap();
    assert_eq!((same.has_space_for(&whole), same.used().used().cores), (0, Cores::whole(1)));
    bench.cloud.tear_down().await.unwrap();
    assert!(server.is_destroyed() && same.allocate(&whole) == Err(NoRoom::Destroyed));
}

#[tokio::test(start_paused = true)]
async fn several_who_destroy_a_server_wait_for_one_end() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    let cloud = bench.process();
    let ends = tokio::join!(server.destroy(), server.destroy_at_once(), cloud.destroy(server.id()));
    assert!(ends.0.is_ok() && ends.1.is_ok() && ends.2.is_ok(), "{ends:?}");
    assert_eq!((bench.fake.servers_there(), bench.servers_on_record()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_is_what_is_wanted_when_all_of_it_is_the_same() {
    let bench = Bench::deployed().await;
    let server = bench.cloud.spawn(bench.order(), || {}).await.unwrap();
    let (none, files) = (CopyList::default(), CopyList::parse("~/a").unwrap());
    let like = Likeness { os: "debian-12", script: b"", files: &none, flavor: None, shared_disk: false };
    assert!(server.matches(&like) && server.matches(&Likeness { flavor: Some("flavor-small"), ..like }));
    let others = [
        Likeness { os: "debian-1", ..like },
        Likeness { script: b"x", ..like },
        Likeness { files: &files, ..like },
        Likeness { flavor: Some("flavor-large"), ..like },
        Likeness { shared_disk: true, ..like },
    ];
    assert!(others.iter().all(|other| !server.matches(other)));
}
