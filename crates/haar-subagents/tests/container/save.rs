//! Images made of containers.

use haar_api::rpc::{FaultCode, Image, ImageResponse};
use serde_json::{Value, json};

use crate::harness::*;
use crate::make_image::{E, busybox, image, layer, script};

const SAVED: &str = "22222222-2222-4222-8222-222222222222";

/// A container that has written so much that copying it takes a while, also where files share their bytes, and that
/// speaks all the time.
const LARGE: &str = "busybox mkdir /many; i=0; while [ $i -lt 800 ]; do : > /many/$i; i=$((i+1)); done; \
    busybox dd if=/dev/zero of=/large bs=1M count=48 2>/dev/null; while :; do echo tick; sleep 0.02; done";

async fn save(agent: &Agent, opts: Value) -> Result<Image, haar_api::rpc::Fault> {
    let saved: ImageResponse = agent.call("SaveContainer", &json!({"id": GUEST, "opts": opts})).await?;
    Ok(saved.images.unwrap().remove(0))
}

/// A container of [`LARGE`] that speaks.
async fn run_large(world: &World, agent: &Agent) -> Value {
    agent.load(&world.request(&script(LARGE))).await.unwrap();
    let mut guest = world.guest(GUEST);
    guest["memory"] = 0.into();
    agent.run(&guest).await;
    until("it speaks", || world.log(GUEST).contains("tick")).await;
    guest
}

/// Begins to save the large container, and waits until what it has written is being copied.
async fn begin_to_save(world: &World, agent: &Agent) {
    let own = world.path().join(format!("container/images/.part-{SAVED}/upper"));
    let has_begun = || std::fs::read_dir(&own).is_ok_and(|mut files| files.next().is_some());
    let params = json!({"id": GUEST, "opts": {"Repository": SAVED}});
    tokio::select! {
        answer = agent.try_call::<Value>("SaveContainer", &params) => panic!("it ended before: {answer:?}"),
        () = until("its files are copied", has_begun) => {}
    }
}

async fn ids(agent: &Agent) -> Vec<String> {
    let images: ImageResponse = agent.call("ListImages", &json!({})).await.unwrap();
    images.images.unwrap().into_iter().map(|image| image.id).collect()
}

#[tokio::test]
async fn what_a_container_wrote_is_in_a_container_of_its_saved_image() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let words = "trap 'exit 0' TERM; if [ -e /note ]; then echo found $(cat /link) $MINE $(id -u); \
        [ -e /bin/true ] || echo gone; else echo written > /note; busybox ln -s /note /link; busybox rm /bin/true; \
        busybox mkfifo /fifo; busybox mknod /dead c 1 3; fi; echo ready; while :; do sleep 0.05; done";
    agent.load(&world.request(&script(words))).await.unwrap();
    let mut guest = world.guest(GUEST);
    guest["haar"]["env"] = json!(["MINE=own"]);
    agent.run(&guest).await;
    until("it has written", || world.log(GUEST).contains("ready")).await;

    let saved =
        save(&agent, json!({"Repository": SAVED, "Tag": "latest", "Run": {"User": "web"}})).await.unwrap();
    assert_eq!(
        (saved.id.as_str(), saved.kind.as_str(), saved.status.as_str()),
        (SAVED, "container", "complete")
    );
    let seen = agent.inspect(GUEST).await.unwrap();
    assert_eq!((&seen["State"]["Status"], &seen["RestartCount"]), (&json!("running"), &json!(0)));
    assert_eq!(ids(&agent).await, [IMAGE, SAVED]);
    let rootfs = world.path().join("container/images").join(SAVED).join("rootfs");
    assert!(rootfs.join("fifo").exists() && !rootfs.join("dead").exists(), "a device is not part of it");
    assert_eq!(std::fs::read_dir(rootfs.join("dev")).unwrap().count(), 0, "nor what is mounted there");
    fails(save(&agent, json!({"Repository": SAVED})).await, FaultCode::Conflict, "another id");

    let mut other = world.guest(OTHER_GUEST);
    other["image"] = SAVED.into();
    agent.run(&other).await;
    until("the other has read it", || world.log(OTHER_GUEST).contains("ready")).await;
    assert_eq!(world.log(OTHER_GUEST), "found written own 33\ngone\nready\n");
    // It is whole: the one it was made of is not needed.
    agent.guest("DeleteContainer", &guest).await.unwrap();
    let _: Value = agent.call("DeleteImage", &json!({"id": IMAGE})).await.unwrap();
    agent.guest("RestartContainer", &other).await.unwrap();
    agent.guest("DeleteContainer", &other).await.unwrap();
    let _: Value = agent.call("DeleteImage", &json!({"id": SAVED})).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_at_rest_is_saved_and_stays_so_and_one_that_is_held_stays_held() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent
        .load(
            &world.request(&script(
                "trap 'exit 0' TERM; echo x > /note; echo ready; while :; do sleep 0.05; done",
            )),
        )
        .await
        .unwrap();
    let guest = world.guest(GUEST);
    agent.guest("CreateContainer", &guest).await.unwrap();
    let never_run = save(&agent, Value::Null).await.unwrap();
    agent.guest("StartContainer", &guest).await.unwrap();
    until("it has written", || world.log(GUEST).contains("ready")).await;

    agent.guest("PauseContainer", &guest).await.unwrap();
    let held = save(&agent, json!({})).await.unwrap();
    assert_eq!(agent.inspect(GUEST).await.unwrap()["State"]["Status"], "paused");
    agent.guest("UnpauseContainer", &guest).await.unwrap();

    agent.guest("StopContainer", &guest).await.unwrap();
    let stopped = save(&agent, json!({})).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new(), "at rest it holds nothing of the host");
    assert_eq!(agent.inspect(GUEST).await.unwrap()["State"]["Status"], "exited");
    for (image, has_note) in [(&never_run, false), (&held, true), (&stopped, true)] {
        let note = world.path().join("container/images").join(&image.id).join("rootfs/note");
        assert_eq!(note.exists(), has_note, "{image:?}");
    }
    assert_eq!(ids(&agent).await.len(), 4, "without a word each has an id of its own");
}

