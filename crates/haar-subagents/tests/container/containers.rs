//! Containers: made, run, asked after, held, ended and removed.

use haar_api::rpc::FaultCode;
use serde_json::{Value, json};

use crate::harness::*;
use crate::make_image::{self, busybox, script};

#[tokio::test]
async fn s05_a_container_lives_its_whole_life_and_leaves_nothing() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let image = script(
        "trap 'echo asked; exit 0' TERM; echo up $FROM_IMAGE $MINE $(hostname); cat /etc/hosts; while :; do sleep 0.05; done",
    );
    agent.load(&world.request(&image)).await.unwrap();
    let mut guest = world.guest(GUEST);
    guest["haar"]["env"] = json!(["MINE=own"]);

    let made = agent.guest("CreateContainer", &guest).await.unwrap();
    assert_eq!((&made["state"], &made["haar"]["stranger"]["kept"]), (&json!("stopped"), &json!(1)));
    assert_eq!(agent.guest("CreateContainer", &guest).await.unwrap()["state"], "stopped", "asked twice");
    let running = agent.guest("StartContainer", &guest).await.unwrap();
    assert_eq!(running["state"], "running");
    assert!(running["nics"][0]["device"].as_str().unwrap().starts_with("hv"));
    let pids = world.pids();
    assert_eq!(agent.guest("StartContainer", &guest).await.unwrap()["state"], "running");
    assert!(world.pids().contains(&pids[0]), "asked twice it is the same");
    until("it speaks", || world.log(GUEST).contains("10.98.7.10")).await;
    assert!(world.log(GUEST).contains("up yes own box"), "{}", world.log(GUEST));

    let seen = agent.inspect(GUEST).await.unwrap();
    assert_eq!((&seen["State"]["Running"], &seen["Name"]), (&json!(true), &json!(format!("/{GUEST}"))));
    let listed: Value = agent.call("ListContainers", &json!({})).await.unwrap();
    assert_eq!(listed["containers"][0]["Id"], GUEST);

    let stopped = agent.guest("StopContainer", &guest).await.unwrap();
    assert_eq!((&stopped["state"], stopped["nics"][0].get("device")), (&json!("stopped"), None));
    assert!(world.log(GUEST).ends_with("asked\n"), "it was asked before it was killed: {}", world.log(GUEST));
    assert_eq!(world.traces(), Vec::<String>::new(), "at rest it holds nothing of the host");
    let listed: Value = agent.call("ListContainers", &json!({})).await.unwrap();
    assert_eq!(listed["containers"], json!([]));
    let listed: Value = agent.call("ListContainers", &json!({"opts": {"All": true}})).await.unwrap();
    assert_eq!(listed["containers"][0]["State"]["Status"], "exited");

    for _ in 0..2 {
        assert_eq!(agent.guest("DeleteContainer", &guest).await.unwrap()["state"], "deleted");
    }
    assert!(!world.container(GUEST).exists());
    fails(agent.inspect(GUEST).await, FaultCode::NotFound, "no container");
    fails(agent.guest("StartContainer", &guest).await, FaultCode::NotFound, "no container");
    agent.end().await;
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn files_stay_between_runs_and_the_image_stays_as_it_is() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let image = script("echo $(cat /note); echo written > /note; echo x > /etc/passwd; sleep 1000");
    agent.load(&world.request(&image)).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    until("it has written", || world.container(GUEST).join("upper/etc/passwd").exists()).await;
    agent.guest("RestartContainer", &guest).await.unwrap();
    until("it reads what it wrote", || world.log(GUEST).contains("written")).await;
    let rootfs = world.path().join("container/images").join(IMAGE).join("rootfs");
    assert!(
        !rootfs.join("note").exists()
            && std::fs::read_to_string(rootfs.join("etc/passwd")).unwrap().contains("web")
    );
    assert_eq!(agent.inspect(GUEST).await.unwrap()["RestartCount"], 0, "nobody restarts by himself");
    fails(agent.call::<Value>("DeleteImage", &json!({"id": IMAGE})).await, FaultCode::Conflict, GUEST);
    agent.guest("DeleteContainer", &guest).await.unwrap();
    let _: Value = agent.call("DeleteImage", &json!({"id": IMAGE})).await.unwrap();
}

