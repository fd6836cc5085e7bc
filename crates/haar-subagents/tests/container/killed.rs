//! A sub-agent that is killed: containers run on, and nothing is orphaned or done twice.

use serde_json::{Value, json};

use crate::harness::*;
use crate::make_image::script;

#[tokio::test]
async fn a_container_runs_on_without_the_sub_agent_and_is_found_again() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("echo begun; while :; do sleep 0.05; done"))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    until("it speaks", || world.log(GUEST).contains("begun")).await;
    let pid = agent.inspect(GUEST).await.unwrap()["State"]["Pid"].clone();
    agent.kill();
    assert!(world.pids().contains(&i32::try_from(pid.as_i64().unwrap()).unwrap()), "it runs on");
    let agent = Agent::start(&world).await;
    let seen = agent.inspect(GUEST).await.unwrap();
    assert_eq!((&seen["State"]["Pid"], &seen["RestartCount"]), (&pid, &json!(0)));
    assert_eq!(world.log(GUEST), "begun\n", "begun once");
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn an_end_that_nobody_saw_is_seen_after_the_restart() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let words = "echo run; if [ -e /once ]; then sleep 1000; fi; touch /once; while [ ! -e /go ]; do sleep 0.02; done; exit 9";
    agent.load(&world.request(&script(words))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    until("it speaks", || world.log(GUEST).contains("run")).await;
    agent.kill();
    std::fs::write(world.container(GUEST).join("rootfs/go"), "").unwrap();
    let exit = world.container(GUEST).join("exit.json");
    until("its monitor writes the end down", || {
        std::fs::read_to_string(&exit).is_ok_and(|text| text.contains("\"code\": 9"))
    })
    .await;
    let agent = Agent::start(&world).await;
    agent.until_state(GUEST, "/RestartCount", &json!(1)).await;
    until("it runs again", || world.log(GUEST) == "run\nrun\n").await;
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}

/// At many moments of a start, a stop and a deletion: the next sub-agent ends or finishes what the last one began.
#[tokio::test]
async fn killed_at_any_moment_nothing_is_orphaned_or_done_twice() {
    let Some(world) = World::live() else { return };
    let guest = world.guest(GUEST);
    let agent = Agent::start(&world).await;
    agent
        .load(&world.request(&script("echo begun; trap 'exit 0' TERM; while :; do sleep 0.02; done")))
        .await
        .unwrap();
    agent.end().await;
    for step in 0..14_u64 {
        // From before the first mount to after the last word, in steps that grow.
        let pause = std::time::Duration::from_millis(step * step * 3 / 2);
        for method in ["StartContainer", "StopContainer", "DeleteContainer"] {
            let agent = Agent::start(&world).await;
            agent.guest("CreateContainer", &guest).await.unwrap();
            if method != "StartContainer" {
                agent.guest("StartContainer", &guest).await.unwrap();
            }
            let params = json!({"guest": guest, "action": ""});
            let cut = {
                let call = agent.try_call::<Value>(method, &params);
                tokio::time::timeout(pause, call).await.is_err()
            };
            agent.kill();

            let agent = Agent::start(&world).await;
            let answer: Value = agent.call(method, &params).await.unwrap();
            let state = answer["guest"]["state"].as_str().unwrap().to_owned();
            let context = format!("{method} cut={cut} after {pause:?}");
            match method {
                "StartContainer" => {
                    assert_eq!(state, "running", "{context}");
                    until("it speaks", || world.log(GUEST).contains("begun")).await;
                    assert_eq!(world.log(GUEST), "begun\n", "{context}: begun once");
                }
                _ => {
                    assert_ne!(state, "running", "{context}");
                    assert_eq!(world.traces(), Vec::<String>::new(), "{context}");
                }
            }
            agent.guest("DeleteContainer", &guest).await.unwrap();
            assert_eq!(world.traces(), Vec::<String>::new(), "{context}");
            assert_eq!(
                std::fs::read_dir(world.path().join("container/containers")).unwrap().count(),
                0,
                "{context}"
            );
            agent.end().await;
        }
    }
}

/// Without asking again: what was begun is finished by the sub-agent itself.
#[tokio::test]
async fn a_deletion_that_was_cut_off_is_finished_by_the_next_start() {
    let Some(world) = World::live() else { return };
    let guest = world.guest(GUEST);
    for pause in [0, 5, 15, 30, 60] {
        let agent = Agent::start(&world).await;
        agent.load(&world.request(&script("while :; do sleep 0.02; done"))).await.unwrap();
        agent.run(&guest).await;
        let pause = std::time::Duration::from_millis(pause);
        let params = json!({"guest": guest, "action": ""});
        let _ = tokio::time::timeout(pause, agent.try_call::<Value>("DeleteContainer", &params)).await;
        agent.kill();
        let record = world.container(GUEST).join("container.json");
        let was_ordered = !std::fs::read_to_string(&record).is_ok_and(|text| !text.contains("gone"));
        let agent = Agent::start(&world).await;
        if was_ordered {
            until("it is removed", || world.traces().is_empty() && !world.container(GUEST).exists()).await;
        }
        agent.guest("DeleteContainer", &guest).await.unwrap();
        agent.end().await;
    }
}

