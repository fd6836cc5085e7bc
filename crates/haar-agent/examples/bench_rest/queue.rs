//! Async actions through the queue, and the list of all guests, on a stub that answers at once.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use haar_api::rpc;
use haar_api::rpc_client::{self, Address};
use haar_subagents::kit::{Listen, Server};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::stage::{Connection, LIMIT, Outcome, Stage};

const GUESTS: u128 = 100;
const ACTIONS: usize = 1000;
const STAGES: usize = 2;
const LISTED: u128 = 1000;
const LISTS: usize = 201;

/// Both figures.
pub(crate) async fn measure(folder: &Path) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    let stub = stub()?;
    let stage = |method: &str| json!({"service": "stub", "method": method});
    let both = json!({"stages": [stage("Stub.First"), stage("Stub.Second")]});
    let plan = json!({
        "actions": {"create": both, "start": both},
        "services": {"stub": {"port": stub.port(), "max_pending": ACTIONS}},
    });
    let stage = Stage::begin(folder, &plan).await?;
    println!("{}", actions(&stage, stub).await?);
    println!("{}", list(&stage).await?);
    stage.end().await
}

/// A sub-agent that gives every guest back as it came.
fn stub() -> Outcome<SocketAddr> {
    let mut server = Server::new();
    for method in ["Stub.First", "Stub.Second"] {
        server.method(method, |params: Value| async move {
            let guest = params.pointer("/0/guest").or(params.get("guest")).cloned();
            Ok::<_, rpc::Fault>(json!({"guest": guest}))
        });
    }
    let bound = server.bind(&Listen::Loopback(0))?;
    let address = bound.address().ok_or("the stub has no address")?;
    tokio::spawn(bound.serve(std::future::pending()));
    Ok(address)
}

/// Makes guests with these numbers and waits until each is there.
async fn make(stage: &Stage, numbers: Range<u128>) -> Outcome<()> {
    let posts = numbers.map(|number| {
        let guest = json!({"id": Uuid::from_u128(number + 1), "memory": 512, "cpu": 1});
        ("/guests".to_owned(), guest.to_string())
    });
    let jobs = stage.post(posts.collect()).await?;
    stage.done(&jobs).await
}

async fn actions(stage: &Stage, stub: SocketAddr) -> Outcome<Value> {
    make(stage, 0..GUESTS).await?;
    let posts = (0..ACTIONS).map(|number| {
        let guest = Uuid::from_u128(number as u128 % GUESTS + 1);
        (format!("/guests/{guest}/start"), "null".to_owned())
    });
    let begun = Instant::now();
    let jobs = stage.post(posts.collect()).await?;
    let queued = begun.elapsed();
    stage.done(&jobs).await?;
    let took = begun.elapsed().as_secs_f64();
    let (ours, bare) = ((ACTIONS * STAGES) as f64 / took, bare(stub).await?);
    Ok(json!({
        "name": "agent_stages", "value": ours.round(), "unit": "stages/s", "actions": ACTIONS, "guests": GUESTS as u64,
        "queued_after_ms": queued.as_millis() as u64,
        "yardstick": "the same calls straight to the stub", "yardstick_value": bare.round(),
        "ratio": (ours / bare * 100.0).round() / 100.0,
        "read": "from the first POST to the last job's end, each job durable at every step; one guest's jobs one after the other; clients, agent and stub on the same processors",
    }))
}

/// Calls a second of the stub, as many at once as the agent has guests at work.
async fn bare(stub: SocketAddr) -> Outcome<f64> {
    let (address, turns) = (Address::Tcp(stub), Arc::new(Semaphore::new(GUESTS as usize)));
    let begun = Instant::now();
    let mut calls = JoinSet::new();
    for number in 0..ACTIONS * STAGES {
        let (address, turn) = (address.clone(), Arc::clone(&turns).acquire_owned().await?);
        calls.spawn(async move {
            let guest = json!({"guest": {"id": Uuid::from_u128(number as u128), "memory": 512, "cpu": 1}});
            let answer =
                rpc_client::call::<_, Value>(&address, rpc::DEFAULT_PATH, "Stub.First", &guest, LIMIT);
            let answer = answer.await;
            drop(turn);
            answer.map(|answer| answer["guest"] == guest["guest"])
        });
    }
    while let Some(answer) = calls.join_next().await {
        if !answer?? {
            return Err("the stub answered something else".into());
        }
    }
    Ok((ACTIONS * STAGES) as f64 / begun.elapsed().as_secs_f64())
}

async fn list(stage: &Stage) -> Outcome<Value> {
    make(stage, GUESTS..LISTED).await?;
    let mut connection = Connection::open(stage.address).await?;
    let (status, body) = connection.get("/guests").await?;
    let listed: Vec<Value> = serde_json::from_slice(&body)?;
    if status != 200 || listed.len() as u128 != LISTED {
        return Err(format!("{status} with {} guests", listed.len()).into());
    }
    let ours = median(&mut connection, "/guests").await?;
    let bare = median(&mut connection, "/metadata").await?;
    Ok(json!({
        "name": "agent_list", "value": ours, "unit": "ms", "guests": LISTED as u64, "bytes": body.len(),
        "yardstick": "GET /metadata, the smallest answer", "yardstick_value": bare,
        "ratio": (ours / bare * 100.0).round() / 100.0, "runs": LISTS,
        "read": "median of GET /guests over a kept loopback connection, read to its end",
    }))
}

/// Milliseconds until the whole answer is there.
async fn median(connection: &mut Connection, path: &str) -> Outcome<f64> {
    let mut times = Vec::with_capacity(LISTS);
    for _ in 0..LISTS {
        let begun = Instant::now();
        let (status, _) = connection.get(path).await?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        if status != 200 {
            return Err(format!("{status} for {path}").into());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times[LISTS / 2] * 1000.0).round() / 1000.0)
}