#[tokio::test]
async fn limits_hold() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    // A file in memory is memory.
    let image = script("exec busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=60");
    agent.load(&world.request(&image)).await.unwrap();
    let mut guest = world.guest(GUEST);
    guest["haar"]["restart"] = "never".into();
    guest["memory"] = 16.into();
    agent.run(&guest).await;
    let ended = agent.until_state(GUEST, "/State/Running", &json!(false)).await;
    assert_eq!(ended["State"]["ExitCode"], 137, "killed for its memory: {ended:#} {}", world.log(GUEST));
}

#[tokio::test]
async fn a_held_container_does_nothing_until_it_is_let_go() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("while :; do echo tick; sleep 0.02; done"))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    until("it ticks", || world.log(GUEST).contains("tick")).await;
    for _ in 0..2 {
        assert_eq!(agent.guest("PauseContainer", &guest).await.unwrap()["state"], "paused");
    }
    assert_eq!(agent.inspect(GUEST).await.unwrap()["State"]["Paused"], true);
    let held = world.log(GUEST);
    // Long enough for ten of its ticks, as a neighbour counts them that is not held.
    let neighbour = world.guest(OTHER_GUEST);
    agent.run(&neighbour).await;
    until("the neighbour ticks on", || world.log(OTHER_GUEST).lines().count() >= 10).await;
    assert_eq!(agent.inspect(GUEST).await.unwrap()["State"]["Status"], "paused");
    assert_eq!(world.log(GUEST), held);
    assert_eq!(agent.guest("UnpauseContainer", &guest).await.unwrap()["state"], "running");
    until("it ticks again", || world.log(GUEST).len() > held.len()).await;
    agent.guest("PauseContainer", &guest).await.unwrap();
    assert_eq!(
        agent.guest("StopContainer", &guest).await.unwrap()["state"],
        "stopped",
        "a held one ends too"
    );
    fails(agent.guest("PauseContainer", &guest).await, FaultCode::Conflict, "does not run");
}

#[tokio::test]
async fn a_container_has_few_powers_and_its_own_user() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let words = "id -u; cat /proc/self/status; unshare -U true || echo no namespaces; mount -t tmpfs x /tmp || echo no mounts; \
        touch /proc/sys/kernel/x || echo no settings; echo done; sleep 1000";
    let image = make_image::image(&[busybox()], &json!({"Cmd": ["/bin/sh", "-c", words], "User": "web"}));
    agent.load(&world.request(&image)).await.unwrap();
    agent.run(&world.guest(GUEST)).await;
    until("it has tried", || world.log(GUEST).contains("done")).await;
    let log = world.log(GUEST);
    assert!(log.starts_with("33\n"), "{log}");
    for words in ["no namespaces", "no mounts", "no settings", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.container(GUEST).join("config.json")), 0o600, "it holds the environment");
    assert_eq!(mode(&world.container(GUEST).join("log")), 0o600);
    assert_eq!(mode(&world.path().join("container")), 0o700);
}

#[tokio::test]
async fn a_container_that_cannot_begin_says_why_and_leaves_nothing() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent
        .load(&world.request(&make_image::image(&[busybox()], &json!({"Cmd": ["/never/there"]}))))
        .await
        .unwrap();
    let mut guest = world.guest(GUEST);
    agent.guest("CreateContainer", &guest).await.unwrap();
    fails(agent.guest("StartContainer", &guest).await, FaultCode::Failed, "/never/there");
    assert_eq!(world.traces(), Vec::<String>::new());
    agent.guest("DeleteContainer", &guest).await.unwrap();
    guest["nics"][0]["network"] = "neverbr0".into();
    agent.guest("CreateContainer", &guest).await.unwrap();
    fails(agent.guest("StartContainer", &guest).await, FaultCode::Unavailable, "no bridge neverbr0");
    assert_eq!(world.traces(), Vec::<String>::new());
}