#[tokio::test]
async fn a_container_goes_on_while_the_image_is_made_of_what_it_had_written_before() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let words = "busybox rm /bin/true; busybox mv /bin /old; /old/busybox mkdir /bin; \
        PATH=/old; while :; do echo tick; echo more >> /more; sleep 0.02; done";
    // Most of it is the image's own.
    let large = layer(&[E::File("large", &vec![7; 24 << 20])]);
    let image = image(&[busybox(), large], &json!({"Cmd": ["/bin/sh", "-c", words]}));
    agent.load(&world.request(&image)).await.unwrap();
    let mut guest = world.guest(GUEST);
    guest["memory"] = 0.into();
    agent.run(&guest).await;
    until("it speaks", || world.log(GUEST).contains("tick")).await;

    let part = world.path().join(format!("container/images/.part-{SAVED}"));
    let going_on = async {
        until("the image's own is copied", || part.join("rootfs/large").exists()).await;
        let is_held = world.container(GUEST).join("held").exists();
        let (said, written) = (world.log(GUEST).len(), part.join("upper/more").metadata().unwrap().len());
        assert!(!is_held && part.join("merged").exists(), "it is not held for that");
        until("it speaks again", || world.log(GUEST).len() > said).await;
        written
    };
    let (saved, written) = tokio::join!(save(&agent, json!({"Repository": SAVED})), going_on);
    saved.unwrap();
    let rootfs = world.path().join("container/images").join(SAVED).join("rootfs");
    assert_eq!(rootfs.join("more").metadata().unwrap().len(), written, "what came later is not in it");
    assert_eq!(std::fs::read_dir(rootfs.join("bin")).unwrap().count(), 0, "a new folder hides the image's");
    assert!(rootfs.join("old/busybox").exists() && !rootfs.join("old/true").exists());
    assert_eq!(rootfs.join("large").metadata().unwrap().len(), 24 << 20);
    let left: Vec<_> =
        std::fs::read_dir(rootfs.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "image.json and rootfs: {left:?}");
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_save_that_is_killed_leaves_nothing_and_its_container_goes_on() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let guest = run_large(&world, &agent).await;
    begin_to_save(&world, &agent).await;
    agent.kill();
    assert!(world.container(GUEST).join("held").exists(), "it is held");
    let said = world.log(GUEST);

    let agent = Agent::start(&world).await;
    until("it speaks again", || world.log(GUEST).len() > said.len()).await;
    agent.until_state(GUEST, "/State/Status", &json!("running")).await;
    until("it is not marked", || !world.container(GUEST).join("held").exists()).await;
    assert_eq!(std::fs::read_dir(world.path().join("container/images")).unwrap().count(), 1);
    save(&agent, json!({"Repository": SAVED})).await.expect("now it is");
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_save_ends_with_its_images_deletion_and_with_the_sub_agent() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let guest = run_large(&world, &agent).await;
    begin_to_save(&world, &agent).await;
    let image: ImageResponse = agent.call("GetImage", &json!({"id": SAVED})).await.unwrap();
    assert_eq!(image.images.unwrap()[0].status, "downloading", "it is seen on its way");
    let _: Value = agent.call("DeleteImage", &json!({"id": SAVED})).await.unwrap();
    assert_eq!(ids(&agent).await, [IMAGE]);
    let said = world.log(GUEST);
    until("it speaks again", || world.log(GUEST).len() > said.len()).await;

    begin_to_save(&world, &agent).await;
    agent.end().await;
    let said = world.log(GUEST);
    until("it speaks without the sub-agent", || world.log(GUEST).len() > said.len()).await;
    assert!(!world.container(GUEST).join("held").exists());
    let agent = Agent::start(&world).await;
    assert_eq!(ids(&agent).await, [IMAGE]);
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_saved_is_refused() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    fails(save(&agent, json!({})).await, FaultCode::NotFound, "no container");
    agent.load(&world.request(&script("sleep 1000"))).await.unwrap();
    agent.guest("CreateContainer", &world.guest(GUEST)).await.unwrap();
    for (opts, words) in [
        (json!("all"), "an object"),
        (json!({"repository": "registry/name"}), "UUID"),
        (json!({"Repository": 7}), "text"),
        (json!({"Tag": "v1"}), "latest"),
        (json!({"Run": {"Cmd": "word"}}), "opts.Run"),
        (json!({"Run": {"Env": ["novalue"]}}), "NAME=value"),
        (json!({"Run": {"User": "a\0b"}}), "zero byte"),
    ] {
        fails(save(&agent, opts).await, FaultCode::Invalid, words);
    }
    // The container's id may stand among the options, as in Docker's own.
    let saved: ImageResponse =
        agent.call("SaveContainer", &json!({"opts": {"container": GUEST}})).await.unwrap();
    assert_eq!(saved.images.unwrap().len(), 1);
    fails(save(&agent, json!({"Repository": IMAGE})).await, FaultCode::Conflict, "another id");
}
