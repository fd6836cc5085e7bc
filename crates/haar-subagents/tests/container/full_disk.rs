//! A disk that is full: images leave room, and containers can be ended all the same.

use haar_api::rpc::{FaultCode, ImageRequest};
use serde_json::{Value, json};

use crate::harness::*;
use crate::make_image::{self, E, gzip, layer, script};

/// A world whose containers and images lie on a small file system of their own.
fn small(world: &World, mib: usize) {
    let folder = world.path().join("container");
    std::fs::create_dir(&folder).unwrap();
    let options = format!("size={mib}m");
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &folder, Some("tmpfs"), flags, Some(options.as_str())).unwrap();
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        left_out("only root mounts a small file system");
    }
    is_root
}

fn free_blocks(world: &World) -> (u64, u64) {
    let space = rustix::fs::statvfs(world.path().join("container")).unwrap();
    (space.f_bavail, space.f_blocks)
}

#[tokio::test]
async fn an_archive_that_unpacks_to_more_than_there_is_leaves_room_and_nothing_else() {
    if !is_root() {
        return;
    }
    let world = World::new();
    small(&world, 48);
    let agent = Agent::start(&world).await;
    let (before, blocks) = free_blocks(&world);
    let large = vec![0; 60 << 20];
    let image = make_image::image(&[layer(&[E::File("large", &large)])], &json!({}));
    let path = world.path().join("import/image.tar.gz");
    std::fs::write(&path, gzip(&image.docker_save())).unwrap();
    let request = ImageRequest {
        id: IMAGE.to_owned(),
        source: format!("file://{}", path.display()),
        ..ImageRequest::default()
    };
    fails(agent.load(&request).await, FaultCode::NoSpace, "a twentieth");
    until("what came is removed", || before - free_blocks(&world).0 < blocks / 20).await;
}

#[tokio::test]
async fn a_container_that_filled_the_disk_is_stopped_stays_so_and_is_removed() {
    let Some(world) = World::live() else { return };
    small(&world, 24);
    let agent = Agent::start(&world).await;
    // It goes on filling whatever becomes free.
    let words = "while :; do busybox cat /dev/zero >> /fill 2>/dev/null; echo full; sleep 0.1; done";
    agent.load(&world.request(&script(words))).await.unwrap();
    let mut guest = world.guest(GUEST);
    guest["haar"]["restart"] = "always".into();
    agent.run(&guest).await;
    until("the disk is full", || free_blocks(&world).0 == 0).await;
    assert_eq!(agent.guest("StopContainer", &guest).await.unwrap()["state"], "stopped");
    assert_eq!(world.traces(), vec![world.traces()[0].clone()], "only the small file system is there");
    assert!(free_blocks(&world).0 < 64, "it is full still, but for what the stop itself removed");
    agent.kill();
    let agent = Agent::start(&world).await;
    assert_eq!(agent.inspect(GUEST).await.unwrap()["State"]["Status"], "exited", "a stop holds");
    assert!(agent.guest("StartContainer", &guest).await.is_err(), "nothing can be written for it");
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert!(!world.container(GUEST).exists() && free_blocks(&world).0 > 0);
    agent.end().await;
}

#[tokio::test]
async fn a_container_that_is_too_large_to_be_saved_goes_on_and_nothing_is_left() {
    let Some(world) = World::live() else { return };
    small(&world, 24);
    let agent = Agent::start(&world).await;
    let words = "busybox dd if=/dev/zero of=/large bs=1M count=12 2>/dev/null; while :; do echo tick; sleep 0.05; done";
    agent.load(&world.request(&script(words))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    until("it speaks", || world.log(GUEST).contains("tick")).await;
    let (before, blocks) = free_blocks(&world);
    fails(
        agent.call::<Value>("SaveContainer", &json!({"id": GUEST})).await,
        FaultCode::NoSpace,
        "a twentieth",
    );
    let said = world.log(GUEST);
    until("it speaks again", || world.log(GUEST).len() > said.len()).await;
    assert_eq!(agent.inspect(GUEST).await.unwrap()["State"]["Status"], "running");
    assert!(before - free_blocks(&world).0 < blocks / 20, "what was copied is removed");
    agent.guest("DeleteContainer", &guest).await.unwrap();
    agent.end().await;
}
