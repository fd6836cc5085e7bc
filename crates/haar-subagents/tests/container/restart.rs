//! What follows when a container ends by itself.

use serde_json::json;

use crate::harness::*;
use crate::make_image::script;

async fn with_policy(world: &World, agent: &Agent, policy: &str, words: &str) {
    agent.load(&world.request(&script(words))).await.unwrap();
    let mut guest = world.guest(GUEST);
    guest["haar"]["restart"] = policy.into();
    agent.run(&guest).await;
}

#[tokio::test]
async fn a_failure_is_run_again_until_it_ends_well() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    let words = "echo run >> /count; if [ $(busybox wc -l < /count) -ge 3 ]; then exit 0; fi; exit 7";
    with_policy(&world, &agent, "on-failure", words).await;
    until("it was run three times", || {
        std::fs::read_to_string(world.container(GUEST).join("upper/count"))
            .is_ok_and(|text| text.lines().count() == 3)
    })
    .await;
    let ended = agent.until_state(GUEST, "/State/Running", &json!(false)).await;
    let ended = if ended["RestartCount"] == 2 {
        ended
    } else {
        agent.until_state(GUEST, "/RestartCount", &json!(2)).await
    };
    assert_eq!(ended["HostConfig"]["RestartPolicy"]["Name"], "on-failure");
    agent.until_state(GUEST, "/State/ExitCode", &json!(0)).await;
    until("it holds nothing of the host", || world.traces().is_empty()).await;
}

#[tokio::test]
async fn a_container_that_shall_not_be_run_again_is_not() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    with_policy(&world, &agent, "never", "exit 7").await;
    let ended = agent.until_state(GUEST, "/State/ExitCode", &json!(7)).await;
    assert_eq!((&ended["RestartCount"], &ended["State"]["Status"]), (&json!(0), &json!("exited")));
    until("it holds nothing of the host", || world.traces().is_empty()).await;
    assert_eq!(agent.inspect(GUEST).await.unwrap()["RestartCount"], 0);
}

#[tokio::test]
async fn a_good_end_is_run_again_when_it_shall_always_run_until_it_is_stopped() {
    let Some(world) = World::live() else { return };
    let agent = Agent::start(&world).await;
    with_policy(&world, &agent, "always", "exit 0").await;
    agent.until_state(GUEST, "/RestartCount", &json!(3)).await;
    agent.guest("StopContainer", &world.guest(GUEST)).await.unwrap();
    let runs = agent.inspect(GUEST).await.unwrap()["RestartCount"].clone();
    agent.end().await;
    let agent = Agent::start(&world).await;
    assert_eq!(
        agent.inspect(GUEST).await.unwrap()["RestartCount"],
        runs,
        "a stop holds, also over a restart"
    );
    assert_eq!(world.traces(), Vec::<String>::new());
}
