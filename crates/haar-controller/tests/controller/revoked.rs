//! A token that is removed takes with it what its bearer has open.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::agent::Agent;
use super::cloud::{Ask, Cloud, LIMIT, uuid};
use super::streams::{ordered, with_guest};

/// Something that must end, in time.
async fn ends<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("it ends with its token")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_end_with_their_follower_s_token_and_others_go_on() {
    let cloud = Cloud::start().await;
    let leaked = cloud.other_admin().await;
    let open = |token: &str| Ask::new(cloud.addr, "GET", "/v1/events").token(token).open();
    let (theirs, mine) = (open(&leaked).await, open(&cloud.admin).await);
    cloud.revoke("other").await;
    cloud.put(&format!("/v1/networks/{}", uuid(1)), json!({"name": "n-1"})).await;
    let heard = ends(theirs.into_body().collect()).await.unwrap().to_bytes();
    let heard = String::from_utf8(heard.to_vec()).unwrap();
    assert!(!heard.contains("n-1"), "{heard}");
    let mut body = mine.into_body();
    let mut heard = String::new();
    while !heard.contains("n-1") {
        let frame = ends(body.frame()).await.unwrap().unwrap();
        heard.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    cloud.stop().await;
}

/// Whichever end's token is removed, both ends close.
#[tokio::test(flavor = "multi_thread")]
async fn a_console_closes_with_the_token_of_either_end() {
    for revoked in ["other", "agent-1"] {
        let (cloud, agent) = with_guest().await;
        let leaked = cloud.other_admin().await;
        let client = Ask::new(cloud.addr, "GET", "/v1/guests/web/console").token(&leaked);
        let client = tokio::spawn(client.upgrade());
        let path = format!("/v1/agent/streams/{}", ordered(&agent).await["ticket"].as_str().unwrap());
        let mut host = agent.ask("GET", &path).upgrade().await;
        let mut client = client.await.unwrap();
        client.write_all(b"id\n").await.unwrap();
        let mut heard = [0; 3];
        host.read_exact(&mut heard).await.unwrap();
        cloud.revoke(revoked).await;
        assert_eq!(ends(client.read(&mut heard)).await.unwrap(), 0, "{revoked}");
        assert_eq!(ends(host.read(&mut heard)).await.unwrap(), 0, "{revoked}");
        cloud.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_followed_ends_with_its_reader_s_token() {
    let (cloud, agent) = with_guest().await;
    let leaked = cloud.other_admin().await;
    let log = Ask::new(cloud.addr, "GET", "/v1/guests/web/log?follow=true").token(&leaked);
    let log = tokio::spawn(log.send());
    let path = format!("/v1/agent/streams/{}", ordered(&agent).await["ticket"].as_str().unwrap());
    let _host = agent.ask("GET", &path).upgrade().await;
    cloud.revoke("other").await;
    assert_eq!(ends(log).await.unwrap().status, 200);
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_whose_token_goes_is_answered_with_nothing_but_that() {
    let cloud = Cloud::start().await;
    let agent = Agent::join(&cloud, 1).await;
    let since = agent.poll(None).await.json()["fence"].as_str().unwrap().to_owned();
    let parked = tokio::spawn(async move { agent.poll(Some(&since)).await });
    cloud.until_requests(2).await;
    let began = std::time::Instant::now();
    cloud.revoke("agent-1").await;
    let reply = ends(parked).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (401, "unauthorized"));
    assert!(began.elapsed() < Duration::from_secs(4), "it waited for its time, which is 5 s");
    cloud.stop().await;
}