/// Whether it was cut off before or after its end: it runs again, once.
#[tokio::test]
async fn a_restart_that_was_cut_off_is_finished_by_the_next_start() {
    let Some(world) = World::live() else { return };
    let guest = world.guest(GUEST);
    let agent = Agent::start(&world).await;
    let words = "echo begun; trap 'exit 0' TERM; while :; do sleep 0.02; done";
    agent.load(&world.request(&script(words))).await.unwrap();
    agent.end().await;
    for pause in [0, 5, 15, 30, 45, 60, 90, 130, 200] {
        let agent = Agent::start(&world).await;
        agent.run(&guest).await;
        until("it speaks", || world.log(GUEST).contains("begun")).await;
        let params = json!({"guest": guest, "action": ""});
        let pause = std::time::Duration::from_millis(pause);
        let _ = tokio::time::timeout(pause, agent.try_call::<Value>("RestartContainer", &params)).await;
        agent.kill();
        let record = world.noted(GUEST, "container.json");
        let was_ordered = record["goal"] == "restart" || record["run"] == 2;
        let agent = Agent::start(&world).await;
        let wanted = if was_ordered { "begun\nbegun\n" } else { "begun\n" };
        until("it runs as it was ordered", || world.log(GUEST) == wanted).await;
        agent.until_state(GUEST, "/State/Running", &json!(true)).await;
        assert_eq!(world.log(GUEST), wanted, "no more than that: {record}");
        agent.guest("DeleteContainer", &guest).await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
        agent.end().await;
    }
}

/// Its monitor and the runtime died after the container was made and before it was let go.
#[tokio::test]
async fn a_container_that_was_never_let_go_is_ended_and_run_again() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("echo begun; while :; do sleep 0.05; done"))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    until("it speaks", || world.log(GUEST).contains("begun")).await;
    let pid = agent.inspect(GUEST).await.unwrap()["State"]["Pid"].as_i64().unwrap();
    agent.kill();
    nix::sys::signal::kill(world.monitor(GUEST), nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut begun = world.noted(GUEST, "begun.json");
    begun["is_started"] = false.into();
    std::fs::write(world.container(GUEST).join("begun.json"), begun.to_string()).unwrap();
    let agent = Agent::start(&world).await;
    until("it runs anew", || world.log(GUEST) == "begun\nbegun\n").await;
    assert!(!world.pids().contains(&i32::try_from(pid).unwrap()), "the first one is gone");
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}

/// Stopped by a signal, so that it neither writes an end down nor lets its lock go.
#[tokio::test]
async fn a_monitor_that_is_stuck_keeps_nobody_from_ending_its_container() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("while :; do sleep 0.05; done"))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    let monitor = world.monitor(GUEST);
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGSTOP).unwrap();
    assert_eq!(agent.guest("DeleteContainer", &guest).await.unwrap()["state"], "deleted");
    assert_eq!(world.traces(), Vec::<String>::new());
    until("it is gone", || nix::sys::signal::kill(monitor, None).is_err()).await;
}

#[tokio::test]
async fn nobody_is_told_of_an_end_before_it_is_known_how_it_ended() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("while :; do sleep 0.05; done"))).await.unwrap();
    let mut guest = world.guest(GUEST);
    guest["haar"]["restart"] = "never".into();
    agent.run(&guest).await;
    let monitor = world.monitor(GUEST);
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let first = agent.inspect(GUEST).await.unwrap()["State"]["Pid"].as_i64().unwrap();
    let first = nix::unistd::Pid::from_raw(i32::try_from(first).unwrap());
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL).unwrap();
    // Nobody buries it while its monitor stands still.
    let stat = format!("/proc/{first}/stat");
    until("it has ended", || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z "))).await;
    let state = agent.inspect(GUEST).await.unwrap()["State"].clone();
    assert_eq!((&state["Status"], &state["Running"]), (&json!("running"), &json!(true)), "{state:#}");
    nix::sys::signal::kill(monitor, nix::sys::signal::Signal::SIGCONT).unwrap();
    let ended = agent.until_state(GUEST, "/State/Running", &json!(false)).await;
    assert_eq!(ended["State"]["ExitCode"], 137, "{ended:#}");
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}

