//! A hypervisor's agent as the controller sees one: it joins, polls, and reports that all is done.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::cloud::{Ask, Cloud, Reply, uuid};

/// An agent with a token of its own.
#[derive(Clone)]
pub(crate) struct Agent {
    addr: SocketAddr,
    pub(crate) id: String,
    pub(crate) token: String,
    incarnation: u64,
    versions: Arc<Mutex<HashMap<String, u64>>>,
}

/// What the agent makes of an order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Settled,
    NoSpace,
}

/// An agent at work; ends when dropped.
pub(crate) struct AtWork(JoinHandle<()>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Makes a hypervisor and its token, and joins as its agent, with room for 8 CPUs, 16 GiB and 1 TiB.
    pub(crate) async fn join(cloud: &Cloud, number: u128) -> Agent {
        let id = uuid(number);
        cloud.put(&format!("/v1/hypervisors/{id}"), json!({"name": format!("host-{number}")})).await;
        let token = json!({"name": format!("agent-{number}"), "role": "agent", "hypervisor": id});
        let reply = cloud.ask("POST", "/v1/tokens").json(&token).send().await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        let token = reply.json()["secret"].as_str().unwrap().to_owned();
        let agent = Agent { addr: cloud.addr, id, token, incarnation: 0, versions: Arc::default() };
        agent.hello_again(cloud.addr).await
    }

    /// Says hello to a controller that may have started anew, and tells all it holds.
    pub(crate) async fn hello_again(mut self, addr: SocketAddr) -> Agent {
        self.addr = addr;
        let hello = json!({"version": 1, "lot": 7, "total": total(), "inventory": {"host": "lab"}});
        let reply = self.ask("POST", "/v1/agent/hello").json(&hello).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        self.incarnation = reply.json()["incarnation"].as_u64().unwrap();
        let feed = self.poll(None).await.json();
        let holds: Vec<Value> =
            feed["guests"].as_array().unwrap().iter().map(|guest| guest["id"].clone()).collect();
        let reply = self.report(&feed, vec![], Some(holds)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        self
    }

    /// The same agent, with a controller at another address.
    pub(crate) fn at(&self, addr: SocketAddr) -> Agent {
        Agent { addr, ..self.clone() }
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> Ask {
        Ask::new(self.addr, method, path).token(&self.token)
    }

    /// One poll.
    pub(crate) async fn poll(&self, since: Option<&str>) -> Reply {
        let query = since.map(|since| format!("?since={since}&wait=5s")).unwrap_or_default();
        self.ask("GET", &format!("/v1/agent/feed{query}")).send().await
    }

    /// One report; with `holds` a complete one.
    pub(crate) async fn report(&self, feed: &Value, guests: Vec<Value>, holds: Option<Vec<Value>>) -> Reply {
        let fence = feed["fence"].as_str().unwrap();
        let epoch: u64 = fence.split('.').next().unwrap().parse().unwrap();
        let mut report =
            json!({"version": 1, "incarnation": self.incarnation, "seen": fence, "guests": guests});
        if let Some(holds) = holds {
            report["complete"] = json!({"epoch": epoch, "holds": holds, "strangers": [], "total": total()});
        }
        self.ask("POST", "/v1/agent/report").json(&report).send().await
    }

    /// Does everything it is told, until dropped.
    pub(crate) fn work(&self, outcome: Outcome) -> AtWork {
        let agent = self.clone();
        AtWork(tokio::spawn(async move {
            let mut since: Option<String> = None;
            loop {
                let reply = agent.poll(since.as_deref()).await;
                if reply.status != 200 {
                    // Nothing new, or the controller is on its way out.
                    tokio::task::yield_now().await;
                    continue;
                }
                let feed = reply.json();
                let orders = feed["guests"].as_array().unwrap();
                for chunk in orders.chunks(16) {
                    let guests = chunk.iter().map(|order| agent.done(order, outcome)).collect();
                    let reply = agent.report(&feed, guests, None).await;
                    assert_eq!(reply.status, 200, "{}", reply.text());
                }
                since = Some(feed["fence"].as_str().unwrap().to_owned());
            }
        }))
    }

    /// The report on an order that is carried out, or that failed for want of space.
    pub(crate) fn done(&self, order: &Value, outcome: Outcome) -> Value {
        let id = order["id"].as_str().unwrap().to_owned();
        let mut versions = self.versions.lock().unwrap();
        let version = versions.entry(id.clone()).or_default();
        *version += 1;
        let goal = order["goal"].as_str().unwrap();
        let (phase, power, provisioned) = match (goal, outcome) {
            ("gone", _) => (json!({"is": "gone"}), "absent", false),
            (_, Outcome::NoSpace) => {
                let message = "no space left on device";
                (
                    json!({"is": "failed", "stage": "disks", "code": "no_space", "message": message}),
                    "absent",
                    false,
                )
            }
            ("running", _) => (json!({"is": "settled"}), "running", true),
            _ => (json!({"is": "settled"}), "off", true),
        };
        json!({
            "id": id, "life": order["life"], "order": order["order"], "version": *version, "phase": phase,
            "power": power, "provisioned": provisioned,
            "deed": order["deed"].get("fence").cloned().unwrap_or(Value::Null),
            "steps": [{"stage": "disks", "state": if phase["is"] == "failed" { "failed" } else { "done" }}],
            "claim": {
                "name": order["name"], "project": order["project"], "resources": order["resources"],
                "flavor": order["flavor"], "image": order["image"], "network": order["network"],
                "subnet": order["subnet"], "mac": order["mac"], "address": order["address"],
            },
        })
    }
}

fn total() -> Value {
    json!({"cpu": 8, "memory": 16 << 10, "disk": 1 << 20})
}