/// A signal that `runc kill` knows by its number only.
#[tokio::test]
async fn a_container_is_asked_by_its_images_own_signal() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let words = "trap 'echo asked; exit 0' 37; trap 'echo wrong' TERM; echo up; while :; do sleep 0.05; done";
    let run = json!({"Cmd": ["/bin/sh", "-c", words], "StopSignal": "SIGRTMIN+3"});
    agent.load(&world.request(&make_image::image(&[busybox()], &run))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    until("it is up", || world.log(GUEST).contains("up")).await;
    agent.guest("StopContainer", &guest).await.unwrap();
    assert_eq!(world.log(GUEST), "up\nasked\n");
    let seen = agent.inspect(GUEST).await.unwrap();
    assert_eq!((&seen["State"]["ExitCode"], &seen["State"]["Status"]), (&json!(0), &json!("exited")));
}

#[tokio::test]
async fn an_inspection_shows_what_the_image_says_and_what_was_never_run() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let run = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["true"], "Env": ["A=image", "B=image"]});
    agent.load(&world.request(&make_image::image(&[busybox()], &run))).await.unwrap();
    let mut guest = world.guest(GUEST);
    guest["haar"]["env"] = json!(["A=own"]);
    agent.guest("CreateContainer", &guest).await.unwrap();
    let seen = agent.inspect(GUEST).await.unwrap();
    assert_eq!(seen["State"]["Status"], "created");
    let config = &seen["Config"];
    assert_eq!((&config["Cmd"], &config["Entrypoint"]), (&run["Cmd"], &run["Entrypoint"]));
    assert_eq!(config["Env"], json!(["B=image", "A=own"]));
}

#[tokio::test]
async fn a_container_with_a_damaged_record_holds_its_image_and_can_be_removed() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("while :; do sleep 0.05; done"))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    std::fs::write(world.container(GUEST).join("container.json"), "damaged").unwrap();
    fails(agent.guest("StopContainer", &guest).await, FaultCode::Conflict, "damaged");
    fails(agent.call::<Value>("DeleteImage", &json!({"id": IMAGE})).await, FaultCode::Conflict, GUEST);
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
    let _: Value = agent.call("DeleteImage", &json!({"id": IMAGE})).await.unwrap();
}

#[tokio::test]
async fn another_cloud_life_or_wish_is_a_conflict() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("sleep 1000"))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.guest("CreateContainer", &guest).await.unwrap();
    let changed = |place: &str, value: Value| {
        let mut changed = guest.clone();
        *changed.pointer_mut(place).unwrap() = value;
        changed
    };
    for other in [
        changed("/haar/cloud", json!("other")),
        changed("/haar/life", json!("2.1")),
        changed("/memory", json!(65)),
    ] {
        fails(agent.guest("CreateContainer", &other).await, FaultCode::Conflict, "");
    }
    fails(
        agent.guest("DeleteContainer", &changed("/haar/life", json!("2.1"))).await,
        FaultCode::Conflict,
        "life",
    );
    let mut absent = world.guest(OTHER_GUEST);
    absent["haar"]["provisioned"] = true.into();
    fails(agent.guest("CreateContainer", &absent).await, FaultCode::Lost, "gone");
    fails(agent.guest("StopContainer", &absent).await, FaultCode::NotFound, "");
    // A create that failed is undone by the two stages of a delete.
    let undo = json!({"guest": absent, "action": "containerDelete"});
    for method in ["StopContainer", "DeleteContainer"] {
        let _: Value = agent.call(method, &undo).await.unwrap();
    }
}

#[tokio::test]
async fn the_host_says_what_it_runs() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let info: Value = agent.call("GetInfo", &json!({})).await.unwrap();
    assert_eq!((&info["Containers"], &info["Driver"]), (&json!(0), &json!("overlay")));
    let runtime = info["DefaultRuntime"].as_str().unwrap();
    assert!(runtime.contains("runc") || runtime.contains("crun"), "{info:#}");
    assert_eq!(world.traces(), Vec::<String>::new(), "what was tried at start is gone");
}
