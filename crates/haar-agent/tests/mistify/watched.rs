//! States that are seen without being asked for: of guests whose service is watched, and of containers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::stub::Manner;
use crate::world::{G, World};

/// With libvirt watched: at the agent's start every guest is said to have changed, later none.
async fn watched() -> World {
    let world = World::with(|config| config["services"]["libvirt"]["watch"] = json!(true)).await;
    world.stub.on("Libvirt.Changes", told_once());
    world.guest(json!({})).await;
    world
}

fn told_once() -> Manner {
    Manner::Made(|params| json!({"cursor": "later", "all": params["cursor"] == "", "changes": []}))
}

fn with_state(state: fn(&Value) -> Value) -> Manner {
    Manner::Made(state)
}

async fn until_state(world: &World, state: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let guest = world.get(&format!("/guests/{G}")).await.is(200).json();
        if guest["state"] == state {
            return;
        }
        assert!(Instant::now() < deadline, "it is not seen to be {state}: {guest}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_cannot_be_looked_at_is_looked_at_again() {
    let mut world = watched().await;
    world.stub.forget();
    world.stub.on("Libvirt.Status", Manner::Error("unavailable: libvirtd is being restarted"));
    world.restart().await;
    world.until_asked("Libvirt.Status", 2).await;
    world.stub.on("Libvirt.Status", with_state(|_| json!({"guest": {"id": G, "state": "crashed"}})));
    until_state(&world, "crashed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_service_that_fails_for_a_moment_is_watched_again() {
    let mut world = watched().await;
    world.stub.forget();
    world.stub.on("Libvirt.Changes", Manner::Raw(503, "not now"));
    world.stub.on("Libvirt.Status", with_state(|_| json!({"guest": {"id": G, "state": "crashed"}})));
    world.restart().await;
    world.until_asked("Libvirt.Changes", 2).await;
    world.stub.on("Libvirt.Changes", told_once());
    until_state(&world, "crashed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_seen_to_end_to_be_held_and_to_be_gone() {
    let world = World::new().await;
    world.guest(json!({"type": "container"})).await;
    until_state(&world, "running").await;
    let is = |running: bool, paused: bool| {
        let states: [fn(&Value) -> Value; 3] = [
            |asked| json!({"containers": [{"Id": asked["id"], "State": {"Running": false, "Paused": false}}]}),
            |asked| json!({"containers": [{"Id": asked["id"], "State": {"Running": true, "Paused": false}}]}),
            |asked| json!({"containers": [{"Id": asked["id"], "State": {"Running": true, "Paused": true}}]}),
        ];
        Manner::Made(states[usize::from(running) + usize::from(paused)])
    };
    world.stub.on("MDocker.GetContainer", is(false, false));
    until_state(&world, "stopped").await;
    world.stub.on("MDocker.GetContainer", is(true, true));
    until_state(&world, "paused").await;
    world.stub.on("MDocker.GetContainer", Manner::Error("unavailable: docker is being restarted"));
    world.stub.forget();
    world.until_asked("MDocker.GetContainer", 2).await;
    until_state(&world, "paused").await;
    world.stub.on("MDocker.GetContainer", Manner::Error("No such container: it"));
    until_state(&world, "unknown").await;
    assert!(world.stub.of("MDocker.GetContainer").iter().all(|asked| asked["id"] == G));
}
