//! Limits, and an end in order.

use std::net::SocketAddr;
use std::time::Duration;

use haar_controller::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::agent::Agent;
use super::cloud::{Ask, Cloud, LIMIT, guest, uuid};

/// The answer as it comes; one who is turned away hears it before asking.
async fn health(addr: SocketAddr) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    // Who is turned away may be so before the question is out.
    let _ = stream.write_all(ask).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_are_taken_are_told_so() {
    let limits = Limits { connections: 3, ..Limits::default() };
    let cloud = Cloud::start_with(|config| config.limits = limits).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(cloud.addr).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).await.unwrap();
        held.push(stream);
    }
    let told = health(cloud.addr).await;
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("\"too_many_connections\""), "{told}");
    drop(held);
    let deadline = std::time::Instant::now() + LIMIT;
    while !health(cloud.addr).await.starts_with("HTTP/1.1 200 ") {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_a_problem_too() {
    let cloud = Cloud::start().await;
    let large = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nlarge: {}\r\n\r\n", "x".repeat(100 << 10));
    for (request, status, code) in
        [("NONSENSE\r\n\r\n", 400, "bad_request"), (&large, 431, "header_too_large")]
    {
        let mut stream = TcpStream::connect(cloud.addr).await.unwrap();
        // It may not be read to its end.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(head.contains("application/problem+json"), "{answer}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()));
    }
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_polls_and_waits_and_keeps_what_was_answered() {
    let cloud = Cloud::start().await;
    cloud.image().await;
    let agent = Agent::join(&cloud, 1).await;
    let fence = {
        let path = format!("/v1/guests/{}", uuid(100));
        assert_eq!(cloud.ask("PUT", &path).json(&guest("web")).send().await.status, 202);
        agent.poll(None).await.json()["fence"].as_str().unwrap().to_owned()
    };
    let poll = tokio::spawn({
        let agent = agent.clone();
        async move { agent.poll(Some(&fence)).await.status }
    });
    let path = format!("/v1/guests/{}?wait=600s", uuid(100));
    let wait = tokio::spawn(cloud.ask("PUT", &path).json(&guest("web")).send());
    // Both are under way once the controller counts them, besides the one that asks.
    cloud.until_requests(3).await;
    let began = std::time::Instant::now();
    let (folder, admin) = cloud.stop().await;
    assert!(began.elapsed() < Duration::from_secs(8), "the end took {:?}", began.elapsed());
    assert_eq!(poll.await.unwrap(), 204);
    assert_eq!(wait.await.unwrap().status, 202);
    let cloud = Cloud::start_in(folder, Some(admin), |_| {}).await.unwrap();
    assert_eq!(cloud.get("/v1/guests/web").await["state"], "creating");
    cloud.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_commits_and_none_is_lost() {
    let cloud = Cloud::start().await;
    let asked: Vec<_> = (1..=200_u128)
        .map(|number| {
            let body = serde_json::json!({"name": format!("n-{number}")});
            tokio::spawn(cloud.ask("PUT", &format!("/v1/networks/{}", uuid(number))).json(&body).send())
        })
        .collect();
    for reply in asked {
        assert_eq!(reply.await.unwrap().status, 201);
    }
    assert_eq!(cloud.get("/v1/networks?limit=1000").await["items"].as_array().unwrap().len(), 201);
    let metrics = Ask::new(cloud.addr, "GET", "/metrics").send().await.text();
    let number = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap();
        line.parse().unwrap()
    };
    assert_eq!(number("haar_commit_batch_sum"), 200.0);
    assert!(number("haar_commit_batch_count") < 200.0, "no two shared a commit");
    cloud.stop().await;
}
