//! Console and log: the client waits, the agent dials with its ticket, bytes flow.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::agent::{Agent, Outcome};
use super::cloud::{Ask, Cloud, LIMIT, guest, uuid};

/// A cloud with a guest on the one hypervisor it has.
pub(crate) async fn with_guest() -> (Cloud, Agent) {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let path = format!("/v1/guests/{}", uuid(100));
    assert_eq!(cloud.ask("PUT", &path).json(&guest("web")).send().await.status, 202);
    (cloud, agent)
}

/// What the agent is asked to dial, once the feed shows it.
pub(crate) async fn ordered(agent: &Agent) -> serde_json::Value {
    loop {
        let feed = agent.poll(None).await.json();
        if let Some(stream) = feed["streams"].as_array().unwrap().first() {
            return stream.clone();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_is_spliced_both_ways_and_its_ticket_is_used_once() {
    let (cloud, agent) = with_guest().await;
    let client = tokio::spawn(cloud.ask("GET", "/v1/guests/web/console").upgrade());
    let stream = ordered(&agent).await;
    assert_eq!((&stream["kind"], &stream["guest"]), (&json!("console"), &json!(uuid(100))));
    let path = format!("/v1/agent/streams/{}", stream["ticket"].as_str().unwrap());
    assert_eq!(agent.ask("GET", &path).send().await.code(), "upgrade_required");
    let other = Agent::join(&cloud, 2).await;
    let dial = |agent: &Agent| {
        agent.ask("GET", &path).header("connection", "upgrade").header("upgrade", "haar-stream")
    };
    assert_eq!(dial(&other).send().await.code(), "ticket_unknown");
    let mut host = agent.ask("GET", &path).upgrade().await;
    let mut client = client.await.unwrap();
    assert_eq!(dial(&agent).send().await.code(), "ticket_unknown");

    client.write_all(b"root\n").await.unwrap();
    let mut heard = [0; 5];
    host.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"root\n");
    host.write_all(b"password: ").await.unwrap();
    let mut heard = [0; 10];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"password: ");
    // One end closes, then so does the other.
    host.shutdown().await.unwrap();
    assert_eq!(client.read(&mut heard).await.unwrap(), 0);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_of_a_guest_that_is_off_is_refused_until_it_is_started() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let work = agent.work(Outcome::Settled);
    let path = format!("/v1/guests/{}?wait=60s", uuid(100));
    assert_eq!(cloud.ask("PUT", &path).json(&guest("web")).send().await.status, 201);
    assert_eq!(cloud.ask("POST", "/v1/guests/web/shutdown?wait=60s").send().await.status, 200);
    drop(work);
    let console = || cloud.ask("GET", "/v1/guests/web/console");
    let asked = |ask: Ask| ask.header("connection", "upgrade").header("upgrade", "haar-stream");
    assert_eq!(asked(console()).send().await.code(), "wrong_state");
    assert_eq!(cloud.ask("POST", "/v1/guests/web/start").send().await.status, 202);
    // Its hypervisor has not said that it runs.
    assert_eq!(cloud.get("/v1/guests/web").await["state"], "stopped");
    let client = tokio::spawn(console().upgrade());
    let stream = tokio::time::timeout(LIMIT, ordered(&agent)).await.expect("the console is asked for");
    let path = format!("/v1/agent/streams/{}", stream["ticket"].as_str().unwrap());
    let mut host = agent.ask("GET", &path).upgrade().await;
    let mut client = client.await.unwrap();
    host.write_all(b"boot").await.unwrap();
    let mut heard = [0; 4];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"boot");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_what_the_agent_sends_until_it_ends() {
    let (cloud, agent) = with_guest().await;
    let log = tokio::spawn(cloud.ask("GET", "/v1/guests/web/log?tail=100&follow=true").send());
    let stream = ordered(&agent).await;
    assert_eq!(
        (&stream["kind"], &stream["tail"], &stream["follow"]),
        (&json!("log"), &json!(100), &json!(true))
    );
    let path = format!("/v1/agent/streams/{}", stream["ticket"].as_str().unwrap());
    let mut host = agent.ask("GET", &path).upgrade().await;
    host.write_all(b"booting\nready\n").await.unwrap();
    host.shutdown().await.unwrap();
    let reply = log.await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "booting\nready\n"));
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_only_the_head_of_a_log_has_no_agent_asked_for_it() {
    let (cloud, agent) = with_guest().await;
    let head = cloud.ask("HEAD", "/v1/guests/web/log?follow=true").send().await;
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    assert_eq!(agent.poll(None).await.json()["streams"], json!([]));
    assert_eq!(cloud.ask("HEAD", "/v1/guests/none/log").send().await.status, 404);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_is_refused_with_the_reason() {
    let (cloud, _agent) = with_guest().await;
    assert_eq!(cloud.ask("GET", "/v1/guests/web/console").send().await.code(), "upgrade_required");
    assert_eq!(cloud.ask("GET", "/v1/guests/none/log").send().await.code(), "not_found");
    assert_eq!(cloud.ask("GET", "/v1/guests/web/log?tail=999999999999").send().await.code(), "bad_query");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_ticket_with_it() {
    let (cloud, agent) = with_guest().await;
    let asked = cloud.ask("GET", "/v1/guests/web/log").send();
    let left = tokio::spawn(asked);
    let first = ordered(&agent).await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    // An order that nobody waits for is not shown again; one that somebody waits for is, after 3 s.
    let _waits = tokio::spawn(cloud.ask("GET", "/v1/guests/web/log").send());
    let second = ordered(&agent).await;
    let again = ordered(&agent).await;
    assert_eq!(second["ticket"], again["ticket"]);
    assert_ne!(first["ticket"], again["ticket"]);
    cloud.stop().await;
}