/// What is at rest is known by its run: were it the same one, what a second failed start leaves would stay.
#[tokio::test]
async fn each_attempt_to_start_is_a_run_of_its_own() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let image = crate::make_image::image(&[crate::make_image::busybox()], &json!({"Cmd": ["/never"]}));
    agent.load(&world.request(&image)).await.unwrap();
    let guest = world.guest(GUEST);
    agent.guest("CreateContainer", &guest).await.unwrap();
    for run in 1..=3 {
        agent.guest("StartContainer", &guest).await.unwrap_err();
        let record = world.noted(GUEST, "container.json");
        assert_eq!((&record["run"], &record["goal"]), (&json!(run), &json!("stop")));
        assert_eq!(world.traces(), Vec::<String>::new());
    }
    agent.end().await;
}

/// Containers of a sub-agent whose runtime works no more, as after a broken upgrade, until it works again.
#[tokio::test]
async fn without_a_runtime_containers_are_ended_and_with_one_again_they_run() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("while :; do sleep 0.05; done"))).await.unwrap();
    for guest in [world.guest(GUEST), world.guest(OTHER_GUEST)] {
        agent.run(&guest).await;
    }
    agent.end().await;
    let bin = world.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["runc", "crun"] {
        std::os::unix::fs::symlink("/bin/false", bin.join(name)).unwrap();
    }
    // As one leaves it that was killed while it tried the runtime.
    let tried = world.path().join("run/container/probe-1");
    std::fs::create_dir(&tried).unwrap();
    let agent = Agent::start(&world).await;
    assert!(!tried.exists());
    let (one, other) = (world.guest(GUEST), world.guest(OTHER_GUEST));
    assert_eq!(agent.inspect(GUEST).await.unwrap()["State"]["Running"], true, "it runs on");
    assert_eq!(agent.guest("StopContainer", &one).await.unwrap()["state"], "stopped");
    agent.guest("DeleteContainer", &other).await.unwrap();
    assert!(world.traces().is_empty() && world.pids().is_empty());
    fails(agent.guest("StartContainer", &one).await, haar_api::rpc::FaultCode::Unavailable, "runc: ");
    std::fs::remove_dir_all(&bin).unwrap();
    let deadline = std::time::Instant::now() + LIMIT;
    while agent.guest("StartContainer", &one).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "the runtime is never tried again");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    agent.guest("DeleteContainer", &one).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_stranger_run_left_on_the_host_is_ended_at_start() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("while :; do sleep 0.05; done"))).await.unwrap();
    agent.run(&world.guest(GUEST)).await;
    agent.kill();
    // The folder went, and nothing else.
    let folder = world.container(GUEST);
    nix::mount::umount2(&folder.join("rootfs"), nix::mount::MntFlags::MNT_DETACH).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(!world.pids().is_empty());
    let agent = Agent::start(&world).await;
    until("all of it is gone", || world.traces().is_empty() && world.pids().is_empty()).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_removes_everything_and_asked_again_nothing() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    agent.load(&world.request(&script("while :; do sleep 0.05; done"))).await.unwrap();
    agent.run(&world.guest(GUEST)).await;
    agent.run(&world.guest(OTHER_GUEST)).await;
    agent.kill();
    std::fs::write(world.container(GUEST).join("container.json"), "damaged").unwrap();
    for _ in 0..2 {
        haar_subagents::container::purge(&config(world.path())).await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
        assert!(world.pids().is_empty() && !world.path().join("container").exists());
    }
}

#[tokio::test]
async fn a_container_whose_monitor_was_killed_runs_on_and_its_end_counts_as_a_failure() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let words = "echo run; while [ ! -e /go ]; do sleep 0.02; done; exit 0";
    agent.load(&world.request(&script(words))).await.unwrap();
    let guest = world.guest(GUEST);
    agent.run(&guest).await;
    until("it speaks", || world.log(GUEST).contains("run")).await;
    let pid = agent.inspect(GUEST).await.unwrap()["State"]["Pid"].as_i64().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    assert!(parent > 1, "its monitor is its parent");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), nix::sys::signal::Signal::SIGKILL).unwrap();
    let monitor = std::path::PathBuf::from(format!("/proc/{parent}/fd"));
    until("the monitor is gone", || {
        std::fs::read_dir(&monitor).map_or(true, |mut files| files.next().is_none())
    })
    .await;
    let seen = agent.inspect(GUEST).await.unwrap();
    assert_eq!((&seen["State"]["Running"], &seen["State"]["Pid"]), (&json!(true), &json!(pid)));

    std::fs::write(world.container(GUEST).join("rootfs/go"), "").unwrap();
    until("it is run again", || world.log(GUEST) == "run\nrun\n").await;
    // The second end was seen, and was a good one.
    let ended = agent.until_state(GUEST, "/State/Status", &json!("exited")).await;
    assert_eq!(ended["RestartCount"], 1, "{ended:#}");
    until("it holds nothing of the host", || world.traces().is_empty()).await;
    agent.guest("DeleteContainer", &guest).await.unwrap();
    assert_eq!(world.traces(), Vec::<String>::new());
}
